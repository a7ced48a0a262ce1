"""Complaints: diagnostic lines that a stranger can cause, of each kind not more than one a minute.

No clock: the time is an argument.
"""

from __future__ import annotations

import logging

REST = 60.0  # seconds between two lines of a kind


class Complaints:
    """The lines of one subject, such as failed handshakes."""

    def __init__(self, log: logging.Logger, level: int = logging.INFO) -> None:
        self._log, self._level = log, level
        self._kinds: dict[str, tuple[float, int]] = {}  # when the last line was written, and how many were not since

    def say(self, kind: str, now: float, text: str) -> None:
        """Writes the line, or counts it for the next one. kind: from a closed set. now: seconds on any one clock."""
        last, left_out = self._kinds.get(kind, (now - REST, 0))
        if now < last + REST:
            self._kinds[kind] = last, left_out + 1
            return
        self._kinds[kind] = now, 0
        more = f" (and {left_out} more like it in the last {now - last:.0f} s)" if left_out else ""
        self._log.log(self._level, "%s%s", text, more)
