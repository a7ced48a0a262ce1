"""One client's TCP connection: bytes between the stream and the reception, time-outs, turns, the TLS upgrade, closing.

No SMTP and no policy: those are the session's and the reception's. How a connection comes to be is arrival.py's.
"""

from __future__ import annotations

import logging

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import ListenerParams
from gateway.delivery.services import Services
from gateway.inbound.complaints import Complaints
from gateway.inbound.pace import FIRST_COMMAND, Pace
from gateway.inbound.reception import Reception
from gateway.net import tls
from gateway.net.outbox import Outbox
from gateway.net.roster import Roster
from gateway.net.streams import Poller, Protocol, Stream
from gateway.net.tls_stream import TlsStream, Transport
from gateway.smtp.conduct import SessionLimits
from gateway.smtp.foreign import KINDS
from gateway.smtp.replies import Reason

log = logging.getLogger(__name__)

MOST_COMMANDS = 32  # of one client that are executed in one turn of the event loop; the others' follow, then the next
MAX_BUFFERED = 16 * 1024  # octets of commands that may wait to be executed while more is read
MAX_UNSENT = 16 * 1024  # octets of replies that may wait for a client to read them while more commands are executed
LINGER = 2.0  # seconds a client gets to read the last reply before the connection is reset

_OPENED = metrics.CONNECTIONS_OPEN.slot()
_TLS_OK = metrics.TLS_HANDSHAKES.slot("ok")
_TLS_RESUMED = metrics.TLS_RESUMED.slot()
_TLS_FAILED = metrics.TLS_HANDSHAKES.slot("failed")
_FOREIGN = {kind: metrics.OTHER_PROTOCOLS.slot(kind) for kind in KINDS}
_SHOWN = {kind: kind.upper() for kind in KINDS} | {"proxy": "the PROXY protocol"}
_TLS_CAUSES = {cause: metrics.TLS_FAILURES.slot(cause) for cause in metrics.TLS_CAUSES}


class ConnectionHost:
    """What connections have from the listener they came to; the base of arrival's listeners."""

    def __init__(
        self, services: Services, contexts: tls.ServerContexts, roster: Roster, outbox: Outbox, poller: Poller
    ) -> None:
        self.services = services
        self.contexts = contexts
        self.roster = roster
        self.outbox = outbox
        self.poller = poller
        self.complaints = Complaints(log)
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

    def speaks_otherwise(self, kind: str, peer: str) -> None:
        """A client speaks another protocol."""
        self.services.page.add(_FOREIGN[kind])
        text = f"{peer} speaks {_SHOWN[kind]} to an SMTP listener"
        self.complaints.say(f"foreign {kind}", self.poller.time(), text)


