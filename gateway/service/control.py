"""The control socket: `relay-gateway reload` and its like ask the supervisor, and wait for how it went.

A Unix socket that only the service's user (and root) may connect to. One line of JSON each way: {"ask": WORD, …}, then
{"ok": BOOLEAN, "said": [TEXT…]}. What the words do is the supervisor's.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from typing import Any

MOST_CLIENTS = 16  # at a time; the one that has waited longest makes room for another
MOST_ASKED = 4096  # octets
_BACKLOG = 8


class ControlError(Exception):
    """The socket cannot be made; the text is for the operator."""


class Client:
    """Somebody who asks. `answer` at most once."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.asked = b""
        self.done = False

    @classmethod
    def inherited(cls, fd: int) -> Client:
        """Who asked the program before this one."""
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        return cls(connection)

    def answer(self, ok: bool, said: list[str]) -> None:
        """How it went, and for the operator why."""
        with suppress(OSError):  # has gone, or does not read
            self.connection.send(json.dumps({"ok": ok, "said": said}).encode() + b"\n")
        self.close()

    def close(self) -> None:
        self.done = True
        self.connection.close()


class Control:
    """The listening socket and who has connected to it. Nothing blocks."""

    def __init__(self, listening: socket.socket, path: str) -> None:
        self.listening, self.path = listening, path
        self.clients: list[Client] = []

    @classmethod
    def open(cls, path: str) -> Control:
        """Listen at `path`; a socket there that nobody listens to is replaced. Raises ControlError."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if _is_forsaken(path):
                os.unlink(path)
            before = os.umask(0o177)
            try:
                listening.bind(path)
            finally:
                os.umask(before)
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            raise ControlError(f"cannot listen on {path}: {error.strerror or error}") from error
        return cls(listening, path)

    @classmethod
    def inherited(cls, fd: int, path: str) -> Control:
        """Go on listening where the program before this one did."""
        return cls(socket.socket(fileno=fd), path)

    def fds(self) -> list[int]:
        """What to wait for."""
        return [self.listening.fileno(), *(client.connection.fileno() for client in self.clients if not client.done)]

    def requests(self) -> list[tuple[Client, dict[str, Any]]]:
        """What has been asked since the last call."""
        self._accept()
        found = []
        for client in self.clients:
            request = self._read(client)
            if request is not None:
                found.append((client, request))
        self.clients = [client for client in self.clients if not client.done]
        return found

    def close(self) -> None:
        """Without a trace."""
        self.close_others()
        with suppress(OSError):
            os.unlink(self.path)

    def close_others(self) -> None:
        """In a child: this is the supervisor's."""
        self.listening.close()
        for client in self.clients:
            client.close()

    def _accept(self) -> None:
        with suppress(OSError):  # nobody more; or no descriptor, and whoever asks waits
            while True:
                connection, _ = self.listening.accept()
                connection.setblocking(False)
                self.clients.append(Client(connection))
                if len(self.clients) > MOST_CLIENTS:
                    self.clients.pop(0).close()

    def _read(self, client: Client) -> dict[str, Any] | None:
        try:
            data = client.connection.recv(MOST_ASKED)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        client.asked += data
        line, end, _ = client.asked.partition(b"\n")
        if not data or len(client.asked) > MOST_ASKED:
            client.close()
        if not end:
            return None
        client.asked = b""
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if isinstance(request, dict):
            return request
        client.answer(False, ["expected a line with a JSON object"])
        return None


def default_path() -> str | None:
    """In the directory that systemd makes for the service, if it does."""
    directory = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return f"{directory}/control" if directory else None


def _is_forsaken(path: str) -> bool:
    """Whether a socket is there that nobody listens to."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
