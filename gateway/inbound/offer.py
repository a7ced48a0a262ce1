"""EHLO: what a client is offered, by the listener, the fleet and the policy, and how that is said; and what it gets of
that, who asks for more than anybody may have. No state.
"""

from __future__ import annotations

from gateway.couriers.couriers import Couriers
from gateway.later import Waits
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy
from gateway.smtp import replies
from gateway.smtp.capabilities import REQUIRE_TLS, in_clear, with_fleet
from gateway.smtp.events import EhloRequested
from gateway.smtp.replies import MAIL_OK, Reply
from gateway.smtp.requests import Requests
from gateway.smtp.session import ServerSession
from gateway.smtp.terms import Terms


def as_fleet_takes(event: EhloRequested, couriers: Couriers, terms: Terms, tls: bool) -> None:
    """Of the listener's own what the fleet takes, too, and what else that can; but nothing that is withheld."""
    if event.extensions is not None:
        taken = couriers.fleet_takes()
        if taken.capabilities & REQUIRE_TLS and not tls:
            taken = taken.without(REQUIRE_TLS)
        event.extensions = with_fleet(event.extensions, taken, terms.params.withhold_extensions)


def as_policy_wants(event: EhloRequested, policy: Policy, conn: ConnMeta, tls: bool) -> Waits:
    """The policy may offer others instead; what it adds is passed on where the next hop knows it."""
    changed = yield policy.ehlo(event.name, conn, event.extensions)
    if changed is not None:
        event.extensions = changed if tls else in_clear(changed)


def said(event: EhloRequested, hostname: str) -> Reply:
    """The answer to EHLO or HELO."""
    if event.extensions is None:
        return replies.helo(hostname, event.name)
    return replies.ehlo(hostname, event.name, event.extensions)


def begun(requests: Requests, now_ns: int, is_relay_host: bool, session: ServerSession) -> Reply:
    """The answer to a MAIL that may be, and what it asks for as it is granted. now_ns: nanoseconds since 1970."""
    requests.since = now_ns / 1e9
    trusted = is_relay_host or session.authenticated
    if requests.priority is None or requests.priority <= 0 or trusted:
        return MAIL_OK
    requests.priority = 0  # RFC 6710 §4.1: nobody else goes before the others
    return replies.ORDINARY_PRIORITY
