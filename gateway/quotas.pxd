# The C types of quotas.py, which is compiled with them.

cdef class Quotas:
    cdef object _rates, _held
    cdef bytes _seed
    cdef dict _cells
    cdef Py_ssize_t _told

    cpdef Py_ssize_t newly_shared(self) except -1
    cpdef tuple cell(self, str what, str who, str scope)
    cpdef int hold(self, tuple cell, Py_ssize_t most) except -1
    cpdef release(self, tuple cell, int how)
