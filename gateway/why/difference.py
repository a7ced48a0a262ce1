"""What another policy would change of what clients asked: each distinct question is decided by both, once.

Reading records is recorded.py's business, deciding the gateway's own code's (conversation.py), printing the command's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.policy.problems import PolicyProblems, Problem
from gateway.why.conversation import Desk
from gateway.why.deciding import Decided, Deciding, by_domains, domain_of
from gateway.why.recorded import RecordedQuestion
from gateway.why.rules import Rule

MOST_LISTED = 10  # domains and peers of one change
MOST_EXAMPLES = 3
CLIENT_PORT = 40_000


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
        self._deciding = Deciding(old), Deciding(new)
        self._desks = old, new
        self._questions: dict[tuple[Any, ...], tuple[RecordedQuestion, list[int]]] = {}
        self._addresses_matter = any(deciding.addresses_matter for deciding in self._deciding)
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
        key = asked._replace(refused=None) if self._addresses_matter else by_domains(asked)
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
            (old, old_rule), (new, new_rule) = (deciding.decide(asked) for deciding in self._deciding)
            self.unlike += taken if old.code >= 400 else refused
            if old != new:
                key = old, new, _place(old_rule), _place(new_rule)
                change = changes.get(key)
                if change is None:
                    change = changes[key] = PolicyChange(old, new, (old_rule, new_rule))
                change.add(asked, taken + refused)
        self.changes = sorted(changes.values(), key=lambda change: -change.recipients)


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
