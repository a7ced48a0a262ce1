"""A witness: tells those who look on what happens in one session. Sessions that nobody looks at have none.

Told are commands as observers of the session see them, without any AUTH data; what the client proved itself with is
taken out of every other text. Nothing that fails here fails the session.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec

from gateway import _fastpath as fp
from gateway.config import Destination, ListenerDomain
from gateway.decision import Decision, Ground
from gateway.handover import HandOver
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.commands import MailCommand, RcptCommand, address_in
from gateway.smtp.events import Event, MessageReceived
from gateway.smtp.replies import Reply
from gateway.smtp.session import NO_COMMAND
from gateway.smtp.states import END_OF_DATA
from gateway.tracing import words
from gateway.tracing.onlooker import Onlooker, View
from gateway.tracing.words import HIDDEN

if TYPE_CHECKING:
    from gateway.tracing.tracer import Tracer

log = logging.getLogger(__name__)

_WEIGHT = 500  # octets that something that happened takes, about, while it is held back
_EACH = 100  # the same for a recipient
MOST_SECRETS = 32
_ENDS = {fp.RSET, fp.EHLO, fp.HELO, fp.QUIT}  # commands that leave a transaction behind

P = ParamSpec("P")


class Session(NamedTuple):
    """What all events of a session say. peer: packed address. began: seconds on the tracer's clock."""

    id: str
    peer: bytes
    received_from: str
    received_via: str
    began: float


