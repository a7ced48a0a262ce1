"""Telling senders whom the fleet refused while others were served, or who was, where they want to know: who is told, by
which way, and what came of it.

A notification is handed over before the client gets its 250; where it is not taken for now it goes into the spool, and
without one it is not tried again. What it says is notification.py's business.
"""

from __future__ import annotations

import logging

from gateway import metrics
from gateway.config import PartialRefusal
from gateway.delivery.redelivery import to_keep
from gateway.delivery.routing import Delivery
from gateway.delivery.services import Services
from gateway.delivery.told import concerned, failures, notification_of, successes
from gateway.handover import Batch, RecipientOutcome, Status
from gateway.later import Waits
from gateway.logs.records import Origin
from gateway.mail.notification import Action, Concerned, Notice
from gateway.policy.problems import PolicyError, Rejected
from gateway.smtp.address import NULL_SENDER

log = logging.getLogger(__name__)

_RESULTS = {
    result: metrics.NOTIFICATIONS.slot(result)
    for result in ("sent", "spooled", "failed", "null_sender", "record", "unwanted")
}


def tell_senders(
    services: Services,
    hostname: str,
    origin: Origin,
    deliveries: list[Delivery],
    deadline: float,
) -> Waits:
    """Tells each sender whom the fleet refused, and notes with each delivery what came of it.

    Returns whether all of them know.

    origin: of the refused messages. deliveries: all of a transaction, handed over. deadline: on the clock of the
    event loop.
    """
    due: dict[str, list[Delivery]] = {}
    told = True
    for delivery in deliveries:
        refused = _refused(delivery)
        if not refused:
            continue
        wanted = failures(delivery.requests, refused)
        sender = delivery.message.sender.email
        if not sender:  # RFC 5321 §4.5.5: nobody is notified of a notification
            _note(services, [delivery], Notice("null_sender"))
            told = False
        elif delivery.destination.queue.on_partial_refusal is PartialRefusal.RECORD:
            _note(services, [delivery], Notice("record"))
            told = False
        elif not wanted:
            _note(services, [delivery], Notice("unwanted"))
            told = False
        else:
            due.setdefault(sender, []).append(delivery)
            told = told and len(wanted) == len(refused)
    way = _Way(services, hostname, origin, deadline)
    for about in due.values():
        notice = yield from way.tell(about, _concerned(about), Action.REFUSED)
        _note(services, about, notice)
        told = told and notice.result in ("sent", "spooled")
    return told


def tell_of_success(
    services: Services,
    hostname: str,
    origin: Origin,
    deliveries: list[Delivery],
    deadline: float,
) -> Waits:
    """Tells each sender of those who have its message, where it wants to know and the next hop does not tell it.

    The arguments are those of tell_senders().
    """
    due: dict[tuple[str, Action], list[tuple[Delivery, list[Concerned]]]] = {}
    for delivery in deliveries:
        sender = delivery.message.sender.email
        if delivery.result is None or not sender:
            continue
        for action, outcomes in successes(delivery.requests, delivery.result).items():
            about = concerned(outcomes, delivery.given, delivery.result, delivery.requests)
            due.setdefault((sender, action), []).append((delivery, about))
    way = _Way(services, hostname, origin, deadline)
    for (_, action), found in due.items():
        those = [each for _, about in found for each in about]
        notice = yield from way.tell([delivery for delivery, _ in found], those, action)
        services.page.add(_RESULTS[notice.result])


class _Way:
    """How notifications travel: to where the policy sends mail for the sender's domain, else to the fleet that had the
    message.
    """

    def __init__(self, services: Services, hostname: str, origin: Origin, deadline: float) -> None:
        self._services, self._hostname, self._origin, self._deadline = services, hostname, origin, deadline

    def tell(self, deliveries: list[Delivery], about: list[Concerned], action: Action) -> Waits:
        """Hands a notification over. Returns the Notice.

        deliveries: of the same sender. about: recipients of theirs.
        """
        try:
            return (yield from self._told(deliveries[0], about, action))
        except Exception:  # the others have their mail, so the client gets its 250
            log.exception("internal error in a notification about message %s", deliveries[0].message.id)
            return Notice("failed")

    def _told(self, first: Delivery, about: list[Concerned], action: Action) -> Waits:
        services, sender = self._services, first.message.sender
        try:
            destination = yield services.policy.destination(sender.domain)
        except (Rejected, PolicyError):  # which are logged
            destination = None
        where = destination or first.destination
        envelope, message = notification_of(
            first.message, self._hostname, self._origin, about, action, first.requests, services.now_ns()
        )
        batch = Batch(message.id, NULL_SENDER, [sender], message.wire(), envelope.smtputf8, requests=envelope.requests)
        result = yield services.couriers.submit(batch, where, self._deadline)
        (outcome,) = result.outcomes
        sent = outcome.status is Status.DELIVERED
        if not sent and outcome.status is not Status.PERMANENT and services.spool is not None:
            kept = to_keep(envelope, message, sender.domain, result, where, message.received_at)
            if (yield from services.spool.keep([kept])) is None:
                return Notice("spooled", message.id, outcome.response)
        if not sent:
            log.warning("a notification to <%s> was not taken: %s", sender.email, outcome.response.content)
        return Notice("sent" if sent else "failed", message.id, outcome.response)


def _concerned(deliveries: list[Delivery]) -> list[Concerned]:
    found = []
    for delivery in deliveries:
        assert delivery.result is not None
        outcomes = failures(delivery.requests, _refused(delivery))
        found += concerned(outcomes, delivery.given, delivery.result, delivery.requests)
    return found


def _refused(delivery: Delivery) -> list[RecipientOutcome]:
    """Those whom the next hop refused for good."""
    assert delivery.result is not None
    return [outcome for outcome in delivery.result.outcomes if outcome.status is Status.PERMANENT]


def _note(services: Services, concerned: list[Delivery], notice: Notice) -> None:
    services.page.add(_RESULTS[notice.result])
    for delivery in concerned:
        delivery.notice = notice
