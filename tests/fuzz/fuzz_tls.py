"""What comes to a connection under TLS, from the first octet of the handshake on: no octets make it fail otherwise than
it says, what the protocol above gets is what the peer wrote, from its beginning and in order, and however the octets
are cut it gets all of that as long as nobody has changed them.

A target of `make fuzz`; the tests run it on a few inputs.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from gateway.config import ListenerParams
from gateway.net import tls
from gateway.net.streams import Poller, Protocol, Stream
from gateway.net.tls_stream import CAUSES, TlsStream

CONTEXT = tls.ServerContexts([], tls.KeyFiles(), now=0.0).context(ListenerParams(hostname="gw.example"))
TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE
RECORDS = (  # that a peer may send at any time, or must not
    *(b"\x15\x03\x03\x00\x02\x01\x00", b"\x15\x03\x03\x00\x02\x02\x28", b"\x14\x03\x03\x00\x01\x01"),
    *(
        b"\x16\x03\x01\x00\x00",
        b"\x17\x03\x03\xff\xff",
        b"\x17\x03\x03\x00\x10" + bytes(16),
        b"EHLO x\r\n",
        b"\x80\x2e\x01\x03",
    ),
)
MOST_UNASKED = 64 * 1024  # octets that the server says of its own: a flight, tickets, alerts


class _Loop:
    """An event loop without time, as far as a stream asks for one."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def add_reader(self, *_: Any) -> None: ...
    def call_later(self, *_: Any) -> _Loop:
        return self

    def cancel(self) -> None: ...
    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def go_on(self) -> None:
        while self.soon:
            self.soon.pop(0)()


LOOP = _Loop()
POLLER = Poller(LOOP)  # type: ignore[arg-type]


class _Wire(Stream):
    """A stream without a socket."""

    def __init__(self, poller: Poller) -> None:
        super().__init__(poller, -1, ("192.0.2.1", 1))
        self.sent = bytearray()
        self.over = False

    def set_protocol(self, protocol: Protocol) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.over = True

    def abort(self) -> None:
        self.over = True


class _Above(Protocol):
    """Who is served."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.lost = 0

    def data_received(self, data: bytes) -> None:
        assert data
        self.got += data

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1

    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Dialogue:
    """A client with Python's own TLS, a server, and somebody between them."""

    def __init__(self) -> None:
        self.wire, self.above, self.outcomes = _Wire(POLLER), _Above(), list[str]()
        self.server = TlsStream(
            POLLER,
            self.wire,
            self.above,
            secured=lambda: self.outcomes.append("secured"),
            failed=lambda cause, _: self.outcomes.append(cause),
        )
        self.server.begin(CONTEXT, 1.0)
        self._to_client, self._from_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = TRUSTING.wrap_bio(self._to_client, self._from_client)
        self.on_its_way = bytearray()
        self.written = bytearray()
        self.changed = self.shaken = self.ended = False
        self.taken = 0

    def exchange(self) -> None:
        """The client reads what was sent to it, and goes on."""
        self._to_client.write(bytes(self.wire.sent[self.taken :]))
        self.taken = len(self.wire.sent)
        try:
            if not self.shaken:
                self.client.do_handshake()
                self.shaken = True
            else:
                self.client.read(1 << 16)
        except OSError:  # it waits, or was cheated
            pass
        self.on_its_way += self._from_client.read()

    def say(self, octets: bytes) -> None:
        if self.shaken:
            try:
                self.client.write(octets)
            except OSError:  # it was cheated
                return
            self.written += octets
            self.on_its_way += self._from_client.read()

    def deliver(self, number: int) -> None:
        octets = bytes(self.on_its_way[:number])
        del self.on_its_way[:number]
        if octets and not self.wire.over and not self.ended:
            self.server.data_received(octets)
            LOOP.go_on()
        self.exchange()

    def between(self, octets: bytes, at: int) -> None:
        """Somebody puts octets into what is on its way."""
        place = at % (len(self.on_its_way) + 1)
        self.on_its_way[place:place] = octets
        self.changed = True

    def end(self) -> None:
        """The peer closes its side."""
        if not self.ended and not self.wire.over:
            self.ended = True
            if not self.server.eof_received():
                self.server.close()
            LOOP.go_on()


def one_input(data: memoryview) -> None:
    """Two octets each say what happens next."""
    octets = bytes(data)[:400]
    dialogue = Dialogue()
    if not octets or octets[0] < 224:  # as nearly always: an honest handshake, in portions
        while not dialogue.shaken or dialogue.on_its_way:
            dialogue.exchange()
            dialogue.deliver(octets[0] % 61 + 1 if octets else 1 << 16)
    else:
        dialogue.exchange()
    for what, how in zip(octets[1::2], octets[2::2], strict=False):
        _happen(dialogue, what, how)
    while dialogue.on_its_way and not dialogue.ended:
        dialogue.deliver(1 << 16)
    _look(dialogue)
    dialogue.server.connection_lost(None)
    LOOP.go_on()
    assert dialogue.above.lost == 1
    assert len(dialogue.outcomes) == 1, dialogue.outcomes


def _happen(dialogue: Dialogue, what: int, how: int) -> None:
    kind = what % 16
    if kind < 5:
        dialogue.say(bytes(range(how)) * (what // 16 * 7 + 1) or b"x")
    elif kind < 10:
        dialogue.deliver(how + 1)
    elif kind == 10:
        dialogue.server.pause_reading()
        dialogue.server.resume_reading()
        LOOP.go_on()
    elif kind == 11 and dialogue.outcomes == ["secured"]:
        dialogue.server.write(bytes(how + 1))
    elif what >= 192 and kind == 12:
        dialogue.end()
    elif what >= 160:
        dialogue.between(RECORDS[what % len(RECORDS)], how)
    elif what >= 128 and dialogue.on_its_way:
        dialogue.on_its_way[how % len(dialogue.on_its_way)] ^= 1 << what % 8
        dialogue.changed = True


def _look(dialogue: Dialogue) -> None:
    got, written = dialogue.above.got, dialogue.written
    assert written.startswith(got)
    if not dialogue.changed and not dialogue.ended and dialogue.shaken:
        assert got == written
    assert dialogue.outcomes in ([], ["secured"], *([cause] for cause in CAUSES))
    assert len(dialogue.wire.sent) < MOST_UNASKED + 200 * 300
