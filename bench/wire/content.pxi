# One message's content as it comes in over the wire: its end, its header section with the mark, the hash of its body.

cdef enum:
    HEADER = 65536              # a mark further down than this is not found

cdef struct Mark:
    bint found
    uint64_t run
    uint64_t number
    uint64_t check

cdef struct Content:
    bint in_header
    int matched                 # bytes of the terminator seen at the end of what was read
    int implied                 # of these, how many were never on the wire: DATA begins a line
    char* header                # the header section so far, when it did not come in one piece
    size_t header_length
    Mark mark
    BodyHash body


cdef inline Mark find_mark(const char* header, size_t length) noexcept nogil:
    """The mark in a header section, wherever relays have put fields around it."""
    cdef Mark mark
    cdef const char* at = header
    cdef size_t left = length
    memset(&mark, 0, sizeof(Mark))
    while left >= MARK_LENGTH - 2:
        at = <const char*>memmem(at, left, b"X-Bench: ", 9)
        if at == NULL:
            break
        left = length - <size_t>(at - header)
        if left >= MARK_LENGTH - 2 and (at == header or (at - 1)[0] == c'\n'):
            mark.found = get_mark(at + 9, &mark.run, &mark.number, &mark.check)
            break
        at += 9
        left -= 9
    return mark


cdef inline void content_start(Content* c) noexcept nogil:
    c.in_header = True
    c.matched = c.implied = 2       # an empty message is ".CRLF" right behind the 354
    c.header_length = 0
    c.mark.found = False
    hash_start(&c.body)


cdef inline void content_free(Content* c) noexcept nogil:
    free(c.header)
    c.header = NULL


cdef inline bint content_intact(Content* c) noexcept nogil:
    """Whether the body is the one that the mark was made for; to be asked once, at the end."""
    return mark_check(c.mark.run, c.mark.number, hash_finish(&c.body)) == c.mark.check


cdef size_t content_take(Content* c, const char* p, size_t n, bint* ended) noexcept nogil:
    """Take content up to the terminator, if that is here; how many bytes were used."""
    cdef size_t start = 0, i, at
    cdef int kept
    ended[0] = True
    while c.matched and start < n:
        if p[start] == TERMINATOR[c.matched]:
            c.matched += 1
            start += 1
            if c.matched == 5:
                content_add(c, TERMINATOR + c.implied, <size_t>(2 - c.implied))
                return start
        else:
            kept = 1 if c.matched == 4 else 0       # "CRLF.CR" without LF: that CR may begin the real one
            content_add(c, TERMINATOR + c.implied, <size_t>(c.matched - kept - c.implied))
            c.matched, c.implied = kept, 0
    i = start
    while i < n:
        at = i + find_dot_line(p + i, n - i)
        if at + 4 > n:
            break
        if at > start and p[at - 1] == c'\r' and p[at + 2] == c'\r' and p[at + 3] == c'\n':
            content_add(c, p + start, at + 1 - start)
            return at + 4
        i = at + 1
    if start < n:
        c.matched = matched_suffix(p + start, n - start)
        content_add(c, p + start, n - start - <size_t>c.matched)
    ended[0] = False
    return n


cdef void content_add(Content* c, const char* p, size_t n) noexcept nogil:
    cdef const char* end
    cdef size_t old = c.header_length
    if not c.in_header:
        hash_update(&c.body, <const uint8_t*>p, n)
        return
    if old == 0:
        end = <const char*>memmem(p, min(n, <size_t>HEADER), b"\r\n\r\n", 4)
        if end != NULL:
            content_body(c, p, end + 4, p + n)
            return
    if c.header == NULL:
        c.header = <char*>malloc(HEADER)
    c.header_length += n
    if c.header == NULL or c.header_length > HEADER:
        c.in_header = False             # too long, or no memory for it: the message counts as unmarked
        return
    memcpy(c.header + old, p, n)
    end = <const char*>memmem(c.header, c.header_length, b"\r\n\r\n", 4)
    if end != NULL:
        content_body(c, c.header, end + 4, c.header + c.header_length)


cdef void content_body(Content* c, const char* header, const char* body, const char* end) noexcept nogil:
    c.in_header = False
    c.mark = find_mark(header, <size_t>(body - header))
    hash_update(&c.body, <const uint8_t*>body, <size_t>(end - body))
