"""LogWriter: takes records on the event loop, and compresses, writes and syncs them on a thread of its own.

A stalled disk stalls that thread and nothing else. Nothing is dropped: what cannot be written waits and is tried
again every second; at `back_pressure` waiting records `full` asks the sessions to pause. The event loop appends to a
destination's `lines`, the thread removes from their front, and every other shared value has one writer. Each such
operation is atomic by itself, so the two share no lock.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from gateway._fastpath import CounterPage
from gateway.config import RECORD_TYPES, LocalLogs
from gateway.later import Later
from gateway.logs.destination import RecordDestination
from gateway.logs.disk import directories, settings_of, shortage
from gateway.logs.encoding import EMPTY, Record, Selection, to_json
from gateway.logs.segments import seal_abandoned
from gateway.metrics import LOG_BACKLOG, LOG_FAILURES, LOG_LOST, LOG_RECORDS

if TYPE_CHECKING:
    from gateway.later import Later
    from gateway.mail.message import Message

log = logging.getLogger("gateway.logs")

BATCH_BYTES = 2 * 1024 * 1024  # a batch is written as soon as it has this size …
BATCH_SECONDS = 0.25  # … or its first record this age
SYNC_SECONDS = 0.005  # from one sync to the next: whoever asks meanwhile shares it
RETRY_SECONDS = 1.0
DISK_CHECK_SECONDS = 5.0

_RECORDS = {kind: LOG_RECORDS.slot(kind) for kind in RECORD_TYPES}
_BACKLOG, _FAILURES, _LOST = LOG_BACKLOG.slot(), LOG_FAILURES.slot(), LOG_LOST.slot()


class _Logger:
    """One `configure_local_logs`: its destinations, and how many records wait in them all."""

    def __init__(self, config: LocalLogs) -> None:
        self.config = config
        self.filter_event = config.filter_event
        self.back_pressure = config.back_pressure
        self.submitted = 0  # counted by the event loop
        self.written = 0  # counted by the thread
        self.routes: dict[str, RecordDestination] = {}
        unique: dict[tuple[str, str, str | None, str], RecordDestination] = {}
        for kind, settings in settings_of(config).items():
            directory = settings.log_dir or config.log_dir
            form = (directory, settings.suffix, settings.template, settings.segment_header)
            self.routes[kind] = unique.setdefault(form, RecordDestination(config, settings))
        self.destinations = list(unique.values())

    @property
    def has_room(self) -> bool:
        """Half empty: sessions that pause one record at a time would cost more than they log."""
        return self.submitted - self.written <= self.back_pressure // 2


class _Route:
    """The way of a type's records through one logger."""

    def __init__(self, logger: _Logger, destination: RecordDestination) -> None:
        self.logger = logger
        self.lines = destination.lines


class _Group:
    """Loggers that show the same metadata and headers of a type's records, and share their encoding."""

    def __init__(self, selection: Selection, routes: list[_Route]) -> None:
        self.selection = selection
        self.routes = routes


