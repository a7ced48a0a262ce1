"""A worker process: one event loop with its sessions, policy, fleet connections and log writer.

Wires the pieces together, takes part in the supervisor's protocol (ready, heartbeat, SIGTERM drains) and ends. What
happens on a connection is connection.py's and below.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import time
from typing import cast

import uvloop

from gateway import metrics, tls
from gateway.config import Listener, ListenerParams
from gateway.connection import Connection
from gateway.context import EX_CONFIG, WorkerContext
from gateway.endpoints import Endpoints
from gateway.families import State
from gateway.logs.writer import LogWriter
from gateway.outbox import Outbox
from gateway.policy.engine import Policy, PolicyProblems
from gateway.policy.listener import ParamsTable
from gateway.relay.relay import Relay
from gateway.services import Services
from gateway.smtp import replies
from gateway.smtp.replies import Reason, Reply

log = logging.getLogger(__name__)

HEARTBEAT = 1.0  # seconds between two of them
LOG_CLOSE_TIMEOUT = 10.0  # seconds to get the last records onto the disk
BACKLOG = 1024  # connections that wait to be accepted; the kernel caps it at net.core.somaxconn

# Sessions leave no cycles behind when they end in order, so looking for some after every 700 objects is a waste.
GC_THRESHOLDS = (20_000, 20, 20)

_LAG = metrics.EVENT_LOOP_LAG.slot()


def run(context: WorkerContext) -> int:
    """Runs a worker to its end; returns its exit code. See WorkerContext for what is expected of it."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        try:
            worker = Worker(context, loop)
        except (OSError, PolicyProblems) as error:  # a log directory that cannot be written, a file that has gone
            log.critical("cannot start: %s", error)
            return EX_CONFIG
        return loop.run_until_complete(worker.run())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


class Worker:
    """The process's one object: what all its listeners share."""

    def __init__(self, context: WorkerContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self.workers = context.workers
        self.loop = loop
        self.draining = False
        self._stop = asyncio.Event()
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        policy = Policy.load(context.source, epoch=context.epoch, page=context.page)
        logs = LogWriter(policy.config.local_logs, context.page, policy.log_filter, call_soon=loop.call_soon_threadsafe)
        hostname = socket.gethostname()
        self.services = Services(
            policy=policy,
            relay=Relay(loop, context.page, hostname),
            logs=logs,
            page=context.page,
            now_ns=time.time_ns,
            monotonic=time.monotonic,
        )
        self.contexts = tls.ServerContexts()
        self.outbox = Outbox(loop.call_soon)

    async def run(self) -> int:
        """Serves until SIGTERM, then drains."""
        context = self._context
        self.loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        servers = [
            await self.loop.create_server(ListenerHost(self, listener).connection, sock=sock, backlog=BACKLOG)
            for listener, sock in context.listeners
        ]
        self._beat(self.loop.time())
        gc.collect()
        gc.freeze()  # what lives as long as the process is no garbage collector's business
        gc.set_threshold(*GC_THRESHOLDS)
        context.enter(State.READY)
        await self._stop.wait()
        for server in servers:
            server.close()  # at once: no connection is accepted from here on
        context.enter(State.DRAINING)
        await self._drain(context.drain_timeout)
        return 0

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _beat(self, due: float) -> None:
        now = self.loop.time()
        self._context.page.set_float(_LAG, max(0.0, now - due))
        self._context.page.heartbeat = time.monotonic()
        self.loop.call_at(now + HEARTBEAT, self._beat, now + HEARTBEAT)

    async def _drain(self, timeout: float) -> None:
        """Ends idle sessions now and the others when their transaction is over; then closes what is behind them."""
        deadline = self.loop.time() + timeout
        self.draining = True
        for connection in list(self._connections):
            connection.drain()
        if self._connections:
            try:
                await asyncio.wait_for(self._empty.wait(), timeout)
            except TimeoutError:
                log.warning("%d sessions were still busy at the drain deadline", len(self._connections))
                for connection in list(self._connections):
                    connection.abort()
        await self.services.relay.close(max(0.0, deadline - self.loop.time()))
        self.services.logs.close(LOG_CLOSE_TIMEOUT)


class ListenerHost:
    """One listener in this worker: the Host of its connections."""

    def __init__(self, worker: Worker, listener: Listener) -> None:
        self._worker = worker
        self._params = ParamsTable(listener)
        self._open = 0
        # The kernel spreads connections over the workers, so each takes its share of the limit.
        self._max_connections = -(-listener.max_connections // worker.workers)
        self.services = worker.services
        self.contexts = worker.contexts
        self.outbox = worker.outbox
        self.loop = worker.loop

    def connection(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, Connection(self))

    def params_for(self, endpoints: Endpoints) -> ListenerParams:
        return self._params.params_for(endpoints.peer_address, endpoints.local_address)

    def admission(self, params: ListenerParams) -> Reply | None:
        if self._worker.draining:
            return replies.closing(params.hostname, "shutting down", Reason.SHUTTING_DOWN)
        if self._open >= self._max_connections:
            return replies.closing(
                params.hostname, "too many concurrent sessions. Try later", Reason.TOO_MANY_CONNECTIONS
            )
        if self.services.logs.disk_problem is not None:
            return replies.closing(params.hostname, "disk is too full. Try later", Reason.STORAGE)
        return None

    def opened(self, connection: Connection) -> None:
        self._open += 1
        self._worker.opened(connection)

    def lost(self, connection: Connection) -> None:
        self._open -= 1
        self._worker.lost(connection)

    @property
    def draining(self) -> bool:
        return self._worker.draining
