"""From a complete message to the reply to its final dot: the delivery contract.

The order: trace headers and policy, report recognition and each recipient's fate, destinations, hand-over, records,
reply; or the reply before the records, where the fleet has everything and none of them makes the 250 true. The reply is
250 only when every recipient was handed over, is in a report's record on disk, was discarded on purpose, or was refused
for good by the fleet while another one was handed over. No sockets, no SMTP dialogue here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway import metrics
from gateway.config import BatchHandling, Destination, LineEndings, ListenerParams
from gateway.decision import RELAY, Decision, fate
from gateway.delivery.message import Message
from gateway.delivery.recognition import NOTHING, Recognition, count, recognise
from gateway.handover import Batch, HandOver, RecipientOutcome, Status
from gateway.inbound.services import Services
from gateway.later import Later
from gateway.logs import identity, records
from gateway.policy.conn_meta import ConnMeta
from gateway.smtp import replies, trace
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.events import MessageReceived
from gateway.smtp.replies import Reason, Reply

log = logging.getLogger(__name__)

NULL_QUEUE = "null"  # KumoMTA's name for "discard on purpose"

# What is looked up for every message: CPython 3.11 takes its time to find a member in its enum, or a module's name.
_DELIVERED, _TRANSIENT, _PERMANENT, _UNKNOWN = Status.DELIVERED, Status.TRANSIENT, Status.PERMANENT, Status.UNKNOWN
_MAX_HOPS = trace.MAX_HOPS
_TOGETHER, _FIX = BatchHandling.TOGETHER, LineEndings.FIX

_RELAYED = metrics.MESSAGES.slot("relayed")
_REPORT_LOGGED = metrics.MESSAGES.slot("report_logged")
_DISCARDED = metrics.MESSAGES.slot("discarded")
_RECEIVED_BYTES = metrics.RECEIVED_BYTES.slot()
_SENT_BYTES = metrics.SENT_BYTES.slot()


class SessionFacts:
    """What a transaction needs to know of its session. received_start: see trace.received_from()."""

    def __init__(self, params: ListenerParams, conn: ConnMeta, origin: records.Origin, received_start: str) -> None:
        self.conn = conn
        self.origin = origin
        self.received_start = received_start
        self.trace_headers = params.trace_headers
        self.received_header = params.trace_headers.received_header
        self.supplemental_header = params.trace_headers.supplemental_header
        self.batch_handling = params.batch_handling
        self.fix_line_endings = params.invalid_line_endings is _FIX
        self.timeout = params.data_processing_timeout


class Delivery:
    """One hand-over: the recipients of one message that share a destination. result: None until it is over."""

    def __init__(
        self, message: Message, queue_name: str, recipients: list[EnvelopeAddress], destination: Destination
    ) -> None:
        self.message = message
        self.queue_name = queue_name
        self.recipients = recipients
        self.destination = destination
        self.result: HandOver | None = None


class TransactionRefused(Exception):
    """The whole transaction is refused with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


