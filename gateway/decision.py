"""The decision: may this recipient be accepted, and what becomes of the message once its content is known.

Pure functions over listener domains; asking the policy for them is the caller's business. The tables are those of
docs/policy.md. Relaying is denied unless something grants it.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from gateway.config import Disposition, ListenerDomain


class Decision:
    """What one recipient was accepted for at RCPT.

    takes_reports: whether the content has to be looked at for a report. recipient_class: recipients of one
    transaction must agree in this, so that one reply after the data is true for all of them. A relayed recipient can
    take any content. One that was accepted for reports only can take just the kinds it logs; with another such
    recipient that logs other kinds, some content would be right for one and wrong for the other.
    """

    def __init__(self, relay: bool, log_oob: Disposition, log_arf: Disposition) -> None:
        self.relay = relay
        self.log_oob = log_oob
        self.log_arf = log_arf
        oob, arf = log_oob is not Disposition.IGNORE, log_arf is not Disposition.IGNORE
        self.takes_reports = oob or arf
        self.recipient_class = (True, True, True) if relay else (False, oob, arf)


RELAY = Decision(True, Disposition.IGNORE, Disposition.IGNORE)


class Ground(Enum):
    """What a decision at RCPT rests on: the first of these that holds, in the order in which they are looked at."""

    RELAY_HOSTS = "relay_hosts"  # the peer is one of the listener's
    RELAY_TO = "relay_to"  # the recipient's domain takes mail from anybody
    RELAY_FROM = "relay_from"  # the sender's domain names the peer
    REPORTS = "reports"  # the recipient's domain takes reports; relaying is not granted
    NOTHING = "nothing"  # it refuses


class ReportKind(Enum):
    """What a message's content is, where it is a report."""

    OOB = "oob"  # an out-of-band bounce, RFC 3464
    ARF = "arf"  # a feedback report, RFC 5965


class Fate(NamedTuple):
    """What happens to a message for one recipient after the data."""

    relay: bool
    log: ReportKind | None


def sender_matters(relay_host: bool, recipient: ListenerDomain | None) -> bool:
    """Whether what the sender's domain grants makes a difference, so that it has to be asked for."""
    return not relay_host and (recipient is None or not recipient.relay_to)


def grants_anybody(domain: ListenerDomain | None) -> bool:
    """Whether mail for a domain is taken from whoever sends it."""
    return domain is not None and (domain.relay_to or domain.takes_reports)


def decide(
    relay_host: bool, peer: bytes, recipient: ListenerDomain | None, sender: ListenerDomain | None
) -> Decision | None:
    """The decision at RCPT; None refuses the recipient.

    relay_host: whether the peer is one of the listener's relay_hosts. peer: its packed address. recipient, sender: what
    is granted for their domains; the sender's may be left out where it does not matter.
    """
    relay = not sender_matters(relay_host, recipient) or (sender is not None and peer in sender.relay_from)
    if recipient is not None and recipient.takes_reports:
        return Decision(relay, recipient.log_oob, recipient.log_arf)
    return RELAY if relay else None


def ground(relay_host: bool, peer: bytes, recipient: ListenerDomain | None, sender: ListenerDomain | None) -> Ground:
    """What `decide` rests on, for those who ask why. The parameters are the same."""
    if relay_host:
        return Ground.RELAY_HOSTS
    if recipient is not None and recipient.relay_to:
        return Ground.RELAY_TO
    if sender is not None and peer in sender.relay_from:
        return Ground.RELAY_FROM
    return Ground.REPORTS if recipient is not None and recipient.takes_reports else Ground.NOTHING


_RELAYED = Fate(True, None)


def fate(decision: Decision, kind: ReportKind | None) -> Fate | None:
    """What happens to a message whose content is a report of this kind (None: no report); None refuses it.

    `true` logs and relays only where relaying is granted anyway, LogThenRelay always relays, LogThenDrop never does.
    """
    if kind is not None:
        disposition = decision.log_arf if kind is ReportKind.ARF else decision.log_oob
        if disposition is not Disposition.IGNORE:
            relay = disposition is Disposition.LOG_THEN_RELAY or (disposition is Disposition.LOG and decision.relay)
            return Fate(relay, kind)
    return _RELAYED if decision.relay else None
