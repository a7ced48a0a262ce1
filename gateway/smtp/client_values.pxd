# The C types of client_values.py, which is compiled with them.

from gateway._fastpath cimport Content
from gateway.smtp.address cimport EnvelopeAddress

cdef class Transaction:
    cdef readonly EnvelopeAddress sender
    cdef readonly object recipients
    cdef readonly Content content
    cdef readonly bint smtputf8
    cdef readonly list answers
    cdef public int accepted
    cdef public bint deferred, chunked, content_sent

    cpdef bint content_may_follow(self)
    cpdef bint fits_one_chunk(self)
