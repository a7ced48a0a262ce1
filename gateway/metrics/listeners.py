"""What is told of each listener: which place it has in the families by listener, and a worker's part of it.

Places are given by address and never taken back, so that a counter goes on over reloads; their names are in the arena,
for all processes to read. No sockets and no clocks.
"""

from __future__ import annotations

from gateway import metrics
from gateway._fastpath import CounterPage

PART = "listeners"  # of the arena
MOST = metrics.MOST_LISTENERS
OTHERS = "others"  # the name of the last place, which further listeners share
_OCTETS = 64  # of a name; an IPv6 address with a scope and a port takes less
SIZE = MOST * _OCTETS


class ListenerNames:
    """The names by place. Only the supervisor gives places. Shipments' names are kept alike."""

    def __init__(self, memory: memoryview, most: int = MOST) -> None:
        """memory: 64 octets for each place, zero at first. most: places."""
        self._memory = memory[: most * _OCTETS]
        self._most = most

    def place_of(self, address: str) -> int:
        """That of an address, as bound; a new one where it has none."""
        known = self.all()
        if address in known:
            return known.index(address)
        place = min(len(known), self._most - 1)
        name = (OTHERS if place == self._most - 1 else address).encode()[:_OCTETS]
        self._memory[place * _OCTETS : (place + 1) * _OCTETS] = name.ljust(_OCTETS, b"\0")
        return place

    def all(self) -> list[str]:
        """By place."""
        octets = bytes(self._memory)
        names = (octets[start : start + _OCTETS].rstrip(b"\0").decode() for start in range(0, len(octets), _OCTETS))
        return [name for name in names if name]


class ListenerWatch:
    """One listener in one worker, told to the worker's page. place: as ListenerNames gives it."""

    def __init__(self, page: CounterPage, place: int) -> None:
        self._page = page
        self._opened = metrics.LISTENER_OPENED.at(place)
        self._refused = metrics.LISTENER_REFUSED.at(place)
        self._messages = metrics.LISTENER_MESSAGES.at(place)
        self._open = metrics.LISTENER_OPEN.at(place)
        self._limit = metrics.LISTENER_LIMIT.at(place)
        self._told = (0, 0, 0, 0, 0)

    def tell(self, opened: int, refused: int, messages: int, now_open: int, limit: int) -> None:
        """opened, refused: connections since the worker's start; messages: likewise. Two listeners may share a place:
        all is added.
        """
        new = (opened, refused, messages, now_open, limit)
        slots = (self._opened, self._refused, self._messages, self._open, self._limit)
        for slot, value, before in zip(slots, new, self._told, strict=True):
            if value != before:
                self._page.add(slot, value - before)
        self._told = new
