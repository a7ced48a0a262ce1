"""`relay-gateway logs --stats`: records summed up by type, reason, domain, member and hour. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.logs.merging import LogEntry
from gateway.logs.selection import Record, domain_of, recipients_of
from gateway.terminal import bar, table

_WIDTH = 40  # of a bar
_ATTEMPTS = ("Delivery", "TransientFailure", "Bounce")
_SHOWN_BY_HOUR = ("Reception", "Rejection", "TransientFailure")


class RecordSums:
    """What many records say together."""

    def __init__(self) -> None:
        self.first: float | None = None  # seconds since 1970
        self.last: float | None = None
        self.types: Counter[str] = Counter()
        self.octets = 0  # received
        self.reasons: dict[str, Counter[str]] = {}  # of refusals and of attempts that failed, by type
        self.domains: dict[str, Counter[str]] = {}  # recipients, by type
        self.members: dict[str, Counter[str]] = {}  # attempts, by type
        self.hours: dict[int, Counter[str]] = {}  # records by the hour, hours since 1970

    def add(self, entry: LogEntry) -> None:
        """Counts a record; what a template wrote counts under no name but its own."""
        record = entry.record
        kind = str(record.get("type") or "template")
        self.first = entry.when if self.first is None else min(self.first, entry.when)
        self.last = entry.when if self.last is None else max(self.last, entry.when)
        self.types[kind] += 1
        count(self.hours, int(entry.when // 3600), kind)
        if kind == "Reception":
            self.octets += record.get("size") or 0
        if reason := record.get("reason"):
            count(self.reasons, str(reason), kind, record.get("left_out") or 1)
        for recipient in recipients_of(record):
            count(self.domains, domain_of(recipient), kind)
        if kind in _ATTEMPTS and (member := _member(record)):
            count(self.members, member, kind)

    def as_json(self, most: int) -> dict[str, Any]:
        """most: how many domains and members."""
        return {
            "first": self.first,
            "last": self.last,
            "records": dict(self.types.most_common()),
            "octets": self.octets,
            "reasons": {name: dict(counts) for name, counts in _largest(self.reasons, len(self.reasons))},
            "domains": {name: dict(counts) for name, counts in _largest(self.domains, most)},
            "members": {name: dict(counts) for name, counts in _largest(self.members, most)},
            "hours": {_hour(hour): dict(counts) for hour, counts in sorted(self.hours.items())},
        }

    def lines(self, most: int) -> Iterator[str]:
        """For a person. most: how many domains and members."""
        if self.first is None or self.last is None:
            yield "no records"
            return
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.types.most_common())
        yield f"{_minute(self.first)} to {_minute(self.last)} UTC: {kinds}; {self.octets} octets received"
        yield from _section("by reason", self.reasons, len(self.reasons))
        yield from _section("by recipient's domain", self.domains, most)
        yield from _section("by member", self.members, most)
        yield from self._plot()

    def _plot(self) -> Iterator[str]:
        """The hours from the first to the last; of many, the last week's."""
        last = max(self.hours)
        hours = range(max(min(self.hours), last - 167), last + 1)
        counts = {hour: self.hours.get(hour, Counter()) for hour in hours}
        for kind in _SHOWN_BY_HOUR:
            most = max(each[kind] for each in counts.values())
            if most:
                yield ""
                yield f"{kind} by hour, UTC"
                yield from table(
                    [(_hour(hour), str(each[kind]), bar(each[kind], most, _WIDTH)) for hour, each in counts.items()],
                    right=(1,),
                )


def count(where: dict[Any, Counter[str]], name: Any, kind: str, number: int = 1) -> None:
    """Adds to one of many counters."""
    where.setdefault(name, Counter())[kind] += number


def _member(record: Record) -> str:
    peer = record.get("peer_address") or {}
    return str(peer.get("name") or peer.get("addr") or record.get("site") or "")


def _largest(sums: Mapping[str, Counter[str]], most: int) -> list[tuple[str, Counter[str]]]:
    return sorted(sums.items(), key=lambda each: (-each[1].total(), each[0]))[:most]


def _section(title: str, sums: Mapping[str, Counter[str]], most: int) -> Iterator[str]:
    if not sums:
        return
    shown = _largest(sums, most)
    largest = shown[0][1].total()
    yield ""
    yield title
    yield from table(
        [
            (name, str(counts.total()), bar(counts.total(), largest, _WIDTH // 2), _kinds(counts))
            for name, counts in shown
        ],
        right=(1,),
    )
    if len(sums) > len(shown):
        yield f"and {len(sums) - len(shown)} more"


def _kinds(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in counts.most_common())


def _hour(hour: int) -> str:
    return _minute(hour * 3600)


def _minute(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
