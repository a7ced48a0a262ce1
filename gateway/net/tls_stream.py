"""TLS over a stream: what a connection holds after STARTTLS (RFC 3207), with a stream's methods and promises.

OpenSSL works on memory; the octets come and go through the stream below, and so do time-outs of writing, back-pressure
and the end. No SMTP here, and no certificates: those are tls.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Protocol as Shape

from gateway.net.streams import Poller, Protocol, Stream

MOST_FED = 8 * 1024  # octets that OpenSSL is given at a time: its buffers keep the size they once had
SHAKE_FED = 128  # likewise until the handshake is done: what sessions that are idle since then keep
MOST_READ = 16 * 1024  # octets; a record's (RFC 8446 §5.1)

_NOBODY = Protocol()

# Why handshakes fail; what else OpenSSL says is "other".
CAUSES = ("timeout", "lost", "no_tls", "version", "cipher", "certificate", "local", "other")
_REASONS = {
    "no_tls": ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNEXPECTED_MESSAGE", "PACKET_LENGTH"),
    "version": ("UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS"),
    "cipher": ("NO_SHARED_CIPHER", "NO_CIPHERS", "ALERT_HANDSHAKE_FAILURE", "NO_SUITABLE", "ALERT_INSUFFICIENT"),
    "certificate": ("CERTIFICATE", "UNKNOWN_CA"),
}


class Transport(Shape):
    """What a connection writes to: a Stream, in clear, or a TlsStream. What each call means is Stream's."""

    def set_write_buffer_limits(self, high: int) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write(self, data: bytes) -> None: ...
    def writelines(self, chunks: list[bytes]) -> None: ...
    def close(self) -> None: ...
    def finish(self, linger: float) -> None: ...
    def abort(self) -> None: ...


def cause_of(error: Exception) -> str:
    """One of CAUSES, for what OpenSSL raised during a handshake."""
    if isinstance(error, ssl.SSLEOFError):
        return "lost"
    reason = getattr(error, "reason", None) or ""
    for cause, words in _REASONS.items():
        if any(word in reason for word in words):
            return cause
    return "other"


