"""The counter pages of all processes, in one memory that they share: who has which. What the words mean is metrics'."""

from __future__ import annotations

import mmap
import os

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.service.upgrade import Inheritance


class Pages:
    """The first page is the supervisor's own; the others are for the processes it starts."""

    def __init__(self, count: int, fd: int | None = None) -> None:
        """fd: the memory, where there is one with this layout and count already."""
        if fd is None:
            fd = os.memfd_create("counters", os.MFD_CLOEXEC)
            os.ftruncate(fd, metrics.page_size() * count)
        self.fd = fd
        self.all = _mapped(fd, metrics.page_size(), count)
        self.own = self.all[0]
        self._inherited = self.all

    @classmethod
    def inherited(cls, inheritance: Inheritance, count: int) -> Pages:
        """Those of the program before. With another layout its processes keep their memory, and what was counted goes
        on in this one's.
        """
        size = os.fstat(inheritance.pages).st_size
        if inheritance.layout == metrics.layout_digest() and size == metrics.page_size() * count:
            return cls(count, inheritance.pages)
        pages = cls(count)
        pages._inherited = _mapped(inheritance.pages, inheritance.page_size, size // inheritance.page_size)
        os.close(inheritance.pages)
        metrics.restore(pages.own, inheritance.totals)
        return pages

    def free(self) -> CounterPage:
        """A page that no process has."""
        return next(page for page in self.all[1:] if not page.pid)

    def has(self, page: CounterPage) -> bool:
        """Whether it is one of this memory."""
        return page in self.all

    def place_of(self, page: CounterPage) -> int:
        """Its place, for another program to find it by."""
        return self.all.index(page)

    def of_inherited(self, place: int) -> CounterPage:
        """The page of a process that the program before has started."""
        return self._inherited[place]


def _mapped(fd: int, size: int, count: int) -> list[CounterPage]:
    memory = memoryview(mmap.mmap(fd, size * count))
    return [CounterPage(memory[size * i : size * (i + 1)]) for i in range(count)]
