# SMTP framing, server side: the bytes of a connection -> command lines and message contents. What a command
# means, and what is done about an odd content, is the session's. The classes' C attributes are in _fastpath.pxd.
#
# RFC 5321 §2.3.8: CRLF ends a line and nothing else does; §4.1.1.4: CRLF.CRLF ends the data; §4.5.3.1: limits.

# --- commands ---------------------------------------------------------------------------------------------

VERB_NAMES = (
    "EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT",
    "STARTTLS", "AUTH", "XCLIENT", "BDAT", "UNKNOWN", "LINE_TOO_LONG",
)
(
    EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP, VRFY, EXPN, HELP, QUIT,
    STARTTLS, AUTH, XCLIENT, BDAT, UNKNOWN, LINE_TOO_LONG,
) = range(17)

cdef enum:
    UNKNOWN_VERB = 15  # also the number of verbs that are known
    OVERLONG_LINE = 16
    LONGEST_VERB = 8   # STARTTLS: a folded verb fits a 64-bit word

cdef uint64_t[UNKNOWN_VERB] FOLDED_VERBS


cdef inline uint64_t fold_word(const uint8_t *p, Py_ssize_t n) noexcept nogil:
    """Up to eight octets as one number, letters in lower case.

    Only letters become letters by setting 0x20, so a word folds to a verb's number only if it is that verb.
    """
    cdef uint64_t folded = 0
    cdef Py_ssize_t i
    for i in range(n):
        folded = folded << 8 | p[i] | 0x20
    return folded


cdef fold_verbs():
    cdef int verb
    cdef bytes name
    for verb in range(UNKNOWN_VERB):
        name = VERB_NAMES[verb].encode()
        FOLDED_VERBS[verb] = fold_word(octets_of(name), len(name))


fold_verbs()


cdef inline int verb_of(const uint8_t *p, Py_ssize_t n) noexcept nogil:
    """The verb that the whole word p[:n] is, in any case."""
    if n > LONGEST_VERB:
        return UNKNOWN_VERB
    cdef uint64_t folded = fold_word(p, n)
    cdef int verb
    for verb in range(UNKNOWN_VERB):
        if FOLDED_VERBS[verb] == folded:
            return verb
    return UNKNOWN_VERB


