"""What is known of a session, for its metadata, its trace headers and its records. Values and functions, no state."""

from __future__ import annotations

from typing import Any

from gateway.logs import records
from gateway.net.endpoints import Endpoints
from gateway.smtp.session import ServerSession
from gateway.smtp.terms import Terms
from gateway.smtp.trace import received_from, with_protocol


def known_at_first(endpoints: Endpoints, terms: Terms) -> dict[str, Any]:
    """The connection's metadata before anything was said."""
    return {
        "reception_protocol": "ESMTP",
        "received_via": endpoints.received_via,
        "received_from": endpoints.received_from,
        "hostname": terms.hostname,
        **endpoints.told,
        **terms.params.meta,
    }


def is_relay_host(session: ServerSession, endpoints: Endpoints, terms: Terms) -> bool:
    """Whether the peer may relay to anywhere; and the session is held to what such a peer is."""
    found: bool = endpoints.peer in terms.relay_hosts
    session.limit(terms.limits_of_relay_hosts if found else terms.limits)
    return found


def origin(
    session: ServerSession, endpoints: Endpoints, session_id: str, tls: tuple[str, str] | None
) -> records.Origin:
    """What records say of where something came from. tls: its protocol version and cipher."""
    version, cipher = tls or (None, None)
    return records.Origin(
        session.ehlo_name, endpoints.peer_address, session_id, tls_cipher=cipher, tls_protocol_version=version
    )


def received_start(
    session: ServerSession, endpoints: Endpoints, hostname: str, tls: tuple[str, str] | None, smtputf8: bool
) -> str:
    """What all Received headers of a session begin with. tls: its protocol version and cipher."""
    protocol = with_protocol(session.esmtp, session.tls, session.authenticated, smtputf8)
    return received_from(
        session.ehlo_name,
        endpoints.peer_address,
        hostname,
        endpoints.local_address,
        protocol,
        ":".join(tls) if tls is not None else "",
    )
