"""A process for tests/test_spool_calls.py to kill and to starve: keeps messages in the spool's file at PATH, four at a
time, then forgets every second one, and tells each step on standard output as soon as it may be relied on.

Nothing of the gateway but the store and its thread is in it, so that system calls can be counted.
"""

from __future__ import annotations

import os
import sys
from queue import Queue

from gateway.couriers.spool import store as stores
from gateway.couriers.spool.store import WAITS_FOR_TIME, Row
from gateway.couriers.spool.writer import SpoolFull, SpoolWriter
from gateway.later import Later

ROUNDS, AT_A_TIME = 6, 4
MESSAGES = ROUNDS * AT_A_TIME
stores.WAL_PAGES = 24  # so that the log goes into the file in the middle of it


def content_of(number: int) -> bytes:
    """What is kept for a message: no two alike, and more than a page."""
    return b"%d\r\n" % number * 3000


def row_of(number: int) -> Row:
    return Row(0, 1.0, 2.0, 9e9, 0, 1, WAITS_FOR_TIME, "site", "queue", b'{"number": %d}' % number)


def tell(step: str, number: int) -> None:
    os.write(1, f"{step} {number}\n".encode())


def main(path: str) -> None:
    told: Queue[object] = Queue()
    writer = SpoolWriter(path, told.put, lambda rows, aside: None)

    def settled(laters: list[Later]) -> list[str]:
        """What came of each: "" where it went well."""
        while not all(later.done for later in laters):
            told.get(timeout=30)()  # type: ignore[operator]
        found = []
        for later in laters:
            try:
                later.result()
                found.append("")
            except SpoolFull:
                found.append("full")
            except Exception:
                found.append("failed")
        return found

    for start in range(0, MESSAGES, AT_A_TIME):
        numbers = range(start, start + AT_A_TIME)
        laters = [
            writer.write(lambda store, n=number: store.append(row_of(n), [content_of(n)]), needs_room=True)  # type: ignore[misc]
            for number in numbers
        ]
        for number, trouble in zip(numbers, settled(laters), strict=True):
            tell(trouble or "kept", number)
    places = writer.read(lambda store: {row.envelope: row.number for row in store.rows()})
    settled([places])
    for number in range(0, MESSAGES, 2):
        place = places.result().get(row_of(number).envelope)
        if place is not None:
            tell("delivered", number)
            settled([writer.write(lambda store, p=place: store.remove(p))])  # type: ignore[misc]
    writer.close()
    tell("closed", 0)


if __name__ == "__main__":
    main(sys.argv[1])
