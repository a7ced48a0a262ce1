# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled load source: many SMTP conversations on one epoll loop, in one thread, without the GIL.

Here live the client's side of the conversation and the two ways of pacing it. What is sent is prepared by
mix.py, runs are set up and told by load.py, TLS and AUTH are in secure.py. Nothing here knows the gateway.
"""

include "wire/net.pxi"
include "wire/mark.pxi"
include "wire/latency.pxi"
include "wire/strings.pxi"

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
    CONNECTING_AT_ONCE = 64     # a listener's accept queue is often 128 long; an overflow costs a second each
    REPLY_CODES = 1000
    TIMER = 0xffffffff          # epoll tag

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


cdef class Load:
    """One run of the load source against one server.

    address         struct sockaddr as bytes
    connections     how many conversations at a time
    contents        (sender, message as on the wire, without the final dot) pairs
    order           indices into `contents`, cycled
    recipients      addresses, cycled; a message takes the next `per_message` of them
    messages        how many to send; the run is over when each of them has an outcome
    rate            messages per second of the open loop; 0: closed loop
    pipelining      MAIL, RCPT and DATA in one write (RFC 2920)
    per_connection  messages per connection; 0: no limit
    run             the number in the marks of this run's messages

    `open()` connects, `step()` sends for a while, `close()` ends the conversations.
    """
    cdef int epoll, timer
    cdef bytes address
    cdef const char* address_data
    cdef socklen_t address_length
    cdef Connection* connections
    cdef readonly int size
    cdef int per_message, per_connection
    cdef bint pipelining, running
    cdef double interval_ns
    cdef uint64_t run
    cdef Strings mails, contents, recipients
    cdef uint64_t recipient_count, order_length
    cdef uint64_t* hashes
    cdef uint32_t* order
    cdef int* idle                      # ring of resting connections, so that each has its turn
    cdef int idle_first, idle_count
    cdef int unopened, connecting, failures_in_a_row
    cdef int64_t begun_at, ended_at
    cdef char* buffer
    cdef int64_t* histogram
    cdef int64_t* codes
    cdef readonly int64_t messages, sent, acked, refused, lost, unknown, recipients_acked
    cdef readonly int64_t connects, connect_failures, bytes_sent
    cdef readonly int last_errno

    def __cinit__(self, bytes address, *, int connections, contents, order, recipients,
                  int64_t messages, uint64_t run, int per_message=1, double rate=0, bint pipelining=False,
                  int per_connection=0):
        cdef Py_ssize_t i
        self.address, self.address_length = address, <socklen_t>len(address)
        self.address_data = PyBytes_AS_STRING(address)
        self.size, self.messages, self.run = connections, messages, run
        self.per_message, self.per_connection, self.pipelining = per_message, per_connection, pipelining
        self.interval_ns = 1e9 / rate if rate > 0 else 0
        self.mails = Strings([b"MAIL FROM:<%b>\r\n" % sender for sender, _ in contents])
        self.contents = Strings([content for _, content in contents])
        lines = [b"RCPT TO:<%b>\r\n" % address for address in recipients]
        self.recipient_count = <uint64_t>len(lines)
        # A message's recipients stand next to each other, also at the end of the list: hence the repetition.
        self.recipients = Strings(lines + [lines[i % len(lines)] for i in range(per_message)])
        self.order_length = <uint64_t>len(order)
        self.order = <uint32_t*>calloc(len(order), sizeof(uint32_t))
        self.hashes = <uint64_t*>calloc(len(contents), sizeof(uint64_t))
        self.connections = <Connection*>calloc(connections, sizeof(Connection))
        self.idle = <int*>calloc(connections, sizeof(int))
        self.buffer = <char*>malloc(READ_BUFFER)
        self.histogram = <int64_t*>calloc(BUCKETS, sizeof(int64_t))
        self.codes = <int64_t*>calloc(REPLY_CODES, sizeof(int64_t))
        if not (self.order and self.hashes and self.connections and self.idle and self.buffer
                and self.histogram and self.codes):
            raise MemoryError
        for i in range(len(order)):
            self.order[i] = order[i]
        for i in range(len(contents)):
            self.hashes[i] = body_hash(contents[i][1])
        for i in range(connections):
            self.connections[i].fd = -1
            if per_connection == 1:
                self._rest(&self.connections[i])
        self.unopened = 0 if per_connection != 1 else connections
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        self.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.epoll < 0 or self.timer < 0:
            raise OSError(errno, "epoll or timerfd")
        watch(self.epoll, EPOLL_CTL_ADD, self.timer, EPOLLIN, TIMER)

    def __dealloc__(self):
        cdef int i
        if self.connections:
            for i in range(self.size):
                if self.connections[i].fd >= 0:
                    close(self.connections[i].fd)
        if self.epoll > 0:
            close(self.epoll)
        if self.timer > 0:
            close(self.timer)
        free(self.order)
        free(self.hashes)
        free(self.connections)
        free(self.idle)
        free(self.buffer)
        free(self.histogram)
        free(self.codes)

    # ---------------------------------------------------------------------------------------- for load.py

    @property
    def idle(self) -> int:
        """Connections that could carry a message now."""
        return self.idle_count

    @property
    def failed(self) -> bool:
        """Whether so many connections in a row brought nothing that going on is pointless."""
        return self._failed()

    @property
    def seconds(self) -> float:
        """From the first message begun to the last outcome."""
        return max(0, self.ended_at - self.begun_at) / 1e9

    def latencies(self) -> dict:
        """Counts by histogram bucket, without the empty ones."""
        return {i: self.histogram[i] for i in range(BUCKETS) if self.histogram[i]}

    def refusals(self) -> dict:
        """Counts of 4xx and 5xx replies by code."""
        return {i: self.codes[i] for i in range(REPLY_CODES) if self.codes[i]}

    def open(self, double seconds) -> bool:
        """Connect and greet, for at most so many seconds; true when no connection is left to wait for.

        With one message per connection there is nothing to do here. A connection that fails is counted, and
        tried again with its first message.
        """
        return self._work(seconds)

    def step(self, double seconds) -> bool:
        """Send for at most so many seconds; true when every message has its outcome, or it `failed`."""
        if not self.running:
            self.running = True
            self.begun_at = self.ended_at = now_ns()
            self._dispatch(self.begun_at)
        return self._work(seconds)

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

    cdef bint _done(self) noexcept nogil:
        cdef int64_t outcomes = self.acked + self.refused + self.lost + self.unknown
        return self.sent >= self.messages and outcomes >= self.sent

    cdef bint _failed(self) noexcept nogil:
        return self.failures_in_a_row > self.size + 100

    cdef bint _finished(self) noexcept nogil:
        return self._failed() or (self._done() if self.running else self.idle_count == self.size)

    cdef bint _work(self, double seconds):
        cdef int64_t until = now_ns() + <int64_t>(seconds * 1e9)
        while not self._finished() and now_ns() < until:
            with nogil:
                self._turns(min(until, now_ns() + 50000000))    # signals get their turn every 50 ms
        return self._finished()

    # ------------------------------------------------------------------------------------ pace and loop

    cdef void _turns(self, int64_t until) noexcept nogil:
        cdef epoll_event events[EVENTS]
        cdef int i, n
        cdef int64_t now = now_ns()
        while now < until and not self._finished():
            while self.unopened < self.size and self.connecting < CONNECTING_AT_ONCE:
                self._connect(&self.connections[self.unopened])
                self.unopened += 1
            n = epoll_wait(self.epoll, events, EVENTS, <int>((until - now) // 1000000) + 1)
            for i in range(n):
                if events[i].data.u64 == TIMER:
                    read(self.timer, self.buffer, 8)
                else:
                    self._event(&self.connections[events[i].data.u64], events[i].events)
            now = now_ns()
            if self.running:
                self._dispatch(now)

    cdef void _dispatch(self, int64_t now) noexcept nogil:
        """Begin what is due: all there is a connection for, or (open loop) what the rate asks for by now."""
        cdef int64_t due = now
        cdef Connection* c
        while self.sent < self.messages and self.idle_count and not self._failed():
            if self.interval_ns > 0:
                due = self.begun_at + <int64_t>(<double>self.sent * self.interval_ns)
                if due > now:
                    arm_timer(self.timer, due)
                    return
            c = &self.connections[self.idle[self.idle_first]]
            self.idle_first = (self.idle_first + 1) % self.size
            self.idle_count -= 1
            self._begin(c, due)

    cdef void _begin(self, Connection* c, int64_t started) noexcept nogil:
        c.busy, c.started, c.number = True, started, <uint64_t>self.sent
        c.content = self.order[c.number % self.order_length]
        c.recipient = (c.number * <uint64_t>self.per_message) % self.recipient_count
        put_mark(c.mark, self.run, c.number, self.hashes[c.content])
        self.sent += 1
        if c.fd < 0:
            self._connect(c)
        else:
            self._send_envelope(c)

    cdef void _rest(self, Connection* c) noexcept nogil:
        self.idle[(self.idle_first + self.idle_count) % self.size] = <int>(c - self.connections)
        self.idle_count += 1

    cdef void _event(self, Connection* c, uint32_t events) noexcept nogil:
        if c.fd >= 0 and events & EPOLLOUT:
            self._write(c)
        if c.fd >= 0 and events & (EPOLLIN | EPOLLHUP | EPOLLERR):
            self._read(c)

    # --------------------------------------------------------------------------------- one conversation

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
