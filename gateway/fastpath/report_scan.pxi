# Is a message a delivery status notification (RFC 3464, 6533) or a feedback report (RFC 5965)? By the letter, and, once
# it is known whom the message is from, also what only nearly is one. Bounces and complaints in other forms are told by
# a mark here, as candidates; gateway/reports/formats reads them.

cdef enum:
    MAX_UNCLAIMED = 4096        # octets of a multipart/mixed of anybody's in which a feedback part is to begin
    MAX_BLANK_LINES = 100       # in front of a text
    MAX_IN_FRONT = 512          # octets of a multipart's body in which the header section of a part in QSBMF is to end
    MAX_WRAPPINGS = 3           # multiparts that a report may be in, each of which is read again

cdef struct Mode:
    bint stuffed
    bint tolerant               # read also what only nearly is a report
    bint null_sender
    bint listed                 # the sender is known to send complaints that are no feedback reports


cdef inline Report new_report(const uint8_t* message, Mode* mode):
    cdef Report report = Report.__new__(Report)
    report.dot_stuffed = mode.stuffed
    report.tolerant = mode.tolerant
    report.message = message
    return report


cdef Report unreadable(Report report, str reason):
    report.kind = "unreadable"
    report.reason = reason
    report.per_message = report.per_recipient = report.feedback = None
    return report


cdef bint judge(Report report, Parts* parts, PartReader* reader, Multipart* m, Mode* mode) except -1:
    """Whether the children make this a report, or an unreadable one."""
    cdef bint claimed = m.kind == MULTIPART_REPORT
    cdef bint feedback = parts.feedback.start != NULL
    cdef bint usable
    # With both kinds of part the report-type decides; a feedback part counts under an odd report-type, too.
    cdef bint status = parts.statuses > 0 and (m.wanted == STATUS_WANTED or m.wanted == NO_REPORT_TYPE)
    feedback = feedback and not (status and m.wanted == STATUS_WANTED)
    if feedback and report.read_feedback(&parts.feedback):
        report.kind = "arf"
    else:
        report.feedback = None
        report.truncated = False
        usable = status and report.read_statuses(parts)
        if status and not usable and parts.more:  # the first one is useless: is there another?
            parts_read(reader, m.wanted, mode.stuffed, claimed and mode.tolerant, True, parts)
            usable = report.read_statuses(parts)
        if usable:
            report.kind = "dsn"
    report.place(parts)
    if report.kind is not None:
        report.truncated |= parts.cut
        return True
    if status:
        unreadable(report, "no_recipient")
    elif feedback:
        unreadable(report, "no_feedback_type")
    elif not claimed or m.wanted == OTHER_REPORT_TYPE:
        return False
    elif parts.cut:
        unreadable(report, "too_many_parts")
    else:
        unreadable(report, "no_report_part" if parts.any else "no_parts")
    return True


cdef inline const uint8_t* beginning_of(const uint8_t* start, const uint8_t* end) noexcept nogil:
    """Up to where the feedback part has to begin in a multipart/mixed of anybody's, so that ordinary mail costs no more
    than looking at that."""
    return start + min(end - start, <Py_ssize_t>MAX_UNCLAIMED)


cdef bint wants_nothing(Multipart* m, Mode* mode) noexcept nogil:
    """Whether no part near its beginning can make a multipart/mixed of anybody's a report."""
    cdef PartReader reader
    cdef Parts parts
    cdef Multipart beginning
    if m.delimiter.n == 0:
        return True
    beginning.start = m.start
    beginning.end = beginning_of(m.start, m.end)
    beginning.delimiter = m.delimiter
    no_parts(&parts)
    children_from(&reader, &beginning)
    parts_read(&reader, FEEDBACK_WANTED, mode.stuffed, False, False, &parts)
    return parts.feedback.start == NULL


cdef inline void children_read(PartReader* reader, Multipart* m, Mode* mode, Parts* parts) noexcept nogil:
    no_parts(parts)
    if m.delimiter.n:
        children_from(reader, m)
        parts_read(reader, m.wanted, mode.stuffed, m.kind == MULTIPART_REPORT and mode.tolerant, False, parts)


