"""Policy: one loaded policy, as the gateway asks it. Checks what handlers return and caches what may be cached.

Every outcome is a plain value, Rejected or PolicyError; nothing of Lua leaves this package. How handlers are run is
handlers.py's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import Destination, EgressPath, ListenerDomain, QueueConfig, SmtpFleet, site_name
from gateway.delivery.message import Message, parse_queue_name
from gateway.policy import events
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import MISSING, DecisionCache, Evaluation, RecentlyUsed
from gateway.policy.handlers import Handlers, log
from gateway.policy.message_methods import MessageHandle
from gateway.policy.objects import Made
from gateway.policy.options import BadOptions, list_of, mismatch
from gateway.policy.problems import PolicyError, PolicyProblems, Rejected
from gateway.policy.runtime import kind_of, outward
from gateway.policy.source import PolicySource
from gateway.smtp.address import EnvelopeAddress

__all__ = ["Identity", "Policy", "PolicyError", "PolicyProblems", "Rejected"]

T = TypeVar("T")

DECISION_NODES = 65_536  # in the cache of get_listener_domain
CONFIGURATIONS = 8_192  # of queues, and again of egress paths

_HIT = metrics.DECISION_CACHE_HITS.slot()
_MISS = metrics.DECISION_CACHE_MISSES.slot()
_EVICTIONS = metrics.DECISION_CACHE_EVICTIONS.slot()
_MISMATCH = metrics.DECISION_CACHE_MISMATCHES.slot()
_ENTRIES = metrics.DECISION_CACHE_ENTRIES.slot()


class Identity(NamedTuple):
    """Whom an AUTH exchange established."""

    authn_id: str
    authz_id: str


_NO_PATH = EgressPath()


class Policy:
    """A policy in force; made by `load`.

    config: what it declares. source: with every Lua file it loaded. handles: the events it has handlers for; the
    methods that ask for other events need not be called. answered_from: "cache" or "lua", about the last
    `listener_domain`.
    """

    def __init__(
        self, source: PolicySource, handlers: Handlers, *, epoch: int, page: CounterPage, verify_every: int,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.source = source
        self.epoch = epoch
        self.config = handlers.api.config()
        self.handles = frozenset(handlers.api.handlers)
        self.answered_from = "lua"
        self._handlers = handlers
        self._page = page
        self._clock = clock
        self._decisions: DecisionCache | None = DecisionCache(DECISION_NODES)
        self._verify_every = self._until_verification = verify_every
        self._evictions = 0
        self._destinations = RecentlyUsed(CONFIGURATIONS)
        self._queues = RecentlyUsed(CONFIGURATIONS)
        self._paths = RecentlyUsed(CONFIGURATIONS)

    @classmethod
    def load(
        cls,
        source: PolicySource,
        *,
        epoch: int = 1,
        page: CounterPage,
        verify_every: int = 1024,
        clock: Callable[[], float] = time.monotonic,
        validating: bool = False,
    ) -> Policy:
        """Runs a policy's top level and init. Raises PolicyProblems with everything that is wrong.

        page: receives the counters. verify_every: how many cached decisions go by until one is made again and
        compared. clock: seconds, for durations and refresh intervals. validating: `relay-gateway check` asks.
        """
        handlers = Handlers(source, page, clock)
        handlers.load(validating=validating)
        return cls(source, handlers, epoch=epoch, page=page, verify_every=verify_every, clock=clock)

    def registered_at(self, event: str) -> tuple[str, int]:
        """File and line of the first handler of an event that has one."""
        handler = self._handlers.api.handlers[event][0]
        return handler.file, handler.line

    # --- events of a session ------------------------------------------------------------------------------
    # Each may raise Rejected or PolicyError.

    def connection_accepted(self, conn: ConnMeta) -> None:
        """Before the banner."""
        self._handlers.call(events.CONNECTION_ACCEPTED, conn)

    def ehlo(self, domain: str, conn: ConnMeta, extensions: Sequence[str] | None) -> tuple[str, ...] | None:
        """extensions: None for HELO. Returns the keyword lines to offer instead, None for no change."""
        lua = self._handlers.lua
        more = () if extensions is None else (lua.value(list(extensions)),)
        result = self._handlers.call(events.EHLO, outward(domain), conn, *more)
        if result is None or extensions is None:
            return None
        try:
            lines: tuple[str, ...] = list_of(keyword_line, "keywords")(lua.plain(result))
        except BadOptions:
            raise self._bad_result(events.EHLO, result, "a list of strings or nil") from None
        return lines

    def auth_plain(self, authz: str, authc: str, password: str, conn: ConnMeta) -> Identity | None:
        """Returns None where the credentials are refused. An empty authz means authc (RFC 4616 §2)."""
        authz = authz or authc
        result = self._handlers.call(events.AUTH_PLAIN, outward(authz), outward(authc), outward(password), conn)
        if result is None or isinstance(result, bool):
            return Identity(authc, authz) if result else None
        plain = self._handlers.lua.plain(result)
        identity = _identity(plain) if isinstance(plain, dict) else None
        if identity is None:
            raise self._bad_result(events.AUTH_PLAIN, result, "true, false or a table with identities")
        return identity

    def mail_from(self, sender: EnvelopeAddress, conn: ConnMeta) -> None:
        """MAIL FROM."""
        self._handlers.call(events.MAIL_FROM, sender, conn)

    def rcpt_to(self, recipient: EnvelopeAddress, conn: ConnMeta) -> None:
        """RCPT TO, after the recipient passed the relay decision."""
        self._handlers.call(events.RCPT_TO, recipient, conn)

    def message_received(self, message: Message, conn: ConnMeta) -> None:
        """A complete message; the handler may change it."""
        with MessageHandle(message) as handle:
            self._handlers.call(events.MESSAGE_RECEIVED, handle, conn)

    # --- the decision -------------------------------------------------------------------------------------

    def listener_domain(self, domain: str, listener: str, conn: ConnMeta) -> ListenerDomain | None:
        """What is granted for a domain; None grants nothing. Raises Rejected or PolicyError.

        domain: normalised. listener: the local address, "IP:PORT".
        """
        decisions = self._decisions
        if decisions is not None:
            found = decisions.lookup((domain, listener), conn.values)
            if found is not MISSING:
                self._until_verification -= 1
                if self._until_verification <= 0:
                    self._verify(found, domain, listener, conn)
                self._page.add(_HIT)
                self.answered_from = "cache"
                return found  # type: ignore[no-any-return]
        self.answered_from = "lua"
        self._page.add(_MISS)
        evaluation = Evaluation(conn)
        result = self._evaluated(evaluation, domain, listener, conn)
        if decisions is not None and evaluation.stable:
            if not decisions.store((domain, listener), evaluation.reads.items(), result):
                self._stop_caching(domain)
            self._count_entries(decisions)
        return result

    def _evaluated(self, evaluation: Evaluation, domain: str, listener: str, conn: ConnMeta) -> ListenerDomain | None:
        result = self._handlers.evaluate(events.LISTENER_DOMAIN, evaluation, outward(domain), listener, conn)
        if result is None:
            return None
        return self._made(events.LISTENER_DOMAIN, result, ListenerDomain, "kumo.make_listener_domain")

    def _verify(self, found: ListenerDomain | None, domain: str, listener: str, conn: ConnMeta) -> None:
        """Makes a cached decision again. Raises what the handler raises."""
        self._until_verification = self._verify_every
        agrees = False
        try:
            agrees = self._evaluated(Evaluation(conn), domain, listener, conn) == found
        finally:
            if not agrees:
                self._stop_caching(domain)

    def _stop_caching(self, domain: str) -> None:
        self._decisions = None
        self._page.add(_MISMATCH)
        self._page.set(_ENTRIES, 0)
        log.error(
            "get_listener_domain decided differently for '%s' under the same circumstances: "
            "its results are not cached any more",
            domain,
        )

    def _count_entries(self, decisions: DecisionCache) -> None:
        self._page.set(_ENTRIES, len(decisions))
        if decisions.evictions != self._evictions:
            self._page.add(_EVICTIONS, decisions.evictions - self._evictions)
            self._evictions = decisions.evictions

    # --- configurations -----------------------------------------------------------------------------------

    def destination(self, queue_name: str) -> Destination | None:
        """Where mail of a queue goes; None where the policy does not say. Raises Rejected or PolicyError."""
        found = self._destinations.get(queue_name)
        if found is not MISSING and self._clock() < found[0]:
            return found[1]  # type: ignore[no-any-return]
        campaign, tenant, domain, routing_domain = parse_queue_name(queue_name)
        until, queue = self._queue_config(domain, tenant, campaign, routing_domain)
        destination = None
        if queue is not None and queue.protocol is not None:
            path = _NO_PATH
            if isinstance(queue.protocol, SmtpFleet):
                site = site_name(queue.protocol)
                path_until, path = self._egress_path(routing_domain or domain, "unspecified", site)
                until = min(until, path_until)
            destination = Destination(queue, path)
        self._destinations.put(queue_name, (until, destination))
        return destination

    def queue_config(
        self, domain: str, tenant: str | None, campaign: str | None, routing_domain: str | None
    ) -> QueueConfig | None:
        """How mail of a queue travels; None where the policy does not say. Raises Rejected or PolicyError."""
        return self._queue_config(domain, tenant, campaign, routing_domain)[1]

    def _queue_config(
        self, domain: str, tenant: str | None, campaign: str | None, routing_domain: str | None
    ) -> tuple[float, QueueConfig | None]:
        def ask() -> QueueConfig | None:
            names = [None if name is None else outward(name) for name in (domain, tenant, campaign, routing_domain)]
            result = self._handlers.call_chain(events.QUEUE_CONFIG, *names)
            if result is None:
                return None
            return self._made(events.QUEUE_CONFIG, result, QueueConfig, "kumo.make_queue_config")

        return self._refreshed(self._queues, (domain, tenant, campaign, routing_domain), ask)

    def egress_path(self, routing_domain: str, source: str, site: str) -> EgressPath:
        """How to talk to a member of the fleet; defaults without a handler. Raises Rejected or PolicyError."""
        return self._egress_path(routing_domain, source, site)[1]

    def _egress_path(self, routing_domain: str, source: str, site: str) -> tuple[float, EgressPath]:
        def ask() -> EgressPath:
            names = [outward(name) for name in (routing_domain, source, site)]
            result = self._handlers.call(events.EGRESS_PATH, *names)
            if result is None:
                return EgressPath()
            return self._made(events.EGRESS_PATH, result, EgressPath, "kumo.make_egress_path")

        return self._refreshed(self._paths, (routing_domain, source, site), ask)

    def _refreshed(self, cache: RecentlyUsed, key: Hashable, ask: Callable[[], T]) -> tuple[float, T]:
        """A configuration, cached until its refresh_interval is over, and when that is."""
        now = self._clock()
        found = cache.get(key)
        if found is not MISSING and now < found[0]:
            return found  # type: ignore[no-any-return]
        config = ask()
        interval = QueueConfig().refresh_interval if config is None else config.refresh_interval  # type: ignore[attr-defined]
        cache.put(key, (now + interval, config))
        return now + interval, config

    # --- records ------------------------------------------------------------------------------------------

    def log_filter(self, event: str, message: Message) -> bool:
        """Whether a logger's filter_event lets a message's record through. A failing filter loses no record."""
        try:
            with MessageHandle(message) as handle:
                return bool(self._handlers.call(event, handle))
        except (Rejected, PolicyError):
            return True

    # --- results ------------------------------------------------------------------------------------------

    def _made(self, event: str, result: object, kind: type[T], maker: str) -> T:
        value = result.value if isinstance(result, Made) else None
        if not isinstance(value, kind):
            raise self._bad_result(event, result, f"nil or the result of {maker}")
        return value

    def _bad_result(self, event: str, result: object, expected: str) -> PolicyError:
        found = f"the result of kumo.{result.maker}" if isinstance(result, Made) else f"a {kind_of(result)}"
        return self._handlers.failed(event, f"the handler returned {found}, expected {expected}")


def keyword_line(value: object) -> str:
    """One line of the reply to EHLO (RFC 5321 §4.1.1.1)."""
    if not isinstance(value, str) or not value.isprintable():
        raise mismatch("a keyword with its parameters", value)
    return value


def _identity(info: dict[Any, Any]) -> Identity | None:
    """KumoMTA's AuthInfo: the first identity authenticates; those with a context say for what they are."""
    identities = info.get("identities")
    if not isinstance(identities, dict) or not all(
        isinstance(one, dict) and isinstance(one.get("identity"), str) for one in identities.values()
    ):
        return None
    names = {one.get("context"): one["identity"] for one in reversed(identities.values())}
    if not names:
        return None
    authn = names.get("SmtpAuthPlainAuthentication", identities[1]["identity"])
    return Identity(authn, names.get("SmtpAuthPlainAuthorization", authn))
