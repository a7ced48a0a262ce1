"""What the spool keeps of a message beside its content, as values and as octets. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from gateway._fastpath import Content, ContentStore, content_of
from gateway.handover import Response
from gateway.logs.encoding import to_json
from gateway.logs.records import Origin
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.requests import Requests, from_values

_OF_ORIGIN = (
    "peer_name", "peer_address", "session_id", "protocol", "tls_cipher", "tls_protocol_version",
    "tls_peer_subject_name",
)  # fmt: skip


class Envelope:
    """A message's envelope and where it came from.

    recipients: those who do not have it yet. given: as the client named them, None where that is not known. hostname:
    ours, in notifications. received_at: unix time. last: what was said last. requests: what the client asked for with
    its recipients, None for nothing. open_end: see Content. deferred: attempts in which the fleet put it off, or the
    outcome was unknown; those in which the fleet could not be reached say nothing of the message.
    """

    def __init__(  # noqa: PLR0913  # all that is kept
        self,
        *,
        id: str,
        sender: EnvelopeAddress,
        recipients: list[EnvelopeAddress],
        given: list[EnvelopeAddress] | None,
        meta: dict[str, Any],
        origin: Origin,
        smtputf8: bool,
        hostname: str,
        received_at: float,
        last: Response | None = None,
        requests: Requests | None = None,
        open_end: bool = False,
        deferred: int = 0,
    ) -> None:
        self.id = id
        self.sender = sender
        self.recipients = recipients
        self.given = given
        self.meta = meta
        self.origin = origin
        self.smtputf8 = smtputf8
        self.hostname = hostname
        self.received_at = received_at
        self.last = last
        self.requests = requests
        self.open_end = open_end
        self.deferred = deferred

    def content(self, octets: bytes, store: ContentStore | None = None) -> Content:
        """The message's content. octets: as the spool keeps it. store: see content_of()."""
        content = content_of(octets, store)
        if self.requests is not None and self.requests.binary:
            content.mark_binary(self.open_end)
        return content

    def encoded(self) -> bytes:
        """As octets."""
        last, requests = self.last, self.requests
        return to_json(
            {
                "id": self.id,
                "sender": _pair(self.sender),
                "recipients": [_pair(each) for each in self.recipients],
                "given": None if self.given is None else [_pair(each) for each in self.given],
                "meta": self.meta,
                "origin": _told(self.origin),
                "smtputf8": self.smtputf8,
                "hostname": self.hostname,
                "received_at": self.received_at,
                "last": None if last is None else [last.code, last.enhanced, last.content, last.command],
                **({} if requests is None else {"requests": requests.as_values()}),
                **({"open_end": True} if self.open_end else {}),
                **({"deferred": self.deferred} if self.deferred else {}),
            }
        )

    def shown(self) -> dict[str, Any]:
        """For people and their programs: addresses as text, everything by name."""
        return {
            "id": self.id,
            "sender": self.sender.email,
            "recipients": [each.email for each in self.recipients],
            "given": None if self.given is None else [each.email for each in self.given],
            "meta": self.meta,
            "origin": dict(zip(_OF_ORIGIN, _told(self.origin), strict=True)),
            "smtputf8": self.smtputf8,
            "hostname": self.hostname,
            "requests": None if self.requests is None else self.requests.as_values(),
            "deferred": self.deferred,
        }

    @classmethod
    def decoded(cls, octets: bytes) -> Envelope:
        """What encoded() was made of."""
        read = json.loads(octets)
        name, address, session_id, *others = read["origin"]
        return cls(
            id=read["id"],
            sender=EnvelopeAddress(*read["sender"]),
            recipients=[EnvelopeAddress(*each) for each in read["recipients"]],
            given=None if read["given"] is None else [EnvelopeAddress(*each) for each in read["given"]],
            meta=read["meta"],
            origin=Origin(name, address, session_id, **dict(zip(_OF_ORIGIN[3:], others, strict=True))),
            smtputf8=read["smtputf8"],
            hostname=read["hostname"],
            received_at=read["received_at"],
            last=None if read["last"] is None else Response(*read["last"]),
            requests=from_values(read.get("requests")),  # what was spooled before there were any has none
            open_end=read.get("open_end", False),
            deferred=read.get("deferred", 0),
        )


def legible(octets: bytes) -> Envelope | None:
    """What can be made out of octets that may be damaged."""
    try:
        return Envelope.decoded(octets)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class ToKeep:
    """A message that is to be spooled, for some of its recipients.

    queue, site: where it was to go, as records name it. due: when it is tried again, None for as soon as its site
    is back. expires: both unix times. attempts: how often it was tried.
    """

    def __init__(
        self,
        envelope: Envelope,
        content: Content,
        *,
        queue: str,
        site: str,
        due: float | None,
        expires: float,
        attempts: int = 1,
    ) -> None:
        self.envelope = envelope
        self.content = content
        self.queue = queue
        self.site = site
        self.due = due
        self.expires = expires
        self.attempts = attempts


_told: Callable[[Origin], tuple[Any, ...]] = attrgetter(*_OF_ORIGIN)


def _pair(address: EnvelopeAddress) -> tuple[str, str]:
    return address.email, address.domain
