"""The sink as a process: started, asked for its counts, stopped. Receiving itself is in _sink.pyx.

The process serves until it is told otherwise on its standard input, every line of
which is answered with the counts as one line of JSON; the end of input (or SIGTERM) ends it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from ._sink import Sink
from .load import allow_descriptors

STAGES = ("MAIL", "RCPT", "DATA", "DOT")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket with a long accept queue."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(4096)
    listener.setblocking(False)
    return listener


def counts(sink: Sink) -> dict[str, Any]:
    """What the sink saw, fit for JSON."""
    return {
        "messages": sink.messages,
        "recipients": sink.recipients,
        "bytes": sink.bytes_read,
        "connections": sink.connections_opened,
        "connections_open": sink.connections_open,
        "refused": sink.refused,
        "dropped": sink.dropped,
        "unmarked": sink.unmarked,
        "runs": {f"{run:016x}": seen for run, seen in sink.runs().items()},
    }


def parse_refusals(texts: list[str]) -> dict[str, tuple[int, int]]:
    """`STAGE=CODE` or `STAGE=CODE/EVERY` as the sink wants it.

    Raises ValueError.
    """
    refusals = {}
    for text in texts:
        stage, _, rest = text.partition("=")
        code, _, every = rest.partition("/")
        if stage.upper() not in STAGES or not code.isdigit() or not 400 <= int(code) <= 599:
            raise ValueError(f"{text!r}: expected STAGE=CODE or STAGE=CODE/EVERY with STAGE one of {', '.join(STAGES)}")
        refusals[stage.upper()] = (int(code), int(every or 1))
    return refusals


def serve(listener: socket.socket, **behaviour: Any) -> None:
    """Be the sink process: announce the address, serve, answer on standard output."""
    allow_descriptors(1 << 16)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sink = Sink(listener.fileno(), sys.stdin.fileno(), **behaviour)
    print(json.dumps({"listening": listener.getsockname()[:2]}), flush=True)
    try:
        while True:
            sink.serve()
            words = os.read(sys.stdin.fileno(), 4096)
            if not words:
                break
            for _ in range(words.count(b"\n")):
                print(json.dumps(counts(sink)), flush=True)
    except (KeyboardInterrupt, SystemExit):
        pass
    print(json.dumps(counts(sink)), flush=True)


class SinkProcess:
    """A sink in a process of its own, for `with`; `arguments` are those of `bench sink`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", __package__, "sink", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.host, self.port = self._answer()["listening"]

    def __enter__(self) -> "SinkProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def counts(self) -> dict[str, Any]:
        """What it saw so far."""
        assert self.process.stdin
        self.process.stdin.write("counts\n")
        self.process.stdin.flush()
        return self._answer()

    def run(self, run: str) -> dict[str, int]:
        """What arrived of one run of the load source."""
        nothing = dict.fromkeys(("messages", "unique", "recipients", "corrupt"), 0)
        seen: dict[str, int] = self.counts()["runs"].get(run, nothing)
        return seen

    def stop(self) -> dict[str, Any]:
        """Ends it; what it saw, nothing where it had ended."""
        if self.process.poll() is not None:
            return {}
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        seen = self._answer()
        self.process.wait(10)
        self.process.stdout.close()
        return seen
