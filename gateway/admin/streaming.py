"""/trace and /trace/recent: what all workers tell, as lines of JSON to one HTTP client each.

Reads from the workers' windows no faster than its client takes it, so that whatever is too much is dropped, and
counted, where it arises. Workers that start meanwhile are looked at, too; who goes away ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from aiohttp import web

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.admin.windows import behind, name_of
from gateway.tracing.wanted import BadWish, Wanted
from gateway.tracing.words import line_of

MOST_READERS = 8  # at a time
LOOK = 0.1  # seconds between two looks for new workers, and for whether the client is still there
PORTION = 64 * 1024  # octets
PATIENCE = 5.0  # seconds for a worker to tell its last refusals
JSON_LINES = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Take = Callable[[bytes], Awaitable[None]]


class Streams:
    """Those under way. pages: of all processes."""

    def __init__(self, pages: Sequence[CounterPage]) -> None:
        self._pages = pages
        self._readers = 0
        self._over = False

    def end(self) -> None:
        """The process is about to end, and so is every stream: who reads it asks again, and finds the next one."""
        self._over = True

    async def live(self, request: web.Request) -> web.StreamResponse:
        """Answers GET /trace."""
        wanted = _wanted(request)
        if self._readers >= MOST_READERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_READERS} others look on already\n")
        self._readers += 1
        response = web.StreamResponse(headers=JSON_LINES)
        lock = asyncio.Lock()

        async def take(lines: bytes) -> None:
            async with lock:
                await response.write(lines)

        looking = Looking(self, wanted, take)
        try:
            await response.prepare(request)
            while not self._over and not _is_gone(request):
                looking.renew()
                await asyncio.sleep(LOOK)
        finally:
            self._readers -= 1
            looking.stop()
            await looking.ended()
        with suppress(ConnectionError):
            await response.write_eof()
        return response

    async def recent(self, request: web.Request) -> web.Response:
        """Answers GET /trace/recent: the last refusals of all workers, the oldest first."""
        return web.Response(body=b"".join(await self.refusals(_wanted(request))), headers=JSON_LINES)

    async def refusals(self, wanted: Wanted) -> list[bytes]:
        """The last refusals of all workers as lines of JSON, the oldest first."""
        lines: list[bytes] = []

        async def take(some: bytes) -> None:
            lines.extend(some.splitlines(keepends=True))

        asked = [_ask(*key, "recent", wanted, take) for key in self.windows()]
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*asked)
        lines.sort(key=lambda line: str(json.loads(line).get("time", "")))
        return lines

    def windows(self) -> dict[tuple[int, int], int]:
        """The windows at which workers can be looked at, and their workers."""
        pages = [page for page in self._pages if page.pid and page.worker >= 0 and page.get(metrics.WINDOW)]
        return {(page.pid, page.get(metrics.WINDOW)): page.worker for page in pages}


class Looking:
    """Somebody looks on in all workers, those that start meanwhile included. take: gets whole lines."""

    def __init__(self, streams: Streams, wanted: Wanted, take: Take) -> None:
        self._streams, self._wanted, self._take = streams, wanted, take
        self._tasks: dict[tuple[int, int], asyncio.Task[None]] = {}

    def renew(self) -> None:
        """Looks for new workers."""
        windows = self._streams.windows()
        for key, worker in windows.items():
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(_look_on(*key, worker, self._wanted, self._take))
        self._tasks = {key: task for key, task in self._tasks.items() if not task.done() or key in windows}

    def stop(self) -> None:
        """Nobody does any more."""
        for task in self._tasks.values():
            task.cancel()

    async def ended(self) -> None:
        """Waits until it has stopped everywhere."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


def _wanted(request: web.Request) -> Wanted:
    try:
        return Wanted.read(request.query.items())
    except BadWish as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def _look_on(pid: int, window: int, worker: int, wanted: Wanted, take: Take) -> None:
    """Passes on what a worker tells, until it ends; says so then."""
    with suppress(ConnectionError):  # the client's: the stream ends with it
        if await _ask(pid, window, "trace", wanted, take):
            await take(line_of({"event": "gone", "worker": worker, "pid": pid}))


async def _ask(pid: int, window: int, what: str, wanted: Wanted, take: Take) -> bool:
    """Asks at a worker's window, and gives whole lines to `take`, until its end; returns whether anybody answered."""
    try:
        reader, writer = await asyncio.open_unix_connection(name_of(window), limit=PORTION)
    except OSError:  # it has just ended
        return False
    try:
        # else somebody took the name after it
        if behind(writer.get_extra_info("socket")) != (pid, os.geteuid()):
            return False
        writer.write(json.dumps({"ask": what, "wanted": wanted.pairs()}).encode() + b"\n")
        rest = b""
        while data := await _read(reader):
            whole, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                await take(whole + newline)
        return True
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(PORTION)
    except OSError:  # it died
        return b""
