"""Questions of records, decided by one policy. Those that differ only in what nobody looks at are decided once.

Who looks at what is known from the decisions made: what handlers read of `conn_meta`, and about which domains they were
asked. A listener looks at the peer itself: its terms and relay_hosts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, NamedTuple

from gateway.config import Destination, Listener, ListenerDomain
from gateway.later import begun
from gateway.policy import events
from gateway.smtp.address import AddressError, parse_address
from gateway.tracing.words import destination_of
from gateway.why.conversation import Account, Desk, Question
from gateway.why.differ import local_end
from gateway.why.explain import outcome_of
from gateway.why.messages import MESSAGES
from gateway.why.recorded import RecordedQuestion
from gateway.why.rules import Rule, Rules

CLIENT_PORT = 40_000

# With a handler for one of these the local part of an address may matter.
_OF_ADDRESSES = frozenset(
    {events.MAIL_FROM, events.RCPT_TO, events.MESSAGE_RECEIVED, events.DATA, events.SPLIT_TRANSACTION}
)
# Handlers that see the client without reading conn_meta: in a message, or in the text of a reply.
_SEE_ALL = frozenset({events.MESSAGE_RECEIVED, events.DATA, events.SPLIT_TRANSACTION, events.REWRITE_RESPONSE})
_ANY = "*"  # in a key: nobody looks at it


class Decided(NamedTuple):
    """What a policy makes of a question, as far as it can be compared. The peer is left out of the text."""

    outcome: str
    code: int
    enhanced: str
    text: str  # "" for what is accepted: it has ids
    reason: str | None
    where: str  # the fleet or Maildir, "" for none


Ruling = tuple[Decided, Rule | None]


class Deciding:
    """Decides by one policy. addresses_matter: more than the domains of addresses may. made: decisions so far."""

    def __init__(self, desk: Desk) -> None:
        self.made = 0
        policy = desk.policy
        self.addresses_matter = not policy.handles.isdisjoint(_OF_ADDRESSES)
        self._desk = desk
        self._rules = Rules(policy)
        self._known: dict[tuple[Any, ...], Ruling] = {}
        self._read: set[str] = set()  # keys of conn_meta that any handler has read
        filters = any(logger.filter_event is not None for logger in policy.config.local_logs)
        self._all_is_seen = filters or not policy.handles.isdisjoint(_SEE_ALL)
        self._asks_about_ehlo = events.EHLO in policy.handles

    def decide(self, asked: RecordedQuestion) -> Ruling:
        """What the policy makes of it, and the rule; of a question that was decided with another one, that one's."""
        question = question_of(asked, self._desk.policy.config.listeners)
        base, peer, sender, ehlo = self._parts(question, asked)
        for key in product((base,), (peer, _ANY), (sender, _ANY), (ehlo, _ANY)):
            known = self._known.get(key)
            if known is not None:
                return known
        answer = begun(self._desk.ask(question))
        account: Account = self._desk.policy.finish(answer)
        self.made += 1
        decision = _decided(account), self._rules.of_session(account)
        for noted in account.notes.asked:
            if noted.evaluation is not None:
                self._read.update(noted.evaluation.reads)
        peer = peer if "received_from" in self._read or self._all_is_seen or any(_relay_from(account)) else _ANY
        sender = sender if self._looks_at_sender(account) else _ANY
        ehlo = ehlo if "ehlo_domain" in self._read or self._all_is_seen or self._asks_about_ehlo else _ANY
        self._known[base, peer, sender, ehlo] = decision
        return decision

    def _parts(self, question: Question, asked: RecordedQuestion) -> tuple[tuple[Any, ...], str, str, str]:
        """What always matters, the peer, the sender, and the client's name."""
        named = asked if self.addresses_matter else by_domains(asked)
        terms, relay_host = self._desk.standing(question)
        base = question.listener, id(terms), relay_host, asked.auth, asked.tls, asked.content, named.recipient
        return base, asked.peer, named.sender, asked.ehlo

    def _looks_at_sender(self, account: Account) -> bool:
        if self.addresses_matter:
            return True
        domain = domain_of(account.question.sender)
        return any(asked.arguments[0] == domain for asked in account.notes.granted)


def _relay_from(account: Account) -> Iterator[bool]:
    """Whether some domain that was asked about names peers."""
    for asked in account.notes.granted:
        granted = None if asked.answer.failed else asked.answer.result()
        yield isinstance(granted, ListenerDomain) and bool(granted.relay_from)


def _decided(account: Account) -> Decided:
    reply, question = account.decisive.reply, account.question
    text = "" if reply.code < 400 else re.sub(r":\d+$", "", reply.text).replace(question.peer[0], "PEER")
    where = "; ".join(_where(destination) for _, destination in account.taken)
    reason = None if reply.reason is None else str(reply.reason)
    outcome = "accepted so far" if not question.recipients and reply.code < 400 else outcome_of(account)
    return Decided(outcome, reply.code, reply.enhanced, text, reason, where)


def by_domains(asked: RecordedQuestion) -> RecordedQuestion:
    """The same with the domains in the place of addresses, whatever was answered."""
    recipient = None if asked.recipient is None else domain_of(asked.recipient)
    return asked._replace(sender=domain_of(asked.sender), recipient=recipient, refused=None)


def domain_of(address: str | None) -> str:
    """Its domain; "" for none, and the text itself where it is no address."""
    try:
        return parse_address(address or "").domain
    except AddressError:
        return str(address)


def _where(destination: Destination) -> str:
    return " ".join(f"{kind} {_spelled(value)}" for kind, value in destination_of(destination).items())


def _spelled(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def question_of(asked: RecordedQuestion, listeners: Iterable[Listener]) -> Question:
    """What is asked of a policy with these listeners."""
    number, local = _listener(asked.received_via, list(listeners))
    return Question(
        sender=asked.sender,
        recipients=() if asked.recipient is None else (asked.recipient,),
        peer=(asked.peer, CLIENT_PORT),
        listener=number,
        local=local,
        auth=asked.auth,
        tls=asked.tls,
        ehlo=asked.ehlo,
        message=MESSAGES[asked.content],
        message_name=asked.content,
    )


def _listener(received_via: str | None, listeners: list[Listener]) -> tuple[int, tuple[str, int]]:
    """The listener that a connection came to: the very one, else one of the same port, else the first."""
    host, _, port = (received_via or "").rpartition(":")
    for ends in (received_via or "", f":{port}"):
        for number, listener in enumerate(listeners):
            if port and listener.listen.endswith(ends):
                return number, local_end(listener, host.strip("[]"))
    return 0, local_end(listeners[0])