cdef inline bint judge_multipart(
    Report report, Multipart* m, PartReader* reader, Parts* parts, Mode* mode
) except -1:
    """Whether the multipart is a report or claims to be one; which, is then in `report`."""
    if m.delimiter.n:
        return judge(report, parts, reader, m, mode)
    if m.kind != MULTIPART_REPORT or m.wanted == OTHER_REPORT_TYPE:
        return False
    unreadable(report, "no_boundary")
    return True


cdef ReportType wanted_by(MediaType kind, Span parameters, Mode* mode) noexcept nogil:
    if kind == MULTIPART_REPORT:
        return report_type_read(parameters)
    return STATUS_WANTED if mode.null_sender else FEEDBACK_WANTED


cdef void inner_read(Part* part, Mode* mode, Multipart* inner, PartReader* reader, Parts* parts) noexcept nogil:
    """A multipart inside another one, and its children."""
    inner.wanted = wanted_by(part.kind, part.parameters, mode)
    multipart_from(inner, part.kind, part.parameters, part.start, part.end)
    children_read(reader, inner, mode, parts)


cdef Report scan_wrapped(Report outer, Part* part, Mode* mode, int wrappings, bint* claims):
    """A report that somebody put into another multipart, with a footer maybe, and somebody else again into another one;
    None if it is none. `wrappings`: how many more there may be."""
    cdef Report report = new_report(outer.message, mode)
    cdef Multipart inner
    cdef PartReader reader
    cdef Parts parts
    report.placed = outer.placed
    inner_read(part, mode, &inner, &reader, &parts)
    if inner.wanted == RECEIPT:
        return None
    if not judge_multipart(report, &inner, &reader, &parts, mode):
        if wrappings == 0 or parts.inner.start == NULL:
            return None
        return scan_wrapped(outer, &parts.inner, mode, wrappings - 1, claims)
    report.how = "wrapped"
    claims[0] = inner.kind == MULTIPART_REPORT and inner.wanted == STATUS_WANTED
    return report


cdef bint has_field(const uint8_t* p, const uint8_t* end, bint stuffed, Span name) noexcept nogil:
    """Whether the header section that begins at p has a field of the name, which is in lower case."""
    cdef LineReader reader = line_reader(p, end, stuffed)
    cdef Field field
    while field_next(&reader, name.p[0], &field) == FIELD:
        if equals_folded(field.name, name):
            return True
    return False


cdef inline bint has_failed_recipients(
    const uint8_t* message, const uint8_t* body, bint any_failed, bint stuffed
) noexcept nogil:
    """Whether there is an X-Failed-Recipients in the header section of a message. any_failed: see HeaderReader."""
    return any_failed and has_field(message, body, stuffed, literal(b"x-failed-recipients"))


