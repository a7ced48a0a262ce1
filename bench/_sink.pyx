# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled SMTP sink: takes messages as fast as they come, checks their marks, misbehaves on request.

One epoll loop in one thread, without the GIL. It understands what senders of bulk mail say, pipelined or not,
split anywhere; it stores nothing. Starting it as a process and asking it for its counts is sink.py's work.
"""

include "wire/net.pxi"
include "wire/mark.pxi"
include "wire/enddata.pxi"
include "wire/arrivals.pxi"

from cpython.exc cimport PyErr_CheckSignals

cdef enum:
    LINE = 2048                 # longest command line that is understood
    REPLIES = 4096              # replies gathered before they are written
    HEADER = 65536              # a mark further down than this is not found
    CONTROL = 0xffffffff        # epoll tags
    LISTENER = 0xfffffffe
    TIMER = 0xfffffffd

cdef const char* TAKEN = b"250 2.0.0 Ok\r\n"

cdef enum:                      # where a refusal may be asked for
    AT_MAIL
    AT_RCPT
    AT_DATA
    AT_DOT

cdef struct Connection:
    int fd
    bint in_data
    bint in_header              # of the message being received
    int line_length
    char line[LINE]
    int recipients
    int matched                 # bytes of the terminator seen at the end of what was read
    int implied                 # of these, how many were never on the wire: DATA begins a line
    char* header                # the header section so far, when it did not come in one piece
    size_t header_length
    Mark mark
    BodyHash body
    int64_t reply_due           # when the reply to the dot may go out; 0: none is held back
    int next_due                # the descriptor whose delayed reply comes after this one's
    char* waiting               # bytes that came behind that dot
    size_t waiting_length


cdef class Sink:
    """An SMTP server on a listening socket that discards what it gets.

    delay          seconds before the reply to the final dot
    refuse         {stage: (code, every)}: answer `code` to each `every`-th MAIL, RCPT, DATA or DOT
    drop_every     close without a reply after each so many final dots; 0: never
    reset_every    the same with a TCP reset
    """
    cdef int epoll, listener, timer
    cdef Connection** connections
    cdef int capacity
    cdef char* buffer
    cdef char* replies
    cdef size_t reply_length
    cdef int64_t delay_ns
    cdef int first_due, last_due
    cdef int refuse_code[4]
    cdef int64_t refuse_every[4]
    cdef int64_t stage_count[4]
    cdef int64_t drop_every, reset_every
    cdef Arrivals arrivals
    cdef readonly int64_t messages, recipients, bytes_read, connections_opened, connections_open
    cdef readonly int64_t refused, dropped, unmarked

    def __cinit__(self, int listener, int control, *, double delay=0, refuse=None, int64_t drop_every=0,
                  int64_t reset_every=0):
        self.listener, self.delay_ns = listener, <int64_t>(delay * 1e9)
        self.drop_every, self.reset_every = drop_every, reset_every
        for stage, (code, every) in (refuse or {}).items():
            at = ("MAIL", "RCPT", "DATA", "DOT").index(stage)
            self.refuse_code[at], self.refuse_every[at] = code, every
        self.first_due = self.last_due = -1
        self.arrivals = Arrivals()
        self.buffer = <char*>malloc(READ_BUFFER)
        self.replies = <char*>malloc(REPLIES)
        if not (self.buffer and self.replies):
            raise MemoryError
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        self.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.epoll < 0 or self.timer < 0:
            raise OSError(errno, "epoll or timerfd")
        watch(self.epoll, EPOLL_CTL_ADD, listener, EPOLLIN, LISTENER)
        watch(self.epoll, EPOLL_CTL_ADD, self.timer, EPOLLIN, TIMER)
        watch(self.epoll, EPOLL_CTL_ADD, control, EPOLLIN, CONTROL)

    def __dealloc__(self):
        cdef int fd
        for fd in range(self.capacity):
            if self.connections[fd] != NULL:
                self._close(self.connections[fd])
        for fd in range(self.capacity):
            free(self.connections[fd])
        free(self.connections)
        free(self.buffer)
        free(self.replies)
        if self.epoll > 0:
            close(self.epoll)
        if self.timer > 0:
            close(self.timer)

    def serve(self) -> None:
        """Serve until something can be read from the control descriptor, or a signal handler raises."""
        cdef bint called = False
        while not called:
            with nogil:
                called = self._turn()
            PyErr_CheckSignals()

    def runs(self) -> dict:
        """What arrived of each run of the load source: {run: {messages, unique, recipients, corrupt}}."""
        return self.arrivals.as_dict()

    # ----------------------------------------------------------------------------------------------- loop

    cdef bint _turn(self) noexcept nogil:
        """Handle events for a while; true when the control descriptor has something to say."""
        cdef epoll_event events[EVENTS]
        cdef int i, n, _turns
        cdef uint64_t tag
        cdef bint called = False
        for _turns in range(64):
            n = epoll_wait(self.epoll, events, EVENTS, 50)
            for i in range(n):
                tag = events[i].data.u64
                if tag == CONTROL:
                    called = True
                elif tag == LISTENER:
                    self._accept()
                elif tag == TIMER:
                    read(self.timer, self.buffer, 8)
                    self._reply_delayed()
                elif self.connections[tag] != NULL:
                    self._read(self.connections[tag])
            if called or n <= 0:
                break
        return called

    cdef void _accept(self) noexcept nogil:
        cdef Connection* c
        cdef int fd, _taken
        for _taken in range(64):
            fd = accept4(self.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                return
            c = self._connection(fd)
            if c == NULL:
                close(fd)
                return
            set_nodelay(fd)
            self.connections_opened += 1
            self.connections_open += 1
            self._say(c, b"220 sink.example ESMTP\r\n")
            self._flush(c)
            if c.fd >= 0:
                watch(self.epoll, EPOLL_CTL_ADD, fd, EPOLLIN, <uint64_t>fd)

    cdef Connection* _connection(self, int fd) noexcept nogil:
        """A fresh connection in the table, which has a place for every descriptor; memory is reused."""
        cdef Connection** table
        cdef int size
        if fd >= self.capacity:
            size = max(1024, 2 * fd)
            table = <Connection**>realloc(self.connections, <size_t>size * sizeof(Connection*))
            if table == NULL:
                return NULL
            memset(table + self.capacity, 0, <size_t>(size - self.capacity) * sizeof(Connection*))
            self.connections, self.capacity = table, size
        if self.connections[fd] == NULL:
            self.connections[fd] = <Connection*>malloc(sizeof(Connection))
            if self.connections[fd] == NULL:
                return NULL
        memset(self.connections[fd], 0, sizeof(Connection))
        self.connections[fd].fd = fd
        return self.connections[fd]

    cdef void _close(self, Connection* c) noexcept nogil:
        if c.fd >= 0:
            close(c.fd)
            c.fd = -1
            self.connections_open -= 1
        free(c.header)
        free(c.waiting)
        c.header, c.waiting = NULL, NULL
        self.reply_length = 0

    cdef void _read(self, Connection* c) noexcept nogil:
        cdef ssize_t n
        if c.fd < 0:
            return
        n = read(c.fd, self.buffer, READ_BUFFER)
        if n > 0:
            self.bytes_read += n
            self._feed(c, self.buffer, <size_t>n)
            self._flush(c)
        elif n == 0 or (errno != EAGAIN and errno != EINTR):
            self._close(c)

    cdef void _feed(self, Connection* c, const char* p, size_t n) noexcept nogil:
        cdef size_t used
        while n and c.fd >= 0 and not c.reply_due:
            used = self._data(c, p, n) if c.in_data else self._command(c, p, n)
            p += used
            n -= used
        if n and c.fd >= 0:
            c.waiting, c.waiting_length = <char*>malloc(n), n
            if c.waiting == NULL:
                self._close(c)
            else:
                memcpy(c.waiting, p, n)

    # -------------------------------------------------------------------------------------------- replies

    cdef void _say(self, Connection* c, const char* reply) noexcept nogil:
        cdef size_t n = strlen(reply)
        if self.reply_length + n > REPLIES:
            self._flush(c)
        memcpy(self.replies + self.reply_length, reply, n)
        self.reply_length += n

    cdef void _flush(self, Connection* c) noexcept nogil:
        cdef size_t n = self.reply_length
        self.reply_length = 0
        # A client that does not read its replies until the socket is full gets no patience here.
        if n and c.fd >= 0 and write(c.fd, self.replies, n) != <ssize_t>n:
            self._close(c)

    cdef void _say_later(self, Connection* c) noexcept nogil:
        """Hold back the reply to the dot; the connection is not read meanwhile."""
        self._flush(c)
        if c.fd < 0:
            return
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, c.fd, NULL)
        c.reply_due, c.next_due = now_ns() + self.delay_ns, -1
        if self.last_due < 0:
            self.first_due = c.fd
            arm_timer(self.timer, c.reply_due)
        else:
            self.connections[self.last_due].next_due = c.fd
        self.last_due = c.fd

    cdef void _reply_delayed(self) noexcept nogil:
        cdef int64_t now = now_ns()
        cdef Connection* c
        cdef char* waiting
        while self.first_due >= 0:
            c = self.connections[self.first_due]
            if c.reply_due > now:
                arm_timer(self.timer, c.reply_due)
                return
            self.first_due = c.next_due
            if self.first_due < 0:
                self.last_due = -1
            c.reply_due = 0
            waiting, c.waiting = c.waiting, NULL
            self._say(c, TAKEN)
            if waiting != NULL:
                self._feed(c, waiting, c.waiting_length)
                free(waiting)
            self._flush(c)
            if c.fd >= 0 and not c.reply_due:
                watch(self.epoll, EPOLL_CTL_ADD, c.fd, EPOLLIN, <uint64_t>c.fd)

    cdef bint _refuse(self, Connection* c, int stage) noexcept nogil:
        cdef int code = self.refuse_code[stage]
        cdef char reply[32]
        self.stage_count[stage] += 1
        if self.refuse_every[stage] == 0 or self.stage_count[stage] % self.refuse_every[stage]:
            return False
        memcpy(reply, b"000 0.0.0 refused on request\r\n", 31)
        reply[0] = reply[4] = <char>(48 + code // 100)
        reply[1], reply[2] = <char>(48 + code // 10 % 10), <char>(48 + code % 10)
        self._say(c, reply)
        self.refused += 1
        return True

    # ------------------------------------------------------------------------------------------- commands

    cdef size_t _command(self, Connection* c, const char* p, size_t n) noexcept nogil:
        cdef const char* line_end = <const char*>memchr(p, c'\n', n)
        cdef size_t used = n if line_end == NULL else <size_t>(line_end + 1 - p)
        if c.line_length == 0 and line_end != NULL:
            self._obey(c, p, used)
        elif c.line_length + used > LINE:
            self._close(c)
        else:
            memcpy(c.line + c.line_length, p, used)
            c.line_length += <int>used
            if line_end != NULL:
                self._obey(c, c.line, <size_t>c.line_length)
                c.line_length = 0
        return used

    cdef void _obey(self, Connection* c, const char* line, size_t n) noexcept nogil:
        if n < 5:
            self._say(c, b"500 5.5.2 what?\r\n")
        elif strncasecmp(line, b"MAIL", 4) == 0:
            c.recipients = 0
            if not self._refuse(c, AT_MAIL):
                self._say(c, b"250 2.1.0 Ok\r\n")
        elif strncasecmp(line, b"RCPT", 4) == 0:
            if not self._refuse(c, AT_RCPT):
                c.recipients += 1
                self._say(c, b"250 2.1.5 Ok\r\n")
        elif strncasecmp(line, b"DATA", 4) == 0:
            self._start_data(c)
        elif strncasecmp(line, b"EHLO", 4) == 0:
            self._say(c, b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n"
                         b"250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n")
        elif strncasecmp(line, b"QUIT", 4) == 0:
            self._say(c, b"221 2.0.0 Bye\r\n")
            self._flush(c)
            self._close(c)
        elif strncasecmp(line, b"RSET", 4) == 0 or strncasecmp(line, b"NOOP", 4) == 0 or (
                strncasecmp(line, b"HELO", 4) == 0):
            c.recipients = 0
            self._say(c, b"250 2.0.0 Ok\r\n")
        else:
            self._say(c, b"500 5.5.2 what?\r\n")

    cdef void _start_data(self, Connection* c) noexcept nogil:
        if c.recipients == 0:
            self._say(c, b"554 5.5.1 No valid recipients\r\n")
        elif not self._refuse(c, AT_DATA):
            c.in_data = c.in_header = True
            c.matched = c.implied = 2       # an empty message is ".CRLF" right behind the 354
            c.mark.found = False
            hash_start(&c.body)
            self._say(c, b"354 Go on\r\n")

    # ----------------------------------------------------------------------------------------------- data

    cdef size_t _data(self, Connection* c, const char* p, size_t n) noexcept nogil:
        """Take content up to the terminator, if that is here; how many bytes were used."""
        cdef size_t start = 0, i, at
        cdef int kept
        while c.matched and start < n:
            if p[start] == TERMINATOR[c.matched]:
                c.matched += 1
                start += 1
                if c.matched == 5:
                    self._content(c, TERMINATOR + c.implied, <size_t>(2 - c.implied))
                    self._message(c)
                    return start
            else:
                kept = 1 if c.matched == 4 else 0       # "CRLF.CR" without LF: that CR may begin the real one
                self._content(c, TERMINATOR + c.implied, <size_t>(c.matched - kept - c.implied))
                c.matched, c.implied = kept, 0
        i = start
        while i < n:
            at = i + find_dot_line(p + i, n - i)
            if at + 4 > n:
                break
            if at > start and p[at - 1] == c'\r' and p[at + 2] == c'\r' and p[at + 3] == c'\n':
                self._content(c, p + start, at + 1 - start)
                self._message(c)
                return at + 4
            i = at + 1
        if start < n:
            c.matched = matched_suffix(p + start, n - start)
            self._content(c, p + start, n - start - <size_t>c.matched)
        return n

    cdef void _content(self, Connection* c, const char* p, size_t n) noexcept nogil:
        cdef const char* end
        cdef size_t old = c.header_length
        if not c.in_header:
            hash_update(&c.body, <const uint8_t*>p, n)
            return
        if old == 0:
            end = <const char*>memmem(p, min(n, <size_t>HEADER), b"\r\n\r\n", 4)
            if end != NULL:
                self._body(c, p, end + 4, p + n)
                return
        c.header_length += n
        if c.header_length > HEADER:
            c.in_header = False
            c.header_length = 0
            return
        if c.header == NULL:
            c.header = <char*>malloc(HEADER)
            if c.header == NULL:
                self._close(c)
                return
        memcpy(c.header + old, p, n)
        end = <const char*>memmem(c.header, c.header_length, b"\r\n\r\n", 4)
        if end != NULL:
            self._body(c, c.header, end + 4, c.header + c.header_length)
            c.header_length = 0

    cdef void _body(self, Connection* c, const char* header, const char* body,
                    const char* end) noexcept nogil:
        c.in_header = False
        c.mark = find_mark(header, <size_t>(body - header))
        hash_update(&c.body, <const uint8_t*>body, <size_t>(end - body))

    cdef void _message(self, Connection* c) noexcept nogil:
        cdef bint intact
        c.in_data = False
        c.header_length = 0
        self.messages += 1
        self.recipients += c.recipients
        if c.mark.found:
            intact = mark_check(c.mark.run, c.mark.number, hash_finish(&c.body)) == c.mark.check
            self.arrivals.add(c.mark.run, c.mark.number, c.recipients, intact)
        else:
            self.unmarked += 1
        c.recipients = 0
        if self.drop_every and self.messages % self.drop_every == 0:
            self.dropped += 1
            self._flush(c)
            self._close(c)
        elif self.reset_every and self.messages % self.reset_every == 0:
            self.dropped += 1
            self._flush(c)
            self._reset(c)
        elif not self._refuse(c, AT_DOT):
            if self.delay_ns:
                self._say_later(c)
            else:
                self._say(c, TAKEN)

    cdef void _reset(self, Connection* c) noexcept nogil:
        """Close with RST instead of FIN."""
        cdef linger hard
        hard.l_onoff, hard.l_linger = 1, 0
        if c.fd >= 0:
            setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard))
        self._close(c)
