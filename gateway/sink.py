"""`relay-gateway sink`: an SMTP server that takes everything, for trying things out behind the gateway.

It speaks the gateway's own session and knows no policy. Not for the Internet: it accepts mail from anybody.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import uvloop

from gateway._fastpath import ContentStore
from gateway.config import LineEndings, ListenerParams
from gateway.logs.identity import new_message_id
from gateway.mail.message import Message
from gateway.smtp import replies
from gateway.smtp.commands import MailCommand, RcptCommand
from gateway.smtp.events import EhloRequested, MessageReceived, Observer
from gateway.smtp.replies import Reply
from gateway.smtp.session import ServerSession
from gateway.smtp.terms import Terms

HOSTNAME = "sink.localhost"
CONTENT_MEMORY = 64 << 20  # octets
CONTENT_FILES = 256
TERMS = Terms(
    ListenerParams(
        hostname=HOSTNAME,
        banner="sink",
        max_message_size=1 << 30,
        max_recipients_per_message=100_000,
        max_messages_per_connection=1 << 62,
        line_length_hard_limit=1 << 20,
        invalid_line_endings=LineEndings.ALLOW,
    ),
    offer_tls=False,
)


class Sink:
    """What all connections share: where messages go, and how many there were."""

    def __init__(self, directory: Path | None, quiet: bool) -> None:
        self.messages = 0
        self.octets = 0
        self.contents = ContentStore(tempfile.gettempdir(), CONTENT_MEMORY, CONTENT_FILES)
        self._quiet = quiet
        self._directory = directory
        if directory is not None:
            for name in ("tmp", "new", "cur"):
                (directory / name).mkdir(parents=True, exist_ok=True)

    def take(self, event: MessageReceived) -> str:
        """Stores or discards a message; returns its id."""
        message = Message(new_message_id(time.time_ns()), event.mail.sender, event.recipients, event.content)
        self.messages += 1
        self.octets += message.size
        if self._directory is not None:
            path = self._directory / "tmp" / message.id
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.writelines(message.content.plain_pieces())
            os.rename(path, self._directory / "new" / message.id)
        if not self._quiet:
            recipients = ", ".join(f"<{recipient}>" for recipient in event.recipients)
            print(f"{message.id} {message.size} octets from <{message.sender}> to {recipients}", flush=True)
        return message.id


class SinkConnection(asyncio.Protocol):
    """One client."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._session = ServerSession(TERMS, Observer(), sink.contents)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._session.greet(TERMS.greeting)
        self._transport.write(self._session.data_to_send())

    def data_received(self, data: bytes) -> None:
        session = self._session
        session.receive_data(data)
        while (event := session.next_event()) is not None:
            session.reply(self._answer(event))
        self._transport.write(session.data_to_send())
        if session.closed:
            self._transport.close()

    def _answer(self, event: object) -> Reply:
        if isinstance(event, EhloRequested):
            return replies.ehlo(HOSTNAME, event.name, event.extensions)
        if isinstance(event, MailCommand):
            return replies.MAIL_OK
        if isinstance(event, RcptCommand):
            return replies.RCPT_OK
        if isinstance(event, MessageReceived):
            return replies.accepted([self._sink.take(event)])
        raise AssertionError(f"the sink offers nothing that leads to {event!r}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `relay-gateway sink`."""
    parser.add_argument("--listen", default="127.0.0.1:2526", metavar="ADDRESS:PORT", help="default: %(default)s")
    parser.add_argument(
        "--maildir", type=Path, metavar="DIR", help="store messages here; without it they are discarded"
    )
    parser.add_argument("--quiet", action="store_true", help="print no line per message")


def run(args: argparse.Namespace) -> int:
    """Serves until interrupted; then says how much there was."""
    sink = Sink(args.maildir, args.quiet)
    host, _, port = args.listen.rpartition(":")
    try:
        uvloop.run(_serve(sink, host.strip("[]"), int(port)))
    except (OSError, ValueError) as error:
        print(f"relay-gateway sink: cannot listen on {args.listen}: {error}", file=sys.stderr)
        return 1
    print(f"{sink.messages} messages, {sink.octets} octets", flush=True)
    return 0


async def _serve(sink: Sink, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: SinkConnection(sink), host, port, backlog=1024)
    for sock in server.sockets:
        address = sock.getsockname()
        print(f"sink listening on {address[0]}:{address[1]}", flush=True)
    await stop.wait()
    server.close()
