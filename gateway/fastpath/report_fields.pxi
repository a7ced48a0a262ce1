# The fields of reports as Python objects: names and values as text, and the groups of a status part (RFC 3464 §2).
# What the values mean is for gateway/reports.

from cpython.unicode cimport PyUnicode_AsUTF8, PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8

cdef enum:
    MAX_KNOWN_NAME = 32

cdef enum:                      # the fields that make a recipient group, as bits
    MARK_RECIPIENT = 1
    MARK_ORIGINAL_RECIPIENT = 2
    MARK_ACTION = 4
    MARK_STATUS = 8


cdef tuple KNOWN_NAMES = (
    # RFC 3464 §2.2, 2.3 and what mailers add to it
    "original-envelope-id", "reporting-mta", "dsn-gateway", "received-from-mta", "arrival-date",
    "original-recipient", "final-recipient", "action", "status", "remote-mta", "diagnostic-code",
    "last-attempt-date", "final-log-id", "will-retry-until", "x-postfix-queue-id", "x-postfix-sender",
    "x-actual-recipient", "x-display-name", "x-supplementary-info",
    # RFC 5965 §3
    "feedback-type", "user-agent", "version", "original-mail-from", "original-rcpt-to", "received-date",
    "source-ip", "incidents", "authentication-results", "reported-domain", "reported-uri", "removal-recipient",
)
cdef Span[64] KNOWN_SPANS
cdef int[MAX_KNOWN_NAME + 2] KNOWN_FROM   # where the names of each length begin


cdef tuple index_known_names(tuple names):
    cdef int i
    names = tuple(sorted(names, key=len))
    for i in range(len(names)):
        KNOWN_SPANS[i] = literal(PyUnicode_AsUTF8(names[i]))
    for i in range(MAX_KNOWN_NAME + 2):
        KNOWN_FROM[i] = sum([len(name) < i for name in names])
    return names


KNOWN_NAMES = index_known_names(KNOWN_NAMES)
cdef str FINAL_RECIPIENT = "final-recipient"
cdef str ORIGINAL_RECIPIENT = "original-recipient"
cdef str ACTION = "action"
cdef str STATUS = "status"
cdef str DIAGNOSTIC_CODE = "diagnostic-code"
cdef str TRANSFER_ENCODING = "content-transfer-encoding"


cdef str field_name(Span name):
    cdef uint8_t[MAX_KNOWN_NAME] lower
    cdef int i
    if name.n <= MAX_KNOWN_NAME:
        for i in range(KNOWN_FROM[name.n], KNOWN_FROM[name.n + 1]):
            if equals_folded(name, KNOWN_SPANS[i]):
                return <str>KNOWN_NAMES[i]
        for i in range(<int>name.n):
            lower[i] = name.p[i] + 32 if c'A' <= name.p[i] <= c'Z' else name.p[i]
        return PyUnicode_DecodeASCII(<const char*>lower, name.n, NULL)
    return PyUnicode_DecodeASCII(<const char*>name.p, name.n, NULL).lower()


cdef bint is_named(Span name, tuple names) except -1:
    """Whether `names` has the name, or its beginning up to a dash."""
    cdef Span wanted
    for item in names:
        wanted = literal(PyUnicode_AsUTF8(item))
        if wanted.n < name.n and wanted.p[wanted.n - 1] == c'-':
            if equals_folded(Span(name.p, wanted.n), wanted):
                return True
        elif equals_folded(name, wanted):
            return True
    return False


cdef inline str text_of(Span s):
    # Octets that are not UTF-8 become lone surrogates, so nothing is lost.
    return PyUnicode_DecodeUTF8(<const char*>s.p, s.n, b"surrogateescape")


cdef str field_text(Field* field):
    """The value unfolded: each line stripped of blanks, empty ones dropped, the rest joined with one blank."""
    cdef bytes scratch
    cdef uint8_t* out
    cdef size_t used = 0
    cdef Span line
    cdef LineReader reader
    if not field.folded:
        return text_of(trimmed(field.value))
    scratch = PyBytes_FromStringAndSize(NULL, field.value.n + 1)
    out = <uint8_t*>PyBytes_AS_STRING(scratch)
    reader = line_reader(field.value.p, field.value.p + field.value.n, False)
    while line_next(&reader, &line):
        line = trimmed(line)
        if line.n:
            if used:
                out[used] = c' '
                used += 1
            memcpy(out + used, line.p, line.n)
            used += line.n
    return text_of(Span(out, used))


