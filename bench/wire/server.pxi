# The server's side of SMTP: commands and their replies, what arrived, and the misbehaviour that was asked for.
#
# Sockets are opened and watched in _sink.pyx.

cdef enum:
    LINE = 2048                 # longest command line that is understood
    REPLIES = 4096              # replies gathered before they are written

cdef const char* TAKEN = b"250 2.0.0 Ok\r\n"

cdef enum:                      # where a refusal may be asked for
    AT_MAIL
    AT_RCPT
    AT_DATA
    AT_DOT

cdef struct Connection:
    int fd
    bint in_data
    bint chunked                # the content comes in chunks
    bint in_chunk
    bint last_chunk
    size_t chunk_left           # octets of the chunk that are still to come
    int line_length
    char line[LINE]
    int recipients
    Content content
    int64_t reply_due           # when the reply to the dot may go out; 0: none is held back
    int next_due                # the descriptor whose delayed reply comes after this one's
    char* waiting               # bytes that came behind that dot
    size_t waiting_length


cdef class Server:
    """Conversations; arguments as of Sink, which adds the sockets and the delay."""
    cdef char* replies
    cdef size_t reply_length
    cdef int refuse_code[4]
    cdef int64_t refuse_every[4]
    cdef int64_t stage_count[4]
    cdef int64_t drop_every, reset_every
    cdef bint chunking
    cdef Arrivals arrivals
    cdef readonly int64_t messages, recipients, connections_open, refused, dropped, unmarked

    def __cinit__(self, *_sockets, refuse=None, int64_t drop_every=0, int64_t reset_every=0, bint chunking=True,
                  **_delay):
        self.drop_every, self.reset_every, self.chunking = drop_every, reset_every, chunking
        for stage, (code, every) in (refuse or {}).items():
            at = ("MAIL", "RCPT", "DATA", "DOT").index(stage)
            self.refuse_code[at], self.refuse_every[at] = code, every
        self.arrivals = Arrivals()
        self.replies = <char*>malloc(REPLIES)
        if not self.replies:
            raise MemoryError

    def __dealloc__(self):
        free(self.replies)

    def runs(self) -> dict:
        """What arrived of each run of the load source: {run: {messages, unique, recipients, corrupt}}."""
        return self.arrivals.as_dict()

    cdef size_t _hear(self, Connection* c, const char* p, size_t n) noexcept nogil:
        """Take a command, or content; how many bytes were used."""
        cdef bint ended
        cdef size_t used
        if c.in_chunk:
            return self._chunk(c, p, n)
        if not c.in_data:
            return self._command(c, p, n)
        used = content_take(&c.content, p, n, &ended)
        if ended:
            self._message(c)
        return used

    cdef void _answer_dot(self, Connection* c) noexcept nogil:
        self._say(c, TAKEN)

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

    cdef void _close(self, Connection* c) noexcept nogil:
        if c.fd >= 0:
            close(c.fd)
            c.fd = -1
            self.connections_open -= 1
        content_free(&c.content)
        free(c.waiting)
        c.waiting = NULL
        self.reply_length = 0

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
            self._forget(c)
            if not self._refuse(c, AT_MAIL):
                self._say(c, b"250 2.1.0 Ok\r\n")
        elif strncasecmp(line, b"RCPT", 4) == 0:
            if not self._refuse(c, AT_RCPT):
                c.recipients += 1
                self._say(c, b"250 2.1.5 Ok\r\n")
        elif strncasecmp(line, b"DATA", 4) == 0:
            self._start_data(c)
        elif self.chunking and strncasecmp(line, b"BDAT ", 5) == 0:
            self._start_chunk(c, line + 5, n - 5)
        elif strncasecmp(line, b"EHLO", 4) == 0:
            self._say(c, b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n")
            self._say(c, b"250-CHUNKING\r\n250 ENHANCEDSTATUSCODES\r\n" if self.chunking
                      else b"250 ENHANCEDSTATUSCODES\r\n")
        elif strncasecmp(line, b"QUIT", 4) == 0:
            self._say(c, b"221 2.0.0 Bye\r\n")
            self._flush(c)
            self._close(c)
        elif strncasecmp(line, b"RSET", 4) == 0 or strncasecmp(line, b"NOOP", 4) == 0 or (
                strncasecmp(line, b"HELO", 4) == 0):
            self._forget(c)
            self._say(c, b"250 2.0.0 Ok\r\n")
        else:
            self._say(c, b"500 5.5.2 what?\r\n")

    cdef void _start_data(self, Connection* c) noexcept nogil:
        if c.recipients == 0:
            self._say(c, b"554 5.5.1 No valid recipients\r\n")
        elif not self._refuse(c, AT_DATA):
            c.in_data = True
            content_start(&c.content)
            self._say(c, b"354 Go on\r\n")

    cdef void _start_chunk(self, Connection* c, const char* argument, size_t n) noexcept nogil:
        """BDAT: a number of octets, perhaps LAST (RFC 3030 §2). The octets follow whatever is thought of them."""
        cdef size_t octets = 0, i = 0
        while i < n and i < 15 and c'0' <= argument[i] <= c'9':
            octets = 10 * octets + <size_t>(argument[i] - c'0')
            i += 1
        if i == 0:
            self._say(c, b"501 5.5.4 how many?\r\n")
            return
        if not c.chunked:
            c.chunked = True
            content_start(&c.content)
        c.in_chunk, c.chunk_left = True, octets
        c.last_chunk = n - i >= 5 and strncasecmp(argument + i, b" LAST", 5) == 0
        self._chunk(c, argument, 0)

    cdef size_t _chunk(self, Connection* c, const char* p, size_t n) noexcept nogil:
        """Take content up to the end of the chunk; how many bytes were used."""
        cdef size_t used = min(n, c.chunk_left)
        if used and c.recipients:
            content_add(&c.content, p, used)
        c.chunk_left -= used
        if c.chunk_left == 0:
            c.in_chunk = False
            if c.recipients == 0:
                self._say(c, b"503 5.5.1 No valid recipients\r\n")
            elif c.last_chunk:
                self._message(c)
            else:
                self._say(c, b"250 2.0.0 Ok\r\n")
        return used

    cdef void _forget(self, Connection* c) noexcept nogil:
        c.recipients = 0
        c.chunked = False

    # -------------------------------------------------------------------------------------------- messages

    cdef void _message(self, Connection* c) noexcept nogil:
        cdef Mark* mark = &c.content.mark
        c.in_data = c.chunked = False
        self.messages += 1
        self.recipients += c.recipients
        if mark.found:
            self.arrivals.add(mark.run, mark.number, c.recipients, content_intact(&c.content))
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
            self._answer_dot(c)

    cdef void _reset(self, Connection* c) noexcept nogil:
        """Close with RST instead of FIN."""
        cdef linger hard
        hard.l_onoff, hard.l_linger = 1, 0
        if c.fd >= 0:
            setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard))
        self._close(c)
