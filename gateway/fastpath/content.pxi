# The content of one message: its octets as they were received, dot-stuffed, and what is known about them, like whether
# any is above 127 (RFC 6152). In memory, and past what its store allows in a file without a name, which is gone with
# the content. Where a content ends in the bytes of a connection is framing.pxi's; dots and line ends are dots.pxi's.
#
# Files are written and read on the event loop: what is written goes to the page cache and was read from a socket
# a moment ago, 256 KiB at most at a time. A disk that is slower than that for long holds the worker up.

from libc.errno cimport EINTR, EIO, EISDIR, ENOENT, EOPNOTSUPP, errno

import os
from itertools import chain

cdef extern from "<fcntl.h>" nogil:
    enum: O_CLOEXEC, O_EXCL, O_RDWR, O_TMPFILE
    int c_open "open" (const char *, int, ...)

cdef extern from "<stdlib.h>" nogil:
    int mkostemp(char *, int)

cdef extern from "<unistd.h>" nogil:
    int c_close "close" (int)
    int unlink(const char *)
    ssize_t pread(int, void *, size_t, Py_ssize_t)
    ssize_t pwrite(int, const void *, size_t, Py_ssize_t)

cdef extern from "<malloc.h>" nogil:
    int malloc_trim(size_t)

cdef enum:
    SMALL_CHUNKS = 4096          # neighbours that together are no longer than this are joined
    PIECE = 256 * 1024           # octets of a file that are read at a time
    FILE_TAIL = 64 * 1024        # octets that gather in memory before they are written to a file that is there
    MOST_IN_MEMORY = 1024 * 1024  # octets of one content while there is plenty


def trim_memory():
    malloc_trim(0)


# --- the store --------------------------------------------------------------------------------------------

