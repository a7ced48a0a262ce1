"""Reads the segments of a shipment's directories behind their writers, a piece at a time, and says how much is left.

It reads on only while there is room for what it finds, so that a sink that takes nothing leaves the records where they
are: on disk.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gateway.logs.reader import DirectoryReader, SegmentReader
from gateway.logs.segments import is_complete, list_segments, opening_time
from gateway.shipping.dispatch import Mark
from gateway.shipping.progress import ShippingProgress

log = logging.getLogger("gateway.shipping")


class Found(NamedTuple):
    """A line that ends at a mark, or None where the mark alone is new. opened: its segment was, seconds since 1970."""

    mark: Mark
    line: bytes | None
    opened: float = 0.0


class Held(NamedTuple):
    """The segments that are not shipped to their ends. unread: octets of them that were not looked at yet."""

    segments: int = 0
    octets: int = 0
    unread: int = 0


class _Directory:
    """One log directory."""

    def __init__(self, directory: str, progress: ShippingProgress) -> None:
        self.name = directory
        self._progress = progress
        self.reader = DirectoryReader(directory, progress.place(directory))
        self.open: dict[str, SegmentReader] = {}  # by path: begun and not finished
        self.current: str | None = None  # in the middle of whose lines somebody is

    def found(self) -> Iterator[Found]:
        try:
            for segment in self.reader.segments():
                yield from self._lines(segment)
        except FileNotFoundError:  # nothing was logged yet
            pass
        for path in [path for path in self.open if not os.path.exists(path)]:
            del self.open[path]
            log.warning("%s is gone, and was not yet read to its end", path)
            yield Found(Mark(self.name, os.path.basename(path), None), None)

    def _lines(self, segment: SegmentReader) -> Iterator[Found]:
        opened = opening_time(segment.name) / 1e9
        if segment.path not in self.open:
            self.open[segment.path] = segment
            yield Found(Mark(self.name, segment.name, segment.position), None)
        self.current = segment.path
        for line in segment.lines():
            yield Found(Mark(self.name, segment.name, segment.position), line, opened)
        self.current = None
        if segment.finished:
            self.open.pop(segment.path, None)
            yield Found(Mark(self.name, segment.name, None), None)

    def held(self) -> list[tuple[str, os.stat_result]]:
        """The segments that are not shipped to their ends, in order of opening."""
        found = []
        try:
            for path in list_segments(self.name):
                if not self._progress.is_shipped(self.name, os.path.basename(path)):
                    found.append((path, os.stat(path)))
        except FileNotFoundError:
            pass
        return found

    def unread(self, path: str, size: int) -> int:
        segment = self.open.get(path)
        return size if segment is None else segment.unread


class RecordSource:
    """The records of some directories, one directory after the other."""

    def __init__(self, directories: Sequence[str], progress: ShippingProgress) -> None:
        self._directories = [_Directory(directory, progress) for directory in directories]
        self._under_way: Iterator[Found] | None = None

    def read(self, has_room: Callable[[], bool]) -> Iterator[Found]:
        """What there is, until there is no room, or no more for now. Raises OSError."""
        while has_room():
            if self._under_way is None:
                self._under_way = (found for directory in self._directories for found in directory.found())
            found = next(self._under_way, None)
            if found is None:
                self._under_way = None
                return
            yield found

    @property
    def is_exhausted(self) -> bool:
        """Whether the last reading came to the end of all there was."""
        return self._under_way is None

    def held(self) -> Held:
        """What is not shipped yet. Raises OSError."""
        sums = Held()
        for directory in self._directories:
            for path, status in directory.held():
                unread = directory.unread(path, status.st_size)
                sums = Held(sums.segments + 1, sums.octets + status.st_size, sums.unread + unread)
        return sums

    def give_up(self, most: int) -> list[tuple[Mark, int]]:
        """Gives up the oldest complete segments, so that no more than `most` octets are held; returns the marks behind
        them, and their octets. What was read of them already is not affected. Raises OSError.
        """
        given_up = []
        for directory in self._directories:
            held = directory.held()
            octets = sum(status.st_size for _, status in held)
            for path, status in held:
                if octets <= most:
                    break
                if not is_complete(status):
                    continue
                if directory.current == path:
                    directory.current = None
                    self._under_way = None  # what comes next begins with what was not read yet
                directory.reader.give_up(path)
                directory.open.pop(path, None)
                octets -= status.st_size
                given_up.append((Mark(directory.name, os.path.basename(path), None), status.st_size))
        return given_up

    def close(self) -> None:
        """Closes the files."""
        self._under_way = None
        for directory in self._directories:
            directory.reader.close()


def id_prefix(node: str, directory: str) -> str:
    """What ids of a directory's records begin with."""
    return f"{node}-{zlib.crc32(os.fsencode(os.path.abspath(directory))):08x}"
