"""One question as a session: what a client says for it, command by command, and what it was answered.

The client is one that knows SMTP: it says the size, waits for replies, and goes on with the recipients that are taken.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway._fastpath import CounterPage, stuff
from gateway.config import Destination, ListenerParams
from gateway.handover import Batch
from gateway.inbound.allowance import allowance_of
from gateway.inbound.refusals import stage_of
from gateway.later import Waits
from gateway.logs.encoding import Record
from gateway.net.endpoints import Endpoints
from gateway.policy import events
from gateway.policy.engine import Identity
from gateway.policy.listener import TermsTable
from gateway.quotas import Glance
from gateway.smtp.replies import Reply
from gateway.smtp.session import NO_COMMAND
from gateway.smtp.terms import Terms
from gateway.why.client import MemoryClient, MemoryCouriers, MemoryLogs, services_in_memory
from gateway.why.watched import Asked, Notes, WatchedPolicy

PASSWORD = "supposed"  # nobody looks at it
CLIENT = "client.example"  # how one calls itself of whom nothing is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a client would do.

    sender: "" is the null reverse-path. peer: its address and port. listener: which of the policy's, from 0 on. local:
    our end of the connection. auth: who has authenticated, None for nobody. meta: of the connection, besides what it
    always has. message: the content with CRLF. message_name: what people call it.
    """

    sender: str
    recipients: tuple[str, ...]
    peer: tuple[str, int]
    listener: int
    local: tuple[str, int]
    auth: str | None = None
    tls: bool = False
    ehlo: str = CLIENT
    meta: Mapping[str, str] = field(default_factory=dict)
    message: bytes
    message_name: str


class Step(NamedTuple):
    """A command and its reply. command: "" for the greeting, "(message)" for the content. stage: as metrics have it.
    asked: what the policy was asked in between.
    """

    command: str
    stage: str
    reply: Reply
    asked: list[Asked]


class Recipient(NamedTuple):
    """How a RCPT was answered. granted: the questions to get_listener_domain before that."""

    address: str
    step: Step
    granted: list[Asked]

    @property
    def accepted(self) -> bool:
        """It was taken, for now."""
        return self.step.reply.code < 400


@dataclass(slots=True)
class Account:
    """What became of a question. declared: the listener's parameters for this client; params: those that it got, which
    a handler may have computed. steps: the dialogue. kept: the records, and
    where each would have been written.
    """

    question: Question
    endpoints: Endpoints
    declared: ListenerParams
    params: ListenerParams
    steps: list[Step]
    recipients: list[Recipient]
    notes: Notes
    taken: list[tuple[Batch, Destination]]
    kept: list[tuple[Record, list[str]]]

    @property
    def decisive(self) -> Step:
        """The first refusal; the reply to the content where there is none."""
        return next((step for step in self.steps if step.reply.reason is not None), self.steps[-1])

    @property
    def accepted(self) -> bool:
        """Whether the message is taken for everybody."""
        return self.decisive.reply.code < 400


