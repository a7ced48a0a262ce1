"""Nothing that was answered 250 is lost: processes are killed under load, disks refuse and stall.

FAULTS=all (`make faults`) makes the first test kill for longer, and send 20,000 messages meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway import metrics
from gateway._fastpath import CounterPage, content_of
from gateway.config import SpoolSettings
from gateway.couriers.spool import spool as spools
from gateway.couriers.spool.kept import Envelope, ToKeep
from gateway.couriers.spool.spool import Spool
from gateway.couriers.spool.store import Store
from gateway.couriers.spool.tries import MOST_UNDER_WAY, Tried
from gateway.later import Later, begun
from gateway.logs.records import Origin
from gateway.smtp import replies
from gateway.smtp.address import parse_address
from gateway.smtp.requests import Requests
from tests.gateway_process import PATIENCE, Gateway, wait_until
from tests.test_spool_service import POLICY, Outage

ALL = os.environ.get("FAULTS") == "all"
KILLS = 40 if ALL else 4
MESSAGES = 20_000 if ALL else 0  # at least
CLIENTS = 8
BETWEEN = 1000 if ALL else 60  # messages that are answered 250 from one kill to the next


class Load:
    """Clients that send one message after the other, each with a name of its own, to wherever the gateway is now."""

    def __init__(self) -> None:
        self.address: tuple[str, int] | None = None
        self.taken: set[str] = set()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, client: int) -> None:
        number = 0
        while not self._over.is_set():
            if self.address is None:
                self._over.wait(0.02)
                continue
            with suppress(OSError, smtplib.SMTPException), smtplib.SMTP(*self.address, "c.example", 10) as smtp:
                while not self._over.is_set():
                    number += 1
                    name = f"m{client}-{number}@gone.example"
                    smtp.sendmail("a@senders.example", [name], b"Subject: x\r\n\r\n" + name.encode() + b"\r\nx" * 1000)
                    self.taken.add(name)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture
def load() -> Iterator[Load]:
    made = Load()
    yield made
    made.stop()


@pytest.fixture
def outage() -> Iterator[Outage]:
    made = Outage()
    made.add("gone", away=True)
    made.add("senders")
    yield made
    made.fleets.close()


@pytest.mark.timeout(60 + 20 * KILLS)
def test_whatever_is_killed_whenever_all_that_was_taken_arrives(outage, start, load, tmp_path):
    chance = random.Random(1)
    policy = outage.lua(tmp_path) + POLICY

    def started() -> Gateway:
        running: Gateway = start(policy, "--workers", "2")
        load.address = running.address
        return running

    gateway = started()
    for kill in range(KILLS):
        taken = len(load.taken)
        wait_until(lambda n=taken: len(load.taken) > n + chance.randrange(BETWEEN), "the load goes on")
        if kill % 2 == 0:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(gateway.workers()), signal.SIGKILL)
        else:
            load.address = None
            gateway.kill()
            gateway = started()
        if kill % 4 == 1:
            outage.back("gone")  # so that the next ones are killed while they deliver
        elif kill % 4 == 3:
            outage.fleets._run(outage.upstream("gone").stop())
    wait_until(lambda: len(load.taken) >= MESSAGES, "enough was taken", 600.0)
    load.stop()
    if KILLS % 4 in (0, 1):
        outage.back("gone")

    def arrived() -> Counter[str]:
        return Counter(recipient for mail in outage.mails("gone") for recipient in mail.recipients)

    wait_until(lambda: load.taken <= set(arrived()), lambda: f"{len(load.taken - set(arrived()))} are missing", 300.0)
    wait_until(lambda: gateway.metric("spool_messages") == 0, "the spool is empty", 300.0)
    twice = sum(number - 1 for number in arrived().values())
    assert twice <= KILLS * (MOST_UNDER_WAY + CLIENTS), "more than was under way when something was killed"


# --- disks ------------------------------------------------------------------------------------------------------------


class Kept:
    """A spool on an event loop of its own, which tries nothing."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.page = CounterPage(bytearray(metrics.page_size()))
        settings = SpoolSettings(name="data", path=str(folder), min_free_space=0, min_free_inodes=0)
        self.spool = Spool(self.loop, self.page, settings, 0, time.time)

    def do(self, work: Callable[[Store], Any]) -> Any:
        """On the spool's thread, before whatever comes next."""
        writer = self.spool._own.writer
        assert writer is not None
        return writer.read(work)

    def keep(
        self, recipients: Sequence[str] = ("b",), sender: str = "a@x.example", asked: Requests | None = None
    ) -> Any:
        """Begins to keep a message for mailboxes at y.example."""
        addresses = [parse_address(f"{each}@y.example") for each in recipients]
        envelope = Envelope(
            id="0" * 32,
            sender=parse_address(sender),
            recipients=addresses,
            given=addresses,
            meta={},
            origin=Origin("c", "192.0.2.1", "s"),
            smtputf8=False,
            hostname="gw.example",
            received_at=time.time(),
            requests=asked,
        )
        content = content_of(b"Subject: x\r\n\r\n")
        return begun(
            self.spool.keep(
                [ToKeep(envelope, content, queue="q", site="s", due=time.time(), expires=time.time() + 1000)]
            )
        )

    def until(self, holds: Callable[[], Any]) -> None:
        async def watch() -> None:
            while not holds():
                await asyncio.sleep(0.001)

        self.loop.run_until_complete(asyncio.wait_for(watch(), PATIENCE))

    def result(self, steps: Any) -> Any:
        self.until(lambda: steps.done)
        return steps.result()

    def close(self) -> None:
        self.loop.run_until_complete(self.spool.close(0))
        self.loop.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.close()


