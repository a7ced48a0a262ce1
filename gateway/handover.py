"""What a courier is given, and what it brings back: a Batch goes in, one HandOver comes out.

Values only, for those who hand over, couriers and records alike. What a fleet's answers mean for each recipient is
worked out in gateway/couriers/fleet/outcome.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from gateway._fastpath import Content
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.introduction import Introduced
from gateway.smtp.replies import Reason
from gateway.smtp.requests import Requests
from gateway.smtp.response import Response

__all__ = ["Batch", "HandOver", "RecipientOutcome", "Response", "Status"]


_NOBODY: Mapping[EnvelopeAddress, int] = {}


class Batch:
    """Recipients of one message that travel together. Not changed by a courier.

    content: sent as it is. smtputf8: the message needs SMTPUTF8 (RFC 6531) all the way. divisible: some recipients may
    be served though others are deferred, because the gateway itself tries those again. client: whose message it is, for
    next hops that want to know; None for the gateway's own. requests: what it has asked for besides, None for nothing.
    """

    def __init__(
        self,
        message_id: str,
        sender: EnvelopeAddress,
        recipients: Sequence[EnvelopeAddress],
        content: Content,
        smtputf8: bool = False,
        divisible: bool = False,
        client: Introduced | None = None,
        requests: Requests | None = None,
    ) -> None:
        self.message_id = message_id
        self.sender = sender
        self.recipients = recipients
        self.content = content
        self.smtputf8 = smtputf8
        self.divisible = divisible
        self.client = client
        self.requests = requests


class Status(Enum):
    """What became of a recipient."""

    DELIVERED = "delivered"  # the next hop took responsibility with a 2xx
    TRANSIENT = "transient"  # certainly not delivered; may be tried again
    PERMANENT = "permanent"  # certainly not delivered; refused for good
    UNKNOWN = "unknown"  # the next hop vanished with the whole message in hand (RFC 1047)
    SPOOLED = "spooled"  # the gateway's own spool has it on disk, and tries again


class RecipientOutcome:
    """One recipient's fate. `reason` is None for DELIVERED only; a TRANSIENT response is always 4xx. No courier says
    SPOOLED.
    """

    def __init__(self, recipient: EnvelopeAddress, status: Status, response: Response, reason: Reason | None) -> None:
        self.recipient = recipient
        self.status = status
        self.response = response
        self.reason = reason

    def __repr__(self) -> str:
        return f"<RecipientOutcome {self.recipient} {self.status.name} {self.response!r} {self.reason}>"


class HandOver:
    """The end of one hand-over: an outcome per recipient, in the batch's order, and where it happened.

    site: KumoMTA's ready-queue name, e.g. "unspecified->mx_list:a,b@smtp_client". protocol: "ESMTP" or "Maildir", the
    record's delivery_protocol. seconds: from submit() to here. session_id: of the upstream connection.
    source_address: "IP:PORT" the connection came from. The peer fields name the server that answered, else the last one
    that was tried; "" where none was. relayed: those whom a server took that does not know all that their client
    has asked for, and what it would have to know (smtp/capabilities.py).
    """

    def __init__(  # noqa: PLR0913, PLR0917  # all that a record tells of it
        self,
        outcomes: list[RecipientOutcome],
        site: str,
        protocol: str,
        seconds: float,
        peer_name: str = "",
        peer_address: str = "",
        session_id: str | None = None,
        source_address: str | None = None,
        tls_cipher: str | None = None,
        tls_protocol_version: str | None = None,
    ) -> None:
        self.outcomes = outcomes
        self.site = site
        self.protocol = protocol
        self.seconds = seconds
        self.peer_name = peer_name
        self.peer_address = peer_address
        self.session_id = session_id
        self.source_address = source_address
        self.tls_cipher = tls_cipher
        self.tls_protocol_version = tls_protocol_version
        self.relayed: Mapping[EnvelopeAddress, int] = _NOBODY
