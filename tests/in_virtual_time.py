"""An event loop whose time passes only when a test says so, and a network in it without sockets: the couriers of a
worker speak to the members of tests/upstream.py over it, each octet in order, cut as it comes.

What is independent of gateway/ stays so: the members here are those that other tests meet at real sockets.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from random import Random
from typing import Any, cast

from gateway.couriers.spool.store import Row, Store
from gateway.later import Later
from gateway.net.streams import Poller, Protocol, Stream
from tests.upstream import Connection, Upstream

DISK = 0.01  # seconds until what is written is there


class _Impatient(selectors.DefaultSelector):
    """Does not wait: whoever would wait gets the time that they would have waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nothing will ever happen any more"
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes in `let_pass` alone."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.now

    def settle(self) -> None:
        """Everything happens that is due now."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not cast(Any, self)._ready:
                return

    def let_pass(self, seconds: float) -> None:
        """Everything happens that is due within that time."""
        self.call_later(seconds, self.stop)
        self.run_forever()
        self.settle()


class Network(Poller):
    """In the place of a worker's poller. random: how octets are cut on their way. members: by port; who listens."""

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        super().__init__(loop)
        self.random = random
        self.members: dict[int, Member] = {}

    async def connect(self, host: str, port: int) -> Stream:
        member = self.members[port]
        if not member.listens:
            raise ConnectionRefusedError(f"nobody listens at {host}:{port}")
        near = Wire(self, (host, port))
        Far(self, member, near)
        return near


class Member(Upstream):
    """One member of a fleet. lag: seconds that its next portion of answers takes, once."""

    def __init__(self, port: int, decide: Callable[[Any, str], Any]) -> None:
        super().__init__(decide=decide, port=port)
        self.listens = True
        self.lag = 0.0


class _Direction:
    """Octets one way: in order, cut anywhere, and behind them perhaps the end."""

    def __init__(self, network: Network, deliver: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._network, self._deliver, self._ended = network, deliver, ended
        self._until = 0.0  # when the last portion arrives

    def send(self, data: bytes, lag: float = 0.0) -> None:
        random = self._network.random
        while data:
            cut = len(data) if random.random() < 0.6 else random.randrange(1, len(data) + 1)
            portion, data = data[:cut], data[cut:]
            self._schedule(lambda portion=portion: self._deliver(portion), lag)  # type: ignore[misc]

    def end(self) -> None:
        self._schedule(self._ended, 0.0)

    def _schedule(self, call: Callable[[], None], lag: float) -> None:
        loop = self._network.loop
        self._until = max(self._until, loop.time() + lag)
        if self._until > loop.time():
            self._until += 1e-6  # timers of one moment have no order
            loop.call_at(self._until, call)
        else:
            loop.call_soon(call)


class Wire(Stream):
    """The gateway's end of a connection to a member."""

    def __init__(self, network: Network, peer: tuple[str, int]) -> None:
        super().__init__(network, -1, peer)
        self._network = network
        self._told: Protocol | None = None
        self._open = True
        self.far: Far

    def set_protocol(self, protocol: Protocol) -> None:
        self._told = protocol
        self.far.begin()

    def local_address(self) -> tuple[str, int]:
        return "192.0.2.1", 40000

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        if self._open:
            self.far.coming.send(bytes(data))

    def writelines(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self.write(chunk)

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._open:
            self._open = False
            self.far.coming.end()
            self._network.call_soon(lambda: self._lost(None))

    def received(self, data: bytes) -> None:
        if self._open and self._told is not None:
            self._told.data_received(data)

    def ended(self, error: Exception | None = None) -> None:
        """The member has closed the connection, or reset it."""
        if self._open:
            self._open = False
            self._lost(error)

    def _lost(self, error: Exception | None) -> None:
        told, self._told = self._told, None
        if told is not None:
            told.connection_lost(error)


class Far:
    """The member's end: what tests/upstream.py needs of a transport."""

    def __init__(self, network: Network, member: Member, near: Wire) -> None:
        near.far = self
        self._member, self._near = member, near
        self._connection = Connection(member)
        self._gone = False
        self.coming = _Direction(network, self._received, self._lost)
        self._going = _Direction(network, near.received, near.ended)

    def begin(self) -> None:
        self._connection.connection_made(cast(asyncio.Transport, self))

    def write(self, data: bytes) -> None:
        lag, self._member.lag = self._member.lag, 0.0
        self._going.send(data, lag)

    def close(self) -> None:
        if not self._gone:
            self._going.end()
            self._lost()

    def abort(self) -> None:
        if not self._gone:
            self._near.ended(ConnectionResetError("reset"))
            self._lost()

    def get_extra_info(self, name: str) -> Far:
        return self

    def setsockopt(self, *args: object) -> None:
        """As the socket that a reset is asked of."""

    def _received(self, data: bytes) -> None:
        if not self._gone:
            self._connection.data_received(data)

    def _lost(self) -> None:
        if not self._gone:
            self._gone = True
            self._connection.connection_lost(None)


class SpoolOnLoop:
    """In the place of a SpoolWriter and its thread: what is asked for is done, and durable, a moment later."""

    def __init__(self, loop: VirtualLoop, opened: Callable[[list[Row], bool], None]) -> None:
        self._loop = loop
        self._store = Store("")  # a database that SQLite forgets; what has a name becomes a file
        loop.call_later(DISK, opened, [], False)

    def write(self, work: Callable[[Store], Any], *, needs_room: bool = False, may_fail: bool = False) -> Later:
        """See SpoolWriter."""
        later = Later()

        def done() -> None:
            with self._store.transaction():
                result = work(self._store)
            later.settle(result)

        self._loop.call_later(DISK, done)
        return later

    write_by_and_by = read = write

    def shrink(self) -> None:
        """See SpoolWriter."""

    def close(self) -> None:
        """See SpoolWriter."""
        self._store.close()
