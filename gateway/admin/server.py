"""The admin process: answers HTTP on the policy's `kumo.start_http_listener`s, from what all processes count.

It only reads the counter pages, /proc, log segments and what workers tell (streaming.py), and asks the policy in force
what it would decide. Nothing here can change what happens to mail, but for what operating.py passes on.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from aiohttp import web
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway import metrics
from gateway._fastpath import CidrSet, CounterPage
from gateway.admin import health
from gateway.admin.context import AdminContext
from gateway.admin.display import refusal_of
from gateway.admin.html import text_page
from gateway.admin.operating import Operating
from gateway.admin.origin import Handler, Origins, machine_name
from gateway.admin.processes import System
from gateway.admin.streaming import Streams
from gateway.admin.watched import SECURITY, StatusWatch
from gateway.config import HttpListener
from gateway.metrics.families import ProcessState

HEARTBEAT = 1.0  # seconds between two of them
LARGEST_INQUIRY = 128 << 20  # octets; one may bring a message
LAST_REQUESTS = 1.0  # seconds that requests under way get at the end, and connections without one to bring one
LOOK_AGAIN = 0.02  # seconds

ENDPOINTS = {
    "/": "what happens now, as a page; only for trusted_hosts",
    "/status": "the same as JSON; only for trusted_hosts",
    "/metrics": "counters, for Prometheus; only for trusted_hosts",
    "/healthz": "200 while the processes are alive",
    "/readyz": "200 while every listener takes new connections; ?listener=ADDRESS asks about one",
    "/trace": "sessions as they happen, a line of JSON for each event; only for trusted_hosts",
    "/trace/recent": "the last refusals, likewise",
    "/explain": "POST of what `relay-gateway explain --live` asks; only for trusted_hosts",
    "/api/check-liveness/v1": "as /readyz, under KumoMTA's name",
}


def run(context: AdminContext) -> int:
    """Serve until SIGTERM; returns the exit code."""
    asyncio.run(_serve(context))
    return 0


async def _serve(context: AdminContext) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    streams = Streams(context.pages)
    thread = ThreadPoolExecutor(1, "explain")  # one question at a time, and metrics are not kept waiting
    system = System(context.pages, context.names, context.policy(), context.members, context.shipments)
    watched = StatusWatch(context, system, streams)
    watched.beat(time.monotonic())
    operating = Operating(context.operator, ThreadPoolExecutor(1, "operator"), context.page)
    explaining, refused = _explaining(context.explain, thread), _refusal(context, watched, thread)
    only: dict[tuple[str, str], Handler] = {
        ("GET", "/metrics"): Exposition(context.pages, system).answer,
        ("GET", "/status"): watched.as_json,
        ("GET", "/status/events"): watched.events,
        ("GET", "/status/refused"): refused,
        ("GET", "/trace"): streams.live,
        ("GET", "/trace/recent"): streams.recent,
        ("GET", "/explain"): explaining,
        ("POST", "/explain"): explaining,
        ("POST", "/operator/fleet"): operating.fleet,
        ("POST", "/operator/spool"): operating.spool,
    }
    leaving = asyncio.Event()
    runners = [
        await _start(listener, each, context, only, watched.page, leaving) for listener, each in context.listeners
    ]
    context.enter(ProcessState.READY)
    while not stop.is_set():
        context.page.heartbeat = now = time.monotonic()
        watched.beat(now)
        try:
            await asyncio.wait_for(stop.wait(), HEARTBEAT)
        except TimeoutError:
            continue
    streams.end()
    await watched.end()
    for runner in runners:
        for site in list(runner.sites):
            await site.stop()
    context.enter(ProcessState.DRAINING)
    leaving.set()
    await _until_they_have_gone(runners)
    for runner in runners:
        await runner.cleanup()


async def _until_they_have_gone(runners: Sequence[web.AppRunner]) -> None:
    """A connection that was accepted just before the port went to another process is answered here: its client cannot
    know, and would see it closed without an answer.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + LAST_REQUESTS
    await asyncio.sleep(0)  # what was accepted in this turn is a connection in the next
    while loop.time() < until and any(runner.server and runner.server.connections for runner in runners):
        await asyncio.sleep(LOOK_AGAIN)


