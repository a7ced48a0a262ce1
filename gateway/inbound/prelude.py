"""The prelude of a connection: a proxy names its client (PROXY protocol) before anything else is said.

It is the stream's protocol until then, and has a place on the roster, so that it cannot last. Octets are
net/proxy_protocol.py's; who it turned out to be, and what comes next, is arrival.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import metrics
from gateway.config import ListenerParams
from gateway.net.endpoints import Endpoints
from gateway.net.proxy_protocol import Header, HeaderReader, NoHeader
from gateway.net.streams import Protocol, Stream

if TYPE_CHECKING:
    from gateway.inbound.arrival import ListenerHost

PATIENCE = 10.0  # seconds; a proxy knows its client when it connects

_RESULTS = {result: metrics.PROXY_HEADERS.slot(result) for result in metrics.PROXY_RESULTS}
_WHY = {
    "missing": "it began with something else",
    "malformed": "it was malformed",
    "late": "it did not come in time",
    "untrusted": "the peer is not in proxy_protocol_from",
}


def begin(host: ListenerHost, stream: Stream, endpoints: Endpoints, params: ListenerParams) -> bool:
    """Sees to a connection that may have to begin with a PROXY header. True: it has not; else it is the prelude's."""
    trusted = params.proxy_protocol_from
    if trusted is None or endpoints.peer in trusted:
        if params.require_proxy_protocol or trusted is not None:
            _AwaitedHeader(host, stream, endpoints).begin(min(PATIENCE, params.client_timeout))
            return False
    elif params.require_proxy_protocol:
        _tell(host, "untrusted", endpoints)
        stream.abort()
        return False
    return True


def _tell(host: ListenerHost, fault: str, endpoints: Endpoints) -> None:
    host.services.page.add(_RESULTS[fault])
    if fault in _WHY:  # a proxy that only looks whether the port is open is no trouble
        text = f"no PROXY header from {endpoints.received_from}: {_WHY[fault]}"
        host.complaints.say(f"proxy {fault}", host.poller.time(), text)


class _AwaitedHeader(Protocol):
    """One connection whose header is not complete."""

    def __init__(self, host: ListenerHost, stream: Stream, endpoints: Endpoints) -> None:
        self._host = host
        self._stream = stream
        self._endpoints = endpoints
        self._reader = HeaderReader()
        self._until = 0.0
        self._over = False

    def begin(self, patience: float) -> None:
        """From here on it hears of the stream. patience: seconds."""
        self._until = self._host.poller.time() + patience
        self._stream.set_protocol(self)
        self._host.awaited += 1
        self._host.roster.add(self)

    # -- called by the stream ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        try:
            header = self._reader.feed(data)
        except NoHeader as error:
            self._fail(error.fault)
            return
        if header is not None:
            self._end()
            self._go_on(header)

    def eof_received(self) -> bool:
        self._fail("closed")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("closed")

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    # -- called by the worker ------------------------------------------------------------------------------------------

    def check_idle(self, now: float) -> None:
        """Ends it where the header is late. now: on the event loop's clock."""
        if now >= self._until:
            self._fail("late")

    def drain(self) -> None:
        """Nobody has been greeted: the client may go elsewhere."""
        self.abort()

    def abort(self) -> None:
        """Drops it."""
        self._end()
        self._stream.abort()

    def watch(self) -> None:
        """There is no session to be watched yet."""

    # -- ends ----------------------------------------------------------------------------------------------------------

    def _go_on(self, header: Header) -> None:
        host = self._host
        named = header.client is not None
        host.services.page.add(_RESULTS["client" if named else "proxy"])
        endpoints = self._endpoints.behind(header.client, header.server, header.told, known=named)
        host.introduced(self._stream, endpoints, host.terms_for(endpoints), header.rest)

    def _fail(self, fault: str) -> None:
        if not self._over:
            _tell(self._host, fault, self._endpoints)
            self.abort()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._host.awaited -= 1
            self._host.roster.remove(self)
