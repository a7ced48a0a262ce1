"""How long a well-behaved client waits beside others that pipeline refused commands for ever: `bench fairness`.

The hogs send as fast as they are read. Those that read take their replies; those that do not leave them to the server.
Meanwhile one client says NOOP, waits for the answer, and says it again.
"""

import contextlib
import os
import selectors
import socket
import time
from dataclasses import dataclass
from typing import Any

from .load import Target

PATIENCE = 30.0
COMMANDS = b"X\r\n" * 32_768


@dataclass(frozen=True)
class Hogs:
    """Who else is there. number: of connections. read: they take their replies. seconds: how long to measure."""

    number: int = 20
    read: bool = True
    seconds: float = 5.0


def measure(target: Target, hogs: Hogs, worker: int = 0) -> dict[str, Any]:
    """Latencies of NOOP in milliseconds, and what the hogs got answered.

    worker: process id of the only worker, whose resident memory per hog is told, too; 0 for none.
    """
    with socket.create_connection((target.host, target.port), PATIENCE) as client:
        client.recv(4096)
        _noop(client)
        memory = _resident(worker)
        child, answered = _start(target, hogs)
        time.sleep(0.5)  # until they all are at it
        waits, end = [], time.monotonic() + hogs.seconds
        while time.monotonic() < end:
            waits.append(_noop(client))
            time.sleep(0.005)
        grown = _resident(worker) - memory
        os.kill(child, 9)
        os.waitpid(child, 0)
    waits.sort()
    with os.fdopen(answered, "rb") as counts:
        octets = counts.read().split()
    return {
        "hogs": hogs.number,
        "read": hogs.read,
        "noops": len(waits),
        "median_ms": round(waits[len(waits) // 2] * 1000, 2),
        "p99_ms": round(waits[int(len(waits) * 0.99)] * 1000, 2),
        "worst_ms": round(waits[-1] * 1000, 2),
        "answered_octets": int(octets[-1]) if octets else 0,
        "kib_per_hog": round(grown / 1024 / hogs.number, 1) if worker else None,
    }


def _noop(client: socket.socket) -> float:
    begun = time.monotonic()
    client.sendall(b"NOOP\r\n")
    if not client.recv(4096).startswith(b"250"):
        raise ValueError("the server does not answer NOOP with 250")
    return time.monotonic() - begun


def _resident(pid: int) -> int:
    if not pid:
        return 0
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _start(target: Target, hogs: Hogs) -> tuple[int, int]:
    """A child that is the hogs, and where it tells how many octets it was answered."""
    told, tells = os.pipe()
    child = os.fork()
    if child:
        os.close(tells)
        return child, told
    with contextlib.suppress(OSError):
        _be(target, hogs, tells)
    os._exit(0)


def _be(target: Target, hogs: Hogs, tells: int) -> None:
    with selectors.DefaultSelector() as selector:
        for _ in range(hogs.number):
            connected = socket.create_connection((target.host, target.port), PATIENCE)
            connected.setblocking(False)
            selector.register(connected, selectors.EVENT_WRITE | (selectors.EVENT_READ if hogs.read else 0))
        octets, end = 0, time.monotonic() + hogs.seconds + PATIENCE
        while time.monotonic() < end and selector.get_map():
            for key, events in selector.select(1.0):
                hog: Any = key.fileobj
                with contextlib.suppress(BlockingIOError):
                    if events & selectors.EVENT_WRITE:
                        hog.send(COMMANDS)
                    if events & selectors.EVENT_READ:
                        data = hog.recv(1 << 18)
                        octets += len(data)
                        if not data:
                            selector.unregister(hog)
            os.write(tells, b"%d\n" % octets)
