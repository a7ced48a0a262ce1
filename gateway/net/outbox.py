"""Outbox: what the connections of a worker have to say is written together, at the end of each turn of its event loop.

A write wakes whoever waits for it. Twenty writes in a row wake a process once, where twenty writes between twenty reads
wake it twenty times; that made a message a sixth dearer. No sockets here, and
nothing about what is written: that is the connections'.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class Writer:
    """A connection with something to write; the base of all."""

    def write_out(self) -> None:
        """Hands it to the transport."""
        raise NotImplementedError


class Outbox:
    """The connections of one event loop that wait to write. call_soon: its poller's."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._awake = False  # a turn is due
        self._waiting: list[Writer] = []
        self._afterwards: list[Callable[[], None]] = []

    def add(self, writer: Writer) -> None:
        """Calls its write_out() once, behind everything that this turn of the loop has read."""
        self._waiting.append(writer)
        self._wake()

    def afterwards(self, callback: Callable[[], None]) -> None:
        """Calls something that no client has to wait for, when everybody has written."""
        self._afterwards.append(callback)
        self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        waiting, callbacks = self._waiting, self._afterwards
        self._waiting, self._afterwards = [], []
        self._awake = False
        for writer in waiting:
            try:
                writer.write_out()
            except Exception:  # our own fault; the others wait for their replies
                log.exception("internal error while writing")
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("internal error after writing")
