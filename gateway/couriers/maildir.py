"""Delivery into a Maildir: one file per message, on disk before anyone is told.

The content is written as the message has it; no Return-Path or Delivered-To is added. Files and directories are
touched in threads only, so a slow disk never holds up the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

from gateway._fastpath import CounterPage
from gateway.config import Destination, Maildir, site_name
from gateway.couriers.courier import Courier
from gateway.couriers.fleet import counting
from gateway.couriers.fleet.outcome import same_for_all
from gateway.handover import Batch, HandOver, RecipientOutcome, Response, Status
from gateway.later import Later
from gateway.smtp import replies

THREADS = 4  # fsyncs under way at a time
LARGE_THREADS = 2  # and of large contents besides, for which nobody else waits
FILE_MODE = 0o600

logger = logging.getLogger(__name__)


class MaildirCourier(Courier):
    """Writes batches into Maildirs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, page: CounterPage, hostname: str) -> None:
        self._jobs = 0  # under way
        self._ends = math.inf  # when nobody waits for them any more
        self._loop = loop
        self._page = page
        self._hostname = hostname.replace("/", "\\057").replace(":", "\\072")
        self._numbers = itertools.count(1)
        self._threads: dict[bool, ThreadPoolExecutor] = {}  # for the large contents, and for the others

    def submit(self, batch: Batch, destination: Destination, deadline: float) -> Later:
        """Store the batch's message once, for all its recipients. A disk knows no deadline."""
        maildir = destination.queue.protocol
        assert isinstance(maildir, Maildir)
        large = not batch.content.in_memory
        if large not in self._threads:
            most = LARGE_THREADS if large else THREADS
            self._threads[large] = ThreadPoolExecutor(most, thread_name_prefix="maildir")
        self._jobs += 1
        later = Later()
        started = time.monotonic()
        stored = self._loop.run_in_executor(self._threads[large], store, maildir, self._file_name(), batch)

        def report(stored: asyncio.Future[str]) -> None:
            self._jobs -= 1
            seconds = time.monotonic() - started
            self._page.observe(counting.DURATION, seconds)
            site = f"unspecified->@{site_name(maildir)}"
            later.settle(HandOver(_outcomes(batch, stored), site, "Maildir", seconds, peer_name=maildir.path))

        stored.add_done_callback(report)
        return later

    def room(self, destination: Destination) -> int:
        return max(0, THREADS - self._jobs)

    def sweep(self, now: float) -> bool:
        return self._jobs > 0 and now < self._ends

    def close(self, deadline: float) -> None:
        """Let the threads end; what they are writing will be written, whoever waits for it."""
        self._ends = deadline
        for threads in self._threads.values():
            threads.shutdown(wait=False)

    def _file_name(self) -> str:
        """Unique among all processes of all hosts that share the Maildir."""
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        return f"{seconds}.M{nanoseconds // 1000}P{os.getpid()}Q{next(self._numbers)}.{self._hostname}"


def store(maildir: Maildir, name: str, batch: Batch) -> str:
    """Write the content as `name` into the Maildir, making it where it is missing, and return the file's path.

    When this returns, file and directory entry have been synced. Raises OSError, and then there is no file in new/.
    """
    for directory in ("tmp", "new", "cur"):
        _make_directory(os.path.join(maildir.path, directory), maildir.dir_mode)
    temporary = os.path.join(maildir.path, "tmp", name)
    final = os.path.join(maildir.path, "new", name)
    try:
        _write(temporary, FILE_MODE if maildir.file_mode is None else maildir.file_mode, batch)
        os.rename(temporary, final)
        _sync_directory(os.path.dirname(final))
    except OSError:
        for path in (temporary, final):
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise
    return final


def _make_directory(path: str, mode: int | None) -> None:
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent and not os.path.isdir(parent):
        _make_directory(parent, mode)
    with contextlib.suppress(FileExistsError):  # another thread or process was faster
        os.mkdir(path)
        if mode is not None:
            os.chmod(path, mode)  # whatever the umask
        _sync_directory(parent or ".")


def _write(path: str, mode: int, batch: Batch) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.writelines(batch.content.plain_pieces())
        file.flush()
        os.fsync(descriptor)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _outcomes(batch: Batch, stored: asyncio.Future[str]) -> list[RecipientOutcome]:
    error = stored.exception()
    if error is not None:
        logger.error("cannot store message %s", batch.message_id, exc_info=error)
        return same_for_all(batch.recipients, replies.STORAGE)
    response = Response(250, "2.0.0", f"stored as {os.path.basename(stored.result())}")
    return [RecipientOutcome(recipient, Status.DELIVERED, response, None) for recipient in batch.recipients]
