"""Telling senders whom the fleet refused while others were served, or who was, where they want to know: who is told, by
which way, and what came of it.

A notification is handed over before the client gets its 250; where it is not taken for now it goes into the spool, and
without one it is not tried again. What it says is notification.py's business.
"""

from __future__ import annotations

import logging

from gateway import metrics
from gateway.config import PartialRefusal
from gateway.couriers.spool.kept import Envelope
from gateway.delivery.journal import Accepted
from gateway.delivery.redelivery import to_keep
from gateway.delivery.routing import Delivery
from gateway.delivery.services import Services
from gateway.delivery.told import concerned, deliver_by, envid, failures, of_notification, returned, successes
from gateway.handover import Batch, RecipientOutcome, Status
from gateway.later import Waits
from gateway.logs import identity
from gateway.logs.records import Origin
from gateway.mail.message import Message
from gateway.mail.notification import Action, Concerned, Notice, notification
from gateway.policy.problems import PolicyError, Rejected
from gateway.smtp.address import NULL_SENDER, EnvelopeAddress

log = logging.getLogger(__name__)

_RESULTS = {
    result: metrics.NOTIFICATIONS.slot(result)
    for result in ("sent", "spooled", "failed", "null_sender", "record", "unwanted")
}


def tell_senders(
    services: Services,
    hostname: str,
    origin: Origin,
    accepted: list[Accepted],
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
        notice = yield from way.tell(about, _concerned(accepted, about), Action.REFUSED)
        _note(services, about, notice)
        told = told and notice.result in ("sent", "spooled")
    return told


def tell_of_success(
    services: Services,
    hostname: str,
    origin: Origin,
    accepted: list[Accepted],
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
            given = _given(accepted, delivery)
            about = concerned(outcomes, given, delivery.result, delivery.requests)
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
        services, sender, requests = self._services, first.message.sender, first.requests
        try:
            destination = yield services.policy.destination(sender.domain)
        except (Rejected, PolicyError):  # which are logged
            destination = None
        now_ns = services.now_ns()
        message_id = identity.new_message_id(now_ns)
        data = notification(
            message_id,
            self._hostname,
            sender,
            about,
            first.message.header_block(),
            arrived=int(first.message.received_at),
            now=now_ns // 1_000_000_000,
            action=action,
            envid=envid(requests),
            deliver_by=deliver_by(requests),
            whole=returned(requests, first.message) if action is Action.REFUSED else None,
        )
        message = Message(message_id, NULL_SENDER, [sender], data=data)
        smtputf8, asked = not sender.email.isascii(), of_notification(requests)
        batch = Batch(message_id, NULL_SENDER, [sender], message.wire(), smtputf8, requests=asked)
        result = yield services.couriers.submit(batch, destination or first.destination, self._deadline)
        (outcome,) = result.outcomes
        sent = outcome.status is Status.DELIVERED
        if not sent and outcome.status is not Status.PERMANENT and services.spool is not None:
            envelope = Envelope(
                id=message_id,
                sender=NULL_SENDER,
                recipients=[sender],
                given=None,
                meta={},
                origin=self._origin,
                smtputf8=smtputf8,
                hostname=self._hostname,
                received_at=now_ns / 1e9,
                requests=asked,
            )
            message.received_at = envelope.received_at
            where = destination or first.destination
            kept = to_keep(envelope, message, sender.domain, result, where, envelope.received_at)
            if (yield from services.spool.keep([kept])) is None:
                return Notice("spooled", message_id, outcome.response)
        if not sent:
            log.warning("a notification to <%s> was not taken: %s", sender.email, outcome.response.content)
        return Notice("sent" if sent else "failed", message_id, outcome.response)


def _concerned(accepted: list[Accepted], deliveries: list[Delivery]) -> list[Concerned]:
    found = []
    for delivery in deliveries:
        assert delivery.result is not None
        outcomes = failures(delivery.requests, _refused(delivery))
        found += concerned(outcomes, _given(accepted, delivery), delivery.result, delivery.requests)
    return found


def _given(accepted: list[Accepted], delivery: Delivery) -> list[EnvelopeAddress]:
    return next(entry.given for entry in accepted if entry.message is delivery.message)


def _refused(delivery: Delivery) -> list[RecipientOutcome]:
    """Those whom the next hop refused for good."""
    assert delivery.result is not None
    return [outcome for outcome in delivery.result.outcomes if outcome.status is Status.PERMANENT]


def _note(services: Services, concerned: list[Delivery], notice: Notice) -> None:
    services.page.add(_RESULTS[notice.result])
    for delivery in concerned:
        delivery.notice = notice
