# The client's side of SMTP on one epoll loop: connections, what is said on them, and what became of each message.
#
# Which message goes out when, and on which connection, is _load.pyx's to say.

cdef enum State:
    CLOSED
    BANNER          # connecting, or waiting for 220
    GREETING        # EHLO sent
    IDLE
    ENVELOPE        # replies to MAIL, RCPT, DATA are due
    CONTENT         # the reply to the final dot is due
    RESETTING
    QUITTING

cdef enum:
    REPLY_CODES = 1000

cdef struct Connection:
    int fd
    State state
    bint busy               # carries a message whose outcome is not known yet
    bint wants_write        # epoll reports when it is writable
    int line_length         # bytes of `line` that are filled
    char line[4]            # the first bytes of the reply line being read
    int step                # the reply due in ENVELOPE: 0 MAIL, 1..n RCPT, n + 1 DATA
    int accepted            # recipients accepted
    int sent_here           # messages begun on this connection
    uint32_t content        # index
    uint64_t recipient      # index of the first recipient
    uint64_t number
    int64_t started         # when the message was begun, or (open loop) should have been
    int unsent              # the vectors of `out` from here on are still to be written
    int vectors
    iovec out[3]
    char mark[MARK_LENGTH]


cdef const char* DATA = b"DATA\r\n"
cdef const char* END_OF_DATA = b".\r\n"


