"""What is sent when (gateway/shipping/dispatch.py): for any reading, any sink and any end in the middle."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.shipping.dispatch import BatchLimits, Dispatch, Failed, Mark, NeverTaken, Parcel, RecordBatch, Taken

LIMITS = BatchLimits(records=3, octets=30, delay=1.0, first_retry=0.5, longest_retry=8.0)


def parcel(number: int, size: int = 5) -> Parcel:
    return Parcel(f"id{number}", b"x" * size)


def mark(number: int, segment: str = "a") -> Mark:
    return Mark("logs", segment, number)


def filled(count: int, limits: BatchLimits = LIMITS, now: float = 0.0) -> Dispatch:
    dispatch = Dispatch(limits)
    for number in range(1, count + 1):
        dispatch.offer(parcel(number), mark(number), now)
    return dispatch


def ids(batch: RecordBatch | None) -> list[str]:
    assert batch is not None
    return [parcel.id for parcel in batch.parcels]


def test_a_batch_is_due_when_it_is_full_or_its_first_record_has_waited():
    dispatch = filled(2)
    assert dispatch.due(0.9) is None
    assert dispatch.next_at() == 1.0
    assert ids(dispatch.due(1.0)) == ["id1", "id2"]
    full = filled(4)
    assert ids(full.due(0.0)) == ["id1", "id2", "id3"]


def test_a_batch_has_no_more_octets_than_allowed_unless_one_record_has():
    dispatch = Dispatch(LIMITS)
    for number, size in enumerate((20, 20, 50), 1):
        dispatch.offer(parcel(number, size), mark(number), 0.0)
    for expected in (["id1"], ["id2"], ["id3"]):
        assert ids(dispatch.due(2.0)) == expected
        dispatch.settle(Taken(), 2.0)


def test_nothing_else_is_sent_while_a_batch_is_under_way():
    dispatch = filled(6)
    assert dispatch.due(0.0) is not None
    assert dispatch.due(100.0) is None
    assert dispatch.next_at() == float("inf")


def test_only_what_the_sink_has_is_acknowledged():
    dispatch = filled(4)
    dispatch.due(0.0)
    assert dispatch.acknowledged() == []
    dispatch.settle(Taken(), 0.0)
    assert dispatch.acknowledged() == [mark(3)]
    assert dispatch.acknowledged() == []
    assert dispatch.unacknowledged == 1


def test_a_failed_batch_comes_again_later_and_later_and_as_it_was():
    dispatch = filled(3)
    now, waits = 0.0, []
    for attempt in range(1, 8):
        batch = dispatch.due(now)
        assert batch is not None
        assert (ids(batch), batch.attempt, batch.id) == (["id1", "id2", "id3"], attempt, "id1+3")
        dispatch.settle(Failed("down"), now, jitter=1.0)
        assert dispatch.due(now) is None
        waits.append(dispatch.next_at() - now)
        now = dispatch.next_at()
    assert waits == [0.5, 1, 2, 4, 8, 8, 8]
    dispatch.due(now)
    dispatch.settle(Taken(), now)
    assert not dispatch.failing


def test_a_sink_may_ask_to_be_left_alone():
    dispatch = filled(3)
    dispatch.due(0.0)
    dispatch.settle(Failed("HTTP 429", after=120.0), 0.0)
    assert dispatch.next_at() == 120.0
    dispatch.due(120.0)
    dispatch.settle(Failed("HTTP 429", after=1e9), 120.0)
    assert dispatch.next_at() == 120.0 + 3600.0


def test_what_a_sink_took_of_a_failed_batch_is_not_sent_again():
    dispatch = filled(3)
    dispatch.due(0.0)
    dispatch.settle(Failed("half of it", taken={0, 2}), 0.0)
    assert dispatch.acknowledged() == [mark(1)]  # the third waits for the second
    assert ids(dispatch.due(10.0)) == ["id2"]
    dispatch.settle(Taken(), 10.0)
    assert dispatch.acknowledged() == [mark(3)]


def test_a_record_that_the_sink_refuses_is_found_and_set_aside_alone():
    dispatch = filled(3)
    taken, aside = [], []
    while (batch := dispatch.due(1.0, flush=True)) is not None:
        bad = "id2" in ids(batch)
        found = dispatch.settle(NeverTaken("HTTP 400") if bad else Taken(), 1.0)
        taken += [] if bad else ids(batch)
        aside += [found.id] if found else []
    assert (taken, aside) == (["id1", "id3"], ["id2"])
    assert dispatch.acknowledged() == [mark(3)]


def test_what_nobody_wants_is_acknowledged_in_its_turn():
    dispatch = Dispatch(LIMITS)
    dispatch.skip(mark(1), 0.0)
    assert dispatch.acknowledged() == [mark(1)]
    dispatch.offer(parcel(2), mark(2), 0.0)
    dispatch.skip(mark(3), 0.0)
    dispatch.skip(mark(4), 0.0)
    dispatch.skip(mark(None, "b"), 0.0)
    assert dispatch.acknowledged() == []
    assert ids(dispatch.due(5.0)) == ["id2"]
    dispatch.settle(Taken(), 5.0)
    assert sorted(dispatch.acknowledged()) == [mark(4), mark(None, "b")]


def test_there_is_room_for_two_batches():
    assert filled(5).has_room
    assert not filled(6).has_room


@dataclass
class Reader:
    """What a killed shipper leaves: how far its sink's acknowledgements were noted."""

    noted: int = 0
    taken: list[int] = field(default_factory=list)
    aside: list[int] = field(default_factory=list)


