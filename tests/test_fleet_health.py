"""How a member fares: the table of states, what holds whatever happens, and how workers share what they know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.arena import PARTS
from gateway.couriers.fleet import table as table_module
from gateway.couriers.fleet.health import (
    EJECTED_AFTER,
    JITTER,
    LONGEST_IF_NEEDED,
    LONGEST_PAUSE,
    NO_LIMIT,
    Health,
    MemberState,
    later,
)
from gateway.couriers.fleet.table import PLACES, SIZE, WORDS, MemberEntry, MemberTable

UP = Health(MemberState.UP, 1.0, window=NO_LIMIT)


def failing(times: int, start: Health = UP) -> Health:
    health = start.failed(10.0, 0.5)
    for number in range(1, times):
        health = health.failed(10.0 + number, 0.5, probe=True)
    return health


@pytest.mark.parametrize("failures", range(1, 9))
def test_failures_in_a_row_eject_with_growing_pauses(failures: int) -> None:
    health = failing(failures)
    assert health.state is (MemberState.DOWN if failures >= EJECTED_AFTER else MemberState.SUSPECT)
    assert not health.admits
    assert health.window == 0
    assert health.until - health.at == min(2.0 ** (failures - 1), LONGEST_PAUSE)
    assert health.since == 10.0


def test_pauses_are_spread() -> None:
    earliest, latest = (UP.failed(10.0, chance).until for chance in (0.0, 1.0))
    assert (earliest, latest) == (10.0 + 1 - JITTER, 10.0 + 1 + JITTER)


def test_what_fails_together_counts_once() -> None:
    health = UP.failed(10.0, 0.5)
    assert health.failed(10.1, 0.5) is health
    assert health.failed(11.0, 0.5, probe=True).failures == 2


@pytest.mark.parametrize(
    ("failures", "needed", "due_after"),
    [(1, False, 1.0), (1, True, 0.0), (2, True, 0.25), (9, True, LONGEST_IF_NEEDED)],
)
def test_a_probe_is_due_after_the_pause_and_earlier_where_nobody_else_is_left(failures, needed, due_after) -> None:
    health = failing(failures)
    assert health.due(health.at + due_after, needed)
    assert due_after == 0 or not health.due(health.at + due_after - 0.01, needed)


def test_while_somebody_probes_nobody_else_does() -> None:
    health = failing(4).probing(100.0, 5.0)
    assert not health.due(104.9, False)
    assert health.due(105.0, False)


def test_recovery_ramps_up_with_what_is_answered() -> None:
    health = failing(3).greeted(20.0)
    windows = []
    while health.state is MemberState.ON_TRIAL:
        windows.append(health.window)
        health = health.answered(21.0)
    assert windows == [1, 2, 4, 8]
    assert health == Health(MemberState.UP, 21.0, window=NO_LIMIT)


def test_a_greeting_alone_does_not_make_a_member_sound() -> None:
    health = failing(3).greeted(20.0).failed(21.0, 0.5)
    assert (health.state, health.failures, health.since) == (MemberState.DOWN, 4, 10.0)


def test_what_is_under_way_when_a_member_is_suspected_may_clear_it() -> None:
    health = failing(1).answered(11.0)
    assert health.admits
    assert health.failures == 0


def test_an_unknown_member_gets_one_message_until_it_has_greeted() -> None:
    assert Health().admits
    assert Health().window == 1
    assert Health().greeted(5.0) == Health(MemberState.UP, 5.0, window=NO_LIMIT)


def test_news_that_are_none_change_nothing() -> None:
    assert UP.greeted(5.0) is UP
    assert UP.answered(5.0) is UP
    assert not UP.due(1e9, True)
    down = failing(3)
    assert down.stalled(20.0, 5.0) is down


def test_a_member_that_stalls_is_suspected_without_a_failure() -> None:
    health = UP.stalled(10.0, 5.0)
    assert (health.state, health.failures, health.since, health.until) == (MemberState.SUSPECT, 0, 10.0, 15.0)
    assert not health.due(14.9, True)


EVENTS = st.sampled_from(["failed", "probe failed", "greeted", "answered", "stalled", "probing"])


@given(st.lists(st.tuples(EVENTS, st.floats(0.0, 100.0), st.floats(0.0, 1.0))))
def test_whatever_happens_a_member_is_either_admitted_or_will_be_probed(events) -> None:
    health, now = Health(), 1.0
    for event, passed, chance in events:
        now += passed
        if event == "failed":
            health = health.failed(now, chance)
        elif event == "probe failed":
            health = health.failed(now, chance, probe=True)
        elif event in ("stalled", "probing"):
            health = getattr(health, event)(now, 5.0)
        else:
            health = getattr(health, event)(now)
        assert health.at <= now
        assert health.admits == (health.window > 0)
        if not health.admits:
            assert 0 < health.since <= now
            assert now <= health.until <= now + LONGEST_PAUSE * (1 + JITTER) or event in (
                "answered",
                "failed",
                "stalled",
            )
            assert health.due(now + LONGEST_PAUSE * (1 + JITTER), False)


# --- shared -----------------------------------------------------------------------------------------------------------


def workers(count: int) -> list[MemberTable]:
    memory = memoryview(bytearray(SIZE))
    return [MemberTable(memory, row) for row in range(count)]


def entries(count: int) -> list[MemberEntry]:
    """One member in the rows of so many workers, who have looked at each other's."""
    tables = workers(count)
    found = [table.enter("mta1", 25) for table in tables]
    for table in tables:
        table.look()
    return found


