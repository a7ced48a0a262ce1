"""EHLO: what a client is offered, by the listener, the fleet and the policy, and how that is said. No state."""

from __future__ import annotations

from gateway.couriers.couriers import Couriers
from gateway.later import Waits
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy
from gateway.smtp import replies
from gateway.smtp.capabilities import lines
from gateway.smtp.events import EhloRequested
from gateway.smtp.replies import Reply


def add_those_of_fleet(event: EhloRequested, couriers: Couriers) -> None:
    """What the fleet takes is offered besides what is the listener's own."""
    capabilities = couriers.capabilities()
    if capabilities and event.extensions is not None:
        event.extensions += lines(capabilities)


def as_policy_wants(event: EhloRequested, policy: Policy, conn: ConnMeta) -> Waits:
    """The policy may offer others instead; what it adds is passed on where the next hop knows it."""
    changed = yield policy.ehlo(event.name, conn, event.extensions)
    if changed is not None:
        event.extensions = changed


def said(event: EhloRequested, hostname: str) -> Reply:
    """The answer to EHLO or HELO."""
    if event.extensions is None:
        return replies.helo(hostname, event.name)
    return replies.ehlo(hostname, event.name, event.extensions)
