"""Cells of rates and of what is held, in memory that processes share: against a slow oracle, by several processes."""

from __future__ import annotations

import mmap
import os
import signal
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import RATE_CHARGE, RATE_LOOK, RATE_TAKE, HeldCells, RateCells
from gateway.arena import HELD, Arena, parts_for

ONE_SET = 64 + 64 + 9 * 88
SETS = 64 + 64 * (64 + 9 * 88)


def key(number: int) -> bytes:
    return struct.pack("<QQ", number * 0x9E3779B97F4A7C15 & (2**64 - 1) or 1, number)


class Oracle:
    """The same by the book, with room for everybody."""

    def __init__(self) -> None:
        self.unused_at: dict[int, float] = {}

    def turn(self, who: int, interval: float, burst: int, now: float, amount: float, mode: int) -> Any:
        before = max(now, self.unused_at.get(who, 0.0))
        after = before + amount * interval
        tolerance = interval * burst
        too_soon = after - tolerance - now
        if too_soon > interval * 1e-9 and mode != RATE_CHARGE:
            return 0, before - now, too_soon
        if mode == RATE_CHARGE:
            after = min(after, now + 2 * tolerance)
        if mode != RATE_LOOK:
            self.unused_at[who] = after
        return int(max(0.0, (tolerance - (after - now)) / interval + 1e-9)), after - now, None


TURNS = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.sampled_from([0.1, 1.0, 36.0]),
        st.integers(1, 5),
        st.sampled_from([0.0, 0.05, 1.0, 40.0, 1000.0]),
        st.sampled_from([0.0, 1.0, 1.0, 2.5, 100.0]),
        st.sampled_from([RATE_TAKE, RATE_TAKE, RATE_CHARGE, RATE_LOOK]),
    ),
    max_size=60,
)


@given(TURNS)
def test_a_table_with_room_does_what_the_book_says(turns):
    cells, oracle, now = RateCells(bytearray(SETS)), Oracle(), 1000.0
    for who, interval, burst, pause, amount, mode in turns:
        now += pause
        expected = oracle.turn(who, interval, burst, now, amount, mode)
        assert cells.turn(key(who), b"x", interval, burst, now, amount, mode) == expected
        used = sum(at > now for at in oracle.unused_at.values())
        assert len(cells.holders(now)) == used
    assert cells.shared == 0


@given(TURNS)
def test_a_table_without_room_lets_nobody_do_more_than_the_book(turns):
    cells, oracle, now = RateCells(bytearray(ONE_SET)), Oracle(), 1000.0
    for who, interval, burst, pause, _, _ in turns:
        now += pause
        if cells.turn(key(who), b"x", interval, burst, now)[2] is None:
            assert oracle.turn(who, interval, burst, now, 1.0, RATE_TAKE)[2] is None


def test_a_flood_of_others_makes_nobody_s_limit_forgotten():
    cells = RateCells(bytearray(SETS))
    for _ in range(3):
        assert cells.turn(key(1), b"guilty", 1000.0, 3, 5.0)[2] is None
    for other in range(2, 5000):
        cells.turn(key(other), b"other", 1000.0, 3, 6.0)
        assert other % 97 or cells.turn(key(1), b"guilty", 1000.0, 3, 6.0)[2] is not None
    assert cells.shared > 1000
    assert cells.turn(key(1), b"guilty", 1000.0, 3, 6.0)[2] is not None
    assert cells.turn(key(1), b"guilty", 1000.0, 3, 3100.0)[2] is None


def test_who_holds_what_can_be_read():
    cells = RateCells(bytearray(SETS))
    cells.turn(key(1), b"messages 192.0.2.1/32", 36.0, 100, 5.0, 3.0)
    cells.turn(key(2), b"n" * 100, 1.0, 1, 5.0)
    assert sorted(cells.holders(5.5)) == [(b"messages 192.0.2.1/32", 36.0, 100, 107.5), (b"n" * 47, 1.0, 1, 0.5)]
    assert cells.holders(200.0) == []


@pytest.mark.parametrize("bad", [(b"short", 1.0, 1), (key(1), 0.0, 1), (key(1), 1.0, 0), (key(1), float("nan"), 1)])
def test_what_is_no_rate_is_refused(bad):
    with pytest.raises(ValueError):
        RateCells(bytearray(SETS)).turn(bad[0], b"", *bad[1:])
    with pytest.raises(ValueError):
        RateCells(bytearray(64))


