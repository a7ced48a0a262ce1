"""Reads segments: the records of a directory in order, also while they are being written. No printing here.

What a killed process left unfinished at the end of a segment, in the middle of a zstd block or of a record, is
skipped; everything in front of it is read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import zstandard

from gateway.logs.segments import is_complete, list_segments

log = logging.getLogger("gateway.logs")

_CHUNK = 256 * 1024
_STEP = 1024  # bytes decompressed at once: what is damaged takes no more than this with it


class SegmentReader:
    """One segment, read as far as it goes."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self.path = path
        self.finished = False  # complete and read to its end, or unreadable from here on
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed when finished
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._partial = b""  # the beginning of a line

    def lines(self) -> Iterator[bytes]:
        """The whole lines added since the last call, without line ends."""
        complete = is_complete(os.fstat(self._file.fileno()))  # asked first: what comes later is not its end
        while not self.finished and (chunk := self._file.read(_CHUNK)):
            *lines, self._partial = (self._partial + self._decompressed(chunk)).split(b"\n")
            yield from lines
        if complete:
            self.finished = True
        if self.finished:
            self.close()

    def close(self) -> None:
        """Closes the file; also done when finished."""
        self._file.close()

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

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._known: dict[str, SegmentReader] = {}

    def lines(self) -> Iterator[bytes]:
        """What came since the last call: segment by segment, each line whole. Raises OSError."""
        paths = list_segments(self.directory)
        for path in self._known.keys() - set(paths):
            self._known.pop(path).close()
        for path in paths:
            segment = self._known.get(path)
            if segment is None:
                try:
                    segment = self._known[path] = SegmentReader(path)
                except FileNotFoundError:  # removed since the directory was listed
                    continue
            if not segment.finished:
                yield from segment.lines()

    def close(self) -> None:
        """Closes the segments that are not finished."""
        for segment in self._known.values():
            segment.close()
