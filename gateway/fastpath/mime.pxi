# Reading MIME text in place: physical lines, header fields (RFC 5322 §2.2), base64 and quoted-printable (RFC 2045 §6).
# Tolerant where mailers are sloppy and the meaning is plain. What divides a message into parts is parts.pxi's,
# Content-Type content_type.pxi's; what a report is, report.pxi knows.
#
# A line ends in CRLF or LF; a bare CR is data (RFC 5322 §2.3). Every function takes time linear in its input.

from libc.stdint cimport int8_t
from libc.string cimport memset

cdef enum FieldEvent:
    FIELD
    EMPTY_LINE
    END_OF_FIELDS

cdef enum Encoding:
    IDENTITY
    BASE64
    QUOTED_PRINTABLE

cdef struct LineReader:
    const uint8_t* p
    const uint8_t* end
    bint stuffed           # a dot that begins a line behind CRLF is not content (RFC 5321 §4.5.2)
    bint after_crlf

cdef struct Field:
    Span name
    Span value             # everything behind the colon, with the continuation lines
    bint folded


# --- lines and fields ---

cdef inline LineReader line_reader(const uint8_t* p, const uint8_t* end, bint stuffed) noexcept nogil:
    cdef LineReader reader
    reader.p = p
    reader.end = end
    reader.stuffed = stuffed
    reader.after_crlf = True
    return reader


cdef inline bint line_next(LineReader* r, Span* line) noexcept nogil:
    """The next physical line without its line end; False at the end."""
    cdef const uint8_t* p = r.p
    cdef const uint8_t* stop
    if p == r.end:
        return False
    stop = <const uint8_t*>memchr(p, c'\n', r.end - p)
    if r.stuffed and r.after_crlf and p[0] == c'.':
        p += 1
    if stop == NULL:
        stop = r.p = r.end
    else:
        r.p = stop + 1
        r.after_crlf = stop > p and (stop - 1)[0] == c'\r'
        stop -= r.after_crlf
    line.p = p
    line.n = stop - p
    return True


cdef inline Span trimmed(Span s) noexcept nogil:
    while s.n and is_blank(s.p[0]):
        s.p += 1
        s.n -= 1
    while s.n and is_blank(s.p[s.n - 1]):
        s.n -= 1
    return s


cdef bint field_split(Span line, Field* field) noexcept nogil:
    # RFC 5322 §2.2: a name is printable ASCII without colon; §4.5: older mail has blanks in front of the colon.
    cdef size_t i = 0
    while i < line.n and c'!' <= line.p[i] <= c'~' and line.p[i] != c':':
        i += 1
    field.name.p = line.p
    field.name.n = i
    while i < line.n and is_blank(line.p[i]):
        i += 1
    if field.name.n == 0 or i == line.n or line.p[i] != c':':
        return False
    field.value.p = line.p + i + 1
    field.value.n = line.n - i - 1
    return True


cdef FieldEvent field_next(LineReader* r, uint8_t initial, Field* field) noexcept nogil:
    """The next field, or the empty line that ends a block. With `initial` (a lower-case letter) lines that begin
    with another character are passed over unread. What is neither field nor continuation is skipped."""
    cdef Span line
    while line_next(r, &line):
        if line.n == 0:
            return EMPTY_LINE
        if (initial and (line.p[0] | 0x20) != initial) or not field_split(line, field):
            continue
        field.folded = False
        while r.p < r.end and is_blank(r.p[0]):
            line_next(r, &line)
            field.folded = True
            field.value.n = line.p + line.n - field.value.p
        return FIELD
    return END_OF_FIELDS


cpdef int count_fields(bytes content, bytes name) except -1:
    cdef LineReader reader = line_reader(octets_of(content), octets_of(content) + len(content), True)
    cdef Span wanted = Span(octets_of(name), len(name))
    cdef Field field
    cdef int count = 0
    while field_next(&reader, wanted.p[0], &field) == FIELD:
        count += equals_folded(field.name, wanted)
    return count


# --- transfer encodings ---

cdef int8_t[256] base64_values


cdef void fill_base64_values() noexcept:
    cdef const char* alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef int value
    memset(base64_values, -1, sizeof(base64_values))
    for value in range(64):
        base64_values[<uint8_t>alphabet[value]] = value


fill_base64_values()


cdef size_t base64_decode(Span text, bint in_pieces, uint8_t* out) noexcept nogil:
    """RFC 2045 §6.8: other characters are passed over; padding ends the data. `out` has room for text.n octets.

    in_pieces: blocks of fields were encoded one by one. Padding then ends only a piece, and where an empty line
    follows one that ends a line, an empty line is put out as well.
    """
    cdef uint32_t bits = 0
    cdef int pending = 0
    cdef size_t used = 0
    cdef size_t i
    cdef bint line_ended = False    # nothing but a line end, and blanks, since the last character of the data
    cdef bint piece_ended = False
    for i in range(text.n):
        if text.p[i] == c'=' and (pending == 4 or pending == 2):
            if not in_pieces:
                break
            pending = 0
            bits = 0
            piece_ended = True
            line_ended = False
            if used and out[used - 1] != c'\n':
                out[used] = c'\n'
                used += 1
            continue
        if base64_values[text.p[i]] < 0:
            if in_pieces and text.p[i] == c'\n' and used:
                if line_ended and (piece_ended or pending == 0 and out[used - 1] == c'\n'):
                    out[used] = c'\n'
                    used += 1
                    line_ended = False
                    continue
                line_ended = True
            continue
        line_ended = piece_ended = False
        bits = (bits << 6) | <uint32_t>base64_values[text.p[i]]
        pending += 6
        if pending >= 8:
            pending -= 8
            out[used] = <uint8_t>(bits >> pending)
            used += 1
    return used


cdef size_t quoted_printable_decode(Span text, bint stuffed, uint8_t* out) noexcept nogil:
    # RFC 2045 §6.7; a stray "=" stands for itself. `out` has room for text.n + 1 octets.
    cdef LineReader reader = line_reader(text.p, text.p + text.n, stuffed)
    cdef Span line
    cdef bint soft
    cdef size_t used = 0
    cdef int octet
    while line_next(&reader, &line):
        while line.n and is_blank(line.p[line.n - 1]):
            line.n -= 1
        soft = line.n > 0 and line.p[line.n - 1] == c'='
        line.n -= soft
        while line.n:
            octet = hex_pair(Span(line.p + 1, line.n - 1)) if line.p[0] == c'=' else -1
            out[used] = octet if octet >= 0 else line.p[0]
            used += 1
            advance(&line, 3 if octet >= 0 else 1)
        if not soft:
            out[used] = c'\n'
            used += 1
    return used
