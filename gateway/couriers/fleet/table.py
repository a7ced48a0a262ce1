"""The members' table in the arena: what each worker knows of each member, and how much it asks of it.

A worker writes its own row and reads the others', so nothing is locked: of what several have learned of a member the
latest holds (gateway/couriers/fleet/health.py), and what they ask of it is added up. A row belongs to a worker's slot
and to every second generation of it; it is taken over with its entries. Words are of 64 bits, which the machine reads
and writes whole; what was learned is more than one, and its time is written last and read before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import compress

from gateway.couriers.fleet.health import Health, MemberState
from gateway.smtp.capabilities import MOST, Abilities

ROWS = 128  # processes
SUPERVISORS_ROW = 0
MOST_MEMBERS = 127  # of a row
PLACES = MOST_MEMBERS + 1  # the first is the head
WORDS = 44  # of a place
SIZE = ROWS * PLACES * WORDS * 8

_COUNT, _BEAT = 0, 1  # of a row's head: entries; when its worker last was at work
# of an entry
_KEY, _AT, _STATE, _FAILURES, _SINCE, _UNTIL, _WINDOW, _CONNECTIONS, _BUSY, _WAITING, _DRAINED = range(11)
RESULTS = ("delivered", "refused", "deferred", "failed", "unknown")  # of transactions
STAGES = (
    "connect",
    "greeting",
    "ehlo",
    "starttls",
    "auth",
    "introduction",
    "mail",
    "rcpt",
    "data",
    "end_of_data",
)  # where it failed
_RESULTS = 11
_SECONDS = _RESULTS + len(RESULTS)
_STAGES = _SECONDS + 1
_GROUP, _WEIGHT, _ZONE = (_STAGES + len(STAGES) + place for place in range(3))
_TAKES = _ZONE + 2  # what it announced, below the time in ms: one word, so that nothing is read half
_LARGEST = _TAKES + 1  # octets of a message, as it announced them
_LEAST_TIME = _LARGEST + 1  # seconds, likewise
_NAME = _LEAST_TIME + 1
_ZONE_SIZE = 2 * 8  # octets
_NAME_SIZE = (WORDS - _NAME) * 8  # octets
_SILENT = 5.0  # seconds after which a row's worker is taken for gone, and its connections with it


class MemberTable:
    """One process's view of the table. row: its own one; None for who only reads. memory: None for one of its own."""

    def __init__(self, memory: memoryview | None = None, row: int | None = None) -> None:
        if memory is None or (row is not None and row >= ROWS):
            memory, row = memoryview(bytearray(PLACES * WORDS * 8)), 0
        self._octets = memory
        self.integers = memory.cast("q")
        self.floats = memory.cast("d")
        self.rows = len(self.integers) // (PLACES * WORDS)
        self._counts = self.integers[_COUNT : self.rows * PLACES * WORDS : PLACES * WORDS]  # of the rows' heads
        self._row = -1 if row is None else row
        self._used: dict[int, MemberEntry] = {}
        self._active: list[int] = []  # rows with entries, but for the own one
        entries = 0 if row is None else self.integers[self._head(row) + _COUNT]
        for place in range(1, entries + 1):  # of the worker before
            for word in (_CONNECTIONS, _BUSY, _WAITING):
                self.integers[self._at(self._row, place) + word] = 0

        self.look()

    def enter(self, host: str, port: int, name: str = "") -> MemberEntry:
        """The entry of a member in this worker's row; one that nobody else sees where all places are taken.

        name: what people call it.
        """
        key = int.from_bytes(blake2b(f"{host}:{port}".encode(), digest_size=8).digest(), "big", signed=True) or 1
        return self.enter_key(key, name)

    def enter_key(self, key: int, name: str) -> MemberEntry:
        """The same for a member that another row has."""
        self.look()
        place = self.find(self._row, key)
        head = self._head(self._row)
        if place is None and self.integers[head + _COUNT] < MOST_MEMBERS:
            place = self.integers[head + _COUNT] + 1
            self.integers[self._at(self._row, place) + _KEY] = key
            self.integers[head + _COUNT] = place
        elif place is None:
            place = next((place for place in range(1, PLACES) if place not in self._used), None)
            if place is None:
                return MemberTable().enter_key(key, name)
            first = self._at(self._row, place)
            self.integers[first + _KEY] = 0
            for word in range(first + 1, first + WORDS):
                self.integers[word] = 0
            self.integers[first + _KEY] = key
        entry = self._used[place] = MemberEntry(self, key, place)
        self.put_text(self._at(self._row, place) + _NAME, name, _NAME_SIZE)
        return entry

    def leave(self, entry: MemberEntry) -> None:
        """This worker has forgotten the member."""
        self._used.pop(entry.place, None)

    def beat(self, now: float) -> None:
        """This worker is at work."""
        self.floats[self._head(self._row) + _BEAT] = now

    def look(self) -> None:
        """See which rows there are; what does not matter at once is read of these alone."""
        used = compress(range(self.rows), self._counts.tolist())
        self._active = [row for row in used if row != self._row]

    def members(self) -> Iterator[tuple[int, int]]:
        """The place of each entry of all rows, and its key."""
        for row in range(self.rows):
            for place in range(1, self.integers[self._head(row) + _COUNT] + 1):
                yield self._at(row, place), self.integers[self._at(row, place) + _KEY]

    def name(self, first: int) -> str:
        """What people call the member whose entry begins here."""
        return self._text(first + _NAME, _NAME_SIZE)

    def described(self, first: int) -> tuple[int, int, str]:
        """Group, weight and zone of the member whose entry begins here; 0, 0 and "" where nobody has said."""
        return self.integers[first + _GROUP], self.integers[first + _WEIGHT], self._text(first + _ZONE, _ZONE_SIZE)

    def put_text(self, word: int, text: str, size: int) -> None:
        """Write a text into so many octets, as much of it as fits."""
        octets = text.encode()[:size]
        self._octets[word * 8 : word * 8 + size] = octets.ljust(size, b"\0")

    def _text(self, word: int, size: int) -> str:
        return bytes(self._octets[word * 8 : word * 8 + size]).rstrip(b"\0").decode("utf-8", "ignore")

    def is_at_work(self, first: int, now: float) -> bool:
        """Whether the worker that has this entry is at work."""
        head = first - first % (PLACES * WORDS)
        return now - self.floats[head + _BEAT] <= _SILENT

    def own(self, place: int) -> int:
        """Where a place of this worker's row begins."""
        return self._at(self._row, place)

    def others(self, key: int, now: float | None = None) -> Iterator[int]:
        """Where the other rows have a member. now: only those whose workers are at work."""
        for row in self._active:
            if now is not None and now - self.floats[self._head(row) + _BEAT] > _SILENT:
                continue
            place = self.find(row, key)
            if place is not None:
                yield self._at(row, place)

    def health(self, first: int) -> Health:
        """What an entry says; Health() while it is written."""
        integers, floats = self.integers, self.floats
        at = floats[first + _AT]
        state, failures, window = integers[first + _STATE], integers[first + _FAILURES], integers[first + _WINDOW]
        health = Health(MemberState(state), at, failures, floats[first + _SINCE], floats[first + _UNTIL], window)
        return health if at > 0 and floats[first + _AT] == at else Health()

    def load(self, first: int) -> tuple[int, int, int, bool]:
        """What an entry's worker asks of the member: connections, messages under way, those waiting; is it drained."""
        integers = self.integers
        connections, busy, waiting, drained = (
            integers[first + word] for word in (_CONNECTIONS, _BUSY, _WAITING, _DRAINED)
        )
        return connections, busy, waiting, bool(drained)

    def counts(self, first: int) -> tuple[list[int], float, list[int]]:
        """What an entry's worker has counted: transactions by RESULTS, seconds, failures by STAGES."""
        results = [self.integers[first + _RESULTS + place] for place in range(len(RESULTS))]
        failures = [self.integers[first + _STAGES + place] for place in range(len(STAGES))]
        return results, self.floats[first + _SECONDS], failures

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
        self._table.look()
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

    def is_drained(self) -> bool:
        """Whether somebody wants it to get no messages."""
        return any([self._table.integers[first + _DRAINED] for first in self._table.others(self._key)])

    def describe(self, group: int, weight: int, zone: str) -> None:
        """What the policy says of it, for people to see."""
        self._table.integers[self._first + _GROUP] = group
        self._table.integers[self._first + _WEIGHT] = weight
        self._table.put_text(self._first + _ZONE, zone, _ZONE_SIZE)

    def announce(self, taken: Abilities, now: float) -> None:
        """What it has announced in its answer to EHLO; see gateway/smtp/capabilities.py."""
        self._table.integers[self._first + _LARGEST] = taken.size
        self._table.integers[self._first + _LEAST_TIME] = taken.least_time
        self._table.integers[self._first + _TAKES] = int(now * 1000) * MOST + taken.capabilities

    def announced(self) -> Abilities | None:
        """The same, as whoever asked it last has heard it; None where nobody did. Who looks while it is written may
        have a size or time too early.
        """
        integers = self._table.integers
        places = (self._first, *self._table.others(self._key))
        latest, first = max([(integers[first + _TAKES], first) for first in places])
        if not latest:
            return None
        return Abilities(latest % MOST, integers[first + _LARGEST], integers[first + _LEAST_TIME])

    def drain(self, drained: bool) -> None:
        """Let it get none, or some again."""
        self._table.integers[self._first + _DRAINED] = drained

    def count(self, results: Sequence[int], seconds: float, failures: Mapping[str, int]) -> None:
        """So many transactions ended since the last call, by result; so long those delivered took; so it failed."""
        integers = self._table.integers
        for place, number in enumerate(results, self._first + _RESULTS):
            integers[place] += number
        self._table.floats[self._first + _SECONDS] += seconds
        for stage, number in failures.items():
            integers[self._first + _STAGES + STAGES.index(stage)] += number

    def _read(self, first: int) -> Health:
        return self._table.health(first)


def _learned(health: Health) -> float:
    return health.at
