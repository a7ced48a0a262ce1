# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled SMTP sink: takes messages as fast as they come, checks their marks, misbehaves on request.

One epoll loop in one thread, without the GIL. It understands what senders of bulk mail say, pipelined or not,
split anywhere; it stores nothing. Here are the sockets and the delay; what is said on a connection is in
wire/server.pxi. Starting it as a process and asking it for its counts is sink.py's work.
"""

include "wire/net.pxi"
include "wire/mark.pxi"
include "wire/enddata.pxi"
include "wire/content.pxi"
include "wire/arrivals.pxi"
include "wire/server.pxi"

from cpython.exc cimport PyErr_CheckSignals

cdef enum:
    CONTROL = 0xffffffff        # epoll tags
    LISTENER = 0xfffffffe
    TIMER = 0xfffffffd


cdef class Sink(Server):
    """An SMTP server on a listening socket that discards what it gets.

    delay          seconds before the reply to the final dot
    refuse         {stage: (code, every)}: answer `code` to each `every`-th MAIL, RCPT, DATA or DOT
    drop_every     close without a reply after each so many final dots; 0: never
    reset_every    the same with a TCP reset
    chunking       offer CHUNKING and take BDAT; what is said of DOT is true of the last BDAT then
    """
    cdef int epoll, listener, timer
    cdef Connection** connections
    cdef int capacity
    cdef char* buffer
    cdef int64_t delay_ns
    cdef int first_due, last_due
    cdef readonly int64_t bytes_read, connections_opened

    def __cinit__(self, int listener, int control, *, double delay=0, refuse=None, int64_t drop_every=0,
                  int64_t reset_every=0, bint chunking=True):
        self.listener, self.delay_ns = listener, <int64_t>(delay * 1e9)
        self.first_due = self.last_due = -1
        self.buffer = <char*>malloc(READ_BUFFER)
        if not self.buffer:
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
            used = self._hear(c, p, n)
            p += used
            n -= used
        if n and c.fd >= 0:
            c.waiting, c.waiting_length = <char*>malloc(n), n
            if c.waiting == NULL:
                self._close(c)
            else:
                memcpy(c.waiting, p, n)

    # ---------------------------------------------------------------------------------------- the delay

    cdef void _answer_dot(self, Connection* c) noexcept nogil:
        """Say that the message is taken: now, or later, and then the connection is not read meanwhile."""
        if self.delay_ns <= 0:
            self._say(c, TAKEN)
            return
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
