"""What is sent when: records become batches, batches are acknowledged, repeated or taken apart. No I/O, no clock.

One batch is under way at a time, so that records keep their order and what is acknowledged is always a beginning of
what was read. A batch that its sink *failed* to take comes again after a while, without the records that it did take;
one that the sink *refused* for what is in it is halved, again and again, until the record at fault is alone and can be
set aside. Nothing else ever skips a record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LONGEST_WAIT = 3600.0  # seconds that a sink may ask to be left alone
_BATCHES_WAITING = 2  # are read ahead


class Mark(NamedTuple):
    """A place in a segment: all in front of it has been read. position: octets of its text; None: the end."""

    directory: str
    segment: str
    position: int | None


class Parcel(NamedTuple):
    """One record as it is sent. id: the same whenever this record is sent. when: seconds since 1970."""

    id: str
    body: bytes
    topic: str = ""
    key: str = ""
    when: float = 0.0


@dataclass(slots=True)
class _Item:
    """A step in what was read: to `mark`, by a parcel or by something that nobody wants."""

    mark: Mark
    parcel: Parcel | None
    since: float  # when it was offered


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """What a sink is given at once, never empty. attempt: 1 for the first."""

    parcels: Sequence[Parcel]
    attempt: int = 1

    @property
    def id(self) -> str:
        """The same for the same parcels."""
        return f"{self.parcels[0].id}+{len(self.parcels)}"


@dataclass(frozen=True, slots=True)
class Taken:
    """The sink has all of a batch."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It does not, now. taken: the numbers of the parcels that it has. after: seconds that it asks to be left alone."""

    why: str
    taken: Collection[int] = ()
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class NeverTaken:
    """It never will, for what is in it."""

    why: str


