"""What becomes of a spooled message when its time has come: one more hand-over, its records, and what is told to whom.

When that is, is the spool's business (gateway/couriers/spool/), how a hand-over goes the couriers'. A recipient leaves
the spool when the fleet has it, when its sender's notification is in the spool, or when the record that is all there
is of it is on disk.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress

from gateway import metrics
from gateway.config import Destination, PartialRefusal, QueueConfig
from gateway.couriers.spool.kept import Envelope, ToKeep
from gateway.couriers.spool.orders import bounce_of
from gateway.couriers.spool.schedule import LEAST_INTERVAL, Spooled, retry_after
from gateway.couriers.spool.spool import Spool
from gateway.couriers.spool.store import WAITS_FOR_SITE, WAITS_FOR_TIME, Row, Store
from gateway.couriers.spool.tries import AskedSite, Tried
from gateway.delivery.services import Services
from gateway.delivery.told import (
    concerned,
    delayed,
    failures,
    notification_of,
    returns_at,
    successes,
    told_at,
)
from gateway.handover import Batch, HandOver, RecipientOutcome, Response, Status
from gateway.later import Waits
from gateway.logs import records
from gateway.mail.message import Message
from gateway.mail.notification import Action, Concerned, Notice
from gateway.policy.problems import PolicyError, Rejected
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.replies import Reason

log = logging.getLogger(__name__)

TIMEOUT = 300.0  # seconds for a hand-over: nobody waits for it
MOST_UNKNOWN = 16  # messages that are tried at a time before it is known where they go
NO_DESTINATION = 60.0  # seconds until the policy is asked again where a message goes
MOST_SITES = 1000
WRITE_AGAIN = 2.0  # seconds, where the disk does not take what has become of a message

EXPIRED = Response(551, "5.4.7", "The message has waited for longer than max_age")
NOT_TRIED = Response(451, "4.4.7", "The message waits")
OUT_OF_TIME = Response(551, "5.4.7", "The message has waited for longer than its sender allows")

# The next hop was not reached, or fell silent: this is about it and no message.
_ABOUT_THE_SITE = {
    Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_LOST, Reason.UPSTREAM_PROTOCOL,
}  # fmt: skip
_RESULTS = {result: metrics.SPOOL_REDELIVERIES.slot(result) for result in metrics.REDELIVERED}
_SENT_BYTES = metrics.SENT_BYTES.slot()


def is_about_the_site(outcomes: list[RecipientOutcome]) -> bool:
    """Whether what failed for now, and nothing else did, failed for want of a next hop that answers."""
    return all([each.status is Status.TRANSIENT and each.reason in _ABOUT_THE_SITE for each in outcomes])


def to_keep(
    envelope: Envelope, message: Message, queue_name: str, result: HandOver, destination: Destination, now: float
) -> ToKeep:
    """A message after its first hand-over, for those whom it did not reach. now: unix time."""
    queue = destination.queue
    envelope.last = result.outcomes[0].response
    envelope.open_end = message.content.open_end
    for outcome in result.outcomes:
        if outcome.recipient == envelope.recipients[0]:
            envelope.last = outcome.response
    about_the_site = is_about_the_site(result.outcomes)
    envelope.deferred = int(not about_the_site)
    again = _again(1, queue, envelope, now)
    return ToKeep(
        envelope,
        message.wire(),
        queue=queue_name,
        site=result.site,
        due=None if about_the_site else again,
        expires=min(message.received_at + queue.max_age, returns_at(envelope.requests), told_at(envelope.requests)),
    )


class Redelivery:
    """What a worker does with the messages in its spool."""

    def __init__(self, services: Services, spool: Spool) -> None:
        self._services = services
        self._spool = spool
        self._destinations: dict[str, Destination] = {}  # by site, as they were when it was last tried

    def start(self) -> None:
        """Begin."""
        self._spool.start(self.attempt, self._room, self._is_back, self.dropped)

    def _room(self, site: str) -> int:
        destination = self._destinations.get(site)
        return MOST_UNKNOWN if destination is None else self._services.couriers.room(destination)

    def _is_back(self, site: str) -> bool:
        """Whether a probe, or new mail, has found the site in order. A guess is not enough."""
        destination = self._destinations.get(site)
        return destination is not None and self._services.couriers.room(destination) > 0

    def attempt(self, spooled: Spooled, row: Row, octets: bytes | None, asked: AskedSite) -> Waits:
        """Hands the message over once more; without octets it has expired, and nobody tries any more, or its sender has
        to know that it takes longer.

        asked: told what the site answers. Returns a Tried.
        """
        envelope = Envelope.decoded(row.envelope)
        destination: Destination | None = None
        with suppress(Rejected, PolicyError):  # which are logged
            destination = yield self._services.policy.destination(row.queue)
        if octets is None:
            octets = yield self._spool.writer_of(spooled).read(lambda store: store.content(row.number))
            message = self._message(envelope, row, octets)
            return (yield from self._concluded(spooled, row, envelope, message, destination, None))
        if destination is None:
            self._count("failed", len(envelope.recipients))
            row.due, row.state = self._now() + NO_DESTINATION, WAITS_FOR_TIME
            return Tried(row)
        message = self._message(envelope, row, octets)
        batch = Batch(
            envelope.id,
            envelope.sender,
            envelope.recipients,
            message.wire(),
            envelope.smtputf8,
            divisible=True,
            client=envelope.origin,
            requests=envelope.requests,
        )
        deadline = self._services.monotonic() + TIMEOUT
        result = yield self._services.couriers.submit(batch, destination, deadline)
        if len(self._destinations) > MOST_SITES:
            self._destinations.clear()
        self._destinations[result.site] = self._destinations[spooled.site] = destination
        row.site = result.site
        asked.answered(not is_about_the_site(result.outcomes), result.seconds)
        return (yield from self._concluded(spooled, row, envelope, message, destination, result))

    def dropped(self, row: Row) -> None:
        """An operator dropped the message."""
        bounce = bounce_of(row, self._services.now_ns())
        if bounce is not None:
            self._services.logs.submit(*bounce)

    # --- after a hand-over --------------------------------------------------------------------------------------------

    def _concluded(
        self,
        spooled: Spooled,
        row: Row,
        envelope: Envelope,
        message: Message,
        destination: Destination | None,
        result: HandOver | None,
    ) -> Waits:
        """Records what came of it, tells the sender what is to be told, and has both on disk. result: None where it was
        not tried, since it has waited for too long.
        """
        services, now = self._services, self._now()
        until = _until(row, envelope, destination)
        goes_on = result is None and now < until
        if goes_on:  # its turn is when its site is back, whatever the row says that was written before
            row.state, row.due = WAITS_FOR_TIME, now if row.state == WAITS_FOR_SITE else row.due
        else:
            row.attempts += 1
        refused: list[RecipientOutcome] = []
        left = envelope.recipients
        if result is not None:
            refused = [each for each in result.outcomes if each.status is Status.PERMANENT]
            rest = [each for each in result.outcomes if _is_left(each)]
            left = [each.recipient for each in rest]
            if rest:
                envelope.last = rest[0].response
            self._count_outcomes(result, message)
        queue = None if destination is None else destination.queue
        if result is not None and left and queue is not None:
            row.state = WAITS_FOR_SITE if is_about_the_site(result.outcomes) else WAITS_FOR_TIME
            envelope.deferred += row.state == WAITS_FOR_TIME
            row.due = _again(envelope.deferred, queue, envelope, now)
        expired = left if not goes_on and (result is None or _is_too_late(row, until, now)) else []
        why = _expired(envelope, until)
        failed = [*refused, *(RecipientOutcome(each, Status.PERMANENT, why, None) for each in expired)]
        wanted = failures(envelope.requests, failed)
        notice, notifications = self._told(envelope, message, destination, result, bool(refused), failed, wanted)
        row.expires = min(until, told_at(envelope.requests))
        pool = None if queue is None else queue.egress_pool
        self._record(envelope, message, row, result, expired, why, notice, pool)
        if failed and (notice is None or notice.result != "spooled" or len(wanted) < len(failed)):
            while not (yield services.logs.durable()):
                yield self._spool.pause(WRITE_AGAIN)
        if expired:
            self._count("expired", len(expired))
            left = []
        envelope.recipients = left
        yield from self._written(spooled, row, envelope, notifications)
        return Tried(row if envelope.recipients else None, [added for added, _ in notifications])

    def _written(self, spooled: Spooled, row: Row, envelope: Envelope, notifications: list[tuple[Row, bytes]]) -> Waits:
        """Has it on disk, however long that takes: what is not would be done again."""
        gone = not envelope.recipients
        if not gone:
            row.envelope = envelope.encoded()

        def change(store: Store) -> None:
            for added, octets in notifications:
                added.number = 0
                store.append(added, [octets])
            if gone:
                store.remove(row.number)
            else:
                store.change(row)

        while True:
            try:
                yield self._spool.writer_of(spooled).write_by_and_by(change)
                return
            except Exception as error:
                log.error("the spool cannot note what became of message %s: %s", envelope.id, error)
                yield self._spool.pause(WRITE_AGAIN)

    def _told(
        self,
        envelope: Envelope,
        message: Message,
        destination: Destination | None,
        result: HandOver | None,
        in_time: bool,
        failed: list[RecipientOutcome],
        wanted: list[RecipientOutcome],
    ) -> tuple[Notice | None, list[tuple[Row, bytes]]]:
        """What the sender is told: how that is recorded of the failed, and notifications as they are to be spooled.

        wanted: of the failed, those of whom the sender wants to know. in_time: some of them were refused.
        """
        notice: Notice | None = None
        due: dict[Action, list[RecipientOutcome]] = {}
        if failed and destination is not None and destination.queue.on_partial_refusal is PartialRefusal.RECORD:
            notice = Notice("record")
        elif failed and not wanted:
            notice = Notice("unwanted")
        elif failed:
            due[Action.REFUSED if in_time else Action.EXPIRED] = wanted
        if result is not None:
            due.update(successes(envelope.requests, result))
            rest = [each for each in result.outcomes if _is_left(each)]
        else:
            rest = [] if failed else _waiting(envelope)
        if rest and (late := delayed(envelope.requests, rest, self._now())):
            due[Action.DELAYED] = late
        if not envelope.sender.email:  # RFC 5321 §4.5.5: nobody is notified of a notification
            return Notice("null_sender") if failed else None, []
        by = result or HandOver([], "", "ESMTP", 0.0)
        notifications = []
        for action, outcomes in due.items():
            about = concerned(outcomes, envelope.given or [], by, envelope.requests)
            id, row, octets = self._notification(envelope, message, about, action, _max_age(destination))
            notifications.append((row, octets))
            if outcomes is wanted:
                notice = Notice("spooled", id)
        return notice, notifications

    def _notification(
        self, envelope: Envelope, message: Message, about: list[Concerned], action: Action, max_age: float
    ) -> tuple[str, Row, bytes]:
        """One, as it is to be spooled: its id, row and content."""
        itself, told = notification_of(
            message, envelope.hostname, envelope.origin, about, action, envelope.requests, self._services.now_ns()
        )
        at = itself.received_at
        wire = b"".join(told.wire().pieces())
        row = Row(0, at, at, at + max_age, 0, 0, WAITS_FOR_TIME, "", envelope.sender.domain, itself.encoded())
        return told.id, row, wire

    # --- records and counters -----------------------------------------------------------------------------------------

    def _record(
        self,
        envelope: Envelope,
        message: Message,
        row: Row,
        result: HandOver | None,
        expired: list[EnvelopeAddress],
        why: Response,
        notice: Notice | None,
        pool: str | None,
    ) -> None:
        services, origin = self._services, envelope.origin
        now_ns = services.now_ns()
        if result is not None:
            for record in records.handed_over(message, origin, row.queue, result, now_ns, pool, notice):
                services.logs.submit(record, message)
        if expired:
            late = Message(message.id, message.sender, expired, message.wire(), meta=message.meta)
            late.received_at, late.attempts = message.received_at, message.attempts
            record = records.given_up("Expiration", late, origin, row.queue, why, row.site, now_ns, pool, notice)
            services.logs.submit(record, late)

    def _count_outcomes(self, result: HandOver, message: Message) -> None:
        for outcome in result.outcomes:
            if outcome.status is Status.DELIVERED:
                self._count("delivered")
            elif outcome.status is Status.PERMANENT:
                self._count("refused")
            elif outcome.status is Status.UNKNOWN:
                self._count("unknown")
            else:
                self._count("unreachable" if outcome.reason in _ABOUT_THE_SITE else "deferred")
        if any([outcome.status is Status.DELIVERED for outcome in result.outcomes]):
            self._services.page.add(_SENT_BYTES, message.size)

    def _count(self, result: str, recipients: int = 1) -> None:
        self._services.page.add(_RESULTS[result], recipients)

    def _message(self, envelope: Envelope, row: Row, octets: bytes) -> Message:
        content = envelope.content(octets, self._services.contents)
        message = Message(
            envelope.id,
            envelope.sender,
            envelope.recipients,
            content,
            meta=envelope.meta,
            received_at=envelope.received_at,
        )
        message.attempts = row.attempts
        return message

    def _now(self) -> float:
        return self._services.now_ns() / 1e9


def _again(times: int, queue: QueueConfig, envelope: Envelope, now: float) -> float:
    """When it is tried again. What is to come back is not given up because its queue would wait for longer: it is tried
    when half of its time is over, as long as that is a while.
    """
    again = now + retry_after(times, queue.retry_interval, queue.max_retry_interval)
    half = (returns_at(envelope.requests) - now) / 2
    return min(again, now + half) if half >= LEAST_INTERVAL else again


def _is_left(outcome: RecipientOutcome) -> bool:
    return outcome.status is Status.TRANSIENT or outcome.status is Status.UNKNOWN


def _max_age(destination: Destination | None) -> float:
    return QueueConfig().max_age if destination is None else destination.queue.max_age


def _until(row: Row, envelope: Envelope, destination: Destination | None) -> float:
    """When nobody tries any more; unix time. A row's own time is over before, where its sender has to be told then."""
    if told_at(envelope.requests) == math.inf:
        return row.expires
    return min(row.arrived + _max_age(destination), returns_at(envelope.requests))


def _waiting(envelope: Envelope) -> list[RecipientOutcome]:
    """Of whom nothing new is known."""
    last = envelope.last or NOT_TRIED
    return [RecipientOutcome(each, Status.TRANSIENT, last, None) for each in envelope.recipients]


def _is_too_late(row: Row, until: float, now: float) -> bool:
    """Whether there will be no other try: the site may be back at any time."""
    return (now if row.state == WAITS_FOR_SITE else row.due) >= until


def _expired(envelope: Envelope, until: float) -> Response:
    last, why = envelope.last, OUT_OF_TIME if until == returns_at(envelope.requests) else EXPIRED
    if last is None:
        return why
    return Response(why.code, why.enhanced, f"{why.content}; last: {last.code} {last.enhanced} {last.content}")