def _told(error: OSError) -> str:
    """What an operator reads of it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    return getattr(error, "reason", None) or str(error)


def offers_ticket(hello: bytes) -> bool:
    """Whether a ClientHello, in one record, has a ticket to resume a session with (RFC 8446 §4.2.11, D.3)."""
    at = 43  # headers of record and message, version, random: RFC 8446 §4.1.2
    for length in (1, 2, 1):  # session, ciphers, compression
        at += length + int.from_bytes(hello[at : at + length])
    at += 2
    while at + 4 <= len(hello):
        kind, size = (int.from_bytes(hello[start : start + 2]) for start in (at, at + 2))
        if kind == _PRE_SHARED_KEY or (kind == _SESSION_TICKET and size):
            return True
        at += 4 + size
    return False


_SESSION_TICKET, _PRE_SHARED_KEY = 35, 41


class TlsStream(Protocol):
    """One connection under TLS: the protocol of the stream below it, and a stream to the protocol above.

    secured: called when the handshake is done; what the peer sends comes to the protocol from then on. failed: called
    with one of CAUSES and a text where it fails; the stream below is then closed, and the protocol told as ever.
    """

    def __init__(
        self,
        poller: Poller,
        stream: Stream,
        protocol: Protocol,
        *,
        secured: Callable[[], None],
        failed: Callable[[str, str], None],
    ) -> None:
        """stream: in clear so far; nothing that it has read may be lost. What it has yet to write goes first."""
        self._poller = poller
        self._stream = stream
        self._protocol = protocol
        self._outcomes: tuple[Callable[[], None], Callable[[str, str], None]] | None = (secured, failed)
        self._ssl: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._raw = b""  # from `_at` on: received, and not yet given to OpenSSL
        self._at = 0
        self._earlier: ssl.SSLContext | None = None
        self._hello = b""  # what the client has said first, while there is an earlier context
        self._timer: asyncio.TimerHandle | None = None
        self._shaken = False
        self._paused = False
        self._at_end = False  # the peer will send nothing more
        self._end_told = False
        self._closing = False

    def begin(
        self,
        context: ssl.SSLContext,
        timeout: float,
        server_hostname: str | None = None,
        earlier: ssl.SSLContext | None = None,
    ) -> None:
        """Starts the handshake, which may take `timeout` seconds. server_hostname: of the server, where this end is the
        client; None where it is the server. earlier: whose tickets are good, too.
        """
        self._earlier = earlier
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._timer = self._poller.loop.call_later(timeout, self._too_late)
        self._stream.set_protocol(self)
        self._shake()

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, protocol version and bits of the cipher in use."""
        return None if self._ssl is None else self._ssl.cipher()

    def peer_certificate(self) -> bytes | None:
        """The peer's certificate, which was verified, in DER; None where it has shown none."""
        return None if self._ssl is None else self._ssl.getpeercert(True)

    def resumed(self) -> bool:
        """The handshake was short: the client has shown a ticket (RFC 8446 §2.2)."""
        return bool(self._ssl is not None and self._ssl.session_reused)

    def version(self) -> str | None:
        """The protocol's version, as OpenSSL names it."""
        return None if self._ssl is None else self._ssl.version()

    # -- a stream's methods --------------------------------------------------------------------------------------------

    def set_write_buffer_limits(self, high: int) -> None:
        """In octets as they are sent."""
        self._stream.set_write_buffer_limits(high)

    def pause_reading(self) -> None:
        self._paused = True
        self._stream.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        if not self._at_end:
            self._stream.resume_reading()
        self._poller.call_soon(self._read)

    def write(self, data: bytes) -> None:
        """As Stream's; nothing may be written before the handshake is done."""
        if self._closing or self._ssl is None:
            return
        at = 0
        while at < len(data):
            at += self._ssl.write(data[at : at + MOST_READ] if len(data) > MOST_READ else data)
            self._flush()

    def writelines(self, chunks: list[bytes]) -> None:
        """Small chunks become records together."""
        small: list[bytes] = []
        size = 0
        for chunk in chunks:
            if size + len(chunk) > MOST_READ:
                self.write(b"".join(small))
                small, size = [], 0
            small.append(chunk)
            size += len(chunk)
        self.write(b"".join(small))

    def close(self) -> None:
        self._say_goodbye()
        self._stream.close()

    def finish(self, linger: float) -> None:
        self._say_goodbye()
        self._stream.finish(linger)

    def abort(self) -> None:
        self._closing = True
        self._stream.abort()

    # -- called by the stream below ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._at_end or self._closing:
            return
        self._raw = self._raw[self._at :] + data if self._raw else data
        self._at = 0
        if self._shaken:
            self._read()
        else:
            self._shake()

    def eof_received(self) -> bool:
        self._at_end = True
        if not self._shaken:
            self._fail("lost", "the peer closed the connection")
            return False
        self._read()
        return not self._closing

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._shaken and not self._closing:
            self._fail("lost", "" if exc is None else str(exc))
        self._cancel_timer()
        self._closing = True
        self._ssl = None
        self._raw = b""
        protocol, self._protocol = self._protocol, _NOBODY  # who may hold this stream; cycles are better not made
        protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # -- the handshake -------------------------------------------------------------------------------------------------

    def _shake(self) -> None:
        assert self._ssl is not None
        while not self._closing:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                if self._earlier is not None and self._outgoing.pending:
                    self._try_earlier()
                self._flush()
                if not self._feed():
                    return
            except OSError as error:  # ssl.SSLError is one
                self._flush()  # the alert
                self._fail(cause_of(error), _told(error))
                return
            else:
                self._flush()
                self._cancel_timer()
                self._shaken = True
                self._done()[0]()
                self._read()
                return

    def _try_earlier(self) -> None:
        """Answers a client whose ticket has another key from the earlier context, if that knows it."""
        assert self._ssl is not None
        assert self._earlier is not None
        earlier, hello = self._earlier, self._hello
        self._earlier, self._hello = None, b""
        if self._ssl.session_reused or not offers_ticket(hello):
            return
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        other = earlier.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(hello)
        with contextlib.suppress(OSError):  # it wants more
            other.do_handshake()
        if other.session_reused:
            self._ssl, self._incoming, self._outgoing = other, incoming, outgoing

    def _done(self) -> tuple[Callable[[], None], Callable[[str, str], None]]:
        """Whom to tell how it went, once."""
        outcomes, self._outcomes = self._outcomes, None
        assert outcomes is not None
        return outcomes

    def _too_late(self) -> None:
        self._timer = None
        self._fail("timeout", "it took too long")

    def _fail(self, cause: str, text: str) -> None:
        if not self._closing:
            self._closing = True
            self._cancel_timer()
            self._done()[1](cause, text)
            self._stream.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- octets --------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Gives the protocol what is there, until it pauses."""
        while self._shaken and not self._paused and not self._closing and not self._end_told:
            assert self._ssl is not None
            if not self._incoming.pending and not self._ssl.pending() and not self._feed():
                break
            try:
                data = self._ssl.read(MOST_READ)
            except ssl.SSLWantReadError:
                continue  # all that it was given is a part of a record
            except OSError as error:
                self._break_off(error)
                return
            if data:
                self._protocol.data_received(data)
            else:  # close_notify, which ends one direction only (RFC 8446 §6.1)
                self._at_end = True
                break
        if self._shaken and not self._closing:
            self._flush()  # what OpenSSL itself has to say
            if self._at_end and not self._paused and not self._end_told:
                self._end_told = True
                if not self._protocol.eof_received():
                    self.close()

    def _feed(self) -> bool:
        """Gives OpenSSL what comes next of what was received. False: there is no more."""
        if self._at == len(self._raw):
            return False
        end = self._at + (MOST_FED if self._shaken else SHAKE_FED)
        self._incoming.write(self._raw[self._at : end])
        if self._earlier is not None:
            self._hello += self._raw[self._at : end]
        self._at = end
        if self._at >= len(self._raw):
            self._raw = b""
            self._at = 0
        return True

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._stream.write(self._outgoing.read())

    def _break_off(self, error: Exception) -> None:
        """A record that is none: nobody knows what else the peer, or somebody between, has changed."""
        self._flush()
        self._closing = True
        self._stream.close()

    def _say_goodbye(self) -> None:
        if not self._closing:
            self._closing = True
            assert self._ssl is not None
            with contextlib.suppress(OSError):  # it would wait for the peer's; or the handshake is not done
                self._ssl.unwrap()
            self._flush()
