"""Outbox: what the connections of a worker have to say is written together, at the end of each turn of its event loop.

A write wakes whoever waits for it. Twenty writes in a row wake a process once, where twenty writes between twenty reads
wake it twenty times; that made a message a sixth dearer. No sockets here, and
nothing about what is written: that is the connections'. This module is compiled (outbox.pxd has its types), and runs as
plain Python, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)


class Writer(Protocol):
    """A connection with something to write."""

    def write_out(self) -> None:
        """Hands it to the transport."""


class Outbox:
    """The connections of one event loop that wait to write. call_soon: the loop's."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._waiting: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Calls its write_out() once, behind everything that this turn of the loop has read."""
        self._waiting.append(writer)
        if len(self._waiting) == 1:
            self._call_soon(self._write_out)

    def _write_out(self) -> None:
        waiting = self._waiting
        self._waiting = []
        for writer in waiting:
            try:
                writer.write_out()
            except Exception:  # our own fault; the others wait for their replies
                log.exception("internal error while writing")
