"""Who floods a server, for floods.py: a child process each, that does one thing as fast as it is let, from addresses of
127.0.0.0/8 that are nobody's friends. What it costs others is measured elsewhere.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

from .fairness import COMMANDS
from .load import Target, allow_descriptors

PATIENCE = 5.0
NETWORKS = 40  # addresses that a flood comes from
AT_ONCE = 50  # connections that a flood of these has open
_RESET = struct.pack("ii", 1, 0)

Counts = dict[str, int]
Flood = Callable[[Target, int, Counts], Iterator[None]]


def _connected(target: Target, number: int) -> socket.socket:
    place = number % NETWORKS
    return socket.create_connection((target.host, target.port), PATIENCE, source_address=(f"127.1.0.{place + 1}", 0))


def _crowd(target: Target, number: int, counts: Counts, secure: bool = False) -> list[socket.socket]:
    """So many connections that have said EHLO."""
    found: list[socket.socket] = []
    for place in range(number):
        client = _connected(target, place)
        client.recv(4096)
        client.sendall(b"EHLO x\r\n")
        client.recv(4096)
        if secure:
            client = _secured(client)
        found.append(client)
        counts["connections"] = len(found)
    return found


def _secured(client: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client.sendall(b"STARTTLS\r\n")
    client.recv(4096)
    return context.wrap_socket(client)


def idle(target: Target, number: int, counts: Counts) -> Iterator[None]:
    """Sessions that say nothing any more."""
    kept = _crowd(target, number, counts)
    while kept:
        time.sleep(0.1)
        yield


def idle_tls(target: Target, number: int, counts: Counts) -> Iterator[None]:
    """The same under TLS."""
    kept = _crowd(target, number, counts, secure=True)
    while kept:
        time.sleep(0.1)
        yield


def drip(target: Target, number: int, counts: Counts) -> Iterator[None]:
    """Each says an octet of a command a second."""
    kept = _crowd(target, number, counts)
    while True:
        for at in range(0, number, max(1, number // 50)):
            for client in kept[at : at + max(1, number // 50)]:
                with contextlib.suppress(OSError):
                    client.sendall(b"x")
                    counts["octets"] = counts.get("octets", 0) + 1
            time.sleep(0.02)
            yield


def _pipeline(target: Target, number: int, counts: Counts, read: bool) -> Iterator[None]:
    """Those that are turned away come again."""
    with selectors.DefaultSelector() as selector:
        interest = selectors.EVENT_WRITE | (selectors.EVENT_READ if read else 0)
        begun = 0
        while True:
            while len(selector.get_map()) < number:
                client = _connected(target, begun)
                client.setblocking(False)
                selector.register(client, interest)
                begun += 1
                counts["connections"] = begun
            for key, events in selector.select(0.1):
                try:
                    _pump(key.fileobj, events, counts)
                except BlockingIOError:
                    pass
                except OSError:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
            yield


def _pump(client: Any, events: int, counts: Counts) -> None:
    if events & selectors.EVENT_READ:
        data = client.recv(1 << 18)
        if not data:
            raise ConnectionResetError
        counts["answered_octets"] = counts.get("answered_octets", 0) + len(data)
    if events & selectors.EVENT_WRITE:
        client.send(COMMANDS)


def pipelining(target: Target, number: int, counts: Counts) -> Iterator[None]:
    """Unknown commands for ever, and their answers are read."""
    return _pipeline(target, number, counts, read=True)


def pipelining_unread(target: Target, number: int, counts: Counts) -> Iterator[None]:
    """The same, and no answer is read."""
    return _pipeline(target, number, counts, read=False)


def connections(target: Target, number: int, counts: Counts) -> Iterator[None]:
    """Connections that are closed once they are greeted."""
    while True:
        with _connected(target, counts["connections"]) as client:
            counts["connections"] += 1
            client.recv(4096)
        yield


def resets(target: Target, number: int, counts: Counts) -> Iterator[None]:
    """Connections that are reset at once."""
    while True:
        with _connected(target, counts["connections"]) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            counts["connections"] += 1
        yield


def handshakes(target: Target, number: int, counts: Counts) -> Iterator[None]:
    """Handshakes, and nothing behind them."""
    while True:
        for client in _crowd(target, 1, dict(counts), secure=True):
            client.close()
            counts["connections"] += 1
        yield


def guesses(target: Target, number: int, counts: Counts) -> Iterator[None]:
    """AUTH with passwords that are wrong, under TLS, until the server has enough; and then again."""
    while True:
        crowd = _crowd(target, number, dict(counts), secure=True)
        counts["connections"] += len(crowd)
        for client in crowd:
            client.sendall(b"EHLO x\r\n" + b"AUTH PLAIN AGEAYg==\r\n" * 10)
        yield
        for client in crowd:
            with contextlib.suppress(OSError), client:
                while client.recv(4096):
                    yield


FLOODS: dict[str, tuple[Flood, int]] = {  # with how many connections at a time
    "idle": (idle, 10_000),
    "idle-tls": (idle_tls, 10_000),
    "drip": (drip, 2000),
    "pipelining": (pipelining, AT_ONCE),
    "pipelining-unread": (pipelining_unread, AT_ONCE),
    "connections": (connections, 1),
    "resets": (resets, 1),
    "handshakes": (handshakes, 1),
    "auth": (guesses, AT_ONCE),
}


class Flooder:
    """A child that floods. ready() waits until its crowd is there; end() returns what it has done."""

    def __init__(self, name: str, target: Target, number: int, seconds: float) -> None:
        told, tells = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(told)
            _be(FLOODS[name][0], target, number, time.monotonic() + seconds, tells)
        os.close(tells)
        self._told = os.fdopen(told, "rb")

    def ready(self) -> None:
        """Raises ValueError where it could not begin."""
        if not self._told.readline():
            raise ValueError("the flood could not begin")

    def end(self) -> Counts:
        """Ends it."""
        os.kill(self._pid, signal.SIGTERM)
        with self._told:
            lines = self._told.read().splitlines()
        os.waitpid(self._pid, 0)
        found: Counts = json.loads(lines[-1]) if lines else {}
        return found


def _be(flood: Flood, target: Target, number: int, end: float, tells: int) -> None:
    counts: Counts = {"connections": 0}
    over = [False]
    signal.signal(signal.SIGTERM, lambda *_: over.__setitem__(0, True))
    try:
        allow_descriptors(number + 64)
        doing = flood(target, number, counts)
        next(doing)
        os.write(tells, b"ready\n")
        begun = time.monotonic()
        while not over[0] and time.monotonic() < end:
            try:
                next(doing)
            except OSError:  # turned away: again
                doing = flood(target, number, counts)
        counts["seconds"] = int(time.monotonic() - begun)
        os.write(tells, json.dumps(counts).encode() + b"\n")
    finally:
        os._exit(0)
