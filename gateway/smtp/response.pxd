# The C types of response.py, which is compiled with them.

import cython

from gateway.smtp.replies cimport split_enhanced

cdef class Response:
    cdef readonly int code
    cdef readonly str enhanced, content, command


@cython.final
cdef class ReplyReader:
    cdef readonly bytes pending
    cdef readonly str malformed

    @cython.locals(buffer=bytes, answers=list, octets="const char *", start=Py_ssize_t, end=Py_ssize_t, code=int)
    cpdef list read(self, bytes data)


@cython.locals(code=int, octets=bytes, end=Py_ssize_t, text=str)
cpdef Response response_to(str command, tuple answer)


@cython.locals(octets="const unsigned char *", first=int, second=int, third=int)
cdef int _code_of_last_line(bytes buffer, Py_ssize_t start)


@cython.locals(octets="const unsigned char *", place=Py_ssize_t)
cdef Py_ssize_t _line_end(bytes buffer, Py_ssize_t start)
