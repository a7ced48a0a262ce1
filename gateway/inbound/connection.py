"""One client's TCP connection: bytes between the stream and the reception, time-outs, turns, the TLS upgrade, closing.

No SMTP and no policy: those are the session's and the reception's. How a connection comes to be is arrival.py's.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any, cast

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import ListenerParams
from gateway.inbound.reception import Reception
from gateway.inbound.services import Services
from gateway.net import tls
from gateway.net.outbox import Outbox
from gateway.net.roster import Roster
from gateway.net.streams import Poller, Protocol, Stream
from gateway.smtp.replies import Reason

log = logging.getLogger(__name__)

MOST_COMMANDS = 32  # of one client that are executed in one turn of the event loop; the others' follow, then the next
MAX_BUFFERED = 16 * 1024  # octets of commands that may wait to be executed while more is read
MAX_UNSENT = 16 * 1024  # octets of replies that may wait for a client to read them while more commands are executed
LINGER = 2.0  # seconds a client gets to read the last reply, and under TLS to close, before the connection is reset

_OPENED = metrics.CONNECTIONS_OPEN.slot()
_TLS_OK = metrics.TLS_HANDSHAKES.slot("ok")
_TLS_FAILED = metrics.TLS_HANDSHAKES.slot("failed")


class Host:
    """What connections have from the listener they came to; the base of arrival's listeners."""

    def __init__(
        self, services: Services, contexts: tls.ServerContexts, roster: Roster, outbox: Outbox, poller: Poller
    ) -> None:
        self.services = services
        self.contexts = contexts
        self.roster = roster
        self.outbox = outbox
        self.poller = poller
        self.open = 0  # connections now

    def opened(self, connection: Connection) -> None:
        """The connection counts from now on."""
        self.open += 1
        self.services.page.add(_OPENED)
        self.roster.add(connection)

    def lost(self, connection: Connection) -> None:
        """It counts no more."""
        self.open -= 1
        self.services.page.add(_OPENED, -1)
        self.roster.remove(connection)


