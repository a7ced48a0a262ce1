"""Trying the messages of a spool again: reads them ahead, has one begin in a turn of the loop, knows who is under way.

Whose turn comes when is schedule.py's, what a try is and what becomes of the message gateway/delivery/redelivery.py's.
All methods belong to the event loop's thread, and none waits for a disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.couriers.spool.schedule import Spooled
from gateway.couriers.spool.store import DAMAGED, Damaged, Row, Store
from gateway.later import Later, Waits, begun

if TYPE_CHECKING:
    from gateway.couriers.spool.spool import Spool

READ_AGAIN = 10.0  # seconds, where the disk does not give a message
MOST_UNDER_WAY = 128  # messages that are tried at a time, whose contents are in memory
_CLOSE_INTERVAL = 0.02  # seconds

_DAMAGED = metrics.SPOOL_DAMAGED.slot()

log = logging.getLogger(__name__)


class Tried:
    """What came of an attempt. row: the message as it goes on waiting, None where it is in the file no more. added:
    others that were put into the same file.
    """

    def __init__(self, row: Row | None, added: Sequence[Row] = ()) -> None:
        self.row = row
        self.added = added


class AskedSite:
    """A message's place with its site, which is another's once the site has answered, whatever is left to be done."""

    def __init__(self, tries: Tries, site: str | None) -> None:
        """site: None where none is asked."""
        self._tries = tries
        self._site = site

    def answered(self, reached: bool | None, seconds: float = 0.0) -> None:
        """The site answered, or could not be reached, after so long; None: it was not asked. The first call counts."""
        site, self._site = self._site, None
        if site is not None:
            self._tries.answered(site, reached, seconds)


# The steps of trying a message, given its row and content; no content where it has waited for too long. The outcome is
# a Tried.
Attempt: TypeAlias = "Callable[[Spooled, Row, bytes | None, AskedSite], Waits]"

_Read: TypeAlias = "tuple[Row | None, bytes | None, Damaged | None]"


class Tries:
    """Those of one spool. started: messages are tried."""

    def __init__(
        self, spool: Spool, loop: asyncio.AbstractEventLoop, page: CounterPage, clock: Callable[[], float]
    ) -> None:
        self._spool = spool
        self._schedule = spool.schedule
        self._loop = loop
        self._page = page
        self._clock = clock
        self._attempt: Attempt | None = None
        self._has_room: Callable[[str, int], bool] = lambda site, under_way: False
        self._is_back: Callable[[str], bool] = lambda site: False
        self._under_way: set[Later] = set()
        self._reading = 0  # messages that were taken and are not read yet
        self._ready: dict[str, deque[tuple[Spooled, Row, bytes]]] = {}  # by site: read, and not begun
        self._turn: asyncio.Handle | None = None  # in which the next one begins

    @property
    def started(self) -> bool:
        return self._attempt is not None

    def start(self, attempt: Attempt, has_room: Callable[[str, int], bool], is_back: Callable[[str], bool]) -> None:
        """Begin. has_room: whether a site can take one more, beside so many of ours. is_back: see Spool.start."""
        self._attempt, self._has_room, self._is_back = attempt, has_room, is_back

    def stop(self) -> None:
        """Try nothing more."""
        self._attempt = None

    async def close(self, grace: float) -> None:
        """Give those under way so many seconds."""
        self.stop()
        deadline = self._loop.time() + grace
        while self._under_way and self._loop.time() < deadline:
            await asyncio.sleep(_CLOSE_INTERVAL)
        for steps in list(self._under_way):
            steps.cancel()
        if self._turn is not None:
            self._turn.cancel()

    def sweep(self) -> None:
        """Look whose turn is, now and then."""
        self._put_back()
        self._try_some()
        self._go_on()

    def _try_some(self) -> None:
        """Takes messages whose turn is near, so that they are read when it comes."""
        if self._attempt is None:
            return
        now = self._clock()
        for site in self._schedule.paused(now):
            if self._is_back(site):
                self._schedule.may_be_back(site)
        ahead = self._reading + sum([len(ready) for ready in self._ready.values()])
        taken, expired = self._schedule.take(now, self._has_room, MOST_UNDER_WAY - len(self._under_way) - ahead)
        for spooled in expired:
            self._run(self._give_up(spooled))
        by_file: dict[int, list[Spooled]] = {}
        for spooled in taken:
            by_file.setdefault(spooled.place[0], []).append(spooled)
        for some in by_file.values():
            self._reading += len(some)
            begun(self._read(some))

    def _read(self, some: list[Spooled]) -> Waits:
        """Has messages of one file read, and wait for their turn."""
        sites = [spooled.site for spooled in some]
        try:
            read = yield self._spool.writer_of(some[0]).read(partial(_read, numbers=[each.place[1] for each in some]))
        except Exception as error:
            log.error("messages of the spool cannot be read now: %s", error)
            read = None
        self._reading -= len(some)
        for place, spooled in enumerate(some):
            row, content, damage = (None, None, None) if read is None else read[place]
            if row is not None and content is not None and self._attempt is not None:
                self._ready.setdefault(sites[place], deque()).append((spooled, row, content))
                continue
            self._schedule.dropped(sites[place], spooled)
            if read is None:
                self._put_off(spooled)
            else:
                self._not_read(spooled, row, damage)
        self._go_on()

    def _not_read(self, spooled: Spooled, row: Row | None, damage: Damaged | None) -> None:
        if damage is not None:
            log.error("%s", damage)
            self._page.add(_DAMAGED)
            self._schedule.hold(spooled)
            self._spool.writer_of(spooled).write(partial(_mark_damaged, number=spooled.place[1]))
        elif row is None:
            self._spool.gone(spooled)
        else:
            self._spool.waits(spooled, row)

    def _put_off(self, spooled: Spooled) -> None:
        spooled.due = self._clock() + READ_AGAIN
        self._schedule.wait_for_time(spooled)

    def _go_on(self) -> None:
        """Has the next one begin, in a turn of the event loop of its own: what new mail brings meanwhile goes first."""
        if self._turn is None and self._attempt is not None:
            self._turn = self._loop.call_soon(self._begin_one)

    def _begin_one(self) -> None:
        self._turn = None
        attempt, now = self._attempt, self._clock()
        if attempt is None:
            return
        for site in list(self._ready):
            if not self._schedule.may_begin(site, now, self._has_room):
                continue
            ready = self._ready.pop(site)
            spooled, row, content = ready.popleft()
            if ready:
                self._ready[site] = ready  # behind the others
            self._schedule.begins(site, spooled)
            self._run(self._tried(attempt, spooled, AskedSite(self, site), row, content))
            self._go_on()
            break
        self._try_some()

    def answered(self, site: str, reached: bool | None, seconds: float) -> None:
        """What a site answered that was asked: see AskedSite."""
        if reached is None:
            self._schedule.not_tried(site)
        elif reached:
            self._schedule.reached(site, seconds)
        else:
            self._schedule.not_reached(site, self._clock())
        self._go_on()

    def _put_back(self) -> None:
        """Those that were read for a site that takes nothing now are not kept in memory."""
        for site in list(self._ready):
            if self._schedule.is_stuck(site, self._clock(), self._has_room):
                for spooled, _, _ in self._ready.pop(site):
                    self._schedule.put_back(site, spooled)

    def _run(self, steps: Waits) -> None:
        running = begun(steps)
        if not running.done:
            self._under_way.add(running)
            running.then(lambda: self._over(running))

    def _over(self, steps: Later) -> None:
        self._under_way.discard(steps)
        if steps.failed:
            try:
                steps.result()
            except Exception:
                log.exception("internal error in the spool")
        self._go_on()

    def _give_up(self, spooled: Spooled) -> Waits:
        """It has waited for too long."""
        attempt = self._attempt
        try:
            ((row, _, damage),) = yield self._spool.writer_of(spooled).read(
                partial(_read, numbers=[spooled.place[1]], contents=False)
            )
        except Exception as error:
            log.error("message %d of the spool cannot be read now: %s", spooled.place[1], error)
            self._put_off(spooled)
            return
        if row is None or row.state == DAMAGED or attempt is None:
            self._not_read(spooled, row, damage)
        else:
            yield from self._tried(attempt, spooled, AskedSite(self, None), row, None)

    def _tried(self, attempt: Attempt, spooled: Spooled, asked: AskedSite, row: Row, content: bytes | None) -> Waits:
        tried: Tried | None = None
        try:
            tried = yield from attempt(spooled, row, content, asked)
        except Exception:
            log.exception("internal error with message %d of the spool", spooled.place[1])
        asked.answered(None)
        if tried is None:
            self._put_off(spooled)
            return
        if tried.row is None:
            self._spool.gone(spooled)
        else:
            self._spool.waits(spooled, tried.row)
        for added in tried.added:
            self._spool.waits(self._spool.beside(spooled, added), added)


def _read(store: Store, numbers: list[int], contents: bool = True) -> list[_Read]:
    """Messages with their contents; no content for one that is there no more, or damaged."""
    found: list[_Read] = []
    for number in numbers:
        row = store.row(number)
        if row is None or row.state == DAMAGED or not contents:
            found.append((row, None, None))
            continue
        try:
            found.append((row, store.content(number), None))
        except Damaged as damage:
            found.append((row, None, damage))
    return found


def _mark_damaged(store: Store, number: int) -> None:
    row = store.row(number)
    if row is not None:
        row.state = DAMAGED
        store.change(row)