class Transaction:
    """One complete message on its way to its reply.

    decisions: what each recipient was accepted for, in the order of event.recipients. done: called once with the
    reply, at once or later.
    """

    def __init__(
        self,
        services: Services,
        facts: SessionFacts,
        event: MessageReceived,
        decisions: list[Decision],
        done: Callable[[Reply], None],
    ) -> None:
        self._services = services
        self._page = services.page
        self._policy = services.policy
        self._facts = facts
        self._event = event
        self._decisions = decisions
        self._done = done
        self._began = services.monotonic()
        self._now_ns = services.now_ns()
        self._messages: list[tuple[Message, str]] = []  # with their queues' names
        self._reports: dict[str, tuple[Recognition, bool]] = {}  # by message id: what is logged, and is it relayed too
        self._waiting: list[Delivery] = []  # the next one last
        self._handed_over: list[Delivery] = []  # the last one may be under way
        self._under_way: Later | None = None
        self._outcomes: list[RecipientOutcome] = []  # of all that is over
        self._discarded = False
        self._dropped_report = False  # a recipient is served by the report's record alone
        self._report_is_logged = False  # some logger took that record
        self.unreadable: str | None = None  # why what claimed to be a report was taken for none

    def start(self) -> None:
        """Does everything up to the first hand-over. Raises TransactionRefused, or what the policy raises."""
        content = self._event.content
        self._page.add(_RECEIVED_BYTES, content.size)
        if trace.hops(content) >= _MAX_HOPS:
            raise TransactionRefused(replies.MAIL_LOOP)
        wanted = "smtp_server_message_received" in self._policy.handles
        for recipients in self._split():
            message = self._make_message(recipients)
            if wanted:
                self._policy.message_received(message, self._facts.conn)
            self._settle(message)
        self._waiting.reverse()
        self._hand_over_next()

    def seconds(self) -> float:
        """How long the transaction has been under way."""
        return self._services.monotonic() - self._began

    # -- the message --------------------------------------------------------------------------------------------------

    def _split(self) -> list[list[EnvelopeAddress]]:
        """Which recipients make one message (`batch_handling`)."""
        recipients = self._event.recipients
        handling = self._facts.batch_handling
        if handling is _TOGETHER or len(recipients) == 1:
            return [recipients]
        if handling is BatchHandling.BIFURCATE:
            return [[recipient] for recipient in recipients]
        by_domain: dict[str, list[EnvelopeAddress]] = {}
        for recipient in recipients:
            by_domain.setdefault(recipient.domain, []).append(recipient)
        return list(by_domain.values())

    def _make_message(self, recipients: list[EnvelopeAddress]) -> Message:
        event, facts = self._event, self._facts
        message_id = identity.new_message_id(self._now_ns)
        message = Message(
            message_id,
            event.mail.sender,
            recipients.copy(),
            event.content,
            meta=facts.conn.values.copy(),
            received_at=self._now_ns / 1e9,
            fix_line_endings=facts.fix_line_endings,
        )
        if facts.received_header:
            seconds = self._now_ns // 1_000_000_000
            message.prepend(trace.received(facts.received_start, message_id, recipients[0].email, seconds))
        return message

    # -- fates and destinations ---------------------------------------------------------------------------------------

    def _settle(self, message: Message) -> None:
        """Decides what happens to the message for each of its recipients, and queues the hand-overs."""
        if not message.recipients:
            raise TransactionRefused(replies.NO_RECIPIENTS)
        relayed = self._relayed_recipients(message)
        queue_name = message.queue_name()
        self._messages.append((message, queue_name))
        if not relayed:
            return
        if queue_name == NULL_QUEUE:
            self._discarded = True
            return
        if self._facts.supplemental_header:
            self._add_supplemental_header(message)
        self._waiting.extend(self._destinations(message, queue_name, relayed))

    def _relayed_recipients(self, message: Message) -> list[EnvelopeAddress]:
        """The recipients the message goes on to, after a look for a report where one of them logs reports."""
        if self._decisions.count(RELAY) == len(self._decisions):
            return message.recipients
        by_recipient = dict(zip(self._event.recipients, self._decisions, strict=True))
        # A recipient that the policy put in has the standing of those it accepted.
        decisions = [by_recipient.get(recipient, self._decisions[0]) for recipient in message.recipients]
        found = NOTHING
        if any([decision.takes_reports for decision in decisions]):
            found = recognise(message, self._page, self._services.monotonic)
            self.unreadable = found.unreadable
        fates = [fate(decision, found.kind) for decision in decisions]
        relayed = []
        for recipient, outcome in zip(message.recipients, fates, strict=True):
            if outcome is None:
                raise TransactionRefused(replies.NOT_A_REPORT)
            if outcome.relay:
                relayed.append(recipient)
        if any([outcome is not None and outcome.log is not None for outcome in fates]):
            self._reports[message.id] = found, bool(relayed)
            self._dropped_report = self._dropped_report or len(relayed) < len(message.recipients)
        elif found.kind is not None:
            count(found, message, logged=False, relayed=True, page=self._page)
        return relayed

    def _add_supplemental_header(self, message: Message) -> None:
        headers = self._facts.trace_headers
        recipients = [recipient.email for recipient in message.recipients]
        message.prepend(trace.supplemental(headers.header_name, recipients, message.meta, headers.include_meta_names))

    def _destinations(self, message: Message, queue_name: str, recipients: list[EnvelopeAddress]) -> list[Delivery]:
        """One delivery for each destination, so that recipients with different handling never mix."""
        if (
            len(recipients) == 1
            or message.meta.get("queue")
            or len({recipient.domain for recipient in recipients}) == 1
        ):
            return [self._destination(message, queue_name, recipients)]
        deliveries: dict[object, Delivery] = {}
        for recipient in recipients:
            own_name = message.queue_name(recipient)
            delivery = self._destination(message, own_name, [recipient])
            same = deliveries.setdefault((delivery.destination.queue.protocol, delivery.destination.path), delivery)
            if same is not delivery:
                same.recipients.append(recipient)
        return list(deliveries.values())

    def _destination(self, message: Message, queue_name: str, recipients: list[EnvelopeAddress]) -> Delivery:
        destination = self._policy.destination(queue_name)
        if destination is None:
            raise TransactionRefused(replies.NO_DESTINATION)
        return Delivery(message, queue_name, recipients, destination)

    # -- handing over -------------------------------------------------------------------------------------------------

    def _hand_over_next(self) -> None:
        """Hands over one delivery after the other; after one that failed for now, no more is sent."""
        if not self._waiting or _failed_for_now(self._outcomes):
            self._conclude()
            return
        delivery = self._waiting.pop()
        self._handed_over.append(delivery)
        message = delivery.message
        batch = Batch(
            message.id,
            message.sender,
            delivery.recipients,
            message.wire(),
            self._event.mail.smtputf8,
        )
        deadline = self._began + self._facts.timeout
        later = self._under_way = self._services.couriers.submit(batch, delivery.destination, deadline)
        go_on = self._on_result  # keeps this object, which the end of it would drop
        if later.done:
            go_on()
        else:
            later.then(go_on)

    def _on_result(self) -> None:
        """The hand-over under way is over."""
        assert self._under_way is not None
        result: HandOver = self._under_way.result()
        delivery = self._handed_over[-1]
        delivery.result = result
        self._outcomes += result.outcomes
        if _count(result.outcomes, _DELIVERED):
            self._page.add(_SENT_BYTES, delivery.message.size)
        try:
            self._hand_over_next()
        except Exception:  # our own fault; nobody above us would answer the client
            log.exception("internal error after a hand-over")
            self._done(replies.INTERNAL)

    def _conclude(self) -> None:
        outcomes = self._outcomes
        all_delivered = outcomes and _count(outcomes, _DELIVERED) == len(outcomes)
        if all_delivered and not self._discarded and not self._dropped_report:
            self._accept()
            self._services.afterwards(self._log)  # the fleet has it all: the client need not wait for the records
            return
        refusal = self._refusal()
        if refusal is None:
            self._log_messages()
        self._log_hand_overs(refusal is not None)
        if refusal is not None:
            self._done(refusal)
        elif not self._dropped_report:
            self._accept()
        elif self._report_is_logged:
            # From now on the record is all there is of the report: it has to be on disk before the 250.
            self._services.logs.durable(self._recorded)
        else:
            log.error("a report that is to be logged and dropped is taken by no logger: see configure_local_logs")
            self._done(replies.STORAGE)

    def _recorded(self, on_disk: bool) -> None:
        if on_disk:
            self._accept()
        else:
            self._done(replies.STORAGE)

    def _accept(self) -> None:
        self._page.add(self._disposition())
        ids = " ".join([message.id for message, _ in self._messages])
        refused = _count(self._outcomes, _PERMANENT)
        self._done(replies.accepted(ids, refused, len(self._event.recipients)))

    def _refusal(self) -> Reply | None:
        """The 4xx or 5xx that the outcomes call for; None where the contract allows 250."""
        outcomes = self._outcomes
        for status in (_UNKNOWN, _TRANSIENT):
            for outcome in outcomes:
                if outcome.status is status:
                    return _as_reply(outcome)
        served_otherwise = self._discarded or self._dropped_report
        if outcomes and not served_otherwise and _count(outcomes, _PERMANENT) == len(outcomes):
            return _as_reply(outcomes[0])
        return None

    def _disposition(self) -> int:
        if self._handed_over:
            return _RELAYED
        return _DISCARDED if self._discarded else _REPORT_LOGGED

    # -- records ------------------------------------------------------------------------------------------------------

    def _log(self) -> None:
        """The records of a message that was handed over to everybody."""
        self._log_messages()
        self._log_hand_overs(False)

    def _log_messages(self) -> None:
        """A Reception for each accepted message, or what takes its place for a report."""
        services, origin = self._services, self._facts.origin
        now_ns = services.now_ns()
        for message, queue_name in self._messages:
            report = self._reports.get(message.id)
            if report is None:
                record = records.reception(message, origin, queue_name, now_ns, self.unreadable)
                services.logs.submit(record, message)
                continue
            found, relayed = report
            logged = found.records(message, origin, queue_name, now_ns)
            for record in logged:
                self._report_is_logged = services.logs.submit(record, message) or self._report_is_logged
            count(found, message, logged=bool(logged), relayed=relayed, page=services.page)

    def _log_hand_overs(self, refused: bool) -> None:
        """What became of each hand-over. The Rejection of a refused message is logged with its reply."""
        if not self._handed_over:
            return
        services, origin = self._services, self._facts.origin
        now_ns = services.now_ns()
        for delivery in self._handed_over:
            message, result = delivery.message, delivery.result
            assert result is not None
            if refused and _count(result.outcomes, _PERMANENT) == len(result.outcomes):
                continue  # never accepted, so there is nothing to bounce: the Rejection says it all
            pool = delivery.destination.queue.egress_pool
            for record in records.handed_over(message, origin, delivery.queue_name, result, now_ns, pool):
                services.logs.submit(record, message)


def _count(outcomes: list[RecipientOutcome], status: Status) -> int:
    """How many recipients this became of."""
    count = 0
    for outcome in outcomes:
        if outcome.status is status:
            count += 1
    return count


def _failed_for_now(outcomes: list[RecipientOutcome]) -> bool:
    return _count(outcomes, _TRANSIENT) + _count(outcomes, _UNKNOWN) > 0


def _as_reply(outcome: RecipientOutcome) -> Reply:
    response = outcome.response
    text = f"{response.enhanced} {response.content}" if response.enhanced else response.content
    return replies.make(response.code, text, outcome.reason or Reason.UPSTREAM_REFUSED)
