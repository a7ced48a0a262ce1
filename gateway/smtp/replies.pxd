# The C types of replies.py, which is compiled with them.

cdef class Reply:
    cdef readonly int code
    cdef readonly str enhanced, text
    cdef readonly object reason
    cdef readonly bint closes
    cdef readonly bytes wire


cpdef bytes _wire(int code, str enhanced, str text)
