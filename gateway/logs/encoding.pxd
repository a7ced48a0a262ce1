# The C types of encoding.py, which is compiled with them.

cdef class Form:
    cdef readonly object type
    cdef readonly tuple pieces

cdef class Record:
    cdef readonly Form form
    cdef readonly object meta
    cdef tuple _before, _behind

    cpdef bytes line(self, bytes meta=*, bytes headers=*)
