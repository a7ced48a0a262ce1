"""What is known of a session, for its metadata, its trace headers and its records. Values and functions, no state."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.logs import records
from gateway.net.endpoints import Endpoints
from gateway.net.tls import PeerCertificate
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


class Secured(NamedTuple):
    """What is known of a session's TLS. version, cipher: as KumoMTA spells them. certificate: the client's."""

    version: str
    cipher: str
    certificate: PeerCertificate | None = None
    implicit: bool = False


def known_of_tls(tls: Secured) -> dict[str, Any]:
    """What the metadata says of it."""
    known: dict[str, Any] = {"tls_cipher": tls.cipher, "tls_protocol_version": tls.version}
    if tls.implicit:
        known["tls_implicit"] = True
    if tls.certificate is not None:
        known["tls_peer_subject_name"] = list(tls.certificate.subject)
        known["tls_peer_fingerprint"] = tls.certificate.fingerprint
    return known


def limited_as_relay_host(session: ServerSession, endpoints: Endpoints, terms: Terms) -> bool:
    """Holds the session to the limits of what its peer is. Returns whether that may relay to anywhere."""
    found: bool = endpoints.peer in terms.relay_hosts
    session.limit(terms.limits_of_relay_hosts if found else terms.limits)
    return found


def origin(session: ServerSession, endpoints: Endpoints, session_id: str, tls: Secured | None) -> records.Origin:
    """What records say of where something came from."""
    if tls is None:
        return records.Origin(session.ehlo_name, endpoints.peer_address, session_id)
    subject = () if tls.certificate is None else tls.certificate.subject
    return records.Origin(
        *(session.ehlo_name, endpoints.peer_address, session_id),
        tls_cipher=tls.cipher,
        tls_protocol_version=tls.version,
        tls_peer_subject_name=subject,
    )


def received_start(
    session: ServerSession, endpoints: Endpoints, hostname: str, tls: Secured | None, smtputf8: bool
) -> str:
    """What all Received headers of a session begin with."""
    protocol = with_protocol(session.esmtp, session.tls, session.authenticated, smtputf8)
    return received_from(
        session.ehlo_name,
        endpoints.peer_address,
        hostname,
        endpoints.local_address,
        protocol,
        ":".join(tls[:2]) if tls is not None else "",
    )
