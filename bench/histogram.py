"""Latency histograms: reads the buckets that the load source counts in (wire/latency.pxi), answers
percentiles.

A bucket is 1/128 of a power of two wide, so every answer is within 1 % of the exact one.
"""

from collections.abc import Iterable, Mapping
from math import ceil

SUB_BUCKETS = 128
PERCENTILES = (50, 90, 99, 99.9)


def bounds(bucket: int) -> tuple[int, int]:
    """The smallest and the largest latency, in nanoseconds, that are counted in `bucket`."""
    if bucket < 2 * SUB_BUCKETS:
        return bucket, bucket
    shift = bucket // SUB_BUCKETS - 1
    low = (bucket - shift * SUB_BUCKETS) << shift
    return low, low + (1 << shift) - 1


class Histogram:
    """Counts of latencies by bucket."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(sorted((counts or {}).items()))

    @classmethod
    def from_json(cls, pairs: Iterable[Iterable[int]]) -> "Histogram":
        return cls({bucket: count for bucket, count in pairs})

    def to_json(self) -> list[list[int]]:
        return [[bucket, count] for bucket, count in self.counts.items()]

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def add(self, other: "Histogram") -> "Histogram":
        """Both histograms' counts in a new one."""
        merged = dict(self.counts)
        for bucket, count in other.counts.items():
            merged[bucket] = merged.get(bucket, 0) + count
        return Histogram(merged)

    def percentile(self, percent: float) -> float:
        """The latency in microseconds that `percent` of the messages did not exceed; 0 when nothing was
        counted."""
        rank = max(1, ceil(self.total * percent / 100))
        seen = 0
        for bucket, count in self.counts.items():
            seen += count
            if seen >= rank:
                return sum(bounds(bucket)) / 2000
        return 0.0

    def summary(self) -> dict[str, float]:
        """The percentiles that reports show, in microseconds, and the maximum."""
        named = {f"p{percent:g}": round(self.percentile(percent), 1) for percent in PERCENTILES}
        return named | {"max": round(self.percentile(100), 1)}
