"""What policies ask, for tests: an HTTP server in a thread of its own, on a free port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


class HttpServer:
    """Answers GET and POST with what it was asked, as JSON; a few paths do other things.

    /held waits for `release`. held, left: requests to it that have come, and whose client has gone.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.asked: list[dict[str, Any]] = []
        self.held = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self.loop).result()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def release(self) -> None:
        """Lets /held go on."""
        self.loop.call_soon_threadsafe(self._released.set)

    async def _start(self) -> int:
        app = web.Application()
        app.router.add_get("/held", self._held)
        app.router.add_get("/huge", self._huge)
        app.router.add_get("/latin", _latin)
        app.router.add_get("/away", _away)
        app.router.add_get("/code/{code}", _code)
        app.router.add_route("*", "/{path:.*}", self._echo)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def _echo(self, request: web.Request) -> web.Response:
        seen = {
            "method": request.method,
            "path": request.path_qs,
            "headers": dict(request.headers),
            "body": (await request.read()).decode("latin-1"),
        }
        self.asked.append(seen)
        return web.json_response(seen, headers={"X-Seen": "yes"})

    async def _held(self, request: web.Request) -> web.Response:
        self.held.release()
        try:
            await self._released.wait()
        except asyncio.CancelledError:
            self.left.release()
            raise
        return web.Response(text="released")

    async def _huge(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 20))

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _latin(_: web.Request) -> web.Response:
    return web.Response(body="grüße".encode("latin1"), content_type="text/plain", charset="latin1")


async def _away(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/there"})


async def _code(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["code"]))


@contextmanager
def http_server() -> Iterator[HttpServer]:
    """One that does not outlive the test."""
    server = HttpServer()
    yield server
    server.stop()
