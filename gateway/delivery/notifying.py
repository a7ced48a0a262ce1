"""Telling senders whom the fleet refused while others were served: who is told, by which way, and what came of it.

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
from gateway.handover import Batch, RecipientOutcome, Status
from gateway.later import Waits
from gateway.logs import identity
from gateway.logs.records import Origin
from gateway.mail.message import Message
from gateway.mail.notification import Notice, Refusal, notification
from gateway.policy.problems import PolicyError, Rejected
from gateway.smtp.address import NULL_SENDER, EnvelopeAddress

log = logging.getLogger(__name__)

_RESULTS = {
    result: metrics.NOTIFICATIONS.slot(result) for result in ("sent", "spooled", "failed", "null_sender", "record")
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
        if not _refused(delivery):
            continue
        sender = delivery.message.sender.email
        if not sender:  # RFC 5321 §4.5.5: nobody is notified of a notification
            _note(services, [delivery], Notice("null_sender"))
            told = False
        elif delivery.destination.queue.on_partial_refusal is PartialRefusal.RECORD:
            _note(services, [delivery], Notice("record"))
            told = False
        else:
            due.setdefault(sender, []).append(delivery)
    for concerned in due.values():
        try:
            notice = yield from _notify(services, hostname, origin, accepted, concerned, deadline)
        except Exception:  # the others have their mail, so the client gets its 250
            log.exception("internal error in a notification about message %s", concerned[0].message.id)
            notice = Notice("failed")
        _note(services, concerned, notice)
        told = told and notice.result in ("sent", "spooled")
    return told


def _notify(
    services: Services,
    hostname: str,
    origin: Origin,
    accepted: list[Accepted],
    concerned: list[Delivery],
    deadline: float,
) -> Waits:
    """Hands a notification over to where the policy sends mail for the sender's domain, else to the fleet that refused.

    Returns the Notice.
    """
    first = concerned[0]
    sender = first.message.sender
    try:
        destination = yield services.policy.destination(sender.domain)
    except (Rejected, PolicyError):  # which are logged
        destination = None
    now_ns = services.now_ns()
    message_id = identity.new_message_id(now_ns)
    data = notification(
        message_id,
        hostname,
        sender,
        _refusals(accepted, concerned),
        first.message.header_block(),
        arrived=int(first.message.received_at),
        now=now_ns // 1_000_000_000,
    )
    message = Message(message_id, NULL_SENDER, [sender], data=data)
    batch = Batch(message_id, NULL_SENDER, [sender], message.wire(), not sender.email.isascii())
    result = yield services.couriers.submit(batch, destination or first.destination, deadline)
    (outcome,) = result.outcomes
    sent = outcome.status is Status.DELIVERED
    if not sent and outcome.status is not Status.PERMANENT and services.spool is not None:
        envelope = Envelope(
            id=message_id,
            sender=NULL_SENDER,
            recipients=[sender],
            given=None,
            meta={},
            origin=origin,
            smtputf8=batch.smtputf8,
            hostname=hostname,
            received_at=now_ns / 1e9,
        )
        message.received_at = envelope.received_at
        where = destination or first.destination
        kept = to_keep(envelope, message, sender.domain, result, where, envelope.received_at)
        if (yield from services.spool.keep([kept])) is None:
            return Notice("spooled", message_id, outcome.response)
    if not sent:
        log.warning("a notification to <%s> was not taken: %s", sender.email, outcome.response.content)
    return Notice("sent" if sent else "failed", message_id, outcome.response)


def _refusals(accepted: list[Accepted], concerned: list[Delivery]) -> list[Refusal]:
    given = {entry.message.id: entry.given for entry in accepted}
    refusals = []
    for delivery in concerned:
        assert delivery.result is not None
        by_client = given[delivery.message.id]
        for outcome in _refused(delivery):
            original: EnvelopeAddress | None = None  # unknown where the policy put others in the place of several
            if outcome.recipient in by_client:
                original = outcome.recipient
            elif len(by_client) == 1:
                original = by_client[0]
            refusals.append(Refusal(outcome, original, delivery.result))
    return refusals


def _refused(delivery: Delivery) -> list[RecipientOutcome]:
    """Those whom the next hop refused for good."""
    assert delivery.result is not None
    return [outcome for outcome in delivery.result.outcomes if outcome.status is Status.PERMANENT]


def _note(services: Services, concerned: list[Delivery], notice: Notice) -> None:
    services.page.add(_RESULTS[notice.result])
    for delivery in concerned:
        delivery.notice = notice
