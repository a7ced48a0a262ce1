"""TCP connections of a worker, over an epoll set of our own beside the event loop's.

An event loop gives every connection a transport, contexts and handles, which cost a connection that brings one message
more than its SMTP. Here a connection is one Stream, and its events reach its Protocol in one C call. The methods have
the names and the promises of asyncio's transports and protocols. TLS stands on a Stream and has the same methods:
tls_stream.py.

No SMTP, and no timers of its own but that of the end. The system calls are gateway/fastpath/sockets.pxi.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from gateway import _fastpath as fp
from gateway.net.outbox import Writer
from gateway.net.turns import Turns

log = logging.getLogger(__name__)

HIGH_WATER = 64 * 1024  # octets that may wait for the kernel before the protocol is told to pause; asyncio's default
MOST_DROPPED = 1 << 20  # octets of a peer's that was told to go; the kernel has it wait for the rest
MOST_ACCEPTED = 16  # connections in a turn: half a millisecond of making sessions; the others' octets follow
REST = 1.0  # seconds without accepting after the process has run out of descriptors or memory


class Protocol(Writer):
    """Whom a stream tells what happens to it; the base of connections. What each call means is asyncio.Protocol's.

    connection_lost comes exactly once, and never from within a call of the stream's methods.
    """

    def data_received(self, data: bytes) -> None:
        """More octets, at least one."""
        raise NotImplementedError

    def eof_received(self) -> bool:
        """The peer will send nothing more. True: it is still to be written to; else the stream closes itself."""
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        """The last call. exc: None after close(), abort() or the peer's end."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """The peer does not read."""
        raise NotImplementedError

    def resume_writing(self) -> None:
        """It reads again."""
        raise NotImplementedError


class Source:
    """What a Poller watches."""

    def ready(self, readable: bool, writable: bool) -> None:
        """Something can be read or written now, or could be when the set was asked: a turn's earlier events may have
        closed this one's socket, and its number may already be another's."""
        raise NotImplementedError


