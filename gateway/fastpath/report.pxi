# What a report (RFC 3464, RFC 5965) says: its fields by recipient, the header section of the original, the text for
# people. What the fields mean is for gateway/reports; which message is a report, report_scan.pxi knows.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

cdef enum:
    MAX_RECIPIENT_GROUPS = 10000
    MAX_FIELDS = 100000         # of one status or feedback part
    MAX_ORIGINAL_HEADER = 262144  # octets of the original that are searched for its header section
    MAX_ORIGINAL_FIELDS = 1000
    MIN_ENCODED = 12            # octets of a block that may be a recipient group in base64


cdef bytes decoded_span(Span text, Encoding encoding, bint stuffed, bint in_pieces):
    """`text` decoded; `in_pieces`: see base64_decode()."""
    cdef bytes decoded = PyBytes_FromStringAndSize(NULL, text.n + 1)
    cdef size_t n
    if encoding == BASE64:
        n = base64_decode(text, in_pieces, <uint8_t*>PyBytes_AS_STRING(decoded))
    else:
        n = quoted_printable_decode(text, stuffed, <uint8_t*>PyBytes_AS_STRING(decoded))
    return decoded[:n]


cdef bytes part_decoded(Part* part, bint stuffed, bint in_pieces=False):
    """The decoded content of a part, or None for one that is not encoded."""
    if part.encoding == IDENTITY:
        return None
    return decoded_span(Span(part.start, part.end - part.start), part.encoding, stuffed, in_pieces)


cdef LineReader reader_of(bytes decoded) noexcept:
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(decoded)
    return line_reader(p, p + len(decoded), False)


cdef LineReader decoded_reader(Part* part, bytes decoded, bint stuffed) noexcept:
    return line_reader(part.start, part.end, stuffed) if decoded is None else reader_of(decoded)


cdef Encoding hidden_encoding(Span block) noexcept nogil:
    """How a block of a status part that has no fields is encoded, although nothing says so; IDENTITY: not at all."""
    cdef size_t i, letters = 0
    cdef uint8_t c
    for i in range(block.n):
        c = block.p[i]
        if base64_values[c] >= 0:
            letters += 1
        elif c != c'=' and not is_fws(c):
            break
    else:
        return BASE64 if letters >= MIN_ENCODED else IDENTITY
    return QUOTED_PRINTABLE if has_folded(block, literal(b"=3a")) else IDENTITY


cdef bint is_escaped(Span address) noexcept nogil:
    """Whether this is an address in quoted-printable in a part that does not say so; no encoded-word (RFC 2047)."""
    if memchr(address.p, c'@', address.n) != NULL or has_folded(address, literal(b"=?")):
        return False
    return has_folded(address, literal(b"=40"))


cdef bint is_partly_clear(Part* part) noexcept nogil:
    """Whether base64 that is said of a part is true of some blocks or of none: no base64 has a colon."""
    return part.encoding == BASE64 and memchr(part.start, c':', part.end - part.start) != NULL


UNREADABLE_REASONS = (
    "no_boundary", "no_parts", "too_many_parts", "no_report_part", "no_recipient", "no_feedback_type"
)


RECOGNISED = (
    "report", "mixed", "multipart", "wrapped", "private_type", "claimed", "x_failed_recipients", "qsbmf", "junk"
)


