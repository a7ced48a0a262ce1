"""When what is tried: times, sites that are down, ramps. Time is a number here."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.couriers.spool.schedule import (
    FIRST_PAUSE,
    MOST_PAUSE,
    MOST_UNDER_WAY,
    Phase,
    Schedule,
    Spooled,
    retry_after,
)


def waiting(
    number: int, *, due: float = 0.0, expires: float = 1e9, site: str = "s", arrived: float | None = None
) -> Spooled:
    return Spooled((0, number), site, "q", float(number) if arrived is None else arrived, due, expires, 10, 0)


def names(taken: list[Spooled]) -> list[int]:
    return [each.place[1] for each in taken]


def unlimited(_: str) -> int:
    return 1000


def take(schedule: Schedule, now: float, most: int = 1000) -> list[int]:
    return names(schedule.take(now, unlimited, most)[0])


@pytest.mark.parametrize(
    ("attempts", "most", "seconds"),
    [
        (1, None, 1200),
        (2, None, 2400),
        (3, None, 4800),
        (4, 3600.0, 3600),
        (1, 60.0, 60),
        (0, None, 1200),
        (500, 9.0, 9),
    ],
)
def test_the_interval_doubles_up_to_its_most(attempts, most, seconds):
    assert retry_after(attempts, 1200, most) == seconds


def test_nothing_is_tried_before_its_time():
    schedule = Schedule()
    schedule.wait_for_time(waiting(1, due=10.0))
    assert take(schedule, 9.9) == []
    assert take(schedule, 10.0) == [1]


def test_the_oldest_goes_first():
    schedule = Schedule()
    for number, arrived in ((1, 30.0), (2, 10.0), (3, 20.0)):
        schedule.wait_for_time(waiting(number, arrived=arrived))
    order = []
    while taken := take(schedule, 1.0, most=1):
        order += taken
        schedule.reached("s")
    assert order == [2, 3, 1]


def test_a_site_gets_as_many_at_a_time_as_it_has_answered_and_one_more():
    schedule = Schedule()
    for number in range(500):
        schedule.wait_for_time(waiting(number))
    assert len(take(schedule, 1.0)) == 1
    sizes = []
    under_way = 1
    while under_way:
        for _ in range(under_way):
            schedule.reached("s")
        under_way = len(take(schedule, 1.0))
        sizes.append(under_way)
    assert sizes[:6] == [2, 4, 8, 16, 32, 64]
    assert max(sizes) == MOST_UNDER_WAY


def test_no_site_gets_more_than_it_has_room_for():
    schedule = Schedule()
    for number in range(50):
        schedule.wait_for_time(waiting(number, site="full" if number % 2 else "free"))
    assert all(each.site == "free" for each in schedule.take(1.0, {"full": 0, "free": 5}.__getitem__, 100)[0])


def test_a_site_that_is_down_is_tried_by_one_after_growing_pauses():
    schedule = Schedule()
    now = 0.0
    for number in range(10):
        schedule.wait_for_site(waiting(number), now)
    tried = []
    for _ in range(9):
        assert take(schedule, now) == []
        pause = next(p / 4 for p in range(1, 1000) if schedule._sites["s"].not_before <= now + p / 4)
        now += pause
        tried.append(pause)
        (each,) = schedule.take(now, unlimited, 1000)[0]
        assert schedule.take(now, unlimited, 1000)[0] == []
        schedule.not_reached("s", now)
        schedule.wait_for_site(each, now)
    assert tried == [FIRST_PAUSE, 2, 4, 8, 16, 32, MOST_PAUSE, MOST_PAUSE, MOST_PAUSE]


def test_the_next_try_of_a_site_is_another_message():
    schedule = Schedule()
    for number in range(3):
        schedule.wait_for_site(waiting(number), 0.0)
    tried = []
    now = 0.0
    for _ in range(4):
        now += 100.0
        (each,) = schedule.take(now, unlimited, 1000)[0]
        tried.append(each.place[1])
        schedule.not_reached("s", now)
        schedule.wait_for_site(each, now)
    assert tried == [0, 1, 2, 0]


def test_a_site_that_others_find_back_is_tried_before_its_pause_is_over_by_one():
    schedule = Schedule()
    for number in range(3):
        schedule.wait_for_site(waiting(number), 0.0)
    schedule.wait_for_time(waiting(3, site="up"))
    assert schedule.paused(0.5) == ["s"]
    schedule.may_be_back("s")
    assert schedule.paused(0.5) == []
    assert sorted(take(schedule, 0.5)) == [0, 3]
    schedule.not_reached("s", 0.5)
    assert schedule.paused(0.5 + FIRST_PAUSE) == ["s"]


def test_a_message_that_the_site_may_be_lost_for_waits_for_the_whole_pause():
    schedule = Schedule()
    schedule.wait_for_site(waiting(1), 0.0)
    assert schedule.paused(0.5) == ["s"]
    (each,) = schedule.take(FIRST_PAUSE, unlimited, 10)[0]
    each.attempts = 2
    schedule.not_reached("s", FIRST_PAUSE)
    schedule.wait_for_site(each, FIRST_PAUSE)
    assert schedule.paused(FIRST_PAUSE) == []
    assert take(schedule, FIRST_PAUSE + 1.9) == []
    schedule.hurry(each)
    assert schedule.paused(FIRST_PAUSE) == []


def test_the_first_answer_brings_back_all_that_wait_for_the_site():
    schedule = Schedule()
    for number in range(3):
        schedule.wait_for_site(waiting(number, due=1e6), 0.0)
    assert take(schedule, 2.0) == [0]
    schedule.reached("s")
    assert take(schedule, 2.0) == [1, 2]


def test_a_site_that_is_down_is_tried_even_if_it_seems_to_have_no_room():
    schedule = Schedule()
    schedule.wait_for_site(waiting(1), 0.0)
    assert names(schedule.take(2.0, lambda _: 0, 1000)[0]) == [1]


def test_one_site_that_is_down_holds_up_no_other():
    schedule = Schedule()
    schedule.wait_for_site(waiting(1, site="a"), 0.0)
    schedule.wait_for_time(waiting(2, site="b"))
    assert take(schedule, 0.5) == [2]


@pytest.mark.parametrize("phase", ["time", "site", "turn"])
def test_who_has_waited_too_long_is_told_apart_and_not_tried(phase):
    schedule = Schedule()
    each = waiting(1, due=100.0 if phase == "time" else 0.0, expires=50.0)
    if phase == "site":
        schedule.wait_for_site(each, 49.9)
    else:
        schedule.wait_for_time(each)
    if phase == "turn":
        schedule.take(1.0, lambda _: 0, 1000)
    taken, expired = schedule.take(50.0, lambda _: 0, 1000)
    assert (names(taken), names(expired)) == ([], [1])


def test_what_is_held_is_neither_tried_nor_expires():
    schedule = Schedule()
    each = waiting(1, expires=10.0)
    schedule.wait_for_time(each)
    schedule.hold(each)
    assert schedule.take(100.0, unlimited, 10) == ([], [])
    schedule.hurry(each)
    assert each.phase is Phase.TURN


def test_what_is_removed_counts_no_more():
    schedule = Schedule()
    first, second = waiting(1), waiting(2)
    schedule.wait_for_time(first)
    schedule.wait_for_site(second, 0.0)
    assert (len(schedule), schedule.octets, schedule.oldest()) == (2, 20, 1.0)
    schedule.remove(first)
    schedule.remove(second)
    schedule.remove(second)
    assert (len(schedule), schedule.octets, schedule.oldest()) == (0, 0, None)
    assert schedule.take(100.0, unlimited, 10) == ([], [])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "stall", "hold", "hurry", "remove", "pass", "answer", "fail"]), st.integers(0, 30)
    ),
    max_size=120,
)


class Played:
    """A schedule, and what is known of everybody in it."""

    def __init__(self) -> None:
        self.schedule = Schedule()
        self.known: dict[int, Spooled] = {}
        self.under_way: list[Spooled] = []
        self.now = 0.0

    def step(self, step: str, value: int) -> None:
        if step == "pass":
            self.now += value
        elif step in ("answer", "fail"):
            if self.under_way:
                self.over(self.under_way.pop(value % len(self.under_way)), step == "answer")
        elif value not in self.known:
            self.add(step, value)
        elif self.known[value] not in self.under_way:
            self.change(step, value)

    def add(self, step: str, value: int) -> None:
        each = waiting(value, due=self.now + value, site="ab"[value % 2])
        if step == "add":
            self.schedule.wait_for_time(each)
        elif step == "stall":
            self.schedule.wait_for_site(each, self.now)
        else:
            return
        self.known[value] = each

    def change(self, step: str, value: int) -> None:
        if step == "hold":
            self.schedule.hold(self.known[value])
        elif step == "hurry":
            self.schedule.hurry(self.known[value])
        elif step == "remove":
            self.schedule.remove(self.known.pop(value))

    def over(self, each: Spooled, answered: bool) -> None:
        if answered:
            self.schedule.reached(each.site)
            self.schedule.remove(self.known.pop(each.place[1]))
        else:
            self.schedule.not_reached(each.site, self.now)
            self.schedule.wait_for_site(each, self.now)

    def take(self, most: int) -> None:
        taken, expired = self.schedule.take(self.now, unlimited, most)
        assert expired == []
        assert all(one.phase is Phase.ANSWER and one not in self.under_way for one in taken)
        self.under_way += taken
        assert {one.place[1] for one in self.schedule} == set(self.known)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_nobody_is_lost_or_tried_twice(steps):
    played = Played()
    for step, value in steps:
        played.step(step, value)
        played.take(5)
    for one in played.known.values():
        if one.phase is Phase.OPERATOR:
            played.schedule.hurry(one)
    for _ in range(1000):
        played.now += MOST_PAUSE
        played.take(1000)
        while played.under_way:
            played.over(played.under_way.pop(), True)
    assert played.known == {}
