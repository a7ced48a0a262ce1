"""Turns and room: those who have much to move wait, so that the others need not.

Two hundred clients that send large messages fill a turn of the event loop with tens of megabytes, and everybody else's
next octet waits behind them: they move a portion each, a few of them in a turn. And a client whose message would grow
beyond what the worker has room for waits until there is some. Nothing here knows what is moved.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from gateway._fastpath import ContentStore

log = logging.getLogger(__name__)

PORTIONS = 16  # in a turn: of at most 256 KiB each, a few milliseconds
INTERVAL = 0.05  # seconds between two looks for room


class Turns:
    """The turns of one event loop. call_soon: the loop's."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._waiting: deque[Callable[[], None]] = deque()
        self._awake = False

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, go_on: Callable[[], None]) -> None:
        """Calls it in one of the next turns, behind everybody who has waited longer."""
        self._waiting.append(go_on)
        if not self._awake:
            self._awake = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        for _ in range(min(PORTIONS, len(self._waiting))):
            _call(self._waiting.popleft())
        self._awake = bool(self._waiting)
        if self._awake:
            self._call_soon(self._turn)


class Room:
    """Those who wait for room. contents: what has room, or is full. call_later: the event loop's."""

    def __init__(self, contents: ContentStore, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self.contents = contents
        self._call_later = call_later
        self._waiting: deque[Callable[[], None]] = deque()
        self._looking = False

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, go_on: Callable[[], None]) -> None:
        """Calls it when there is room, in the order of asking and not too many at once."""
        self._waiting.append(go_on)
        if not self._looking:
            self._looking = True
            self._call_later(INTERVAL, self._look)

    def _look(self) -> None:
        for _ in range(min(PORTIONS, len(self._waiting))):
            if self.contents.is_full():
                break
            _call(self._waiting.popleft())
        self._looking = bool(self._waiting)
        if self._looking:
            self._call_later(INTERVAL, self._look)


def _call(go_on: Callable[[], None]) -> None:
    try:
        go_on()
    except Exception:  # our own fault; the others go on
        log.exception("internal error in a turn")
