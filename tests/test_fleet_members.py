"""Members on their bad day, over real sockets: who is asked, who waits, and when they are trusted again."""

from __future__ import annotations

import asyncio

import pytest
from couriers_in_loop import DELIVERED, UNREACHABLE, Gateway, batch, only
from upstream import Do, Upstream

from gateway.config import EgressPath
from gateway.couriers.fleet import health as health_module
from gateway.couriers.fleet.table import SIZE, MemberTable
from gateway.handover import Status

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
    monkeypatch.setattr(health_module, "SHORTEST_PAUSE", 0.05)

    async def main() -> None:
        async with Upstream({"MAIL": Do.DROP}) as broken, Upstream() as sound, Gateway(broken, sound) as gateway:
            for _ in range(60):
                assert only(await gateway.hand_over(batch())) == DELIVERED
                await asyncio.sleep(0.005)
            assert 1 <= carriers(broken) <= 4

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
