# The children of a multipart that matter to a report, and the text of the one that is for people. What they say is for
# report.pxi.

cdef extern from *:
    """
    #define BOUNDARY 0x626f756e64617279u
    """
    const uint64_t BOUNDARY

cdef enum:
    MAX_BOUNDARY = 998          # octets: what a line can hold (RFC 5322 §2.1.1); RFC 2046 §5.1.1 allows 70
    MAX_DELIMITERS = 20000      # lines that begin like a delimiter; what follows more of them is not looked at
    MAX_STATUS_PARTS = 4        # that are read until one is usable
    MAX_LEVELS = 4              # of multiparts that are searched for a text
    MAX_TEXT_PARTS = 32         # of each of them
    TEXT = 0x74657874           # "text"

cdef struct Part:
    const uint8_t* header       # of its header section
    const uint8_t* start        # of its content; NULL: there is no such part
    const uint8_t* end
    Encoding encoding
    MediaType kind
    Span parameters             # of its Content-Type

cdef struct Multipart:          # what the header section of one says
    MediaType kind
    ReportType wanted           # which kind of part makes it a report
    const uint8_t* start        # of its body
    const uint8_t* end
    uint8_t[MAX_BOUNDARY + 3] boundary  # behind a line end and two dashes
    Span delimiter              # in `boundary`
    bint any_failed             # see HeaderReader; of the message's own

cdef struct Parts:              # the children that matter, the first of each kind
    bint any
    bint more                   # the reading stopped in front of one
    bint cut                    # there are more than are looked at
    int statuses
    Part[MAX_STATUS_PARTS] status
    Part feedback
    Part original
    Part inner                  # a multipart: a multipart/report if there is one
    Part leading                # the first child, which is for people (RFC 6522 §3); only where it is


cdef inline size_t boundary_at_once(Span s, const uint8_t* limit, uint8_t* out) noexcept nogil:
    """The same as parameter_copy() for a boundary that is the first parameter and written as nearly all of them are;
    0 for another. `limit`: up to where may be read."""
    cdef size_t i = 1
    cdef size_t n
    cdef const uint8_t* start
    while i < s.n and is_fws(s.p[i]):
        i += 1
    if s.n < i + 12 or s.p[0] != c';' or load_be64(s.p + i) | FOLD_8 != BOUNDARY:
        return 0
    start = s.p + i + 10
    if (start - 2)[0] != c'=' or (start - 1)[0] != c'"':
        return 0
    if limit - start < 80:
        return 0
    n = octets_in_quotes(start)
    if n > 70 or i + 10 + n >= s.n or start[n] != c'"':  # RFC 2046 §5.1.1
        return 0
    memcpy(out, start, 80)
    return n


cdef inline void multipart_from(
    Multipart* m, MediaType kind, Span parameters, const uint8_t* start, const uint8_t* end
) noexcept nogil:
    """Of its Content-Type, and of where its body is. No boundary: the delimiter is empty."""
    m.kind = kind
    m.start = start
    m.end = end
    m.boundary[0] = c'\n'
    m.boundary[1] = m.boundary[2] = c'-'
    m.delimiter.p = m.boundary + 1
    m.delimiter.n = boundary_at_once(parameters, end, m.boundary + 3)
    if m.delimiter.n == 0:
        m.delimiter.n = parameter_copy(parameters, literal(b"boundary"), m.boundary + 3, MAX_BOUNDARY)
    m.delimiter.n += 2
    m.delimiter = trimmed(m.delimiter)  # RFC 2046 §5.1.1: a boundary does not end in a blank
    if m.delimiter.n == 2:
        m.delimiter.n = 0


cdef inline void no_parts(Parts* parts) noexcept nogil:
    parts.any = parts.more = parts.cut = False
    parts.statuses = 0
    parts.feedback.start = parts.original.start = parts.inner.start = NULL
    parts.inner.kind = OTHER_TYPE
    parts.leading.header = parts.leading.start = parts.leading.end = NULL


cdef inline void children_from(PartReader* r, Multipart* m) noexcept nogil:
    parts_from(r, m.start, m.end, m.delimiter, MAX_DELIMITERS)


