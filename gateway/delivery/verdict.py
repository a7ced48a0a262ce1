"""The delivery contract: the one place that says when the reply to a message's content may be 250.

One pure function over values. Nothing is written, told or counted here, and no record is known: the transaction does
what the verdict says and asks again. docs/relaying.md has the contract as an operator reads it, tests/test_verdict.py
has a row for each of its lines.
"""

from __future__ import annotations

from enum import Enum

from gateway.handover import RecipientOutcome, Status
from gateway.smtp import replies
from gateway.smtp.replies import Reason, Reply

# CPython 3.11 takes its time to find a member in its enum
_DELIVERED, _PERMANENT, _UNKNOWN = Status.DELIVERED, Status.PERMANENT, Status.UNKNOWN
_SPOOLED = Status.SPOOLED


class Next(Enum):
    """What a transaction has to do next."""

    ACCEPT = "accept"  # the 250 is true
    RECORD = "record"  # tell the sender whom the fleet refused, write the records, and ask again with the evidence
    SYNC = "sync"  # have all records on disk, and ask again
    REFUSE = "refuse"  # with the verdict's reply


class Evidence:
    """What stands for the recipients that are with no next hop.

    reports: a logger took the records of every report that goes no further. bounces: a logger took the Bounce records
    of all refused recipients. told: the sender was notified of all of them. on_disk: whether the records are; None
    before that was asked for.
    """

    def __init__(self, reports: bool, bounces: bool, told: bool, on_disk: bool | None = None) -> None:
        self.reports = reports
        self.bounces = bounces
        self.told = told
        self.on_disk = on_disk


class Verdict:
    """next: what to do. reply: the refusal, None with any other."""

    def __init__(self, next: Next, reply: Reply | None = None) -> None:
        self.next = next
        self.reply = reply


ACCEPT, RECORD, SYNC = Verdict(Next.ACCEPT), Verdict(Next.RECORD), Verdict(Next.SYNC)
UNACCOUNTED = Verdict(Next.REFUSE, replies.INTERNAL)  # our own fault: somebody would be lost after a 250
UNRECORDED = Verdict(Next.REFUSE, replies.STORAGE)


def verdict(
    promised: int,
    outcomes: list[RecipientOutcome],
    discarded: int,
    reported: int,
    evidence: Evidence | None = None,
) -> Verdict:
    """What the contract calls for.

    promised: how many recipients were accepted at RCPT or put in by the policy. outcomes: of those that were handed
    over, or would have been; less than all of them where one failed for now. discarded: how many the policy discards on
    purpose. reported: how many are served by a report's record alone. evidence: None until there are records.
    """
    refused = 0
    deferred: RecipientOutcome | None = None
    for outcome in outcomes:
        status = outcome.status
        if status is _DELIVERED or status is _SPOOLED:
            continue
        if status is _PERMANENT:
            refused += 1
        elif status is _UNKNOWN:
            return Verdict(Next.REFUSE, as_reply(outcome))
        elif deferred is None:
            deferred = outcome
    if deferred is not None:
        return Verdict(Next.REFUSE, as_reply(deferred))
    if promised < 1 or len(outcomes) + discarded + reported != promised:
        return UNACCOUNTED
    if refused == promised:
        return Verdict(Next.REFUSE, as_reply(outcomes[0]))
    if refused + discarded + reported == 0:
        return ACCEPT
    return RECORD if evidence is None else _recorded(refused, reported, evidence)


def _recorded(refused: int, reported: int, evidence: Evidence) -> Verdict:
    """A record that is all there is of a recipient has to be on disk before the 250."""
    if reported and not evidence.reports:
        return UNRECORDED
    if refused and not evidence.bounces and not evidence.told:
        return UNRECORDED
    if reported or (refused and evidence.bounces):
        if evidence.on_disk is None:
            return SYNC
        return ACCEPT if evidence.on_disk else UNRECORDED
    return ACCEPT


def as_reply(outcome: RecipientOutcome) -> Reply:
    """What the next hop said, or what was made of its silence, as our own reply."""
    response = outcome.response
    text = f"{response.enhanced} {response.content}" if response.enhanced else response.content
    return replies.make(response.code, text, outcome.reason or Reason.UPSTREAM_REFUSED)