def _harmless(tell: Callable[Concatenate[Witness, P], None]) -> Callable[Concatenate[Witness, P], None]:
    def told(self: Witness, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            tell(self, *args, **kwargs)
        except Exception:
            log.exception("a session cannot be told of any more")
            self.forget()

    return told


class _Envelope:
    """What is known of the transaction under way, for who wants one event for it."""

    def __init__(self) -> None:
        self.sender: str | None = None
        self.recipients: list[str] = []  # the first ones
        self.more = 0
        self.members: list[str] = []
        self.octets: int | None = None
        self.refusal: Reply | None = None


class Witness:
    """One session's. Every method tells one thing; which, its name says."""

    def __init__(self, tracer: Tracer, session: Session) -> None:
        self.session = session
        self.tracer = tracer
        self._views: list[View] = []
        self._unsaid: tuple[Any, ...] | None = None  # what to say first
        self._envelope = _Envelope()
        self._is_told = False  # the command that is being answered
        self._begins = False  # it would begin a transaction
        self._continues = False  # the next line of the client's belongs to AUTH
        self._summed_up = False  # some transaction was
        self._is_over = False
        self._secrets: deque[str] = deque(maxlen=MOST_SECRETS)

    # -- who looks on -------------------------------------------------------------------------------------------------

    def shown_to(self, onlookers: Collection[Onlooker]) -> bool:
        """These look on now; returns whether any of them wants this session."""
        for view in self._views:
            if view.onlooker not in onlookers:
                view.end()
        self._views = [view for view in self._views if view.onlooker in onlookers]
        known = {view.onlooker for view in self._views}
        self._views += [View(each) for each in onlookers if each not in known]
        return bool(self._views)

    def forget(self) -> None:
        """Nobody looks on any more."""
        for view in self._views:
            view.end()
        self._views = []

    # -- the session --------------------------------------------------------------------------------------------------

    @_harmless
    def connected(self) -> None:
        self._tell("connected", words.connected, self.session.received_via)

    @_harmless
    def joined(self, known: Mapping[str, Any], sender: EnvelopeAddress | None, to: list[EnvelopeAddress]) -> None:
        """The session was under way when somebody began to look on. known: of its connection. It is told before the
        next thing that happens, if there is any.
        """
        self._unsaid = self.session.received_via, dict(known), sender, list(to)
        if sender is not None:
            self._begin(sender.email)
            for recipient in to:
                self._add(recipient)

    @_harmless
    def command(self, verb: int, argument: bytes, event: Event | None = None) -> None:
        """verb, argument: as an observer of the session gets them. event: what the session makes of it."""
        self._is_told = True
        if verb == END_OF_DATA:
            octets = event.content.size if isinstance(event, MessageReceived) else None
            self._envelope.octets = octets
            self._tell("content", words.content, octets)
            return
        self._begins = verb == fp.MAIL and self._envelope.sender is None
        if self._begins:
            sender = event.sender if isinstance(event, MailCommand) else address_in(argument)
            self._begin("" if sender is None else sender.email)
        elif verb == fp.RCPT:
            recipient = event.recipient if isinstance(event, RcptCommand) else address_in(argument)
            if recipient is not None:
                self._add(recipient)
        if verb == fp.AUTH and self._continues:
            self._tell("command", words.continuation)
        else:
            self._tell("command", words.command, verb, argument, weight=len(argument))

    @_harmless
    def replied(self, verb: int, reply: Reply, argument: bytes) -> None:
        """verb, argument: as an observer of the session gets them."""
        if not self._is_told and verb != NO_COMMAND:
            self.command(verb, argument)
        self._is_told = False
        self._continues = reply.code == 334
        if reply.code >= 400:
            self._envelope.refusal = reply
            for view in self._views:
                view.saw_refusal()
        self._tell("reply", words.reply_of, reply, weight=len(reply.text))
        if verb == END_OF_DATA or (verb == fp.MAIL and self._begins and reply.code >= 400):
            self._sum_up(reply)
        elif verb in _ENDS and reply.code < 400:
            self._sum_up(None)
        if self._is_over:
            self.forget()

    @_harmless
    def tls(self, version: str, cipher: str) -> None:
        self._tell("tls", words.tls, version, cipher)

    @_harmless
    def tls_failed(self, cause: str, text: str) -> None:
        self._tell("tls_failed", words.tls_failed, cause, text, weight=len(text))

    def conceal(self, *secrets: str) -> None:
        """What a client proves itself with."""
        for secret in filter(None, secrets):
            octets = secret.encode("utf-8", "surrogateescape")
            self._secrets.extend((secret, b64encode(octets).decode()))

    @_harmless
    def closed(self, under_way: bool) -> None:
        """under_way: a transaction of it still is."""
        self._is_over = True
        if not under_way and (self._envelope.sender is not None or not self._summed_up):
            self._sum_up(None, anyway=True)
        self._tell("closed", dict)
        if not under_way:
            self.forget()

    # -- policy and decision ------------------------------------------------------------------------------------------

    @_harmless
    def policy(
        self, about: Mapping[str, Any], result: object, error: Exception | None, took: float, secret: frozenset[str]
    ) -> None:
        """Handlers were asked. about: the event's name, the last handler's FILE:LINE and, for a decision, the domain
        and what was read of conn_meta. took: seconds. secret: names of what is not to be told of what was read.
        """
        self._tell("policy", words.policy, about, result, error, took, secret)

    @_harmless
    def decided(
        self,
        decision: Decision | None,
        ground: Ground,
        recipient: EnvelopeAddress,
        to_recipient: ListenerDomain | None,
        sender: EnvelopeAddress | None,
        to_sender: ListenerDomain | None,
        cached: bool,
        handler: str | None,
    ) -> None:
        """The decision at RCPT; see words.because. handler: FILE:LINE of the one that says what is granted."""
        known = ground, recipient, to_recipient, sender, to_sender
        self._tell("decision", words.decision, decision, *known, cached, handler)

    # -- the message --------------------------------------------------------------------------------------------------

    @_harmless
    def message(
        self, message_id: str, recipients: list[EnvelopeAddress], queue: str, report: str | None, goes_on: bool
    ) -> None:
        """The policy has seen it, and it is known who gets it. report: what kind of report is logged of it."""
        to = list(recipients)
        self._tell("message", words.message, message_id, to, queue, report, goes_on, weight=_EACH * len(to))

    @_harmless
    def handing_over(self, message_id: str, to: list[EnvelopeAddress], queue: str, destination: Destination) -> None:
        self._tell("handing_over", words.handing_over, message_id, to, queue, destination, weight=_EACH * len(to))

    @_harmless
    def handed_over(self, message_id: str, result: HandOver) -> None:
        if result.peer_name:
            self._envelope.members.append(result.peer_name)
        weight = _EACH * len(result.outcomes)
        self._tell("handed_over", words.handed_over, message_id, result, weight=weight)

    # -- telling ------------------------------------------------------------------------------------------------------

    def _begin(self, sender: str) -> None:
        self._envelope = _Envelope()
        self._envelope.sender = sender
        for view in self._views:
            view.begin()

    def _add(self, recipient: EnvelopeAddress) -> None:
        envelope = self._envelope
        if len(envelope.recipients) < words.MOST_NAMED:
            envelope.recipients.append(recipient.email)
        else:
            envelope.more += 1
        for view in self._views:
            view.saw_recipient(recipient.domain)

    def _sum_up(self, reply: Reply | None, *, anyway: bool = False) -> None:
        """The transaction is over. reply: to its content. anyway: though there was none."""
        envelope, self._envelope = self._envelope, _Envelope()
        if envelope.sender is None and not anyway:
            self._envelope.refusal = envelope.refusal  # of a command before
            return
        self._summed_up = True
        views = [view for view in self._views if view.terse and view.shown]
        if not views:
            return
        told: dict[str, Any] = {}
        if envelope.sender is not None:
            more = [f"and {envelope.more} more"] if envelope.more else []
            told = {"sender": envelope.sender, "recipients": envelope.recipients + more}
        answer = reply or envelope.refusal
        if envelope.octets is not None:
            told["octets"] = envelope.octets
        if envelope.members:
            told["members"] = words.some(envelope.members)
        told |= {} if answer is None else words.reply_of(answer)
        kind = "transaction" if envelope.sender is not None else "session"
        line = self.line(kind, told, self.tracer.now_ns(), self.tracer.clock())
        for view in views:
            view.onlooker.take(line)

    def _tell(self, kind: str, put: Callable[..., dict[str, Any]], *known: Any, weight: int = 0) -> None:
        """put: makes of what is known what is told, once somebody wants to hear it."""
        if self._unsaid is not None:
            unsaid, self._unsaid = self._unsaid, None
            self._tell("joined", words.joined, *unsaid, weight=_EACH * len(unsaid[-1]))
        happening: _Happening | None = None
        for view in self._views:
            if not view.terse:
                if happening is None:
                    happening = _Happening(self, kind, put, known, weight)
                view.take(happening)

    def line(self, kind: str, told: dict[str, Any], now_ns: int, now: float) -> bytes:
        """What is told, as a line."""
        if self._secrets:
            told = {key: self._concealed(value) for key, value in told.items()}
        session = self.session
        event = {
            "event": kind,
            "time": words.time_of(now_ns),
            "worker": self.tracer.worker,
            "session": session.id,
            "since": round(now - session.began, 6),
            "peer": session.received_from,
        }
        event.update(told)
        return words.line_of(event)

    def _concealed(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, HIDDEN)
            return value
        if isinstance(value, dict):
            return {self._concealed(key): self._concealed(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._concealed(each) for each in value]
        return value


class _Happening:
    """Something that happened, put into words only for those who want to hear it."""

    __slots__ = ("_kind", "_known", "_line", "_now", "_now_ns", "_put", "_witness", "weight")

    def __init__(
        self, witness: Witness, kind: str, put: Callable[..., dict[str, Any]], known: tuple[Any, ...], weight: int
    ) -> None:
        self.weight = _WEIGHT + weight
        self._witness, self._kind, self._put, self._known = witness, kind, put, known
        self._now_ns, self._now = witness.tracer.now_ns(), witness.tracer.clock()
        self._line: bytes | None = None

    def line(self) -> bytes:
        if self._line is None:
            self._line = self._witness.line(self._kind, self._put(*self._known), self._now_ns, self._now)
        return self._line
