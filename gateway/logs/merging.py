"""The records of several directories in order of time, although each worker writes segments of its own. No printing."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from gateway.logs import cursor
from gateway.logs.cursor import NOWHERE
from gateway.logs.reader import DirectoryReader, SegmentReader
from gateway.logs.segments import opening_time


class LogEntry(NamedTuple):
    """One line. when: seconds since 1970, of the record or else of what stands in front of it. record: {} where the
    line is no JSON object, but written by a template.
    """

    when: float
    line: bytes
    record: dict[str, Any]


class MergedLogs:
    """Reads directories, again and again where that is wanted."""

    def __init__(self, directories: Sequence[str], begin: str | None = None, oldest: float = 0.0) -> None:
        """begin: the cursor to go on from. oldest: nobody wants what is older, in seconds since 1970. Raises ValueError
        for what is no cursor."""
        places = cursor.from_word(begin) if begin else {}
        names = dict.fromkeys(os.path.abspath(directory) for directory in directories)
        self._readers = {name: DirectoryReader(name, places.get(name, NOWHERE), oldest) for name in names}
        self._kept = {name: place for name, place in places.items() if name not in names}
        self._cursor = begin or cursor.as_word({})

    def entries(self) -> Iterator[LogEntry]:
        """What came since the last call. Raises OSError."""
        waiting = heapq.merge(*(reader.segments() for reader in self._readers.values()), key=_name)
        next_segment = next(waiting, None)
        heap: list[_Next] = []
        number = 0
        while heap or next_segment is not None:
            if next_segment is not None and (not heap or opening_time(next_segment.name) / 1e9 <= heap[0][0]):
                number += 1
                _push(heap, number, _entries(next_segment))
                next_segment = next(waiting, None)
                continue
            _, which, entry, others = heapq.heappop(heap)
            yield entry
            _push(heap, which, others)
        places = {name: reader.place() for name, reader in self._readers.items()}
        self._cursor = cursor.as_word({**self._kept, **places})

    @property
    def cursor(self) -> str:
        """What was read, up to the end of the last call of `entries`."""
        return self._cursor

    def close(self) -> None:
        """Closes the files."""
        for reader in self._readers.values():
            reader.close()


def _name(segment: SegmentReader) -> str:
    return segment.name


_Next = tuple[float, int, LogEntry, Iterator[tuple[float, LogEntry]]]  # when, which segment, what, more


def _push(heap: list[_Next], number: int, entries: Iterator[tuple[float, LogEntry]]) -> None:
    if (found := next(entries, None)) is not None:
        heapq.heappush(heap, (found[0], number, found[1], entries))


def _entries(segment: SegmentReader) -> Iterator[tuple[float, LogEntry]]:
    """Each with a time that never goes back, so that segments can be merged."""
    latest = opening_time(segment.name) / 1e9
    for line in segment.lines():
        record = parsed(line)
        when = time_of(record)
        latest = latest if when is None else max(latest, when)
        yield latest, LogEntry(latest if when is None else when, line, record)


def parsed(line: bytes) -> dict[str, Any]:
    """A line's JSON object, or {}."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:  # written by a template
        return {}
    return record if isinstance(record, dict) else {}


def time_of(record: Mapping[str, Any]) -> float | None:
    """When it happened here, in seconds since 1970: of a report, when it came, not what it says happened elsewhere."""
    text = record.get("created_time" if record.get("type") in ("OOB", "Feedback") else "event_time")
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except ValueError:
        return None
