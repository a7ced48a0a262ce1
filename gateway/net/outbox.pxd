# The C types of outbox.py, which is compiled with them.

cimport cython

cdef class Writer:
    cpdef write_out(self)


@cython.final
cdef class Outbox:
    cdef object _call_soon
    cdef list _waiting, _afterwards
    cdef bint _awake

    cpdef add(self, Writer writer)
    cpdef afterwards(self, callback)
    cdef _wake(self)

    @cython.locals(writer=Writer)
    cpdef _turn(self)