class Desk:
    """Asks a policy questions, one after the other. now_ns: nanoseconds since 1970. monotonic: seconds. quotas: of a
    running gateway, where a question is about its present; nothing of them is used up.
    """

    def __init__(
        self,
        policy: WatchedPolicy,
        page: CounterPage,
        now_ns: Callable[[], int],
        monotonic: Callable[[], float],
        quotas: Glance | None = None,
    ) -> None:
        self.policy = policy
        self.quotas = quotas
        self.monotonic = monotonic
        self._page = page
        self._now_ns = now_ns
        self._tables: dict[tuple[int, str], TermsTable] = {}  # by listener and metadata

    def standing(self, question: Question) -> tuple[Terms, bool]:
        """What the listener makes of the peer by itself: its terms, and whether it is a relay host."""
        endpoints = Endpoints(question.peer, question.local)
        terms = self._table(question).terms_for(endpoints.peer_address, endpoints.local_address)
        return terms, endpoints.peer in terms.relay_hosts

    def ask(self, question: Question) -> Waits:
        """The steps towards what becomes of a question: an Account."""
        policy, couriers = self.policy, MemoryCouriers()
        notes = policy.notes = Notes(None if question.auth is None else Identity(question.auth, question.auth))
        logs = MemoryLogs(policy.config.local_logs, policy.log_filter)
        services = services_in_memory(policy, self._page, couriers, logs, now_ns=self._now_ns)
        endpoints = Endpoints(question.peer, question.local)
        table = self._table(question)
        terms = table.terms_for(endpoints.peer_address, endpoints.local_address)
        session = Account(question, endpoints, terms.params, terms.params, [], [], notes, couriers.taken, logs.kept)
        services.quotas = self.quotas
        allowance = allowance_of(services, terms, endpoints)
        turned_away = None if allowance is None else allowance.connect()
        if turned_away is not None:
            session.steps.append(Step("", stage_of(NO_COMMAND), turned_away, []))
            return session
        client = MemoryClient(services, table, endpoints)
        client.reception.hold_to(allowance)
        yield client.quiet()
        session.params = client.reception.params()
        _take_down(session, client, "")
        yield from _Talk(client, session).steps()
        client.reception.lost()
        return session

    def _table(self, question: Question) -> TermsTable:
        """The terms of a listener, with the question's metadata."""
        key = question.listener, repr(question.meta)
        if key not in self._tables:
            listener = self.policy.config.listeners[question.listener]
            meta = {**listener.overrides.get("meta", {}), **question.meta}
            asked = dataclasses.replace(listener, overrides={**listener.overrides, "meta": meta})
            self._tables[key] = TermsTable(asked, offer_auth=events.AUTH_PLAIN in self.policy.handles)
        return self._tables[key]


def _take_down(session: Account, client: MemoryClient, command: str) -> Reply:
    """The reply that the client has just got; of several, which a 421 may have followed, the first."""
    verb, reply = client.said[len(session.steps)]
    before = sum(len(step.asked) for step in session.steps)
    session.steps.append(Step(command, stage_of(verb), reply, session.notes.asked[before:]))
    return reply


class _Talk:
    """What the client says. Each step ends where the client would give up."""

    def __init__(self, client: MemoryClient, session: Account) -> None:
        self._client = client
        self._session = session
        self._offers: set[str] = set()  # the first words of what EHLO was answered

    def steps(self) -> Waits:
        question = self._session.question
        if self._session.steps[0].reply.code != 220 or not (yield from self._greet()):
            return
        if question.tls or question.auth is not None:
            if (yield from self._say("STARTTLS")).code != 220:
                return
            self._client.secure()
            if not (yield from self._greet()):
                return
        if question.auth is not None:
            plain = base64.b64encode(f"\0{question.auth}\0{PASSWORD}".encode()).decode()
            if (yield from self._say(f"AUTH PLAIN {plain}", shown="AUTH PLAIN ***")).code != 235:
                return
        if (yield from self._say(self._mail())).code < 400:
            yield from self._recipients()

    def _greet(self) -> Waits:
        reply = yield from self._say(f"EHLO {self._session.question.ehlo}")
        self._offers = {line.split(" ")[0] for line in reply.text.split("\n")[1:]}
        return reply.code < 400

    def _mail(self) -> str:
        question = self._session.question
        words = [f"MAIL FROM:<{question.sender}>"]
        if "SIZE" in self._offers:
            words.append(f"SIZE={len(question.message)}")
        if "8BITMIME" in self._offers and not question.message.isascii():
            words.append("BODY=8BITMIME")
        if "SMTPUTF8" in self._offers and not "".join((question.sender, *question.recipients)).isascii():
            words.append("SMTPUTF8")
        return " ".join(words)

    def _recipients(self) -> Waits:
        session, granted = self._session, self._session.notes.granted
        for address in session.question.recipients:
            before = len(granted)
            yield from self._say(f"RCPT TO:<{address}>")
            session.recipients.append(Recipient(address, session.steps[-1], granted[before:]))
            if self._client.reception.session.is_over():
                return
        if not any(recipient.accepted for recipient in session.recipients):
            return
        if (yield from self._say("DATA")).code == 354:
            yield self._client.send(stuff(session.question.message) + b".\r\n")
            _take_down(session, self._client, "(message)")

    def _say(self, command: str, shown: str = "") -> Waits:
        yield self._client.send(command.encode("utf-8", "surrogateescape") + b"\r\n")
        return _take_down(self._session, self._client, shown or command)


def other(question: Question, **changes: object) -> Question:
    """The same question but for some of it."""
    return dataclasses.replace(question, **changes)  # type: ignore[arg-type]
