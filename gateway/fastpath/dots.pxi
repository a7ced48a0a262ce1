# The dots and line endings of a message content, RFC 5321 §4.5.2 and §2.3.8: adding and removing the dots that
# keep its lines apart from the end of data, and making a content with lone CRs or LFs harmless. Where a content
# ends in the bytes of a connection is framing.pxi's.

cdef Py_ssize_t next_dot_line(const uint8_t *p, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """The first index in p[at:end] of a dot right after a CRLF, or -1. The CRLF may lie before `at`."""
    cdef Py_ssize_t lf = index_of(p, max(at - 1, 1), end - 1, LF)
    while lf >= 0 and not (p[lf + 1] == DOT and p[lf - 1] == CR):
        lf = index_of(p, lf + 1, end - 1, LF)
    return lf + 1 if lf >= 0 else -1


cdef Py_ssize_t count_dot_lines(const uint8_t *p, Py_ssize_t n, bint at_start) noexcept nogil:
    """The dots in p[:n] that start a line; `at_start`: p[0] does."""
    cdef Py_ssize_t dots = 1 if at_start and n and p[0] == DOT else 0
    cdef Py_ssize_t dot = next_dot_line(p, 0, n)
    while dot >= 0:
        dots += 1
        dot = next_dot_line(p, dot + 1, n)
    return dots


cdef uint8_t *copy_dot_lines(
    uint8_t *out, const uint8_t *p, Py_ssize_t n, bint at_start, bint doubled
) noexcept nogil:
    """Copies p[:n] with every dot that starts a line doubled, or dropped; the end of the copy."""
    cdef Py_ssize_t dot = 0 if at_start and p[0] == DOT else next_dot_line(p, 0, n)
    cdef Py_ssize_t at = 0, upto
    while dot >= 0:
        upto = dot + 1 if doubled else dot
        memcpy(out, p + at, upto - at)
        out += upto - at
        at = dot if doubled else dot + 1
        dot = next_dot_line(p, dot + 1, n)
    memcpy(out, p + at, n - at)
    return out + n - at


cdef bytes unstuffed(bytes part, bint at_start):
    """A part of a content without the dots; `at_start`: it is the first one."""
    cdef const uint8_t *p = octets_of(part)
    cdef Py_ssize_t dots = count_dot_lines(p, len(part), at_start)
    if dots == 0:
        return part
    cdef bytes result = PyBytes_FromStringAndSize(NULL, len(part) - dots)
    copy_dot_lines(<uint8_t *>octets_of(result), p, len(part), at_start, False)
    return result


def unstuff(bytes content not None):
    return unstuffed(content, True)


def stuff(bytes content not None):
    cdef const uint8_t *p = octets_of(content)
    cdef Py_ssize_t n = len(content)
    cdef Py_ssize_t dots = count_dot_lines(p, n, True)
    cdef bint open_ended = n > 0 and not (n > 1 and p[n - 2] == CR and p[n - 1] == LF)
    if dots == 0 and not open_ended:
        return content
    cdef bytes result = PyBytes_FromStringAndSize(NULL, n + dots + (2 if open_ended else 0))
    cdef uint8_t *end = copy_dot_lines(<uint8_t *>octets_of(result), p, n, True, True)
    if open_ended:
        memcpy(end, b"\r\n", 2)
    return result


cdef inline Py_ssize_t put(uint8_t *out, Py_ssize_t at, uint8_t octet) noexcept nogil:
    if out is not NULL:
        out[at] = octet
    return at + 1


cdef Py_ssize_t repair(uint8_t *out, const uint8_t *p, Py_ssize_t n, bint fix) noexcept nogil:
    """The repaired form of p[:n] into out, or only its length if out is NULL.

    The argument. Whatever a server takes for the end of data, it is a line, by its own idea of lines, of one dot:
    a break, a dot, a break, where a break is a CR, an LF or any run of them, perhaps with blanks before it for a
    server that trims lines, with NULs anywhere for one that drops them, or a NUL for one that ends strings there.
    The output has no such line: at its start and after every CR and LF, lone or not, a dot is followed by another
    dot, and no NUL stands between the break and the dots. So the only line of one dot in the stream is the
    terminator that is sent behind this content.
    To get there, the dots as received are undone first, by the only rule that the client can have meant (RFC 5321
    §4.5.2: a dot after CRLF goes), which takes the lone dot out of CRLF.LF, CRLF.CR and CRLF.CRCRLF; then every
    dot behind a break is doubled, which guards LF.LF, LF.CRLF, CR.CR and the like. Behind a lone CR or LF a
    strict server keeps both dots, one more than the author wrote: the price of a harmless message.
    NULs before a dot that starts a line are dropped: there is no place for the second dot, before them or behind,
    that servers with different ideas of NUL would all take away again.
    """
    cdef Py_ssize_t i = 0, size = 0, past_nuls
    cdef bint at_break = True, at_crlf = True
    while i < n:
        if at_break:
            if at_crlf and p[i] == DOT:
                i += 1
            past_nuls = i
            while past_nuls < n and p[past_nuls] == NUL:
                past_nuls += 1
            if past_nuls < n and p[past_nuls] == DOT:
                i = past_nuls
                size = put(out, size, DOT)
            at_break = at_crlf = False
        elif p[i] == CR or p[i] == LF:
            at_break = True
            at_crlf = p[i] == CR and i + 1 < n and p[i + 1] == LF
            if at_crlf or fix:
                size = put(out, put(out, size, CR), LF)
            else:
                size = put(out, size, p[i])
            i += 2 if at_crlf else 1
        else:
            size = put(out, size, p[i])
            i += 1
    return size


def repair_line_endings(bytes stuffed not None, bint fix):
    cdef const uint8_t *p = octets_of(stuffed)
    cdef Py_ssize_t n = len(stuffed)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, repair(NULL, p, n, fix))
    repair(<uint8_t *>octets_of(result), p, n, fix)
    return result
