# Finding the parts of a multipart: delimiter lines (RFC 2046 §5.1.1), and in header sections the two fields that tell
# what a part is. Which parts matter, report.pxi knows.
#
# Most lines matter to nobody, and hostile messages have many short ones. So lines are found 64 octets at a time, as
# bits of a number, and a line that does not matter costs looking at its first octet.

cdef enum Delimiter:
    NO_DELIMITER
    NEXT_PART
    CLOSE

cdef enum HeaderEvent:
    CONTENT_TYPE
    CONTENT_TRANSFER_ENCODING
    END_OF_HEADER

cdef extern from *:
    """
    #define FOLD_8 0x2020202020202020u  /* makes ASCII letters lower case */
    #define CONTENT_DASH 0x636f6e74656e742du  /* "content-" */
    """
    const uint64_t FOLD_8, CONTENT_DASH

cdef enum:
    LOOKAHEAD = 64 + 1
    MAX_SOUGHT = 60             # octets of a delimiter of which the rarest are looked for
    MAX_MISSES = 16             # of an octet that is not rare in this message, until pairs are looked for
    FOLD_4 = 0x20202020         # makes ASCII letters lower case
    TYPE = 0x74797065           # "type"
    MAX_GUESSES = 64            # blocks that are looked at in vain, before reading everything is cheaper

cdef struct LineEnds:       # a place in a message, and line ends from there on
    const uint8_t* block    # 64 octets that are being looked at
    uint64_t found          # bit i: block[i] is such a line end, and it is still to come
    const uint8_t* start    # what to look through
    const uint8_t* end
    const uint8_t* limit    # what may be read: the end of the message

cdef struct HeaderReader:
    LineEnds ends
    const uint8_t* line     # where to read on: the start of a line
    bint stuffed            # see LineReader
    bint any_failed         # whether there may be an X-Failed-Recipients in front of `line`

cdef struct PartReader:
    LineEnds ends           # that a dash follows
    const uint8_t* p        # the start of a line
    Span delimiter          # "--" and the boundary; in front of it stands a line end
    Rare rare               # of that line end and the delimiter
    const uint8_t* at       # where the next one of an octet may be
    int misses_left         # of that octet
    int lines_left          # that begin with the delimiter and may still be looked at


# --- lines ---

cdef uint64_t line_ends_of_last_block(const LineEnds* ends, bint dashed) noexcept nogil:
    cdef uint8_t[64 + 1] last
    cdef const uint8_t* p = ends.block
    cdef Py_ssize_t missing = 64 + dashed - (ends.limit - p)
    if missing >= 64:
        return 0
    if p - ends.start >= missing:
        p -= missing
        return (find_in_block(p, b"\n-", 2) if dashed else find_in_block(p, b"\n", 1)) >> missing
    memset(last, 0, sizeof(last))
    memcpy(last, p, ends.limit - p)
    return find_in_block(last, b"\n-", 2) if dashed else find_in_block(last, b"\n", 1)


cdef inline void block_from(LineEnds* ends, const uint8_t* p, bint dashed) noexcept nogil:
    ends.block = p
    if ends.limit - p < 64 + dashed:
        ends.found = line_ends_of_last_block(ends, dashed)
    else:
        ends.found = find_in_block(p, b"\n-", 2) if dashed else find_in_block(p, b"\n", 1)


cdef inline void line_ends_from(
    LineEnds* ends, const uint8_t* p, const uint8_t* end, const uint8_t* limit, bint dashed
) noexcept nogil:
    ends.start = p
    ends.end = end
    ends.limit = limit
    block_from(ends, p, dashed)


cdef inline const uint8_t* line_end_taken(LineEnds* ends) noexcept nogil:
    """The next of the line ends of the block; `end` if that is passed."""
    cdef const uint8_t* p = ends.block + lowest_bit(ends.found)
    ends.found &= ends.found - 1
    if p >= ends.end:
        ends.found = 0
        ends.block = ends.end
        return ends.end
    return p


cdef inline const uint8_t* line_end_next(LineEnds* ends) noexcept nogil:
    """The next line end; `end` if there is none."""
    while ends.found == 0:
        if ends.end - ends.block <= 64:
            return ends.end
        block_from(ends, ends.block + 64, False)
    return line_end_taken(ends)


# --- the names of the two kinds of report, wherever ---

cdef inline const uint8_t* aligned(const uint8_t* p, const uint8_t* start) noexcept nogil:
    """A little in front of p, but not of `start`: an address from which reading is twice as quick."""
    return max(start, p - (<size_t>p & 63))


cdef inline bint is_named_at(const uint8_t* dash, const uint8_t* start, const uint8_t* end) noexcept nogil:
    cdef Span name = Span(dash - 8, 15)
    return dash - start >= 8 and end - dash >= 7 and (
        equals_folded(name, literal(b"delivery-status")) or equals_folded(name, literal(b"feedback-report"))
    )


cdef bint is_named_in(const uint8_t* block, const uint8_t* start, const uint8_t* end) noexcept nogil:
    """Whether one of the dashes behind each of 64 octets stands in a name."""
    cdef uint64_t dashes = find_in_block(block + 1, b"-", 1)
    while dashes:
        if is_named_at(block + 1 + lowest_bit(dashes), start, end):
            return True
        dashes &= dashes - 1
    return False


