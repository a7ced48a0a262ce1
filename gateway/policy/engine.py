"""Policy: one loaded policy, as the gateway asks it. Checks what handlers return.

Every answer is a Later: a plain value, Rejected or PolicyError; nothing of Lua leaves this package. How handlers are
called is runs.py's business, what is remembered decisions.py's and configurations.py's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

from gateway._fastpath import CounterPage
from gateway.config import EgressPath, ListenerDomain, QueueConfig
from gateway.later import Later, answered
from gateway.mail.message import Message
from gateway.policy import events
from gateway.policy.api import Api, Handler
from gateway.policy.background import Background
from gateway.policy.configurations import Configurations, Names
from gateway.policy.conn_meta import AUTHENTICATION, AUTHORIZATION, ConnMeta, claimed
from gateway.policy.decision_cache import MISSING, Evaluation, RecentlyUsed
from gateway.policy.decisions import Decisions
from gateway.policy.domain_table import DomainTable
from gateway.policy.handlers import Handlers
from gateway.policy.kumo.values import integer, string
from gateway.policy.limits import HandlerLimits
from gateway.policy.listener import Block, block_of, one_by_one
from gateway.policy.messages.handle import MessageHandle
from gateway.policy.objects import Made, address_of
from gateway.policy.options import BadOptions, list_of, mismatch, sequences
from gateway.policy.problems import PolicyError, PolicyProblems, Rejected
from gateway.policy.runs import Run
from gateway.policy.runtime import inward, kind_of, outward
from gateway.policy.schemas import dynamic_parameters
from gateway.policy.source import PolicySource
from gateway.smtp.address import EnvelopeAddress

__all__ = ["Identity", "Policy", "PolicyError", "PolicyProblems", "Rejected"]

T = TypeVar("T")

# Cached decisions until one is made again: a prime, so that no rhythm of questions always meets the same one.
VERIFY_EVERY = 1021

BLOCKS = 64  # different results of smtp_server_get_dynamic_parameters that are kept


class Identity(NamedTuple):
    """Whom an AUTH exchange established. identities, groups: as ConnMeta has them."""

    authn_id: str
    authz_id: str
    identities: tuple[dict[str, str], ...] = ()
    groups: tuple[str, ...] = ()


_NOTHING = answered(None)  # the answer where no handler is


class Policy:
    """A policy in force; made by `load`.

    config: what it declares. source: with every Lua file it loaded. handles: the events it has handlers for; the
    methods that ask for other events need not be called. is_asked_at_first: an event before the banner is among them.
    rewrites_replies: so is smtp_server_rewrite_response. shapes_transactions: so is smtp_server_data or
    smtp_server_split_transaction.
    """

    def __init__(
        self, source: PolicySource, handlers: Handlers, *, epoch: int, page: CounterPage, verify_every: int,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.source = source
        self.epoch = epoch
        self.config = handlers.api.config()
        if events.MESSAGE_RECEIVED in handlers.api.handlers and source.calls_method("recipient"):
            self.config = one_by_one(self.config)
        self.handles = frozenset(handlers.api.handlers)
        self.is_asked_at_first = not self.handles.isdisjoint({events.DYNAMIC_PARAMETERS, events.CONNECTION_ACCEPTED})
        self.rewrites_replies = events.REWRITE_RESPONSE in self.handles
        self.shapes_transactions = not self.handles.isdisjoint({events.DATA, events.SPLIT_TRANSACTION})
        self._handlers = handlers
        self._blocks = RecentlyUsed(BLOCKS)  # by the text of the tables that they were made of
        first = next(iter(handlers.of(events.LISTENER_DOMAIN)), None)
        table = first.behind if first is not None and isinstance(first.behind, DomainTable) else None
        self._decisions = Decisions(self._evaluate, page, verify_every, clock, table)
        self._configurations = Configurations(self._ask_queue, self._ask_path, clock, source.deployment.fleet)

    @classmethod
    def load(
        cls,
        source: PolicySource,
        *,
        epoch: int = 1,
        page: CounterPage,
        verify_every: int = VERIFY_EVERY,
        clock: Callable[[], float] = time.monotonic,
        validating: bool = False,
        background: Background | None = None,
        api: type[Api] = Api,
    ) -> Self:
        """Runs a policy's top level and init. Raises PolicyProblems with everything that is wrong.

        page: receives the counters. verify_every: how many cached decisions go by until one is made again and
        compared. clock: seconds, for durations and refresh intervals. validating: `relay-gateway check` asks.
        background: where what handlers wait for goes on; without one there is an event loop that only `finish` runs.
        api: the `kumo` module of its Lua states.
        """
        handlers = Handlers(source, page, clock, background or Background(), api)
        handlers.load(validating=validating)
        return cls(source, handlers, epoch=epoch, page=page, verify_every=verify_every, clock=clock)

    def finish(self, answer: Later) -> Any:
        """An answer, waited for by a process that does nothing else. Raises what the answer is."""
        self._handlers.runs.background.finish(answer)
        return answer.result()

    def pause(self, seconds: float) -> Later:
        """None, when the time has passed."""
        return self._handlers.runs.background.sleep(seconds)

    def trace(self, active: bool) -> None:
        """Whether witnesses of sessions are told of what handlers answer."""
        self._handlers.runs.traced = active

    @property
    def limits(self) -> HandlerLimits:
        """What one call of an event's handlers may use."""
        return self._handlers.runs.limits

    def calls_from(self) -> tuple[str, int]:
        """File and line of what its code is calling the gateway from; ("?", 0) while none of it runs."""
        return self._handlers.api.lua.where()

    def registered_at(self, event: str) -> tuple[str, int]:
        """File and line of the first handler of an event that has one."""
        handler = self._handlers.api.handlers[event][0]
        return handler.file, handler.line

    def handlers_of(self, event: str) -> Sequence[Handler]:
        """The handlers of an event; empty where it has none."""
        return self._handlers.of(event)

    def declared_at(self, function: str, number: int) -> tuple[str, int]:
        """File and line of a declaration, such as start_esmtp_listener. number: which of its calls, from 0 on, as in
        `config`.
        """
        return self._handlers.api.place_of(function, number)

    # --- events of a session ------------------------------------------------------------------------------
    # The answer to each may be Rejected or PolicyError.

    def dynamic_parameters(self, listener: str, conn: ConnMeta) -> Later:
        """Before everything else. The answer: a Block of parameters for this connection, None for no change.

        listener: the local address, "IP:PORT".
        """
        return self._ask(events.DYNAMIC_PARAMETERS, (listener, conn), self._parameters)

    def _parameters(self, result: object) -> Block | None:
        if result is None:
            return None
        table = self._handlers.lua.plain(result)
        key = repr(table)
        known = self._blocks.get(key)
        if known is MISSING:
            try:
                known = block_of(dynamic_parameters(table))
            except BadOptions as bad:
                raise self._handlers.runs.failed(events.DYNAMIC_PARAMETERS, str(bad)) from None
            self._blocks.put(key, known)
        return known  # type: ignore[no-any-return]

    def connection_accepted(self, conn: ConnMeta) -> Later:
        """Before the banner."""
        return self._ask(events.CONNECTION_ACCEPTED, (conn,))

    def ehlo(self, domain: str, conn: ConnMeta, extensions: Sequence[str] | None) -> Later:
        """extensions: None for HELO. The answer: the keyword lines to offer instead, None for no change."""
        more = () if extensions is None else (self._handlers.lua.value(list(extensions)),)
        finish = None if extensions is None else self._keyword_lines
        return self._ask(events.EHLO, (outward(domain), conn, *more), finish)

    def _keyword_lines(self, result: object) -> tuple[str, ...] | None:
        if result is None:
            return None
        try:
            lines: tuple[str, ...] = list_of(keyword_line, "keywords")(self._handlers.lua.plain(result))
        except BadOptions:
            raise self._bad_result(events.EHLO, result, "a list of strings or nil") from None
        return lines

    def auth_plain(self, authz: str, authc: str, password: str, conn: ConnMeta) -> Later:
        """The answer: an Identity, None where the credentials are refused. An empty authz means authc (RFC 4616 §2)."""
        authz = authz or authc
        arguments = outward(authz), outward(authc), outward(password), conn
        return self._ask(
            events.AUTH_PLAIN, arguments, partial(self._identity, Identity(authc, authz, claimed(authz, authc)))
        )

    def _identity(self, claimed: Identity, result: object) -> Identity | None:
        if result is None or isinstance(result, bool):
            return claimed if result else None
        plain = self._handlers.lua.plain(result)
        identity = _identity(plain) if isinstance(plain, dict) else None
        if identity is None:
            raise self._bad_result(events.AUTH_PLAIN, result, "true, false or a table with identities")
        return identity

    def mail_from(self, sender: EnvelopeAddress, conn: ConnMeta) -> Later:
        """MAIL FROM."""
        return self._ask(events.MAIL_FROM, (sender, conn))

    def rcpt_to(self, recipient: EnvelopeAddress, conn: ConnMeta) -> Later:
        """RCPT TO, after the recipient passed the relay decision."""
        return self._ask(events.RCPT_TO, (recipient, conn))

    def message_received(self, message: Message, conn: ConnMeta) -> Later:
        """A complete message; the handler may change it until the answer is there."""
        handle = MessageHandle(message)
        return self._ask(events.MESSAGE_RECEIVED, (handle, conn), handle=handle)

    def data(self, message: Message, conn: ConnMeta) -> Later:
        """A whole transaction before it becomes messages; the handler may change it until the answer is there."""
        handle = MessageHandle(message)
        return self._ask(events.DATA, (handle, conn), handle=handle)

    def split_transaction(self, message: Message, conn: ConnMeta) -> Later:
        """The answer: which recipients make one message, no group of them empty; None where that is not said."""
        handle = MessageHandle(message)
        recipients = message.recipients.copy()
        return self._ask(events.SPLIT_TRANSACTION, (handle, conn), partial(self._groups, recipients), handle)

    def _groups(self, recipients: list[EnvelopeAddress], result: object) -> list[list[EnvelopeAddress]] | None:
        if result is None:
            return None
        plain = self._handlers.lua.plain(result)
        if not isinstance(plain, dict) or not all(isinstance(group, dict) for group in plain.values()):
            raise self._bad_result(events.SPLIT_TRANSACTION, result, "a list of lists of addresses or nil")
        groups = [[address_of(address) for address in group.values()] for group in plain.values()]
        named = {address for group in groups for address in group}
        lost = [address for address in recipients if address not in named]
        if lost:  # to drop one is smtp_server_data's; what is only left out would be accepted, and gone
            raise self._handlers.runs.failed(events.SPLIT_TRANSACTION, f"no group has the recipient {lost[0]}")
        return [group for group in groups if group]

    def rewrite_response(self, status: int, response: str, command: str | None, conn: ConnMeta) -> Later:
        """Before every reply. The answer: its code and its text, each None where it stays; a plain pair that nobody has
        compared with the reply.
        """
        shown = None if command is None else outward(command)
        handlers = self._handlers.of(events.REWRITE_RESPONSE)
        arguments = status, outward(response), shown, conn
        return self._called(events.REWRITE_RESPONSE, handlers, arguments, self._wording, None, takes_all=True)

    def _wording(self, results: tuple[object, ...]) -> tuple[int | None, str | None]:
        status, text = (*results, None, None)[:2]
        try:
            return (
                None if status is None else integer(status, "the status"),
                None if text is None else inward(string(text, "the response")),
            )
        except ValueError as error:
            raise self._handlers.runs.failed(events.REWRITE_RESPONSE, str(error)) from None

    def cannot(self, event: str, text: str) -> None:
        """A handler wants what cannot be done, and goes without: counted and logged."""
        self._handlers.runs.failed(event, text)

    def shutdown_logging(self) -> Later:
        """This process ends: the sessions are over, and the loggers are about to be."""
        return self._ask(events.SHUTDOWN_LOGGING, ())

    # --- decisions, configurations, records ---------------------------------------------------------------

    def listener_domain(self, domain: str, listener: str, conn: ConnMeta) -> Later:
        """What is granted for a domain: a ListenerDomain; None grants nothing. A Known if it comes from the cache.

        domain: normalised. listener: the local address, "IP:PORT".
        """
        return self._decisions.listener_domain(domain, listener, conn)

    def _evaluate(self, evaluation: Evaluation, domain: str, listener: str, conn: ConnMeta) -> Run:
        handlers = self._handlers.of(events.LISTENER_DOMAIN)
        arguments = outward(domain), listener, conn
        return self._called(events.LISTENER_DOMAIN, handlers, arguments, self._listener_domain_of, evaluation)

    def _listener_domain_of(self, result: object) -> ListenerDomain | None:
        if result is None:
            return None
        return self._made(events.LISTENER_DOMAIN, result, ListenerDomain, "kumo.make_listener_domain")

    def destination(self, queue_name: str) -> Later:
        """Where mail of a queue goes: a Destination; None where the policy does not say."""
        return self._configurations.destination(queue_name)

    def _ask_queue(self, names: Names) -> Later:
        def finish(result: object) -> QueueConfig | None:
            if result is None:
                return None
            return self._made(events.QUEUE_CONFIG, result, QueueConfig, "kumo.make_queue_config")

        arguments = tuple(None if name is None else outward(name) for name in names)
        return self._ask(events.QUEUE_CONFIG, arguments, finish)

    def _ask_path(self, names: Names) -> Later:
        def finish(result: object) -> EgressPath:
            if result is None:
                return EgressPath()
            return self._made(events.EGRESS_PATH, result, EgressPath, "kumo.make_egress_path")

        return self._ask(events.EGRESS_PATH, tuple(outward(str(name)) for name in names), finish)

    def log_filter(self, event: str, message: Message) -> Later:
        """Whether a logger's filter_event lets a message's record through."""
        handle = MessageHandle(message)
        return self._ask(event, (handle,), bool, handle=handle)

    # --- asking -------------------------------------------------------------------------------------------

    def _ask(
        self,
        event: str,
        arguments: tuple[object, ...],
        finish: Callable[[Any], Any] | None = None,
        handle: MessageHandle | None = None,
    ) -> Later:
        handlers = self._handlers.of(event)
        if not handlers:
            return _NOTHING if finish is None else answered(finish(None))
        return self._called(event, handlers, arguments, finish, None, handle)

    def _called(
        self,
        event: str,
        handlers: Sequence[Handler],
        arguments: tuple[object, ...],
        finish: Callable[[Any], Any] | None,
        evaluation: Evaluation | None,
        handle: MessageHandle | None = None,
        takes_all: bool = False,
    ) -> Run:
        """Every call of handlers comes by here. The parameters are Run's."""
        run = Run(self._handlers.runs, event, finish, evaluation, handle)
        run.takes_all = takes_all
        run.begin(handlers, arguments)
        return run

    def _made(self, event: str, result: object, kind: type[T], maker: str) -> T:
        value = result.value if isinstance(result, Made) else None
        if not isinstance(value, kind):
            raise self._bad_result(event, result, f"nil or the result of {maker}")
        return value

    def _bad_result(self, event: str, result: object, expected: str) -> PolicyError:
        found = f"the result of kumo.{result.maker}" if isinstance(result, Made) else f"a {kind_of(result)}"
        return self._handlers.runs.failed(event, f"the handler returned {found}, expected {expected}")


def keyword_line(value: object) -> str:
    """One line of the reply to EHLO (RFC 5321 §4.1.1.1)."""
    if not isinstance(value, str) or not value.isprintable():
        raise mismatch("a keyword with its parameters", value)
    return value


def _identity(info: dict[Any, Any]) -> Identity | None:
    """KumoMTA's AuthInfo: the first identity authenticates; those with a context say for what they are."""
    given, groups = sequences(info.get("identities")), sequences(info.get("groups", {})) or []
    if not isinstance(given, list) or not isinstance(groups, list):
        return None
    if not all(isinstance(one, dict) and isinstance(one.get("identity"), str) for one in given):
        return None
    if not all(isinstance(group, str) for group in groups):
        return None
    identities = [{"identity": one["identity"], "context": one.get("context") or "GenericAuth"} for one in given]
    names = {one["context"]: one["identity"] for one in reversed(identities)}
    authn = names.get(AUTHENTICATION, identities[0]["identity"])
    return Identity(authn, names.get(AUTHORIZATION, authn), tuple(identities), tuple(groups))
