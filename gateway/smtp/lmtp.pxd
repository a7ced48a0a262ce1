# The C types of lmtp.py, which is compiled with them, because it is made of a class that is.

import cython

from gateway.smtp.client cimport ClientSession
from gateway.smtp.exchange cimport Exchange

cdef class LmtpSession(ClientSession):
    @cython.locals(code=int, exchange=Exchange)
    cdef _on_content(self, tuple answer)
