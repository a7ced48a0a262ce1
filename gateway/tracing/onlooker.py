"""Somebody who looks on: the lines that wait for them, bounded; and their view of one session, which may have to wait
until it is known whether they want it. Who reads slowly misses events, and is told how many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from gateway.tracing.wanted import Wanted
from gateway.tracing.words import line_of

MOST_PENDING = 256 * 1024  # octets that wait to be sent
MOST_HELD = 2 << 20  # octets of all transactions of which it is not known yet whether they are wanted, and as many
# again of what came before the first one of its session: idle sessions must not crowd out those that do something
MOST_OF_SESSION = 32 * 1024  # octets of one of them
PORTION = 64 * 1024  # octets that are sent at once, at least one line

_TRANSACTION, _BEFORE = 0, 1


class Happening(Protocol):
    """Something that happened. weight: octets that it takes, about, while it is held back."""

    weight: int

    def line(self) -> bytes:
        """In words."""


class Onlooker:
    """ready: called when something waits to be sent, and nothing did. held: octets that are held back, of transactions
    and of what came before them.
    """

    def __init__(self, worker: int, wanted: Wanted, ready: Callable[[], None]) -> None:
        self.wanted = wanted
        self.held = [0, 0]
        self.worker = worker
        self._ready = ready
        self._pending: deque[bytes] = deque()
        self._octets = 0
        self._missed = 0

    def take(self, line: bytes) -> None:
        """A line to be sent; dropped while too much waits, and until half of that is sent."""
        most = MOST_PENDING // 2 if self._missed else MOST_PENDING
        if self._octets + len(line) > most:
            self._missed += 1
            return
        self._tell_what_was_missed()
        self._put(line)

    @property
    def waits(self) -> bool:
        """Something is to be sent."""
        return bool(self._pending)

    def portion(self) -> bytes:
        """What is to be sent next; b"" for nothing."""
        lines = []
        octets = 0
        while self._pending and (not octets or octets + len(self._pending[0]) <= PORTION):
            line = self._pending.popleft()
            octets += len(line)
            lines.append(line)
        self._octets -= octets
        if self._missed and self._octets <= MOST_PENDING // 2:
            self._tell_what_was_missed()
        return b"".join(lines)

    def _tell_what_was_missed(self) -> None:
        if self._missed:
            missed, self._missed = self._missed, 0
            self._put(line_of({"event": "dropped", "worker": self.worker, "count": missed}))

    def _put(self, line: bytes) -> None:
        self._pending.append(line)
        self._octets += len(line)
        if len(self._pending) == 1:
            self._ready()


class View:
    """An onlooker's view of one session: what happens is held back until it is known to be wanted.

    A transaction is wanted as a whole; what came before the first one belongs to every one.
    """

    def __init__(self, onlooker: Onlooker) -> None:
        self.onlooker = onlooker
        self.terse = onlooker.wanted.terse
        self._domains, self._refused = onlooker.wanted.domains, onlooker.wanted.refused
        self._lacks_domain, self._lacks_refusal = bool(self._domains), self._refused
        self._held: tuple[list[Happening], list[Happening]] = [], []  # of the transaction, and before the first one
        self._octets = [0, 0]
        self._left_out = 0
        self._in_transaction = False

    @property
    def shown(self) -> bool:
        """Everything is shown from here on."""
        return not (self._lacks_domain or self._lacks_refusal)

    def begin(self) -> None:
        """A transaction begins."""
        self._in_transaction = True
        self._lacks_domain, self._lacks_refusal = bool(self._domains), self._refused
        self._release(_TRANSACTION)

    def saw_recipient(self, domain: str) -> None:
        """Somebody at this domain is a recipient, or would be."""
        if self._lacks_domain and domain in self._domains:
            self._lacks_domain = False
            self._show()

    def saw_refusal(self) -> None:
        """Something was refused."""
        if self._lacks_refusal:
            self._lacks_refusal = False
            self._show()

    def take(self, happening: Happening) -> None:
        """Something that happened."""
        if self.shown:
            self.onlooker.take(happening.line())
            return
        kind, octets = _TRANSACTION if self._in_transaction else _BEFORE, happening.weight
        if self._octets[kind] + octets > MOST_OF_SESSION or self.onlooker.held[kind] + octets > MOST_HELD:
            self._left_out += 1
        else:
            self._held[kind].append(happening)
            self._octets[kind] += octets
            self.onlooker.held[kind] += octets

    def end(self) -> None:
        """The session is over."""
        self._release(_TRANSACTION)
        self._release(_BEFORE)

    def _show(self) -> None:
        if not self.shown or self.terse:
            return
        for happening in (*self._held[_BEFORE], *self._held[_TRANSACTION]):
            self.onlooker.take(happening.line())
        if self._left_out:
            left_out = {"event": "dropped", "worker": self.onlooker.worker, "count": self._left_out}
            self.onlooker.take(line_of(left_out))
            self._left_out = 0
        self.end()

    def _release(self, kind: int) -> None:
        self.onlooker.held[kind] -= self._octets[kind]
        self._octets[kind] = 0
        self._held[kind].clear()
