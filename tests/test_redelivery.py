"""What becomes of a spooled message after an attempt, on a real spool, with a fleet that says what it is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Destination, EgressPath, QueueConfig
from gateway.couriers.spool import schedule
from gateway.couriers.spool import spool as spools
from gateway.couriers.spool.kept import Envelope
from gateway.couriers.spool.store import WAITS_FOR_SITE, WAITS_FOR_TIME, Row, Store
from gateway.delivery import redelivery
from gateway.delivery.redelivery import Redelivery
from gateway.handover import Batch, HandOver, RecipientOutcome, Response, Status
from gateway.later import Later, answered
from gateway.smtp.replies import Reason
from gateway.smtp.requests import DeliverBy, Requests
from tests.test_spool_faults import Kept

ANSWERS = {
    "taken": (Status.DELIVERED, Response(250, "2.0.0", "queued"), None),
    "refused": (Status.PERMANENT, Response(550, "5.1.1", "nobody there"), Reason.UPSTREAM_REFUSED),
    "deferred": (Status.TRANSIENT, Response(451, "4.2.0", "later"), Reason.UPSTREAM_DEFERRED),
    "unreachable": (Status.TRANSIENT, Response(451, "4.4.1", "not reached"), Reason.UPSTREAM_UNREACHABLE),
    "unknown": (Status.UNKNOWN, Response(451, "4.4.2", "vanished"), Reason.OUTCOME_UNKNOWN),
}


class Services:
    """What a redelivery needs of a worker. said: the fleet's answers by recipient, its last one stays; given: batches
    that it got. durable: whether syncs of records succeed, one after the other.
    """

    def __init__(self, kept: Kept) -> None:
        self.policy, self.couriers, self.logs = self, self, self
        self.page, self.contents = kept.page, None
        self.loop = kept.loop
        self.queue = QueueConfig(retry_interval=100.0, max_age=1000.0)
        self.said: dict[str, list[str]] = {}
        self.given: list[Batch] = []
        self.free = 10
        self.site = "site"
        self.records: list[Any] = []
        self.synced: list[bool] = []

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return self.loop.time()

    def destination(self, queue: str) -> Later:
        return answered(Destination(self.queue, EgressPath()))

    def room(self, destination: Destination) -> int:
        return self.free

    def submit(self, *what: Any) -> Any:
        return self._hand_over(what[0]) if isinstance(what[0], Batch) else self.records.append(what[0]) or True

    def durable(self) -> Later:
        return answered(self.synced.pop(0) if self.synced else True)

    def _hand_over(self, batch: Batch) -> Later:
        self.given.append(batch)
        outcomes = []
        for each in batch.recipients:
            said = self.said.get(each.user, ["taken"])
            outcomes.append(RecipientOutcome(each, *ANSWERS[said.pop(0) if len(said) > 1 else said[0]]))
        later = Later()
        self.loop.call_soon(later.settle, HandOver(outcomes, self.site, "ESMTP", 0.1, "mta1"))
        return later


class Spooled:
    """A spool with a message in it."""

    def __init__(self, folder: Path) -> None:
        self.kept = Kept(folder)
        self.services = Services(self.kept)

    def begin(
        self, *recipients: str, sender: str = "a@x.example", asked: Requests | None = None, **answers: list[str]
    ) -> None:
        """Has the message tried."""
        self.services.said = answers
        kept = self.kept
        assert kept.result(kept.keep(recipients, sender, asked)) is None
        services: Any = self.services
        Redelivery(services, kept.spool).start()

    def tried(self, times: int = 1) -> None:
        """Waits until it has been handed over so often, and what came of that is on disk."""
        self.kept.until(lambda: len(self.services.given) >= times and not self.kept.spool.tries._under_way)

    def rows(self) -> list[Row]:
        found: list[Row] = self.kept.result(self.kept.do(lambda store: list(store.rows())))
        return found

    def kinds(self) -> list[str]:
        return [record.type for record in self.services.records]


@pytest.fixture
def spooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spooled]:
    monkeypatch.setattr(redelivery, "WRITE_AGAIN", 0.01)
    monkeypatch.setattr(spools, "SWEEP_INTERVAL", 0.01)
    monkeypatch.setattr(spools, "LOOK_INTERVAL", 0.01)
    made = Spooled(tmp_path)
    yield made
    made.kept.close()


def test_what_was_taken_is_gone(spooled):
    spooled.begin("b")
    spooled.tried()
    assert spooled.rows() == []
    assert spooled.kinds() == ["Delivery"]
    assert len(spooled.kept.spool.schedule) == 0


@pytest.mark.parametrize(
    ("said", "state"),
    [("deferred", WAITS_FOR_TIME), ("unknown", WAITS_FOR_TIME), ("unreachable", WAITS_FOR_SITE)],
)
def test_what_failed_for_now_waits_for_what_it_failed_for(spooled, said, state):
    began = time.time()
    spooled.begin("b", b=[said])
    spooled.tried()
    (row,) = spooled.rows()
    assert (row.state, row.attempts, row.site) == (state, 2, "site")
    assert began + 100 <= row.due < time.time() + 100
    assert spooled.kinds() == ["TransientFailure"]


@pytest.mark.parametrize("said", ["deferred", "unknown"])
def test_a_message_that_was_the_try_of_an_outage_is_put_off_no_longer_than_another(spooled, monkeypatch, said):
    monkeypatch.setattr(schedule, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(schedule, "MOST_PAUSE", 0.001)
    spooled.begin("b", b=[*["unreachable"] * 12, said])
    began = time.time()
    spooled.tried(13)
    (row,) = spooled.rows()
    assert (row.state, row.attempts) == (WAITS_FOR_TIME, 14)
    assert began + 100 <= row.due < time.time() + 100
    assert "Expiration" not in spooled.kinds()


def test_a_fleet_that_others_find_back_is_tried_whatever_pause_there_is(spooled, monkeypatch):
    monkeypatch.setattr(schedule, "FIRST_PAUSE", 1e6)
    services, kept = spooled.services, spooled.kept
    services.site = "s"
    spooled.begin("first", first=["unreachable", "taken"])
    spooled.tried()
    services.free = 0
    kept.spool.schedule.get((1, 1)).arrived += 1e6  # the other one is the first in the queue
    assert kept.result(kept.keep(("second",), "a@x.example")) is None
    services.free = 10
    spooled.tried(3)
    assert [batch.recipients[0].user for batch in services.given] == ["first", "second", "first"]
    assert spooled.rows() == []


def test_only_those_who_were_not_served_are_tried_again_and_the_sender_hears_of_the_refused(spooled):
    spooled.begin("taken", "later", "no", taken=["taken"], later=["deferred"], no=["refused"])
    spooled.tried(2)
    row, *_ = spooled.rows()
    envelope = Envelope.decoded(row.envelope)
    assert [each.user for each in envelope.recipients] == ["later"]
    assert envelope.last.content == "later"
    first, notification = spooled.services.given
    assert [each.user for each in first.recipients] == ["taken", "later", "no"]
    assert ([each.email for each in notification.recipients], notification.sender.email) == (["a@x.example"], "")
    assert b"Final-Recipient: rfc822; no@y.example" in notification.content.joined()
    assert b"later@y.example" not in notification.content.joined()
    assert sorted(spooled.kinds()) == ["Bounce", "Delivery", "Delivery", "TransientFailure"]


def test_a_record_that_is_all_there_is_of_a_recipient_is_on_disk_before_the_message_is_gone(spooled):
    synced = spooled.services.synced = [False, False, True]
    spooled.begin("no", sender="", no=["refused"])
    spooled.tried()
    spooled.kept.until(lambda: not spooled.kept.spool.tries._under_way)
    assert synced == []
    assert spooled.rows() == []
    assert len(spooled.services.given) == 1


def test_what_the_disk_does_not_note_is_noted_later_and_not_delivered_twice(spooled):
    def read_only(store: Store, on: bool) -> None:
        store._database.execute(f"PRAGMA query_only={int(on)}")

    kept = spooled.kept
    spooled.services.said = {}
    assert kept.result(kept.keep(("b",), "a@x.example")) is None
    kept.result(kept.do(lambda store: read_only(store, True)))
    services: Any = spooled.services
    Redelivery(services, kept.spool).start()
    spooled.kept.until(lambda: spooled.services.given)
    for _ in range(10):
        kept.result(kept.spool.pause(0.01))
    assert len(spooled.rows()) == 1
    kept.result(kept.do(lambda store: read_only(store, False)))
    spooled.tried()
    assert spooled.rows() == []
    assert len(spooled.services.given) == 1


def test_without_a_destination_it_waits(spooled):
    spooled.services.destination = lambda queue: answered(None)
    spooled.begin("b")
    spooled.kept.until(lambda: spooled.kept.spool.schedule.get((1, 1)).due > time.time() + 30)
    assert spooled.services.given == []
    assert len(spooled.rows()) == 1


def test_what_is_due_only_when_it_is_too_old_expires_now(spooled):
    spooled.services.queue = QueueConfig(retry_interval=1e6, max_age=1000.0)
    spooled.begin("b", b=["deferred"])
    spooled.tried(2)
    assert [kind for kind in spooled.kinds() if kind != "Delivery"] == ["TransientFailure", "Expiration"]
    assert b"Status: 5.4.7" in spooled.services.given[1].content.joined()
    spooled.kept.until(lambda: len(spooled.kept.spool.schedule) == 0)
    assert spooled.rows() == []


@pytest.mark.parametrize("said", ["unreachable", "deferred"])
def test_a_sender_is_told_in_its_time_that_it_takes_longer_although_nobody_tries_then(spooled, monkeypatch, said):
    monkeypatch.setattr(schedule, "FIRST_PAUSE", 1e6)
    asked = Requests()
    asked.by, asked.since = DeliverBy(1, False, False), time.time() - 0.7
    spooled.begin("b", asked=asked, b=[said])
    spooled.kept.until(lambda: len(spooled.services.given) == 2)
    assert b"Action: delayed\r\nStatus: 4.4.7" in spooled.services.given[1].content.joined()
    spooled.tried(2)
    (row,) = spooled.rows()
    assert (row.attempts, row.expires) == (2, row.arrived + 1000.0)
    assert Envelope.decoded(row.envelope).requests.late
    assert spooled.kinds() == ["TransientFailure", "Delivery"]


@pytest.mark.parametrize(("seconds", "why"), [(1, "than its sender allows"), (5000, "than max_age")])
def test_what_comes_back_says_whose_time_was_over(spooled, seconds, why):
    spooled.services.queue = QueueConfig(retry_interval=1e6, max_age=1000.0)
    asked = Requests()
    asked.by, asked.since = DeliverBy(seconds, True, False), time.time()
    spooled.begin("b", asked=asked, b=["deferred"])
    spooled.tried(2)
    content = b" ".join(spooled.services.given[1].content.joined().split())
    assert f"The message has waited for longer {why}; last: 451".encode() in content


def test_what_is_to_come_back_is_tried_as_long_as_it_has_time_whatever_its_queue_says(spooled):
    spooled.services.queue = QueueConfig(retry_interval=1e6, max_age=1e6)
    asked = Requests()
    asked.by, asked.since = DeliverBy(600, True, False), time.time()
    spooled.begin("b", asked=asked, b=["deferred"])
    spooled.tried()
    (row,) = spooled.rows()
    assert row.expires == asked.until()
    assert 290 < row.due - time.time() <= 300
