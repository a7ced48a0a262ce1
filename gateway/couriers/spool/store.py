"""One file of the spool: messages in SQLite, their contents apart from what recovery reads.

Everything here blocks and belongs to one thread, the writer's (gateway/couriers/spool/writer.py) or a command's. When
which message is tried is schedule.py's business, what a message's state means kept.py's.

SQLite in WAL mode with synchronous=FULL: a transaction is one sync, and is there whole or not at all, whatever ends the
process. What SQLite does not notice is an octet that changed on the disk: each row has a CRC-32 of its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from struct import pack
from zlib import crc32

PAGE_SIZE = 8192  # octets; docs/spool.md has what was measured
PART = 1 << 20  # octets of a content in one row, so that no large one is in memory as a whole
_PARTS = 1 << 12  # most parts of a content
TOGETHER = 1 << 20  # octets of contents that go into the file with one statement
MOST_ROWS = 64  # … and rows
WAL_PAGES = 4096  # the log goes into the file once it has so many: 32 MiB
_WAL_KEPT = 64 << 20  # octets that the log's own file keeps for the next time
PATIENCE = 10.0  # seconds that a command waits for the other's transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
  number INTEGER PRIMARY KEY, due REAL, arrived REAL, expires REAL, size INTEGER, attempts INTEGER, state INTEGER,
  site TEXT, queue TEXT, envelope BLOB, sum INTEGER
);
CREATE TABLE IF NOT EXISTS contents (place INTEGER PRIMARY KEY, octets BLOB, sum INTEGER);
CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, asked TEXT, answer TEXT);
"""
_COLUMNS = "number, due, arrived, expires, size, attempts, state, site, queue, envelope, sum"
_WIDTH = len(_COLUMNS.split(", "))
_ASSIGNED = ", ".join([f"{name} = ?" for name in _COLUMNS.split(", ")[1:]])

WAITS_FOR_TIME, WAITS_FOR_SITE, HELD, DAMAGED = range(4)  # the states of a row


class Damaged(Exception):
    """What is stored is not what was written."""


class Row:
    """A message as the file has it, its content apart.

    number: its place in the file, in the order of arrival. due, arrived, expires: unix times. size: octets of the
    content as stored. state: one of the four above. site: where it was to go when it was last tried. envelope: the rest
    of what is known, as octets.
    """

    __slots__ = ("arrived", "attempts", "due", "envelope", "expires", "number", "queue", "site", "size", "state")

    def __init__(  # noqa: PLR0913, PLR0917  # a row
        self,
        number: int,
        due: float,
        arrived: float,
        expires: float,
        size: int,
        attempts: int,
        state: int,
        site: str,
        queue: str,
        envelope: bytes,
    ) -> None:
        self.number = number
        self.due = due
        self.arrived = arrived
        self.expires = expires
        self.size = size
        self.attempts = attempts
        self.state = state
        self.site = site
        self.queue = queue
        self.envelope = envelope

    def values(self) -> tuple[object, ...]:
        """In the order of the columns, with the check sum."""
        return (
            *(self.number, self.due, self.arrived, self.expires, self.size, self.attempts, self.state),
            *(self.site, self.queue, self.envelope, self.sum()),
        )

    def sum(self) -> int:
        """Over everything that counts."""
        numbers = pack(
            "<qdddqqq", self.number, self.due, self.arrived, self.expires, self.size, self.attempts, self.state
        )
        return crc32(self.envelope, crc32(f"{self.site}\0{self.queue}".encode(), crc32(numbers)))