class Connection(Protocol):
    """One connection: the protocol of its stream, in clear or under TLS."""

    def __init__(self, host: ConnectionHost, stream: Stream, params: ListenerParams) -> None:
        """Counts nothing and tells nobody: that is begin()'s."""
        self._host: ConnectionHost = host  # of what has a C type: attributes cost next to nothing
        self._poller = self._host.poller
        self._outbox = self._host.outbox
        self._page: CounterPage = self._host.services.page
        self._logs = self._host.services.logs
        self._transport: Transport = stream
        self._reception: Reception | None = None  # while the connection counts
        self._timeout: float = params.client_timeout
        self._last_read = 0.0
        self._began = 0.0
        self._shaking = False  # hands, for TLS
        self._implicit = False  # TLS began with the first octet
        self._closing = False
        self._in_outbox = False
        self._turn_due = False
        self._waits = False  # in the middle of a content: for its turn, or for room
        self._resting = False  # a reply is held back: a refusal after many
        self._pace: Pace | None = None  # while it is in the middle of something
        self._eof = False
        self._reading_paused = False
        self._writing_paused = False

    def begin(self, reception: Reception) -> None:
        """Takes the place of a connection whose stream tells this one what happens, and starts the session."""
        self._host.opened(self)
        self._reception = reception
        self._last_read = self._began = self._poller.time()
        reception.start()
        self._timeout = reception.params().client_timeout
        self._flush()

    def begin_under_tls(self, reception: Reception, received: bytes) -> None:
        """Likewise, with a handshake before it (RFC 8314 §3). received: from the client so far."""
        self._host.opened(self)
        self._reception = reception
        self._last_read = self._began = self._poller.time()
        reception.session.hold()
        self._implicit = True
        self._begin_tls()
        if received and isinstance(self._transport, TlsStream):
            self._transport.data_received(received)

    # -- called by the stream and the event loop ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        reception = self._reception
        if reception is None or self._closing:
            return
        self._last_read = self._poller.time()
        reception.receive(data)
        self._advance()

    def eof_received(self) -> bool:
        # a client may close its side while it waits for replies
        self._eof = True
        reception = self._reception
        if reception is None or self._closing:
            return False
        return reception.is_asked() or self._resting or reception.session.is_behind()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
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
        waits = reception.is_asked() or self._waits or self._resting
        if waits:
            self._last_read = now  # it is us who are being waited for
        elif now >= self._last_read + self._timeout:
            self._end("idle too long", Reason.IDLE_TIMEOUT, "4.4.2")
            return
        limits = reception.session.limits
        if limits is not None:
            self._check_pace(reception, limits, now, waits or self._reading_paused)

    def _check_pace(self, reception: Reception, limits: SessionLimits, now: float, waits: bool) -> None:
        """Ends the session of a client that dawdles."""
        session = reception.session
        verdict = None
        if not waits and not session.commands and 0 < limits.first_command_timeout <= now - self._began:
            verdict = FIRST_COMMAND
        progress = session.progress()
        if not progress[0] and (waits or not session.buffered()):
            self._pace = None
        else:
            if self._pace is None:
                self._pace = Pace()
            verdict = self._pace.look(limits, progress, now, waits) or verdict
        if verdict is not None:
            self._end(*verdict, "4.4.2")

    def drain(self) -> None:
        """Ends the session with 421 as soon as no transaction is under way."""
        reception = self._reception
        if reception is not None and not self._closing and reception.session.is_idle():
            self._end("shutting down", Reason.SHUTTING_DOWN)

    def abort(self) -> None:
        """Drops the connection."""
        self._transport.abort()

    def watch(self) -> None:
        """Others look on than before."""
        reception = self._reception
        if reception is not None:
            reception.watch(self._began)

    # -- the session's progress ---------------------------------------------------------------------------------------

    def resume(self) -> None:
        """An answer has come that took its time."""
        if self._reception is not None:
            self._timeout = self._reception.params().client_timeout
        self._advance()

    def _advance(self) -> None:
        """Goes on with what was received, as far as this turn allows."""
        reception = self._reception
        if reception is None or self._closing:
            return
        if self._resting:
            self._pause_or_resume()
            return
        if self._turn_due or self._is_held():
            self._flush()
            self._pause_or_resume()
            return
        wants_tls = reception.advance(MOST_COMMANDS)
        if reception.session.penalty > 0:
            self._rest(reception)
            return
        self._flush()
        if wants_tls:
            self._begin_tls()
        elif not self._closing:
            if self._host.roster.draining:
                self.drain()
            if reception.session.is_behind():
                self._in_the_next_turn()
            elif self._eof and not reception.is_asked():
                self._close(True)
            if reception.session.is_receiving() and not self._waits:
                self._wait_with_content(reception)
            self._pause_or_resume()

    def _rest(self, reception: Reception) -> None:
        """Holds the last reply back."""
        self._resting = True
        self._poller.call_later(reception.session.penalty, self._rested)
        reception.session.penalty = 0.0
        self._pause_or_resume()

    def _rested(self) -> None:
        self._resting = False
        if self._reception is not None and not self._closing:
            self._flush()  # before more is executed: a client that is gone is noticed by it
            self._in_the_next_turn()

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

    def _wait_with_content(self, reception: Reception) -> None:
        """After each portion of a large content, and before the first one while there is no room."""
        if reception.session.needs_room():
            self._waits = True
            self._host.services.room.wait(self._take_turn)
        elif reception.session.is_bulky():
            self._waits = True
            self._poller.turns.wait(self._take_turn)

    def _take_turn(self) -> None:
        self._waits = False
        self._pause_or_resume()

    def _flush(self) -> None:
        assert self._reception is not None
        if self._reception.session.is_over():
            if self._reception.session.foreign is not None and not self._closing:
                self._host.speaks_otherwise(self._reception.session.foreign, self._reception.peer_address())
            self._close(not self._reception.session.quit)
        elif not self._in_outbox:
            self._in_outbox = True
            self._outbox.add(self)

    def write_out(self) -> None:
        """Called by the outbox."""
        self._in_outbox = False
        if self._reception is not None and not self._resting:
            data = self._reception.data_to_send()
            if data:
                if type(self._transport) is Stream:  # called as what it is, in clear
                    stream = self._transport
                    stream.write(data)
                else:
                    self._transport.write(data)

    def _pause_or_resume(self) -> None:
        reception = self._reception
        if self._closing or reception is None or self._shaking:
            return
        pause = self._waits or self._writing_paused or self._logs.full
        if not pause and (self._turn_due or self._resting or reception.is_asked()):
            pause = reception.session.buffered() > MAX_BUFFERED
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
        self.write_out()
        self._shaking = True
        assert self._reception is not None
        assert isinstance(self._transport, Stream)  # the session offers STARTTLS in clear only
        secure = TlsStream(self._poller, self._transport, self, secured=self._secured, failed=self._not_secured)
        try:
            contexts, params = self._host.contexts, self._reception.params()
            secure.begin(contexts.context(params), self._timeout, earlier=contexts.earlier(params))
        except (OSError, ValueError) as error:  # a key that cannot be used
            self._not_secured("local", str(error))
            self._transport.abort()
        self._transport = secure

    def _secured(self) -> None:
        self._shaking = False
        reception = self._reception
        if reception is None or self._closing:
            return
        assert isinstance(self._transport, TlsStream)
        self._page.add(_TLS_OK)
        if self._transport.resumed():
            self._page.add(_TLS_RESUMED)
        self._last_read = self._poller.time()
        certificate = tls.peer_certificate(self._transport.peer_certificate())
        reception.tls_started(*tls.shown_names(self._transport.cipher()), certificate, self._implicit)
        if self._implicit:
            self._began = self._last_read
            reception.start()
            self._timeout = reception.params().client_timeout
        self._advance()

    def _not_secured(self, cause: str, text: str) -> None:
        # RFC 3207 §4.1: after a failed handshake neither side can know what the other saw, so there is no way back
        self._closing = True
        self._page.add(_TLS_FAILED)
        self._page.add(_TLS_CAUSES[cause])
        peer = ""
        if self._reception is not None:
            peer = self._reception.peer_address()
            self._reception.tls_failed(cause, text)
        text = f"TLS handshake with {peer} failed ({cause}): {text}"
        self._host.complaints.say(cause, self._poller.time(), text)

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
        self._resting = False
        self.write_out()
        if linger and not self._eof:
            self._transport.finish(LINGER)
        else:
            self._transport.close()
