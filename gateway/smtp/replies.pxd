# The C types of replies.py, which is compiled with them.

import cython

cdef class Reply:
    cdef readonly int code
    cdef readonly str enhanced, text
    cdef readonly object reason
    cdef readonly bint closes
    cdef readonly bytes wire


cdef bytes _wire(int code, str enhanced, str text)
cpdef Reply accepted(list ids, Py_ssize_t refused=*, Py_ssize_t total=*)


@cython.locals(end=Py_ssize_t)
cpdef tuple split_enhanced(int code, str line)


@cython.locals(numbers=int, digits=int, place=Py_ssize_t, letter=Py_UCS4)
cdef Py_ssize_t _enhanced_code_end(str line)
