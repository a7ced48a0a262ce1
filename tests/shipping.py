"""What tests of shipping share: log directories with records, a web server with moods, and the shipper as a process."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gateway.logs.segments import Segment
from tests.ports import free_port


def record(number: int, kind: str = "Delivery", **fields: Any) -> dict[str, Any]:
    return {"type": kind, "id": f"{number:032x}", "timestamp": int(time.time()), "number": number, **fields}


def line(number: int, kind: str = "Delivery", **fields: Any) -> bytes:
    return json.dumps(record(number, kind, **fields), separators=(",", ":")).encode() + b"\n"


def begin(directory: Path, *, suffix: str = ".zst") -> Segment:
    directory.mkdir(exist_ok=True)
    return Segment(str(directory), suffix, level=0, header="", now_ns=time.time_ns())


def add(segment: Segment, *numbers: int) -> None:
    segment.add(b"".join(map(line, numbers)))
    segment.flush()


def write(directory: Path, numbers: range) -> str:
    """A complete segment; returns its path."""
    segment = begin(directory)
    add(segment, *numbers)
    segment.finish()
    return segment.path


class Receiver:
    """A web server. mood: what it does with each request: a status, or `slow`, `half`, `mute`, or a function of the
    records' numbers that returns one. Everything that it answered with 200, or might have, is in `taken`.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/records"
        self.mood: Any = 200
        self.taken: list[Any] = []
        self.ids: dict[str, Any] = {}
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.released = threading.Event()  # ends what is slow
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def do_POST(self) -> None:
                receiver.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *arguments: object) -> None:
                pass  # its client was killed

        self._server = Server(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((headers, body))
        plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        envelopes = json.loads(plain)
        numbers = [envelope["record"].get("number") for envelope in envelopes]
        mood = self.mood(numbers) if callable(self.mood) else self.mood
        if mood in (200, "half", "mute"):
            self.taken += numbers
            self.ids |= {envelope["id"]: envelope["record"].get("number") for envelope in envelopes}
        request.close_connection = mood != 200
        if mood == "mute":
            return
        if mood == "slow":
            self.released.wait(20)
            return
        if mood == "half":
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            return
        request.send_response(mood)
        request.send_header("Content-Length", "0")
        if request.close_connection:
            request.send_header("Connection", "close")
        request.end_headers()

    def stop(self) -> None:
        self.released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._thread is not None:
            self._thread.join(10)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


class ShipProcess:
    """`relay-gateway ship FILE`."""

    def __init__(self, directory: Path, configuration: str, *options: str) -> None:
        self.file = directory / "ship.toml"
        self.file.write_text(configuration)
        self._stderr = directory / "stderr"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "ship", str(self.file), *self._options],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def wait(self) -> int:
        assert self._process is not None
        code = self._process.wait(30)
        self._process = None
        return code

    def end(self) -> None:
        if self._process is not None:
            self.kill()

    @property
    def diagnostics(self) -> str:
        return self._stderr.read_text()


@contextmanager
def shipping(directory: Path, configuration: str, *options: str) -> Iterator[ShipProcess]:
    process = ShipProcess(directory, configuration, *options)
    process.start()
    try:
        yield process
    finally:
        process.end()
