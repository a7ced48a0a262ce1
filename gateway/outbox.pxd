# The C types of outbox.py, which is compiled with them.

cdef class Outbox:
    cdef object _call_soon
    cdef list _waiting

    cpdef add(self, writer)
