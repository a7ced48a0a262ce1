"""What a policy counts over spans of time: the spans go by, and what is older than all of them counts no more."""

from __future__ import annotations

import pytest

from gateway.policy.outside.measures import OBJECTS, CounterSeries, define
from gateway.policy.outside.outside import Outside
from tests.policy_tools import Clock, PassingTime

METHODS = OBJECTS[CounterSeries][0]


def series(clock: Clock, **options: object) -> CounterSeries:
    outside = Outside(PassingTime(clock), clock, lambda: True)
    return define(outside, {"name": "s", "num_buckets": 3, "bucket_size": "10s", **options})


def test_spans_go_by() -> None:
    clock = Clock()
    counts = series(clock)
    METHODS["increment"](counts, 1)
    clock.now += 10
    METHODS["increment"](counts, 2)
    assert METHODS["sum"](counts) == 3
    assert METHODS["sum_over"](counts, "10s") == 2
    assert METHODS["sum_over"](counts, "11s") == 3
    clock.now += 20
    assert METHODS["sum"](counts) == 2
    clock.now += 1000
    assert METHODS["sum"](counts) == 0


def test_a_count_goes_neither_below_nothing_nor_beyond_64_bits() -> None:
    counts = series(Clock(), initial_value=1)
    METHODS["delta"](counts, -5)
    assert METHODS["sum"](counts) == 0
    METHODS["observe"](counts, (1 << 64) - 1)
    METHODS["increment"](counts, 1)
    assert METHODS["sum"](counts) == (1 << 64) - 1
    with pytest.raises(ValueError, match="expected 0 or more"):
        METHODS["increment"](counts, -1)


def test_a_series_is_known_by_its_name_for_as_long_as_its_spans_are_the_same() -> None:
    clock = Clock()
    outside = Outside(PassingTime(clock), clock, lambda: True)
    first = define(outside, {"name": "s", "num_buckets": 3, "bucket_size": "500ms"})
    assert first.size == 1
    assert define(outside, {"name": "s", "num_buckets": 3, "bucket_size": 1, "initial_value": 7}) is first
    assert define(outside, {"name": "s", "num_buckets": 4, "bucket_size": 1}) is not first
