"""Reads segments: the records of directories in order, also while they are being written. No printing here.

What a killed process left unfinished at the end of a segment, in the middle of a zstd block or of a record, is
skipped; everything in front of it is read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import zstandard

from gateway.logs.cursor import NOWHERE, LogPlace
from gateway.logs.segments import is_complete, list_segments

log = logging.getLogger("gateway.logs")

_CHUNK = 256 * 1024
_STEP = 1024  # bytes decompressed at once: what is damaged takes no more than this with it


class SegmentReader:
    """One segment, read as far as it goes."""

    def __init__(self, path: str, position: int = 0) -> None:
        """position: octets of its text, whole lines, that were read before. Raises OSError."""
        self.path = path
        self.name = os.path.basename(path)
        self.finished = False  # complete and read to its end, or unreadable from here on
        self.position = position  # octets of the lines given out, in the text
        self._skip = position
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed when finished
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._partial = b""  # the beginning of a line

    def lines(self) -> Iterator[bytes]:
        """The whole lines added since the last call, without line ends."""
        complete = is_complete(os.fstat(self._file.fileno()))  # asked first: what comes later is not its end
        while not self.finished and (chunk := self._file.read(_CHUNK)):
            *lines, self._partial = (self._partial + self._new(self._decompressed(chunk))).split(b"\n")
            for line in lines:
                self.position += len(line) + 1
                yield line
        if complete:
            self.finished = True
        if self.finished:
            self.close()

    @property
    def unread(self) -> int:
        """Octets of the file that were not looked at yet. Raises OSError."""
        if self._file.closed:
            return 0
        return max(0, os.fstat(self._file.fileno()).st_size - self._file.tell())

    def close(self) -> None:
        """Closes the file; also done when finished."""
        self._file.close()

    def _new(self, text: bytes) -> bytes:
        skipped = min(self._skip, len(text))
        self._skip -= skipped
        return text[skipped:] if skipped else text

    def _decompressed(self, chunk: bytes) -> bytes:
        text = []
        try:
            for start in range(0, len(chunk), _STEP):
                step = chunk[start : start + _STEP]
                while step:
                    text.append(self._frame.decompress(step))
                    step = self._frame.unused_data
                    if self._frame.eof:  # writers that append to a segment leave several frames
                        self._frame = zstandard.ZstdDecompressor().decompressobj()
        except zstandard.ZstdError as error:
            log.warning("%s cannot be read further: %s", self.path, error)
            self.finished = True
        return b"".join(text)


class DirectoryReader:
    """All segments of a directory, in order of opening."""

    def __init__(self, directory: str, place: LogPlace = NOWHERE, oldest: float = 0.0) -> None:
        """place: what was read before. oldest: leave out segments that nothing was added to after this time."""
        self.directory = directory
        self._place = place
        self._oldest = oldest
        self._known: dict[str, SegmentReader | None] = {}  # None: nothing more to read there

    def lines(self) -> Iterator[bytes]:
        """What came since the last call: segment by segment, each line whole. Raises OSError."""
        for segment in self.segments():
            yield from segment.lines()

    def segments(self) -> Iterator[SegmentReader]:
        """Those that may have more, opened as they are come to. Raises OSError."""
        paths = list_segments(self.directory)
        for path in self._known.keys() - set(paths):
            _close(self._known.pop(path))
        for path in paths:
            try:
                segment = self._known[path] if path in self._known else self._first_seen(path)
            except FileNotFoundError:  # removed since the directory was listed
                continue
            if segment is not None and segment.finished:
                segment = None
            self._known[path] = segment
            if segment is not None:
                yield segment

    def give_up(self, path: str) -> None:
        """Reads no more of a segment; nobody may be in the middle of its lines."""
        _close(self._known.get(path))
        self._known[path] = None

    def place(self) -> LogPlace:
        """How far it has been read, for another reader to go on from."""
        read = {os.path.basename(path): segment for path, segment in self._known.items()}
        return LogPlace.after(
            {name: None if each is None or each.finished else each.position for name, each in read.items()}
        )

    def close(self) -> None:
        """Closes the segments that are not finished."""
        for segment in self._known.values():
            _close(segment)

    def _first_seen(self, path: str) -> SegmentReader | None:
        position = self._place.position(os.path.basename(path))
        if position is None or self._is_older(path):
            return None
        return SegmentReader(path, position)

    def _is_older(self, path: str) -> bool:
        if not self._oldest:
            return False
        status = os.stat(path)
        return is_complete(status) and status.st_mtime < self._oldest


def _close(segment: SegmentReader | None) -> None:
    if segment is not None:
        segment.close()
