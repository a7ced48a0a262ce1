"""Segments of log records and files of the spool, as a crash, a disk or somebody's editor left them: reading them never
fails otherwise than it says, whole lines come out, and a message is what was kept, or told to be damaged.

A target of `make fuzz`; the tests run it on a few inputs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import tempfile
from functools import cache
from pathlib import Path

import zstandard

from gateway.couriers.spool.store import DAMAGED, WAITS_FOR_TIME, Damaged, Row, Store, opened
from gateway.logs.reader import SegmentReader

LINES = [json.dumps({"n": number, "text": "x" * (number * 7 % 90)}).encode() for number in range(40)]
CONTENTS = {number: b"content %d " % number * (50 * number) for number in (1, 2, 3)}

logging.getLogger("gateway.logs").addHandler(logging.NullHandler())


@cache
def segment() -> bytes:
    """Two frames, as a writer leaves that appends."""
    return b"".join(
        zstandard.ZstdCompressor(write_checksum=True).compress(b"\n".join(lines) + b"\n")
        for lines in (LINES[:25], LINES[25:])
    )


@cache
def spool() -> bytes:
    """A file with three messages."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/spool"
        with contextlib.closing(Store(path)) as store, store.transaction():
            for number, content in CONTENTS.items():
                store.append(row_of(number), [content])
        return Path(path).read_bytes()


def row_of(number: int) -> Row:
    """The message of that number."""
    size = len(CONTENTS[number])
    return Row(number, 5.0, 1.0, 9.0, size, 1, WAITS_FOR_TIME, "site", "queue", b"envelope %d" % number)


def damaged(octets: bytes, how: bytes) -> bytes:
    """Three octets for each change: where, and what is there instead; the first octet cuts the end off, if odd."""
    found = bytearray(octets)
    if how[0] & 1:
        del found[len(found) * how[0] // 256 :]
    for at in range(1, len(how) - 2, 3):
        if found:
            found[(how[at] << 8 | how[at + 1]) * 257 % len(found)] = how[at + 2]
    return bytes(found)


def check_segment(octets: bytes) -> None:
    """Lines are read as far as it goes, however often one asks."""
    with tempfile.NamedTemporaryFile(suffix=".zst") as file:
        file.write(octets)
        file.flush()
        reader = SegmentReader(file.name)
        lines = [*reader.lines()]
        if not reader.finished:
            lines += reader.lines()
        reader.close()
        assert not any(b"\n" in line for line in lines)
        assert reader.position == sum(len(line) + 1 for line in lines)
        if octets == segment():
            assert lines == LINES


def check_spool(octets: bytes) -> None:
    """What is read is what was kept; the rest is damaged, or gone with a file that is set aside."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/spool"
        Path(path).write_bytes(octets)
        try:
            store, rows, aside = opened(path)
        except sqlite3.OperationalError:  # not the file's fault, as far as SQLite knows
            return
        with contextlib.closing(store):
            assert aside is None or Path(aside).exists() or not octets
            for row in rows:
                if row.state != DAMAGED:
                    found = store.row(row.number)
                    assert found is None or found.state == DAMAGED or found.values() == row_of(row.number).values()
                    with contextlib.suppress(Damaged, sqlite3.DatabaseError):
                        assert store.content(row.number) == CONTENTS[row.number]


def one_input(data: memoryview) -> None:
    """The first octet chooses the file, the rest what is done to it; or, for some, is a segment by itself."""
    octets = bytes(data)
    if len(octets) < 2:
        return
    if octets[0] % 8 == 0:
        check_spool(damaged(spool(), octets[1:]))
    elif octets[0] % 8 == 1:
        check_segment(octets[1:])
    else:
        check_segment(damaged(segment(), octets[1:]))
