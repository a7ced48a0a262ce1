"""What another policy would change of what clients asked: each distinct question is decided by both, once.

Reading records is recorded.py's business, deciding the gateway's own code's (conversation.py), printing the command's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.config import Destination, Listener
from gateway.later import begun
from gateway.policy import events
from gateway.policy.problems import PolicyProblems, Problem
from gateway.smtp.address import AddressError, parse_address
from gateway.tracing.words import destination_of
from gateway.why.conversation import Account, Desk, Question
from gateway.why.differ import local_end
from gateway.why.explain import outcome_of
from gateway.why.messages import MESSAGES
from gateway.why.recorded import RecordedQuestion
from gateway.why.rules import Rule, Rules

MOST_LISTED = 10  # domains and peers of one change
MOST_EXAMPLES = 3
CLIENT_PORT = 40_000

# With a handler for one of these the local part of an address may matter.
_OF_ADDRESSES = frozenset(
    {events.MAIL_FROM, events.RCPT_TO, events.MESSAGE_RECEIVED, events.DATA, events.SPLIT_TRANSACTION}
)


class Decided(NamedTuple):
    """What a policy makes of a question, as far as it can be compared."""

    outcome: str
    code: int
    enhanced: str
    text: str  # "" for what is accepted: it has ids
    reason: str | None
    where: str  # the fleet or Maildir, "" for none


@dataclass(slots=True)
class PolicyChange:
    """Questions that both policies answer alike, one so, the other so. rules: of old and new, of the first of them."""

    old: Decided
    new: Decided
    rules: tuple[Rule | None, Rule | None]
    recipients: int = 0
    questions: int = 0
    domains: Counter[str] = field(default_factory=Counter)
    peers: Counter[str] = field(default_factory=Counter)
    examples: list[RecordedQuestion] = field(default_factory=list)

    def add(self, asked: RecordedQuestion, times: int) -> None:
        """One more question, asked so many times."""
        self.recipients += times
        self.questions += 1
        self.domains[domain_of(asked.recipient)] += times
        self.peers[asked.peer] += times
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(asked)


class Comparison:
    """Two policies and what was asked.

    add: a question of a record. decide: asks both. changes: what differs. unlike: how many recipients the old policy
    decides otherwise than was recorded, which shows what records lack. unknown_listener: of how many it is not
    recorded where they came in, though there are several listeners.
    """

    def __init__(self, old: Desk, new: Desk) -> None:
        self.changes: list[PolicyChange] = []
        self.unlike = 0
        self.unknown_listener = 0
        self._desks = old, new
        self._questions: dict[tuple[Any, ...], tuple[RecordedQuestion, list[int]]] = {}
        handles = old.policy.handles | new.policy.handles
        self._addresses_matter = not handles.isdisjoint(_OF_ADDRESSES)
        self._several = any(len(desk.policy.config.listeners) > 1 for desk in self._desks)

    def require_listeners(self) -> None:
        """Raises PolicyProblems where a policy has nobody to ask."""
        for desk in self._desks:
            if not desk.policy.config.listeners:
                raise PolicyProblems([Problem(desk.policy.source.path, 0, "the policy has no SMTP listener")])

    @property
    def questions(self) -> int:
        """How many distinct ones there are."""
        return len(self._questions)

    @property
    def recipients(self) -> int:
        """How many recipients were read."""
        return sum(sum(times) for _, times in self._questions.values())

    def add(self, asked: RecordedQuestion) -> None:
        """A question of a record."""
        key = asked._replace(refused=None) if self._addresses_matter else _by_domains(asked)
        found = self._questions.get(key)
        if found is None:
            found = self._questions[key] = asked, [0, 0]
        found[1][asked.refused is not None] += 1
        if asked.received_via is None and self._several:
            self.unknown_listener += 1

    def decide(self, progress: Callable[[int], None]) -> None:
        """Asks both policies. progress: told how many questions are decided."""
        changes: dict[tuple[Any, ...], PolicyChange] = {}
        for number, (asked, (taken, refused)) in enumerate(self._questions.values()):
            progress(number)
            (old, old_rule), (new, new_rule) = (_decision(desk, asked) for desk in self._desks)
            self.unlike += taken if old.code >= 400 else refused
            if old != new:
                key = old, new, _place(old_rule), _place(new_rule)
                change = changes.get(key)
                if change is None:
                    change = changes[key] = PolicyChange(old, new, (old_rule, new_rule))
                change.add(asked, taken + refused)
        self.changes = sorted(changes.values(), key=lambda change: -change.recipients)


def _by_domains(asked: RecordedQuestion) -> tuple[Any, ...]:
    recipient = None if asked.recipient is None else domain_of(asked.recipient)
    return asked._replace(sender=domain_of(asked.sender), recipient=recipient, refused=None)


def domain_of(address: str | None) -> str:
    """Its domain; "" for none, and the text itself where it is no address."""
    try:
        return parse_address(address or "").domain
    except AddressError:
        return str(address)


def _decision(desk: Desk, asked: RecordedQuestion) -> tuple[Decided, Rule | None]:
    question = question_of(asked, desk.policy.config.listeners)
    answer = begun(desk.ask(question))
    account: Account = desk.policy.finish(answer)
    reply = account.decisive.reply
    text = "" if reply.code < 400 else re.sub(r":\d+$", "", reply.text)
    where = "; ".join(_where(destination) for _, destination in account.taken)
    reason = None if reply.reason is None else str(reply.reason)
    outcome = "accepted so far" if not question.recipients and reply.code < 400 else outcome_of(account)
    return Decided(outcome, reply.code, reply.enhanced, text, reason, where), Rules(desk.policy).of_session(account)


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


def _place(rule: Rule | None) -> tuple[object, ...]:
    return () if rule is None else (rule["what"], rule["file"], rule["line"])


def as_json(change: PolicyChange) -> dict[str, Any]:
    """A change for a program. docs/why.md has the keys."""
    old, new = (
        {**_shown(each), "rule": rule} for each, rule in zip((change.old, change.new), change.rules, strict=True)
    )
    return {
        "recipients": change.recipients,
        "questions": change.questions,
        "old": old,
        "new": new,
        "domains": listed("domain", change.domains),
        "peers": listed("peer", change.peers),
        "examples": [_example(asked) for asked in change.examples],
    }


def listed(what: str, counts: Counter[str]) -> list[dict[str, Any]]:
    """The most frequent ones."""
    return [{what: name, "recipients": count} for name, count in counts.most_common(MOST_LISTED)]


def _shown(decided: Decided) -> dict[str, Any]:
    reply = {"code": decided.code, "enhanced": decided.enhanced, "text": decided.text}
    return {"outcome": decided.outcome, "reply": reply, "reason": decided.reason, "where": decided.where}


def _example(asked: RecordedQuestion) -> dict[str, Any]:
    return {
        "from": asked.sender, "to": asked.recipient, "peer": asked.peer, "listener": asked.received_via,
        "auth": asked.auth, "tls": asked.tls, "ehlo": asked.ehlo, "message": asked.content,
    }  # fmt: skip
