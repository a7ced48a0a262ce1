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

import uvloop

from gateway import metrics
from gateway._fastpath import ContentStore
from gateway.config import Listener
from gateway.couriers.couriers import Couriers, ehlo_domain
from gateway.couriers.fleet.table import MemberTable
from gateway.couriers.spool.spool import Spool
from gateway.delivery.redelivery import Redelivery
from gateway.delivery.services import Services
from gateway.inbound.arrival import ListenerHost
from gateway.logs.writer import LogWriter
from gateway.metrics import readiness
from gateway.metrics.families import ProcessState
from gateway.metrics.listeners import ListenerWatch
from gateway.net import streams
from gateway.net.outbox import Outbox
from gateway.net.roster import OpenConnection, Roster
from gateway.net.streams import Poller
from gateway.net.turns import Room
from gateway.policy.background import Background
from gateway.policy.engine import Policy, PolicyProblems
from gateway.quotas import Quotas
from gateway.service.certificates import CertificateWatch
from gateway.service.context import EX_CONFIG, EX_TEMPFAIL, WorkerContext
from gateway.service.memory import ContentWatch
from gateway.service.window import Window
from gateway.tracing.tracer import Tracer

log = logging.getLogger(__name__)

HEARTBEAT = 1.0  # seconds between two of them, and between two looks for idle clients
SETTLING = 1.0  # seconds from the last accepted connection until idle ones are sent away
WATCHED_AT_ONCE = 100  # sessions
LOG_CLOSE_TIMEOUT = 10.0  # seconds to get the last records onto the disk

# Sessions leave no cycles behind when they end in order, so looking for some after every 700 objects is a waste.
GC_THRESHOLDS = (20_000, 20, 20)

_LAG = metrics.EVENT_LOOP_LAG.slot()
_BACKLOG_LIMIT = metrics.LOG_BACKLOG_LIMIT.slot()
_GONE = metrics.CONNECTIONS_GONE.slot()
_EXHAUSTED = metrics.ACCEPT_FAILURES.slot()


