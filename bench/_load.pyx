# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled load source: many SMTP conversations on one epoll loop, in one thread, without the GIL.

Here lives the pace: which message goes out when, in the closed loop and in the open one. What is said on a
connection is in wire/conversation.pxi; what is sent is prepared by mix.py, runs are set up and told by load.py, TLS and
AUTH are in secure.py. Nothing here knows the gateway.
"""

include "wire/net.pxi"
include "wire/mark.pxi"
include "wire/latency.pxi"
include "wire/strings.pxi"
include "wire/conversation.pxi"

cdef enum:
    CONNECTING_AT_ONCE = 4      # an accept queue may be as short as 5 (OpenSMTPD); an overflow costs a second each
    TIMER = 0xffffffff          # epoll tag


cdef class Load(Conversations):
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
    cdef int timer
    cdef bint running
    cdef double interval_ns
    cdef uint64_t run
    cdef uint64_t recipient_count, order_length
    cdef uint64_t* hashes
    cdef uint32_t* order
    cdef int unopened
    cdef int64_t begun_at
    cdef readonly int64_t messages, sent

    def __cinit__(self, bytes address, *, int connections, contents, order, recipients,
                  int64_t messages, uint64_t run, int per_message=1, double rate=0, bint pipelining=False,
                  int per_connection=0):
        cdef Py_ssize_t i
        self.messages, self.run = messages, run
        self.interval_ns = 1e9 / rate if rate > 0 else 0
        self.recipient_count = <uint64_t>len(recipients)
        self.order_length = <uint64_t>len(order)
        self.order = <uint32_t*>calloc(len(order), sizeof(uint32_t))
        self.hashes = <uint64_t*>calloc(len(contents), sizeof(uint64_t))
        if not (self.order and self.hashes):
            raise MemoryError
        for i in range(len(order)):
            self.order[i] = order[i]
        for i in range(len(contents)):
            self.hashes[i] = body_hash(contents[i][1])
        self.unopened = 0 if per_connection != 1 else connections
        self.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.timer < 0:
            raise OSError(errno, "timerfd")
        watch(self.epoll, EPOLL_CTL_ADD, self.timer, EPOLLIN, TIMER)

    def __dealloc__(self):
        if self.timer > 0:
            close(self.timer)
        free(self.order)
        free(self.hashes)

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
