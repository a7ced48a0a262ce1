"""A worker's window: a Unix socket at which the admin process looks on, or asks for the last refusals.

It has no file: the kernel picks a name of the abstract namespace (unix(7), autobind), and the worker's page tells it,
so that nothing is left behind and no two workers clash. Only processes of the same user are let in. One line of JSON
asks ({"ask": "trace" or "recent", "wanted": [[KEY, VALUE]…]}), lines of JSON answer. Nothing here blocks: what cannot
be sent waits in the Onlooker, which is bounded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from contextlib import suppress

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.admin import windows
from gateway.tracing.onlooker import Onlooker
from gateway.tracing.tracer import TooMany, Tracer
from gateway.tracing.wanted import BadWish, Wanted
from gateway.tracing.words import line_of

log = logging.getLogger(__name__)

MOST_ASKED = 16 * 1024  # octets
MOST_VISITORS = 32  # of all kinds at a time
_BACKLOG = 8


class Window:
    """Listens, until the process ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tracer: Tracer, page: CounterPage) -> None:
        self.visitors = 0
        self.loop = loop
        self.tracer = tracer
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listening.bind("")
            self._listening.listen(_BACKLOG)
        except OSError as error:
            log.warning("nobody can look on: %s", error)
            return
        page.set(metrics.WINDOW, windows.number_of(self._listening.getsockname()))
        loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        with suppress(OSError):  # nobody more, or no descriptor
            while True:
                connection, _ = self._listening.accept()
                if self.visitors >= MOST_VISITORS or windows.behind(connection)[1] != os.geteuid():
                    connection.close()
                else:
                    _Visitor(self, connection)


class _Visitor:
    """Somebody at the window."""

    def __init__(self, window: Window, connection: socket.socket) -> None:
        self._window = window
        self._loop = window.loop
        self._connection = connection
        self._asked = b""
        self._onlooker: Onlooker | None = None
        self._is_answered = False
        self._out = memoryview(b"")
        self._is_due = False
        self._waits = False
        window.visitors += 1
        connection.setblocking(False)
        self._loop.add_reader(connection, self._read)

    def _read(self) -> None:
        try:
            data = self._connection.recv(MOST_ASKED)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
        elif not self._is_answered:
            self._asked += data
            if b"\n" in self._asked or len(self._asked) > MOST_ASKED:
                self._is_answered = True
                self._answer()

    def _answer(self) -> None:
        tracer = self._window.tracer
        try:
            request = json.loads(self._asked)
            wanted = Wanted.read((str(key), str(value)) for key, value in request["wanted"])
            if request["ask"] == "recent":
                self._say(b"".join(tracer.recent.of(wanted)))
            else:
                self._onlooker = tracer.look_on(wanted, self._ready)
        except TooMany:
            self._say(line_of({"event": "failed", "worker": tracer.worker, "error": "too many look on already"}))
        except (BadWish, KeyError, TypeError, ValueError) as error:
            self._say(line_of({"event": "failed", "worker": tracer.worker, "error": f"not understood: {error}"}))

    def _say(self, answer: bytes) -> None:
        self._out = memoryview(answer)
        self._ready()

    def _ready(self) -> None:
        """Something waits to be sent: it goes with all else that this turn of the loop brings."""
        if not self._is_due and not self._waits:
            self._is_due = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        """Sends what there is, one portion in a turn."""
        self._is_due = False
        if self._connection.fileno() < 0:
            return
        if not self._out and self._onlooker is not None:
            self._out = memoryview(self._onlooker.portion())
        try:
            sent = self._connection.send(self._out) if self._out else 0
        except BlockingIOError:
            sent = 0
            if not self._waits:
                self._waits = True
                self._loop.add_writer(self._connection, self._send)
            return
        except OSError:
            self._close()
            return
        if self._waits:
            self._waits = False
            self._loop.remove_writer(self._connection)
        self._out = self._out[sent:]
        if self._out or (self._onlooker is not None and self._onlooker.waits):
            self._ready()
        elif self._onlooker is None:
            self._close()

    def _close(self) -> None:
        if self._onlooker is not None:
            self._window.tracer.leave(self._onlooker)
        self._loop.remove_reader(self._connection)
        if self._waits:
            self._loop.remove_writer(self._connection)
        self._connection.close()
        self._window.visitors -= 1