class Store:
    """An open file. Every method may raise sqlite3.Error; whoever changes something does it inside transaction()."""

    def __init__(self, path: str) -> None:
        """Opens the file, or makes it. Raises sqlite3.DatabaseError for what is no such file, or is damaged."""
        self.path = path
        self.commits = 0
        self._new_contents: list[object] = []  # added, and not in the file yet: the values of rows, one after the other
        self._new_messages: list[object] = []
        self._new_octets = 0
        with contextlib.suppress(OSError):  # SQLite says what is wrong; mail is the service's alone
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            run = self._database.execute
            run(f"PRAGMA page_size={PAGE_SIZE}")
            run("PRAGMA journal_mode=WAL")
            run("PRAGMA synchronous=FULL")
            run(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
            run(f"PRAGMA journal_size_limit={_WAL_KEPT}")
            run("PRAGMA cell_size_check=ON")
            self._database.executescript(_SCHEMA)
            (last,) = run("SELECT max(number) FROM messages").fetchone()
            self._last: int = last or 0
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """The log goes into the file."""
        self._database.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done inside is on disk, all of it, when this is left; none of it after an exception."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._insert()
            self._database.execute("COMMIT")
        except BaseException:
            self._forget_new()
            if self._database.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
            raise
        self.commits += 1

    @contextlib.contextmanager
    def part(self) -> Iterator[None]:
        """A part of a transaction: nothing of it is done after an exception, whatever becomes of the rest."""
        self._insert()
        self._database.execute("SAVEPOINT part")
        try:
            yield
            self._insert()
        except BaseException:
            self._forget_new()
            if self._database.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK TO part")
            raise
        self._database.execute("RELEASE part")

    # --- changes ------------------------------------------------------------------------------------------------------

    def append(self, row: Row, pieces: Iterable[bytes]) -> None:
        """Adds a message, which gets its size here, and its number unless it has one. It is there for others once the
        transaction is over.
        """
        row.number = row.number or self._last + 1
        self._last = max(self._last, row.number)
        row.size = 0
        place = row.number * _PARTS
        for part in _parts(pieces):
            row.size += len(part)
            self._new_contents += (place, part, crc32(part))
            self._new_octets += len(part)
            if self._new_octets >= TOGETHER or len(self._new_contents) >= 3 * MOST_ROWS:
                self._insert()
            place += 1
        self._new_messages += row.values()
        if len(self._new_messages) >= _WIDTH * MOST_ROWS:
            self._insert()

    def _insert(self) -> None:
        """Puts what was added into the file, all of it with a statement for each table: between two statements the
        thread waits for its turn with the event loop's.
        """
        contents, messages = self._new_contents, self._new_messages
        self._forget_new()
        for table, columns, values in (("contents", 3, contents), ("messages", _WIDTH, messages)):
            if values:
                row = f"({', '.join('?' * columns)})"
                rows = ", ".join([row] * (len(values) // columns))
                self._database.execute(f"INSERT INTO {table} VALUES {rows}", values)

    def _forget_new(self) -> None:
        self._new_contents, self._new_messages, self._new_octets = [], [], 0

    def change(self, row: Row) -> None:
        """Puts what is known of a message now in the place of what was; nothing happens where it is there no more."""
        number, *values = row.values()
        self._database.execute(f"UPDATE messages SET {_ASSIGNED} WHERE number = ?", (*values, number))

    def remove(self, number: int) -> None:
        """Forgets a message."""
        first = number * _PARTS
        self._database.execute("DELETE FROM contents WHERE place BETWEEN ? AND ?", (first, first + _PARTS - 1))
        self._database.execute("DELETE FROM messages WHERE number = ?", (number,))

    def shrink(self) -> None:
        """Gives the room of what was removed back to the file system. For a file that is empty, or nearly."""
        self._database.execute("VACUUM")
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # --- reading ------------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """All messages in the order of arrival. One whose row was damaged comes as DAMAGED."""
        return self._rows("ORDER BY number")

    def row(self, number: int) -> Row | None:
        """One message; None where it is there no more."""
        return next(self._rows("WHERE number = ?", number), None)

    def content(self, number: int) -> bytes:
        """A message's content as it was stored. Raises Damaged."""
        first = number * _PARTS
        found = self._database.execute(
            "SELECT octets, sum FROM contents WHERE place BETWEEN ? AND ? ORDER BY place", (first, first + _PARTS - 1)
        ).fetchall()
        size = self._database.execute("SELECT size FROM messages WHERE number = ?", (number,)).fetchone()
        sound = all([isinstance(part, bytes) and crc32(part) == expected for part, expected in found])
        if not sound or size != (sum([len(part) for part, _ in found]),):
            raise Damaged(f"{self.path}: the content of message {number} is damaged")
        return b"".join([part for part, _ in found])

    def octets(self) -> int:
        """What the file takes, its log included."""
        return sum([os.path.getsize(name) for name in (self.path, f"{self.path}-wal") if os.path.exists(name)])

    def is_sound(self) -> bool:
        """Whether SQLite finds nothing wrong with all of the file: reads all of it."""
        return bool(self._database.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))

    def _rows(self, which: str, *values: object) -> Iterator[Row]:
        for found in self._database.execute(f"SELECT {_COLUMNS} FROM messages {which}", values):
            try:
                row = Row(*found[:-1])
                if row.sum() != found[-1]:
                    row.state = DAMAGED
            except Exception:  # a column of another type
                row = Row(found[0], 0.0, 0.0, float("inf"), 0, 0, DAMAGED, "", "", b"")
            yield row

    # --- orders of a command ------------------------------------------------------------------------------------------

    def version(self) -> int:
        """Changes when another process has changed the file."""
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    def order(self, asked: str) -> int:
        """Leaves an order for the process that works on the file; returns its number."""
        return self._database.execute("INSERT INTO orders (asked) VALUES (?)", (asked,)).lastrowid or 0

    def orders(self) -> list[tuple[int, str]]:
        """Those that nobody has answered."""
        found = self._database.execute("SELECT number, asked FROM orders WHERE answer IS NULL ORDER BY number")
        return [(int(number), str(asked)) for number, asked in found]

    def answer(self, number: int, said: str) -> None:
        """An order was carried out."""
        self._database.execute("UPDATE orders SET answer = ? WHERE number = ?", (said, number))

    def take_answer(self, number: int) -> str | None:
        """What was said to an order, which is forgotten then; None as long as nothing was."""
        found = self._database.execute("SELECT answer FROM orders WHERE number = ?", (number,)).fetchone()
        if found is None or found[0] is None:
            return None
        self._database.execute("DELETE FROM orders WHERE number = ?", (number,))
        return str(found[0])


def _parts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same octets in parts of the size that a row has."""
    kept: list[bytes] = []
    length = 0
    for piece in pieces:
        kept.append(piece)
        length += len(piece)
        while length >= PART:
            whole = b"".join(kept)
            yield whole[:PART]
            kept, length = [whole[PART:]], length - PART
    if length:
        yield b"".join(kept) if len(kept) != 1 else kept[0]


# --- damage -----------------------------------------------------------------------------------------------------------


def opened(path: str) -> tuple[Store, list[Row], str | None]:
    """A store and its messages, without their envelopes; one that is damaged is set aside, and a new one has what could
    be read of it.

    Returns where the damaged file is now, else None. Raises sqlite3.OperationalError where it is not the file's fault,
    such as a directory that cannot be written to.
    """
    store: Store | None = None
    try:
        store = Store(path)
        return store, _in_short(store), None
    except sqlite3.OperationalError:
        if store is not None:
            store.close()
        raise
    except sqlite3.DatabaseError:
        if store is not None:
            store.close()
    aside = f"{path}.damaged-{time.time_ns()}"
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    store = Store(path)
    _salvage(aside, store)
    return store, _in_short(store), aside


def _in_short(store: Store) -> list[Row]:
    """All messages, without their envelopes: there may be many, and these are read again when they are needed."""
    rows = []
    for row in store.rows():
        row.envelope = b""
        rows.append(row)
    return rows


def _salvage(aside: str, store: Store) -> None:
    """Copies what can be read: from the beginning up to the damage, and from the end down to it."""
    with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(Store(aside)) as damaged:
        seen: set[int] = set()
        for which in ("ORDER BY number", "ORDER BY number DESC"):
            with contextlib.suppress(sqlite3.DatabaseError):
                for row in damaged._rows(which):
                    if row.number in seen:
                        break
                    seen.add(row.number)
                    with contextlib.suppress(sqlite3.DatabaseError, Damaged):
                        content = damaged.content(row.number)
                        with store.transaction():
                            store.append(row, [content])
