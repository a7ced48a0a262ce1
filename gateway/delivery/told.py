"""Of whom a sender is told, by what it has asked for (RFC 3461), and how a notification puts that. Pure.

When one is sent, and which way, is notifying.py's and redelivery.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.handover import HandOver, RecipientOutcome, Status
from gateway.mail.message import Message
from gateway.mail.notification import Action, Concerned
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.requests import Requests, decoded

MOST_RETURNED = 1 << 20  # octets of a message that RET=FULL returns; of a larger one its header comes back


def failures(requests: Requests | None, outcomes: Iterable[RecipientOutcome]) -> list[RecipientOutcome]:
    """Those of them, all failed for good, of whom the sender wants to know: where it says nothing, of all."""
    return [each for each in outcomes if requests is None or requests.of(each.recipient).wants("FAILURE")]


def successes(requests: Requests | None, result: HandOver) -> dict[Action, list[RecipientOutcome]]:
    """Those who have the message, and of whom nobody else tells the sender that it wants to know: RFC 3461 §5.2.2."""
    if requests is None:
        return {}
    action = Action.DELIVERED if result.protocol == "Maildir" else Action.RELAYED
    found = [
        each
        for each in result.outcomes
        if each.status is Status.DELIVERED
        and requests.of(each.recipient).wants("SUCCESS")
        and (action is Action.DELIVERED or each.recipient in result.relayed)
    ]
    return {action: found} if found else {}


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


def envid(requests: Requests | None) -> str | None:
    """ENVID as a field has it (RFC 3464 §2.2.1)."""
    return None if requests is None or requests.envid is None else decoded(requests.envid)


def returned(requests: Requests | None, message: Message) -> bytes | None:
    """The message, where RET wants all of it back: RFC 3461 §4.3."""
    if requests is None or requests.ret != "FULL" or message.size > MOST_RETURNED:
        return None
    return message.data()
