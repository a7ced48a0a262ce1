"""Which of the spool's files a process works on: its slot's own, and those that nobody works on any more.

A file is SLOT-NUMBER.spool in the spool's directory; who has locked SLOT-NUMBER.lock beside it works on it, until the
process ends, however that happens. While one generation of workers follows the other there are two files of a slot.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from itertools import count

from gateway.couriers.spool.writer import SpoolWriter

SUFFIX = ".spool"
_NAME = re.compile(r"(\d+)-(\d+)\.spool")


class Locked(Exception):
    """Another process works on the file."""


def locked(path: str) -> int:
    """Locks a file of the spool; returns the descriptor that holds the lock. Raises Locked, and OSError."""
    descriptor = os.open(path.removesuffix(SUFFIX) + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Locked(path) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def files(directory: str) -> list[str]:
    """The paths of all files of a spool. Raises OSError."""
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if _NAME.fullmatch(name)]


def forsaken(directory: str) -> list[tuple[str, int]]:
    """Those that nobody works on, with the lock that they have from now on. Raises OSError."""
    found = []
    for path in files(directory):
        try:
            found.append((path, locked(path)))
        except Locked:
            continue
    return found


class Holding:
    """A file that this process works on. number: tells it from the others. own: new messages go there. is_open: its
    messages are known.
    """

    def __init__(self, path: str, lock: int, number: int, own: bool) -> None:
        self.path = path
        self.number = number
        self.own = own
        self.is_open = False
        self.writer: SpoolWriter | None = None
        self._lock = lock

    @classmethod
    def claim(cls, directory: str, slot: int, number: int) -> Holding:
        """The first file of a slot that nobody else works on. Raises OSError."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for place in count():
            path = os.path.join(directory, f"{slot}-{place}{SUFFIX}")
            try:
                return cls(path, locked(path), number, True)
            except Locked:
                continue
        raise AssertionError

    def work(self, make: Callable[[str], SpoolWriter]) -> SpoolWriter:
        """Starts its thread."""
        self.writer = make(self.path)
        return self.writer

    def let_go(self) -> None:
        """Ends its thread; whoever wants it may have the file."""
        if self.writer is not None:
            self.writer.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
