# Span and byte-level helpers shared by the kernels.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy

cdef extern from "<string.h>" nogil:
    void *memrchr(const void *, int, size_t)  # GNU; Cython's libc.string does not declare it

cdef enum:
    NUL = 0x00
    HTAB = 0x09
    LF = 0x0A
    CR = 0x0D
    SP = 0x20
    DOT = 0x2E


cdef inline const uint8_t *octets_of(bytes data) noexcept:
    return <const uint8_t *>PyBytes_AS_STRING(data)


cdef inline Py_ssize_t index_of(const uint8_t *p, Py_ssize_t at, Py_ssize_t end, uint8_t octet) noexcept nogil:
    """The first index of `octet` in p[at:end], or -1."""
    if at >= end:
        return -1
    cdef const uint8_t *found = <const uint8_t *>memchr(p + at, octet, end - at)
    return -1 if found is NULL else found - p


cdef inline Py_ssize_t last_index_of(
    const uint8_t *p, Py_ssize_t at, Py_ssize_t end, uint8_t octet
) noexcept nogil:
    """The last index of `octet` in p[at:end], or -1."""
    if at >= end:
        return -1
    cdef const uint8_t *found = <const uint8_t *>memrchr(p + at, octet, end - at)
    return -1 if found is NULL else found - p