cdef inline object placed_text(Field* field, placed, const uint8_t* base):
    """What `placed` makes of the value and its place behind `base`; NULL: it has none."""
    cdef str value = field_text(field)
    if base == NULL:
        return placed(value, -1, -1)
    return placed(value, field.name.p - base, field.value.p + field.value.n - base)


cdef inline int mark_of(str name) noexcept:
    if name is FINAL_RECIPIENT:
        return MARK_RECIPIENT
    if name is ORIGINAL_RECIPIENT:
        return MARK_ORIGINAL_RECIPIENT
    if name is ACTION:
        return MARK_ACTION
    return MARK_STATUS if name is STATUS else 0


@cython.final
@cython.internal
@cython.auto_pickle(False)
cdef class StatusGroups:
    """Sorts the fields of a status part into per-message and per-recipient ones.

    Blocks end at empty lines. Where mailers leave those out, the per-message fields are the ones in front of the
    first of the four marks, and a repeated mark begins a new group.
    """
    cdef dict per_message
    cdef list per_recipient
    cdef dict fields            # of the block or group that is being read
    cdef dict leading           # of the first block: what was in front of the first mark
    cdef int seen               # marks in `fields`
    cdef Py_ssize_t block_from  # how many groups there were when the block began
    cdef bint first_block
    cdef bint split             # the block has given a group already
    cdef Py_ssize_t headless    # groups in front that are a block each and name no recipient

    def __cinit__(self):
        self.per_message = {}
        self.per_recipient = []
        self.fields = {}
        self.first_block = True

    cdef int add(self, Field* field, placed, const uint8_t* base) except -1:
        """The mark that it is; placed, base: see placed_text()."""
        cdef str name = field_name(field.name)
        cdef int mark = mark_of(name)
        if mark:
            if self.seen & mark and self.seen != MARK_STATUS:
                self.per_recipient.append(self.fields)
                self.fields = {}
                self.seen = 0
                self.split = True
            elif self.seen == 0 and self.first_block and not self.split:
                self.leading = self.fields
                self.fields = {}
            self.seen |= mark
        value = field_text(field) if placed is None else placed_text(field, placed, base)
        self.fields.setdefault(name, value)  # of repeated ones the first counts
        return mark

    cdef inline int begin_block(self) except -1:
        self.fields = {}
        self.leading = None
        self.seen = 0
        self.split = False
        self.block_from = len(self.per_recipient)
        return 0

    cdef bint is_about_content(self) except -1:
        for name in self.fields:
            if not (<str>name).startswith("content-"):
                return False
        return True

    cdef int end_block(self) except -1:
        if not self.fields:
            return 0
        if self.first_block and TRANSFER_ENCODING in self.fields and self.is_about_content():
            return self.begin_block()  # it is about the blocks that follow, which are known by how they look
        if self.split or self.seen & ~MARK_STATUS:
            if (self.headless == len(self.per_recipient) and not self.split
                    and not self.seen & (MARK_RECIPIENT | MARK_ORIGINAL_RECIPIENT)):
                self.headless += 1
            self.per_recipient.append(self.fields)
            if self.leading is not None:
                self.per_message = self.leading
        elif self.first_block:
            self.per_message = self.fields if self.leading is None else self.leading | self.fields
        self.begin_block()
        self.first_block = False
        return 0

    cdef int forget_block(self) except -1:
        """Forget what was added since the last end of a block."""
        del self.per_recipient[self.block_from:]
        return self.begin_block()

    cdef int apply_first_block(self) except -1:
        """An Action or Status in blocks in front of all recipients is that of each that has none of its own."""
        if self.headless < len(self.per_recipient):
            for group in self.per_recipient[:self.headless]:
                self.per_message = self.per_message | group
            del self.per_recipient[:self.headless]
        for name in (ACTION, STATUS):
            value = self.per_message.get(name)
            if value:
                for group in self.per_recipient:
                    if not (<dict>group).get(name):
                        (<dict>group)[name] = value
        return 0


cdef bint is_usable(dict group, bint tolerant):
    """Whether a recipient group says who and what; `tolerant`: the diagnostic may tell what."""
    if not (group.get(FINAL_RECIPIENT) or group.get(ORIGINAL_RECIPIENT)):
        return False
    return bool(group.get(ACTION) or group.get(STATUS) or tolerant and group.get(DIAGNOSTIC_CODE))
