"""Quotas: what somebody may do in a time, or have at a time, counted by all processes of a service together.

Whose quotas they are, and what is done when they are used up, is others'. The cells are fastpath/limits.pxi's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from gateway._fastpath import RATE_CHARGE, RATE_LOOK, RATE_TAKE, HeldCells, RateCells
from gateway.arena import HELD, Arena
from gateway.rates import Rate

Cell = tuple[bytes, bytes]  # what it is found by, and what it is called for people

MOST_KNOWN = 4096  # cells whose keys need not be worked out again
MOST_SHOWN = 500  # holders, in one answer


@dataclass(frozen=True, slots=True)
class Turn:
    """What a rate says. remaining: so many more at once. reset_after: seconds until it is unused again. retry_after:
    seconds until the next may come, None where this one may.
    """

    remaining: int
    reset_after: float
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who uses a quota. left: of `most`, how much may come at once. seconds: until nothing of it is used; 0.0 for what
    is held, of which `most` are.
    """

    name: str
    left: int
    most: int
    seconds: float


class Quotas:
    """As one process has them. number: a worker's, None for a process that only looks."""

    def __init__(self, arena: Arena, number: int | None) -> None:
        self._rates = RateCells(arena.part("rates"))
        self._held = HeldCells(arena.part("held"), HELD, -1 if number is None else number)
        self._told = 0
        self._cells: dict[tuple[str, str, str], Cell] = {}
        self._seed = self._rates.seed().to_bytes(8, "little")

    def newly_shared(self) -> int:
        """How often somebody found no cell of its own since this was asked last."""
        shared = self._rates.shared
        if shared == self._told:
            return 0
        newly, self._told = shared - self._told, shared
        return newly

    def take(self, what: str, who: str, rate: Rate, scope: str = "", amount: float = 1.0) -> Turn:
        """Counts so many more, if they may come. scope: whose of that name are counted apart."""
        return self._turn(what, who, rate, scope, amount, RATE_TAKE)

    def charge(self, what: str, who: str, rate: Rate, scope: str, amount: float) -> Turn:
        """Counts what has come already."""
        return self._turn(what, who, rate, scope, amount, RATE_CHARGE)

    def look(self, what: str, who: str, rate: Rate, scope: str) -> Turn:
        """Whether one more may come."""
        return self._turn(what, who, rate, scope, 1.0, RATE_LOOK)

    def cell(self, what: str, who: str, scope: str) -> Cell:
        """Where somebody is counted for something. scope: whose of that name are counted apart."""
        wanted = what, who, scope
        found = self._cells.get(wanted)
        if found is None:
            if len(self._cells) >= MOST_KNOWN:
                self._cells.clear()
            key = blake2b("\0".join(wanted).encode(), digest_size=16, key=self._seed).digest()
            found = self._cells[wanted] = key, _name(what, who, scope)
        return found

    def hold(self, cell: Cell, most: int) -> int:
        """One more at a time: what release() needs; 0 where all processes hold that many already."""
        return self._held.hold(cell[0], cell[1], most)

    def release(self, cell: Cell, how: int) -> None:
        """One less."""
        self._held.release(cell[0], how)

    def holders(self, peer: str = "") -> list[Holder]:
        """All that is used now, the fullest first. peer: of an address or network alone; else of those in whose names
        it is.
        """
        concerns = _about(peer)
        found = [Holder(name.decode("utf-8", "replace"), 0, count, 0.0) for name, count in self._held.holders().items()]
        for name, interval, burst, seconds in self._rates.holders():
            left = max(0, int((interval * burst - seconds) / interval + 1e-9))
            found.append(Holder(name.decode("utf-8", "replace"), left, burst, seconds))
        wanted = [holder for holder in found if concerns(holder.name)]
        return sorted(wanted, key=lambda holder: (holder.left / max(1, holder.most), holder.name))[:MOST_SHOWN]

    def held(self, cell: Cell) -> int:
        """So many at a time there are now."""
        return self._held.count(cell[0])

    def _turn(self, what: str, who: str, rate: Rate, scope: str, amount: float, mode: int) -> Turn:
        key, name = self.cell(what, who, scope)
        return Turn(*self._rates.turn(key, name, rate.interval, rate.burst, -1.0, amount, mode))


class Glance(Quotas):
    """What would be said, for those who only ask: nothing counts."""

    def take(self, what: str, who: str, rate: Rate, scope: str = "", amount: float = 1.0) -> Turn:
        """Whether that many more may come."""
        return self._turn(what, who, rate, scope, amount, RATE_LOOK)

    def charge(self, what: str, who: str, rate: Rate, scope: str, amount: float) -> Turn:
        """Charges nobody."""
        return self.look(what, who, rate, scope)

    def hold(self, cell: Cell, most: int) -> int:
        """Whether one more may be."""
        return int(self.held(cell) < most)

    def release(self, cell: Cell, how: int) -> None:
        """Nothing was held."""


def _about(peer: str) -> Callable[[str], bool]:
    """Whether a holder's name is of a peer."""
    try:
        asked = ipaddress.ip_network(peer.lower().removeprefix("::ffff:") if "." in peer else peer, strict=False)
    except ValueError:
        return lambda name: peer in name
    whole = re.compile(rf"(?<![\w.:]){re.escape(peer)}(?![\w.:])")  # a throttle of the policy may have it anywhere

    def concerns(name: str) -> bool:
        try:
            network = ipaddress.ip_network(name.split(" ", 2)[1])
        except ValueError:
            return whole.search(name) is not None
        return network.version == asked.version and network.overlaps(asked)

    return concerns


def _name(what: str, who: str, scope: str) -> bytes:
    """What people read; cells keep the beginning of it."""
    listener = scope.partition("\0")[0]
    return f"{what} {who} at {listener}".encode() if listener else f"{what} {who}".encode()
