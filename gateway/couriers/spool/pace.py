"""How many messages of the spool a site gets at a time, by how long it takes for them. Pure.

New mail goes to the same site, over the same connections, through the same event loop: what makes a message of the
spool take longer makes new mail wait as well. So there are as many as go out about as quickly as one at a time does.
The window doubles with each round of answers until that holds no more, is halved then, and grows by one with each
round from there, as TCP does with segments (Vegas, by the same sign).
"""

from __future__ import annotations

MOST = 64  # at a time, whatever they take
FEW = 2  # at a time: what they take then is what they take at least
LONGER = 1.5  # times what they take when there are few
SMOOTHING = 0.1  # how much the last one counts


class SitePace:
    """window: how many at a time."""

    def __init__(self) -> None:
        self.window = 1
        self._grown = 0  # answers since the window grew
        self._starting = True  # it doubles
        self._usual = 0.0  # seconds, when there are few
        self._lately = 0.0
        self._settles = 0  # answers until those that were under way when the window changed are over

    def answered(self, seconds: float) -> None:
        """Takes down how long a hand-over took."""
        self._lately += (seconds - self._lately) * SMOOTHING if self._lately else seconds
        if self.window <= FEW or self._lately < self._usual:
            self._usual = self._lately
        self._settles = max(0, self._settles - 1)
        if self._lately <= LONGER * self._usual:
            self._grow()
        elif not self._settles:
            self._starting = False
            self._settles = self.window
            self.window = max(1, self.window // 2)
            self._grown = 0

    def _grow(self) -> None:
        self._grown += 1
        if self._starting or self._grown >= self.window:
            self.window = min(self.window + 1, MOST)
            self._grown = 0
