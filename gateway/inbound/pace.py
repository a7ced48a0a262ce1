"""Pace: how quickly a client goes on with a line or a content that it has begun; looked at about once a second.

No clock, no octets: numbers. What is done about a client that dawdles is connection.py's.
"""

from __future__ import annotations

from gateway.smtp.conduct import SessionLimits
from gateway.smtp.replies import Reason

WINDOW = 10.0  # seconds over which a rate is taken: a pause of the network is no attack

Verdict = tuple[str, Reason]  # what a last reply says, and why

FIRST_COMMAND: Verdict = ("no command came in time", Reason.FIRST_COMMAND_TIMEOUT)
_COMMAND: Verdict = ("a command took too long", Reason.COMMAND_TIMEOUT)
_DATA: Verdict = ("the message took too long", Reason.DATA_TIMEOUT)
_SLOW: Verdict = ("the message comes too slowly", Reason.DATA_TOO_SLOW)


class Pace:
    """Of one client that is in the middle of something."""

    def __init__(self) -> None:
        self._what: tuple[bool, int] | None = None
        self._since = 0.0  # when it was first seen
        self._marked = 0.0  # the window's begin …
        self._octets = 0  # … and how many there were then
        self._looked = 0.0

    def look(self, limits: SessionLimits, progress: tuple[bool, int, int], now: float, waits: bool) -> Verdict | None:
        """What is wrong. progress: the session's. now: seconds. waits: it is us who were slow since the last look."""
        is_content, number, octets = progress
        if (is_content, number) != self._what:
            self._what = is_content, number
            self._since = self._marked = now
            self._octets = octets
        elif waits:
            self._since += now - self._looked
            self._marked, self._octets = now, octets
        self._looked = now
        if not is_content:
            return _COMMAND if _is_over(now - self._since, limits.command_timeout) else None
        if _is_over(now - self._since, limits.data_timeout):
            return _DATA
        if now - self._marked >= WINDOW:
            if octets - self._octets < limits.minimum_data_rate * (now - self._marked):
                return _SLOW
            self._marked, self._octets = now, octets
        return None


def _is_over(seconds: float, most: float) -> bool:
    return 0 < most <= seconds
