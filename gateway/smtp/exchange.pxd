# The C types of exchange.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport Content
from gateway.smtp.address cimport EnvelopeAddress


@cython.freelist(16)
@cython.final
cdef class Exchange:
    cdef readonly EnvelopeAddress sender
    cdef readonly object recipients
    cdef readonly Content content
    cdef readonly bint smtputf8, divisible
    cdef readonly int left_out
    cdef readonly object requests
    cdef public tuple mail, data, verdict, postponed
    cdef readonly list rcpts
    cdef public list verdicts
    cdef public int accepted
    cdef public bint deferred, chunked, content_sent

    cpdef str mail_parameters(self, int capabilities)

    @cython.locals(recipient=EnvelopeAddress)
    cpdef list rcpt_commands(self, int capabilities)
    cpdef due(self)

    @cython.locals(code=int)
    cpdef bint taken(self)

    cpdef let_go(self)

    @cython.locals(code=int)
    cpdef bint content_may_follow(self)
    cpdef bint fits_one_chunk(self)