cdef bint names_report(
    const uint8_t* message, const uint8_t* p, const uint8_t* end, const uint8_t* limit
) noexcept nogil:
    """False if neither "delivery-status" nor "feedback-report" is anywhere between p and `end` in whatever case. A
    little more may be looked at, from `message` up to `limit`, and after MAX_GUESSES in vain it is over, so that True
    says nothing for certain."""
    cdef const uint8_t* last = limit - LOOKAHEAD
    cdef const uint8_t* stop = min(end, last)
    cdef const uint8_t* block = aligned(p, message)
    cdef int left = MAX_GUESSES
    if last < p:
        return has_folded(Span(p, limit - p), literal(b"delivery-status")) or has_folded(
            Span(p, limit - p), literal(b"feedback-report")
        )
    while left:
        block = skip_to_name(block, stop)
        if block >= stop:
            return end > last and skip_to_name(last, last + 1) == last and is_named_in(last, p, limit)
        if is_named_in(block, p, limit):
            return True
        block = aligned(block + 64, message)
        left -= 1
    return True


# --- header sections ---

cdef const uint8_t* behind_colon(const uint8_t* p, const uint8_t* end) noexcept nogil:
    # p is behind the name of a field; NULL: it is not.
    while p < end and is_blank(p[0]):  # RFC 5322 §4.5
        p += 1
    return p + 1 if p < end and p[0] == c':' else NULL


cdef inline const uint8_t* content_field(const uint8_t* p, const uint8_t* end, HeaderEvent* which) noexcept nogil:
    """Where the value of the field that begins at p begins, if it is one of the two; else NULL."""
    cdef Span encoding = literal(b"content-transfer-encoding")
    if end - p <= 12 or load_be64(p) | FOLD_8 != CONTENT_DASH or p[7] != c'-':
        return NULL
    if load_be32(p + 8) | FOLD_4 == TYPE:
        which[0] = CONTENT_TYPE
        return behind_colon(p + 12, end)
    which[0] = CONTENT_TRANSFER_ENCODING
    if <size_t>(end - p) <= encoding.n or not equals_folded(Span(p, encoding.n), encoding):
        return NULL
    return behind_colon(p + encoding.n, end)


cdef inline void header_from(
    HeaderReader* r, const uint8_t* p, const uint8_t* end, const uint8_t* limit, bint stuffed
) noexcept nogil:
    line_ends_from(&r.ends, p, end, limit, False)
    r.line = p
    r.stuffed = stuffed
    r.any_failed = False


cdef inline bint may_be_failed(const uint8_t* p, const uint8_t* end) noexcept nogil:
    # Of a line that begins with an x.
    return end - p > 9 and p[2] | 0x20 == c'f' and p[8] == c'-'


cdef inline const uint8_t* line_that_may_matter(HeaderReader* r) noexcept nogil:
    """Where the next line begins that may matter, behind the line ends that were taken; `end` if there is none."""
    cdef LineEnds* ends = &r.ends
    cdef const uint8_t* last = ends.end - 1
    cdef const uint8_t* p
    while True:
        while ends.found:
            p = ends.block + lowest_bit(ends.found)
            ends.found &= ends.found - 1
            if p >= last:
                return ends.end
            if may_matter[p[1]]:
                if p[1] | 0x20 != c'x':
                    return p + 1
                r.any_failed = r.any_failed or may_be_failed(p + 1, ends.end)
        if ends.end - ends.block <= 64:
            return ends.end
        p = ends.block + 64
        p = skip_to_line(p, min(ends.end, ends.limit - 66))
        block_from(ends, p, False)


cdef HeaderEvent header_next(HeaderReader* r, Span* value) noexcept nogil:
    """The next of the two fields, with what of its value is read, or the end of the header section: then `r.line` is
    where the content begins."""
    cdef const uint8_t* end = r.ends.end
    cdef const uint8_t* p
    cdef const uint8_t* start
    cdef const uint8_t* stop
    cdef HeaderEvent event
    if r.line < end and not may_matter[r.line[0]]:
        r.line = line_that_may_matter(r)
    while r.line < end:
        p = r.line
        if p[0] == c'.' and r.stuffed and (p == r.ends.start or (p - 2)[0] == c'\r') and p + 1 < end:
            p += 1
        if p[0] | 0x20 == c'x':
            r.any_failed = r.any_failed or may_be_failed(p, end)
        stop = line_end_next(&r.ends)
        if stop < end and (p == stop or (p + 1 == stop and p[0] == c'\r')):
            r.line = stop + 1
            return END_OF_HEADER
        start = content_field(p, stop, &event)
        while start != NULL and stop < end and stop + 1 < end and is_blank(stop[1]):  # continuation lines
            stop = line_end_next(&r.ends)
        if start != NULL:
            value[0] = Span(start, min(stop - start, <Py_ssize_t>MAX_CONTENT_TYPE))
            r.line = stop + (stop < end)
            return event
        if stop + 1 < end and may_matter[stop[1]]:
            r.line = stop + 1
        else:
            r.line = line_that_may_matter(r) if stop < end else end
    return END_OF_HEADER