class LogWriter:
    """The loggers of a policy, in one worker. All methods belong to the event loop's thread.

    `full`: too much is waiting; sessions should read no more until `when_room` calls. `disk_problem`: a log directory
    is short of space or inodes, or unusable; new connections should be refused.
    """

    def __init__(
        self,
        loggers: Sequence[LocalLogs],
        page: CounterPage,
        filter: Callable[[str, Message], Later] | None = None,
        *,
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """filter: calls a `filter_event` handler. call_soon: runs a callback on the event loop, from any thread.

        Creates the directories, and starts the thread. Raises TemplateError for what is no template.
        """
        self.full = False
        self.disk_problem: str | None = None
        self._page = page
        self._filter = filter
        self._call_soon = call_soon
        self._loggers = [_Logger(config) for config in loggers]
        self._destinations = [destination for logger in self._loggers for destination in logger.destinations]
        self._plan = {kind: _plan(kind, self._loggers) for kind in RECORD_TYPES}
        self._undecided: dict[Later, Callable[[], None]] = {}  # what a filter waits for, and what takes the record then
        self._room_wanted: list[Callable[[], None]] = []
        self._durable_wanted: list[Later] = []
        self._sure = True  # no write or sync failed since somebody was told
        self._bytes = 0  # of the batch under way; only a hint, so a lost update is harmless
        self._awake = False  # the thread knows that there is something to do
        self._work, self._hurry = threading.Event(), threading.Event()
        self._closing = False
        self._check_disks()
        self._next_check = time.monotonic() + DISK_CHECK_SECONDS
        self._next_sync = 0.0  # monotonic seconds
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def submit(self, record: Record, message: Message | None = None) -> bool:
        """Hands over a record; returns whether any logger takes it. One whose filter has to wait does not yet.

        message: what filters and the `headers` of loggers look at; None where there is none (Rejection).
        """
        kind = record.type
        taken = False
        for group in self._plan[kind]:
            line = b""
            for route in group.routes:
                logger = route.logger
                if (
                    logger.filter_event is not None
                    and message is not None
                    and not self._passes(record, group, route, message)
                ):
                    continue
                if not line:
                    line = _line(record, group.selection, message)
                    taken = True
                self._put(route, line)
            self._bytes += len(line)
        if taken:
            self._taken(kind)
        return taken

    def _put(self, route: _Route, line: bytes) -> None:
        logger = route.logger
        route.lines.append(line)
        logger.submitted += 1
        if logger.submitted - logger.written >= logger.back_pressure:
            self.full = True

    def _taken(self, kind: str) -> None:
        self._page.add(_RECORDS[kind])
        if self._bytes >= BATCH_BYTES:
            self._bytes = 0
            self._hurry.set()
        if not self._awake:
            self._awake = True
            self._work.set()

    def durable(self) -> Later:
        """Settled with True once everything submitted so far is on disk, whatever happens to the machine; with False
        where that did not succeed. Many calls share one sync.
        """
        later = Later()
        self._durable_wanted.append(later)
        self._hurry.set()
        self._awake = True
        self._work.set()
        return later

    def when_room(self, callback: Callable[[], None]) -> None:
        """Calls back, once, when `full` is over."""
        self._room_wanted.append(callback)
        if not self.full:
            self._call_soon(self._make_room)

    def close(self, timeout: float) -> bool:
        """Writes and completes everything and ends the thread; nothing may be submitted any more.

        Returns False where records were lost, or the disk took longer than `timeout` seconds.
        """
        undecided, self._undecided = self._undecided, {}
        for answer, take in undecided.items():
            answer.cancel()
            take()
        self._closing = True
        self._hurry.set()
        self._work.set()
        self._thread.join(timeout)
        lost = sum(destination.backlog for destination in self._destinations)
        if lost:
            self._page.add(_LOST, lost)
            log.error("%d log records could not be written and are lost", lost)
        return not lost and not self._thread.is_alive()

    def _passes(self, record: Record, group: _Group, route: _Route, message: Message) -> bool:
        """Whether a logger's filter lets a record through now; one that has to wait takes it later, if at all."""
        if self._filter is None or route.logger.filter_event is None:
            return True
        answer = self._filter(route.logger.filter_event, message)
        if answer.done:
            return answer.failed or bool(answer.result())  # a record too many is better than one too few
        self._undecided[answer] = partial(self._take, record, group, route, message)
        answer.then(partial(self._decided, answer))
        return False

    def _decided(self, answer: Later) -> None:
        take = self._undecided.pop(answer)
        if answer.failed or answer.result():
            take()

    def _take(self, record: Record, group: _Group, route: _Route, message: Message) -> None:
        line = _line(record, group.selection, message)
        self._put(route, line)
        self._bytes += len(line)
        self._taken(record.type)

    def _make_room(self) -> None:
        if self.full and not all(logger.has_room for logger in self._loggers):
            return  # it filled up again meanwhile
        self.full = False
        callbacks, self._room_wanted = self._room_wanted, []
        for callback in callbacks:
            callback()

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        for directory in {destination.directory for destination in self._destinations}:
            try:
                seal_abandoned(directory)
            except OSError as error:
                log.warning("cannot look for abandoned segments in %s: %s", directory, error.strerror)
        while not self._closing:
            self._work.wait(self._patience())
            if self._awake:
                self._hurry.wait(BATCH_SECONDS)
                # No event ends this wait: waking for each who asks would interrupt the event loop as often.
                time.sleep(max(0.0, self._next_sync - time.monotonic()))
            self._hurry.clear()
            self._work.clear()
            self._round()
        for last_chance in (self._round, self._finish):
            for destination in self._destinations:
                destination.retry_at = None
            last_chance()

    def _finish(self) -> None:
        for destination in self._destinations:
            self._attempt(destination, destination.finish)

    def _patience(self) -> float:
        """Seconds until something is due although no record comes."""
        due = [self._next_check, *(destination.due for destination in self._destinations)]
        return max(0.0, min(due) - time.monotonic())

    def _round(self) -> None:
        self._awake = False  # from here on a submission sets _work again …
        self._bytes = 0
        waiting = self._durable_wanted[:]  # … and whoever is in this list has submitted already
        del self._durable_wanted[: len(waiting)]
        ok = True
        for logger in self._loggers:
            for destination in logger.destinations:
                ok &= self._attempt(destination, partial(self._write, logger, destination, bool(waiting)))
        if waiting:
            self._next_sync = time.monotonic() + SYNC_SECONDS
            ok &= self._sure
            self._sure = True
            self._notify(partial(_answer, waiting, ok))
        self._page.set(_BACKLOG, sum(destination.backlog for destination in self._destinations))
        if self.full and all(logger.has_room for logger in self._loggers):
            self._notify(self._make_room)
        if time.monotonic() >= self._next_check:
            self._check_disks()
            self._next_check = time.monotonic() + DISK_CHECK_SECONDS

    def _write(self, logger: _Logger, destination: RecordDestination, sync: bool) -> None:
        try:
            destination.write(time.monotonic(), time.time_ns())
        finally:
            logger.written = sum(each.written for each in logger.destinations)
        if sync:
            destination.sync()

    def _attempt(self, destination: RecordDestination, action: Callable[[], None]) -> bool:
        """Runs the action, unless the destination failed a moment ago; False where it did not succeed."""
        now = time.monotonic()
        if destination.retry_at is not None and now < destination.retry_at:
            return False
        try:
            action()
        except Exception as error:
            if destination.retry_at is None:
                log.error("cannot write log records to %s, trying again: %s", destination.directory, error)
            destination.retry_at = now + RETRY_SECONDS
            self._page.add(_FAILURES)
            self._sure = False
            return False
        if destination.retry_at is not None:
            log.warning("log records are written to %s again", destination.directory)
            destination.retry_at = None
        return True

    def _notify(self, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the event loop is closed, and nobody waits any more
            self._call_soon(callback)

    def _check_disks(self) -> None:
        problem = next(filter(None, map(_problem, self._loggers)), None)
        if problem is not None and self.disk_problem is None:
            log.error("%s; new connections are refused", problem)
        elif problem is None and self.disk_problem is not None:
            log.warning("log directories have room again")
        self.disk_problem = problem


def _plan(kind: str, loggers: Sequence[_Logger]) -> list[_Group]:
    """Who takes records of a type."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[_Route]] = {}
    for logger in loggers:
        if kind in logger.routes:
            shown = logger.config.meta, logger.config.headers
            groups.setdefault(shown, []).append(_Route(logger, logger.routes[kind]))
    return [_Group(Selection(meta, headers), routes) for (meta, headers), routes in groups.items()]


def _line(record: Record, selection: Selection, message: Message | None) -> bytes:
    meta = to_json(selection.meta(record.meta)) if selection.shows_meta else EMPTY
    headers = EMPTY
    if selection.shows_headers and message is not None:
        headers = to_json(selection.headers(message.headers()))
    return record.line(meta, headers)


def _answer(waiting: Sequence[Later], ok: bool) -> None:
    for later in waiting:
        later.settle(ok)


def _problem(logger: _Logger) -> str | None:
    config = logger.config
    for directory in directories(config):
        try:
            os.makedirs(directory, exist_ok=True)
            problem = shortage(directory, config.min_free_space, config.min_free_inodes)
        except OSError as error:
            problem = f"{directory}: {error.strerror}"
        if problem is not None:
            return problem
    return None
