"""One client's TCP connection: bytes between the stream and the session, time-outs, the TLS upgrade, closing; and the
listener it came to.

No SMTP and no policy: those are the session's and the reception's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from typing import Any, cast

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import Listener, ListenerParams
from gateway.inbound.reception import Reception
from gateway.inbound.services import Services
from gateway.logs import records
from gateway.logs.identity import new_session_id
from gateway.net import tls
from gateway.net.endpoints import Endpoints
from gateway.net.outbox import Outbox
from gateway.net.roster import Roster
from gateway.net.streams import Poller, Protocol, Stream
from gateway.policy.listener import TermsTable
from gateway.smtp import replies
from gateway.smtp.replies import Reason, Reply

log = logging.getLogger(__name__)

MAX_BUFFERED = 256 * 1024  # octets a client may have sent ahead of the reply it waits for
LINGER = 2.0  # seconds a client gets to read the last reply, and under TLS to close, before the connection is reset

_OPENED = metrics.CONNECTIONS_OPENED.slot()
_OPEN = metrics.CONNECTIONS_OPEN.slot()
_TLS_OK = metrics.TLS_HANDSHAKES.slot("ok")
_TLS_FAILED = metrics.TLS_HANDSHAKES.slot("failed")
_REFUSED_SLOTS = {
    reason: metrics.CONNECTIONS_REFUSED.slot(reason)
    for reason in (Reason.TOO_MANY_CONNECTIONS, Reason.SHUTTING_DOWN, Reason.STORAGE)
}
_CONNECT_REJECTIONS = {reason: metrics.REJECTIONS.slot("connect", reason) for reason in _REFUSED_SLOTS}


class ListenerHost:
    """One listener in its worker: what its connections share.

    max_connections: how many may be open at a time. bound_to: the socket address it listens on.
    """

    def __init__(
        self,
        listener: Listener,
        bound_to: tuple[Any, ...],
        max_connections: int,
        services: Services,
        contexts: tls.ServerContexts,
        roster: Roster,
        outbox: Outbox,
        poller: Poller,
    ) -> None:
        self.services = services
        self.contexts = contexts
        self.roster = roster
        self.outbox = outbox
        self.poller = poller
        # of all connections; None where each may have another
        self.local_address = None if ipaddress.ip_address(bound_to[0].partition("%")[0]).is_unspecified else bound_to
        self.terms_table = TermsTable(listener, offer_auth="smtp_server_auth_plain" in services.policy.handles)
        self._logs = services.logs
        self._open = 0
        self._max_connections = max_connections

    def accepted(self, stream: Stream) -> None:
        """Takes a new connection on, or turns it away."""
        Connection(self, stream).begin(stream)

    def admission(self, params: ListenerParams) -> Reply | None:
        """None where a new connection is welcome, else the reply that turns it away."""
        if self.roster.draining:
            return replies.closing(params.hostname, "shutting down", Reason.SHUTTING_DOWN)
        if self._open >= self._max_connections:
            what = "too many concurrent sessions. Try later"
            return replies.closing(params.hostname, what, Reason.TOO_MANY_CONNECTIONS)
        if self._logs.disk_problem is not None:
            return replies.closing(params.hostname, "disk is too full. Try later", Reason.STORAGE)
        return None

    def opened(self, connection: Connection) -> None:
        """The connection counts from now on."""
        self._open += 1
        self.roster.add(connection)

    def lost(self, connection: Connection) -> None:
        """It counts no more."""
        self._open -= 1
        self.roster.remove(connection)


class Connection(Protocol):
    """One connection: the protocol of its stream, then of asyncio's transport if it is secured."""

    def __init__(self, host: ListenerHost, stream: Stream) -> None:
        self._host = host
        self._poller = host.poller
        self._outbox = host.outbox
        self._page: CounterPage = host.services.page
        self._logs = host.services.logs
        self._transport: Stream | asyncio.Transport = stream
        self._reception: Reception | None = None
        self._timeout = 0.0
        self._linger: asyncio.TimerHandle | None = None  # until the connection is reset
        self._last_read = 0.0
        self._params: ListenerParams | None = None
        self._tls_task: asyncio.Task[None] | None = None
        self._closing = False
        self._in_outbox = False
        self._eof = False
        self._reading_paused = False
        self._writing_paused = False

    # -- called by the listener and the event loop -------------------------------------------------------------------

    def begin(self, stream: Stream) -> None:
        """Starts the session, or turns the client away."""
        stream.set_protocol(self)
        self._page.add(_OPENED)
        endpoints = Endpoints(stream.peer, self._host.local_address or stream.local_address())
        terms = self._host.terms_table.terms_for(endpoints.peer_address, endpoints.local_address)
        params = self._params = terms.params
        refusal = self._host.admission(params)
        if refusal is not None:
            self._turn_away(refusal, params, endpoints)
            return
        self._page.add(_OPEN)
        self._host.opened(self)
        self._timeout = params.client_timeout
        self._last_read = self._poller.time()
        self._reception = Reception(self._host.services, terms, endpoints, self._advance)
        self._reception.start()
        self._flush()

    def data_received(self, data: bytes) -> None:
        reception = self._reception
        if reception is None or self._closing:
            return
        if self._tls_task is not None:  # clear text behind STARTTLS; reading is paused, so this should never happen
            self.abort()
            return
        self._last_read = self._poller.time()
        reception.session.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        # a client may close its side while it waits for the last reply
        self._eof = True
        reception = self._reception
        waits = reception is not None and reception.session.awaiting is not None and not self._closing
        return waits and reception is not None and not reception.session.tls

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if self._linger is not None:
            self._linger.cancel()
        if self._tls_task is not None:
            self._tls_task.cancel()
        if self._reception is not None:
            self._page.add(_OPEN, -1)
            self._host.lost(self)
            self._reception.lost()
            self._reception = None

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._pause_or_resume()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._pause_or_resume()

    # -- called by the worker -----------------------------------------------------------------------------------------

    def check_idle(self, now: float) -> None:
        """Ends the session with 421 if its client has been silent for too long. now: on the event loop's clock."""
        reception = self._reception
        if reception is None or self._closing:
            return
        if reception.session.awaiting is not None:
            self._last_read = now  # it is us who are being waited for
        elif now >= self._last_read + self._timeout:
            self._end("idle too long", Reason.IDLE_TIMEOUT, "4.4.2")

    def drain(self) -> None:
        """Ends the session with 421 as soon as no transaction is under way."""
        reception = self._reception
        if reception is not None and not self._closing and reception.session.idle:
            self._end("shutting down", Reason.SHUTTING_DOWN)

    def abort(self) -> None:
        """Drops the connection."""
        if self._tls_task is not None:
            self._tls_task.cancel()
        self._transport.abort()

    # -- the session's progress ---------------------------------------------------------------------------------------

    def _advance(self) -> None:
        reception = self._reception
        if reception is None or self._closing:
            return
        tls_requested = reception.advance()
        self._flush()
        if tls_requested is not None:
            self._transport.pause_reading()  # what comes next is the handshake's
            self.write_out()
            assert isinstance(self._transport, Stream)  # the session offers STARTTLS in clear only
            self._tls_task = self._poller.loop.create_task(self._start_tls(self._transport))
        elif not self._closing:
            if self._host.roster.draining:
                self.drain()
            elif self._eof and reception.session.awaiting is None:
                self._close(True)
            self._pause_or_resume()

    def _flush(self) -> None:
        assert self._reception is not None
        session = self._reception.session
        if session.closed:
            self._close(not session.quit)
        elif not self._in_outbox:
            self._in_outbox = True
            self._outbox.add(self)

    def write_out(self) -> None:
        """Called by the outbox."""
        self._in_outbox = False
        if self._reception is not None:
            data = self._reception.session.data_to_send()
            if data:
                self._transport.write(data)

    def _pause_or_resume(self) -> None:
        if self._closing or self._reception is None or self._tls_task is not None:
            return
        session = self._reception.session
        logs = self._logs
        pause = logs.full or self._writing_paused or (session.awaiting is not None and session.buffered > MAX_BUFFERED)
        if pause != self._reading_paused:
            self._reading_paused = pause
            if pause:
                self._transport.pause_reading()
                if logs.full:
                    logs.when_room(self._pause_or_resume)
            else:
                self._transport.resume_reading()

    async def _start_tls(self, stream: Stream) -> None:
        assert self._params is not None
        loop = self._poller.loop
        try:
            context = self._host.contexts.context(self._params)
            await loop.connect_accepted_socket(
                lambda: cast(asyncio.Protocol, self),  # event loops ask for the methods only
                stream.detach(),
                ssl=context,
                ssl_handshake_timeout=self._timeout,
                ssl_shutdown_timeout=LINGER,
            )
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            # RFC 3207 §4.1: after a failed handshake neither side can know what the other saw, so there is no way back
            self._page.add(_TLS_FAILED)
            log.info("TLS handshake failed: %s", type(error).__name__)
            self._tls_task = None
            stream.abort()
            self.connection_lost(None)  # nobody else calls it during a handshake

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Called by asyncio after the handshake."""
        self._tls_task = None
        self._transport = transport
        reception = self._reception
        if reception is None:
            transport.abort()
            return
        self._page.add(_TLS_OK)
        self._last_read = self._poller.time()
        reception.tls_started(*tls.shown_names(transport.get_extra_info("cipher")))
        self._advance()

    # -- ends ------------------------------------------------------------------------------------------------------

    def _end(self, what: str, reason: Reason, enhanced: str = "4.3.2") -> None:
        assert self._reception is not None
        self._reception.end(what, reason, enhanced)
        self._flush()

    def _turn_away(self, refusal: Reply, params: ListenerParams, endpoints: Endpoints) -> None:
        assert refusal.reason is not None
        self._page.add(_REFUSED_SLOTS[refusal.reason])
        self._page.add(_CONNECT_REJECTIONS[refusal.reason])
        if refusal.reason is not Reason.STORAGE and not self._logs.full:  # a flood of records must not make that worse
            origin = records.Origin("", endpoints.peer_address, new_session_id())
            now_ns = self._host.services.now_ns()
            self._logs.submit(records.rejection(refusal, origin, now_ns, command=None, meta=params.meta))
        self._transport.write(refusal.wire)
        self._close(True)

    def _close(self, linger: bool) -> None:
        """Ends the connection. linger: let the last reply arrive although the client may still be sending."""
        if self._closing:
            return
        self._closing = True
        self.write_out()
        if not linger or self._eof or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._linger = self._poller.loop.call_later(LINGER, self._transport.abort)
