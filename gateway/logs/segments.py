"""Segment files: their names, one zstd stream each, what marks them complete, and the sealing of abandoned ones.

A segment under way is writable and flock()ed by its process; a complete one has lost its write permission bits, which
is what those who follow a directory wait for. No clock and no threads here: writer.py brings both.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import zstandard

log = logging.getLogger("gateway.logs")

DEFAULT_LEVEL = 3  # what level 0 means to zstd
_WRITE_BITS = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_NAME = re.compile(r"\d{8}-\d{6}(?:\.\d+)?")
_FRACTION = re.compile(r"\.(\d+)")

# RFC 8878 §3.1.1
_FRAME_START = b"\x28\xb5\x2f\xfd\x00"  # magic, and a descriptor: a window follows; no size, dictionary, checksum
_LAST_BLOCK = b"\x01\x00\x00"  # an empty raw block with the flag "last"


def segment_name(now_ns: int, suffix: str) -> str:
    """UTC date and time with nanoseconds, so that names sort by the time of opening."""
    seconds, fraction = divmod(now_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d-%H%M%S}.{fraction:09d}{suffix}"


def opening_time(name: str) -> int:
    """Nanoseconds since 1970 that a segment's name says. Raises ValueError for what is no such name."""
    if not _NAME.match(name):
        raise ValueError(f"{name} is no segment")
    seconds = int(datetime.strptime(name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp())
    fraction = _FRACTION.match(name, 15)
    return seconds * 1_000_000_000 + (int(f"{fraction[1]:0<9}"[:9]) if fraction else 0)


class Segment:
    """One segment under way. Every method that writes raises OSError; `flush` may then be called again."""

    def __init__(self, directory: str, suffix: str, *, level: int, header: str, now_ns: int) -> None:
        """Creates the file. level: zstd's, 0 for its default. header: text at the start of the segment."""
        self.directory = directory
        self.path, self._fd = _create(directory, suffix, now_ns)
        self.size = 0  # bytes before compression
        self.synced = False
        self._entered = False  # the directory entry is durable
        self._length = 0  # of the file
        self._whole = 0  # of the file up to the end of a record
        self._unwritten = b""
        self._stream = zstandard.ZstdCompressor(level=level or DEFAULT_LEVEL).compressobj()
        if header:
            self.add(header.encode("utf-8", "replace"))

    def add(self, data: bytes) -> None:
        """Compresses whole records into blocks of their own: once those are flushed, a reader sees all of `data`."""
        self.size += len(data)
        self.synced = False
        self._unwritten += self._stream.compress(data) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def flush(self) -> None:
        """Hands everything to the kernel. After an error what is left stays, and another call goes on from there."""
        if not self._unwritten:
            return
        while self._unwritten:
            count = os.write(self._fd, self._unwritten)
            self._length += count
            self._unwritten = self._unwritten[count:]
        self._whole = self._length

    def sync(self) -> None:
        """Makes everything flushed durable, with the directory entry. After an error nothing is certain: abandon."""
        if self.synced:
            return
        os.fsync(self._fd)
        if not self._entered:
            sync_directory(self.directory)
            self._entered = True
        self.synced = True

    def finish(self) -> None:
        """Ends the zstd frame, makes all durable, and marks the segment complete."""
        try:
            self._unwritten += self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)
            self.flush()
            self.synced = False
            self.sync()
        finally:
            self._close()

    def abandon(self) -> None:
        """Gives the segment up after an error, without raising: cut back, if the disk lets us, to what was flushed
        as a whole, and marked complete; removed where that is nothing.
        """
        with suppress(OSError):
            os.ftruncate(self._fd, self._whole)
            if self._whole:
                os.write(self._fd, _LAST_BLOCK)
            else:
                os.unlink(self.path)
        self._close()

    @property
    def unlinked(self) -> bool:
        """True where somebody removed the file under us."""
        return os.fstat(self._fd).st_nlink == 0

    def _close(self) -> None:
        with suppress(OSError):
            _mark_complete(self._fd)
        os.close(self._fd)


def _create(directory: str, suffix: str, now_ns: int) -> tuple[str, int]:
    while True:
        path = os.path.join(directory, segment_name(now_ns, suffix))
        now_ns += 1  # another process opened one at the same instant
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            continue
        # Between creation and lock a starting process may take the file for an abandoned one and seal it.
        if _lock(fd) and _is_open(os.fstat(fd)):
            return path, fd
        os.close(fd)


def sync_directory(directory: str) -> None:
    """Makes the entries of `directory` durable. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def list_segments(directory: str) -> list[str]:
    """The paths of all segments, complete or not, in order of opening. Raises OSError."""
    with os.scandir(directory) as entries:
        return sorted(e.path for e in entries if _NAME.match(e.name) and e.is_file(follow_symlinks=False))


def is_complete(status: os.stat_result) -> bool:
    """True where nothing will be added to the segment any more."""
    return not _is_open(status)


def _is_open(status: os.stat_result) -> bool:
    return bool(status.st_mode & _WRITE_BITS)


def _mark_complete(fd: int) -> None:
    os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & ~_WRITE_BITS)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def seal_abandoned(directory: str) -> int:
    """Completes the segments whose process is gone, and tells how many there were.

    Whoever holds a segment's lock is alive. A frame without end gets one, behind its last whole block, so that every
    zstd tool reads the file without complaint.
    """
    sealed = 0
    for path in list_segments(directory):
        try:
            if is_complete(os.stat(path)):
                continue
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if _lock(fd) and _is_open(os.fstat(fd)):
                    _end_frame(fd)
                    _mark_complete(fd)
                    sealed += 1
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("cannot seal %s: %s", path, error.strerror)
    return sealed


def _end_frame(fd: int) -> None:
    *_, (end, ended) = (0, True), *_blocks(fd)
    if not ended:
        os.ftruncate(fd, end)
        os.pwrite(fd, _LAST_BLOCK, end)


def _blocks(fd: int) -> Iterator[tuple[int, bool]]:
    """The ends of the frame header and of every whole block of the file's first frame, and whether it was the last.

    Yields nothing for what is not a frame of ours. RFC 8878 §3.1.1.
    """
    head = os.pread(fd, 6, 0)
    if len(head) < 6 or head[:5] != _FRAME_START:
        return
    position, length = 6, os.fstat(fd).st_size  # magic, descriptor, window
    yield position, False
    while position + 3 <= length:
        header = int.from_bytes(os.pread(fd, 3, position), "little")
        is_rle = header >> 1 & 3 == 1  # its size is that of the result
        position += 3 + (1 if is_rle else header >> 3)
        if position > length:
            return
        yield position, bool(header & 1)
        if header & 1:
            return