def forked(count: int, work: Any) -> list[int]:
    """What so many processes write into a byte each, which begin at the same moment."""
    results = mmap.mmap(-1, 4096)
    waiting, go = os.pipe()
    finished, done = os.pipe()
    pids = []
    for number in range(count):
        pid = os.fork()
        if not pid:
            try:
                os.close(go)
                os.read(waiting, 1)
                struct.pack_into("<I", results, 4 * number, work(number))
                os.write(done, b"!")
                signal.pause()  # nobody ends before all are done
            finally:
                os._exit(0)
        pids.append(pid)
    os.close(go)
    os.close(waiting)
    seen = b""
    while len(seen) < count:
        seen += os.read(finished, count)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for fd in (finished, done):
        os.close(fd)
    return [struct.unpack_from("<I", results, 4 * number)[0] for number in range(count)]


@pytest.fixture
def arena():
    made = Arena(parts_for(4))
    yield made
    os.close(made.fd)


def test_a_limit_of_a_hundred_is_a_hundred_with_four_workers(arena):
    cells = RateCells(arena.part("rates"))

    def work(number: int) -> int:
        return sum(cells.turn(key(7), b"x", 3600.0, 100)[2] is None for _ in range(5000))

    taken = forked(4, work)
    assert sum(taken) == 100, taken


def test_a_hundred_that_are_held_are_a_hundred_with_four_workers(arena):
    def work(number: int) -> int:
        held = HeldCells(arena.part("held"), HELD, number)
        taken = sum(bool(held.hold(key(7), b"x", 100)) for _ in range(2000))
        return taken

    seen = HeldCells(arena.part("held"), HELD, -1)
    taken = forked(4, work)
    assert 97 <= sum(taken) <= 100, taken  # who tries at the very same moment may be one too many, never one too few
    assert seen.count(key(7)) == sum(taken)


def test_what_a_killed_process_held_is_free_again_when_somebody_needs_it(arena):
    waiting, ready = os.pipe()
    pid = os.fork()
    if not pid:
        held = HeldCells(arena.part("held"), HELD, 0)
        for _ in range(5):
            held.hold(key(1), b"x", 5)
        os.write(ready, b"!")
        signal.pause()
    assert os.read(waiting, 1) == b"!"
    held = HeldCells(arena.part("held"), HELD, 1)
    assert held.hold(key(1), b"x", 5) == 0
    assert held.holders() == {b"x": 5}
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert held.hold(key(1), b"x", 5) == 1
    assert held.holders() == {b"x": 1}
    for fd in (waiting, ready):
        os.close(fd)


def test_a_set_whose_holder_was_killed_is_passed_on():
    memory = bytearray(ONE_SET)
    struct.pack_into("<I", memory, 64, 999_999_999)  # nobody
    cells = RateCells(memory)
    assert cells.turn(key(1), b"x", 1.0, 1, 5.0)[2] is None
    assert cells.turn(key(1), b"x", 1.0, 1, 5.0)[2] is not None
    assert struct.unpack_from("<I", memory, 64)[0] == 0


def test_what_is_held_can_be_released_and_who_finds_no_room_shares():
    held = HeldCells(bytearray(72 * 9), 72 * 9, 0)
    for number in range(8):
        assert held.hold(key(number + 1), b"n%d" % number, 1) == 1
    assert held.hold(key(100), b"late", 2) == 2
    assert held.hold(key(101), b"later", 2) == 2
    assert held.hold(key(102), b"latest", 2) == 0
    held.release(key(100), 2)
    assert held.hold(key(102), b"latest", 2) == 2
    held.release(key(1), 1)
    assert held.hold(key(200), b"new", 1) == 1
    assert held.count(key(200)) == 1
    assert held.count(key(1)) == 0
    held.release(key(1), 1)  # nothing of it is held
    assert held.count(key(200)) == 1
    again = HeldCells(bytearray(72 * 9), 72 * 9, -1)
    with pytest.raises(ValueError):
        again.hold(key(1), b"", 1)
    with pytest.raises(ValueError):
        HeldCells(bytearray(72 * 9), 72 * 9, 1)


def test_all_processes_have_one_seed(arena):
    cells = RateCells(arena.part("rates"))
    assert cells.seed() == RateCells(arena.part("rates")).seed() != 0
    assert cells.seed() != RateCells(bytearray(SETS)).seed()
