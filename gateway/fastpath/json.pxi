# Writing JSON (RFC 8259): values put into the gaps of an object whose other octets are the same every time.
# Text, integers and times (RFC 3339) only; what else a record holds comes already encoded. Which keys there are, and
# what a gap means, is for gateway/logs. JsonLine's C attributes are declared in _fastpath.pxd.

from libc.stdlib cimport free, realloc
from libc.time cimport time_t, tm

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const uint8_t* PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef extern from "<time.h>" nogil:
    tm* gmtime_r(const time_t*, tm*)

cdef enum:
    USUAL_LINE = 1024              # octets to begin with
    MAX_DIGITS = 20                # of a 64-bit integer, with its sign
    LONGEST_ESCAPE = 6             # octets: \u001f
    DATE_AND_TIME = 19             # octets

cdef uint64_t EACH_OCTET = 0x0101010101010101
cdef uint64_t HIGH_BITS = 0x8080808080808080

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


cdef inline bint takes_escape(uint64_t word) noexcept nogil:
    """Whether any of eight octets does: below SP, a quote or a backslash. None of the three has its high bit set."""
    cdef uint64_t below = word - EACH_OCTET * SP  # borrows into a high bit where an octet is smaller
    cdef uint64_t quote = (word ^ EACH_OCTET * c'"') - EACH_OCTET
    cdef uint64_t backslash = (word ^ EACH_OCTET * c'\\') - EACH_OCTET
    return ((below | quote | backslash) & ~word & HIGH_BITS) != 0


cdef inline bint copy_plain_word(const uint8_t* p, uint8_t* out) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, p, 8)
    memcpy(out, &word, 8)
    return not takes_escape(word)


cdef inline bint copy_plain(Span s, uint8_t* out) noexcept nogil:
    """Copies text that needs no escapes. False where it does; what was copied is worth nothing then."""
    cdef size_t i
    if s.n < 8:
        for i in range(s.n):
            out[i] = s.p[i]
            if short_escape(s.p[i]):
                return False
        return True
    i = 0
    while i < s.n - 8:
        if not copy_plain_word(s.p + i, out + i):
            return False
        i += 8
    return copy_plain_word(s.p + s.n - 8, out + s.n - 8)  # most often overlaps with the one before


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


cdef inline void put_digits(uint64_t number, int count, uint8_t* out) noexcept nogil:
    """The last `count` decimal digits."""
    while count:
        count -= 1
        out[count] = c'0' + number % 10
        number //= 10


cdef struct Second:  # the one that was written last: records come in runs of the same
    time_t seconds
    uint8_t[DATE_AND_TIME] text

cdef Second latest
latest.seconds = 0
memcpy(latest.text, <const char*>b"1970-01-01T00:00:00", DATE_AND_TIME)


cdef void set_latest(time_t seconds) noexcept nogil:
    cdef tm parts
    gmtime_r(&seconds, &parts)
    latest.seconds = seconds
    put_digits(parts.tm_year + 1900, 4, latest.text)
    put_digits(parts.tm_mon + 1, 2, latest.text + 5)
    put_digits(parts.tm_mday, 2, latest.text + 8)
    put_digits(parts.tm_hour, 2, latest.text + 11)
    put_digits(parts.tm_min, 2, latest.text + 14)
    put_digits(parts.tm_sec, 2, latest.text + 17)


cdef inline int reserve(JsonLine line, Py_ssize_t octets) except -1:
    return widen(line, octets) if line.size + octets > line.capacity else 0


cdef int widen(JsonLine line, Py_ssize_t octets) except -1:
    cdef Py_ssize_t capacity = max(line.size + octets, 2 * line.capacity)
    cdef uint8_t* room = <uint8_t*>realloc(line.room, capacity)
    if room is NULL:
        raise MemoryError
    line.room = room
    line.capacity = capacity
    return 0


cdef inline int put_span(JsonLine line, Span s) except -1:
    reserve(line, s.n)
    memcpy(line.room + line.size, s.p, s.n)
    line.size += s.n
    return 0


cdef int put_piece(JsonLine line) except -1:
    cdef bytes piece = line.pieces[line.filled]
    line.filled += 1
    return put_span(line, Span(octets_of(piece), PyBytes_GET_SIZE(piece)))


cdef int next_gap(JsonLine line) except -1:
    if line.filled >= line.gaps:
        raise ValueError("no gap is left")
    return put_piece(line)


@cython.auto_pickle(False)
cdef class JsonLine:
    def __dealloc__(self):
        free(self.room)

    cpdef start(self, tuple pieces):
        if not pieces:
            raise ValueError("no pieces")
        self.pieces = pieces
        self.gaps = len(pieces) - 1
        self.filled = self.size = 0
        reserve(self, USUAL_LINE)

    cpdef text(self, str value):
        cdef Span s
        cdef bytes encoded
        cdef uint8_t* out
        next_gap(self)
        if value is None:
            put_span(self, literal(b"null"))
            return
        if PyUnicode_IS_COMPACT_ASCII(value):
            s = Span(PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value))
        else:
            encoded = value.encode("utf-8", "replace")  # there may be lone surrogates
            s = Span(octets_of(encoded), PyBytes_GET_SIZE(encoded))
        reserve(self, s.n + 2)
        out = self.room + self.size + 1
        if copy_plain(s, out):
            out += s.n
        else:
            reserve(self, LONGEST_ESCAPE * s.n + 2)
            out = escape(s, self.room + self.size + 1)
        self.room[self.size] = out[0] = c'"'
        self.size = out + 1 - self.room

    cpdef integer(self, int64_t value):
        cdef uint8_t[MAX_DIGITS] digits
        next_gap(self)
        put_span(self, decimal(value, digits))

    cpdef json(self, bytes value):
        if value is None:
            raise TypeError("None is no JSON")
        next_gap(self)
        put_span(self, Span(octets_of(value), PyBytes_GET_SIZE(value)))

    cpdef time(self, int64_t seconds, int64_t fraction, int digits):
        cdef uint8_t* out
        if not 1 <= digits <= MAX_DIGITS:
            raise ValueError("no such fraction")
        next_gap(self)
        if seconds != latest.seconds:
            set_latest(seconds)
        reserve(self, DATE_AND_TIME + MAX_DIGITS + 4)
        out = self.room + self.size
        out[0] = out[DATE_AND_TIME + digits + 3] = c'"'
        memcpy(out + 1, latest.text, DATE_AND_TIME)
        out[DATE_AND_TIME + 1] = c'.'
        put_digits(fraction, digits, out + DATE_AND_TIME + 2)
        out[DATE_AND_TIME + digits + 2] = c'Z'
        self.size += DATE_AND_TIME + digits + 4

    cpdef bytes finish(self):
        if self.pieces is None or self.filled != self.gaps:
            raise ValueError("not every gap is filled")
        put_piece(self)
        return PyBytes_FromStringAndSize(<const char*>self.room, self.size)