cdef inline Py_ssize_t end_of_word(const uint8_t *p, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """The index of the first blank in p[at:end], or end."""
    while at < end and not is_blank(p[at]):
        at += 1
    return at


cdef inline Py_ssize_t find_crlf(const uint8_t *p, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """The index of the first CRLF in p[at:end], or -1."""
    cdef Py_ssize_t lf = index_of(p, at + 1, end, LF)
    while lf >= 0 and p[lf - 1] != CR:
        lf = index_of(p, lf + 1, end, LF)
    return lf - 1 if lf >= 0 else -1


# --- contents ---------------------------------------------------------------------------------------------

cdef enum Marks:  # what was seen in a content
    EIGHT_BIT = 0x80
    HAS_NUL = 0x01
    BARE_CR = 0x02
    BARE_LF = 0x04
    DOT_AFTER_LF = 0x08
    LONG_LINE = 0x10
    LOOSE_DOT = 0x20  # a line that starts with one dot and goes on: RFC 5321 §4.5.2 says the dot is dropped

cdef enum:
    CRLF_DOT = 0x0D0A2E
    NO_LINES = 1 << 30      # octets of a line, more than any content has
    BULK = 128 * 1024      # octets of a content that is a large one
    BLOCK = 4096           # surveyed at a time: large against the cost of a call, small against the L1 cache

cdef uint64_t END_OF_DATA = 0x0D0A2E0D0AULL
cdef uint64_t FIVE_OCTETS = 0xFFFFFFFFFFULL


cdef uint8_t survey(const uint8_t *p, Py_ssize_t n, uint8_t previous) noexcept nogil:
    """The marks of p[:n] that one look at each octet and its predecessor gives; `previous` came before p[0].

    The loop has no branches and works on octets only, so that compilers turn it into vector code.
    """
    cdef uint8_t united = p[0], lowest = p[0]
    cdef uint8_t bare_cr = previous == CR and p[0] != LF
    cdef uint8_t bare_lf = previous != CR and p[0] == LF
    cdef uint8_t dot = previous == LF and p[0] == DOT
    cdef uint8_t after_cr, is_lf
    cdef Py_ssize_t i
    for i in range(1, n):
        united |= p[i]
        lowest = min(lowest, p[i])
        after_cr = <uint8_t>(p[i - 1] == CR)
        is_lf = <uint8_t>(p[i] == LF)
        bare_cr |= after_cr & ~is_lf
        bare_lf |= is_lf & ~after_cr
        dot |= <uint8_t>(p[i - 1] == LF) & <uint8_t>(p[i] == DOT)
    return (
        (united & EIGHT_BIT) | (HAS_NUL if lowest == NUL else 0) | (BARE_CR if bare_cr else 0)
        | (BARE_LF if bare_lf else 0) | (DOT_AFTER_LF if dot else 0)
    )


cdef Py_ssize_t scan_seam(ContentScan *scan, const uint8_t *p, Py_ssize_t n) noexcept nogil:
    """Looks for what began before p[0] and ends in it; the length of p[:n] up to such an end of data, or 0."""
    cdef uint64_t tail = scan.tail
    cdef Py_ssize_t i
    for i in range(min(n, 4)):
        tail = tail << 8 | p[i]
        if i < 2 and (tail & 0xFFFFFF) == CRLF_DOT:  # from the third octet on scan_dots sees it
            scan.dots += 1
        if (tail & FIVE_OCTETS) == END_OF_DATA:
            return i + 1
        if (tail >> 8 & 0xFFFFFF) == CRLF_DOT and p[i] != DOT and p[i] != CR:
            scan.marks |= LOOSE_DOT
    for i in range(max(4, n - 4), n):
        tail = tail << 8 | p[i]
    scan.tail = tail
    return 0


cdef Py_ssize_t scan_dots(
    ContentScan *scan, const uint8_t *p, Py_ssize_t at, Py_ssize_t end, Py_ssize_t n
) noexcept nogil:
    """Counts the dots in p[at:end] that start a line; the length of p[:n] up to an end of data, or 0."""
    cdef Py_ssize_t dot = next_dot_line(p, at, end)
    while dot >= 0:
        scan.dots += 1
        if dot + 1 < n and p[dot + 1] != DOT:
            if dot + 2 < n and p[dot + 1] == CR and p[dot + 2] == LF:
                return dot + 3
            if p[dot + 1] != CR:  # a lone CR has its own mark
                scan.marks |= LOOSE_DOT
        dot = next_dot_line(p, dot + 1, end)
    return 0


cdef void scan_lines(ContentScan *scan, const uint8_t *p, Py_ssize_t n, uint8_t previous) noexcept nogil:
    """Measures lines without visiting each: a stretch of max_line octets that has an LF hides no longer line."""
    cdef Py_ssize_t start = -scan.column
    cdef Py_ssize_t lf
    if previous == LF and p[0] == DOT:
        start += 1
    while n - start > scan.max_line:
        lf = last_index_of(p, max(start, 0), start + scan.max_line, LF)
        if lf < 0:
            scan.marks |= LONG_LINE
            return
        start = lf + 2 if p[lf + 1] == DOT else lf + 1
    lf = last_index_of(p, max(start, 0), n, LF)
    if lf >= 0:
        start = lf + 2 if lf + 1 < n and p[lf + 1] == DOT else lf + 1
    scan.column = n - start


cdef Py_ssize_t scan_content(ContentScan *scan, const uint8_t *p, Py_ssize_t n) noexcept nogil:
    """Takes the next n > 0 octets of a content; the number of them up to the end of data, or n if it is not there."""
    cdef uint8_t first = scan.tail & 0xFF
    cdef uint8_t previous = first
    cdef uint8_t marks
    cdef Py_ssize_t at = 0, length
    cdef Py_ssize_t end = scan_seam(scan, p, n)
    cdef Py_ssize_t stop = end or n
    while at < stop:
        length = min(stop - at, BLOCK)
        marks = survey(p + at, length, previous)
        if marks & DOT_AFTER_LF and not end:
            end = scan_dots(scan, p, at, at + length, n)
            if end:
                stop = end
                if end < at + length:  # what follows is no part of this content
                    marks = survey(p + at, end - at, previous)
        scan.marks |= marks
        at += length
        previous = p[at - 1]
    if not scan.marks & LONG_LINE:
        scan_lines(scan, p, stop, first)
    scan.octets += stop
    scan.ended = end > 0
    return stop


cdef void note_marks(Content content, const ContentScan *scan) noexcept:
    """Notes what was seen in a content that is complete."""
    content.long_line = scan.marks & LONG_LINE != 0
    content.bare_cr = scan.marks & BARE_CR != 0
    content.bare_lf = scan.marks & BARE_LF != 0
    content.has_8bit = scan.marks & EIGHT_BIT != 0
    content.has_nul = scan.marks & HAS_NUL != 0
    content.stuffed = scan.dots > 1
    content.unsafe = scan.marks & (BARE_CR | BARE_LF | HAS_NUL | LOOSE_DOT) != 0


cdef bytes chunk_stuffed(bytes part, uint64_t tail):
    """A part of a chunk as DATA would have brought it. tail: the octets before it."""
    cdef const uint8_t *p = octets_of(part)
    cdef Py_ssize_t n = len(part)
    # a line that begins in this part may have its CRLF, or the CR of it, in the one before
    cdef bint at_start = p[0] == DOT and (tail & 0xFFFF) == 0x0D0A
    cdef bint behind_lf = n > 1 and p[0] == LF and p[1] == DOT and (tail & 0xFF) == CR
    cdef Py_ssize_t dots = count_dot_lines(p, n, at_start)
    if dots + behind_lf == 0:
        return part
    if behind_lf:
        return b"\n." + chunk_stuffed(part_of(part, 1, n), 0)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, n + dots)
    copy_dot_lines(<uint8_t *>octets_of(result), p, n, at_start, True)
    return result


# --- the connection ---------------------------------------------------------------------------------------

@cython.final
@cython.auto_pickle(False)
cdef class Framer:
    def __cinit__(self, Py_ssize_t max_command_line, ContentStore store=None):
        self.data = self.argument = b""
        self.store = store
        self.max_command_line = max_command_line

    def lengthen(self, Py_ssize_t max_command_line):
        self.max_command_line = max_command_line

    cpdef feed(self, bytes data):
        if data is None:
            raise TypeError("bytes are needed")
        if self.at == len(self.data):
            self.data = data
        else:
            self.data = part_of(self.data, self.at, len(self.data)) + data
        self.at = 0

    cpdef int first(self) noexcept:
        return octets_of(self.data)[self.at] if self.at < len(self.data) else -1

    cpdef int next_verb(self) except -2:
        cdef Py_ssize_t start, end, word
        cdef LineStatus status = self.take_line(self.max_command_line, &start, &end)
        if status == INCOMPLETE:
            return -1
        if status == OVERLONG:
            self.argument = b""
            return LINE_TOO_LONG
        cdef const uint8_t *p = octets_of(self.data)
        word = end_of_word(p, start, end)
        cdef int verb = verb_of(p + start, word - start)
        if verb != UNKNOWN_VERB:
            start = word
            while start < end and is_blank(p[start]):
                start += 1
            while end > start and is_blank(p[end - 1]):
                end -= 1
        self.argument = part_of(self.data, start, end)
        return verb

    cpdef next_line(self, Py_ssize_t max_line=12288):
        cdef Py_ssize_t start, end
        cdef LineStatus status = self.take_line(max_line, &start, &end)
        if status == INCOMPLETE:
            return None
        if status == OVERLONG:
            return (LINE_TOO_LONG, b"")
        return (UNKNOWN, part_of(self.data, start, end))

    cdef LineStatus take_line(self, Py_ssize_t max_line, Py_ssize_t *start, Py_ssize_t *end) except? INCOMPLETE:
        """Consumes the next line, data[start:end] and its CRLF; what can only become over-long is not kept."""
        if self.content is not None and not self.in_chunks:
            raise RuntimeError("a content is being received")
        cdef const uint8_t *p = octets_of(self.data)
        cdef Py_ssize_t n = len(self.data)
        start[0] = self.at
        end[0] = find_crlf(p, self.at, n)
        if end[0] >= 0:
            self.at = end[0] + 2
            if not self.discarding and self.at - start[0] <= max_line:
                return COMPLETE
            self.note_overlong(start[0], end[0])
            self.discarding = False
            return OVERLONG
        if n - self.at >= max_line or (self.discarding and n > self.at):
            self.note_overlong(self.at, n)
            self.discarding = True
            self.at = n - 1 if p[n - 1] == CR else n
        if self.at:  # lets go of the received buffer, so that idle connections hold no memory
            self.data = part_of(self.data, self.at, len(self.data))
            self.at = 0
        return INCOMPLETE

    cdef void note_overlong(self, Py_ssize_t start, Py_ssize_t end) noexcept:
        """Notes the verb of a line from whose beginning on data[start:end] is there, unless that is known."""
        cdef const uint8_t *p = octets_of(self.data)
        if not self.discarding:
            self.overlong = verb_of(p + start, end_of_word(p, start, end) - start)

    cpdef start_content(
        self, Py_ssize_t max_size, Py_ssize_t max_line, bint strict=False, bint in_chunks=False, bint binary=False
    ):
        self.in_chunks = in_chunks
        self.binary = binary
        if binary:
            max_line, strict = NO_LINES, False
        self.content = Content.__new__(Content)
        self.content.store = self.store
        self.max_size = max_size
        self.fatal = LONG_LINE | BARE_CR | BARE_LF if strict else LONG_LINE
        self.scan = ContentScan(tail=0x0D0A, octets=0, dots=0, column=0, max_line=max_line + 2, marks=0, ended=False)

    cpdef next_content(self):
        cdef Content content = self.content
        if content is None:
            raise RuntimeError("no content is being received")
        if len(self.data) == self.at:
            return None
        self.at += self.absorb(self.data, self.at)
        if self.at == len(self.data):
            self.data = b""
            self.at = 0
        if not self.scan.ended:
            return None
        note_marks(content, &self.scan)
        self.content = None
        return content

    cdef Py_ssize_t absorb(self, bytes data, Py_ssize_t at) except -1:
        """Takes data[at:] into the content, up to its end; returns how many octets of it that are."""
        cdef Content content = self.content
        cdef Py_ssize_t taken = scan_content(&self.scan, octets_of(data) + at, len(data) - at)
        cdef Py_ssize_t size = self.scan.octets - self.scan.dots - 1  # at most one CR of a terminator is in it
        cdef Py_ssize_t kept = taken
        if self.scan.ended:
            size -= 1
            kept -= 3
        content.too_big = size > self.max_size
        if content.dropped:
            pass
        elif content.too_big or self.scan.marks & self.fatal:  # its answer is known
            content.drop()
        elif kept > 0:
            content.add(data, at, at + kept)
        else:
            content.drop_end(-kept)
        if self.scan.ended:
            content.size = size
        return taken

    # Chunks (RFC 3030) become what DATA would have brought: dots are doubled, and their end becomes an end of data.
    # So there is one kind of content, and nothing in it means more or less for having come in chunks.

    cpdef start_chunk(self, int64_t octets):
        self.chunk = octets

    cpdef bint next_chunk(self) except? False:
        cdef Py_ssize_t n = <Py_ssize_t>min(self.chunk, <int64_t>(len(self.data) - self.at))
        cdef bytes part
        if n > 0:
            part = part_of(self.data, self.at, self.at + n)
            self.at += n
            self.chunk -= n
            self.chunked += n
            if self.at == len(self.data):
                self.data = b""
                self.at = 0
            if self.content is not None:
                part = chunk_stuffed(part, self.scan.tail)
                self.absorb(part, 0)
        return self.chunk == 0

    cpdef Content so_far(self):
        note_marks(self.content, &self.scan)
        if self.binary:
            self.content.mark_binary(False)
        return self.content

    cpdef Content end_chunks(self):
        cdef Content content = self.content
        cdef bint ended = self.scan.tail & 0xFFFF == 0x0D0A
        # a last line without CRLF gets one: DATA cannot carry it otherwise (RFC 5321 §4.1.1.4)
        self.absorb(b".\r\n" if ended else b"\r\n.\r\n", 0)
        note_marks(content, &self.scan)
        if self.binary:
            content.mark_binary(not ended)
        self.content = None
        self.in_chunks = False
        return content

    cpdef abandon(self):
        self.content = None
        self.in_chunks = False

    cpdef bint needs_room(self) noexcept:
        return (
            self.content is not None and self.content.fd < 0 and self.store is not None and self.store.is_full()
        )

    cpdef bint is_bulky(self) noexcept:
        return self.content is not None and (self.content.fd >= 0 or self.content.octets >= BULK)

    @property
    def content_octets(self):
        return self.chunked + (self.scan.octets if self.content is not None and not self.in_chunks else 0)

    @property
    def buffered(self):
        return len(self.data) - self.at
