"""What each child process of the supervisor does first: keeps its own of the parent's sockets, gets its share of the
service, and runs. When to start which is plan.py's, forking is child.py's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from socket import socket

from gateway._fastpath import CounterPage
from gateway.admin.context import AdminContext, Means
from gateway.admin.processes import PolicyName
from gateway.couriers.fleet.table import MemberTable
from gateway.metrics import MOST_SHIPMENTS, listeners
from gateway.metrics.families import ProcessState
from gateway.metrics.listeners import ListenerNames
from gateway.net.tls import SHARED_AHEAD, ServerContexts
from gateway.quotas import Glance
from gateway.service import child, descriptors, privileges
from gateway.service.ask import asked
from gateway.service.context import DEFAULT_CONTENT_LIMITS, ContentLimits, WorkerContext
from gateway.service.estate import Estate
from gateway.service.loading import LoadedPolicy
from gateway.service.plan import ADMIN, SHIPPER
from gateway.why.asking import Answering

ASKING = 30.0  # seconds that the admin process waits for the supervisor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says. Times are seconds.

    announce: a file, or a file descriptor's number. control: the path of the control socket. drain_delay: how long the
    service is unready before its ports close. operator_token_file: for who may change things by HTTP.
    """

    workers: int
    content: ContentLimits = DEFAULT_CONTENT_LIMITS
    user: str | None = None
    drain_timeout: float = 30.0
    drain_delay: float = 0.0
    announce: str | None = None
    control: str | None = None
    operator_token_file: str | None = None


