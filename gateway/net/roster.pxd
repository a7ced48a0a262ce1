# The C types of roster.py, which is compiled with them.

cimport cython


@cython.final
cdef class Roster:
    cdef readonly bint draining
    cdef object _drained
    cdef set _open

    cpdef add(self, connection)
    cpdef remove(self, connection)