cdef inline bint is_plainly_other(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Whether a part begins with a Content-Type of no interest, as most do: text/plain, text/html, image/png."""
    cdef uint8_t first
    if end - p < 24 or load_be64(p) | FOLD_8 != CONTENT_DASH or p[7] != c'-' or load_be32(p + 8) | FOLD_4 != TYPE:
        return False
    if p[12] != c':' or p[13] != c' ':
        return False
    first = p[14] | 0x20
    if first == c't':
        return load_be32(p + 14) | FOLD_4 == TEXT and p[18] == c'/' and (p[19] | 0x20 == c'p' or p[19] | 0x20 == c'h')
    return c'b' <= first <= c'z' and first != c'm'


cdef MediaType part_read(
    const uint8_t* start, const uint8_t* end, const uint8_t* limit, bint stuffed, Part* part
) noexcept nogil:
    cdef HeaderReader reader
    cdef HeaderEvent event = CONTENT_TYPE
    cdef MediaType kind = OTHER_TYPE
    cdef Span value
    cdef bint typed = False, encoded = False
    if is_plainly_other(start, end):
        return OTHER_TYPE
    header_from(&reader, start, end, limit, stuffed)
    part.encoding = IDENTITY
    while event != END_OF_HEADER:
        event = header_next(&reader, &value)
        if event == CONTENT_TYPE and not typed:
            typed = True
            kind = media_type(&value)
            part.parameters = value
            if kind == OTHER_TYPE:
                break
        elif event == CONTENT_TRANSFER_ENCODING and not encoded:
            encoded = True
            part.encoding = encoding_named(value)
    part.header = start
    part.start = reader.line
    part.end = end
    part.kind = kind
    return kind


cdef bint is_settled(Parts* parts, ReportType wanted) noexcept nogil:
    """Whether no further part can change anything: see judge(). Not where the first status part turns out useless."""
    if parts.original.start == NULL:
        return False
    if wanted == STATUS_WANTED:
        return parts.statuses > 0
    return parts.feedback.start != NULL and (wanted != NO_REPORT_TYPE or parts.statuses > 0)


cdef inline void part_sorted(Parts* parts, Part* part, bint nearly_too) noexcept nogil:
    cdef MediaType kind = part.kind
    if kind == DELIVERY_STATUS or kind == NEARLY_STATUS and nearly_too:
        if parts.statuses < MAX_STATUS_PARTS:
            parts.status[parts.statuses] = part[0]
            parts.statuses += 1
    elif kind == FEEDBACK_REPORT or kind == NEARLY_FEEDBACK and nearly_too:
        if parts.feedback.start == NULL:
            parts.feedback = part[0]
    elif kind == ORIGINAL or kind == NEARLY_ORIGINAL and nearly_too:
        if parts.original.start == NULL:
            parts.original = part[0]
    elif is_multipart(kind) and (
        parts.inner.start == NULL or kind == MULTIPART_REPORT and parts.inner.kind != MULTIPART_REPORT
    ):
        parts.inner = part[0]


cdef void parts_read(
    PartReader* r, ReportType wanted, bint stuffed, bint nearly_too, bint to_the_end, Parts* parts
) noexcept nogil:
    """The direct children of the multipart whose body `r` is at; RFC 2046 §5.1.1: preamble and epilogue do not
    count, a missing close delimiter is no obstacle. `nearly_too`: types that are nearly right count. `to_the_end`: does
    not stop where it is settled; called again, it goes on."""
    cdef const uint8_t* start
    cdef const uint8_t* before
    cdef Part part
    cdef Delimiter found = NEXT_PART if parts.more else CLOSE
    if not parts.any:
        found = delimiter_next(r, &before)
        parts.any = found == NEXT_PART
        parts.leading.header = r.p
    while found == NEXT_PART and (to_the_end or not is_settled(parts, wanted)):
        start = r.p
        found = delimiter_next(r, &before)
        if start == parts.leading.header:
            parts.leading.end = before
        if start == before or start[0] == c'\n' or (before - start > 1 and start[0] == c'\r' and start[1] == c'\n'):
            continue  # without header section
        if part_read(start, before, r.ends.end, stuffed, &part) != OTHER_TYPE:
            part_sorted(parts, &part, nearly_too)
    parts.more = found == NEXT_PART
    parts.cut = parts.cut or found == NO_DELIMITER and r.lines_left == 0


# --- the part for people ---

cdef struct Text:
    Part part                   # start NULL: there is none
    bint html
    uint8_t[64] charset
    size_t charset_length


cdef bint is_text(Span value, bint* html) noexcept nogil:
    cdef Span kind = take_word(&value, c'/')
    skip_comments(&value)
    if kind.n and (not equals_folded(kind, literal(b"text")) or value.n == 0):
        return False
    if value.n:
        advance(&value, 1)
    html[0] = equals_folded(take_word(&value, c';'), literal(b"html"))
    return True


cdef void text_find(
    const uint8_t* start, const uint8_t* end, const uint8_t* limit, bint stuffed, int levels, Text* found
) noexcept nogil:
    """The text of a part that begins with its header section: its own, or that of its first child that has any; one
    that is no HTML is preferred."""
    cdef HeaderReader header
    cdef HeaderEvent event = CONTENT_TYPE
    cdef Span value, parameters, content_type = Span(NULL, 0)
    cdef Encoding encoding = IDENTITY
    cdef MediaType kind = OTHER_TYPE
    cdef Multipart inner
    cdef bint html = False
    header_from(&header, start, end, limit, stuffed)
    while event != END_OF_HEADER:
        event = header_next(&header, &value)
        if event == CONTENT_TYPE and content_type.p == NULL:
            skip_comments(&value)
            content_type = parameters = value
            kind = media_type(&parameters)
            if is_multipart(kind):
                multipart_from(&inner, kind, parameters, body_behind(&header), header.ends.end)
                if levels:
                    text_of_children(&inner, limit, stuffed, levels - 1, found)
                return
        elif event == CONTENT_TRANSFER_ENCODING:
            encoding = encoding_named(value)
    if kind == OTHER_TYPE and is_text(content_type, &html) and (found.part.start == NULL or found.html > html):
        found.part.start = header.line
        found.part.end = end
        found.part.encoding = encoding
        found.html = html
        found.charset_length = parameter_copy(
            content_type, literal(b"charset"), found.charset, sizeof(found.charset)
        )


cdef void text_of_children(
    Multipart* m, const uint8_t* limit, bint stuffed, int levels, Text* found
) noexcept nogil:
    cdef PartReader r
    cdef const uint8_t* start
    cdef const uint8_t* before
    cdef int left = MAX_TEXT_PARTS
    cdef Delimiter next_one
    if m.delimiter.n == 0:
        return
    children_from(&r, m)
    next_one = delimiter_next(&r, &before)
    while next_one == NEXT_PART and left and (found.part.start == NULL or found.html):
        start = r.p
        next_one = delimiter_next(&r, &before)
        text_find(start, before, limit, stuffed, levels, found)
        left -= 1
