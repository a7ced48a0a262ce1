# Is a message a delivery status notification (RFC 3464, 6533) or a feedback report (RFC 5965), and what does it say?
# Finds the parts, tells recipient groups apart and keeps the fields as text. What the fields mean is for
# gateway/reports; how MIME is read is in mime.pxi.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

cdef enum:
    MAX_BOUNDARY = 998          # octets: what a line can hold (RFC 5322 §2.1.1); RFC 2046 §5.1.1 allows 70
    MAX_DELIMITERS = 20000      # lines that begin like a delimiter; what follows more of them is not looked at
    MAX_RECIPIENT_GROUPS = 10000
    MAX_FIELDS = 100000         # of one status or feedback part
    MAX_ORIGINAL_HEADER = 262144  # octets of the original that are searched for its header section
    MAX_ORIGINAL_FIELDS = 1000

cdef enum MediaType:
    OTHER_TYPE
    MULTIPART_REPORT
    MULTIPART_MIXED
    DELIVERY_STATUS
    FEEDBACK_REPORT
    ORIGINAL                    # the message that the report is about, or its header section

cdef enum ReportType:           # the parameter of multipart/report (RFC 6522 §3)
    NO_REPORT_TYPE
    STATUS_WANTED
    FEEDBACK_WANTED
    OTHER_REPORT_TYPE

cdef struct Part:
    const uint8_t* start        # of its content; NULL: there is no such part
    const uint8_t* end
    Encoding encoding

cdef struct Parts:              # the children that matter, the first of each kind
    bint any
    bint cut                    # there are more than are looked at
    Part status
    Part feedback
    Part original


# --- kernels ---

cdef MediaType media_type(Span* s) noexcept nogil:
    """What the Content-Type in `s` names; leaves its parameters in `s`."""
    cdef Span kind, subtype
    skip_comments(s)
    if s.n == 0 or (s.p[0] | 0x20 != c'm' and s.p[0] | 0x20 != c't'):
        return OTHER_TYPE
    kind = take_word(s, c'/')
    skip_comments(s)
    if s.n == 0 or s.p[0] != c'/':
        return OTHER_TYPE
    advance(s, 1)
    skip_comments(s)
    if s.n == 0 or s.p[0] | 0x20 == c'p' or s.p[0] | 0x20 == c'h':  # text/plain, text/html: most parts
        return OTHER_TYPE
    subtype = take_word(s, c';')
    if equals_folded(kind, literal(b"multipart")):
        if equals_folded(subtype, literal(b"report")):
            return MULTIPART_REPORT
        return MULTIPART_MIXED if equals_folded(subtype, literal(b"mixed")) else OTHER_TYPE
    if equals_folded(kind, literal(b"text")):
        return ORIGINAL if equals_folded(subtype, literal(b"rfc822-headers")) else OTHER_TYPE
    if not equals_folded(kind, literal(b"message")):
        return OTHER_TYPE
    # RFC 6533: the global-… types carry UTF-8.
    if (equals_folded(subtype, literal(b"delivery-status"))
            or equals_folded(subtype, literal(b"global-delivery-status"))):
        return DELIVERY_STATUS
    if equals_folded(subtype, literal(b"feedback-report")):
        return FEEDBACK_REPORT
    if (equals_folded(subtype, literal(b"rfc822")) or equals_folded(subtype, literal(b"global"))
            or equals_folded(subtype, literal(b"global-headers"))):
        return ORIGINAL
    return OTHER_TYPE


cdef Encoding encoding_named(Span value) noexcept nogil:
    cdef Span word
    skip_comments(&value)
    word = take_word(&value, c';')
    if equals_folded(word, literal(b"base64")):
        return BASE64
    return QUOTED_PRINTABLE if equals_folded(word, literal(b"quoted-printable")) else IDENTITY


cdef MediaType part_read(
    const uint8_t* start, const uint8_t* end, const uint8_t* limit, bint stuffed, Part* part
) noexcept nogil:
    cdef HeaderReader reader
    cdef HeaderEvent event = CONTENT_TYPE
    cdef MediaType kind = OTHER_TYPE
    cdef Span value
    cdef bint typed = False, encoded = False
    header_from(&reader, start, end, limit, stuffed)
    part.encoding = IDENTITY
    while event != END_OF_HEADER:
        event = header_next(&reader, &value)
        if event == CONTENT_TYPE and not typed:
            typed = True
            kind = media_type(&value)
            if kind == OTHER_TYPE:
                break
        elif event == CONTENT_TRANSFER_ENCODING and not encoded:
            encoded = True
            part.encoding = encoding_named(value)
    part.start = reader.line
    part.end = end
    return kind


cdef bint is_settled(Parts* parts, ReportType wanted) noexcept nogil:
    """Whether no further part can change anything: see judge()."""
    if parts.original.start == NULL:
        return False
    if wanted == STATUS_WANTED:
        return parts.status.start != NULL
    return parts.feedback.start != NULL and (wanted != NO_REPORT_TYPE or parts.status.start != NULL)


