# Span and byte-level helpers shared by the kernels.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, strlen

cdef extern from "<string.h>" nogil:
    void *memrchr(const void *, int, size_t)  # GNU; Cython's libc.string does not declare it

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)

cdef enum:
    NUL = 0x00
    HTAB = 0x09
    LF = 0x0A
    CR = 0x0D
    SP = 0x20
    DOT = 0x2E


cdef inline const uint8_t *octets_of(bytes data) noexcept:
    return <const uint8_t *>PyBytes_AS_STRING(data)


cpdef bint is_ascii(str text) noexcept:
    return text is not None and PyUnicode_IS_ASCII(text)


cdef inline bint is_7bit(bytes data) noexcept:
    """bytes.isascii() without the call."""
    cdef const uint8_t *p = octets_of(data)
    cdef uint8_t bits = 0
    cdef Py_ssize_t i
    for i in range(PyBytes_GET_SIZE(data)):
        bits |= p[i]
    return bits < 0x80


cdef inline bytes part_of(bytes data, Py_ssize_t at, Py_ssize_t end):
    """data[at:end]; data itself if that is all of it. Cheaper than Python's slicing, which makes objects."""
    if at == 0 and end == PyBytes_GET_SIZE(data):
        return data
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + at, end - at)


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


cdef struct Span:  # octets of a buffer that somebody else owns
    const uint8_t* p
    size_t n


cdef inline bint is_blank(uint8_t octet) noexcept nogil:
    return octet == SP or octet == HTAB


cdef inline bint equals_folded(Span s, Span lower) noexcept nogil:
    """Whether s is `lower`, which has no upper-case letters, without regard to ASCII case."""
    cdef size_t i
    cdef uint8_t c
    if s.n != lower.n:
        return False
    for i in range(s.n):
        c = s.p[i]
        if c != lower.p[i] and not (c'A' <= c <= c'Z' and c + 32 == lower.p[i]):
            return False
    return True


cdef bint has_folded(Span s, Span lower) noexcept nogil:
    """Whether `lower`, which has no upper-case letters, stands in s without regard to case."""
    cdef uint8_t first = lower.p[0] | 0x20
    cdef size_t i
    for i in range(s.n - lower.n + 1 if s.n >= lower.n else 0):
        if s.p[i] | 0x20 == first and equals_folded(Span(s.p + i, lower.n), lower):
            return True
    return False


cdef inline Span literal(const char* text) noexcept nogil:
    return Span(<const uint8_t*>text, strlen(text))


cdef inline uint32_t load_be32(const uint8_t *p) noexcept nogil:
    """Four octets in network order as a number."""
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline uint64_t load_be64(const uint8_t *p) noexcept nogil:
    """Eight octets in network order as a number."""
    return (<uint64_t>load_be32(p) << 32) | load_be32(p + 4)
