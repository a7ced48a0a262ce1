# The content of one message: its octets as they were received, dot-stuffed, and what is known about them, like whether
# any is above 127 (RFC 6152). Where it ends in the bytes of a connection is framing.pxi's; dots and line ends are
# dots.pxi's.

cdef enum:
    SMALL_CHUNKS = 4096  # neighbours that together are no longer than this are joined


@cython.final
@cython.freelist(32)
@cython.auto_pickle(False)
cdef class Content:
    def __cinit__(self):
        self.chunks = []

    cdef int add(self, bytes data, Py_ssize_t at, Py_ssize_t end) except -1:
        """Keeps data[at:end], by reference if that is all of it."""
        cdef bytes chunk = part_of(data, at, end)
        cdef Py_ssize_t before = len(self.chunks) - 1
        cdef bytes last
        self.octets += end - at
        if before >= 0:
            last = self.chunks[before]
            if len(last) + len(chunk) <= SMALL_CHUNKS:  # else what is sent octet by octet costs 50 times its size
                self.chunks[before] = last + chunk
                return 0
        self.chunks.append(chunk)
        return 0

    cdef int drop_end(self, Py_ssize_t octets) except -1:
        """Forgets the last octets: the part of the terminator that arrived before its end did."""
        cdef bytes last
        self.octets -= octets
        while octets > 0:
            last = self.chunks.pop()
            if len(last) > octets:
                self.chunks.append(part_of(last, 0, len(last) - octets))
            octets -= len(last)
        return 0

    cdef int drop(self) except -1:
        """Forgets all of it."""
        self.chunks = []
        self.octets = 0
        return 0

    cpdef list pieces(self):
        return self.chunks if self.base is None else self.chunks + self.base.pieces()

    cpdef bytes head(self, Py_ssize_t n):
        cdef bytes head = b""
        for piece in self.pieces():
            head = head + <bytes>piece if head else piece
            if len(head) >= n:
                break
        return head

    cpdef bytes joined(self):
        cdef list pieces = self.pieces()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    cpdef Content behind(self, list fields):
        cdef Content whole = Content.__new__(Content)
        cdef Py_ssize_t added = 0
        whole.has_8bit = self.has_8bit
        for field in fields:
            added += len(<bytes>field)
            if not whole.has_8bit and not (<bytes>field).isascii():
                whole.has_8bit = True
        whole.chunks = fields
        whole.base = self
        whole.octets = self.octets + added
        whole.size = self.size + added
        whole.stuffed = self.stuffed
        whole.unsafe = self.unsafe
        return whole

    cpdef Content repaired(self, bint fix):
        if self.harmless is None or self.harmless_fixed != fix:
            self.harmless = content_of(repair_line_endings(self.joined(), fix))
            self.harmless_fixed = fix
        return self.harmless


cpdef Content content_of(bytes stuffed):
    cdef Content content = Content.__new__(Content)
    cdef Py_ssize_t n = len(stuffed)
    cdef Py_ssize_t dots = count_dot_lines(octets_of(stuffed), n)
    if n:
        content.chunks.append(stuffed)
    content.octets = n
    content.size = n - dots
    content.stuffed = dots > 0
    content.has_8bit = not stuffed.isascii()
    return content
