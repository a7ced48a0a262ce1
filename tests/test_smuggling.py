"""No message hides another one: every trick with line ends, by DATA and BDAT, in clear and under TLS, whole and in
small portions (under TLS a record each), against a fleet that splits as leniently as the worst server known; compared
on the raw octets that it gets.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway_process import PATIENCE

ENDS = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\0\r\n", b"\r\n\0", b"\r\0\n", b"\n\r", b"\n\n")
TRICKS = [before + b"." + after for before, after in itertools.product(ENDS, ENDS)]
BY_DATA = [trick for trick in TRICKS if b"\r\n.\r\n" not in trick]  # that is an end, and what follows commands
SMUGGLED = b"MAIL FROM:<admin@out.example>\r\nRCPT TO:<victim@far.example>\r\nDATA\r\nSubject: smuggled\r\n"
# What some server somewhere takes for the end of a message: any line ends around a dot, with NULs dropped before.
LENIENT = re.compile(rb"(?:\r\n|\n|\r)\.(?:\r\n|\n|\r)")

POLICY = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.0.0.0/8' }, peer = {
    ['127.0.0.2'] = { invalid_line_endings = 'Deny' },
    ['127.0.0.3'] = { invalid_line_endings = 'Allow' },
    ['127.0.0.4'] = { invalid_line_endings = 'Fix' },
  } }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = UPSTREAMS } } }
end)
kumo.on('get_egress_path_config', function() return kumo.make_egress_path { enable_tls = 'Disabled' } end)
"""


class RawSink:
    """A server that ends a content as the RFC says, and keeps what came until then."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            connection.sendall(b"220 sink ESMTP\r\n")
            while line := stream.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    connection.sendall(b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n")
                elif verb == b"DATA":
                    connection.sendall(b"354 go on\r\n")
                    content = b"\r\n"
                    while not content.endswith(b"\r\n.\r\n"):
                        octets = stream.readline()
                        if not octets:
                            return
                        content += octets
                    self.contents.append(content)
                    connection.sendall(b"250 2.0.0 kept\r\n")
                else:
                    connection.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 2.0.0 ok\r\n")

    def stop(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self._threads):
            thread.join(PATIENCE)


@pytest.fixture
def raw_sink() -> Iterator[RawSink]:
    made = RawSink()
    try:
        yield made
    finally:
        made.stop()


def send_message(client: socket.socket, replies: Any, content: bytes, *, chunks: bool, portion: int) -> bytes:
    """Says one message; returns the reply to it."""
    client.sendall(b"MAIL FROM:<a@out.example>\r\nRCPT TO:<b@far.example>\r\n" + (b"" if chunks else b"DATA\r\n"))
    for _ in range(2 if chunks else 3):
        replies.readline()
    if not chunks:
        said = content + b"\r\n.\r\n"
        for start in range(0, len(said), portion):
            client.sendall(said[start : start + portion])
        return bytes(replies.readline())
    parts = [content[start : start + portion] for start in range(0, len(content), portion)]
    for part in parts:
        client.sendall(b"BDAT %d\r\n" % len(part) + part)
    client.sendall(b"BDAT 0 LAST\r\n")
    answers = [bytes(replies.readline()) for _ in range(len(parts) + 1)]
    refused = [answer for answer in answers if not answer.startswith(b"250")]
    return refused[0] if refused else answers[-1]


def secured(client: socket.socket) -> ssl.SSLSocket:
    """The same connection behind STARTTLS."""
    with client.makefile("rb") as replies:
        for line in (b"", b"EHLO client.example\r\n", b"STARTTLS\r\n"):
            client.sendall(line)
            while replies.readline()[3:4] == b"-":
                pass
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(client)


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "TLS"])
@pytest.mark.parametrize("chunks", [False, True], ids=["DATA", "BDAT"])
def test_one_message_or_none_reaches_a_fleet_that_splits_leniently(start, raw_sink, chunks, tls):
    gateway = start(POLICY, "--workers", "1", upstreams=[raw_sink.address])
    accepted = dict.fromkeys(("127.0.0.2", "127.0.0.3", "127.0.0.4"), 0)
    for source in accepted:
        with contextlib.ExitStack() as closing:
            client = closing.enter_context(
                socket.create_connection(gateway.address, PATIENCE, source_address=(source, 0))
            )
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                client = closing.enter_context(secured(client))
            replies = closing.enter_context(client.makefile("rb"))
            if not tls:
                replies.readline()
            client.sendall(b"HELO client.example\r\n")
            replies.readline()
            for trick, portion in itertools.product(TRICKS if chunks else BY_DATA, (1 << 20, 3)):
                content = b"Subject: one\r\n\r\nfirst" + trick + SMUGGLED
                before = len(raw_sink.contents)
                reply = send_message(client, replies, content, chunks=chunks, portion=portion)
                taken = raw_sink.contents[before:]
                assert len(taken) == reply.startswith(b"250 2.0.0"), (source, trick, reply)
                for each in taken:
                    ends = [found.end() for found in LENIENT.finditer(each.replace(b"\0", b""))]
                    assert ends == [len(each.replace(b"\0", b""))], (source, trick, each)
                    accepted[source] += 1
    assert accepted["127.0.0.4"] > accepted["127.0.0.3"] // 2 > 0, accepted
    assert accepted["127.0.0.2"] < accepted["127.0.0.4"], accepted
