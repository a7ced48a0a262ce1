# Writing JSON (RFC 8259): values put into the gaps of an object whose other octets are the same every time.
# Text, integers and null only; what else a record holds comes already encoded. Which keys there are, and what a gap
# means, is for gateway/logs.

from cpython.bytes cimport PyBytes_CheckExact
from cpython.long cimport PyLong_AsLongLong, PyLong_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    MAX_GAPS = 64
    MAX_DIGITS = 20                # of a 64-bit integer, with its sign

cdef struct Filling:               # what goes into a gap
    Span text
    bint quoted
    bint escaped                   # something in it needs a backslash
    uint8_t[MAX_DIGITS] digits     # room for the text of an integer

cdef const char* HEX_DIGITS = "0123456789abcdef"


cdef inline uint8_t short_escape(uint8_t octet) noexcept nogil:
    """The letter behind the backslash (RFC 8259 §7); "u" where it takes four digits, NUL where it takes no escape."""
    if octet == c'"' or octet == c'\\':
        return octet
    if octet >= SP:
        return 0
    if octet == c'\b':
        return c'b'
    if octet == HTAB:
        return c't'
    if octet == LF:
        return c'n'
    if octet == c'\f':
        return c'f'
    return c'r' if octet == CR else c'u'


cdef bint needs_escapes(Span s) noexcept nogil:
    cdef uint8_t hit = 0
    cdef size_t i
    for i in range(s.n):  # without a branch, so that the compiler makes vector code of it
        hit |= (s.p[i] < SP) | (s.p[i] == c'"') | (s.p[i] == c'\\')
    return hit


cdef size_t escaped_size(Span s) noexcept nogil:
    cdef size_t i, n = s.n
    cdef uint8_t letter
    for i in range(s.n):
        letter = short_escape(s.p[i])
        if letter:
            n += 5 if letter == c'u' else 1
    return n


cdef uint8_t* escape(Span s, uint8_t* out) noexcept nogil:
    cdef size_t i
    cdef uint8_t octet, letter
    for i in range(s.n):
        octet = s.p[i]
        letter = short_escape(octet)
        if letter:
            out[0] = c'\\'
            out[1] = letter
            out += 2
        if letter == c'u':
            out[0] = out[1] = c'0'
            out[2] = HEX_DIGITS[octet >> 4]
            out[3] = HEX_DIGITS[octet & 15]
            out += 4
        elif letter == 0:
            out[0] = octet
            out += 1
    return out


cdef Span decimal(long long number, uint8_t* digits) noexcept nogil:
    """`number` as text at the end of `digits`, which has room for MAX_DIGITS octets."""
    cdef uint64_t rest = number
    cdef int at = MAX_DIGITS
    if number < 0:
        rest = 0 - rest
    while True:
        at -= 1
        digits[at] = c'0' + rest % 10
        rest //= 10
        if rest == 0:
            break
    if number < 0:
        at -= 1
        digits[at] = c'-'
    return Span(digits + at, MAX_DIGITS - at)


cdef Py_ssize_t measure(object value, Filling* filling) except -1:
    """Makes `filling` of a value; returns how many octets it takes."""
    cdef Py_ssize_t n
    filling.quoted = filling.escaped = False
    if PyUnicode_CheckExact(value):
        filling.text.p = <const uint8_t*>PyUnicode_AsUTF8AndSize(value, &n)
        filling.text.n = n
        filling.quoted = True
        filling.escaped = needs_escapes(filling.text)
        return 2 + (escaped_size(filling.text) if filling.escaped else n)
    if PyBytes_CheckExact(value):
        filling.text = Span(octets_of(value), PyBytes_GET_SIZE(value))
    elif PyLong_CheckExact(value):
        filling.text = decimal(PyLong_AsLongLong(value), filling.digits)
    elif value is None:
        filling.text = literal(b"null")
    else:
        raise TypeError("neither text, integer, None nor encoded JSON")
    return filling.text.n


cdef inline uint8_t* put_span(Span s, uint8_t* out) noexcept nogil:
    memcpy(out, s.p, s.n)
    return out + s.n


cdef uint8_t* put_filling(Filling* filling, uint8_t* out) noexcept nogil:
    if not filling.quoted:
        return put_span(filling.text, out)
    out[0] = c'"'
    out = escape(filling.text, out + 1) if filling.escaped else put_span(filling.text, out + 1)
    out[0] = c'"'
    return out + 1


def fill_gaps(tuple pieces not None, tuple values not None):
    cdef Filling[MAX_GAPS] fillings
    cdef Py_ssize_t i, total = 0, count = len(values)
    cdef bytes result, piece
    cdef uint8_t* out
    if count > MAX_GAPS or len(pieces) != count + 1:
        raise ValueError("not as many values as gaps")
    for i in range(count):
        total += measure(values[i], &fillings[i])
    for piece in pieces:
        total += len(piece)
    result = PyBytes_FromStringAndSize(NULL, total)
    out = <uint8_t*>PyBytes_AS_STRING(result)
    for i in range(count + 1):
        piece = <bytes>pieces[i]
        out = put_span(Span(octets_of(piece), PyBytes_GET_SIZE(piece)), out)
        if i < count:
            out = put_filling(&fillings[i], out)
    return result