@cython.final
@cython.auto_pickle(False)
cdef class Report:
    cdef readonly str kind
    cdef readonly str reason
    cdef readonly str how
    cdef readonly str candidate
    cdef readonly bint inferred
    cdef readonly bint mixed
    cdef readonly bint truncated
    cdef readonly dict per_message
    cdef readonly list per_recipient
    cdef readonly dict feedback
    cdef readonly tuple original
    cdef readonly bytes quoted
    cdef readonly bint dot_stuffed
    cdef bint tolerant
    cdef Encoding original_encoding
    cdef object placed
    cdef const uint8_t* message
    cdef Py_ssize_t leading_start, leading_end, fields_start, fields_end

    @property
    def leading(self):
        return (self.leading_start, self.leading_end) if self.leading_end else None

    @property
    def fields_from(self):
        return (self.fields_start, self.fields_end) if self.fields_end else None

    cdef int place(self, Parts* parts) except -1:
        """Keep where the parts are."""
        if parts.original.start != NULL:
            self.original = (parts.original.start - self.message, parts.original.end - self.message)
            self.original_encoding = parts.original.encoding
        if self.tolerant and parts.any:
            self.leading_start = parts.leading.header - self.message
            self.leading_end = parts.leading.end - self.message
        return 0

    cdef inline void place_fields(self, Part* part) noexcept:
        self.fields_start = part.start - self.message
        self.fields_end = part.end - self.message

    cdef int add_encoded(self, StatusGroups groups, Span block, Encoding encoding, int count) except -1:
        """A block of a status part that is encoded by itself; count: fields so far. The same with these."""
        cdef bytes decoded = decoded_span(block, encoding, False, True)
        cdef LineReader reader = reader_of(decoded)
        cdef FieldEvent event = FIELD
        cdef Field field
        while event != END_OF_FIELDS and not self.truncated:
            event = field_next(&reader, 0, &field)
            if event != FIELD:
                groups.end_block()
            elif count == MAX_FIELDS or len(groups.per_recipient) >= MAX_RECIPIENT_GROUPS:
                self.truncated = True
            else:
                groups.add(&field, self.placed, NULL)
                count += 1
        return count

    cdef bint read_status(self, Part* part) except -1:
        cdef bytes decoded = part_decoded(part, self.dot_stuffed, self.tolerant)
        cdef LineReader reader = decoded_reader(part, decoded, self.dot_stuffed)
        cdef const uint8_t* base = self.message if decoded is None else NULL
        cdef const uint8_t* block = reader.p
        cdef StatusGroups groups = StatusGroups()
        cdef FieldEvent event = FIELD
        cdef Encoding encoding
        cdef Field field
        cdef int count = 0, before = 0
        cdef bint escaped = False
        while event != END_OF_FIELDS and not self.truncated:
            event = field_next(&reader, 0, &field)
            if event != FIELD:
                if self.tolerant and reader.p - block > MIN_ENCODED and (escaped or count == before):
                    encoding = QUOTED_PRINTABLE if escaped else hidden_encoding(Span(block, reader.p - block))
                    if encoding != IDENTITY:
                        groups.forget_block()
                        count = self.add_encoded(groups, Span(block, reader.p - block), encoding, count)
                groups.end_block()
                block = reader.p
                before = count
                escaped = False
            elif count == MAX_FIELDS or len(groups.per_recipient) >= MAX_RECIPIENT_GROUPS:
                self.truncated = True
            else:
                if groups.add(&field, self.placed, base) & (MARK_RECIPIENT | MARK_ORIGINAL_RECIPIENT):
                    escaped = escaped or self.tolerant and is_escaped(field.value)
                count += 1
        if count == MAX_FIELDS:
            groups.end_block()
        if self.tolerant:
            groups.apply_first_block()
        self.per_message = groups.per_message
        self.per_recipient = groups.per_recipient
        for group in groups.per_recipient:
            if is_usable(group, self.tolerant):
                return True
        return False

    cdef bint read_statuses(self, Parts* parts) except -1:
        """The first status part that is usable; whether there is one."""
        cdef bint usable
        cdef int i
        for i in range(parts.statuses):
            self.truncated = False
            if self.tolerant and is_partly_clear(&parts.status[i]):
                parts.status[i].encoding = IDENTITY
            usable = self.read_status(&parts.status[i])
            if usable:
                self.place_fields(&parts.status[i])
                if parts.status[i].kind == NEARLY_STATUS:
                    self.how = "private_type"
                return True
        return False

    cdef bint read_feedback(self, Part* part) except -1:
        cdef bytes decoded = part_decoded(part, self.dot_stuffed)
        cdef LineReader reader = decoded_reader(part, decoded, self.dot_stuffed)
        cdef const uint8_t* base = self.message if decoded is None else NULL
        cdef FieldEvent event = FIELD
        cdef Field field
        cdef int count = 0
        self.feedback = {}
        while event != END_OF_FIELDS and not self.truncated:
            event = field_next(&reader, 0, &field)
            if count == MAX_FIELDS:
                self.truncated = event == FIELD
            elif event == FIELD:
                value = field_text(&field) if self.placed is None else placed_text(&field, self.placed, base)
                self.feedback.setdefault(field_name(field.name), []).append(value)
                count += 1
        self.place_fields(part)
        if part.kind == NEARLY_FEEDBACK:
            self.how = "private_type"
        return bool(self.feedback.get("feedback-type", [""])[0])

    def infer(self, str kind, *, dict per_message=None, list per_recipient=None, dict feedback=None, bytes quoted=None):
        self.kind = kind
        self.how = self.candidate
        self.reason = None
        self.inferred = True
        self.per_message = per_message
        self.per_recipient = per_recipient
        self.feedback = feedback
        if quoted is not None:
            self.quoted = quoted

    def original_fields(self, message, tuple names=()):
        cdef Part part
        if self.quoted is not None:
            part.start = octets_of(self.quoted)
            part.end = part.start + min(len(self.quoted), <Py_ssize_t>MAX_ORIGINAL_HEADER)
            part.encoding = IDENTITY
            return header_section(&part, False, names)
        if self.original is None:
            return []
        return self.fields_between(message, self.original[0], self.original[1], self.original_encoding, names)

    def header_fields(self, message, tuple names=()):
        return self.fields_between(message, 0, len(message), IDENTITY, names)

    cdef list fields_between(self, message, Py_ssize_t start, Py_ssize_t end, Encoding encoding, tuple names):
        cdef Py_buffer view
        cdef Part part
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            if end > view.len:
                raise ValueError("not the message that was scanned")
            part.start = <const uint8_t*>view.buf + start
            part.end = part.start + min(end - start, <Py_ssize_t>MAX_ORIGINAL_HEADER)
            part.encoding = encoding
            return header_section(&part, self.dot_stuffed, names)
        finally:
            PyBuffer_Release(&view)

    def prose(self, message, Py_ssize_t most):
        cdef Py_buffer view
        cdef Text text
        cdef Span charset
        cdef const uint8_t* start
        cdef bytes octets
        if self.leading_end == 0:
            return None
        memset(&text, 0, sizeof(Text))
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            if self.leading_end > view.len:
                raise ValueError("not the message that was scanned")
            start = <const uint8_t*>view.buf
            text_find(
                start + self.leading_start, start + self.leading_end, start + view.len, self.dot_stuffed, MAX_LEVELS,
                &text,
            )
            if text.part.start == NULL:
                return None
            text.part.end = text.part.start + min(text.part.end - text.part.start, most)
            octets = part_decoded(&text.part, self.dot_stuffed)
            if octets is None:
                octets = plain_octets(&text.part, self.dot_stuffed)
            charset.p = text.charset
            charset.n = text.charset_length
            return octets, text_of(charset), bool(text.html), text.part.start - start, text.part.end - start
        finally:
            PyBuffer_Release(&view)


cdef bytes plain_octets(Part* part, bint stuffed):
    cdef bytes octets = PyBytes_FromStringAndSize(<const char*>part.start, part.end - part.start)
    return unstuff(octets) if stuffed else octets


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
