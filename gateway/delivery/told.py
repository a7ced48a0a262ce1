"""Of whom a sender is told, by what it has asked for (RFC 3461), and how a notification puts that. Pure.

When one is sent, and which way, is notifying.py's and redelivery.py's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gateway.couriers.spool.kept import Envelope
from gateway.handover import HandOver, RecipientOutcome, Status
from gateway.logs import identity
from gateway.logs.records import Origin
from gateway.mail.message import Message
from gateway.mail.notification import Action, Concerned, notification
from gateway.smtp.address import NULL_SENDER, EnvelopeAddress
from gateway.smtp.capabilities import DELIVER_BY, DSN
from gateway.smtp.requests import Requests, decoded

_FAILED = (Action.REFUSED, Action.EXPIRED)
MOST_RETURNED = 1 << 20  # octets of a message that RET=FULL returns; of a larger one its header comes back


def failures(requests: Requests | None, outcomes: Iterable[RecipientOutcome]) -> list[RecipientOutcome]:
    """Those of them, all failed for good, of whom the sender wants to know: where it says nothing, of all."""
    return [each for each in outcomes if requests is None or requests.of(each.recipient).wants("FAILURE")]


def successes(requests: Requests | None, result: HandOver) -> dict[Action, list[RecipientOutcome]]:
    """Those who have the message, and of whom nobody else tells the sender that it wants to know: RFC 3461 §5.2.2."""
    if requests is None:
        return {}
    found: dict[Action, list[RecipientOutcome]] = {}
    for each in result.outcomes:
        if each.status is Status.DELIVERED:
            action = _action(requests, each.recipient, result)
            if action is not None:
                found.setdefault(action, []).append(each)
    return found


def _action(requests: Requests, recipient: EnvelopeAddress, result: HandOver) -> Action | None:
    asked = requests.of(recipient)
    if result.protocol == "Maildir":
        return Action.DELIVERED if asked.wants("SUCCESS") else None
    left_out = result.relayed.get(recipient, 0)
    if left_out & DSN and asked.wants("SUCCESS"):
        return Action.RELAYED
    if requests.by is None or asked.notify == "NEVER":
        return None
    if left_out & DELIVER_BY:
        return Action.UNTIMED
    return Action.TRACED if requests.by.traced else None


def delayed(requests: Requests | None, outcomes: Iterable[RecipientOutcome], now: float) -> list[RecipientOutcome]:
    """Those of them, all to be tried again, of whom the sender has to know that their time is over: RFC 2852 §4.

    now: unix time. Nobody is told twice.
    """
    if requests is None or not requests.is_too_late(now):
        return []
    requests.late = True
    found = []
    for each in outcomes:
        asked = requests.of(each.recipient)
        if asked.notify is None or asked.wants("DELAY"):
            found.append(each)
    return found


def returns_at(requests: Requests | None) -> float:
    """When the message is to come back, whatever its queue says; unix time, infinity for never."""
    return math.inf if requests is None else requests.returns_at()


def told_at(requests: Requests | None) -> float:
    """When the sender has to know that the message was not delivered yet; likewise."""
    return math.inf if requests is None or requests.late else requests.until()


def _deliver_by(requests: Requests | None) -> int | None:
    """Deliver-By-Date as a field has it (RFC 2852 §5), unix time; None without one."""
    return None if requests is None or requests.by is None else int(requests.until())


def _of_notification(requests: Requests | None) -> Requests | None:
    """What holds for what its sender is told, too."""
    return None if requests is None else requests.of_notification()


def concerned(
    outcomes: Iterable[RecipientOutcome],
    given: Sequence[EnvelopeAddress],
    by: HandOver,
    requests: Requests | None,
) -> list[Concerned]:
    """These as a notification has them. given: the recipients as the client named them, as far as is known."""
    found = []
    for outcome in outcomes:
        original: EnvelopeAddress | None = None  # unknown where the policy put others in the place of several
        if outcome.recipient in given:
            original = outcome.recipient
        elif len(given) == 1:
            original = given[0]
        asked = None if requests is None else requests.of(outcome.recipient).original()
        found.append(Concerned(outcome, original, by, asked))
    return found


def notification_of(
    message: Message,
    hostname: str,
    origin: Origin,
    about: list[Concerned],
    action: Action,
    requests: Requests | None,
    now_ns: int,
) -> tuple[Envelope, Message]:
    """A notification to a message's sender, with its envelope for the spool.

    hostname: ours. origin: of the message. about: some of its recipients, and what became of all of them: action.
    requests: what its client has asked for with them. now_ns: nanoseconds since 1970.
    """
    now, sender = now_ns / 1e9, message.sender
    id = identity.new_message_id(now_ns)
    data = notification(
        id,
        hostname,
        sender,
        about,
        message.header_block(),
        arrived=int(message.received_at),
        now=now_ns // 1_000_000_000,
        action=action,
        envid=_envid(requests),
        deliver_by=_deliver_by(requests),
        whole=_returned(requests, message) if action in _FAILED else None,
    )
    envelope = Envelope(
        id=id,
        sender=NULL_SENDER,
        recipients=[sender],
        given=None,
        meta={},
        origin=origin,
        smtputf8=not sender.email.isascii(),
        hostname=hostname,
        received_at=now,
        requests=_of_notification(requests),
    )
    return envelope, Message(id, NULL_SENDER, [sender], data=data, received_at=now)


def _envid(requests: Requests | None) -> str | None:
    """ENVID as a field has it (RFC 3464 §2.2.1)."""
    return None if requests is None or requests.envid is None else decoded(requests.envid)


def _returned(requests: Requests | None, message: Message) -> bytes | None:
    """The message, where RET wants all of it back: RFC 3461 §4.3; but for those that travel by TLS (RFC 8689 §5)."""
    if (
        requests is None
        or requests.ret != "FULL"
        or requests.require_tls
        or requests.binary
        or message.size > MOST_RETURNED
    ):
        return None
    return message.data()
