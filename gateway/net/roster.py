"""Roster: the clients' connections that are open in a worker, for what concerns all of them.

No sockets, no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class OpenConnection(Protocol):
    """A connection on the roster."""

    def drain(self) -> None:
        """Ends it as soon as no transaction is under way."""

    def check_idle(self, now: float) -> None:
        """Ends it if the client has been silent for too long. now: on the event loop's clock."""

    def abort(self) -> None:
        """Drops it."""

    def watch(self) -> None:
        """Others look on than before."""


class Roster:
    """The open connections. drained: called when a worker that drains has no connection any more.

    draining: True once connections are to end as soon as they are idle.
    """

    def __init__(self, drained: Callable[[], None]) -> None:
        self._drained = drained
        self._open: set[OpenConnection] = set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: OpenConnection) -> None:
        """It is open."""
        self._open.add(connection)

    def remove(self, connection: OpenConnection) -> None:
        """It is no more."""
        self._open.discard(connection)
        if self.draining and not self._open:
            self._drained()

    def drain(self) -> None:
        """Ends idle connections now and the others when their transaction is over."""
        self.draining = True
        for connection in list(self._open):
            connection.drain()

    def check_idle(self, now: float) -> None:
        """Ends the connections of silent clients. Looking at all of them now and then is cheaper than a timer each."""
        for connection in list(self._open):
            connection.check_idle(now)

    def all(self) -> list[OpenConnection]:
        """Those that are open now."""
        return list(self._open)

    def abort(self) -> None:
        """Drops all connections."""
        for connection in list(self._open):
            connection.abort()