cdef class Conversations:
    """The connections of a run and the messages on them; arguments as of Load, which adds the pace."""
    cdef int epoll
    cdef bytes address
    cdef const char* address_data
    cdef socklen_t address_length
    cdef Connection* connections
    cdef readonly int size
    cdef int per_message, per_connection
    cdef bint pipelining
    cdef Strings mails, contents, recipients
    cdef int* idle                      # ring of resting connections, so that each has its turn
    cdef int idle_first, idle_count
    cdef int connecting, failures_in_a_row
    cdef int64_t ended_at
    cdef char* buffer
    cdef int64_t* histogram
    cdef int64_t* codes
    cdef readonly int64_t acked, refused, lost, unknown, recipients_acked
    cdef readonly int64_t connects, connect_failures, bytes_sent
    cdef readonly int last_errno

    def __cinit__(self, bytes address, *, int connections, contents, recipients, int per_message=1,
                  bint pipelining=False, int per_connection=0, **_pace):
        cdef Py_ssize_t i
        self.address, self.address_length = address, <socklen_t>len(address)
        self.address_data = PyBytes_AS_STRING(address)
        self.size = connections
        self.per_message, self.per_connection, self.pipelining = per_message, per_connection, pipelining
        self.mails = Strings([b"MAIL FROM:<%b>\r\n" % sender for sender, _ in contents])
        self.contents = Strings([content for _, content in contents])
        lines = [b"RCPT TO:<%b>\r\n" % address for address in recipients]
        # A message's recipients stand next to each other, also at the end of the list: hence the repetition.
        self.recipients = Strings(lines + [lines[i % len(lines)] for i in range(per_message)])
        self.connections = <Connection*>calloc(connections, sizeof(Connection))
        self.idle = <int*>calloc(connections, sizeof(int))
        self.buffer = <char*>malloc(READ_BUFFER)
        self.histogram = <int64_t*>calloc(BUCKETS, sizeof(int64_t))
        self.codes = <int64_t*>calloc(REPLY_CODES, sizeof(int64_t))
        if not (self.connections and self.idle and self.buffer and self.histogram and self.codes):
            raise MemoryError
        for i in range(connections):
            self.connections[i].fd = -1
            if per_connection == 1:
                self._rest(&self.connections[i])
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "epoll")

    def __dealloc__(self):
        cdef int i
        if self.connections:
            for i in range(self.size):
                if self.connections[i].fd >= 0:
                    close(self.connections[i].fd)
        if self.epoll > 0:
            close(self.epoll)
        free(self.connections)
        free(self.idle)
        free(self.buffer)
        free(self.histogram)
        free(self.codes)

    def close(self) -> None:
        """Say QUIT where a conversation is idle and close all, without waiting for answers."""
        cdef Connection* c
        cdef int i
        for i in range(self.size):
            c = &self.connections[i]
            if c.fd >= 0:
                if c.state == IDLE:
                    write(c.fd, <const char*>b"QUIT\r\n", 6)
                close(c.fd)
                c.fd = -1

    cdef void _rest(self, Connection* c) noexcept nogil:
        self.idle[(self.idle_first + self.idle_count) % self.size] = <int>(c - self.connections)
        self.idle_count += 1

    cdef void _event(self, Connection* c, uint32_t events) noexcept nogil:
        if c.fd >= 0 and events & EPOLLOUT:
            self._write(c)
        if c.fd >= 0 and events & (EPOLLIN | EPOLLHUP | EPOLLERR):
            self._read(c)

    # ------------------------------------------------------------------------------------------ connection

    cdef void _connect(self, Connection* c) noexcept nogil:
        cdef const sockaddr* address = <const sockaddr*>self.address_data
        c.state, c.wants_write, c.line_length = BANNER, False, 0
        c.unsent, c.vectors, c.sent_here = 0, 0, 0
        self.connecting += 1
        self.connects += 1
        c.fd = socket(address.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if c.fd < 0 or (connect(c.fd, address, self.address_length) < 0 and errno != EINPROGRESS):
            self.last_errno = errno
            self._gone(c)
            return
        set_nodelay(c.fd)
        # A refused connection shows as an error event, an accepted one by its banner: EPOLLOUT is not needed.
        watch(self.epoll, EPOLL_CTL_ADD, c.fd, EPOLLIN, <uint64_t>(c - self.connections))

    cdef void _gone(self, Connection* c) noexcept nogil:
        """The connection was lost, or ended after QUIT; a message it carried has its outcome now."""
        if c.state != QUITTING:
            self.failures_in_a_row += 1
        if c.state == BANNER or c.state == GREETING:
            self.connecting -= 1
            self.connect_failures += 1
        if c.busy:
            if c.state == CONTENT and c.unsent == c.vectors:
                self.unknown += 1       # RFC 1047: the server may have taken it
            else:
                self.lost += 1
            c.busy = False
            self.ended_at = now_ns()
        if c.fd >= 0:
            close(c.fd)
        if c.state != IDLE:             # an idle connection rests already
            self._rest(c)
        c.fd, c.state = -1, CLOSED

    cdef void _send(self, Connection* c, State state, int vectors) noexcept nogil:
        c.state, c.unsent, c.vectors = state, 0, vectors
        self._write(c)

    cdef void _say(self, Connection* c, State state, const char* command) noexcept nogil:
        c.out[0].iov_base, c.out[0].iov_len = <void*>command, strlen(command)
        self._send(c, state, 1)

    cdef void _write(self, Connection* c) noexcept nogil:
        cdef ssize_t n
        cdef size_t part
        while c.unsent < c.vectors:
            n = writev(c.fd, c.out + c.unsent, c.vectors - c.unsent)
            if n < 0:
                if errno == EAGAIN:
                    self._want_write(c, True)
                elif errno != EINTR:
                    self.last_errno = errno
                    self._gone(c)
                return
            self.bytes_sent += n
            while n > 0:
                part = min(<size_t>n, c.out[c.unsent].iov_len)
                c.out[c.unsent].iov_base = <char*>c.out[c.unsent].iov_base + part
                c.out[c.unsent].iov_len -= part
                n -= <ssize_t>part
                if c.out[c.unsent].iov_len == 0:
                    c.unsent += 1
        self._want_write(c, False)

    cdef void _want_write(self, Connection* c, bint wanted) noexcept nogil:
        if c.wants_write != wanted:
            c.wants_write = wanted
            watch(self.epoll, EPOLL_CTL_MOD, c.fd, EPOLLIN | (EPOLLOUT if wanted else 0),
                  <uint64_t>(c - self.connections))

    # -------------------------------------------------------------------------------------------- messages

    cdef void _send_envelope(self, Connection* c) noexcept nogil:
        c.step, c.accepted = 0, 0
        c.sent_here += 1
        c.out[0] = self.mails.range(c.content, c.content + 1)
        if not self.pipelining:
            self._send(c, ENVELOPE, 1)
            return
        c.out[1] = self.recipients.range(c.recipient, c.recipient + <uint64_t>self.per_message)
        c.out[2].iov_base, c.out[2].iov_len = <void*>DATA, 6
        self._send(c, ENVELOPE, 3)

    cdef void _send_content(self, Connection* c) noexcept nogil:
        c.out[0].iov_base, c.out[0].iov_len = c.mark, MARK_LENGTH
        c.out[1] = self.contents.range(c.content, c.content + 1)
        c.out[2].iov_base, c.out[2].iov_len = <void*>END_OF_DATA, 3
        self._send(c, CONTENT, 3)

    cdef void _read(self, Connection* c) noexcept nogil:
        cdef ssize_t n = read(c.fd, self.buffer, READ_BUFFER)
        cdef char* at = self.buffer
        cdef char* line_end
        cdef int take
        if n <= 0:
            if n < 0 and (errno == EAGAIN or errno == EINTR):
                return
            if n < 0:
                self.last_errno = errno
            self._gone(c)
            return
        while n > 0 and c.fd >= 0:
            line_end = <char*>memchr(at, c'\n', <size_t>n)
            take = <int>min(n, 4 - c.line_length)
            memcpy(c.line + c.line_length, at, <size_t>take)
            c.line_length += take
            if line_end == NULL:
                return
            n -= line_end + 1 - at
            at = line_end + 1
            c.line_length = 0
            if c.line[3] != c'-':       # RFC 5321 §4.2.1: the last line of a reply
                self._reply(c, 100 * (c.line[0] - c'0') + 10 * (c.line[1] - c'0') + c.line[2] - c'0')

    cdef void _reply(self, Connection* c, int code) noexcept nogil:
        if code < 200 or code >= REPLY_CODES:
            code = 500                  # not SMTP
        if code >= 400:
            self.codes[code] += 1
        if c.state == BANNER and code < 300:
            self._say(c, GREETING, b"EHLO bench.example\r\n")
        elif c.state == GREETING and code < 300:
            self.connecting -= 1
            if c.busy:
                self._send_envelope(c)
            else:
                c.state = IDLE
                self._rest(c)
        elif c.state == ENVELOPE:
            self._envelope_reply(c, code)
        elif c.state == CONTENT:
            self._outcome(c, code < 300)
        elif c.state == RESETTING:
            c.state = IDLE
            self._rest(c)
        elif c.state != IDLE:           # refused at the banner or EHLO, or answered QUIT
            self._gone(c)

    cdef void _envelope_reply(self, Connection* c, int code) noexcept nogil:
        cdef int step = c.step
        cdef bint granted = code < 400
        c.step += 1
        if 1 <= step <= self.per_message and granted:
            c.accepted += 1
        if step > self.per_message:
            if granted:                 # 354: with all recipients refused, RFC 2920 §3.1 asks for a lone dot
                if c.accepted:
                    self._send_content(c)
                else:
                    self._say(c, CONTENT, END_OF_DATA)
            else:
                self._outcome(c, False)
        elif self.pipelining:
            return
        elif (step == 0 and not granted) or (step == self.per_message and not c.accepted):
            self._outcome(c, False)
        elif step < self.per_message:
            c.out[0] = self.recipients.range(c.recipient + <uint64_t>step, c.recipient + <uint64_t>step + 1)
            self._send(c, ENVELOPE, 1)
        else:
            self._say(c, ENVELOPE, DATA)

    cdef void _outcome(self, Connection* c, bint taken) noexcept nogil:
        self.ended_at = now_ns()
        c.busy = False
        if taken and c.accepted:
            self.acked += 1
            self.recipients_acked += c.accepted
            self.histogram[bucket_of(self.ended_at - c.started)] += 1
            self.failures_in_a_row = 0
        else:
            self.refused += 1
        if self.per_connection and c.sent_here >= self.per_connection:
            self._say(c, QUITTING, b"QUIT\r\n")
        elif c.state == ENVELOPE:       # refused before the data: end the transaction
            self._say(c, RESETTING, b"RSET\r\n")
        else:
            c.state = IDLE
            self._rest(c)
