"""One connection to one member of the fleet: the socket, TLS and clock around a ClientSession.

It opens itself (name, TCP, TLS), moves bytes, and tells its owner what came of it. Which message goes where, and what
is done about a failure, is gateway/couriers/fleet/lane.py and fleet.py; the SMTP is gateway/smtp/client.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from typing import TYPE_CHECKING

from gateway.config import ClientAddress, EgressPath, Host
from gateway.couriers.fleet import securing
from gateway.couriers.fleet.route import Route
from gateway.couriers.fleet.wiring import Wiring
from gateway.net.proxy_protocol import header_v2
from gateway.net.streams import Protocol, Stream
from gateway.net.tls_stream import TlsStream, Transport
from gateway.smtp.client import ClientSession
from gateway.smtp.client_values import ClientState, Event, Failure
from gateway.smtp.exchange import Exchange
from gateway.smtp.introduction import Introduced
from gateway.smtp.lmtp import LmtpSession

if TYPE_CHECKING:
    from gateway.couriers.fleet.job import Job

log = logging.getLogger(__name__)

_READY, _CLOSED, _CONCLUDED = ClientState.READY, ClientState.CLOSED, Event.CONCLUDED


class Owner:
    """Who opened a connection. Calls come from the event loop, never from within `open`, `begin` or `quit`."""

    def connection_opened(self, connection: MemberConnection) -> None:
        """TCP is established."""
        raise NotImplementedError

    def connection_ready(self, connection: MemberConnection) -> None:
        """A transaction may begin: after the handshake, and after the RSET that follows a refused transaction."""
        raise NotImplementedError

    def exchange_concluded(self, connection: MemberConnection, exchange: Exchange) -> None:
        """All answers are there. The connection is ready, or resetting (then connection_ready follows), or ends."""
        raise NotImplementedError

    def connection_ended(self, connection: MemberConnection) -> None:
        """Exactly once, and the last call. `session.failure` says why; `exchange` is the one cut short, if any."""
        raise NotImplementedError


class MemberConnection(Protocol):
    """An upstream connection: the protocol of its stream, in clear or under TLS.

    route: the addresses to attempt. address: the one in use, "" before. source_address: "IP:PORT" of this end.
    started: when, on the loop's clock. transactions: begun so far. begun: when the last one was. client: whose messages
    the member takes those for that come now; None for the gateway's own. is_lmtp: it is spoken to in LMTP.
    job: what its owner has it open for, or work on; None for a probe, and while it is idle.
    """

    def __init__(
        self, wiring: Wiring, host: Host, path: EgressPath, owner: Owner, route: Route, client: Introduced | None = None
    ) -> None:
        self.is_lmtp = path.use_lmtp
        self.session = (LmtpSession if path.use_lmtp else ClientSession)(path, wiring.ehlo_domain)
        self.client = client
        self.job: Job | None = None
        self.session_id = str(uuid.uuid4())
        self.host = host
        self.route = route
        self.address = ""
        self.source_address: str | None = None
        self.tls_cipher: str | None = None
        self.tls_protocol_version: str | None = None
        self.transactions = 0
        self.started = wiring.poller.time()
        self.begun = 0.0
        self._since = wiring.poller.time()  # when the upstream's time began to run
        self.exchange: Exchange | None = None
        self._poller = wiring.poller
        self._outbox = wiring.outbox
        self._resolver = wiring.resolver
        self._path = path
        self._owner = owner
        self._transport: Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._unsent = False  # True while the kernel has certainly not taken the end of the content yet
        self._in_outbox = False
        self._waits = False  # with the next piece of a content, for its turn
        self._ended = False

    # --- the owner's side ---------------------------------------------------------------------------------------------

    def ready(self) -> bool:
        """True when a transaction may begin."""
        return self.session.state is _READY

    def overdue(self, now: float) -> bool:
        """True when the upstream has used up its time; then somebody should call `quit` or `time_out`."""
        timeout = self._path.connect_timeout if self._transport is None else self.session.timeout
        return now - self._since >= timeout

    @property
    def may_have_delivered(self) -> bool:
        """True when the exchange under way was cut short after all of its content may have reached the upstream."""
        return self.exchange is not None and self.exchange.content_sent and not self._unsent

    def open(self) -> None:
        """Start connecting; connection_ready or connection_ended follows."""
        self._task = self._poller.loop.create_task(self._open())

    def suits(self, client: Introduced | None) -> bool:
        """Whether a message of this client may go over it."""
        told = self.client
        if self._path.client_address is ClientAddress.XCLIENT:  # which cannot take back what it told
            return client is not None or told is None
        return told is client or (client is not None and told is not None and told.peer_address == client.peer_address)

    def introduce(self, client: Introduced | None) -> None:
        """Whose message the next exchange carries."""
        self.session.introduce(client)
        self.client = client

    def begin(self, exchange: Exchange) -> None:
        """Start an exchange; the connection must be ready."""
        self.transactions += 1
        self.begun = self._poller.time()
        self.exchange = exchange
        self.session.begin(exchange)
        self._flush()

    def quit(self) -> None:
        """Close in good order; the connection must be ready."""
        self.session.quit()
        self._flush()

    def time_out(self) -> None:
        """Give up waiting for the upstream."""
        self.abort(Failure.TIMEOUT, "no answer in time")

    def abort(self, failure: Failure, detail: str) -> None:
        """Drop the connection at once, with whatever was not sent yet."""
        self.session.fail(failure, detail)
        self._end()

    # --- opening ------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        if self._path.smtp_auth_plain_username is not None:
            try:
                self.session.password = securing.password(self._path)
            except (OSError, ValueError) as error:
                return self.abort(Failure.AUTH, f"the password cannot be read: {error}")
        try:
            await self.route.resolve(self._resolver)
        except OSError as error:
            return self.abort(Failure.RESOLVE, str(error))
        addresses = self.route.untried
        if any(self._path.prohibited_hosts.contains_text(address) for address in addresses):
            self.route.untried = []
            return self.abort(Failure.PROHIBITED, f"prohibited_hosts covers {', '.join(addresses)}")
        try:
            self.address, stream = await self.route.connect(self._poller, self._attempting)
        except OSError as error:
            return self.abort(Failure.CONNECT, os.strerror(error.errno) if error.errno else str(error))
        return self._opened(stream)

    def _attempting(self, address: str) -> None:
        self.address = address
        self._since = self._poller.time()

    def _opened(self, stream: Stream) -> None:
        self._transport = stream
        stream.set_protocol(self)
        # so that pause_writing is called whenever something had to be left for later
        stream.set_write_buffer_limits(0)
        host, port = stream.local_address()
        self.source_address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.session.ehlo_domain = self.session.ehlo_domain or address_literal(host)
        self._since = self._poller.time()
        if self._path.client_address is ClientAddress.PROXY:
            client = "" if self.client is None else self.client.peer_address
            stream.write(header_v2(client, (self.address, self.host.port or self._path.smtp_port)))
        self._owner.connection_opened(self)

    def _start_tls(self, stream: Stream) -> None:
        secure = TlsStream(self._poller, stream, self, secured=self._secured, failed=self._not_secured)
        self._transport = secure
        try:
            context = securing.tls_context(self._path)
            secure.begin(context, self._path.starttls_timeout, self._path.tls_name or self.host.address)
        except (OSError, ValueError) as error:  # a name that no certificate can have
            self.abort(Failure.TLS, str(error))

    def _secured(self) -> None:
        if self._ended:  # given up meanwhile
            return
        assert isinstance(self._transport, TlsStream)
        cipher = self._transport.cipher()
        assert cipher is not None
        self.tls_cipher, self.tls_protocol_version = cipher[0], self._transport.version()
        self.session.tls_started()
        self._flush()

    def _not_secured(self, cause: str, text: str) -> None:
        self.abort(Failure.TLS, text or cause)

    # --- called by the stream -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        event = self.session.receive_data(data)
        if self.session.heard:  # its time runs on until it has answered: an octet a second is silence
            self._flush()
        if event is not None:
            self._on(event)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._unsent = True

    def resume_writing(self) -> None:
        self._unsent = False
        self._since = self._poller.time()
        if self.session.is_sending():
            self._wait_for_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended:
            self.abort(Failure.LOST, str(exc or "closed by the upstream"))

    # --- what happened ------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._since = self._poller.time()
        if not self._in_outbox and not self._waits and self.session.has_output():
            self._in_outbox = True
            self._outbox.add(self)

    def write_out(self) -> None:
        """Called by the outbox."""
        self._in_outbox = False
        session = self.session
        if self._unsent and session.is_sending():
            return  # the next piece follows when this one is the kernel's
        try:
            output = session.data_to_send()
        except OSError as error:  # without its end nobody takes the message
            log.exception("a content cannot be read from its file")
            self.abort(Failure.LOST, f"our own fault: {error}")
            return
        if output and self._transport is not None and not self._ended:
            if type(self._transport) is Stream:  # called as what it is, in clear
                stream = self._transport
                stream.writelines(output)
            else:
                self._transport.writelines(output)
            if session.is_sending() and not self._unsent:
                self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        if not self._waits:
            self._waits = True
            self._poller.turns.wait(self._take_turn)

    def _take_turn(self) -> None:
        """The kernel took what was written, and it is this connection's turn to read a piece and write it."""
        self._waits = False
        if not self._ended and self.session.has_output():
            self._since = self._poller.time()
            self.write_out()

    def _on(self, event: Event) -> None:
        if event is _CONCLUDED:
            self._on_concluded()
        elif event is Event.READY:
            self._owner.connection_ready(self)
        elif event is Event.START_TLS:
            assert isinstance(self._transport, Stream)  # STARTTLS is asked for in clear only
            self._start_tls(self._transport)
        else:
            self._end()

    def _on_concluded(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        if self._unsent and exchange.taken():
            # praise for a message that has not been sent: the rest of it must stay here
            exchange.verdict = None
            return self.abort(Failure.PROTOCOL, "an answer to the content before it was sent")
        if self._unsent:  # refused in the middle; the refusal counts, the rest of the content cannot be called back
            self.session.fail(Failure.PROTOCOL, "refused before all of the content was sent")
        self.exchange = None
        self._owner.exchange_concluded(self, exchange)
        exchange.let_go()
        return self._end() if self.session.state is _CLOSED else None

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._owner.connection_ended(self)


def address_literal(address: str) -> str:
    """RFC 5321 §4.1.3."""
    return f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"
