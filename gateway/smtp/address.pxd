# The C types of address.py, which is compiled with them.

cdef class EnvelopeAddress:
    cdef readonly str local_part, domain, email
