# The C types of counting.py, which is compiled with them.

import cython

from gateway._fastpath cimport CounterPage
from gateway.smtp.exchange cimport Exchange

cdef list _MAIL, _RCPT, _DATA, _END_OF_DATA

cpdef count_exchange(CounterPage page, Exchange exchange)


@cython.locals(code=int)
cdef _count(CounterPage page, list slots, tuple answer)