def run(context: WorkerContext) -> int:
    """Runs a worker to its end; returns its exit code. See WorkerContext for what is expected of it."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        try:
            worker = Worker(context, loop)
        except PolicyProblems as error:
            log.critical("cannot start: %s", error)
            return EX_CONFIG
        except OSError as error:  # no descriptor or thread to spare
            log.critical("cannot start: %s", error)
            return EX_TEMPFAIL
        return loop.run_until_complete(worker.run())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


class Worker:
    """The process's one object: what all its listeners share."""

    def __init__(self, context: WorkerContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._stop = asyncio.Event()
        self._drained = asyncio.Event()
        self._roster = Roster(self._drained.set)
        quotas = Quotas(context.arena, 2 * context.slot + context.epoch % 2)  # two generations may be alive
        self._background = Background(loop, quotas)
        policy = Policy.load(context.source, epoch=context.epoch, page=context.page, background=self._background)
        logs = LogWriter(policy.config.local_logs, context.page, policy.log_filter, call_soon=loop.call_soon_threadsafe)
        contents = ContentStore(context.content.directory, context.content.memory, context.content_files)
        hostname = socket.gethostname()
        self._poller = Poller(loop)
        self._outbox = Outbox(self._poller.call_soon)
        self._room = Room(contents, loop.call_later)
        self._services = Services(
            policy=policy,
            couriers=Couriers(
                self._poller,
                context.page,
                hostname,
                ehlo_domain(policy.config.listeners, hostname),
                MemberTable(context.arena.part("members"), 1 + 2 * context.slot + context.epoch % 2),
            ),
            logs=logs,
            page=context.page,
            now_ns=time.time_ns,
            monotonic=time.monotonic,
            afterwards=self._outbox.afterwards,
            room=self._room,
        )
        self._services.quotas = quotas
        self._services.tracer = Tracer(context.slot, time.time_ns, time.monotonic, self._watch)
        spool = policy.config.spool
        self._spool = None if spool is None else Spool(loop, context.page, spool, context.slot, time.time)
        self._services.spool = self._spool
        self._to_watch: list[OpenConnection] = []
        self._window = Window(loop, self._services.tracer, context.page)
        self._content_watch = ContentWatch(contents, context.page, context.content.directory)
        self._hosts: list[ListenerHost] = []
        self._watches: list[ListenerWatch] = []
        self._listeners: list[streams.Acceptor] = []
        self._contexts = context.contexts
        self._certificates = CertificateWatch(
            policy.config.listeners, context.keys, context.page, tells=context.slot == 0
        )

    async def run(self) -> int:
        """Serves until SIGTERM, then drains."""
        context = self._context
        self._loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        self._hosts = [
            self._host(listener, sock, most)
            for (listener, sock), most in zip(context.listeners, context.max_connections, strict=True)
        ]
        self._listeners = [
            streams.Acceptor(
                self._poller,
                sock,
                host.accepted,
                gone=lambda: context.page.add(_GONE),
                exhausted=lambda: context.page.add(_EXHAUSTED),
            )
            for (_, sock), host in zip(context.listeners, self._hosts, strict=True)
        ]
        self._watches = [ListenerWatch(context.page, place) for place in context.places]
        local_logs = self._services.policy.config.local_logs
        context.page.set(_BACKLOG_LIMIT, sum(logger.back_pressure for logger in local_logs))
        self._beat(self._loop.time())
        gc.collect()
        gc.freeze()  # what lives as long as the process is no garbage collector's business
        gc.set_threshold(*GC_THRESHOLDS)
        if self._spool is not None:
            Redelivery(self._services, self._spool).start()
        fleet = context.source.deployment.fleet
        if fleet is not None:
            self._services.couriers.learn(fleet, ask=context.slot == 0)
        context.enter(ProcessState.READY)
        await self._stop.wait()
        for listener in self._listeners:
            listener.close()  # at once: no connection is accepted from here on
        context.enter(ProcessState.DRAINING)
        self._tell_of_listeners()
        await self._drain(context.drain_timeout)
        return 0

    def _host(self, listener: Listener, sock: socket.socket, max_connections: int) -> ListenerHost:
        return ListenerHost(
            listener,
            sock.getsockname(),
            max_connections,
            self._services,
            self._contexts,
            self._roster,
            self._outbox,
            self._poller,
        )

    def _beat(self, due: float) -> None:
        now = self._loop.time()
        self._context.page.set_float(_LAG, max(0.0, now - due))
        self._context.page.heartbeat = monotonic = time.monotonic()
        self._contexts.renew(monotonic)
        self._roster.check_idle(now)
        self._publish_readiness()
        self._tell_of_listeners()
        self._certificates.beat(time.time())
        self._content_watch.beat(len(self._poller.turns) + len(self._room))
        self._loop.call_at(now + HEARTBEAT, self._beat, now + HEARTBEAT)

    def _watch(self, active: bool) -> None:
        """Others look on than before. active: somebody does."""
        self._services.traced = active
        self._services.policy.trace(active)
        is_under_way = bool(self._to_watch)
        self._to_watch = self._roster.all()
        if not is_under_way:
            self._watch_some()

    def _watch_some(self) -> None:
        """Tells the sessions that are under way, some in each turn of the loop: there may be thousands."""
        for connection in self._to_watch[:WATCHED_AT_ONCE]:
            connection.watch()
        del self._to_watch[:WATCHED_AT_ONCE]
        if self._to_watch:
            self._loop.call_soon(self._watch_some)
        else:
            self._services.tracer.all_are_watched()

    def _publish_readiness(self) -> None:
        for number, (host, listener) in enumerate(zip(self._hosts, self._listeners, strict=True)):
            answer: str = readiness.SERVED
            if listener.resting:
                answer = readiness.NO_DESCRIPTORS
            elif (refusal := host.admission("")) is not None and refusal.reason is not None:
                answer = refusal.reason
            readiness.publish(self._context.page, number, answer)

    def _tell_of_listeners(self) -> None:
        draining = self._stop.is_set()
        for watch, host in zip(self._watches, self._hosts, strict=True):
            limit = 0 if draining else host.max_connections
            watch.tell(host.arrived, host.refused, host.messages, host.open, limit)

    async def _drain(self, timeout: float) -> None:
        """Ends idle sessions and the others when their transaction is over; then closes what is behind them.

        Whoever has connected a moment ago is about to say what for: who comes with one message gets it through.
        """
        deadline = self._loop.time() + timeout
        settled = min(deadline, self._loop.time() + SETTLING)
        while self._roster and self._loop.time() < settled:
            await asyncio.sleep(0.05)
        self._roster.drain()
        if self._roster:
            try:
                await asyncio.wait_for(self._drained.wait(), max(0.0, deadline - self._loop.time()))
            except TimeoutError:
                log.warning("%d sessions were still busy at the drain deadline", len(self._roster))
                self._roster.abort()
        if self._spool is not None:
            self._spool.stop_trying()  # whoever takes the files over goes on
        await self._services.couriers.close(max(0.0, deadline - self._loop.time()))
        if self._spool is not None:
            await self._spool.close(max(1.0, deadline - self._loop.time()))
        await self._tell_policy(max(1.0, deadline - self._loop.time()))
        await self._background.close()
        self._services.logs.close(LOG_CLOSE_TIMEOUT)
        self._tell_of_listeners()

    async def _tell_policy(self, patience: float) -> None:
        """Lets the policy know of the end; what goes wrong there is logged already. patience: seconds."""
        answer = self._services.policy.shutdown_logging()
        if answer.done:
            return
        arrived = self._loop.create_future()
        answer.then(lambda: arrived.set_result(None))
        try:
            await asyncio.wait_for(arrived, patience)
        except TimeoutError:
            answer.cancel()
