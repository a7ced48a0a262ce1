"""The members' table in the arena: what each worker knows of each member, and how much it asks of it.

A worker writes its own row and reads the others', so nothing is locked: of what several have learned of a member the
latest holds (gateway/couriers/fleet/health.py), and what they ask of it is added up. A row belongs to a worker's slot
and to every second generation of it; it is taken over with its entries. Words are of 64 bits, which the machine reads
and writes whole; what was learned is more than one, and its time is written last and read before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from gateway.couriers.fleet.health import Health, MemberState

ROWS = 128  # processes
MOST_MEMBERS = 127  # of a row
PLACES = MOST_MEMBERS + 1  # the first is the head
WORDS = 32  # of a place
SIZE = ROWS * PLACES * WORDS * 8

_COUNT, _BEAT = 0, 1  # of a row's head: entries; when its worker last was at work
_KEY, _AT, _STATE, _FAILURES, _SINCE, _UNTIL, _WINDOW, _CONNECTIONS, _BUSY, _WAITING = range(10)  # of an entry
_SILENT = 5.0  # seconds after which a row's worker is taken for gone, and its connections with it


class MemberTable:
    """One worker's view of the table. row: its own one; None for a table that nobody shares."""

    def __init__(self, memory: memoryview | None = None, row: int | None = None) -> None:
        if memory is None or row is None or row >= ROWS:
            memory, row = memoryview(bytearray(PLACES * WORDS * 8)), 0
        self.integers = memory.cast("q")
        self.floats = memory.cast("d")
        self.rows = len(self.integers) // (PLACES * WORDS)
        self._row = row
        self._used: dict[int, MemberEntry] = {}
        for place in range(1, self.integers[self._head(row) + _COUNT] + 1):  # of the worker before
            for word in (_CONNECTIONS, _BUSY, _WAITING):
                self.integers[self._at(row, place) + word] = 0

    def enter(self, host: str, port: int) -> MemberEntry:
        """The entry of a member in this worker's row; one that nobody else sees where all places are taken."""
        key = int.from_bytes(blake2b(f"{host}:{port}".encode(), digest_size=8).digest(), "big", signed=True) or 1
        place = self.find(self._row, key)
        head = self._head(self._row)
        if place is None and self.integers[head + _COUNT] < MOST_MEMBERS:
            place = self.integers[head + _COUNT] + 1
            self.integers[self._at(self._row, place) + _KEY] = key
            self.integers[head + _COUNT] = place
        elif place is None:
            place = next((place for place in range(1, PLACES) if place not in self._used), None)
            if place is None:
                return MemberEntry(MemberTable(), key, 1)
            first = self._at(self._row, place)
            self.integers[first + _KEY] = 0
            for word in range(first + 1, first + WORDS):
                self.integers[word] = 0
            self.integers[first + _KEY] = key
        entry = self._used[place] = MemberEntry(self, key, place)
        return entry

    def leave(self, entry: MemberEntry) -> None:
        """This worker has forgotten the member."""
        self._used.pop(entry.place, None)

    def beat(self, now: float) -> None:
        """This worker is at work."""
        self.floats[self._head(self._row) + _BEAT] = now

    def own(self, place: int) -> int:
        """Where a place of this worker's row begins."""
        return self._at(self._row, place)

    def others(self, key: int, now: float | None = None) -> Iterator[int]:
        """Where the other rows have a member. now: only those whose workers are at work."""
        for row in range(self.rows):
            if row == self._row or not self.integers[self._head(row) + _COUNT]:
                continue
            if now is not None and now - self.floats[self._head(row) + _BEAT] > _SILENT:
                continue
            place = self.find(row, key)
            if place is not None:
                yield self._at(row, place)

    def find(self, row: int, key: int) -> int | None:
        """The place that a row has for a member."""
        first = self._head(row)
        for place in range(1, self.integers[first + _COUNT] + 1):
            if self.integers[first + place * WORDS + _KEY] == key:
                return place
        return None

    def _head(self, row: int) -> int:
        return row * PLACES * WORDS

    def _at(self, row: int, place: int) -> int:
        return (row * PLACES + place) * WORDS


class MemberEntry:
    """A member in a worker's row."""

    def __init__(self, table: MemberTable, key: int, place: int) -> None:
        self.place = place
        self._table = table
        self._key = key
        self._first = table.own(place)

    def publish(self, health: Health) -> None:
        """Tell the others what was learned here."""
        integers, floats, first = self._table.integers, self._table.floats, self._first
        floats[first + _AT] = 0.0
        integers[first + _STATE], integers[first + _FAILURES] = health.state, health.failures
        floats[first + _SINCE], floats[first + _UNTIL] = health.since, health.until
        integers[first + _WINDOW] = health.window
        floats[first + _AT] = health.at

    def latest(self) -> Health:
        """What is known of the member, by whoever learned something last; Health() where nobody did."""
        return max([self._read(first) for first in (self._first, *self._table.others(self._key))], key=_learned)

    def connect(self, connections: int, now: float) -> None:
        """So many connections this worker has to the member."""
        self._table.beat(now)
        self._table.integers[self._first + _CONNECTIONS] = connections

    def ask(self, busy: int, waiting: bool) -> None:
        """So many messages of this worker are under way to the member; whether others wait."""
        self._table.integers[self._first + _BUSY] = busy
        self._table.integers[self._first + _WAITING] = waiting

    def connections_of_others(self, now: float) -> int:
        """How many connections the other workers have to it."""
        return sum([self._table.integers[first + _CONNECTIONS] for first in self._table.others(self._key, now)])

    def others(self, now: float) -> tuple[int, int]:
        """How many other workers use it, and for how many of these messages wait."""
        integers = self._table.integers
        asked = [
            integers[first + _WAITING]
            for first in self._table.others(self._key, now)
            if integers[first + _WAITING] or integers[first + _CONNECTIONS]
        ]
        return len(asked), sum(asked)

    def _read(self, first: int) -> Health:
        integers, floats = self._table.integers, self._table.floats
        at = floats[first + _AT]
        state, failures, window = integers[first + _STATE], integers[first + _FAILURES], integers[first + _WINDOW]
        health = Health(MemberState(state), at, failures, floats[first + _SINCE], floats[first + _UNTIL], window)
        return health if at > 0 and floats[first + _AT] == at else Health()


def _learned(health: Health) -> float:
    return health.at
