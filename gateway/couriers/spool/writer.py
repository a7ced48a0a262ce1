"""The thread that works on one file of the spool: whoever asks meanwhile shares its next sync.

Jobs are functions of the Store, carried out in the order in which they came, all that wait in one transaction; those
that nobody waits for are carried out when there is a sync to be shared, or when there are many, or after a moment. When
the disk fails it fails those of that transaction; a file that is found damaged is set aside and a new one begun.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from gateway.couriers.spool.store import Damaged, Row, Store, opened
from gateway.later import Later
from gateway.logs.disk import shortage

MOST_JOBS = 1000  # in one transaction
SHARE = 0.003  # seconds from one transaction to the next, where several want to write: more of them share its sync
PATIENT = 0.03  # seconds for which what nobody waits for does
MANY = 32  # … unless there are so many
OPEN_AGAIN = 1.0  # seconds between two tries to open a file
LOOK_AGAIN = 2.0  # seconds between two looks at the free space
CLOSE_PATIENCE = 30.0  # seconds for a disk that does not answer

log = logging.getLogger(__name__)


class SpoolFull(Exception):
    """There is no room on the disk; the text is for the operator."""


class SpoolUnusable(Exception):
    """The file cannot be used for now; the text is for the operator."""


class _Job:
    """What is asked for. writes: it changes the file. needs_room: and makes it grow. may_fail: halfway, by itself."""

    __slots__ = ("later", "may_fail", "needs_room", "work", "writes")

    def __init__(
        self, work: Callable[[Store], Any], *, writes: bool, needs_room: bool = False, may_fail: bool = False
    ) -> None:
        self.work = work
        self.writes = writes
        self.needs_room = needs_room
        self.may_fail = may_fail
        self.later = Later()


class SpoolWriter:
    """One file and its thread. Methods belong to the event loop's thread.

    opened: called on the event loop with all messages, once the file is open, and again after one was set aside.
    synced: called on the thread with the seconds that a commit took. limits: min_free_space and min_free_inodes.
    """

    def __init__(
        self,
        path: str,
        call_soon: Callable[[Callable[[], None]], object],
        opened: Callable[[list[Row], bool], None],
        synced: Callable[[float], None] = lambda seconds: None,
        limits: tuple[str | int, str | int] = (0, 0),
    ) -> None:
        self.path = path
        self._call_soon = call_soon
        self._opened = opened
        self._synced = synced
        self._limits = limits
        self._jobs: deque[_Job] = deque()
        self._patient: deque[_Job] = deque()  # jobs that nobody waits for
        self._patient_until = 0.0
        self._work = threading.Event()
        self._closing = self._shrinking = False
        self._retired: Callable[[], None] | None = None
        self._store: Store | None = None
        self._trouble = SpoolUnusable("it is not open yet")
        self._open_at = 0.0
        self._shortage: str | None = None
        self._look_at = 0.0
        self._next_at = 0.0  # when the next transaction may begin
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._work.set()  # to open the file
        self._thread.start()

    def write_by_and_by(self, work: Callable[[Store], Any]) -> Later:
        """The same for what nobody waits for."""
        job = _Job(work, writes=True)
        if self._closing:
            return self._add(job)
        self._patient.append(job)
        if len(self._patient) == 1:
            self._patient_until = time.monotonic() + PATIENT
        if len(self._patient) in {1, MANY}:
            self._work.set()
        return job.later

    def write(self, work: Callable[[Store], Any], *, needs_room: bool = False, may_fail: bool = False) -> Later:
        """Has something done to the file. The answer, what `work` returns, is there once it is on disk.

        It fails with SpoolFull, SpoolUnusable, or what `work` raises. needs_room: the file grows. may_fail: `work` may
        raise an OSError, such as for a content that it reads from a file.
        """
        return self._add(_Job(work, writes=True, needs_room=needs_room, may_fail=may_fail))

    def read(self, work: Callable[[Store], Any]) -> Later:
        """Has something looked up."""
        return self._add(_Job(work, writes=False))

    def shrink(self) -> None:
        """Gives room back to the file system, when there is nothing else to do."""
        self._shrinking = True
        self._work.set()

    def retire(self, ended: Callable[[], None]) -> None:
        """The file is empty and not needed any more: it is deleted. ended: called on the event loop then."""
        self._retired = ended
        self._closing = True
        self._work.set()

    def close(self) -> None:
        """What was asked for is done first. Blocks for a moment: for the end of a process."""
        self._closing = True
        self._work.set()
        self._thread.join(CLOSE_PATIENCE)

    def _add(self, job: _Job) -> Later:
        if self._closing:
            job.later.fail(SpoolUnusable("it is being closed"))
        else:
            self._jobs.append(job)
            self._work.set()
        return job.later

    # --- on the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._work.wait(self._patience())
            self._work.clear()
            if self._store is None:
                self._open()
            while jobs := self._due():
                results = self._carried_out(jobs)
                self._tell(lambda results=results: _settle(results))  # type: ignore[misc]
            if self._closing and not self._jobs and not self._patient:
                break
            if self._shrinking and self._store is not None:
                self._shrinking = False
                with suppress(sqlite3.Error):  # another process looks into it
                    self._store.shrink()
        self._end()

    def _patience(self) -> float | None:
        """Seconds until there is something to do, whether or not anybody asks for something."""
        if self._closing:
            return 0.0
        if self._patient:
            return max(0.0, self._patient_until - time.monotonic())
        return None if self._store else OPEN_AGAIN

    def _due(self) -> list[_Job]:
        """The jobs of one transaction; none where nothing is to be done now."""
        if self._jobs:
            time.sleep(max(0.0, self._next_at - time.monotonic()))
        jobs = _taken(self._jobs)
        is_time = self._closing or time.monotonic() >= self._patient_until or len(self._patient) >= MANY
        if (not jobs and is_time) or any([job.writes for job in jobs]):
            jobs += _taken(self._patient)
        return jobs

    def _end(self) -> None:
        store = self._store
        with suppress(sqlite3.Error, OSError):
            if store is not None:
                unneeded = self._retired is not None and not any(True for _ in store.rows())
                store.close()
                if unneeded:
                    for suffix in ("", "-wal", "-shm"):
                        Path(self.path + suffix).unlink(missing_ok=True)
        if self._retired is not None:
            self._tell(self._retired)

    def _open(self) -> None:
        if time.monotonic() < self._open_at:
            return
        self._open_at = time.monotonic() + OPEN_AGAIN
        try:
            self._store, rows, aside = opened(self.path)
        except (sqlite3.Error, OSError) as error:
            if str(error) != str(self._trouble):
                log.error("the spool's file %s cannot be opened: %s", self.path, error)
            self._trouble = SpoolUnusable(str(error))
            return
        if aside is not None:
            log.error("the spool's file was damaged and is now %s; %d messages could be read", aside, len(rows))
        self._tell(lambda: self._opened(rows, aside is not None))

    def _carried_out(self, jobs: list[_Job]) -> list[tuple[Later, Any, BaseException | None]]:
        """The answers of all jobs."""
        store = self._store
        if store is None:
            return [(job.later, None, self._trouble) for job in jobs]
        results: list[tuple[Later, Any, BaseException | None]] = []
        writes = sum([job.writes for job in jobs])
        began = time.monotonic()
        self._next_at = began + SHARE if writes > 1 else 0.0
        short = self._short() if any([job.needs_room for job in jobs]) else None
        try:
            with store.transaction() if writes else nullcontext():
                for job in jobs:
                    if job.needs_room and short is not None:
                        results.append((job.later, None, SpoolFull(short)))
                    else:
                        results.append(_done(job, store))
        except sqlite3.Error as error:
            return self._failed(jobs, error)
        except Exception as error:
            log.exception("internal error in the spool's thread")
            return [(job.later, None, error) for job in jobs]
        if writes:
            self._synced(time.monotonic() - began)
        return results

    def _failed(self, jobs: list[_Job], error: sqlite3.Error) -> list[tuple[Later, Any, BaseException | None]]:
        """Nothing of the transaction was done."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        log.error("the spool's file %s: %s", self.path, error)
        if not isinstance(error, sqlite3.OperationalError):  # malformed, or no database any more
            assert self._store is not None
            with suppress(sqlite3.Error):
                self._store.close()
            self._store = None
            self._open_at = 0.0
            self._trouble = SpoolUnusable(str(error))
            self._work.set()
        failure = SpoolFull(str(error)) if code == sqlite3.SQLITE_FULL else SpoolUnusable(str(error))
        return [(job.later, None, failure) if job.writes else self._read_alone(job, failure) for job in jobs]

    def _read_alone(self, job: _Job, failure: Exception) -> tuple[Later, Any, BaseException | None]:
        """What is only read need not fail with what is written at the same time."""
        if self._store is not None:
            with suppress(sqlite3.Error):
                return _done(job, self._store)
        return job.later, None, failure

    def _short(self) -> str | None:
        """What is short on the disk."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_AGAIN
            try:
                self._shortage = shortage(self.path, *self._limits)
            except OSError as error:
                self._shortage = str(error)
        return self._shortage

    def _tell(self, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the event loop is closed, and nobody waits
            self._call_soon(callback)


def _taken(jobs: deque[_Job]) -> list[_Job]:
    return [jobs.popleft() for _ in range(min(MOST_JOBS, len(jobs)))]


def _done(job: _Job, store: Store) -> tuple[Later, Any, BaseException | None]:
    try:
        if not job.may_fail:
            return job.later, job.work(store), None
        with store.part():
            return job.later, job.work(store), None
    except (Damaged, OSError) as error:  # of one message: what is stored, or the file that its content is in
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        return job.later, None, SpoolFull(str(error)) if full else error


def _settle(results: list[tuple[Later, Any, BaseException | None]]) -> None:
    for later, value, error in results:
        if error is None:
            later.settle(value)
        else:
            later.fail(error)
