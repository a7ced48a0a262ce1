"""EHLO and MAIL: what the policy offers a client instead, and what it gets of what is offered. No state."""

from __future__ import annotations

from gateway.later import Waits
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy
from gateway.smtp.capabilities import in_clear
from gateway.smtp.events import EhloRequested
from gateway.smtp.replies import MAIL_OK, ORDINARY_PRIORITY, Reply
from gateway.smtp.requests import Requests
from gateway.smtp.session import ServerSession


def as_policy_wants(event: EhloRequested, policy: Policy, conn: ConnMeta, tls: bool) -> Waits:
    """The policy may offer others instead; what it adds is passed on where the next hop knows it."""
    changed = yield policy.ehlo(event.name, conn, event.extensions)
    if changed is not None:
        event.extensions = changed if tls else in_clear(changed)


def begun(requests: Requests, now_ns: int, is_relay_host: bool, session: ServerSession) -> Reply:
    """The answer to a MAIL that may be, and what it asks for as it is granted. now_ns: nanoseconds since 1970."""
    requests.since = now_ns / 1e9
    trusted = is_relay_host or session.authenticated
    if requests.priority is None or requests.priority <= 0 or trusted:
        return MAIL_OK
    requests.priority = 0  # RFC 6710 §4.1: nobody else goes before the others
    return ORDINARY_PRIORITY