cdef void parts_read(PartReader* r, ReportType wanted, bint stuffed, Parts* parts) noexcept nogil:
    """The direct children of the multipart whose body `r` is at; RFC 2046 §5.1.1: preamble and epilogue do not
    count, a missing close delimiter is no obstacle."""
    cdef const uint8_t* start
    cdef const uint8_t* before
    cdef Part part
    cdef MediaType kind
    cdef Delimiter found = delimiter_next(r, &before)
    memset(parts, 0, sizeof(Parts))
    parts.any = found == NEXT_PART
    while found == NEXT_PART and not is_settled(parts, wanted):
        start = r.p
        found = delimiter_next(r, &before)
        if start == before or start[0] == c'\n' or (before - start > 1 and start[0] == c'\r' and start[1] == c'\n'):
            continue  # without header section
        kind = part_read(start, before, r.ends.end, stuffed, &part)
        if kind == DELIVERY_STATUS and parts.status.start == NULL:
            parts.status = part
        elif kind == FEEDBACK_REPORT and parts.feedback.start == NULL:
            parts.feedback = part
        elif kind == ORIGINAL and parts.original.start == NULL:
            parts.original = part
    parts.cut = found == NO_DELIMITER and r.lines_left == 0


cdef ReportType report_type_read(Span parameters) noexcept nogil:
    cdef uint8_t[32] value
    cdef Span name
    name.p = value
    name.n = parameter_copy(parameters, literal(b"report-type"), value, sizeof(value))
    if name.n == 0:
        return NO_REPORT_TYPE
    if equals_folded(name, literal(b"delivery-status")):
        return STATUS_WANTED
    return FEEDBACK_WANTED if equals_folded(name, literal(b"feedback-report")) else OTHER_REPORT_TYPE


# --- from parts to a report ---

cdef bytes part_decoded(Part* part, bint stuffed):
    """The decoded content of a part, or None for one that is not encoded."""
    cdef Span text = Span(part.start, part.end - part.start)
    cdef bytes decoded
    cdef size_t n
    if part.encoding == IDENTITY:
        return None
    decoded = PyBytes_FromStringAndSize(NULL, text.n + 1)
    if part.encoding == BASE64:
        n = base64_decode(text, <uint8_t*>PyBytes_AS_STRING(decoded))
    else:
        n = quoted_printable_decode(text, stuffed, <uint8_t*>PyBytes_AS_STRING(decoded))
    return decoded[:n]


cdef LineReader decoded_reader(Part* part, bytes decoded, bint stuffed) noexcept:
    cdef const uint8_t* p
    if decoded is None:
        return line_reader(part.start, part.end, stuffed)
    p = <const uint8_t*>PyBytes_AS_STRING(decoded)
    return line_reader(p, p + len(decoded), False)


UNREADABLE_REASONS = (
    "no_boundary", "no_parts", "too_many_parts", "no_report_part", "no_recipient", "no_feedback_type"
)


@cython.final
@cython.auto_pickle(False)
cdef class Report:
    cdef readonly str kind
    cdef readonly str reason
    cdef readonly bint mixed
    cdef readonly bint truncated
    cdef readonly dict per_message
    cdef readonly list per_recipient
    cdef readonly dict feedback
    cdef readonly tuple original
    cdef readonly bint dot_stuffed
    cdef Encoding original_encoding

    cdef bint read_status(self, Part* part) except -1:
        cdef bytes decoded = part_decoded(part, self.dot_stuffed)
        cdef LineReader reader = decoded_reader(part, decoded, self.dot_stuffed)
        cdef StatusGroups groups = StatusGroups()
        cdef FieldEvent event = FIELD
        cdef Field field
        cdef int count = 0
        while event != END_OF_FIELDS and not self.truncated:
            event = field_next(&reader, 0, &field)
            if event != FIELD:
                groups.end_block()
            elif count == MAX_FIELDS or len(groups.per_recipient) == MAX_RECIPIENT_GROUPS:
                self.truncated = True
            else:
                groups.add(&field)
                count += 1
        if count == MAX_FIELDS:
            groups.end_block()
        self.per_message = groups.per_message
        self.per_recipient = groups.per_recipient
        for group in groups.per_recipient:
            if is_usable(group):
                return True
        return False

    cdef bint read_feedback(self, Part* part) except -1:
        cdef bytes decoded = part_decoded(part, self.dot_stuffed)
        cdef LineReader reader = decoded_reader(part, decoded, self.dot_stuffed)
        cdef FieldEvent event = FIELD
        cdef Field field
        cdef int count = 0
        self.feedback = {}
        while event != END_OF_FIELDS and not self.truncated:
            event = field_next(&reader, 0, &field)
            if count == MAX_FIELDS:
                self.truncated = event == FIELD
            elif event == FIELD:
                self.feedback.setdefault(field_name(field.name), []).append(field_text(&field))
                count += 1
        return bool(self.feedback.get("feedback-type", [""])[0])

    def original_fields(self, message, tuple names=()):
        cdef Py_buffer view
        cdef Part part
        if self.original is None:
            return []
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            if self.original[1] > view.len:
                raise ValueError("not the message that was scanned")
            part.start = <const uint8_t*>view.buf + <Py_ssize_t>self.original[0]
            part.end = <const uint8_t*>view.buf + <Py_ssize_t>self.original[1]
            if part.end - part.start > MAX_ORIGINAL_HEADER:
                part.end = part.start + MAX_ORIGINAL_HEADER
            part.encoding = self.original_encoding
            return header_section(&part, self.dot_stuffed, names)
        finally:
            PyBuffer_Release(&view)


