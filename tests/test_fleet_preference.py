"""Fleets whose members are no equals (`gateway.fleet`): groups, zones and weights, over real sockets."""

from __future__ import annotations

from collections import Counter

import pytest
from couriers_in_loop import DELIVERED, PATH, Gateway, batch, only
from upstream import Do, Upstream

from gateway.config import EgressPath, Host, QueueConfig, SmtpFleet
from gateway.couriers.fleet.health import Health, MemberState
from gateway.couriers.fleet.preference import preference_of
from gateway.couriers.fleet.survey import lines, survey
from gateway.couriers.fleet.table import SIZE, MemberTable

_UP = Health(MemberState.UP, 1.0, window=1 << 30)


def fleet_of(*members: tuple[Upstream, dict[str, object]], zone: str = "") -> QueueConfig:
    """One of members on their terms."""
    hosts = [Host(f"m{n}", "127.0.0.1", member.port, **terms) for n, (member, terms) in enumerate(members)]
    return QueueConfig(protocol=SmtpFleet(tuple(hosts), zone))


async def deliver(gateway: Gateway, queue: QueueConfig, messages: int = 1, path: EgressPath = PATH) -> None:
    """One after the other."""
    for _ in range(messages):
        assert only(await gateway.start(batch(), path, queue=queue)) == DELIVERED


async def all_up(gateway: Gateway, *members: Upstream) -> None:
    """Each has served, so that it is no news any more."""
    for member in members:
        await deliver(gateway, fleet_of((member, {})))
        member.mails.clear()


def test_mail_is_shared_as_the_weights_say(run) -> None:
    async def main() -> None:
        async with Upstream() as one, Upstream() as two, Upstream() as three, Gateway() as gateway:
            await all_up(gateway, one, two, three)
            queue = fleet_of((one, {"weight": 5}), (two, {"weight": 3}), (three, {}))
            await deliver(gateway, queue, 18)
            assert [len(member.mails) for member in (one, two, three)] == [10, 6, 2]

    run(main())


def test_what_is_under_way_counts_by_weight(run) -> None:
    async def main() -> None:
        table = MemberTable()
        stalls = {".": Do.STALL}
        async with Upstream(stalls) as one, Upstream(stalls) as two, Gateway(table=table) as gateway:
            for member in (one, two):  # trusted from the start
                table.enter("127.0.0.1", member.port).publish(_UP)
            queue = fleet_of((one, {"weight": 3}), (two, {}))
            results = [gateway.start(batch(), queue=queue) for _ in range(16)]
            for member, connections in ((one, 12), (two, 4)):
                await member.until(lambda member: member.commands.count(".") == connections)  # noqa: B023
                member.drop_all()
            for result in results:
                await result

    run(main())


def test_the_next_group_gets_mail_when_all_of_one_are_down_and_none_before(run) -> None:
    async def main() -> None:
        async with Upstream() as one, Upstream() as two, Upstream() as last, Gateway() as gateway:
            await all_up(gateway, one, two, last)
            queue = fleet_of((last, {"group": 2}), (one, {}), (two, {}))
            await deliver(gateway, queue, 6)
            assert (len(one.mails), len(two.mails), len(last.mails)) == (3, 3, 0)
            await one.stop()
            await deliver(gateway, queue, 6)
            assert (len(two.mails), len(last.mails)) == (9, 0)
            await two.stop()
            await deliver(gateway, queue, 3)  # the client notices nothing
            assert len(last.mails) == 3

    run(main())


def test_mail_waits_for_a_full_group_instead_of_going_to_the_next(run) -> None:
    async def main() -> None:
        async with Upstream() as first, Upstream() as last, Gateway() as gateway:
            await all_up(gateway, first, last)
            queue = fleet_of((first, {}), (last, {"group": 2}))
            path = EgressPath(connection_limit=1)
            results = [gateway.start(batch(), path, queue=queue) for _ in range(10)]
            assert {only(await result) for result in results} == {DELIVERED}
            assert (len(first.mails), len(last.mails)) == (10, 0)

    run(main())


def test_members_of_the_gateways_own_zone_go_first_within_their_group(run) -> None:
    async def main() -> None:
        async with Upstream() as here, Upstream() as there, Upstream() as last, Gateway() as gateway:
            await all_up(gateway, here, there, last)
            terms = (there, {"zone": "east"}), (here, {"zone": "west"}), (last, {"zone": "west", "group": 2})
            queue = fleet_of(*terms, zone="west")
            await deliver(gateway, queue, 4)
            assert (len(here.mails), len(there.mails), len(last.mails)) == (4, 0, 0)
            await deliver(gateway, fleet_of(*terms), 4)  # from anywhere
            assert (len(here.mails), len(there.mails), len(last.mails)) == (6, 2, 0)
            await here.stop()
            await deliver(gateway, queue, 3)
            assert (len(there.mails), len(last.mails)) == (5, 0)

    run(main())


def test_a_silent_member_alone_in_its_group_does_not_keep_mail_from_the_next(run) -> None:
    async def main() -> None:
        async with Upstream({"CONNECT": Do.STALL}) as silent, Upstream() as sound, Gateway() as gateway:
            queue = fleet_of((silent, {}), (sound, {"group": 2}))
            await deliver(gateway, queue, 3, EgressPath(connect_timeout=100, banner_timeout=100))
            assert len(silent.dialogues) == 1

    run(main())


def test_options_of_the_path_are_a_members_own(run) -> None:
    async def main() -> None:
        async with Upstream() as one, Upstream() as two, Gateway() as gateway:
            queue = fleet_of((one, {"path": (("ehlo_domain", "own.example"),)}), (two, {}))
            await deliver(gateway, queue, 4)
            names = Counter(command for member in (one, two) for command in member.commands if command[:4] == "EHLO")
            assert names == {"EHLO own.example": 1, "EHLO gw.example": 1}

    run(main())


def test_the_table_shows_the_terms_of_members_where_they_are_no_equals() -> None:
    memory = memoryview(bytearray(SIZE))
    table = MemberTable(memory, 1)
    table.enter("10.0.0.1", 25, "mta1").describe(1, 1, "")
    assert lines(survey(table, 1.0), 1.0)[0].split()[:2] == ["member", "state"]
    table.enter("10.0.0.2", 25, "mta2").describe(2, 30, "a-zone-of-a-long-name")
    MemberTable(memory, 0).enter("10.0.0.2", 25, "mta2").drain(True)  # says nothing of its terms
    shown = [line.split()[:5] for line in lines(survey(table, 1.0), 1.0)]
    assert shown == [
        ["member", "group", "zone", "weight", "state"],
        ["mta1", "1", "-", "1", "unknown"],
        ["mta2", "2", "a-zone-of-a-long", "30", "drained"],
    ]


@pytest.mark.parametrize("zone", ["", "west", "nowhere"])
def test_equals_are_chosen_among_as_ever(zone: str) -> None:
    hosts = tuple(Host(name, name, 25, zone="east") for name in ("one", "two"))
    assert preference_of(SmtpFleet(hosts, zone), []) is None
