"""What was counted during the last minute: the counters of all pages, second by second. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.metrics.families import Counter, Histogram

MINUTE = 60.0  # seconds that are looked back
MOST_SAMPLES = 80
COUNTERS: tuple[Counter, ...] = (
    metrics.CONNECTIONS_OPENED,
    metrics.MESSAGES,
    metrics.RECEIVED_BYTES,
    metrics.REJECTIONS,
    metrics.DECISIONS,
    metrics.WORKER_RESTARTS,
)
HISTOGRAMS: tuple[Histogram, ...] = (metrics.POLICY_EVENT_DURATION, metrics.MESSAGE_DURATION, metrics.RELAY_DURATION)

Key = tuple[str, ...]  # the family's name, then the label values
Counts = dict[Key, float]
Buckets = dict[Key, list[float]]  # the counts of a histogram's buckets, and the sum of all values


class Sample:
    """All that is followed, at one moment. at: CLOCK_MONOTONIC seconds."""

    def __init__(self, pages: Sequence[CounterPage], at: float) -> None:
        self.at = at
        self.counts: Counts = {
            (family.name, *values): sum([page.get(slot) for page in pages])
            for family in COUNTERS
            for values, slot in family.slots.items()
        }
        self.buckets: Buckets = {
            (family.name, *values.split("/")) if values else (family.name,): counts
            for family in HISTOGRAMS
            for values, counts in family.totals(pages).items()
        }


class History:
    """Samples of the last minute."""

    def __init__(self, pages: Sequence[CounterPage]) -> None:
        self._pages = pages
        self._samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)

    def take(self, now: float) -> None:
        """To be called about once a second."""
        self._samples.append(Sample(self._pages, now))
        while len(self._samples) > 2 and self._samples[1].at <= now - MINUTE:
            self._samples.popleft()

    @property
    def last(self) -> Sample:
        """The latest sample."""
        return self._samples[-1]

    def rates(self, family: Counter, seconds: float = MINUTE) -> dict[Key, float]:
        """What was counted a second of late, by label values."""
        first, last = self._ends(seconds)
        passed = last.at - first.at
        return {
            values: max(0.0, last.counts[family.name, *values] - first.counts[family.name, *values]) / passed
            if passed > 0
            else 0.0
            for values in family.slots
        }

    def counted(self, family: Counter) -> dict[Key, float]:
        """What was counted in the last minute, by label values."""
        first, last = self._ends(MINUTE)
        name = family.name
        return {values: max(0.0, last.counts[name, *values] - first.counts[name, *values]) for values in family.slots}

    def observed(self, family: Histogram, *values: str) -> list[float]:
        """Of the last minute: the counts of the buckets, and the sum; all zero where there was nothing."""
        first, last = self._ends(MINUTE)
        key = (family.name, *values)
        return [max(0.0, new - old) for new, old in zip(last.buckets[key], first.buckets[key], strict=True)]

    def _ends(self, seconds: float) -> tuple[Sample, Sample]:
        last = self._samples[-1]
        return next(sample for sample in self._samples if sample.at >= last.at - seconds - 0.5), last


def quantile(bounds: Sequence[float], buckets: Sequence[float], share: float) -> float | None:
    """The upper bound that a share of the values is not above; None where there are none, infinity beyond all bounds.

    buckets: counts of each, not cumulated, one more than bounds.
    """
    wanted = share * sum(buckets)
    if not wanted:
        return None
    passed = 0.0
    for bound, count in zip(bounds, buckets, strict=False):
        passed += count
        if passed >= wanted:
            return bound
    return float("inf")
