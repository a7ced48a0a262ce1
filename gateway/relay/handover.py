"""The values that a message passes through the relay in: a Batch goes in, one HandOver comes out.

No behaviour beyond reading them. What becomes of each recipient is worked out in gateway/relay/outcome.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from gateway.config import Maildir, SmtpFleet
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.replies import Reason
from gateway.smtp.response import Response

__all__ = ["Batch", "Done", "HandOver", "RecipientOutcome", "Response", "Status", "site_name"]


@dataclass(slots=True)
class Batch:
    """Recipients of one message that travel together. Not changed by the relay.

    chunks: the content, dot-stuffed, ending with CRLF, without the final "." line; sent as it is.
    size: octets of the content before stuffing. smtputf8: the message needs SMTPUTF8 (RFC 6531) all the way.
    """

    message_id: str
    sender: EnvelopeAddress
    recipients: Sequence[EnvelopeAddress]
    chunks: Sequence[bytes]
    size: int
    eight_bit: bool = False
    smtputf8: bool = False


class Status(Enum):
    """What became of a recipient."""

    DELIVERED = "delivered"  # the next hop took responsibility with a 2xx
    TRANSIENT = "transient"  # certainly not delivered; may be tried again
    PERMANENT = "permanent"  # certainly not delivered; refused for good
    UNKNOWN = "unknown"  # the next hop vanished with the whole message in hand (RFC 1047)


@dataclass(slots=True)
class RecipientOutcome:
    """One recipient's fate. `reason` is None for DELIVERED only; a TRANSIENT response is always 4xx."""

    recipient: EnvelopeAddress
    status: Status
    response: Response
    reason: Reason | None


@dataclass(slots=True)
class HandOver:
    """The end of one hand-over: an outcome per recipient, in the batch's order, and where it happened.

    The peer fields name the server that answered, else the last one that was tried; "" where none was.
    """

    outcomes: list[RecipientOutcome]
    site: str  # KumoMTA's ready-queue name, e.g. "unspecified->mx_list:a,b@smtp_client"
    protocol: str  # "ESMTP" or "Maildir", the record's delivery_protocol
    seconds: float  # from hand_over() to here
    peer_name: str = ""
    peer_address: str = ""  # IP address
    session_id: str | None = None  # of the upstream connection
    source_address: str | None = None  # "IP:PORT" the connection came from
    tls_cipher: str | None = None
    tls_protocol_version: str | None = None


Done = Callable[[HandOver], None]


def site_name(protocol: SmtpFleet | Maildir) -> str:
    """What `get_egress_path_config` gets as its `site_name`, in KumoMTA's spelling."""
    if isinstance(protocol, Maildir):
        return f"maildir:{protocol.path}"
    return "mx_list:" + ",".join(host.name for host in protocol.mx_list)