def test_the_arena_has_room_for_it() -> None:
    assert PARTS["members"] == SIZE


def test_what_one_worker_learns_all_know_and_the_latest_holds() -> None:
    one, two, three = entries(3)
    assert three.latest() == Health()
    one.publish(failing(3))
    assert two.latest() == three.latest() == failing(3)
    two.publish(failing(3).greeted(20.0))
    assert one.latest().state is MemberState.ON_TRIAL
    assert later(failing(3), one.latest()).at == 20.0


def test_members_are_told_apart() -> None:
    one, two = workers(2)
    one.enter("mta1", 25).publish(failing(1))
    for other in (two.enter("mta2", 25), two.enter("mta1", 26)):
        assert other.latest() == Health()
    assert two.enter("mta1", 25).latest() == failing(1)


def test_connections_of_workers_that_are_at_work_are_added_up() -> None:
    tables = workers(3)
    found = [table.enter("mta1", 25) for table in tables]
    for number, entry in enumerate(found, 1):
        entry.connect(number, 100.0)
    assert [entry.connections_of_others(100.0) for entry in found] == [5, 4, 3]
    tables[2].beat(90.0)  # it was killed
    assert found[0].connections_of_others(100.0) == 2


def test_what_waits_elsewhere_is_told_with_how_many_share_the_member() -> None:
    one, two, three = entries(3)
    for entry in (one, two, three):
        entry.connect(0, 100.0)
    assert one.others(100.0) == (0, 0)
    two.connect(4, 100.0)
    three.ask(0, True)
    assert one.others(100.0) == (2, 1)
    assert three.others(100.0) == (1, 0)


def test_a_worker_takes_a_row_over_without_the_connections_that_ended() -> None:
    memory = memoryview(bytearray(SIZE))
    other, before = MemberTable(memory, 1), MemberTable(memory, 0)
    entry = before.enter("mta1", 25)
    entry.publish(failing(3))
    entry.connect(7, 1.0)
    entry.ask(7, True)
    after = MemberTable(memory, 0)
    after.beat(1.0)
    assert after.enter("mta1", 25).latest() == failing(3)
    seen = other.enter("mta1", 25)
    assert seen.connections_of_others(1.0) == 0
    assert seen.others(1.0) == (0, 0)


def test_more_members_than_places_are_known_to_their_worker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    table, other = workers(2)
    found = [table.enter(f"mta{number}", 25) for number in range(PLACES)]
    for number, entry in enumerate(found):
        entry.publish(Health(MemberState.UP, 1.0 + number))
    assert [entry.latest().at for entry in found] == [1.0 + number for number in range(PLACES)]
    assert other.enter(f"mta{PLACES - 1}", 25).latest() == Health()
    table.leave(found[3])
    new = table.enter("another", 25)
    assert new.latest() == Health()
    new.publish(failing(1))
    assert other.enter("another", 25).latest() == failing(1)
    assert other.enter("mta3", 25).latest() == Health()


def test_a_health_that_is_being_written_is_not_read() -> None:
    one, two = entries(2)
    one.publish(failing(3))
    memory = one._table.floats
    memory[WORDS + table_module._AT] = 0.0
    assert two.latest() == Health()