WANTED = st.lists(st.booleans(), min_size=1, max_size=30)
OUTCOMES = st.lists(
    st.one_of(
        st.just("taken"),
        st.just("killed"),
        st.just("killed after it was taken"),
        st.sets(st.integers(0, 4), max_size=4).map(lambda taken: Failed("no", taken)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("bad", [frozenset(), frozenset({0, 7}), frozenset(range(30))], ids=["none", "two", "all"])
@settings(max_examples=25, deadline=None)
@given(WANTED, OUTCOMES, st.integers(1, 5))
def test_every_record_arrives_or_is_set_aside_whatever_happens_on_the_way(bad, wanted, outcomes, size):
    reader = Reader()
    happening = iter(outcomes)
    limits = BatchLimits(records=size, octets=10**6, delay=0.0)
    while not live(reader, wanted, bad, happening, limits):
        pass
    expected = {number for number, is_wanted in enumerate(wanted) if is_wanted}
    assert set(reader.taken) | set(reader.aside) == expected
    assert set(reader.aside) == expected & bad
    firsts = list(dict.fromkeys(reader.taken))
    assert sorted(firsts) == sorted(expected - bad)
    assert reader.noted == len(wanted)


def live(reader: Reader, wanted: list[bool], bad: frozenset[int], happening, limits: BatchLimits) -> bool:
    """One process: from where the one before came to. False where it is killed."""
    dispatch = Dispatch(limits)
    unread = list(range(reader.noted, len(wanted)))
    now = 0.0
    while True:
        while unread and dispatch.has_room:
            number = unread.pop(0)
            if wanted[number]:
                dispatch.offer(Parcel(str(number), b"x"), mark(number + 1), now)
            else:
                dispatch.skip(mark(number + 1), now)
        batch = dispatch.due(now, flush=True)
        note(reader, dispatch)
        if batch is None:
            if not unread and not dispatch.unacknowledged:
                return True
            now = max(now, dispatch.next_at())
            continue
        numbers = [int(parcel.id) for parcel in batch.parcels]
        if bad.intersection(numbers):
            aside = dispatch.settle(NeverTaken("bad"), now)
            reader.aside += [int(aside.id)] if aside else []
        else:
            happens = next(happening, "taken")
            if happens == "killed":
                return False
            if isinstance(happens, Failed):
                happens = Failed("no", [place for place in happens.taken if place < len(numbers)])
                reader.taken += [numbers[place] for place in sorted(happens.taken)]
            else:
                reader.taken += numbers
            if happens == "killed after it was taken":
                return False
            dispatch.settle(happens if isinstance(happens, Failed) else Taken(), now)
        note(reader, dispatch)


def note(reader: Reader, dispatch: Dispatch) -> None:
    for noted in dispatch.acknowledged():
        assert noted.position is not None
        assert noted.position > reader.noted
        reader.noted = noted.position
