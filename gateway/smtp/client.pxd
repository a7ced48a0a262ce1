# The C types of client.py, which is compiled with them.

import cython

from gateway.smtp.client_values cimport Transaction
from gateway.smtp.response cimport ReplyReader

cdef class ClientSession:
    cdef readonly object state, failure, failed_at, size_limit
    cdef readonly str ehlo_domain, detail
    cdef readonly dict extensions
    cdef readonly list answered
    cdef readonly Transaction transaction
    cdef object _path
    cdef dict _timeouts
    cdef ReplyReader _reader
    cdef list _output, _commands
    cdef readonly bint bdat_unknown
    cdef bint _pipelining, _chunking, _tls_active

    @cython.locals(place=Py_ssize_t, answer=tuple)
    cpdef receive_data(self, bytes data)
    cpdef bint has_output(self)
    cpdef list data_to_send(self)
    cpdef begin(self, Transaction transaction)
    cpdef quit(self)
    cdef _say(self, str commands)
    cpdef fail(self, failure, str detail)
    cpdef str _mail_parameters(self, Transaction transaction)

    @cython.locals(code=int, kind=int, last=bint)
    cpdef _on_envelope(self, tuple answer)
    cpdef _next_command(self, Transaction transaction)
    cpdef _on_data(self, Transaction transaction, tuple answer)

    @cython.locals(code=int)
    cpdef _on_content(self, tuple answer)
    cpdef _refused(self, Transaction transaction)
    cpdef _conclude(self, state)