Outcome = Taken | Failed | NeverTaken


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch is full: octets, records, or the seconds that its first record has waited. Retries: seconds."""

    records: int = 500
    octets: int = 1_000_000
    delay: float = 1.0
    first_retry: float = 0.5
    longest_retry: float = 60.0


class Dispatch:
    """The way of the records of one shipment. Times are seconds of any one clock."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: deque[_Item] = deque()
        self._records = self._octets = 0  # that wait
        self._pieces: list[list[_Item]] = []  # of a batch that was halved or failed; the first is the last
        self._flying: list[_Item] | None = None
        self._attempts = 0  # of the piece that is next
        self._failures = 0  # in a row
        self._retry_at = float("-inf")
        self._acknowledged: dict[tuple[str, str], int | None] = {}

    @property
    def has_room(self) -> bool:
        """Whether more should be read."""
        limits = self._limits
        return self._records < _BATCHES_WAITING * limits.records and self._octets < _BATCHES_WAITING * limits.octets

    @property
    def unacknowledged(self) -> int:
        """Records that were offered and are not acknowledged."""
        pieces = [*self._pieces, self._flying or ()]
        return self._records + sum(item.parcel is not None for piece in pieces for item in piece)

    @property
    def oldest(self) -> Parcel | None:
        """The first of them."""
        for piece in (self._flying or (), *reversed(self._pieces), self._waiting):
            for item in piece:
                if item.parcel is not None:
                    return item.parcel
        return None

    @property
    def octets(self) -> int:
        """Of the records that wait to be sent for the first time."""
        return self._octets

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def offer(self, parcel: Parcel, mark: Mark, now: float) -> None:
        """A record that was read up to `mark`."""
        self._waiting.append(_Item(mark, parcel, now))
        self._records += 1
        self._octets += len(parcel.body)

    def skip(self, mark: Mark, now: float) -> None:
        """Nothing up to `mark` is wanted."""
        if not (self._waiting or self._pieces or self._flying):
            self._acknowledge(mark)
        elif (
            self._waiting
            and (last := self._waiting[-1]).parcel is None
            and last.mark[:2] == mark[:2]
        ):  # fmt: skip
            last.mark = mark
        else:
            self._waiting.append(_Item(mark, None, now))

    def due(self, now: float, *, flush: bool = False) -> RecordBatch | None:
        """The batch to send now, if any; `settle` is to follow. flush: also one that is not full yet."""
        if self._flying is not None or now < self._retry_at:
            return None
        if self._pieces:
            self._flying = self._pieces.pop()
        elif flush or now >= self._full_at():
            self._flying = self._cut()
        if not self._flying:
            return None
        parcels = [item.parcel for item in self._flying if item.parcel is not None]
        if not parcels:  # nothing but what nobody wants
            self._settled(self._flying)
            return self.due(now, flush=flush)
        self._attempts += 1
        return RecordBatch(parcels, self._attempts)

    def next_at(self) -> float:
        """When `due` may have something although nothing more is read; infinite for never."""
        if self._flying is not None:
            return float("inf")
        return self._retry_at if self._pieces else max(self._retry_at, self._full_at())

    def settle(self, outcome: Outcome, now: float, jitter: float = 0.5) -> Parcel | None:
        """What became of the batch under way. jitter: 0 to 1. Returns a record that is to be set aside: it counts as
        acknowledged.
        """
        items, self._flying = self._flying, None
        assert items
        match outcome:
            case Taken():
                self._settled(items)
            case Failed(_, taken, after):
                self._failures += 1
                self._retry_at = now + max(self._delay(jitter), min(after, LONGEST_WAIT))
                self._put_back(items, taken)
            case NeverTaken():
                return self._take_apart(items)
        return None

    def acknowledged(self) -> list[Mark]:
        """How far each segment is acknowledged, as far as that is new since the last call."""
        found, self._acknowledged = self._acknowledged, {}
        return [Mark(*place, position) for place, position in found.items()]

    def _full_at(self) -> float:
        if not self._waiting:
            return float("inf")
        if self._records >= self._limits.records or self._octets >= self._limits.octets:
            return float("-inf")
        return self._waiting[0].since + self._limits.delay

    def _cut(self) -> list[_Item]:
        items: list[_Item] = []
        records = octets = 0
        while self._waiting:
            parcel = self._waiting[0].parcel
            if parcel is not None:
                size = len(parcel.body)
                if records and (records >= self._limits.records or octets + size > self._limits.octets):
                    break
                records, octets = records + 1, octets + size
            items.append(self._waiting.popleft())
        self._records -= records
        self._octets -= octets
        return items

    def _delay(self, jitter: float) -> float:
        """Doubling from one failure to the next, by up to a half shorter so that not all come at once."""
        longest = min(self._limits.longest_retry, self._limits.first_retry * 2.0 ** min(self._failures - 1, 30))
        return longest * (0.5 + jitter / 2)

    def _settled(self, items: Sequence[_Item]) -> None:
        self._attempts = self._failures = 0
        self._retry_at = float("-inf")
        for item in items:
            self._acknowledge(item.mark)

    def _acknowledge(self, mark: Mark) -> None:
        self._acknowledged[mark.directory, mark.segment] = mark.position

    def _put_back(self, items: list[_Item], taken: Collection[int]) -> None:
        """What the sink has is not sent again; what stands in front of all else counts."""
        number = -1
        for item in items:
            if item.parcel is not None:
                number += 1
                if number in taken:
                    item.parcel = None
        first = next((place for place, item in enumerate(items) if item.parcel is not None), len(items))
        for item in items[:first]:
            self._acknowledge(item.mark)
        if items[first:]:
            self._pieces.append(items[first:])

    def _take_apart(self, items: list[_Item]) -> Parcel | None:
        full = [place for place, item in enumerate(items) if item.parcel is not None]
        if len(full) == 1:
            parcel = items[full[0]].parcel
            self._settled(items)
            return parcel
        middle = full[len(full) // 2]
        self._pieces += [items[middle:], items[:middle]]
        self._attempts = self._failures = 0
        return None