cdef inline const uint8_t* body_behind(HeaderReader* r) noexcept nogil:
    """Reads the rest of a header section of which the end is still to come; where the content begins."""
    cdef Span ignored
    while header_next(r, &ignored) != END_OF_HEADER:
        pass
    return r.line


# --- delimiter lines ---

cdef Delimiter delimiter_end(const uint8_t* p, const uint8_t* end, const uint8_t** following) noexcept nogil:
    # Behind the boundary: "--" if it closes, blanks, the line end (RFC 2046 §5.1.1, transport-padding).
    cdef Delimiter kind = NEXT_PART
    if end - p >= 2 and p[0] == c'-' and p[1] == c'-':
        kind = CLOSE
        p += 2
    while p < end and is_blank(p[0]):
        p += 1
    if end - p >= 2 and p[0] == c'\r' and p[1] == c'\n':
        p += 1
    if p < end and p[0] != c'\n':
        return NO_DELIMITER
    following[0] = p + (p < end)
    return kind


cdef inline void parts_from(
    PartReader* r, const uint8_t* p, const uint8_t* end, Span delimiter, int most
) noexcept nogil:
    """Begin with the body from p on, in front of which stand a line end and the header section of a multipart. most:
    lines to look at."""
    r.ends.start = r.ends.block = p - 1
    r.ends.end = r.ends.limit = end
    r.p = p
    r.delimiter = delimiter
    r.lines_left = most
    r.misses_left = MAX_MISSES
    r.rare = rarest(delimiter.p - 1, 1 + min(delimiter.n, <size_t>MAX_SOUGHT - 1), True)
    r.at = p - 1 + r.rare.at
    if not r.rare.is_octet:
        block_from(&r.ends, p - 1, True)


cdef const uint8_t* dash_by_octet(PartReader* r) noexcept nogil:
    """A line end, a dash, and the rare octet at its place."""
    cdef const uint8_t* p = r.ends.start
    while r.misses_left:
        r.at = find_octet(r.at, r.ends.end, r.rare.one)
        if r.at == r.ends.end:
            return r.at
        p = r.at - r.rare.at
        r.at += 1
        if p[0] == c'\n' and p[1] == c'-':
            return p
        r.misses_left -= 1
    r.rare = rarest(r.delimiter.p - 1, 1 + min(r.delimiter.n, <size_t>MAX_SOUGHT - 1), False)
    r.ends.start = p + 1
    block_from(&r.ends, p + 1, True)
    return NULL


cdef inline const uint8_t* likely_block(PartReader* r, const uint8_t* block) noexcept nogil:
    """From `block` on to 64 octets among which a delimiter may begin, or to the last ones."""
    cdef const uint8_t* stop = r.ends.end - 64 - r.rare.at
    # Twice as quick from an address that is a multiple of 32; then a few octets are looked at again.
    return max(block, skip_without(block - ((<size_t>block + r.rare.at) & 31), stop, &r.rare))


cdef inline const uint8_t* dash_next(PartReader* r) noexcept nogil:
    """The next line end that a dash follows; `end` if there is none. One that does not begin a delimiter may be left
    out."""
    cdef const uint8_t* found
    if r.rare.is_octet:
        found = dash_by_octet(r)
        if found != NULL:
            return found
    while r.ends.found == 0:
        if r.ends.end - r.ends.block <= 64:
            return r.ends.end
        block_from(&r.ends, likely_block(r, r.ends.block + 64), True)
    return line_end_taken(&r.ends)


cdef inline bint begins_with(const uint8_t* p, const uint8_t* end, Span delimiter) noexcept nogil:
    # A dash stands at p. Most lines that do not begin with the delimiter differ in its first octets.
    return (
        <size_t>(end - p) >= delimiter.n and p[1] == c'-' and p[2] == delimiter.p[2]
        and (delimiter.n == 3 or memcmp(p + 3, delimiter.p + 3, delimiter.n - 3) == 0)
    )


cdef Delimiter delimiter_next(PartReader* r, const uint8_t** before) noexcept nogil:
    """On to the next delimiter line. Sets `r.p` behind that line and `before` to where the content in front of it
    ends; both to the end of the message if there is none, or if too many lines were looked at."""
    cdef const uint8_t* start = r.p
    cdef const uint8_t* end = r.ends.end
    cdef const uint8_t* stop = dash_next(r)
    cdef Delimiter kind
    while stop < end and r.lines_left:
        if begins_with(stop + 1, end, r.delimiter):
            r.lines_left -= 1
            kind = delimiter_end(stop + 1 + r.delimiter.n, end, &r.p)
            if kind != NO_DELIMITER:
                r.at = r.p - 1 + r.rare.at
                # the line end belongs to the delimiter
                before[0] = stop - (stop > start and (stop - 1)[0] == c'\r') if stop >= start else start
                return kind
        stop = dash_next(r)
    before[0] = r.p = end
    return NO_DELIMITER
