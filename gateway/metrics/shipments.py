"""What is told of each shipment of log records, at its place in the families by shipment. No clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway import metrics
from gateway._fastpath import CounterPage

MOST = metrics.MOST_SHIPMENTS
OTHERS = "others"  # the name of the last place, which further shipments share

COUNTERS = {
    "sent": metrics.SHIP_SENT,
    "retried": metrics.SHIP_RETRIED,
    "acknowledged": metrics.SHIP_ACKNOWLEDGED,
    "refused": metrics.SHIP_REFUSED,
    "unwanted": metrics.SHIP_UNWANTED,
    "failures": metrics.SHIP_FAILURES,
    "dropped_segments": metrics.SHIP_DROPPED_SEGMENTS,
    "dropped_octets": metrics.SHIP_DROPPED_BYTES,
}
GAUGES = {
    "lag_seconds": metrics.SHIP_LAG_SECONDS,
    "lag_records": metrics.SHIP_LAG_RECORDS,
    "lag_octets": metrics.SHIP_LAG_BYTES,
    "held_segments": metrics.SHIP_HELD_SEGMENTS,
    "held_octets": metrics.SHIP_HELD_BYTES,
    "held_limit": metrics.SHIP_HELD_LIMIT,
}


class Told(NamedTuple):
    """What was counted since the last time, and what the gauges stand at, if they were looked at."""

    counts: Mapping[str, int]
    gauges: Mapping[str, int]


def names(declared: Sequence[str]) -> list[str]:
    """By place, of the shipments in order."""
    few = len(declared) <= MOST
    return list(declared) if few else [*declared[: MOST - 1], OTHERS]


def tell(page: CounterPage, place: int, told: Told) -> None:
    """Adds to the page of the process that ships. place: of the shipment."""
    for name, count in told.counts.items():
        if count:
            page.add(COUNTERS[name].at(place), count)
    for name, value in told.gauges.items():
        page.set(GAUGES[name].at(place), value)
