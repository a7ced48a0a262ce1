"""The delivery contract, line by line (docs/relaying.md, "The delivery contract")."""

from __future__ import annotations

import pytest

from gateway.delivery.verdict import Evidence, Next, as_reply, verdict
from gateway.handover import RecipientOutcome, Response, Status
from gateway.smtp import replies
from gateway.smtp.address import parse_address
from gateway.smtp.replies import Reason, Reply

ANSWERS = {
    "taken": (Status.DELIVERED, Response(250, "2.0.0", "queued"), None),
    "refused": (Status.PERMANENT, Response(550, "5.1.1", "nobody there"), Reason.UPSTREAM_REFUSED),
    "refused too": (Status.PERMANENT, Response(554, "5.6.0", "not such content"), Reason.UPSTREAM_REFUSED),
    "deferred": (Status.TRANSIENT, Response(451, "4.2.0", "later"), Reason.UPSTREAM_DEFERRED),
    "deferred too": (Status.TRANSIENT, Response(452, "4.2.2", "full"), Reason.UPSTREAM_DEFERRED),
    "spooled": (Status.SPOOLED, Response(451, "4.4.1", "not reached"), Reason.UPSTREAM_UNREACHABLE),
    "unknown": (Status.UNKNOWN, Response(451, "4.4.2", "vanished"), Reason.OUTCOME_UNKNOWN),
    "unknown too": (Status.UNKNOWN, Response(451, "4.4.0", "vanished, too"), Reason.OUTCOME_UNKNOWN),
}


def outcomes(names: str) -> list[RecipientOutcome]:
    """One recipient for each name, the names with commas between them."""
    return [
        RecipientOutcome(parse_address(f"r{number}@in.example"), *ANSWERS[name])
        for number, name in enumerate(filter(None, names.split(", ")))
    ]


def evidence(*what: str) -> Evidence | None:
    """("none",) for no record anywhere; () before there are records."""
    if not what:
        return None
    on_disk = True if "on disk" in what else False if "not on disk" in what else None
    return Evidence(reports="reports" in what, bounces="bounces" in what, told="told" in what, on_disk=on_disk)


NONE = ("none",)
INTERNAL, STORAGE = replies.INTERNAL.code, replies.STORAGE.code

