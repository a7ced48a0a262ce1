"""A listener with its connections at real sockets, in the test's own event loop: what a worker has, without processes.

One turn of the loop handles what all clients have sent, so that a test knows what was there when.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import uvloop

from gateway import metrics
from gateway._fastpath import ContentStore
from gateway.config import Listener
from gateway.delivery.services import Services
from gateway.inbound.arrival import ListenerHost
from gateway.logs.writer import LogWriter
from gateway.net import tls
from gateway.net.outbox import Outbox
from gateway.net.roster import Roster
from gateway.net.streams import Acceptor, Poller
from gateway.net.turns import Room
from gateway.policy.background import Background
from gateway.quotas import Quotas
from gateway.why.client import MemoryCouriers
from tests.policy_tools import load, new_page

PATIENCE = 20.0
BUFFERS = 64 * 1024  # octets in the kernel, so that a client that does not read is noticed soon


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a test's coroutine in an event loop like a worker's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(asyncio.wait_for(main, PATIENCE))


class Client:
    """A client's socket, which does not block."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: tuple[str, int]) -> None:
        self.loop = loop
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFERS)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFERS)
        self.sock.connect(address)
        self.sock.setblocking(False)
        self.received = bytearray()

    def send_now(self, data: bytes) -> int:
        """Gives it to the kernel before the loop goes on; returns how much the kernel took."""
        return self.sock.send(data)

    async def until(self, seen: Callable[[bytes], bool]) -> bytes:
        """Reads until what was received meets `seen`, or to the end of the connection."""
        while not seen(bytes(self.received)):
            data = await self.loop.sock_recv(self.sock, 1 << 20)
            if not data:
                break
            self.received += data
        return bytes(self.received)

    async def to_end(self) -> bytes:
        return await self.until(lambda _: False)

    def take_now(self) -> bytes:
        """What is there without waiting, added to what was received."""
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(1 << 20):
                self.received += data
        return bytes(self.received)


class Inbound:
    """The listener. host: as it counts."""

    def __init__(
        self,
        policy: str,
        overrides: dict[str, Any],
        max_connections: int,
        poller: type[Poller],
        peer: Any,
        quotas: Quotas | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.page = new_page()
        self.logs = LogWriter([], self.page, call_soon=self.loop.call_soon_threadsafe)
        self.poller = poller(self.loop)
        self.outbox = Outbox(self.poller.call_soon)
        self.roster = Roster(lambda: None)
        couriers: Any = MemoryCouriers()
        services = Services(
            policy=load(policy, page=self.page, background=Background(self.loop)),
            couriers=couriers,
            logs=self.logs,
            page=self.page,
            now_ns=lambda: 1_785_847_290_000_000_000,
            monotonic=self.loop.time,
            afterwards=self.outbox.afterwards,
            room=Room(ContentStore(tempfile.gettempdir(), 1 << 24, 100), self.loop.call_later),
        )
        declared = Listener(listen="127.0.0.1:0", overrides={"hostname": "gw.example", **overrides}, peer=peer)
        sock = socket.create_server(("127.0.0.1", 0))
        self.address = sock.getsockname()
        services.quotas = quotas
        self.host = ListenerHost(
            declared,
            self.address,
            max_connections,
            services,
            tls.ServerContexts([], tls.KeyFiles(), now=0.0),
            self.roster,
            self.outbox,
            self.poller,
        )
        self._clients: list[Client] = []
        self._listener = Acceptor(self.poller, sock, self.host.accepted)

    def call(self) -> Client:
        """A client that is connected, of which the listener does not know yet."""
        client = Client(self.loop, self.address)
        self._clients.append(client)
        return client

    async def greeted(self) -> Client:
        client = self.call()
        await client.until(lambda data: data.endswith(b"\r\n"))
        client.received.clear()
        return client

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await asyncio.sleep(0)

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the labels that are not named."""
        return sum(
            sample.value
            for family in metrics.collect([self.page], now=0.0)
            for sample in family.samples
            if sample.name == f"relay_gateway_{name}" and labels.items() <= sample.labels.items()
        )

    async def close(self) -> None:
        self._listener.close()
        for client in self._clients:
            client.sock.close()
        self.roster.abort()
        while self.roster:
            await asyncio.sleep(0)
        self.poller.close()
        self.logs.close(PATIENCE)


@contextlib.asynccontextmanager
async def inbound(
    policy: str = "",
    max_connections: int = 100,
    poller: type[Poller] = Poller,
    peer: Mapping[str, Mapping[str, Any]] | None = None,
    quotas: Quotas | None = None,
    **overrides: Any,
) -> AsyncIterator[Inbound]:
    """A listener for one test. peer: its peer blocks. overrides: its other parameters."""
    made = Inbound(policy, overrides, max_connections, poller, peer or {}, quotas)
    try:
        yield made
    finally:
        await made.close()
