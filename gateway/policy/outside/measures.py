"""`kumo.counter_series` and `kumo.time.start_timer`: what a policy counts and times by itself, in one worker."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from gateway.policy.kumo.values import Objects, integer
from gateway.policy.options import Option, Schema, duration
from gateway.policy.options import integer as whole
from gateway.policy.options import string as text
from gateway.policy.outside.outside import Outside, read_options

_SERIES = "counter_series"  # in the settings of Outside: every series by name
_MOST = (1 << 64) - 1

DEFINE = Schema(
    {
        "name": Option(text, required=True),
        "num_buckets": Option(whole(1), required=True),
        "bucket_size": Option(duration, required=True),
        "initial_value": Option(whole(0), default=0),
    }
)


class CounterSeries:
    """A count for each of the last so many spans of time, the newest first.

    size: of a span, in whole seconds. clock: seconds.
    """

    def __init__(self, buckets: int, size: int, initial: int, clock: Callable[[], float]) -> None:
        self.size = size
        self.buckets = deque([initial, *[0] * (buckets - 1)], maxlen=buckets)
        self._clock = clock
        self._span = int(clock() // size)

    def turn(self) -> deque[int]:
        """The counts as of now."""
        span = int(self._clock() // self.size)
        for _ in range(min(span - self._span, len(self.buckets))):
            self.buckets.appendleft(0)
        self._span = max(span, self._span)
        return self.buckets


class Timer:
    """Began when it was made."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()

    def elapsed(self) -> float:
        """Seconds since then."""
        return self._clock() - self._began


def define(outside: Outside, options: Any = None) -> CounterSeries:
    """counts over the last so many spans of time: options `name`, `num_buckets`, `bucket_size`, `initial_value`; the
    same series where name and spans are the same
    """
    asked = read_options(DEFINE, options)
    known: dict[str, CounterSeries] = outside.settings.setdefault(_SERIES, {})
    size = max(1, math.ceil(asked["bucket_size"]))
    found = known.get(asked["name"])
    if found is None or (found.size, len(found.buckets)) != (size, asked["num_buckets"]):
        found = CounterSeries(asked["num_buckets"], size, asked["initial_value"], outside.clock)
        known[asked["name"]] = found
    return found


def start_timer(outside: Outside, label: Any) -> Timer:
    """a timer, whose `done()` says how many seconds went by; it may be a `<close>` variable"""
    del label  # no metric has a policy's own words
    return Timer(outside.clock)


def _add(series: CounterSeries, amount: int) -> None:
    buckets = series.turn()
    buckets[0] = min(max(buckets[0] + amount, 0), _MOST)


def _natural(value: Any, function: str) -> int:
    number = integer(value, function)
    if number < 0:
        raise ValueError(f"{function}: expected 0 or more, got {number}")
    return number


def _increment(series: CounterSeries, value: Any) -> None:
    _add(series, _natural(value, "increment"))


def _delta(series: CounterSeries, value: Any) -> None:
    _add(series, integer(value, "delta"))


def _observe(series: CounterSeries, value: Any) -> None:
    series.turn()[0] = _natural(value, "observe")


def _sum(series: CounterSeries) -> int:
    return min(sum(series.turn()), _MOST)


def _sum_over(series: CounterSeries, span: Any) -> int:
    buckets = list(series.turn())
    return min(sum(buckets[: max(1, math.ceil(duration(span) / series.size))]), _MOST)


def _done(timer: Timer) -> float:
    return timer.elapsed()


COUNTERS: dict[str, Callable[..., Any]] = {"define": define}
TIMERS: dict[str, Callable[..., Any]] = {"start_timer": start_timer}
OBJECTS: Objects = {
    CounterSeries: (
        {"increment": _increment, "delta": _delta, "observe": _observe, "sum": _sum, "sum_over": _sum_over},
        {},
    ),
    Timer: ({"done": _done}, {}),
}
WAITING: frozenset[str] = frozenset()
UNSTABLE = frozenset(f"{kind.__name__}:{name}" for kind, (methods, _) in OBJECTS.items() for name in methods)