# (line of the contract, outcomes, discarded, reported, evidence, what is next, the refusal's code and text)
CONTRACT: list[tuple[str, str, int, int, tuple[str, ...], Next, str | None]] = [
    # 1. handed over
    ("all handed over", "taken", 0, 0, (), Next.ACCEPT, None),
    ("all handed over, several", "taken, taken, taken", 0, 0, (), Next.ACCEPT, None),
    # 2. reported: the record is on disk first
    ("reported: the record comes first", "", 0, 1, (), Next.RECORD, None),
    ("reported: then it is synced", "", 0, 1, ("reports",), Next.SYNC, None),
    ("reported: then the 250 is true", "", 0, 1, ("reports", "on disk"), Next.ACCEPT, None),
    ("reported: the sync failed", "", 0, 1, ("reports", "not on disk"), Next.REFUSE, "451 4.3.0"),
    ("reported, and no logger takes it", "", 0, 1, NONE, Next.REFUSE, "451 4.3.0"),
    ("reported, and only other records are taken", "", 0, 2, ("bounces", "told"), Next.REFUSE, "451 4.3.0"),
    ("reported for one, handed over for another", "taken", 0, 1, (), Next.RECORD, None),
    ("reported for one, handed over for another: synced", "taken", 0, 1, ("reports",), Next.SYNC, None),
    ("reported for one: lost for another", "deferred", 0, 1, (), Next.REFUSE, "451 4.2.0 later"),
    # 3. spooled: on disk already, or it would not be called so
    ("spooled", "spooled", 0, 0, (), Next.ACCEPT, None),
    ("spooled for one, handed over for another", "taken, spooled", 0, 0, (), Next.ACCEPT, None),
    ("spooled for one, lost for another", "spooled, deferred", 0, 0, (), Next.REFUSE, "451 4.2.0 later"),
    ("spooled for one, unknown for another", "spooled, unknown", 0, 0, (), Next.REFUSE, "451 4.4.2 vanished"),
    ("spooled for one, nobody knows about another", "spooled", 0, 1, NONE, Next.REFUSE, "451 4.3.0"),
    ("refused beside one that is spooled", "refused, spooled", 0, 0, (), Next.RECORD, None),
    ("refused beside one that is spooled: nobody knows", "refused, spooled", 0, 0, NONE, Next.REFUSE, "451 4.3.0"),
    # 4. discarded on purpose
    ("discarded: a record says so", "", 1, 0, (), Next.RECORD, None),
    ("discarded: nothing waits for the disk", "", 1, 0, NONE, Next.ACCEPT, None),
    ("discarded: whatever else is logged", "", 3, 0, ("reports", "bounces"), Next.ACCEPT, None),
    ("discarded for one, handed over for another", "taken", 1, 0, (), Next.RECORD, None),
    ("discarded and handed over, recorded", "taken", 1, 0, NONE, Next.ACCEPT, None),
    ("discarded for one, reported for another", "", 1, 1, ("reports",), Next.SYNC, None),
    # 5. refused for good while another one is served
    ("refused beside one that was taken", "taken, refused", 0, 0, (), Next.RECORD, None),
    ("refused: the Bounce is synced", "taken, refused", 0, 0, ("bounces", "told"), Next.SYNC, None),
    ("refused: and synced where the sender is not told", "refused, taken", 0, 0, ("bounces",), Next.SYNC, None),
    ("refused: the Bounce is on disk", "taken, refused", 0, 0, ("bounces", "on disk"), Next.ACCEPT, None),
    ("refused: the sync failed", "taken, refused", 0, 0, ("bounces", "told", "not on disk"), Next.REFUSE, "451 4.3.0"),
    ("refused: no logger, the sender knows", "taken, refused", 0, 0, ("told",), Next.ACCEPT, None),
    ("refused: no logger, nobody knows", "taken, refused", 0, 0, NONE, Next.REFUSE, "451 4.3.0"),
    ("refused: other records do not count", "taken, refused", 0, 0, ("reports",), Next.REFUSE, "451 4.3.0"),
    ("refused beside one that is discarded", "refused", 1, 0, (), Next.RECORD, None),
    ("refused beside one that is reported", "refused", 0, 1, (), Next.RECORD, None),
    ("refused and reported: both records", "refused", 0, 1, ("reports", "bounces"), Next.SYNC, None),
    ("refused and reported: told, and the report synced", "refused", 0, 1, ("reports", "told"), Next.SYNC, None),
    ("refused and reported: the report is missing", "refused", 0, 1, ("bounces",), Next.REFUSE, "451 4.3.0"),
    ("refused and reported: the bounce is missing", "refused", 0, 1, ("reports",), Next.REFUSE, "451 4.3.0"),
    # otherwise 4xx or 5xx: the first verdict of the fleet …
    ("all refused", "refused", 0, 0, (), Next.REFUSE, "550 5.1.1 nobody there"),
    ("all refused: the first answer", "refused too, refused", 0, 0, (), Next.REFUSE, "554 5.6.0 not such content"),
    ("deferred", "deferred", 0, 0, (), Next.REFUSE, "451 4.2.0 later"),
    ("deferred: the first answer", "deferred too, deferred", 0, 0, (), Next.REFUSE, "452 4.2.2 full"),
    ("deferred after others were taken", "taken, deferred", 0, 0, (), Next.REFUSE, "451 4.2.0 later"),
    ("deferred after others were refused", "refused, deferred", 0, 0, (), Next.REFUSE, "451 4.2.0 later"),
    ("deferred before others were taken", "deferred, taken, refused", 0, 0, (), Next.REFUSE, "451 4.2.0 later"),
    ("deferred, others discarded or reported", "deferred", 1, 1, (), Next.REFUSE, "451 4.2.0 later"),
    ("deferred, and the rest not tried", "taken, deferred", -1, 0, (), Next.REFUSE, "451 4.2.0 later"),
    # … but an unknown outcome is said before any other
    ("unknown", "unknown", 0, 0, (), Next.REFUSE, "451 4.4.2 vanished"),
    ("unknown before deferred", "unknown, deferred", 0, 0, (), Next.REFUSE, "451 4.4.2 vanished"),
    ("unknown after deferred", "deferred, unknown", 0, 0, (), Next.REFUSE, "451 4.4.2 vanished"),
    ("unknown: the first one", "unknown too, unknown", 0, 0, (), Next.REFUSE, "451 4.4.0 vanished, too"),
    ("unknown after others", "taken, refused, unknown", 0, 0, (), Next.REFUSE, "451 4.4.2 vanished"),
    ("unknown, and the rest not tried", "unknown", -1, 0, (), Next.REFUSE, "451 4.4.2 vanished"),
]  # fmt: skip


