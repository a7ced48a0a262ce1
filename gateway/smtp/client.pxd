# The C types of client.py, which is compiled with them.

import cython

from gateway.smtp.exchange cimport Exchange
from gateway.smtp.response cimport ReplyReader

cdef class ClientSession:
    cdef readonly object state, failure, failed_at, size_limit, takes
    cdef public str ehlo_domain, password
    cdef readonly str detail
    cdef readonly dict extensions
    cdef readonly int capabilities
    cdef readonly list answered
    cdef readonly Exchange exchange
    cdef object _path
    cdef dict _timeouts
    cdef ReplyReader _reader
    cdef list _output, _commands
    cdef object _pieces
    cdef readonly bint heard, bdat_unknown, out_of_step, turned_away
    cdef bint _pipelining, _chunking, _tells, _tls_active, _authenticated
    cdef readonly str not_introduced
    cdef str _introduction, _introduced

    @cython.locals(place=Py_ssize_t, answer=tuple)
    cpdef receive_data(self, bytes data)
    cpdef bint has_output(self)
    cpdef bint is_sending(self)
    cpdef list data_to_send(self)
    cdef bytes _next_piece(self)
    cpdef begin(self, Exchange exchange)
    cpdef without_chunks(self)
    cpdef introduce(self, client)
    cdef _transact(self, Exchange exchange)
    cpdef quit(self)
    cdef _say(self, str commands)
    cpdef fail(self, failure, str detail)
    cdef str _mail_parameters(self, Exchange exchange)

    @cython.locals(code=int, kind=int, exchange=Exchange)
    cdef _on_envelope(self, tuple answer)

    @cython.locals(code=int, kind=int)
    cdef _on_rcpt(self, Exchange exchange, tuple answer)

    @cython.locals(code=int)
    cdef _on_last_of_envelope(self, Exchange exchange, tuple answer)
    cdef _on_binary(self, Exchange exchange)
    cdef _out_of_place(self, tuple answer)
    cdef _send(self, Exchange exchange)
    cdef _next_command(self, Exchange exchange)

    @cython.locals(code=int)
    cdef _on_data(self, Exchange exchange, tuple answer)

    @cython.locals(code=int, exchange=Exchange)
    cdef _on_content(self, tuple answer)
    cdef _on_early_answer(self, Exchange exchange, tuple answer)
    cdef _refused(self, Exchange exchange)
    cdef _conclude(self, state)