cdef bint is_qsbmf(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Whether a body begins as QSBMF has it: https://cr.yp.to/proto/qsbmf.txt."""
    cdef Span begin = literal(b"Hi. This is the")
    cdef Span encoded = literal(b"SGkuIFRoaXMgaXMgdGhl")
    cdef int left = MAX_BLANK_LINES
    while p < end and left and (p[0] == c'\n' or p[0] == c'\r'):
        p += 1
        left -= 1
    return (
        <size_t>(end - p) > encoded.n
        and (memcmp(p, begin.p, begin.n) == 0 or memcmp(p, encoded.p, encoded.n) == 0)
    )


cdef bint may_begin_qsbmf(const uint8_t* message, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """False if no text near the beginning p of the body of a multipart is QSBMF, as is_qsbmf_part() has it."""
    cdef const uint8_t* stop = p + min(end - p, <Py_ssize_t>MAX_IN_FRONT + 2 * MAX_BLANK_LINES)
    cdef int i
    p = aligned(p, message)
    while p < stop:
        p = skip_to_hi(p, min(stop, end - 66))
        if p >= stop:
            return False
        for i in range(min(64, end - p)):
            if is_qsbmf(p + i, end):
                return True
        p += 64
    return False


cdef bint is_qsbmf_part(Multipart* m, Part* part, bint stuffed) noexcept nogil:
    cdef const uint8_t* end = min(part.end, m.start + MAX_IN_FRONT)
    cdef const uint8_t* p = part.header
    cdef const uint8_t* stop
    cdef LineEnds ends
    if p >= end:
        return False
    line_ends_from(&ends, p, end, part.end, False)
    while True:  # the lines of its header section
        stop = line_end_next(&ends)
        if stop == end:
            return False
        if stuffed and p[0] == c'.' and (p == part.header or (p - 2)[0] == c'\r'):
            p += 1
        if p == stop or p + 1 == stop and p[0] == c'\r':
            return is_qsbmf(stop + 1, part.end)
        p = stop + 1


cdef Report candidate(Report report, str name, size_t n):
    report.candidate = name
    if report.leading_end == 0:  # the message is the text
        report.leading_end = n
    return report


cdef Report scan_text(const uint8_t* message, size_t n, const uint8_t* body, bint any_failed, Mode* mode):
    """Of a message that is no multipart: a candidate, or None."""
    if has_failed_recipients(message, body, any_failed, mode.stuffed):
        return candidate(new_report(message, mode), "x_failed_recipients", n)
    if is_qsbmf(body, message + n):
        return candidate(new_report(message, mode), "qsbmf", n)
    return None


cdef Report scan_attached(const uint8_t* message, size_t n, HeaderReader* header, Mode* mode):
    """A message/rfc822 from a listed sender: a candidate."""
    cdef Report report = new_report(message, mode)
    report.original = (body_behind(header) - message, n)
    return candidate(report, "junk", n)


cdef Report scan(const uint8_t* message, size_t n, Mode* mode, placed):
    cdef HeaderReader header
    cdef HeaderEvent event = CONTENT_TRANSFER_ENCODING
    cdef Span parameters
    cdef MediaType kind
    cdef Multipart top
    cdef PartReader reader
    cdef Parts parts
    cdef Report report
    cdef const uint8_t* body
    cdef bint anybody, found
    header_from(&header, message, message + n, message + n, mode.stuffed)
    while event == CONTENT_TRANSFER_ENCODING:
        event = header_next(&header, &parameters)
    kind = media_type(&parameters) if event == CONTENT_TYPE else OTHER_TYPE
    if kind != MULTIPART_REPORT:
        if not mode.tolerant or not (kind == MULTIPART_MIXED or mode.null_sender or mode.listed):
            return None
        if not is_multipart(kind):
            if mode.listed and kind == ORIGINAL:
                return scan_attached(message, n, &header, mode)
            while event != END_OF_HEADER:
                event = header_next(&header, &parameters)
            return scan_text(message, n, header.line, header.any_failed, mode) if mode.null_sender else None
    top.wanted = wanted_by(kind, parameters, mode)
    if top.wanted == RECEIPT:
        return None
    body = body_behind(&header)
    anybody = kind != MULTIPART_REPORT and not mode.null_sender and not mode.listed
    # The names of the types are never encoded, and stand there in one piece: most letters need not be parsed.
    if kind != MULTIPART_REPORT and not mode.listed and not names_report(
        message, body, beginning_of(body, message + n) if anybody else message + n, message + n
    ) and not (mode.null_sender and (header.any_failed or may_begin_qsbmf(message, body, message + n))):
        return None
    multipart_from(&top, kind, parameters, body, message + n)
    top.any_failed = header.any_failed
    if anybody and wants_nothing(&top, mode):
        return None
    children_read(&reader, &top, mode, &parts)
    report = new_report(message, mode)
    report.placed = placed
    report.how = "report" if kind == MULTIPART_REPORT else "mixed" if kind == MULTIPART_MIXED else "multipart"
    found = judge_multipart(report, &top, &reader, &parts, mode)
    report.mixed = kind == MULTIPART_MIXED and report.kind == "dsn"
    if found and report.reason is None:
        return report
    return scan_further(report if found else None, report, n, &top, &parts, mode)


cdef Report scan_further(Report found, Report report, size_t n, Multipart* top, Parts* parts, Mode* mode):
    """A multipart that is no readable report (`found`: but claims to be one): what else may it be?"""
    cdef bint claims = top.kind == MULTIPART_REPORT and top.wanted == STATUS_WANTED
    cdef bint wrapped_claims = False
    cdef Report wrapped = None
    if mode.null_sender and parts.inner.start != NULL and names_report(
        report.message, parts.inner.header, parts.inner.end, parts.inner.end
    ):
        wrapped = scan_wrapped(report, &parts.inner, mode, MAX_WRAPPINGS - 1, &wrapped_claims)
        if wrapped is not None and wrapped.original is None:  # it may stand beside the report
            wrapped.original = report.original
            wrapped.original_encoding = report.original_encoding
        if wrapped is not None and wrapped.reason is None:
            return wrapped
    if mode.null_sender and has_failed_recipients(report.message, top.start, top.any_failed, mode.stuffed):
        return candidate(report, "x_failed_recipients", n)
    if mode.null_sender and claims and report.original is not None:
        return candidate(report, "claimed", n)
    if mode.null_sender and parts.any and is_qsbmf_part(top, &parts.leading, mode.stuffed):
        return candidate(report, "qsbmf", n)
    if wrapped_claims and wrapped.original is not None:
        return candidate(wrapped, "claimed", n)
    if mode.listed and report.original is not None and not claims:
        return candidate(report, "junk", n)
    return found if found is not None else wrapped


def compare_at_once(int octets):
    global vector_octets
    vector_octets = min(octets, most_vector_octets())
    return vector_octets


compare_at_once(32)


cdef Report scan_object(message, Mode* mode, placed):
    cdef Py_buffer view
    cdef Report report
    if PyBytes_CheckExact(message):
        report = scan(octets_of(<bytes>message), PyBytes_GET_SIZE(message), mode, placed)
    else:
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            report = scan(<const uint8_t*>view.buf, view.len, mode, placed)
        finally:
            PyBuffer_Release(&view)
    if report is not None:
        report.message = NULL
    return report


def scan_report(
    message, *, bint dot_stuffed=False, bint null_sender=False, bint tolerant=False, bint listed_sender=False,
    placed=None
):
    cdef Mode mode
    mode.stuffed = dot_stuffed
    mode.null_sender = null_sender
    mode.listed = listed_sender
    mode.tolerant = tolerant or null_sender or listed_sender
    return scan_object(message, &mode, placed)


def scan_received(bytes content not None, bint null_sender, bint listed_sender):
    cdef Mode mode
    mode.stuffed = mode.tolerant = True
    mode.null_sender = null_sender
    mode.listed = listed_sender
    return scan_object(content, &mode, None)


cdef tuple type_and_place(const uint8_t* message, const uint8_t* start, const uint8_t* end, const uint8_t* limit):
    cdef HeaderReader header
    cdef HeaderEvent event = CONTENT_TRANSFER_ENCODING
    cdef Span value, kind
    header_from(&header, start, end, limit, False)
    while event == CONTENT_TRANSFER_ENCODING:
        event = header_next(&header, &value)
    if event != CONTENT_TYPE:
        return "", start - message, end - message
    skip_comments(&value)
    kind = take_word(&value, c';')
    return text_of(kind).lower(), start - message, end - message


def outline(bytes message not None):
    cdef const uint8_t* start = octets_of(message)
    cdef const uint8_t* end = start + len(message)
    cdef const uint8_t* before
    cdef HeaderReader header
    cdef HeaderEvent event = CONTENT_TRANSFER_ENCODING
    cdef Span parameters
    cdef Multipart top
    cdef PartReader reader
    cdef MediaType kind
    cdef Delimiter found
    cdef list parts = [type_and_place(start, start, end, end)]
    header_from(&header, start, end, end, False)
    while event == CONTENT_TRANSFER_ENCODING:
        event = header_next(&header, &parameters)
    kind = media_type(&parameters) if event == CONTENT_TYPE else OTHER_TYPE
    if is_multipart(kind):
        multipart_from(&top, kind, parameters, body_behind(&header), end)
        if top.delimiter.n:
            children_from(&reader, &top)
            found = delimiter_next(&reader, &before)
            while found == NEXT_PART and len(parts) <= MAX_TEXT_PARTS:
                begin = reader.p - start
                found = delimiter_next(&reader, &before)
                parts.append(type_and_place(start, start + <Py_ssize_t>begin, before, end))
    return parts
