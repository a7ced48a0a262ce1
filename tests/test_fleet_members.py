"""Members on their bad day, over real sockets: who is asked, who waits, and when they are trusted again."""

from __future__ import annotations

import asyncio
import math
import time

import pytest
from couriers_in_loop import BOTH, DELIVERED, UNREACHABLE, Gateway, batch, only, statuses
from upstream import Dialogue, Do, Upstream, ehlo

from gateway.config import EgressPath, Host
from gateway.couriers.fleet import health as health_module
from gateway.couriers.fleet import member as member_module
from gateway.couriers.fleet.choice import choose
from gateway.couriers.fleet.connection import MemberConnection, Owner
from gateway.couriers.fleet.job import Dispatcher, Job
from gateway.couriers.fleet.lane import Lane
from gateway.couriers.fleet.member import Member
from gateway.couriers.fleet.route import Route
from gateway.couriers.fleet.table import SIZE, MemberTable
from gateway.couriers.fleet.wiring import Wiring
from gateway.handover import Status
from gateway.smtp.client_values import Failure
from gateway.smtp.replies import Reason

PATIENT = EgressPath(connect_timeout=100, banner_timeout=100)  # longer than any test


def carriers(member: Upstream) -> int:
    """How many connections were to carry a message."""
    return sum(any(command.startswith("MAIL") for command in dialogue.commands) for dialogue in member.dialogues)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes follow each other at once."""
    monkeypatch.setattr(health_module, "SHORTEST_PAUSE", 0.01)


def test_of_many_clients_one_waits_on_a_silent_member_and_not_for_long(run) -> None:
    async def main() -> None:
        async with Upstream({"CONNECT": Do.STALL}) as silent, Upstream() as sound, Gateway(silent, sound) as gateway:
            for _ in range(3):
                results = [gateway.start(batch(), PATIENT) for _ in range(20)]
                assert {only(await result) for result in results} == {DELIVERED}
            assert len(sound.mails) == 60
            assert len(silent.dialogues) == 1

    run(main())


def test_a_silent_member_alone_is_waited_for_as_long_as_its_timeouts_say(run) -> None:
    async def main() -> None:
        async with Upstream({"CONNECT": Do.STALL}) as silent, Gateway(silent) as gateway:
            results = [gateway.start(batch(), EgressPath(banner_timeout=0.4)) for _ in range(5)]
            assert {only(await result)[0] for result in results} == {Status.TRANSIENT}
            assert len(silent.dialogues) <= 2

    run(main())


def test_a_member_that_is_not_up_is_tried_by_probes_alone_and_trusted_when_one_succeeds(run, soon) -> None:
    async def main() -> None:
        async with Upstream({"CONNECT": Do.DROP}) as broken, Upstream() as sound, Gateway(broken, sound) as gateway:
            while len(broken.dialogues) < 5:
                assert only(await gateway.hand_over(batch())) == DELIVERED
                await asyncio.sleep(0.01)
            broken.answers["CONNECT"] = b"220 here again\r\n"
            await broken.until(lambda member: "QUIT" in member.commands)
            assert not carriers(broken)
            while not broken.mails:
                assert only(await gateway.hand_over(batch())) == DELIVERED

    run(main())


def test_a_member_that_greets_and_then_fails_is_asked_less_and_less(run, monkeypatch: pytest.MonkeyPatch) -> None:
    pause = 0.01
    monkeypatch.setattr(health_module, "SHORTEST_PAUSE", pause)

    async def main() -> None:
        async with Upstream({"MAIL": Do.DROP}) as broken, Upstream() as sound, Gateway(broken, sound) as gateway:
            began = time.monotonic()
            for _ in range(60):
                assert only(await gateway.hand_over(batch())) == DELIVERED
                await asyncio.sleep(0.005)
            pauses = (time.monotonic() - began) / pause  # of the shortest; each is twice as long as the one before
            assert 1 <= carriers(broken) <= 3 + math.log2(pauses)

    run(main())


def test_when_all_are_down_clients_are_told_at_once_and_when_one_is_back_it_serves(run) -> None:
    async def main() -> None:
        async with Upstream() as one, Upstream() as two, Gateway(one, two) as gateway:
            await one.stop()
            await two.stop()
            for _ in range(5):
                assert only(await gateway.hand_over(batch(), PATIENT)) == UNREACHABLE
            await one.__aenter__()
            while only(await gateway.hand_over(batch(), PATIENT)) != DELIVERED:
                await asyncio.sleep(0.05)
            assert len(one.mails) == 1

    run(main())


def test_what_one_worker_has_found_out_no_other_has_to(run) -> None:
    async def main() -> None:
        memory = memoryview(bytearray(SIZE))
        async with Upstream({"CONNECT": Do.DROP}) as broken, Upstream() as sound:
            members = broken, sound
            async with Gateway(*members, table=MemberTable(memory, 0)) as one:
                for _ in range(2):
                    assert only(await one.hand_over(batch())) == DELIVERED
                assert len(broken.dialogues) == 1
                async with Gateway(*members, table=MemberTable(memory, 1)) as two:
                    for _ in range(4):
                        assert only(await two.hand_over(batch())) == DELIVERED
                assert len(broken.dialogues) == 1

    run(main())


def test_of_all_workers_one_says_each_time_that_a_member_fails_and_one_that_it_is_back(
    run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with Gateway() as gateway:
            host = Host("m0", "127.0.0.1", 25)
            wiring = Wiring(gateway.poller, gateway.page, "", MemberTable())
            connection = MemberConnection(wiring, host, EgressPath(), Owner(), Route(host, 25, ""))
            connection.session.fail(Failure.CONNECT, "Connection refused")
            memory = memoryview(bytearray(SIZE))
            one, two = (Member(MemberTable(memory, row), "127.0.0.1", 25, "m0") for row in range(2))
            one.table.look()
            for now in (100.0, 200.0):
                one.failed(now, connection)
                two.sync(now + 1, 9, False)
                two.failed(now + 2, connection, True)  # a probe
                two.greeted(now + 3)
                one.sync(now + 4, 9, False)
                for later in range(5, 10):
                    two.concluded(now + later, connection)
                one.sync(now + 20, 9, False)
                assert not one.watched  # it is up

    run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "m0 [] failed at connect: Connection refused",
        "m0 [] is back after 5.0 s",
    ] * 2


def test_a_member_that_is_drained_gets_nothing_of_a_worker_that_has_just_come_to_know_it(run) -> None:
    async def main() -> None:
        memory = memoryview(bytearray(SIZE))
        async with Upstream() as member:
            desk = MemberTable(memory, 1).enter("127.0.0.1", member.port)
            desk.drain(True)
            async with Gateway(member, table=MemberTable(memory, 0)) as gateway:
                assert only(await gateway.hand_over(batch())) == UNREACHABLE
                desk.drain(False)
                while only(await gateway.hand_over(batch())) != DELIVERED:
                    await asyncio.sleep(0.01)
            assert len(member.mails) == 1

    run(main())


def test_a_worker_that_ends_does_not_wait_for_its_probes(run, soon) -> None:
    async def main() -> None:
        script = {"CONNECT": [Do.DROP, Do.STALL]}
        async with Upstream(script) as broken, Upstream() as sound, Gateway(sound, broken) as gateway:
            assert only(await gateway.hand_over(batch(), PATIENT)) == DELIVERED
            await broken.until(lambda member: len(member.dialogues) == 2)
            async with asyncio.timeout(10):
                await gateway.couriers.close(1000)

    run(main())


# --- choice -----------------------------------------------------------------------------------------------------------


def test_a_limit_of_connections_holds_over_all_workers_and_each_gets_its_share(run) -> None:
    async def main() -> None:
        memory = memoryview(bytearray(SIZE))
        path = EgressPath(connection_limit=2)
        most = 0

        def greeting(dialogue: Dialogue, command: str) -> None:
            nonlocal most
            most = max(most, len(member.open))

        async with Upstream(decide=greeting) as member:
            tables = [MemberTable(memory, row) for row in range(2)]
            async with Gateway(member, table=tables[0]) as one, Gateway(member, table=tables[1]) as two:
                stop = asyncio.Event()

                async def load() -> None:
                    while not stop.is_set():
                        assert only(await one.hand_over(batch(), path)) == DELIVERED

                loads = [asyncio.ensure_future(load()) for _ in range(4)]
                await member.until(lambda member: len(member.mails) > 10)
                for _ in range(5):
                    assert only(await two.hand_over(batch(), path)) == DELIVERED
                stop.set()
                await asyncio.gather(*loads)
        assert most == 2

    run(main())


def test_a_member_that_takes_no_more_connections_is_full_and_not_down(run, monkeypatch: pytest.MonkeyPatch) -> None:
    growth = 0.02  # seconds until one more is tried
    monkeypatch.setattr(member_module, "GROWTH", growth)
    full = b"421 4.3.2 too many connections\r\n"

    async def main() -> None:
        room = 2

        def decide(dialogue: Dialogue, command: str) -> bytes | None:
            return full if command == "CONNECT" and len(member.open) > room else None

        async with Upstream(decide=decide) as member, Gateway(member) as gateway:
            began = time.monotonic()
            for _ in range(3):
                results = [gateway.start(batch()) for _ in range(30)]
                assert {only(await result) for result in results} == {DELIVERED}
            turned_away = sum(b"421" in dialogue.sent for dialogue in member.dialogues)
            assert 1 <= turned_away < 32 + (time.monotonic() - began) / growth
            room = 8
            while len(member.open) < 5:
                results = [gateway.start(batch()) for _ in range(30)]
                assert {only(await result) for result in results} == {DELIVERED}

    run(main())


def test_of_busy_members_the_one_that_will_be_done_first_is_chosen(run) -> None:
    async def main() -> None:
        async with Gateway() as gateway:
            wiring = Wiring(gateway.poller, gateway.page, "", MemberTable())
            path = EgressPath()
            lanes = [
                Lane(wiring, Member(wiring.table, name, 25, name), Host(name, name, 25), path)
                for name in ("quick", "slow")
            ]
            job = Job(batch(), 0.0, Dispatcher())
            quick, slow = (lane.member for lane in lanes)
            for _ in range(100):
                quick.took(0.01)
                slow.took(0.1)
            chosen = []
            for member in (quick, slow):
                member.greeted(1.0)
            for _ in range(11):
                lane = choose(lanes, job, 0)
                lane.member.busy += 1
                chosen.append(lane.member is quick)
            assert chosen == [True, False, *[True] * 9]

    run(main())


def test_a_batch_waits_for_a_connection_as_long_as_the_path_says(run) -> None:
    async def main() -> None:
        async with Upstream({".": Do.STALL}) as member, Gateway(member) as gateway:
            path = EgressPath(connection_limit=1, wait_timeout=0.05)
            first = gateway.start(batch(), path)
            busy = await gateway.hand_over(batch(), path)
            assert only(busy) == (Status.TRANSIENT, 451, Reason.UPSTREAM_TIMEOUT)
            assert busy.outcomes[0].response.enhanced == "4.4.5"
            member.say_unasked(b"250 2.0.0 at last\r\n")
            assert only(await first) == DELIVERED

    run(main())


# --- some deferred ----------------------------------------------------------------------------------------------------

PARTLY = {"RCPT <b@y.example>": b"450 4.2.1 later\r\n"}


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_message_that_a_member_defers_for_some_goes_to_another_as_a_whole(run, pipelining: bool) -> None:
    script = {**PARTLY, **({} if pipelining else {"EHLO": ehlo("SIZE 1000000")})}

    async def main() -> None:
        async with Upstream(script) as partly, Upstream() as whole, Gateway(whole, partly) as gateway:
            for _ in range(4):
                assert statuses(await gateway.hand_over(batch(*BOTH))) == [Status.DELIVERED] * 2
            assert not partly.mails
            assert carriers(partly)
            assert [mail.recipients for mail in whole.mails] == [list(BOTH)] * 4

    run(main())


def test_a_message_that_all_members_defer_for_some_is_sent_to_nobody(run) -> None:
    async def main() -> None:
        async with Upstream(PARTLY) as one, Upstream(PARTLY) as two, Gateway(one, two) as gateway:
            hand_over = await gateway.hand_over(batch(*BOTH))
            assert statuses(hand_over) == [Status.TRANSIENT] * 2
            assert {outcome.reason for outcome in hand_over.outcomes} == {Reason.UPSTREAM_DEFERRED}
            assert not one.mails
            assert not two.mails
            assert carriers(one) == carriers(two) == 1

    run(main())


def test_what_may_be_divided_is_sent_to_those_who_are_accepted_and_to_nobody_again(run) -> None:
    async def main() -> None:
        async with Upstream(PARTLY) as one, Upstream() as two, Gateway(two, one) as gateway:
            hand_over = await gateway.hand_over(batch(*BOTH, divisible=True))
            assert statuses(hand_over) == [Status.TRANSIENT, Status.DELIVERED]
            assert [mail.recipients for mail in one.mails] == [[BOTH[1]]]
            assert not two.mails

    run(main())


def test_a_message_that_is_deferred_for_everybody_is_an_answer(run) -> None:
    async def main() -> None:
        script = {"RCPT": b"450 4.2.1 later\r\n"}
        async with Upstream(script) as one, Upstream(script) as two, Gateway(one, two) as gateway:
            assert statuses(await gateway.hand_over(batch(*BOTH))) == [Status.TRANSIENT] * 2
            assert carriers(one) + carriers(two) == 1

    run(main())
