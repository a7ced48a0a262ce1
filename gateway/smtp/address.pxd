# The C types of address.py, which is compiled with them.

cimport cython


@cython.freelist(32)
cdef class EnvelopeAddress:
    cdef readonly str email, domain
