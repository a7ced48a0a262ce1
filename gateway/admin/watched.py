"""What the admin process knows of the service from second to second, for those who look at it, and their HTTP answers.

While nobody looks it only takes down what was counted. Looking on in workers is streaming.py's, words are status.py's
and html.py's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from aiohttp import web

from gateway import metrics
from gateway.admin import health, html
from gateway.admin.context import AdminContext
from gateway.admin.following import BUSY, LOOKING, Ways
from gateway.admin.history import History
from gateway.admin.logged import RecentRecords
from gateway.admin.processes import System
from gateway.admin.status import RECENT, Status, status_of
from gateway.admin.streaming import Looking, Streams
from gateway.tracing.wanted import Wanted

PERIOD = 2.0  # seconds between two that a reader of events gets
MOST_READERS = 8  # of events at a time
MOST_REFUSED = 20  # of the last refusals
REFUSED_PERIOD = 5.0  # seconds for which they are kept before workers are asked again
EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
SECURITY = {
    "Content-Security-Policy": html.CONTENT_SECURITY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with "no-referrer" the Origin of its own forms would be "null"
    "X-Content-Type-Options": "nosniff",
}


class StatusWatch:
    """system: of the pages. streams: where workers are asked."""

    def __init__(self, context: AdminContext, system: System, streams: Streams) -> None:
        self._context, self._system, self._streams = context, system, streams
        self._history = History(context.pages)
        self._ways = Ways()
        self._looking: Looking | None = None
        self._looked = float("-inf")  # monotonic seconds when somebody did last
        self._refused: list[dict[str, Any]] = []
        self._refused_at = float("-inf")
        self._status: tuple[float, Status] | None = None
        self._records: RecentRecords | None = None
        self._thread = ThreadPoolExecutor(1, "records")
        self._readers = 0
        self._over = False

    def beat(self, now: float) -> None:
        """To be called about once a second. now: monotonic seconds."""
        self._history.take(now)
        wanted = now - self._looked < LOOKING and not self._is_busy()
        if wanted and self._looking is None:
            self._looking = Looking(self._streams, Wanted(), self._take)
        if self._looking is not None and not wanted:
            self._looking.stop()
            self._looking = None
            self._ways.stopped()
            if self._records is not None:
                self._thread.submit(self._records.close)
                self._records = None
        if self._looking is not None:
            self._looking.renew()

    async def end(self) -> None:
        """The process is about to."""
        self._over = True
        if self._looking is not None:
            self._looking.stop()
            await self._looking.ended()

    async def page(self, request: web.Request) -> web.Response:
        """GET /"""
        text = html.page(await self._now(), can_operate=self._context.operator is not None)
        return web.Response(text=text, content_type="text/html", headers=SECURITY)

    async def as_json(self, request: web.Request) -> web.Response:
        """GET /status"""
        return web.json_response(await self._now(), headers={"Cache-Control": "no-store"})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /status/events: what is to stand in the page, again and again."""
        if self._readers >= MOST_READERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_READERS} others look on already\n")
        self._readers += 1
        response = web.StreamResponse(headers=EVENTS)
        try:
            await response.prepare(request)
            while not self._over and request.transport is not None and not request.transport.is_closing():
                fragment = html.fragment(await self._now())
                await response.write(f"data: {json.dumps(fragment)}\n\n".encode())
                await asyncio.sleep(PERIOD)
        finally:
            self._readers -= 1
        with suppress(ConnectionError):
            await response.write_eof()
        return response

    async def refusal(self, request: web.Request) -> Mapping[str, Any]:
        """The refusal that a link of the page means. Raises HTTPNotFound."""
        wanted = (request.query.get("session"), request.query.get("time"))
        for event in await self._last_refused():
            if (event.get("session"), event.get("time")) == wanted:
                return event
        raise web.HTTPNotFound(text="this is no longer among the last refusals\n")

    async def _now(self) -> Status:
        now = time.monotonic()
        if self._looked < now - PERIOD and self._looking is None:
            self._looked = now
            self.beat(now)
        self._looked = now
        if self._status is None or self._status[0] < now - PERIOD / 4:
            refused = await self._last_refused()
            families = list(metrics.collect(self._context.pages, now=now, surroundings=self._system))
            ready = health.readiness(self._context.pages, self._context.page.generation, self._context.smtp, now)
            status = status_of(self._history, families, ready, refused=refused[-MOST_REFUSED:], now=time.time())
            followed = self._looking is not None and self._ways.watched(self._streams.windows().values())
            directories = list(self._context.log_dirs())
            ways = await self._with_records(self._ways.told(), directories)
            self._status = now, {**status, "following": {"on": followed, "ways": ways, "log_dirs": directories}}
        return self._status[1]

    async def _with_records(self, ways: list[Status], directories: Sequence[str]) -> list[Status]:
        """The ways, each with a line for each record that has been written of it."""
        if self._looking is None or not directories:
            return ways
        if self._records is None:
            self._records = RecentRecords(directories, time.time() - LOOKING)
        records = self._records
        with suppress(OSError):  # no such directory yet
            await asyncio.get_running_loop().run_in_executor(self._thread, records.look)
        return [{**way, "records": records.told((way["session"], *way["ids"]))} for way in ways]

    async def _last_refused(self) -> list[dict[str, Any]]:
        now = time.monotonic()
        if now - self._refused_at > REFUSED_PERIOD or not self._refused:
            self._refused_at = now
            self._refused = [json.loads(line) for line in await self._streams.refusals(Wanted())]
        return self._refused

    async def _take(self, lines: bytes) -> None:
        self._ways.take(lines)

    def _is_busy(self) -> bool:
        followed = (metrics.CONNECTIONS_OPENED, metrics.MESSAGES)
        return any(sum(self._history.rates(family, RECENT).values()) > BUSY for family in followed)
