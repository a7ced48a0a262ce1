"""What a message's client has asked for beyond delivery, and a member cannot do: such a member is not sent to. Pure.

What may be left out without harm is gateway/smtp/requests.py's, and told to the sender by gateway/delivery/told.py.
"""

from __future__ import annotations

from gateway.smtp import replies
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.capabilities import BINARY, DELIVER_BY, REQUIRE_TLS, VERIFIED_TLS, Abilities
from gateway.smtp.replies import Reply
from gateway.smtp.requests import Requests


def obstacle(requests: Requests, sender: EnvelopeAddress, takes: Abilities, now: float) -> Reply | None:
    """Why the message may not be sent to this server; None where it may. takes: what it announced. now: unix time.

    A notification that is to be protected is not lost for it (RFC 8689 §5).
    """
    if requests.require_tls and sender.email and not takes.capabilities & REQUIRE_TLS:
        if not takes.capabilities & VERIFIED_TLS:
            return replies.UPSTREAM_WITHOUT_TLS
        return replies.UPSTREAM_WITHOUT_REQUIRETLS
    if requests.binary and not takes.capabilities & BINARY:
        return replies.UPSTREAM_WITHOUT_BINARYMIME
    if requests.by is not None and requests.by.returns:
        left = requests.returns_at() - now
        if left <= 0:
            return replies.TIME_IS_OVER
        if not takes.capabilities & DELIVER_BY:  # it would not come back (RFC 2852 §4.2)
            return replies.UPSTREAM_WITHOUT_DELIVERBY
        if left < takes.least_time:
            return replies.TIME_IS_OVER
    return None
