# What the other compiled modules call in _fastpath as C. What these classes are is told where they are implemented:
# fastpath/counters.pxi, fastpath/names.pxi, fastpath/json.pxi, fastpath/content.pxi, fastpath/framing.pxi and
# fastpath/sockets.pxi.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef union Word:
    int64_t i
    double d

cdef class HistogramSlot:
    # Word layout from `first`: one count per bound, the count above all bounds, the sum (a double).
    cdef readonly Py_ssize_t first
    cdef int n
    cdef double bounds[32]

cdef class CounterPage:
    cdef Py_buffer view
    cdef volatile Word* header
    cdef volatile Word* words
    cdef size_t n
    cdef bint held

    cdef int check(self, Py_ssize_t slot) except -1
    cpdef add(self, Py_ssize_t slot, int64_t n=*)
    cpdef observe(self, HistogramSlot histogram, double value)

cdef class PackedNames:
    cdef bytes slots, records
    cdef const uint32_t *slot
    cdef const uint8_t *record
    cdef uint64_t mask
    cdef Py_ssize_t count

    cpdef int64_t find(self, str name) except -2
    cpdef int64_t find_above(self, str name) except -2

cdef class JsonLine:
    cdef tuple pieces
    cdef Py_ssize_t gaps, filled
    cdef uint8_t* room             # what is written, and space behind it
    cdef Py_ssize_t capacity
    cdef readonly Py_ssize_t size  # octets written

    cpdef start(self, tuple pieces)
    cpdef text(self, str value)
    cpdef integer(self, int64_t value)
    cpdef json(self, bytes value)
    cpdef time(self, int64_t seconds, int64_t fraction, int digits)
    cpdef bytes finish(self)

cpdef step(generator, value)

cpdef bint is_ascii(str text) noexcept

cpdef int count_fields(bytes content, bytes name) except -1

cpdef tuple plain_from(bytes argument)
cpdef tuple plain_to(bytes argument)
cpdef list read_parameters(bytes text)

cdef struct ContentScan:
    uint64_t tail        # the last octets seen, the latest lowest; before the first one, the CRLF of "DATA"
    Py_ssize_t octets    # seen, terminator included
    Py_ssize_t dots      # that start a line and are no content, the terminator's included
    Py_ssize_t column    # octets of the line under way, without its stuffed dot
    Py_ssize_t max_line  # octets, line ending included
    uint8_t marks
    bint ended

cdef class ContentStore:
    cdef bytes directory
    cdef Py_ssize_t threshold
    cdef readonly Py_ssize_t limit, most_files
    cdef readonly Py_ssize_t memory, files, file_octets  # in use now
    cdef readonly Py_ssize_t written, failures           # contents so far
    cdef readonly int error                              # of the last failure

    cdef Py_ssize_t allowance(self, bint has_file) noexcept
    cpdef bint is_full(self) noexcept
    cdef int open(self) except? -1
    cdef void failed(self, int error) noexcept

cdef class Content:
    cdef list chunks            # in memory: what follows the file, or stands in front of `base`
    cdef Content base
    cdef readonly ContentStore store
    cdef Py_ssize_t held        # octets of the chunks, as the store counts them
    cdef Py_ssize_t in_file
    cdef int fd                 # -1 without a file
    cdef Content harmless       # as repaired() made it
    cdef bint harmless_fixed
    cdef bint dropped           # nothing of it is kept
    cdef readonly Py_ssize_t size, octets
    cdef readonly bint too_big, long_line, bare_cr, bare_lf, has_8bit, has_nul, stuffed, unsafe, lost
    cdef readonly bint binary, open_end
    cdef readonly bint in_memory  # none of it is in a file

    cdef void let_go(self) noexcept
    cdef int add(self, bytes data, Py_ssize_t at, Py_ssize_t end) except -1
    cdef int to_file(self) except -1
    cdef int lose(self, int error) except -1
    cdef int drop_end(self, Py_ssize_t octets) except -1
    cdef int drop(self) except -1
    cdef bytes read(self, Py_ssize_t at, Py_ssize_t n)
    cpdef pieces(self)
    cpdef bytes head(self, Py_ssize_t n)
    cpdef bytes joined(self)
    cpdef Content behind(self, list fields)
    cpdef Content repaired(self, bint fix)
    cpdef mark_binary(self, bint open_end)

cpdef Content content_of(bytes stuffed, ContentStore store=*)

cdef enum LineStatus:
    INCOMPLETE, COMPLETE, OVERLONG

cdef class Framer:
    cdef bytes data                  # what was fed and is not consumed starts at data[at]
    cdef readonly bytes argument     # of the command that was read last
    cdef Py_ssize_t at
    cdef Py_ssize_t max_command_line
    cdef bint discarding             # inside a line already known to be over-long
    cdef readonly int overlong       # the verb of the last such line
    cdef Content content             # the one being received, if any
    cdef ContentStore store          # for contents
    cdef Py_ssize_t max_size
    cdef uint8_t fatal               # the marks with which a content need not be kept
    cdef ContentScan scan
    cdef int64_t chunk               # octets that are still missing of the chunk that is being received
    cdef int64_t chunked             # octets of chunks so far
    cdef bint in_chunks              # commands may come in the middle of the content
    cdef bint binary                 # its octets are no lines

    cpdef feed(self, bytes data)
    cpdef int first(self) noexcept
    cpdef int next_verb(self) except -2
    cpdef next_line(self, Py_ssize_t max_line=*)
    cdef LineStatus take_line(self, Py_ssize_t max_line, Py_ssize_t *start, Py_ssize_t *end) except? INCOMPLETE
    cdef void note_overlong(self, Py_ssize_t start, Py_ssize_t end) noexcept
    cpdef start_content(self, Py_ssize_t max_size, Py_ssize_t max_line, bint strict=*, bint in_chunks=*, bint binary=*)
    cpdef next_content(self)
    cdef Py_ssize_t absorb(self, bytes data, Py_ssize_t at) except -1
    cpdef start_chunk(self, int64_t octets)
    cpdef bint next_chunk(self) except? False
    cpdef Content so_far(self)
    cpdef Content end_chunks(self)
    cpdef abandon(self)
    cpdef bint needs_room(self) noexcept
    cpdef bint is_bulky(self) noexcept

cpdef tuple accept(int fd)
cpdef tuple local_address(int fd)
cpdef bytes receive(int fd)
cpdef Py_ssize_t send(int fd, bytes data) except -1
cpdef Py_ssize_t send_chunks(int fd, list chunks, Py_ssize_t start) except -1
cpdef int shut_down(int fd) except -1
cpdef void close(int fd)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data

cdef enum:
    MOST_EVENTS = 256  # of one call of epoll_wait

cdef class Epoll:
    cdef int fd  # -1 once closed
    cdef int ready  # how many of `events` the last wait() filled in
    cdef epoll_event events[MOST_EVENTS]

    cpdef watch(self, int fd, bint read, bint write, bint known)
    cpdef forget(self, int fd)
    cpdef int wait(self) except -1
    cpdef int descriptor(self, int place) except -1
    cpdef bint readable(self, int place) except -1
    cpdef bint writable(self, int place) except -1
    cdef int check(self, int place) except -1
    cpdef close(self)
