"""The sink `files`: lines in files that are begun anew when they are large or old, in gzip if wanted.

A batch is a gzip member of its own and synced before it counts, so that whoever reads a file under way finds whole
records. A file under way has `.part` behind its name.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import time
import zlib

from gateway.logs.segments import segment_name, sync_directory
from gateway.shipments import FilesSettings
from gateway.shipping.dispatch import Failed, Outcome, RecordBatch, Taken

PART = ".part"
_LEVEL = 6


class FilesSink:
    """A directory of files, which belongs to one shipment alone."""

    def __init__(self, settings: FilesSettings) -> None:
        self._settings = settings
        self._suffix = settings.suffix + (".gz" if settings.compress else "")
        self._fd: int | None = None
        self._path = ""
        self._size = self._length = 0  # before compression; of the file
        self._opened = 0.0
        self._left_behind = True  # by the process before, perhaps

    async def send(self, batch: RecordBatch) -> Outcome:
        return await asyncio.to_thread(self._write, b"".join(parcel.body + b"\n" for parcel in batch.parcels))

    async def close(self) -> None:
        await asyncio.to_thread(self._finish)

    def _write(self, text: bytes) -> Outcome:
        try:
            if self._left_behind:
                self._finish_others()
                self._left_behind = False
            if self._fd is not None and time.monotonic() >= self._opened + self._settings.max_file_age:
                self._finish()
            fd = self._opened_file()
            data = gzip.compress(text, _LEVEL, mtime=0) if self._settings.compress else text
            try:
                _write_all(fd, data)
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, self._length)
                raise
            self._length += len(data)
            self._size += len(text)
            if self._size >= self._settings.max_file_size:
                self._finish()
        except OSError as error:
            return Failed(f"{self._settings.directory}: {error.strerror}")
        return Taken()

    def _opened_file(self) -> int:
        if self._fd is None:
            directory = self._settings.directory
            os.makedirs(directory, exist_ok=True)
            name = f"{self._settings.prefix}-{segment_name(time.time_ns(), '')}{self._suffix}"
            self._path = os.path.join(directory, name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self._path + PART, flags, 0o640)
            self._size = self._length = 0
            self._opened = time.monotonic()
            sync_directory(directory)
        return self._fd

    def _finish(self) -> None:
        """Gives the file under way its name."""
        if self._fd is None:
            return
        os.close(self._fd)
        self._fd = None
        os.replace(self._path + PART, self._path)
        sync_directory(self._settings.directory)

    def _finish_others(self) -> None:
        """The files that a process left when it was killed: what is whole of them."""
        directory, beginning = self._settings.directory, self._settings.prefix + "-"
        if not os.path.isdir(directory):
            return
        for name in os.listdir(directory):
            if name.startswith(beginning) and name.endswith(self._suffix + PART):
                path = os.path.join(directory, name)
                with open(path, "r+b") as file:
                    file.truncate(_whole(file.read(), compressed=self._settings.compress))
                    os.fsync(file.fileno())
                os.replace(path, path.removesuffix(PART))


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _whole(content: bytes, *, compressed: bool) -> int:
    """Octets up to the end of the last whole gzip member, or line."""
    if not compressed:
        return content.rfind(b"\n") + 1
    rest = content
    while rest:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            member.decompress(rest)
        except zlib.error:
            break
        if not member.eof:
            break
        rest = member.unused_data
    return len(content) - len(rest)
