# The C types of encoding.py, which is compiled with them.

from gateway._fastpath cimport JsonLine

cdef class Form:
    cdef readonly object type
    cdef readonly tuple pieces

cdef class Record:
    cdef readonly object type, meta
    cdef bytes _line
    cdef Py_ssize_t _behind_meta

    cpdef bytes line(self, bytes meta=*, bytes headers=*)

cdef class Draft(JsonLine):
    cdef object _type
    cdef Py_ssize_t _behind_meta

    cpdef begin(self, Form form)
    cpdef leave_out_meta_and_headers(self)
    cpdef Record record(self, meta)

cdef class Selection:
    cdef readonly bint shows_meta, shows_headers
    cdef object _meta_names, _meta_starts, _header_names, _header_starts
