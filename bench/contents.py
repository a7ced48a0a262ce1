"""Large messages from many clients at once: how much memory a worker takes and keeps, and how long other mail waits
meanwhile: `bench contents`.

The large ones are sent as fast as they are read. Meanwhile one client sends small messages, one after the other on one
connection, and counts the time of each from MAIL to the answer to its final dot.
"""

import os
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .load import Target
from .mix import SENDER

PATIENCE = 120.0  # seconds without any progress, and for an answer
SETTLED = 5.0  # seconds after the last answer until it is looked what the worker kept
LINE = b"x" * 98 + b"\r\n"
SMALL = b"Subject: small\r\n\r\n" + LINE * 10 + b".\r\n"


@dataclass(frozen=True)
class Crowd:
    """Who sends. clients: at once, each one message. octets: of each. seconds: give up then."""

    clients: int = 200
    octets: int = 20_000_000
    seconds: float = 300.0


def measure(target: Target, crowd: Crowd, recipient: str, worker: int) -> dict[str, Any]:
    """Latencies of small messages, in milliseconds, and resident memory of the worker, in MiB."""
    envelope = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
    with socket.create_connection((target.host, target.port), PATIENCE) as client:
        answers = _answers(client)
        next(answers)
        client.sendall(b"HELO bench.example\r\n")
        next(answers)
        _small(client, answers, envelope)
        before, begun = _resident(worker), time.monotonic()
        child, told = _start(target, crowd, envelope)
        waits, peak = [], before
        while not _ended(child):
            waits.append(_small(client, answers, envelope))
            peak = max(peak, _resident(worker))
            time.sleep(0.005)
        took = time.monotonic() - begun
    with os.fdopen(told, "rb") as counts:
        accepted = counts.read().count(b"2")
    time.sleep(SETTLED)
    waits.sort()
    return {
        "clients": crowd.clients,
        "octets": crowd.octets,
        "accepted": accepted,
        "seconds": round(took, 1),
        "small": len(waits),
        "median_ms": round(waits[len(waits) // 2] * 1000, 1),
        "p99_ms": round(waits[int(len(waits) * 0.99)] * 1000, 1),
        "worst_ms": round(waits[-1] * 1000, 1),
        "before_mib": before >> 20,
        "peak_mib": peak >> 20,
        "after_mib": _resident(worker) >> 20,
    }


def _answers(client: socket.socket) -> Iterator[bytes]:
    """One-line replies."""
    with client.makefile("rb") as lines:
        while line := lines.readline():
            yield line
    raise ValueError("the server has closed the connection")


def _small(client: socket.socket, answers: Iterator[bytes], envelope: bytes) -> float:
    begun = time.monotonic()
    client.sendall(envelope)
    replies = [next(answers) for _ in range(3)]
    if not replies[2].startswith(b"354"):
        raise ValueError(f"the server answers {replies[2]!r} to a small message")
    client.sendall(SMALL)
    if not next(answers).startswith(b"250"):
        raise ValueError("the server does not take a small message")
    return time.monotonic() - begun


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _ended(child: int) -> bool:
    return os.waitpid(child, os.WNOHANG)[0] != 0


def _start(target: Target, crowd: Crowd, envelope: bytes) -> tuple[int, int]:
    """A child that is the crowd, and where it tells the first digit of every last answer."""
    told, tells = os.pipe()
    child = os.fork()
    if child:
        os.close(tells)
        return child, told
    try:
        os.write(tells, _be(target, crowd, envelope))
    finally:
        os._exit(0)


def _be(target: Target, crowd: Crowd, envelope: bytes) -> bytes:
    content = memoryview(b"Subject: large\r\n\r\n" + LINE * (crowd.octets // len(LINE)) + b".\r\n")
    sent: dict[socket.socket, int] = {}
    last = b""
    with selectors.DefaultSelector() as selector:
        for _ in range(crowd.clients):
            client = socket.create_connection((target.host, target.port), PATIENCE)
            answers = client.makefile("rb")
            answers.readline()
            for command in (b"HELO bench.example\r\n", *envelope.splitlines(keepends=True)):
                client.sendall(command)
                answers.readline()
            client.setblocking(False)
            sent[client] = 0
            selector.register(client, selectors.EVENT_WRITE)
        end = time.monotonic() + crowd.seconds
        while sent and time.monotonic() < end:
            for key, events in selector.select(1.0):
                client = key.fileobj  # type: ignore[assignment]
                if events & selectors.EVENT_WRITE:
                    sent[client] += client.send(content[sent[client] : sent[client] + (1 << 18)])
                    if sent[client] == len(content):
                        selector.modify(client, selectors.EVENT_READ)
                else:
                    last += client.recv(4096)[:1] or b"-"
                    selector.unregister(client)
                    sent.pop(client)
                    client.close()
    return last
