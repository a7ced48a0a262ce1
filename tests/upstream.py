"""A scripted upstream MTA for tests: answers as told, remembers what it got, and fails in every way a server can.

It is independent of gateway/ and listens on a free port, in the event loop of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import cast

from tests.ports import free_port


class Do(Enum):
    """Instead of an answer."""

    DROP = auto()  # close in good order
    RESET = auto()  # RST
    STALL = auto()  # say nothing
    START_TLS = auto()  # 220, then the handshake


class Slowly(bytes):
    """An answer that comes octet by octet. every: seconds."""

    every = 1.0


Answer = bytes | Do
EXTENSIONS = ("PIPELINING", "SIZE 20000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")
CHUNKING = (*EXTENSIONS, "CHUNKING")


def ehlo(*extensions: str) -> bytes:
    """An answer to EHLO."""
    lines = ["fake.example", *extensions]
    return "".join(f"250{'-' if n < len(lines) else ' '}{line}\r\n" for n, line in enumerate(lines, 1)).encode()


DEFAULTS: dict[str, Answer] = {
    "CONNECT": b"220 fake.example ESMTP\r\n",
    "EHLO": ehlo(*EXTENSIONS),
    "LHLO": ehlo(*EXTENSIONS),
    "HELO": b"250 fake.example\r\n",
    "STARTTLS": b"502 5.5.1 no\r\n",
    "MAIL": b"250 2.1.0 sender ok\r\n",
    "RCPT": b"250 2.1.5 recipient ok\r\n",
    "DATA": b"354 go ahead\r\n",
    ".": b"250 2.0.0 queued\r\n",
    "BDAT": b"250 2.0.0 queued\r\n",
    "BDAT in vain": b"503 5.5.1 no recipients\r\n",
    "RSET": b"250 2.0.0 reset\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}


def sound_at_first(dialogue: Dialogue, command: str) -> Answer | None:
    """To decide with: each connection's first message is taken by DATA, what is scripted follows; as chunks need it."""
    verb = command.partition(" ")[0]
    begun = "." in dialogue.commands[:-1]
    return None if begun or verb in ("CONNECT", "EHLO", "STARTTLS") else DEFAULTS.get(verb)


@dataclass
class Mail:
    """A message that was received up to its end, and answered with 2xx."""

    sender: str
    recipients: list[str]
    content: bytes  # still dot-stuffed where it came with DATA


@dataclass(eq=False)
class Dialogue:
    """What came in over one connection."""

    commands: list[str] = field(default_factory=list)
    received: bytes = b""
    sent: bytes = b""
    reads: list[bytes] = field(default_factory=list)
    closed: bool = False
    cut: bool = False