class Connection(Protocol):
    """One connection: the protocol of its stream, then of asyncio's transport if it is secured."""

    def __init__(self, host: Host, stream: Stream, params: ListenerParams) -> None:
        """Counts nothing and tells nobody: that is begin()'s."""
        self._host = host
        self._poller = host.poller
        self._outbox = host.outbox
        self._page: CounterPage = host.services.page
        self._logs = host.services.logs
        self._transport: Stream | asyncio.Transport = stream
        self._params = params
        self._reception: Reception | None = None  # while the connection counts
        self._timeout: float = params.client_timeout
        self._last_read = 0.0
        self._tls_task: asyncio.Task[None] | None = None
        self._closing = False
        self._in_outbox = False
        self._turn_due = False
        self._eof = False
        self._reading_paused = False
        self._writing_paused = False

    def begin(self, reception: Reception) -> None:
        """Takes the place of a connection whose stream tells this one what happens, and starts the session."""
        self._host.opened(self)
        self._reception = reception
        self._last_read = self._poller.time()
        reception.start()
        self._flush()

    # -- called by the stream and the event loop ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        reception = self._reception
        if reception is None or self._closing:
            return
        if self._tls_task is not None:  # clear text behind STARTTLS; reading is paused, so this should never happen
            self.abort()
            return
        self._last_read = self._poller.time()
        reception.receive(data)
        self._advance()

    def eof_received(self) -> bool:
        # a client may close its side while it waits for replies
        self._eof = True
        reception = self._reception
        if reception is None or self._closing or reception.is_secured():
            return False
        return reception.is_asked() or reception.is_behind()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if self._tls_task is not None:
            self._tls_task.cancel()
        reception, self._reception = self._reception, None
        if reception is not None:
            self._host.lost(self)
            reception.lost()

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._pause_or_resume()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._in_the_next_turn()

    # -- called by the worker -----------------------------------------------------------------------------------------

    def check_idle(self, now: float) -> None:
        """Ends the session with 421 if its client has been silent for too long. now: on the event loop's clock."""
        reception = self._reception
        if reception is None or self._closing:
            return
        if reception.is_asked():
            self._last_read = now  # it is us who are being waited for
        elif now >= self._last_read + self._timeout:
            self._end("idle too long", Reason.IDLE_TIMEOUT, "4.4.2")

    def drain(self) -> None:
        """Ends the session with 421 as soon as no transaction is under way."""
        reception = self._reception
        if reception is not None and not self._closing and reception.is_idle():
            self._end("shutting down", Reason.SHUTTING_DOWN)

    def abort(self) -> None:
        """Drops the connection."""
        if self._tls_task is not None:
            self._tls_task.cancel()
        self._transport.abort()

    # -- the session's progress ---------------------------------------------------------------------------------------

    def resume(self) -> None:
        """An answer has come that took its time."""
        self._advance()

    def _advance(self) -> None:
        """Goes on with what was received, as far as this turn allows."""
        reception = self._reception
        if reception is None or self._closing:
            return
        if self._turn_due or self._is_held():
            self._flush()
            self._pause_or_resume()
            return
        wants_tls = reception.advance(MOST_COMMANDS)
        self._flush()
        if wants_tls:
            self._begin_tls()
        elif not self._closing:
            if self._host.roster.draining:
                self.drain()
            if reception.is_behind():
                self._in_the_next_turn()
            elif self._eof and not reception.is_asked():
                self._close(True)
            self._pause_or_resume()

    def _is_held(self) -> bool:
        """Nothing is executed now: the client does not read its replies, or there is no room for records."""
        if self._logs.full:
            self._logs.when_room(self._in_the_next_turn)
            return True
        return self._writing_paused

    def _in_the_next_turn(self) -> None:
        """Goes on behind what the other clients have sent meanwhile."""
        if not self._turn_due and not self._closing:
            self._turn_due = True
            self._poller.next_turn(self._go_on)

    def _go_on(self) -> None:
        self._turn_due = False
        self._last_read = self._poller.time()  # it was us who were slow
        self._advance()

    def _flush(self) -> None:
        assert self._reception is not None
        if self._reception.is_closed():
            self._close(not self._reception.has_quit())
        elif not self._in_outbox:
            self._in_outbox = True
            self._outbox.add(self)

    def write_out(self) -> None:
        """Called by the outbox."""
        self._in_outbox = False
        if self._reception is not None:
            data = self._reception.data_to_send()
            if data:
                self._transport.write(data)

    def _pause_or_resume(self) -> None:
        reception = self._reception
        if self._closing or reception is None or self._tls_task is not None:
            return
        waits = self._turn_due or reception.is_asked()
        pause = self._writing_paused or self._logs.full or (waits and reception.buffered() > MAX_BUFFERED)
        if pause != self._reading_paused:
            self._reading_paused = pause
            if pause:
                self._transport.pause_reading()
                if self._logs.full:
                    self._logs.when_room(self._in_the_next_turn)
            else:
                self._transport.resume_reading()

    # -- TLS ----------------------------------------------------------------------------------------------------------

    def _begin_tls(self) -> None:
        self._transport.pause_reading()  # what comes next is the handshake's
        self.write_out()
        assert isinstance(self._transport, Stream)  # the session offers STARTTLS in clear only
        self._tls_task = self._poller.loop.create_task(self._start_tls(self._transport))

    async def _start_tls(self, stream: Stream) -> None:
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

    def connection_made(self, transport: Any) -> None:
        """Called by asyncio after the handshake."""
        self._tls_task = None
        self._transport = transport
        reception = self._reception
        if reception is None:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=MAX_UNSENT)
        self._page.add(_TLS_OK)
        self._last_read = self._poller.time()
        reception.tls_started(*tls.shown_names(transport.get_extra_info("cipher")))
        self._advance()

    # -- ends ------------------------------------------------------------------------------------------------------

    def _end(self, what: str, reason: Reason, enhanced: str = "4.3.2") -> None:
        assert self._reception is not None
        self._reception.end(what, reason, enhanced)
        self._flush()

    def _close(self, linger: bool) -> None:
        """Ends the connection. linger: let the last reply arrive although the client may still be sending."""
        if self._closing:
            return
        self._closing = True
        self.write_out()
        transport = self._transport
        if linger and not self._eof and isinstance(transport, Stream):
            transport.finish(LINGER)
        else:
            transport.close()
