"""What a shipment keeps on disk: how far it is, and the records that its sink refused. One process at a time has it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress

import orjson

from gateway.logs.segments import sync_directory
from gateway.shipping.dispatch import Mark, Parcel
from gateway.shipping.progress import ShippingProgress

DIRECTORY = ".ship"  # in the first log directory, unless the shipment says another


class ShippingState:
    """The files `NAME.place`, `NAME.refused` and `NAME.lock` of a directory. All methods raise OSError."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = directory
        self._place, self._refused, self._lock = (
            os.path.join(directory, name + suffix) for suffix in (".place", ".refused", ".lock")
        )
        self._fd: int | None = None
        self.progress = ShippingProgress(())

    def claim(self) -> bool:
        """Makes the state this process's; False where another one has it."""
        os.makedirs(self.directory, mode=0o750, exist_ok=True)
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def load(self, directories: Sequence[str]) -> None:
        """Reads how far it is. Raises ValueError for what is no such file: who removes it ships all records again."""
        self.progress = ShippingProgress(directories)
        with suppress(FileNotFoundError), open(self._place, "rb") as file:
            try:
                self.progress = ShippingProgress.decoded(directories, file.read())
            except ValueError as error:
                raise ValueError(f"{self._place}: {error}; without this file all records are shipped again") from None

    def save(self, marks: Sequence[Mark]) -> None:
        """Notes what is acknowledged, durably."""
        if not marks:
            return
        self.progress.note(marks)
        new = self._place + ".new"
        with open(new, "wb") as file:
            file.write(self.progress.encoded())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self._place)

    def set_aside(self, parcel: Parcel, why: str) -> None:
        """Keeps what the sink refused, durably."""
        text = parcel.body.decode("utf-8", "replace")
        line = orjson.dumps({"id": parcel.id, "why": why, "body": text}) + b"\n"
        fd = os.open(self._refused, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_directory(self.directory)

    def release(self) -> None:
        """Another process may have it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