def test_a_disk_that_stalls_holds_up_those_who_wait_for_it_and_not_the_loop(kept):
    stalled, go_on = threading.Event(), threading.Event()

    def stall(_: Store) -> None:
        stalled.set()
        go_on.wait(PATIENCE)

    kept.do(stall)
    stalled.wait(PATIENCE)
    waiting = [kept.keep() for _ in range(10)]
    kept.loop.run_until_complete(asyncio.sleep(0.01))
    assert not any(steps.done for steps in waiting)
    go_on.set()
    assert [kept.result(steps) for steps in waiting] == [None] * 10
    assert len(kept.spool.schedule) == 10


def test_a_disk_that_is_read_only_refuses_for_now_and_is_used_again(kept, monkeypatch):
    monkeypatch.setattr(spools, "REST", 0.05)

    def read_only(store: Store, on: bool) -> None:
        store._database.execute(f"PRAGMA query_only={int(on)}")

    kept.result(kept.do(lambda store: read_only(store, True)))
    assert kept.result(kept.keep()) == replies.STORAGE
    assert not kept.spool.usable
    kept.until(lambda: kept.spool.usable)
    kept.result(kept.do(lambda store: read_only(store, False)))
    assert kept.result(kept.keep()) is None
    assert len(kept.spool.schedule) == 1


def test_a_full_disk_is_told_as_such(kept, caplog):
    def limit(pages: int) -> None:
        kept.result(kept.do(lambda store: store._database.execute(f"PRAGMA max_page_count={pages}").fetchall()))

    limit(6)
    refusals = [kept.result(kept.keep()) for _ in range(200)]
    assert refusals[0] is None
    assert refusals[-1] == replies.SPOOL_FULL
    assert len(kept.spool.schedule) == refusals.count(None)
    assert caplog.text.count("the spool keeps nothing any more: ") == 1
    limit(1000)
    assert kept.result(kept.keep()) is None
    assert caplog.text.count("the spool has room again") == 1


def test_those_that_are_tried_begin_one_in_a_turn_of_the_loop(kept):
    for _ in range(30):
        assert kept.result(kept.keep()) is None
    turns = []

    def turn() -> None:
        turns.append(0)
        kept.loop.call_soon(turn)

    def attempt(spooled, row, content, asked):
        turns[-1] += 1
        asked.answered(True, 0.1)
        yield kept.spool.pause(0.0)
        return Tried(None)

    kept.loop.call_soon(turn)
    kept.spool.start(attempt, lambda site: 100, lambda site: False, lambda row: None)
    kept.until(lambda: sum(turns) == 30)
    assert max(turns) == 1


def test_one_that_was_answered_makes_room_before_it_is_written_down(kept):
    for _ in range(3):
        assert kept.result(kept.keep()) is None
    begun_ones = []

    def attempt(spooled, row, content, asked):
        begun_ones.append(row.number)
        asked.answered(True, 0.1)
        yield Later()

    kept.spool.start(attempt, lambda site: 100, lambda site: False, lambda row: None)
    kept.until(lambda: begun_ones == [1, 2, 3])


def test_an_error_of_our_own_with_one_message_stops_no_other(kept, caplog):
    for _ in range(3):
        assert kept.result(kept.keep()) is None
    tried = []

    def attempt(spooled, row, content, asked):
        tried.append(row.number)
        yield kept.spool.pause(0.0)
        if row.number == 1:
            raise ZeroDivisionError
        return Tried(None)

    kept.spool.start(attempt, lambda site: 100, lambda site: False, lambda row: None)

    async def watch() -> None:
        while set(tried) != {1, 2, 3}:
            await asyncio.sleep(0.01)

    kept.loop.run_until_complete(asyncio.wait_for(watch(), PATIENCE))
    assert "internal error with message 1" in caplog.text
    assert len(kept.spool.schedule) in {1, 2}  # the last one may be under way
