"""Arrival: what happens to a new connection before its session: admission, the listener's terms, construction.

The stages are methods, in their order: `accepted` knows a stream and its two ends; `arrive` finds the terms, and hands
who has to name its client first to prelude.py; `introduced` knows who is there, looks whether it is welcome and makes
its session. A connection counts from the moment everything that it consists of is there; whatever fails before that is
a 421, and takes nobody's place. What happens in the session is reception.py's.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Mapping
from typing import Any

from gateway import metrics
from gateway.config import Listener
from gateway.delivery.services import Services
from gateway.inbound import prelude, refusals
from gateway.inbound.allowance import allowance_of
from gateway.inbound.connection import LINGER, MAX_UNSENT, Connection, ConnectionHost
from gateway.inbound.reception import Reception
from gateway.net import tls
from gateway.net.endpoints import Endpoints
from gateway.net.outbox import Outbox
from gateway.net.roster import Roster
from gateway.net.streams import Poller, Protocol, Stream
from gateway.policy import events
from gateway.policy.listener import TermsTable
from gateway.smtp import replies
from gateway.smtp.replies import Reason, Reply
from gateway.smtp.session import NO_COMMAND
from gateway.smtp.terms import Terms

log = logging.getLogger(__name__)

_OPENED = metrics.CONNECTIONS_OPENED.slot()


class ListenerHost(ConnectionHost):
    """One listener in its worker: takes its connections on, or turns them away.

    bound_to: the socket address it listens on. max_connections: how many may be open at a time.
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
        super().__init__(services, contexts, roster, outbox, poller)
        # of all connections; None where each may have another
        self._bound_to = None if ipaddress.ip_address(bound_to[0].partition("%")[0]).is_unspecified else bound_to
        self._terms_table = TermsTable(listener, offer_auth=events.AUTH_PLAIN in services.policy.handles)
        self._same_for_all: Terms | None = self._terms_table.same_for_all
        self._hostname: str = listener.overrides.get("hostname") or os.uname().nodename
        self.max_connections = max_connections
        self.arrived = self.refused = 0  # connections so far
        self.awaited = 0  # connections that have yet to name their client

    @property
    def messages(self) -> int:
        """Received completely, so far."""
        return self._terms_table.count.messages

    def accepted(self, stream: Stream) -> None:
        """A client has connected."""
        self.services.page.add(_OPENED)
        self.arrived += 1
        try:
            endpoints = Endpoints(stream.peer, self._bound_to or stream.local_address())
        except Exception:
            self._give_up(stream, "")
            return
        self.arrive(stream, endpoints)

    def arrive(self, stream: Stream, endpoints: Endpoints) -> None:
        """It is known who is connected to us."""
        try:
            terms = self._same_for_all or self.terms_for(endpoints)
            refusal = self.admission(terms.hostname) if terms.begins_otherwise else None
            if terms.begins_otherwise and refusal is None and not prelude.begin(self, stream, endpoints, terms.params):
                return
        except Exception:
            self._give_up(stream, endpoints.peer_address)
            return
        if refusal is None:
            self.introduced(stream, endpoints, terms, b"")
        else:
            self._turn_away(stream, refusal, endpoints.peer_address, terms.params.meta)

    def terms_for(self, endpoints: Endpoints) -> Terms:
        """The terms of a client at these ends."""
        return self._terms_table.terms_for(endpoints.peer_address, endpoints.local_address)

    def introduced(self, stream: Stream, endpoints: Endpoints, terms: Terms, received: bytes) -> None:
        """It is known who talks to whom. received: from the client so far."""
        allowance = None
        try:
            refusal = self.admission(terms.hostname)
            if refusal is None:
                allowance = allowance_of(self.services, terms, endpoints)
                refusal = None if allowance is None else allowance.connect()
            if refusal is None:
                connection = Connection(self, stream, terms.params)
                reception = Reception(self.services, self._terms_table, terms, endpoints, connection.resume)
                reception.hold_to(allowance)
                stream.set_write_buffer_limits(MAX_UNSENT)
                stream.set_protocol(connection)  # from here on it hears of the end
        except Exception:
            if allowance is not None:
                allowance.disconnect()
            self._give_up(stream, endpoints.peer_address)
            return
        if refusal is None:
            if terms.implicit_tls:
                connection.begin_under_tls(reception, received)
                return
            connection.begin(reception)
            if received:
                connection.data_received(received)
        else:
            told = allowance is None or allowance.refused(NO_COMMAND, refusal)
            if terms.implicit_tls:
                stream.abort()  # nothing that is said in clear would be understood
            self._turn_away(stream, refusal, endpoints.peer_address, terms.params.meta, told)

    def admission(self, hostname: str) -> Reply | None:
        """None where a new connection is welcome, else the reply that turns it away."""
        if self.open + self.awaited >= self.max_connections:
            what = "too many concurrent sessions. Try later"
            return replies.closing(hostname, what, Reason.TOO_MANY_CONNECTIONS)
        if self.services.logs.disk_problem is not None:
            return replies.closing(hostname, "disk is too full. Try later", Reason.STORAGE)
        return None

    def _give_up(self, stream: Stream, peer_address: str) -> None:
        """Our own fault, told where an exception is being handled."""
        log.exception("no session for a client: internal error")
        self._turn_away(stream, replies.technical_difficulties(self._hostname, Reason.INTERNAL_ERROR), peer_address, {})

    def _turn_away(
        self, stream: Stream, refusal: Reply, peer_address: str, meta: Mapping[str, Any], told: bool = True
    ) -> None:
        self.refused += 1
        stream.set_protocol(_TURNED_AWAY)
        stream.write(refusal.wire)
        stream.finish(LINGER)
        refusals.turned_away(self.services, refusal, peer_address, meta, told)


class _TurnedAway(Protocol):
    """Who was turned away may say and do what it wants: all of it is dropped."""

    def data_received(self, data: bytes) -> None:
        pass

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        pass

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass


_TURNED_AWAY = _TurnedAway()
