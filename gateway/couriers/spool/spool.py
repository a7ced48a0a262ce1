"""The spool of one worker: takes messages on, has those tried again whose time has come, and finds the files of others.

When which message is tried is schedule.py's and tries.py's, what becomes of it gateway/delivery/redelivery.py's, the
disk writer.py's.
All methods belong to the event loop's thread, and none waits for a disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import SpoolOrder
from gateway.config import SpoolSettings as Settings
from gateway.couriers.spool import holdings, orders
from gateway.couriers.spool.holdings import Holding
from gateway.couriers.spool.kept import ToKeep
from gateway.couriers.spool.schedule import Phase, Schedule, Spooled
from gateway.couriers.spool.store import DAMAGED, WAITS_FOR_SITE, WAITS_FOR_TIME, Row, Store
from gateway.couriers.spool.tries import Attempt, Tries
from gateway.couriers.spool.writer import SpoolFull, SpoolWriter
from gateway.later import Later, Waits, begun
from gateway.smtp import replies
from gateway.smtp.replies import Reply

log = logging.getLogger(__name__)

SWEEP_INTERVAL = 0.1  # seconds; how late a message may be tried
LOOK_INTERVAL = 1.0  # seconds between two looks for orders of a command
FORSAKEN_INTERVAL = 3.0  # seconds between two looks for files that nobody works on
ASK_AGAIN = 50  # times that an order for a message that is being tried waits for a sweep
REST = 1.0  # seconds for which nothing is given to a disk that refused
AT_ONCE = 200  # messages of a file that was opened, in a turn of the loop
LAST_TRY = 300.0  # seconds that a message has after a start at least, however old it is

_MESSAGES, _OCTETS = metrics.SPOOL_MESSAGES.slot(), metrics.SPOOL_BYTES.slot()
_OLDEST = metrics.SPOOL_OLDEST.slot()
_KEPT, _DAMAGED = metrics.SPOOL_KEPT.slot(), metrics.SPOOL_DAMAGED.slot()
_COMMIT, _FAILURES = metrics.SPOOL_COMMIT_DURATION.slot(), metrics.SPOOL_FAILURES.slot()


class Spool:
    """usable: it is worth trying to keep a message, since the disk has refused none lately. Every transaction asks, so
    it is no computation.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        page: CounterPage,
        settings: Settings,
        slot: int,
        clock: Callable[[], float],
    ) -> None:
        """Takes a file of the slot, which is opened later. clock: unix time. Raises OSError."""
        self.schedule = Schedule()
        self.usable = True
        self._loop = loop
        self._page = page
        self._clock = clock
        self._settings = settings
        self._holdings: dict[int, Holding] = {}
        self._next_number = 0
        self._own = self._take(Holding.claim(settings.path, slot, 0))
        self._rest: asyncio.TimerHandle | None = None  # of a disk that refused
        self.tries = Tries(self, loop, page, clock)
        self._room: Callable[[str], int] = lambda site: 0
        self._drop: Callable[[Row], None] = lambda row: None
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._forsaken_at = loop.time() + FORSAKEN_INTERVAL  # by then the others have theirs
        self._looking = False
        self._had_much = False
        self._is_full = False  # and the log says so
        self._closed = False

    # --- taking on ----------------------------------------------------------------------------------------------------

    def keep(self, messages: list[ToKeep]) -> Waits:
        """Has messages on disk: all of them, or none. Returns None then, else why not, as a reply."""
        now = self._clock()
        rows = [_row_of(message, now) for message in messages]
        contents = [message.content for message in messages]

        def append(store: Store) -> None:
            for row, content in zip(rows, contents, strict=True):
                store.append(row, content.pieces())

        writer = self._own.writer
        assert writer is not None
        try:
            may_fail = not all([content.in_memory for content in contents])
            yield writer.write(append, needs_room=True, may_fail=may_fail)
        except SpoolFull as error:
            if not self._is_full:
                self._is_full = True
                log.error("the spool keeps nothing any more: %s", error)
            return self._refused(replies.SPOOL_FULL)
        except Exception as error:
            log.error("the spool cannot keep message %s: %s", messages[0].envelope.id, error)
            return self._refused(replies.STORAGE)
        if self._is_full:
            self._is_full = False
            log.warning("the spool has room again")
        self._page.add(_KEPT, len(rows))
        for row in rows:
            self.waits(self._known(self._own, row), row)
        return None

    def _refused(self, reply: Reply) -> Reply:
        self._page.add(_FAILURES)
        self._end_rest()
        self.usable = False
        if not self._closed:
            self._rest = self._loop.call_later(REST, self._rested)
        return reply

    def _rested(self) -> None:
        self.usable = True

    def _end_rest(self) -> None:
        if self._rest is not None:
            self._rest.cancel()

    # --- what becomes of one ------------------------------------------------------------------------------------------

    def writer_of(self, spooled: Spooled) -> SpoolWriter:
        """Who works on the file that has it."""
        writer = self._holdings[spooled.place[0]].writer
        assert writer is not None
        return writer

    def waits(self, spooled: Spooled, row: Row) -> None:
        """It goes on waiting, as its row says."""
        spooled.site, spooled.due, spooled.expires, spooled.attempts = row.site, row.due, row.expires, row.attempts
        if row.state == WAITS_FOR_SITE:
            self.schedule.wait_for_site(spooled, self._clock())
        elif row.state == WAITS_FOR_TIME:
            self.schedule.wait_for_time(spooled)
        else:
            self.schedule.hold(spooled)
        self._count()
        self._wake()

    def gone(self, spooled: Spooled) -> None:
        """It is in no file any more."""
        self.schedule.remove(spooled)
        self._count()
        holding = self._holdings[spooled.place[0]]
        if not self.schedule and self._had_much and holding.own:
            self._had_much = False
            self.writer_of(spooled).shrink()

    def pause(self, seconds: float) -> Later:
        """An answer that comes after so many seconds."""
        later = Later()
        self._loop.call_later(seconds, later.settle, None)
        return later

    # --- trying again -------------------------------------------------------------------------------------------------

    def start(
        self,
        attempt: Attempt,
        room: Callable[[str], int],
        is_back: Callable[[str], bool],
        drop: Callable[[Row], None],
    ) -> None:
        """Begin. room: how many messages more a site can take at once. is_back: whether others have found that a site
        takes messages, which was down. drop: records that an operator dropped one.
        """
        self._room, self._drop = room, drop
        self.tries.start(attempt, self._has_room, is_back)
        self._wake()

    def stop_trying(self) -> None:
        """Try nothing more: the process is about to end."""
        self.tries.stop()

    async def close(self, grace: float) -> None:
        """Give those under way so many seconds, and let go of the files. What is on disk stays there."""
        await self.tries.close(grace)
        self._closed = True
        self.usable = False
        self._end_rest()
        if self._timer is not None:
            self._timer.cancel()
        for holding in self._holdings.values():
            holding.let_go()

    def _wake(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(SWEEP_INTERVAL if self.schedule else LOOK_INTERVAL, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        if not self._looking and now >= self._look_at:
            self._look_at = now + LOOK_INTERVAL
            self._looking = True
            begun(self._look())
        self.tries.sweep()
        self._publish()
        self._wake()

    def _has_room(self, site: str, under_way: int) -> bool:
        """Whether the site can take one more; where new mail goes first, as many are left for it as are ours."""
        return self._room(site) > (0 if self._settings.order is SpoolOrder.OLDEST_FIRST else under_way)

    # --- files --------------------------------------------------------------------------------------------------------

    def _take(self, holding: Holding) -> Holding:
        number = self._next_number = self._next_number + 1
        holding.number = number
        self._holdings[number] = holding
        settings = self._settings
        holding.writer = SpoolWriter(
            holding.path,
            self._loop.call_soon_threadsafe,
            lambda rows, aside: self._opened(holding, rows, aside),
            lambda seconds: self._page.observe(_COMMIT, seconds),
            (settings.min_free_space, settings.min_free_inodes),
        )
        return holding

    def beside(self, spooled: Spooled, row: Row) -> Spooled:
        """Another message, which was put into the same file."""
        return self._known(self._holdings[spooled.place[0]], row)

    def _known(self, holding: Holding, row: Row) -> Spooled:
        place = (holding.number, row.number)
        return self.schedule.get(place) or Spooled(
            place, row.site, row.queue, row.arrived, row.due, row.expires, row.size, row.attempts
        )

    def _opened(self, holding: Holding, rows: list[Row], aside: bool) -> None:
        """A file is open, with these messages in it."""
        if self._closed:
            return
        holding.is_open = True
        there = {row.number for row in rows}
        for spooled in [each for each in self.schedule if each.place[0] == holding.number]:
            if spooled.place[1] not in there and spooled.phase is not Phase.ANSWER:
                self.schedule.remove(spooled)
        damaged = [row for row in rows if row.state == DAMAGED]
        if damaged or aside:
            self._page.add(_DAMAGED, len(damaged) + aside)
            log.error("%d messages of the spool's file %s are damaged, and stay there", len(damaged), holding.path)
        if rows:
            log.info("%d messages are in the spool's file %s", len(rows), holding.path)
            self._take_in(holding, rows, 0)
        elif not holding.own:
            self._retire(holding)

    def _take_in(self, holding: Holding, rows: list[Row], begin: int) -> None:
        """Has the messages of a file wait, some in each turn of the loop: there may be very many."""
        for row in rows[begin : begin + AT_ONCE]:
            if self.schedule.get((holding.number, row.number)) is None:
                row.expires = max(row.expires, self._clock() + LAST_TRY)
                self.waits(self._known(holding, row), row)
        if begin + AT_ONCE < len(rows) and not self._closed:
            self._loop.call_soon(self._take_in, holding, rows, begin + AT_ONCE)

    def _retire(self, holding: Holding) -> None:
        """A file of another slot is empty: it is not needed any more."""
        del self._holdings[holding.number]
        assert holding.writer is not None
        holding.writer.retire(holding.let_go)

    def _look(self) -> Waits:
        """Looks for orders, and for files that nobody works on."""
        try:
            for holding in list(self._holdings.values()):
                assert holding.writer is not None
                yield from self._carry_out(holding, (yield holding.writer.read(Store.orders)))
                of_others = holding.is_open and not holding.own
                if of_others and not any([each.place[0] == holding.number for each in self.schedule]):
                    self._retire(holding)
            if self._loop.time() >= self._forsaken_at and self.tries.started:
                self._forsaken_at = self._loop.time() + FORSAKEN_INTERVAL
                assert self._own.writer is not None
                for path, lock in (yield self._own.writer.read(lambda _: holdings.forsaken(self._settings.path))):
                    log.info("nobody works on the spool's file %s: it is taken over", path)
                    self._take(Holding(path, lock, 0, False))
        except Exception as error:
            log.warning("cannot look after the spool: %s", error)
        finally:
            self._looking = False

    def _carry_out(self, holding: Holding, asked: list[tuple[int, str]]) -> Waits:
        writer = holding.writer
        assert writer is not None
        for number, text in asked:
            order = orders.Order(**json.loads(text))
            rows = yield writer.read(partial(orders.select, which=order))
            done = 0
            for row in rows:
                done += yield from self._carry_out_one(holding, row.number, order.what)
            yield writer.write(lambda store, n=number, d=done: store.answer(n, json.dumps(d)))  # type: ignore[misc]

    def _carry_out_one(self, holding: Holding, number: int, what: str) -> Waits:
        """Returns whether it was done: a message that is being tried all the time is left alone."""
        for _ in range(ASK_AGAIN):
            spooled = self.schedule.get((holding.number, number))
            if spooled is None or spooled.phase is not Phase.ANSWER:
                break
            yield self.pause(SWEEP_INTERVAL)
        if spooled is None or spooled.phase is Phase.ANSWER:
            return False
        self.schedule.hold(spooled)  # so that it is not tried meanwhile
        try:
            row = yield self.writer_of(spooled).write(partial(orders.carry_out, number=number, what=what))
        except Exception:
            self.schedule.hurry(spooled)
            raise
        if row is None:
            self.gone(spooled)
        elif what == "drop":
            self._drop(row)
            self.gone(spooled)
        elif what == "retry":
            self.schedule.hurry(spooled)
        return row is not None

    # --- counting -----------------------------------------------------------------------------------------------------

    def _count(self) -> None:
        self._page.set(_MESSAGES, len(self.schedule))
        self._page.set(_OCTETS, self.schedule.octets)

    def _publish(self) -> None:
        schedule, page = self.schedule, self._page
        self._count()
        self._had_much = self._had_much or schedule.octets > 1 << 20
        oldest = schedule.oldest()
        page.set_float(_OLDEST, 0.0 if oldest is None else max(0.0, self._clock() - oldest))


def _row_of(message: ToKeep, now: float) -> Row:
    state = WAITS_FOR_SITE if message.due is None else WAITS_FOR_TIME
    due = now if message.due is None else message.due
    arrived = message.envelope.received_at
    envelope = message.envelope.encoded()
    return Row(0, due, arrived, message.expires, 0, message.attempts, state, message.site, message.queue, envelope)
