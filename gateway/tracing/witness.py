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
from gateway.smtp.commands import address_in
from gateway.smtp.replies import Reply
from gateway.smtp.session import NO_COMMAND
from gateway.smtp.states import END_OF_DATA
from gateway.tracing import words
from gateway.tracing.onlooker import Onlooker, View

if TYPE_CHECKING:
    from gateway.tracing.tracer import Tracer

log = logging.getLogger(__name__)

HIDDEN = "***"  # in the place of a secret
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
        self._tracer = tracer
        self._views: list[View] = []
        self._unsaid: dict[str, Any] | None = None  # what to say first
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
        self._tell("connected", listener=self.session.received_via)

    @_harmless
    def joined(self, known: Mapping[str, Any], sender: EnvelopeAddress | None, to: list[EnvelopeAddress]) -> None:
        """The session was under way when somebody began to look on. known: of its connection. It is told before the
        next thing that happens, if there is any.
        """
        self._unsaid = {"listener": self.session.received_via, "known": dict(known)}
        if sender is not None:
            self._begin(sender.email)
            for recipient in to:
                self._add(recipient)
            self._unsaid |= {"sender": sender.email, "recipients": words.some(each.email for each in to)}

    @_harmless
    def command(self, verb: int, argument: bytes, octets: int | None = None) -> None:
        """verb, argument: as an observer of the session gets them. octets: of a content."""
        self._is_told = True
        if verb == END_OF_DATA:
            self._envelope.octets = octets
            self._tell("content", octets=octets)
            return
        text = f"{fp.VERB_NAMES[verb]} {argument.decode('utf-8', 'replace')}".rstrip()
        self._begins = verb == fp.MAIL and self._envelope.sender is None
        if self._begins:
            sender = address_in(argument)
            self._begin("" if sender is None else sender.email)
        elif verb == fp.RCPT and (recipient := address_in(argument)) is not None:
            self._add(recipient)
        elif verb == fp.AUTH and self._continues:
            text = HIDDEN
        self._tell("command", command=words.short(text))

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
        self._tell("reply", **words.reply_of(reply))
        if verb == END_OF_DATA or (verb == fp.MAIL and self._begins and reply.code >= 400):
            self._sum_up(reply)
        elif verb in _ENDS and reply.code < 400:
            self._sum_up(None)
        if self._is_over:
            self.forget()

    @_harmless
    def tls(self, version: str, cipher: str) -> None:
        self._tell("tls", version=version, cipher=cipher)

    @_harmless
    def tls_failed(self, cause: str, text: str) -> None:
        self._tell("tls_failed", cause=cause, text=text)

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
        self._tell("closed")
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
        told = dict(about)
        if "read" in told:
            told["read"] = {
                key: HIDDEN if key in secret else words.value_of(each) for key, each in told["read"].items()
            }
        if error is None:
            told["result"] = words.value_of(result)
        else:
            told["error"] = words.short(str(error))
            if getattr(error, "place", ""):
                told["rule"] = error.place  # type: ignore[attr-defined]  # of a refusal of the policy's
        self._tell("policy", **told, took=round(took, 6))

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
        told: dict[str, Any] = {
            "recipient": recipient.email,
            "decision": "denied" if decision is None else "relay" if decision.relay else "reports only",
            "because": words.because(ground, recipient, to_recipient, sender, to_sender),
            "to_recipient_domain": words.granted(to_recipient),
        }
        if to_sender is not None:
            told["to_sender_domain"] = words.granted(to_sender)
        if handler is not None:
            told["handler"] = handler
        self._tell("decision", **told, cached=cached)

    # -- the message --------------------------------------------------------------------------------------------------

    @_harmless
    def message(
        self, message_id: str, recipients: list[EnvelopeAddress], queue: str, report: str | None, goes_on: bool
    ) -> None:
        """The policy has seen it, and it is known who gets it. report: what kind of report is logged of it."""
        to = words.some(each.email for each in recipients)
        told = {"id": message_id, "recipients": to, "queue": queue, "goes_on": goes_on}
        self._tell("message", **told, **({} if report is None else {"report": report}))

    @_harmless
    def handing_over(self, message_id: str, to: list[EnvelopeAddress], queue: str, destination: Destination) -> None:
        recipients = words.some(each.email for each in to)
        told = words.destination_of(destination)
        self._tell("handing_over", id=message_id, queue=queue, recipients=recipients, **told)

    @_harmless
    def handed_over(self, message_id: str, result: HandOver) -> None:
        if result.peer_name:
            self._envelope.members.append(result.peer_name)
        self._tell("handed_over", id=message_id, **words.hand_over_of(result))

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
        line = self._line("transaction" if envelope.sender is not None else "session", told)
        for view in views:
            view.onlooker.take(line)

    def _tell(self, kind: str, /, **told: Any) -> None:
        if self._unsaid is not None:
            unsaid, self._unsaid = self._unsaid, None
            self._tell("joined", **unsaid)
        views = [view for view in self._views if not view.terse]
        if views:
            line = self._line(kind, told)
            for view in views:
                view.take(line)

    def _line(self, kind: str, told: dict[str, Any]) -> bytes:
        if self._secrets:
            told = {key: self._concealed(value) for key, value in told.items()}
        session, tracer = self.session, self._tracer
        first = {
            "event": kind,
            "time": words.time_of(tracer.now_ns()),
            "worker": tracer.worker,
            "session": session.id,
            "since": round(tracer.clock() - session.began, 6),
            "peer": session.received_from,
        }
        return words.line_of(first | told)

    def _concealed(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, HIDDEN)
            return value
        if isinstance(value, dict):
            return {self._concealed(key): self._concealed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._concealed(each) for each in value]
        return value