class Poller:
    """The epoll set of one event loop. turns: for whoever has much to move.

    What a turn of it brings is handled at once; what call_soon was given meanwhile follows behind all of it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.turns = Turns(loop.call_soon)
        self._epoll = fp.Epoll()
        self._sources: dict[int, Source] = {}
        self._in_turn = False
        self._now = 0.0
        self._soon: list[Callable[[], None]] = []
        loop.add_reader(self._epoll.fileno(), self._turn)

    def close(self) -> None:
        """Watches nothing any more; the streams stay open."""
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def time(self) -> float:
        """The event loop's clock; it stands still during a turn."""
        return self._now if self._in_turn else self.loop.time()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Calls it at the end of this turn; the event loop's next turn where the epoll set has none."""
        if self._in_turn:
            self._soon.append(callback)
        else:
            self.loop.call_soon(callback)

    def next_turn(self, callback: Callable[[], None]) -> None:
        """Calls it once what has come meanwhile for other connections has been handled, too."""
        self.loop.call_soon(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Calls it in so many seconds."""
        self.loop.call_later(delay, callback)

    async def connect(self, host: str, port: int) -> Stream:
        """A stream to an address that is no name. Raises OSError."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return Stream(self, sock.detach(), (host, port))

    def watch(self, fd: int, source: Source, read: bool, write: bool) -> None:
        """Tells a source from now on when its socket is ready, for what is asked here."""
        if read or write:
            self._epoll.watch(fd, read, write, fd in self._sources)
            self._sources[fd] = source
        else:
            self._epoll.forget(fd)
            del self._sources[fd]

    def closing(self, fd: int) -> None:
        """The socket is about to be closed, which takes it out of the epoll set."""
        self._sources.pop(fd, None)

    def _turn(self) -> None:
        self._in_turn = True
        self._now = self.loop.time()
        epoll = self._epoll
        try:
            for place in range(epoll.wait()):
                source = self._sources.get(epoll.descriptor(place))
                if source is not None:
                    source.ready(epoll.readable(place), epoll.writable(place))
        finally:  # whatever happens, the end of the turn must come; the epoll set tells again what was missed
            self._in_turn = False
            self._end_turn()

    def _end_turn(self) -> None:
        soon = self._soon
        if soon:
            self._soon = []
            for callback in soon:
                try:
                    callback()
                except Exception:
                    log.exception("internal error at the end of a turn")


class Stream(Source):
    """One connection. peer: its host and port."""

    def __init__(self, poller: Poller, fd: int, peer: tuple[str, int]) -> None:
        """fd: a connected socket that does not block; it is the stream's from now on."""
        self.peer = peer
        self._poller = poller
        self._fd = fd  # -1 once closed, or somebody else's
        self._protocol: Protocol | None = None  # until connection_lost
        self._error: Exception | None = None  # for connection_lost
        self._high = HIGH_WATER
        self._backlog: list[bytes] = []  # what the kernel has not taken yet
        self._begun = 0  # octets of the first chunk that it has taken
        self._waiting = 0  # octets in the backlog
        self._reading = False
        self._told_to_pause = False
        self._in_ready = False  # connection_lost must wait for the end of it
        self._writes_no_more = False
        self._reads_no_more = False  # what the peer still sends is dropped
        self._dropped = 0  # octets
        self._closing = False
        self._linger: asyncio.TimerHandle | None = None  # until the connection is reset

    # -- asyncio's methods ---------------------------------------------------------------------------------------------

    def set_protocol(self, protocol: Protocol) -> None:
        """Whom to tell; reading begins."""
        self._protocol = protocol
        self.resume_reading()

    def local_address(self) -> tuple[str, int]:
        """Host and port of this end. Raises OSError."""
        return fp.local_address(self._fd)

    def set_write_buffer_limits(self, high: int) -> None:
        """pause_writing is called where more than `high` octets wait, resume_writing at a quarter of that."""
        self._high = high

    def pause_reading(self) -> None:
        """Leaves to the kernel what the peer sends."""
        if self._reading:
            self._reading = False
            self._watch()

    def resume_reading(self) -> None:
        """Goes on reading."""
        if not self._reading and not self._closing and self._fd >= 0:
            self._reading = True
            self._watch()

    def write(self, data: bytes) -> None:
        """Hands octets to the kernel, now or as soon as it takes them. What follows write_eof or close is dropped."""
        if self._fd < 0 or self._writes_no_more:
            return
        taken = 0
        if not self._backlog:
            try:
                taken = fp.send(self._fd, data)
            except OSError as error:
                self._drop(error)
                return
        if taken < len(data):
            self._keep([data], len(data), taken)

    def writelines(self, chunks: list[bytes]) -> None:
        """The same for many chunks."""
        if self._fd < 0 or self._writes_no_more:
            return
        taken = 0
        if not self._backlog:
            try:
                taken = fp.send_chunks(self._fd, chunks, 0)
            except OSError as error:
                self._drop(error)
                return
        size = 0
        for chunk in chunks:
            size += len(chunk)
        if taken < size:
            self._keep(chunks, size, taken)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Closes our side behind what was written."""
        if not self._writes_no_more:
            self._writes_no_more = True
            if not self._backlog:
                self._written_out()

    def close(self) -> None:
        """Closes the connection behind what was written; nothing is read any more."""
        if not self._closing:
            self._closing = self._writes_no_more = True
            if self._backlog:
                self.pause_reading()
            else:
                self._drop(None)

    def finish(self, linger: float) -> None:
        """Closes our side behind what was written, and the connection when the peer closes its side, too, or after
        `linger` seconds. What it still sends until then is dropped, up to MOST_DROPPED octets: a socket that is closed
        with something unread resets the connection, and the peer might never see what it was told last.
        """
        if not self._closing and self._fd >= 0:
            self._reads_no_more = True
            self.resume_reading()
            self.write_eof()
            self._linger = self._poller.loop.call_later(linger, self.abort)

    def abort(self) -> None:
        """Closes the connection at once."""
        self._drop(None)

    # -- the socket ----------------------------------------------------------------------------------------------------

    def ready(self, readable: bool, writable: bool) -> None:
        self._in_ready = True
        try:
            if writable and self._backlog:
                self._write_backlog()
            if readable and self._reading:
                self._read()
        except Exception:  # our own fault; the other connections go on
            log.exception("internal error on a connection")
            self._drop(None)
        self._in_ready = False
        if self._fd < 0:
            self._tell_lost()

    def _read(self) -> None:
        assert self._protocol is not None
        try:
            data = fp.receive(self._fd)
        except OSError as error:
            self._drop(error)
            return
        if data:
            if not self._reads_no_more:
                self._protocol.data_received(data)
                return
            self._dropped += len(data)
            if self._dropped > MOST_DROPPED:
                self.pause_reading()
        elif data is not None:
            self.pause_reading()
            if self._reads_no_more or not self._protocol.eof_received():
                self.close()

    def _keep(self, chunks: list[bytes], size: int, taken: int) -> None:
        """Puts chunks into the backlog of which the kernel took only so much, or nothing because there is one."""
        self._waiting += size
        if self._backlog:
            self._backlog += chunks
        else:
            self._backlog = chunks[:]
            self._take_off(taken)
            self._watch()
        if self._waiting > self._high and not self._told_to_pause:
            self._told_to_pause = True
            assert self._protocol is not None
            self._protocol.pause_writing()

    def _take_off(self, taken: int) -> None:
        """So many octets of the backlog are the kernel's."""
        self._waiting -= taken
        self._begun += taken
        whole = 0
        for chunk in self._backlog:
            if self._begun < len(chunk):
                break
            self._begun -= len(chunk)
            whole += 1
        del self._backlog[:whole]

    def _write_backlog(self) -> None:
        try:
            self._take_off(fp.send_chunks(self._fd, self._backlog, self._begun))
        except OSError as error:
            self._drop(error)
            return
        if not self._backlog:
            self._watch()
        if self._told_to_pause and self._waiting <= self._high // 4:
            self._told_to_pause = False
            assert self._protocol is not None
            self._protocol.resume_writing()
        if self._writes_no_more and not self._backlog:
            self._written_out()

    def _written_out(self) -> None:
        """Nothing more will be written, and nothing waits."""
        if self._closing:
            self._drop(None)
            return
        try:
            fp.shut_down(self._fd)
        except OSError as error:  # reset by the peer
            self._drop(error)

    def _watch(self) -> None:
        self._poller.watch(self._fd, self, self._reading, bool(self._backlog))

    def _drop(self, error: Exception | None) -> None:
        if self._fd < 0:
            return
        self._poller.closing(self._fd)
        fp.close(self._fd)
        self._fd = -1
        self._error = error
        self._backlog.clear()
        if not self._in_ready:
            self._poller.call_soon(self._tell_lost)

    def _tell_lost(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            try:
                protocol.connection_lost(self._error)
            except Exception:
                log.exception("internal error at the end of a connection")


class Acceptor(Source):
    """Accepts the connections of one listening socket.

    accepted: called with each new Stream, which it gives a protocol. gone: called for each connection that its peer had
    reset by then. exhausted: called each time that the process has no descriptor or memory left for one; `resting` is
    true from then until connections are accepted again.
    """

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket,
        accepted: Callable[[Stream], None],
        gone: Callable[[], None] = lambda: None,
        exhausted: Callable[[], None] = lambda: None,
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Linux' accepted sockets inherit it
        self._poller = poller
        self._sock = sock
        self._fd = sock.fileno()
        self._accepted = accepted
        self._gone = gone
        self._exhausted = exhausted
        self._rest: asyncio.TimerHandle | None = None
        self.resting = False
        self._poller.watch(self._fd, self, True, False)

    def close(self) -> None:
        """Accepts nothing from now on. Other processes that have the socket, too, are not concerned."""
        if self._fd < 0:
            return
        if self._rest is not None:
            self._rest.cancel()
        else:
            self._poller.watch(self._fd, self, False, False)
        self._fd = -1
        self._sock.close()

    def ready(self, readable: bool, writable: bool) -> None:
        for _ in range(MOST_ACCEPTED):
            try:
                found = fp.accept(self._fd)
            except ConnectionError:  # ECONNABORTED
                self._gone()
                continue
            except OSError as error:  # no descriptors or memory left
                self._take_a_rest(error)
                return
            if self.resting:
                self.resting = False
                log.warning("connections are accepted again")
            if found is None:
                return
            if not found:
                self._gone()
                continue
            stream = Stream(self._poller, *found)
            try:
                self._accepted(stream)
            except Exception:
                log.exception("internal error on a new connection")
                stream.abort()

    def _take_a_rest(self, error: OSError) -> None:
        if not self.resting:  # one line, however long it lasts
            self.resting = True
            log.error("cannot accept connections, trying again every %g s: %s", REST, error.strerror)
        self._exhausted()
        self._poller.watch(self._fd, self, False, False)
        self._rest = self._poller.loop.call_later(REST, self._go_on)

    def _go_on(self) -> None:
        self._rest = None
        self._poller.watch(self._fd, self, True, False)