class Staff:
    """Starts the children, which find here what they were promised."""

    def __init__(
        self,
        settings: Settings,
        run_worker: Callable[[WorkerContext], int],
        run_admin: Callable[[AdminContext], int],
        estate: Estate,
    ) -> None:
        self._settings, self._run_worker, self._run_admin, self._estate = settings, run_worker, run_admin, estate
        self._smtp, self._http = estate.smtp, estate.http
        self._names = ListenerNames(estate.arena.part(listeners.PART))
        self._shipments = ListenerNames(estate.arena.part("shipments"), MOST_SHIPMENTS)
        self._contexts: list[tuple[LoadedPolicy, ServerContexts]] = []  # of the policy in force and the one before
        privileges.forbid_cores()
        self.limit = descriptors.raise_limit()
        self.for_clients = descriptors.for_clients(self.limit)

    def start(self, slot: int, generation: int, policy: LoadedPolicy, page: CounterPage, now: float) -> int:
        """Fork the process of a slot; returns its id. now: CLOCK_MONOTONIC seconds. Raises OSError."""
        if slot == ADMIN:
            return child.start(lambda: self._admin(policy, generation, page), name_of(slot))
        if slot == SHIPPER:
            shipping_places = [self._shipments.place_of(each.name) for each in policy.config.shipments]
            return child.start(lambda: self._shipper(policy, page, shipping_places), name_of(slot))
        self._smtp.listen(slot)
        places = [self._names.place_of(address) for address in self._smtp.bound(smtp_addresses(policy))]
        contexts = self._contexts_of(policy, now)
        return child.start(lambda: self._worker(policy, generation, slot, page, places, contexts), name_of(slot))

    def shares(self, policy: LoadedPolicy) -> list[int]:
        """How many connections a worker may have open at each listener."""
        wanted = [listener.max_connections for listener in policy.config.listeners]
        return descriptors.shares(wanted, self._settings.workers, self.for_clients)

    def warn_of_shares(self, policy: LoadedPolicy) -> None:
        """Say which listeners get fewer connections than their policy allows."""
        workers = self._settings.workers
        for listener, share in zip(policy.config.listeners, self.shares(policy), strict=True):
            if share * workers < listener.max_connections:
                log.warning(
                    "%s: at most %d connections instead of max_connections = %d: a worker may open %d files "
                    "(LimitNOFILE, ulimit -n), %d of them for clients",
                    *(listener.listen, share * workers, listener.max_connections, self.limit, self.for_clients),
                )

    def enter_loader(self) -> None:
        """In the process that loads a policy. Raises PrivilegeError."""
        self._close_all_but(smtp=(), http=())
        if self._settings.user:
            privileges.drop_to(self._settings.user)

    def renew_keys(self, now: float) -> None:
        """Of TLS tickets: who is started from now on finds those that the others use, and none from before."""
        for _, contexts in self._contexts:
            contexts.renew(now)

    def _contexts_of(self, policy: LoadedPolicy, now: float) -> ServerContexts:
        """The same for all workers of a policy, whenever they are started. Raises OSError."""
        for known, contexts in self._contexts:
            if known is policy:
                return contexts
        ahead = SHARED_AHEAD if self._settings.workers > 1 else 0  # a single one shares nothing
        made = ServerContexts(policy.config.listeners, policy.keys, now, ahead)
        self._contexts = [*self._contexts[-1:], (policy, made)]
        return made

    def _worker(
        self,
        policy: LoadedPolicy,
        epoch: int,
        slot: int,
        page: CounterPage,
        places: list[int],
        contexts: ServerContexts,
    ) -> int:
        sockets = self._smtp.of_slot(smtp_addresses(policy), slot)
        self._close_all_but(smtp=sockets, http=())
        context = WorkerContext(
            slot=slot,
            listeners=list(zip(policy.config.listeners, sockets, strict=True)),
            max_connections=self.shares(policy),
            places=places,
            source=policy.source,
            keys=policy.keys,
            contexts=contexts,
            epoch=epoch,
            page=page,
            enter=lambda state: self._enter(state, page),
            drain_timeout=self._settings.drain_timeout,
            content=self._settings.content,
            content_files=descriptors.for_contents(self.limit),
            arena=self._estate.arena,
        )
        return self._run_worker(context)

    def _admin(self, policy: LoadedPolicy, epoch: int, page: CounterPage) -> int:
        addresses = self._smtp.bound(smtp_addresses(policy))
        sockets = self._http.of_slot(http_addresses(policy), 0)
        self._close_all_but(smtp=(), http=sockets)
        named = dict(zip(addresses, smtp_addresses(policy), strict=True))
        answering = Answering(policy.source, named, epoch, Glance(self._estate.arena, None))
        context = AdminContext(
            listeners=list(zip(policy.config.http_listeners, sockets, strict=True)),
            hostnames=[each.overrides["hostname"] for each in policy.config.listeners if "hostname" in each.overrides],
            smtp=addresses,
            page=page,
            pages=self._estate.pages.all,
            enter=lambda state: self._enter(state, page),
            members=MemberTable(self._estate.arena.part("members")),
            names=self._names.all,
            shipments=self._shipments.all,
            policy=lambda: PolicyName(policy.source.path, policy.source.digest()),
            operator=self._means(policy),
            log_dirs=lambda: [logger.log_dir for logger in policy.config.local_logs],
            explain=answering.answer,
            explain_refusal=answering.of_refusal,
        )
        return self._run_admin(context)

    def _means(self, policy: LoadedPolicy) -> Means | None:
        token_file, path = self._settings.operator_token_file, self._settings.control
        if token_file is None or path is None:
            return None
        spool = policy.config.spool
        directory = None if spool is None else spool.path
        return Means(token_file, lambda request: asked(path, request, ASKING), directory)

    def _shipper(self, policy: LoadedPolicy, page: CounterPage, places: list[int]) -> int:
        from gateway.service import shipping  # not needed in the workers, which are forked from the same process

        self._close_all_but(smtp=(), http=())
        return shipping.run(policy.config.shipments, places, page, lambda state: self._enter(state, page))

    def _close_all_but(self, *, smtp: Iterable[socket], http: Iterable[socket]) -> None:
        """What stays open here would stay open when the supervisor closes it."""
        self._smtp.close_others(smtp)
        self._http.close_others(http)
        if self._estate.control is not None:
            self._estate.control.close_others()

    def _enter(self, state: ProcessState, page: CounterPage) -> None:
        page.state = state
        with suppress(BlockingIOError):  # then it will look anyway
            os.write(self._estate.wake, b"\0")  # no signal has this number


def smtp_addresses(policy: LoadedPolicy) -> list[str]:
    """The addresses of a policy's SMTP listeners, as it says them."""
    return [listener.listen for listener in policy.config.listeners]


def http_addresses(policy: LoadedPolicy) -> list[str]:
    """The same of its HTTP listeners."""
    return [listener.listen for listener in policy.config.http_listeners]


def name_of(slot: int) -> str:
    """What the process of a slot is called."""
    return {ADMIN: "admin", SHIPPER: "shipper"}.get(slot) or f"worker-{slot}"


def besides(policy: LoadedPolicy) -> dict[str, bool]:
    """Which processes a policy needs besides its workers. (That of a program before this one may have no shipments.)"""
    config = policy.config
    return {"admin": bool(config.http_listeners), "shipper": bool(getattr(config, "shipments", ()))}
