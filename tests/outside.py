"""What policies ask, for tests: servers of HTTP, the DNS and Redis, in threads of their own, on free ports."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from aiohttp import web
from lupa.lua54 import LuaRuntime

T = TypeVar("T")

TOKEN = "hvs.tiger"  # of the vault


class InThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine, which runs there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def stop(self) -> None:
        """Ends it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class HttpServer(InThread):
    """Answers GET and POST with what it was asked, as JSON; a few paths do other things.

    /held waits for `release`. held, left: requests to it that have come, and whose client has gone. /v1/ is that of a
    vault with `secrets`, by mount and path, for those who have TOKEN.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, Any]] = []
        self.secrets: dict[str, dict[str, Any]] = {}
        self.held = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        self._released = asyncio.Event()
        self.port = self.call(self._start())

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
        app.router.add_get("/v1/{mount}/data/{path:.*}", self._secret)
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

    async def _secret(self, request: web.Request) -> web.Response:
        self.asked.append({"path": request.path})
        if request.headers.get("X-Vault-Token") != TOKEN:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        found = self.secrets.get("{mount}/{path}".format_map(request.match_info))
        if found is None:
            return web.json_response({"errors": []}, status=404)
        return web.json_response({"data": {"data": found, "metadata": {"version": 1}}})

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
        self.call(self._runner.cleanup())
        super().stop()


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


class NameServer(InThread):
    """Answers over UDP and TCP from `records`: lines of a zone by name and type; else that there is no such name.

    Names with "silent" in them get no answer, "broken" SERVFAIL, "large" only a truncated one over UDP. asked: how
    often a name and type was asked for, and over what. negative: the TTL of answers that there is nothing. fails: none
    is given any more.
    """

    def __init__(self, records: dict[tuple[str, str], list[str]]) -> None:
        super().__init__()
        self.records = records
        self.negative = 30
        self.fails = False
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.silent = threading.Semaphore(0)
        self.port = self.call(self._start())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _start(self) -> int:
        self._tcp = await asyncio.start_server(self._over_tcp, "127.0.0.1", 0)
        port = int(self._tcp.sockets[0].getsockname()[1])
        self._udp, _ = await self.loop.create_datagram_endpoint(lambda: _Datagrams(self), ("127.0.0.1", port))
        return port

    async def _over_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        answer = self.answer(query, "tcp")
        if answer is not None:
            writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    def answer(self, query: bytes, over: str) -> bytes | None:
        """What is sent back."""
        message = dns.message.from_wire(query)
        question = message.question[0]
        name, kind = question.name.to_text().rstrip(".").lower(), question.rdtype.name
        self.asked[name, kind, over] += 1
        response = dns.message.make_response(message)
        response.flags |= dns.flags.RA
        if self.fails:
            return None
        if "silent" in name:
            self.silent.release()
            return None
        if "broken" in name:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        if "large" in name and over == "udp":
            response.flags |= dns.flags.TC
            return response.to_wire()
        found = self.records.get((name, kind), [])
        for line in found:
            seconds, _, data = line.partition(" ")
            response.answer.append(dns.rrset.from_text(question.name, int(seconds), "IN", kind, data))
        if not found:
            soa = f"ns.example. root.example. 1 1 1 1 {self.negative}"
            response.authority.append(dns.rrset.from_text("example.", 3600, "IN", "SOA", soa))
            if not any(known == name for known, _ in self.records):
                response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()

    def stop(self) -> None:
        self.call(self._close())
        super().stop()

    async def _close(self) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self._server.answer(data, "udp")
        if answer is not None:
            self._transport.sendto(answer, addr)


class RealRedisServer:
    """Redis itself, in memory alone, at a port of its own choice. Within it, it runs."""

    def __init__(self, program: str, folder: Path) -> None:
        self.url = f"unix://{folder}/redis.sock"
        command = [program, "--port", "0", "--unixsocket", f"{folder}/redis.sock", "--save", "", "--dir", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> RealRedisServer:
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "ready to accept connections" in line.lower():
                return self
        raise AssertionError("".join(said))

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class RedisServer(InThread):
    """A few commands of Redis (RESP 2), and scripts. now: its clock. asked: the commands, in lower case."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[bytes, bytes] = {}
        self.now = 1000.0
        self.asked: list[str] = []
        self.port = self.call(self._start())

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/"

    async def _start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:-2])
            name = words[0].decode().lower()
            self.asked.append(name)
            try:
                writer.write(_resp(self.command(name, words[1:])))
            except ValueError as error:
                writer.write(f"-ERR {error}\r\n".encode())
        writer.close()

    def command(self, name: str, words: list[bytes]) -> Any:
        """What it answers."""
        match name:
            case "client" | "select" | "ping":
                return "OK"
            case "set":
                self.values[words[0]] = words[1]
                return "OK"
            case "get":
                return self.values.get(words[0])
            case "incrby":
                self.values[words[0]] = str(int(self.values.get(words[0], b"0")) + int(words[1])).encode()
                return int(self.values[words[0]])
            case "mget":
                return [self.values.get(word) for word in words]
            case "time":
                return [str(int(self.now)).encode(), str(round(self.now % 1 * 1e6)).encode()]
            case "eval":
                return self._script(words)
        raise ValueError(f"unknown command '{name}'")

    def _script(self, words: list[bytes]) -> Any:
        keys = int(words[1])
        lua = LuaRuntime(encoding=None)

        def call(name: bytes, *given: Any) -> Any:
            found = self.command(
                name.decode().lower(), [str(one).encode() if isinstance(one, int | float) else one for one in given]
            )
            return lua.table_from(found) if isinstance(found, list) else found

        script = lua.execute(
            b"redis, KEYS, ARGV = ... ; return function() " + words[0] + b" end",
            *(lua.table_from(table) for table in ({b"call": call}, words[2 : 2 + keys], words[2 + keys :])),
        )
        return list(script().values())

    def stop(self) -> None:
        self._server.close()
        super().stop()


def _resp(value: Any) -> bytes:
    match value:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % value
        case str():
            return f"+{value}\r\n".encode()
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(value), value)
    return b"*%d\r\n" % len(value) + b"".join(map(_resp, value))


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """One that does not outlive the test."""
    server = RedisServer()
    yield server
    server.stop()


@contextmanager
def name_server(records: dict[tuple[str, str], list[str]]) -> Iterator[NameServer]:
    """One that does not outlive the test."""
    server = NameServer(records)
    yield server
    server.stop()