async def _start(
    listener: HttpListener,
    bound: socket.socket,
    context: AdminContext,
    only_for_trusted: Mapping[tuple[str, str], Handler],
    page: Handler,
    leaving: asyncio.Event,
) -> web.AppRunner:
    origins = Origins(context.hostnames, {listener.hostname or machine_name(), *listener.allowed_hosts})

    async def last_answer(request: web.Request, response: web.StreamResponse) -> None:
        if leaving.is_set():
            response.force_close()
            response.headers["Connection"] = "close"  # which was decided before this is called

    application = web.Application(client_max_size=LARGEST_INQUIRY)
    application.on_response_prepare.append(last_answer)
    application.on_response_prepare.append(_name_server)
    readiness = _readiness(context)
    application.router.add_get("/", origins.guarded(_page_or_index(listener.trusted_hosts, page)))
    guarded = {
        key: origins.guarded(_only_for(listener.trusted_hosts, handler)) for key, handler in only_for_trusted.items()
    }
    for path in ("/metrics", "/status", "/trace/recent"):
        guarded["HEAD", path] = guarded["GET", path]
    for (method, path), handler in guarded.items():
        application.router.add_route(method, path, handler)
    application.router.add_get("/healthz", _liveness(context.pages))
    application.router.add_get("/readyz", readiness)
    application.router.add_get("/api/check-liveness/v1", readiness)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=LAST_REQUESTS)
    await runner.setup()
    await web.SockSite(runner, bound).start()
    return runner


async def _name_server(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "relay-gateway"


async def _index(request: web.Request) -> web.Response:
    rows = "".join(f'<li><a href="{path}">{path}</a>: {purpose}</li>' for path, purpose in ENDPOINTS.items())
    page = f"<!doctype html><html lang=en><title>relay-gateway</title><h1>relay-gateway</h1><ul>{rows}</ul></html>\n"
    return web.Response(text=page, content_type="text/html")


def _is_trusted(trusted: CidrSet, request: web.Request) -> bool:
    return request.remote is not None and trusted.contains_text(request.remote.partition("%")[0])


def _page_or_index(trusted: CidrSet, page: Handler) -> Handler:
    """Those who may not see what happens get the list of what there is."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await (page if _is_trusted(trusted, request) else _index)(request)

    return answer


def _only_for(trusted: CidrSet, handler: Handler) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        if not _is_trusted(trusted, request):
            raise web.HTTPForbidden(text=f"{request.remote} is not in this listener's trusted_hosts\n")
        return await handler(request)

    return answer


def _refusal(context: AdminContext, watched: StatusWatch, thread: Executor) -> Handler:
    """What the policy in force makes of one of the last refusals."""

    async def answer(request: web.Request) -> web.Response:
        event = await watched.refusal(request)
        try:
            text = await asyncio.get_running_loop().run_in_executor(thread, context.explain_refusal, event)
        except ValueError as error:
            text = f"cannot be asked again: {error}\n"
        shown = text_page("What the policy in force makes of it", f"{refusal_of(event).strip()}\n\n{text}")
        return web.Response(text=shown, content_type="text/html", headers=SECURITY)

    return answer


def _explaining(explain: Callable[[bytes], bytes], thread: Executor) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response(text="POST an inquiry; `relay-gateway explain --live` does\n")
        inquiry = await request.read()
        try:
            text = await asyncio.get_running_loop().run_in_executor(thread, explain, inquiry)
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        return web.Response(body=text, content_type="application/json")

    return answer


class Exposition(Collector):
    """/metrics: prometheus-client's text or OpenMetrics format, whichever the scraper prefers."""

    def __init__(self, pages: Sequence[CounterPage], system: System) -> None:
        self._pages, self._system = pages, system

    def collect(self) -> Iterator[Metric]:
        return metrics.collect(self._pages, now=time.monotonic(), surroundings=self._system)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        response = web.Response(body=encode(self), headers={"Content-Type": content_type})
        response.enable_compression()
        return response


def _liveness(pages: Sequence[CounterPage]) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        problem = health.liveness_problem(pages, time.monotonic())
        return web.Response(status=503 if problem else 200, text=f"{problem or 'OK'}\n")

    return answer


def _readiness(context: AdminContext) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        found = health.readiness(context.pages, context.page.generation, context.smtp, time.monotonic())
        wanted = request.query.get("listener")
        if wanted is not None:
            if wanted not in context.smtp:
                raise web.HTTPNotFound(text=f"no listener {wanted}; there are: {', '.join(context.smtp) or 'none'}\n")
            found = found.of(wanted)
        status = 200 if found.ready else 503
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response(found.as_json(), status=status)
        return web.Response(status=status, text=str(found))

    return answer