cdef list header_section(Part* part, bint stuffed, tuple names):
    cdef bytes decoded = part_decoded(part, stuffed)
    cdef LineReader reader = decoded_reader(part, decoded, stuffed)
    cdef Field field
    cdef list fields = []
    while len(fields) < MAX_ORIGINAL_FIELDS and field_next(&reader, 0, &field) == FIELD:
        if not names or is_named(field.name, names):
            name = PyUnicode_DecodeASCII(<const char*>field.name.p, field.name.n, NULL)
            fields.append((name, field_text(&field)))
    return fields


cdef Report unreadable(Report report, str reason):
    report.kind = "unreadable"
    report.reason = reason
    report.per_message = report.per_recipient = report.feedback = None
    return report


cdef Report judge(Report report, Parts* parts, ReportType wanted):
    cdef bint status = parts.status.start != NULL
    cdef bint feedback = parts.feedback.start != NULL and not report.mixed
    # With both kinds of part the report-type decides; a feedback part counts under an odd report-type, too.
    feedback = feedback and not (status and wanted == STATUS_WANTED)
    status = status and (wanted == STATUS_WANTED or wanted == NO_REPORT_TYPE)
    if not feedback and not status and (report.mixed or wanted == OTHER_REPORT_TYPE):
        return None
    if feedback and report.read_feedback(&parts.feedback):
        report.kind = "arf"
    else:
        report.feedback = None
        report.truncated = False
        if status and report.read_status(&parts.status):
            report.kind = "dsn"
    if report.kind is not None:
        report.truncated |= parts.cut
        return report
    if status:
        return unreadable(report, "no_recipient")
    if feedback:
        return unreadable(report, "no_feedback_type")
    if parts.cut:
        return unreadable(report, "too_many_parts")
    return unreadable(report, "no_report_part" if parts.any else "no_parts")


cdef Report scan(const uint8_t* message, size_t n, bint stuffed, bint null_sender):
    cdef uint8_t[MAX_BOUNDARY + 2] boundary
    cdef HeaderReader header
    cdef HeaderEvent event = CONTENT_TRANSFER_ENCODING
    cdef Span parameters, delimiter, ignored
    cdef MediaType kind
    cdef ReportType wanted
    cdef PartReader reader
    cdef Parts parts
    cdef Report report
    header_from(&header, message, message + n, message + n, stuffed)
    while event == CONTENT_TRANSFER_ENCODING:
        event = header_next(&header, &parameters)
    kind = media_type(&parameters) if event == CONTENT_TYPE else OTHER_TYPE
    if kind != MULTIPART_REPORT and not (kind == MULTIPART_MIXED and null_sender):
        return None
    report = Report.__new__(Report)
    report.dot_stuffed = stuffed
    report.mixed = kind == MULTIPART_MIXED
    wanted = STATUS_WANTED if report.mixed else report_type_read(parameters)
    boundary[0] = boundary[1] = c'-'
    delimiter.p = boundary
    delimiter.n = 2 + parameter_copy(parameters, literal(b"boundary"), boundary + 2, MAX_BOUNDARY)
    delimiter = trimmed(delimiter)  # RFC 2046 §5.1.1: a boundary does not end in a blank
    if delimiter.n == 2:
        return None if report.mixed or wanted == OTHER_REPORT_TYPE else unreadable(report, "no_boundary")
    while event != END_OF_HEADER:
        event = header_next(&header, &ignored)
    parts_from(&reader, header.line, message + n)
    reader.delimiter = delimiter
    reader.lines_left = MAX_DELIMITERS
    parts_read(&reader, wanted, stuffed, &parts)
    if parts.original.start != NULL:
        report.original = (parts.original.start - message, parts.original.end - message)
        report.original_encoding = parts.original.encoding
    return judge(report, &parts, wanted)


def scan_report(message, *, bint dot_stuffed=False, bint null_sender=False):
    cdef Py_buffer view
    PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
    try:
        return scan(<const uint8_t*>view.buf, view.len, dot_stuffed, null_sender)
    finally:
        PyBuffer_Release(&view)