class Upstream:
    """One member of a fleet.

    answers: what to say, by verb, by verb and address ("RCPT <b@y.example>"), or "CONNECT" and "."; "BDAT in vain" is
    for a chunk to nobody. A list is used up one by one, its last element stays. decide: asked first for each command;
    None leaves it to `answers`. discards: whether it reads a chunk before it answers, as RFC 3030 has it, or takes the
    chunk for commands. lmtp: it answers to a content once for each recipient, by ". <b@y.example>" or ".".
    host, port: where it listens; once it is stopped, nobody does. cut_sent, cut_received: close a connection after so
    many octets in that direction. cut_how: what is done after those received instead of closing: an answer is given and
    the rest disregarded, half an answer given and nothing read any more; Slowly stands for reading an octet at a time.
    """

    def __init__(
        self,
        answers: dict[str, Answer | list[Answer]] | None = None,
        *,
        decide: Callable[[Dialogue, str], Answer | None] = lambda dialogue, command: None,
        cut_sent: int | None = None,
        cut_received: int | None = None,
        tls: ssl.SSLContext | None = None,
        discards: bool = True,
        lmtp: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.answers = {
            key: list(scripted) if isinstance(scripted, list) else scripted
            for key, scripted in {**DEFAULTS, **(answers or {})}.items()
        }
        self.decide = decide
        self.cut_sent = cut_sent
        self.cut_received = cut_received
        self.cut_how: Answer = Do.DROP
        self.tls = tls
        self.discards = discards
        self.lmtp = lmtp
        self.dialogues: list[Dialogue] = []
        self.mails: list[Mail] = []
        self.host = host
        self.port = port or free_port(host)
        self.open: set[Connection] = set()
        self._server: asyncio.AbstractServer | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.get_running_loop().create_server(lambda: Connection(self), self.host, self.port)
        if self.cut_received is not None:  # so that little is under way when the cut comes
            self._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Refuse connections from now on, and close the open ones."""
        if self._server is not None:
            self._server.close()
            self.drop_all(Do.DROP if self.tls is None else Do.RESET)  # which waits for no peer's leave
            await self._server.wait_closed()
            self._server = None

    def drop_all(self, how: Do = Do.DROP) -> None:
        """Close every open connection."""
        for connection in list(self.open):
            connection.leave(how)

    def say_unasked(self, data: bytes) -> None:
        """Send on every open connection."""
        for connection in self.open:
            connection.transport.write(data)

    def pause(self) -> None:
        """Read nothing any more."""
        for connection in self.open:
            connection.transport.pause_reading()

    def next_answer(self, key: str) -> Answer:
        scripted = self.answers.get(key, b"500 5.5.1 what?\r\n")
        if not isinstance(scripted, list):
            return scripted
        return scripted.pop(0) if len(scripted) > 1 else scripted[0]

    def changed(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[Upstream], bool]) -> None:
        """Wait until something that happened here makes the condition true."""
        while not condition(self):
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 20)

    @property
    def commands(self) -> list[str]:
        """The commands of all connections, one connection after the other."""
        return [command for dialogue in self.dialogues for command in dialogue.commands]


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.dialogue = Dialogue()
        self.sender = ""
        self.recipients: list[str] = []
        self.in_transaction = False
        self.in_content = False
        self.chunk: str | None = None  # the BDAT whose octets are being read
        self._buffer = b""
        self._looked = 0  # octets of it in which no end of a content was found
        self._stalled = False
        self._upgrade: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.upstream.open.add(self)
        self.upstream.dialogues.append(self.dialogue)
        self.answer("CONNECT", "CONNECT")
        self.upstream.changed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.dialogue.closed = True
        self.upstream.open.discard(self)
        self.upstream.changed()

    def data_received(self, data: bytes) -> None:
        if self.dialogue.cut:
            return
        limit = self.upstream.cut_received
        if limit is not None and len(self.dialogue.received) + len(data) >= limit:
            data = data[: limit - len(self.dialogue.received)]
        self.dialogue.reads.append(data)
        self.dialogue.received += data
        self._buffer += data
        self._parse()
        if limit is not None and len(self.dialogue.received) >= limit:
            self.dialogue.cut = True
            self._cut(self.upstream.cut_how)
        self.upstream.changed()

    def _cut(self, how: Answer) -> None:
        if isinstance(how, bytes) and not isinstance(how, Slowly):
            self.transport.write(how)
            if how.endswith(b"\n"):
                return
        if how in (Do.DROP, Do.RESET):
            self.leave(cast(Do, how))
        else:
            self.transport.pause_reading()
            if isinstance(how, Slowly):
                self._read_slowly(how.every)

    def _read_slowly(self, every: float) -> None:
        if self.transport.is_closing():
            return
        raw = cast(socket.socket, self.transport.get_extra_info("socket"))
        with contextlib.suppress(OSError):  # nothing there, or the connection is gone
            os.read(raw.fileno(), 1)
        asyncio.get_running_loop().call_later(every, self._read_slowly, every)

    def _parse(self) -> None:
        while not self._stalled and not self.dialogue.cut:
            if self.in_content:
                if self._buffer[:3] != b".\r\n" and b"\r\n.\r\n" not in self._buffer[max(0, self._looked - 4) :]:
                    self._looked = len(self._buffer)
                    return
                self._looked = 0
                content, _, rest = (b"\r\n" + self._buffer).partition(b"\r\n.\r\n")
                self._buffer = rest
                self.in_content = False
                self.end_of_data((content + b"\r\n")[2:])
            elif self.chunk is not None:
                octets = int(self.chunk.split()[1])
                if len(self._buffer) < octets:
                    return
                content, self._buffer = self._buffer[:octets], self._buffer[octets:]
                self.end_of_chunk(self.chunk, content)
            else:
                line, newline, rest = self._buffer.partition(b"\r\n")
                if not newline:
                    return
                self._buffer = rest
                self.command(line.decode())

    def command(self, line: str) -> None:
        self.dialogue.commands.append(line)
        verb = line.partition(" ")[0].upper()
        if verb == "BDAT" and self.upstream.discards:
            self.chunk = line
            return
        path = line[line.find("<") + 1 : line.find(">")]
        answer = self.answer(verb, line, f"{verb} <{path}>")
        positive = isinstance(answer, bytes) and answer[:1] in b"23"
        if verb in ("MAIL", "RSET"):
            self.sender, self.recipients = path, []
            self.in_transaction = verb == "MAIL" and positive
        elif verb == "RCPT" and positive and self.in_transaction:
            self.recipients.append(path)
        elif verb == "DATA" and positive:
            self.in_content = True
        elif verb == "QUIT" and positive:
            self.leave(Do.DROP)

    def end_of_data(self, content: bytes) -> None:
        self.dialogue.commands.append(".")
        if self.upstream.lmtp:
            for recipient in self.recipients:
                answer = self.answer(".", ".", f". <{recipient}>")
                if isinstance(answer, Do):
                    return
                if answer.startswith(b"2"):
                    self.upstream.mails.append(Mail(self.sender, [recipient], content))
            return
        answer = self.answer(".", ".")
        if isinstance(answer, bytes) and answer.startswith(b"2"):
            self.upstream.mails.append(Mail(self.sender, self.recipients, content))

    def end_of_chunk(self, command: str, content: bytes) -> None:
        self.chunk = None
        answer = self.answer("BDAT" if self.recipients else "BDAT in vain", command)
        if self.recipients and isinstance(answer, bytes) and answer.startswith(b"2"):
            self.upstream.mails.append(Mail(self.sender, self.recipients, content))
            self.recipients = []

    def answer(self, verb: str, command: str, specific: str = "") -> Answer:
        answer = self.upstream.decide(self.dialogue, command)
        if answer is None:
            key = specific if specific in self.upstream.answers else verb
            answer = self.upstream.next_answer(key)
        if isinstance(answer, bytes):
            self.send(answer)
        elif answer is Do.START_TLS:
            self.send(b"220 2.0.0 go ahead\r\n")
            self._stalled = True  # until the new transport is there
            self._upgrade = asyncio.get_running_loop().create_task(self._start_tls())
        elif answer is Do.STALL:
            self._stalled = True
        else:
            self.leave(answer)
        return answer

    def send(self, data: bytes) -> None:
        if isinstance(data, Slowly):
            self._stalled = True
            self._trickle(bytes(data), data.every)
            return
        limit = self.upstream.cut_sent
        if limit is not None:
            data = data[: limit - len(self.dialogue.sent)]
        self.dialogue.sent += data
        self.transport.write(data)
        if limit is not None and len(self.dialogue.sent) >= limit:
            self.leave(Do.DROP)

    def _trickle(self, data: bytes, every: float) -> None:
        if self.transport.is_closing():
            return
        if not data:
            self._stalled = False
            self._parse()
            return
        self.dialogue.sent += data[:1]
        self.transport.write(data[:1])
        asyncio.get_running_loop().call_later(every, self._trickle, data[1:], every)

    async def _start_tls(self) -> None:
        assert self.upstream.tls is not None
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # the client did not like the certificate
            transport = await loop.start_tls(self.transport, self, self.upstream.tls, server_side=True)
            self.transport = cast(asyncio.Transport, transport)
            self._stalled = False
            self._parse()

    def leave(self, how: Do) -> None:
        """Close the connection."""
        self.dialogue.cut = True
        if how is Do.RESET:
            raw = cast("socket.socket | None", self.transport.get_extra_info("socket"))
            if raw is not None:  # TLS has none any more where the peer was quicker
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()
