# PackedNames: numbers by name, for a million names, read by many processes.
#
# A table is two blocks of octets: slots, each the place of a record plus one, or 0; and records, one behind the other:
# length (2 octets), number (4), the name in UTF-8. A name's slot is its hash's or one of those after it. No name is an
# object, so processes that fork share all of it.

from cpython.mapping cimport PyMapping_Items
from libc.stdint cimport uint16_t

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    NAME_HEADER = 6
    LONGEST_NAME = 0xFFFF


cdef inline uint64_t name_hash(const uint8_t *p, size_t n) noexcept nogil:
    """FNV-1a, with the upper half mixed into the lower one, which chooses the slot."""
    cdef uint64_t h = 0xCBF29CE484222325ULL
    cdef size_t i
    for i in range(n):
        h = (h ^ p[i]) * 0x100000001B3ULL
    return h ^ (h >> 32)


cdef const uint8_t *name_record(
    const uint32_t *slots, uint64_t mask, const uint8_t *records, Span name, uint64_t *slot
) noexcept nogil:
    """The record of a name; NULL if it has none, and then `slot` is where it would go."""
    cdef const uint8_t *record
    cdef uint16_t length
    slot[0] = name_hash(name.p, name.n) & mask
    while slots[slot[0]]:
        record = records + slots[slot[0]] - 1
        memcpy(&length, record, sizeof(length))
        if length == name.n and memcmp(record + NAME_HEADER, name.p, name.n) == 0:
            return record
        slot[0] = (slot[0] + 1) & mask
    return NULL


@cython.final
@cython.auto_pickle(False)
cdef class PackedNames:
    def __init__(self, numbers):
        cdef Py_ssize_t used = 0, size, room = 0, slots = 2
        cdef uint64_t slot
        cdef uint32_t *places
        cdef uint8_t *p
        cdef uint16_t length
        cdef uint32_t number
        cdef Span span
        items = PyMapping_Items(numbers)
        for name, _ in items:
            PyUnicode_AsUTF8AndSize(name, &size)
            if size > LONGEST_NAME:
                raise ValueError("a name is too long")
            room += NAME_HEADER + size
        if room > 0xFFFFFFF0:
            raise ValueError("the names take more than 4 GiB")
        while slots * 2 < len(items) * 3:
            slots *= 2
        slot_block = bytes(slots * sizeof(uint32_t))
        record_block = PyBytes_FromStringAndSize(NULL, room)
        places = <uint32_t *>PyBytes_AS_STRING(slot_block)
        p = <uint8_t *>PyBytes_AS_STRING(record_block)
        for name, value in items:
            span.p = <const uint8_t *>PyUnicode_AsUTF8AndSize(name, &size)
            span.n = length = <uint16_t>size
            number = value
            name_record(places, slots - 1, p, span, &slot)
            places[slot] = <uint32_t>(used + 1)
            memcpy(p + used, &length, sizeof(length))
            memcpy(p + used + sizeof(length), &number, sizeof(number))
            memcpy(p + used + NAME_HEADER, span.p, span.n)
            used += NAME_HEADER + length
        self.__setstate__((slot_block, record_block, len(items)))

    def __setstate__(self, state):
        self.slots, self.records, self.count = state
        self.slot = <const uint32_t *>PyBytes_AS_STRING(self.slots)
        self.record = <const uint8_t *>PyBytes_AS_STRING(self.records)
        self.mask = PyBytes_GET_SIZE(self.slots) // sizeof(uint32_t) - 1

    def __reduce__(self):
        return PackedNames, ({},), (self.slots, self.records, self.count)

    def __len__(self):
        return self.count

    cpdef int64_t find(self, str name) except -2:
        cdef Span span
        if not utf8_of(name, &span):
            return -1
        return number_of(self, span)

    cpdef int64_t find_above(self, str name) except -2:
        cdef Span span
        cdef Py_ssize_t dot = 0
        cdef int64_t found = -1
        if self.count == 0 or not utf8_of(name, &span):
            return -1
        while found < 0 and dot >= 0:
            dot = index_of(span.p, 0, span.n, DOT)
            if dot < 0:
                span.n = 0
            else:
                span.p, span.n = span.p + dot + 1, span.n - dot - 1
            found = number_of(self, span)
        return found


cdef bint utf8_of(str name, Span *span) except -1:
    """False for a name with octets that are no UTF-8, which are in no table."""
    cdef Py_ssize_t size
    try:
        span.p = <const uint8_t *>PyUnicode_AsUTF8AndSize(name, &size)
    except UnicodeEncodeError:
        return False
    span.n = size
    return True


cdef int64_t number_of(PackedNames names, Span name) noexcept:
    cdef uint64_t slot
    cdef uint32_t number
    cdef const uint8_t *record = name_record(names.slot, names.mask, names.record, name, &slot)
    if record is NULL:
        return -1
    memcpy(&number, record + sizeof(uint16_t), sizeof(number))
    return number
