# The C types of client_values.py, which is compiled with them.

import cython

from gateway.smtp.address cimport EnvelopeAddress

cdef class Transaction:
    cdef readonly EnvelopeAddress sender
    cdef readonly object recipients, chunks
    cdef readonly Py_ssize_t size
    cdef readonly bint eight_bit, smtputf8
    cdef readonly list answers
    cdef public int accepted
    cdef public bint deferred, chunked, content_sent

    cpdef bint content_may_follow(self)

    @cython.locals(octets=Py_ssize_t)
    cpdef bint fits_one_chunk(self)
