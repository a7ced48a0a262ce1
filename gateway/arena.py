"""The arena: one memory that all processes of a service share, in parts of fixed sizes, by name.

The supervisor makes it, its children inherit it, and so does the program that an upgrade starts, as long as both lay it
out alike. Here is who has how much; what is in a part is its owner's. It is zero at first, and takes no memory where
nobody has written yet. Whoever writes must leave it sound at any moment: a process may be killed at any.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from hashlib import sha256

PAGE = 4096  # octets; parts begin at multiples of it

# Octets by part. Whoever changes what a part's octets mean gives it another name.
PARTS: Mapping[str, int] = {
    "members": 128 * 128 * 44 * 8,  # couriers/fleet/table.py
    "listeners": PAGE,  # metrics/listeners.py
    "shipments": PAGE,  # metrics/listeners.py
    "rates": 16 << 20,  # quotas.py
}
HELD = 589_824  # octets of a worker's table of what peers hold
PER_WORKER: Mapping[str, int] = {
    "held": 2 * HELD,  # quotas.py; two generations of workers may be alive
}


def parts_for(workers: int) -> Mapping[str, int]:
    """All parts of a service with so many workers."""
    return {**PARTS, **{name: size * workers for name, size in PER_WORKER.items()}}


class Arena:
    """The memory, with a descriptor that stands for it."""

    def __init__(self, parts: Mapping[str, int], fd: int | None = None) -> None:
        """fd: the memory, where there is one with this layout already."""
        self._places: dict[str, tuple[int, int]] = {}
        end = 0
        for name, size in parts.items():
            self._places[name] = end, size
            end += -(-size // PAGE) * PAGE
        size = max(end, PAGE)
        self.fd = _made(size) if fd is None else fd  # None: it has no descriptor, and no other program can take it over
        self.layout = sha256(repr(sorted(self._places.items())).encode()).hexdigest()
        self._memory = memoryview(mmap.mmap(-1 if self.fd is None else self.fd, size))

    @classmethod
    def inherited(cls, fd: int | None, layout: str, parts: Mapping[str, int]) -> Arena:
        """That of the program before, or a new one where that one's has another layout, or none."""
        arena = cls(parts)
        if fd is None:
            return arena
        if layout == arena.layout:
            if arena.fd is not None:
                os.close(arena.fd)
            return cls(parts, fd)
        os.close(fd)  # its processes keep their memory
        return arena

    def part(self, name: str) -> memoryview:
        """The octets of a part, for all who share them to write."""
        start, size = self._places[name]
        return self._memory[start : start + size]


def _made(size: int) -> int | None:
    fd = os.memfd_create("arena", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    except OSError:  # RLIMIT_FSIZE counts what is in memory, too
        os.close(fd)
        return None
    return fd