@cython.final
@cython.auto_pickle(False)
cdef class ContentStore:
    def __init__(self, directory, Py_ssize_t limit, Py_ssize_t most_files, Py_ssize_t threshold=MOST_IN_MEMORY):
        if limit < 1 or most_files < 1 or threshold < 0:
            raise ValueError("a store needs room")
        self.directory = os.fsencode(directory)
        self.limit = limit
        self.most_files = most_files
        self.threshold = min(threshold, limit // 64)  # one content takes no more than its share
        cdef int fd = self.open()
        if fd < 0:
            raise OSError(errno, os.strerror(errno), directory)
        c_close(fd)

    cpdef bint is_full(self) noexcept:
        return self.memory >= self.limit and self.files >= self.most_files

    cdef Py_ssize_t allowance(self, bint has_file) noexcept:
        """How many octets one content may have in memory now."""
        if self.memory >= self.limit:
            return 0
        if has_file or self.memory >= self.limit // 2:
            return min(FILE_TAIL, self.threshold)
        return self.threshold

    cdef int open(self) except? -1:
        """A new file without a name; -1 and errno where there can be none."""
        cdef int fd = c_open(self.directory, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, <int>0o600)
        if fd >= 0 or errno not in (EISDIR, ENOENT, EOPNOTSUPP):
            return fd
        cdef bytes name = self.directory + b"/relay-gateway-XXXXXX"  # a file system without O_TMPFILE
        fd = mkostemp(<char *>octets_of(name), O_CLOEXEC)
        if fd >= 0:
            unlink(name)
        return fd

    cdef void failed(self, int error) noexcept:
        self.failures += 1
        self.error = error


# --- the content ------------------------------------------------------------------------------------------

@cython.final
@cython.freelist(32)
@cython.no_gc  # it refers to nothing that could refer to it, and gives back what it holds as soon as nobody has it
@cython.auto_pickle(False)
cdef class Content:
    def __cinit__(self):
        self.chunks = []
        self.fd = -1
        self.in_memory = True

    def __dealloc__(self):
        self.let_go()

    cdef void let_go(self) noexcept:
        """Gives back what it has of its store."""
        cdef ContentStore store = self.store
        if store is None:
            return
        store.memory -= self.held
        self.held = 0
        if self.fd >= 0:
            c_close(self.fd)
            self.fd = -1
            self.in_memory = True
            store.files -= 1
            store.file_octets -= self.in_file
            self.in_file = 0

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
            else:
                self.chunks.append(chunk)
        else:
            self.chunks.append(chunk)
        if self.store is not None:
            self.held += end - at
            self.store.memory += end - at
            if self.held > self.store.allowance(self.fd >= 0):
                self.to_file()
        return 0

    cdef int to_file(self) except -1:
        """Moves what is in memory behind what is in the file. Without a file to be had it stays where it is."""
        cdef ContentStore store = self.store
        cdef bytes chunk
        cdef int error
        if self.fd < 0:
            if store.files >= store.most_files:
                return 0
            self.fd = store.open()
            if self.fd < 0:
                return self.lose(errno)
            self.in_memory = False
            store.files += 1
            store.written += 1
        for chunk in self.chunks:
            error = write_all(self.fd, octets_of(chunk), len(chunk), self.in_file)
            if error:
                return self.lose(error)
            self.in_file += len(chunk)
            store.file_octets += len(chunk)
        self.chunks = []
        store.memory -= self.held
        self.held = 0
        return 0

    cdef int lose(self, int error) except -1:
        """There is no room for it: what is there of it is worth nothing."""
        self.store.failed(error)
        self.lost = True
        return self.drop()

    cdef int drop_end(self, Py_ssize_t octets) except -1:
        """Forgets the last octets: the part of the terminator that arrived before its end did."""
        cdef bytes last
        cdef Py_ssize_t gone = 0
        self.octets -= octets
        while gone < octets and self.chunks:
            last = self.chunks.pop()
            if len(last) > octets - gone:
                self.chunks.append(part_of(last, 0, len(last) - (octets - gone)))
                gone = octets
            else:
                gone += len(last)
        if self.store is not None:
            self.held -= gone
            self.store.memory -= gone
            self.in_file -= octets - gone  # the file may be longer than what counts
            self.store.file_octets -= octets - gone
        return 0

    cdef int drop(self) except -1:
        """Forgets all of it, and whatever may still come."""
        self.let_go()
        self.dropped = True
        self.chunks = []
        self.octets = 0
        return 0

    cdef bytes read(self, Py_ssize_t at, Py_ssize_t n):
        """Octets of the file."""
        cdef bytes octets = PyBytes_FromStringAndSize(NULL, n)
        cdef int error = read_all(self.fd, <uint8_t *>octets_of(octets), n, at)
        if error:
            raise OSError(error, os.strerror(error))
        return octets

    cpdef pieces(self):
        if self.base is not None:
            following = self.base.pieces()
            return self.chunks + following if type(following) is list else chain(self.chunks, following)
        return self.chunks if self.fd < 0 else self._stream()

    def _stream(self):
        cdef Py_ssize_t at = 0
        while at < self.in_file:
            yield self.read(at, min(PIECE, self.in_file - at))
            at += PIECE
        yield from self.chunks

    def plain_pieces(self):
        return self._open_pieces() if self.open_end else self._plain_pieces()

    def _open_pieces(self):
        """Without the CRLF at the end, which is none of it."""
        cdef bytes kept = b"", piece
        for piece in self._plain_pieces():
            kept += piece
            if len(kept) > 2:
                yield part_of(kept, 0, len(kept) - 2)
                kept = part_of(kept, len(kept) - 2, len(kept))

    def _plain_pieces(self):
        cdef bytes begun = b"", piece
        cdef Py_ssize_t whole
        cdef bint first = True
        if not self.stuffed:
            yield from self.pieces()
            return
        for piece in self.pieces():
            piece = begun + piece
            whole = len(piece)
            # a CRLF waits for what stands behind it
            if piece.endswith(b"\r"):
                whole -= 1
            elif piece.endswith(b"\r\n"):
                whole -= 2
            begun = part_of(piece, whole, len(piece))
            if whole:
                yield unstuffed(part_of(piece, 0, whole), first)
                first = False
        yield begun

    cpdef bytes head(self, Py_ssize_t n):
        cdef list pieces = []
        cdef bytes piece
        cdef Py_ssize_t length = 0
        for piece in self.pieces():
            pieces.append(piece)
            length += len(piece)
            if length >= n:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    cpdef bytes joined(self):
        pieces = self.pieces()
        return pieces[0] if type(pieces) is list and len(<list>pieces) == 1 else b"".join(pieces)

    cpdef Content behind(self, list fields):
        cdef Content whole = Content.__new__(Content)
        cdef Py_ssize_t added = 0
        whole.has_8bit = self.has_8bit
        for field in fields:
            added += len(<bytes>field)
            if not whole.has_8bit and not is_7bit(<bytes>field):
                whole.has_8bit = True
        whole.chunks = fields
        whole.base = self
        whole.in_memory = self.in_memory
        whole.octets = self.octets + added
        whole.size = self.size + added
        whole.stuffed = self.stuffed
        whole.unsafe = self.unsafe
        whole.binary = self.binary
        whole.open_end = self.open_end
        return whole

    cpdef mark_binary(self, bint open_end):
        self.binary = True
        self.unsafe = self.bare_cr = self.bare_lf = False  # nobody gets it as lines
        if open_end and not self.open_end:
            self.size -= 2
        self.open_end = open_end

    cpdef Content repaired(self, bint fix):
        if self.harmless is None or self.harmless_fixed != fix:
            self.harmless = content_of(repair_line_endings(self.joined(), fix), self.store)
            self.harmless_fixed = fix
        return self.harmless


cpdef Content content_of(bytes stuffed, ContentStore store=None):
    cdef Content content = Content.__new__(Content)
    cdef Py_ssize_t n = len(stuffed)
    cdef Py_ssize_t dots = count_dot_lines(octets_of(stuffed), n, True)
    content.store = store
    if n:
        content.add(stuffed, 0, n)
        if content.lost:
            raise OSError(store.error, os.strerror(store.error))
    content.size = n - dots
    content.stuffed = dots > 0
    content.has_8bit = not stuffed.isascii()
    return content


cdef int write_all(int fd, const uint8_t *p, Py_ssize_t n, Py_ssize_t at) noexcept:
    """The errno of a file that cannot take it, else 0."""
    cdef ssize_t done
    while n > 0:
        with nogil:
            done = pwrite(fd, p, n, at)
        if done > 0:
            p += done
            at += done
            n -= done
        elif done == 0 or errno != EINTR:
            return EIO if done == 0 else errno
    return 0


cdef int read_all(int fd, uint8_t *p, Py_ssize_t n, Py_ssize_t at) noexcept:
    """The errno of a file that does not have it, else 0."""
    cdef ssize_t done
    while n > 0:
        with nogil:
            done = pread(fd, p, n, at)
        if done > 0:
            p += done
            at += done
            n -= done
        elif done == 0 or errno != EINTR:
            return EIO if done == 0 else errno
    return 0