@pytest.mark.parametrize("row", CONTRACT, ids=[row[0] for row in CONTRACT])
def test_a_line_of_the_contract(row):
    _, names, discarded, reported, what, expected, reply = row
    found = outcomes(names)
    promised = len(found) + abs(discarded) + reported  # -1 discarded: somebody of whom nothing is known
    decided = verdict(promised, found, max(discarded, 0), reported, evidence(*what))
    assert decided.next is expected
    if reply is None:
        assert decided.reply is None
    else:
        said = decided.reply
        assert isinstance(said, Reply)
        assert f"{said.code} {said.enhanced} {said.text}".startswith(reply)
        assert said.reason is not None


@pytest.mark.parametrize(
    ("promised", "names", "discarded", "reported"),
    [
        (0, "", 0, 0),  # a message to nobody
        (1, "", 0, 0),
        (2, "taken", 0, 0),  # lost on the way from RCPT to the fleet
        (1, "taken, taken", 0, 0),
        (3, "taken", 1, 0),
        (3, "taken", 0, 1),
        (3, "refused, refused", 0, 0),
        (2, "", 1, 0),
        (2, "", 0, 1),
        (1, "taken", 1, 0),
        (1, "taken", 0, 1),
        (1, "", 1, 1),
        (-1, "", 0, 0),
    ],
)
@pytest.mark.parametrize("what", [(), ("reports", "bounces", "told", "on disk")])
def test_no_250_where_a_recipient_is_unaccounted_for(promised, names, discarded, reported, what):
    decided = verdict(promised, outcomes(names), discarded, reported, evidence(*what))
    assert (decided.next, decided.reply) == (Next.REFUSE, replies.INTERNAL)


def test_a_refusal_for_a_missing_record_is_not_taken_for_a_fault_of_ours():
    decided = verdict(1, [], 0, 1, evidence("none"))
    assert decided.reply is replies.STORAGE
    assert verdict(2, outcomes("taken, refused"), 0, 0, evidence("none")).reply is replies.STORAGE


@pytest.mark.parametrize(
    ("response", "reason", "expected"),
    [
        (Response(550, "5.1.1", "no\nsuch user"), Reason.UPSTREAM_REFUSED, (550, "5.1.1", "no\nsuch user")),
        (Response(550, "", "no"), Reason.UPSTREAM_REFUSED, (550, "5.0.0", "no")),
        (Response(451, "4.4.1", "unreachable"), Reason.UPSTREAM_UNREACHABLE, (451, "4.4.1", "unreachable")),
    ],
)
def test_an_outcome_is_passed_on_in_its_words(response, reason, expected):
    status = Status.PERMANENT if response.code >= 500 else Status.TRANSIENT
    reply = as_reply(RecipientOutcome(parse_address("a@b.example"), status, response, reason))
    assert (reply.code, reply.enhanced, reply.text) == expected
    assert reply.reason is reason


def test_a_refusal_without_a_reason_has_one_all_the_same():
    reply = as_reply(
        RecipientOutcome(parse_address("a@b.example"), Status.PERMANENT, Response(550, "5.0.0", "x"), None)
    )
    assert reply.reason is Reason.UPSTREAM_REFUSED
