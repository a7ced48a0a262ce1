"""When what is tried: times, sites that are down, ramps. Time is a number here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.couriers.spool import pace
from gateway.couriers.spool.pace import SitePace
from gateway.couriers.spool.schedule import (
    AHEAD,
    AHEAD_OCTETS,
    FIRST_PAUSE,
    MOST_PAUSE,
    Phase,
    Schedule,
    Spooled,
    retry_after,
)


def waiting(
    number: int, *, due: float = 0.0, expires: float = 1e9, site: str = "s", arrived: float | None = None
) -> Spooled:
    return Spooled((0, number), site, "q", float(number) if arrived is None else arrived, due, expires, 10, 0)


Tried: TypeAlias = "list[Spooled]"


def names(taken: Tried) -> list[int]:
    return [each.place[1] for each in taken]


def unlimited(site: str, under_way: int) -> bool:
    return True


def full(site: str, under_way: int) -> bool:
    return False


def tried(schedule: Schedule, now: float, most: int = 1000, has_room: Callable[[str, int], bool] = unlimited) -> Tried:
    """Those that begin now; what was taken ahead of its turn is put back."""
    begun = []
    for each in schedule.take(now, has_room, most)[0]:
        if schedule.may_begin(each.site, now, has_room):
            schedule.begins(each.site, each)
            begun.append(each)
        else:
            schedule.put_back(each.site, each)
    return begun


def take(schedule: Schedule, now: float, most: int = 1000) -> list[int]:
    return names(tried(schedule, now, most))


@pytest.mark.parametrize(
    ("deferred", "most", "seconds"),
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
def test_the_interval_doubles_up_to_its_most(deferred, most, seconds):
    assert retry_after(deferred, 1200, most) == seconds


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
        schedule.reached("s", 0.1)
    assert order == [2, 3, 1]


def test_what_is_taken_ahead_begins_when_the_site_has_answered_others():
    schedule = Schedule()
    for number in range(100):
        schedule.wait_for_time(waiting(number))
    taken, _ = schedule.take(1.0, unlimited, 1000)
    assert len(taken) == AHEAD
    assert schedule.take(1.0, unlimited, 1000) == ([], [])
    schedule.begins("s", taken[0])
    assert not schedule.may_begin("s", 1.0, unlimited)
    schedule.reached("s", 0.1)
    assert schedule.may_begin("s", 1.0, unlimited)
    assert not schedule.may_begin("s", 1.0, full)
    assert schedule.is_stuck("s", 1.0, full)


def test_of_large_ones_few_are_taken_ahead():
    schedule = Schedule()
    for number in range(10):
        each = waiting(number)
        each.octets = AHEAD_OCTETS // 2
        schedule.wait_for_time(each)
    assert names(schedule.take(1.0, unlimited, 1000)[0]) == [0, 1]
    assert schedule.take(1.0, unlimited, 1000) == ([], [])


def test_what_is_put_back_goes_before_what_is_younger():
    schedule = Schedule()
    for number in range(30):
        schedule.wait_for_site(waiting(number), 0.0)
    assert take(schedule, 2.0) == [0]
    schedule.reached("s", 0.1)
    taken, _ = schedule.take(2.0, unlimited, 1000)
    for each in taken:
        schedule.put_back("s", each)
    assert names(schedule.take(2.0, unlimited, 1000)[0]) == names(taken) == list(range(1, AHEAD + 1))


def test_a_site_that_goes_down_gets_nothing_that_was_taken_for_it():
    schedule = Schedule()
    for number in range(30):
        schedule.wait_for_time(waiting(number))
    taken, _ = schedule.take(1.0, unlimited, 1000)
    schedule.begins("s", taken[0])
    schedule.not_reached("s", 1.0)
    assert not schedule.may_begin("s", 1.5, unlimited)
    assert schedule.is_stuck("s", 1.5, unlimited)
    for each in taken[1:]:
        schedule.put_back("s", each)
    assert take(schedule, 1.9) == []
    assert take(schedule, 2.0) == [1]


def test_no_site_gets_more_than_it_has_room_for():
    schedule = Schedule()
    for number in range(50):
        schedule.wait_for_time(waiting(number, site="full" if number % 2 else "free"))
    assert {each.site for each in tried(schedule, 1.0, has_room=lambda site, _: site == "free")} == {"free"}


# --- how many at a time -----------------------------------------------------------------------------------------------


def answer(paced: SitePace, seconds: Callable[[int], float], rounds: int) -> list[int]:
    """Each round answers all that are under way; seconds: what each takes when there are so many. The windows."""
    windows = []
    for _ in range(rounds):
        for _ in range(paced.window):
            paced.answered(seconds(paced.window))
        windows.append(paced.window)
    return windows


def test_where_more_take_no_longer_their_number_doubles_up_to_the_most():
    assert answer(SitePace(), lambda window: 0.01, 8) == [2, 4, 8, 16, 32, pace.MOST, pace.MOST, pace.MOST]


@pytest.mark.parametrize("most", [4, 10, 30])
def test_where_more_than_so_many_take_longer_there_are_about_so_many(most):
    windows = answer(SitePace(), lambda window: 0.01 * max(1.0, window / most), 300)[50:]
    assert most / 2 <= sum(windows) / len(windows) <= 2 * most
    assert max(windows) <= 3 * most


def test_what_takes_longer_whatever_their_number_does_not_stay_at_one_at_a_time():
    paced = SitePace()
    answer(paced, lambda window: 0.01, 10)
    windows = answer(paced, lambda window: 0.1, 400)
    assert min(windows) < 8
    assert windows[-1] == pace.MOST


def test_one_that_takes_very_long_costs_the_others_little():
    paced = SitePace()
    answer(paced, lambda window: 0.01, 10)
    paced.answered(1.0)
    windows = answer(paced, lambda window: 0.01, 20)
    assert min(windows) >= pace.MOST // 16


def test_a_site_that_is_down_is_tried_by_one_after_growing_pauses():
    schedule = Schedule()
    now = 0.0
    for number in range(10):
        schedule.wait_for_site(waiting(number), now)
    pauses = []
    for _ in range(9):
        assert take(schedule, now) == []
        pause = next(p / 4 for p in range(1, 1000) if schedule._sites["s"].not_before <= now + p / 4)
        now += pause
        pauses.append(pause)
        (each,) = tried(schedule, now)
        assert tried(schedule, now) == []
        schedule.not_reached("s", now)
        schedule.wait_for_site(each, now)
    assert pauses == [FIRST_PAUSE, 2, 4, 8, 16, 32, MOST_PAUSE, MOST_PAUSE, MOST_PAUSE]


def test_the_next_try_of_a_site_is_another_message():
    schedule = Schedule()
    for number in range(3):
        schedule.wait_for_site(waiting(number), 0.0)
    numbers = []
    now = 0.0
    for _ in range(4):
        now += 100.0
        (each,) = tried(schedule, now)
        numbers.append(each.place[1])
        schedule.not_reached("s", now)
        schedule.wait_for_site(each, now)
    assert numbers == [0, 1, 2, 0]


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
    (each,) = tried(schedule, FIRST_PAUSE)
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
    schedule.reached("s", 0.1)
    assert take(schedule, 2.0) == [1, 2]


def test_a_site_that_is_down_is_tried_even_if_it_seems_to_have_no_room():
    schedule = Schedule()
    schedule.wait_for_site(waiting(1), 0.0)
    assert names(tried(schedule, 2.0, has_room=full)) == [1]


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
        schedule.take(1.0, full, 1000)
    taken, expired = schedule.take(50.0, full, 1000)
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
            self.schedule.reached(each.site, 0.1)
            self.schedule.remove(self.known.pop(each.place[1]))
        else:
            self.schedule.not_reached(each.site, self.now)
            self.schedule.wait_for_site(each, self.now)

    def take(self, most: int) -> None:
        begun = tried(self.schedule, self.now, most)
        assert all(one.phase is Phase.ANSWER and one not in self.under_way for one in begun)
        self.under_way += begun
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
