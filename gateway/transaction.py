"""From a complete message to the reply to its final dot: the delivery contract.

The order: trace headers and policy, report recognition and each recipient's fate, destinations, hand-over, records,
reply. The reply is 250 only when every recipient was handed over, is in a report's record on disk, was discarded on
purpose, or was refused for good by the fleet while another one was handed over. No sockets, no SMTP dialogue here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gateway import metrics
from gateway.config import BatchHandling, EgressPath, LineEndings, ListenerParams, QueueConfig, SmtpFleet
from gateway.decision import Decision, fate
from gateway.logs import records
from gateway.logs.identity import new_message_id
from gateway.message import Message, parse_queue_name
from gateway.policy.conn_meta import ConnMeta
from gateway.recognition import NOTHING, Recognition, count, recognise
from gateway.relay.handover import Batch, HandOver, RecipientOutcome, Status, site_name
from gateway.services import Services
from gateway.smtp import replies, trace
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.replies import Reason, Reply
from gateway.smtp.session import MessageReceived

NULL_QUEUE = "null"  # KumoMTA's name for "discard on purpose"
_NO_PATH = EgressPath()

_RELAYED = metrics.MESSAGES.slot("relayed")
_REPORT_LOGGED = metrics.MESSAGES.slot("report_logged")
_DISCARDED = metrics.MESSAGES.slot("discarded")
_RECEIVED_BYTES = metrics.RECEIVED_BYTES.slot()


class SessionFacts:
    """What a transaction needs to know of its session. received_start: see trace.received_from()."""

    __slots__ = ("conn", "origin", "params", "received_start")

    def __init__(self, params: ListenerParams, conn: ConnMeta, origin: records.Origin, received_start: str) -> None:
        self.params = params
        self.conn = conn
        self.origin = origin
        self.received_start = received_start


class Delivery(NamedTuple):
    """One hand-over: the recipients of one message that share a destination."""

    message: Message
    queue_name: str
    recipients: list[EnvelopeAddress]
    queue: QueueConfig
    path: EgressPath


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
        decisions: Sequence[Decision],
        done: Callable[[Reply], None],
    ) -> None:
        self._services = services
        self._facts = facts
        self._event = event
        self._decisions = dict(zip(event.recipients, decisions, strict=True))
        self._done = done
        self._deadline = services.monotonic() + facts.params.data_processing_timeout
        self._now_ns = services.now_ns()
        self._messages: list[tuple[Message, str]] = []  # with their queues' names
        self._reports: dict[str, tuple[Recognition, bool]] = {}  # by message id: what is logged, and is it relayed too
        self._waiting: deque[Delivery] = deque()
        self._results: list[tuple[Delivery, HandOver]] = []
        self._discarded = False
        self._dropped_report = False  # a recipient is served by the report's record alone
        self.unreadable: str | None = None  # why what claimed to be a report was taken for none

    def start(self) -> None:
        """Does everything up to the first hand-over. Raises TransactionRefused, or what the policy raises."""
        self._services.page.add(_RECEIVED_BYTES, self._event.body.size)
        for recipients in self._split():
            message = self._make_message(recipients)
            if "smtp_server_message_received" in self._services.policy.handles:
                self._services.policy.message_received(message, self._facts.conn)
            self._settle(message)
        self._hand_over_next()

    # -- the message --------------------------------------------------------------------------------------------------

    def _split(self) -> Iterator[list[EnvelopeAddress]]:
        """Which recipients make one message (`batch_handling`)."""
        recipients = self._event.recipients
        handling = self._facts.params.batch_handling
        if handling is BatchHandling.TOGETHER or len(recipients) == 1:
            yield recipients
        elif handling is BatchHandling.BIFURCATE:
            yield from ([recipient] for recipient in recipients)
        else:
            by_domain: dict[str, list[EnvelopeAddress]] = {}
            for recipient in recipients:
                by_domain.setdefault(recipient.domain, []).append(recipient)
            yield from by_domain.values()

    def _make_message(self, recipients: list[EnvelopeAddress]) -> Message:
        event, facts = self._event, self._facts
        message_id = new_message_id(self._now_ns)
        message = Message(
            message_id,
            event.mail.sender,
            list(recipients),
            event.body,
            meta=dict(facts.conn.values),
            received_at=self._now_ns / 1e9,
            fix_line_endings=facts.params.invalid_line_endings is LineEndings.FIX,
        )
        if trace.hops(message.header_block()) >= trace.MAX_HOPS:
            raise TransactionRefused(replies.MAIL_LOOP)
        if facts.params.trace_headers.received_header:
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
        self._add_supplemental_header(message)
        self._waiting.extend(self._destinations(message, queue_name, relayed))

    def _relayed_recipients(self, message: Message) -> list[EnvelopeAddress]:
        """The recipients the message goes on to, after a look for a report where one of them logs reports."""
        decisions = [self._decision(recipient) for recipient in message.recipients]
        found = NOTHING
        if any(decision.takes_reports for decision in decisions):
            found = recognise(message, self._services.page, self._services.monotonic)
            self.unreadable = found.unreadable
        fates = [fate(decision, found.kind) for decision in decisions]
        if None in fates:
            raise TransactionRefused(replies.NOT_A_REPORT)
        relayed = [
            recipient for recipient, f in zip(message.recipients, fates, strict=True) if f is not None and f.relay
        ]
        if any(f is not None and f.log for f in fates):
            self._reports[message.id] = found, bool(relayed)
            self._dropped_report |= len(relayed) < len(message.recipients)
        elif found.kind is not None:
            count(found, message, [], relayed=True, page=self._services.page)
        return relayed

    def _decision(self, recipient: EnvelopeAddress) -> Decision:
        """What the recipient was accepted for; one that the policy put in has the standing of those it accepted."""
        return self._decisions.get(recipient) or next(iter(self._decisions.values()))

    def _add_supplemental_header(self, message: Message) -> None:
        headers = self._facts.params.trace_headers
        if headers.supplemental_header:
            recipients = [recipient.email for recipient in message.recipients]
            message.prepend(
                trace.supplemental(headers.header_name, recipients, message.meta, headers.include_meta_names)
            )

    def _destinations(self, message: Message, queue_name: str, recipients: list[EnvelopeAddress]) -> list[Delivery]:
        """One delivery for each destination, so that recipients with different handling never mix."""
        if message.meta.get("queue") or len({recipient.domain for recipient in recipients}) == 1:
            return [self._destination(message, queue_name, recipients)]
        deliveries: dict[object, Delivery] = {}
        for recipient in recipients:
            own_name = message.queue_name(recipient)
            delivery = self._destination(message, own_name, [recipient])
            same = deliveries.setdefault((delivery.queue.protocol, delivery.path), delivery)
            if same is not delivery:
                same.recipients.append(recipient)
        return list(deliveries.values())

    def _destination(self, message: Message, queue_name: str, recipients: list[EnvelopeAddress]) -> Delivery:
        policy = self._services.policy
        campaign, tenant, domain, routing_domain = parse_queue_name(queue_name)
        queue = policy.queue_config(domain, tenant, campaign, routing_domain)
        if queue is None or queue.protocol is None:
            raise TransactionRefused(replies.NO_DESTINATION)
        path = _NO_PATH
        if isinstance(queue.protocol, SmtpFleet):
            path = policy.egress_path(routing_domain or domain, "unspecified", site_name(queue.protocol))
        return Delivery(message, queue_name, recipients, queue, path)

    # -- handing over -------------------------------------------------------------------------------------------------

    def _hand_over_next(self) -> None:
        """Hands over one delivery after the other; after one that failed for now, no more is sent."""
        if not self._waiting or (self._results and _failed_for_now(self._results[-1][1])):
            self._conclude()
            return
        delivery = self._waiting.popleft()
        message = delivery.message
        batch = Batch(
            message.id,
            message.sender,
            delivery.recipients,
            message.wire_chunks(),
            message.size,
            message.eight_bit,
            self._event.mail.smtputf8,
        )

        def handed_over(result: HandOver) -> None:
            self._results.append((delivery, result))
            self._hand_over_next()

        self._services.relay.hand_over(batch, delivery.queue, delivery.path, self._deadline, handed_over)

    def _conclude(self) -> None:
        outcomes = [outcome for _, result in self._results for outcome in result.outcomes]
        refusal = self._refusal(outcomes)
        if refusal is None:
            self._log_messages()
        self._log_hand_overs(bool(refusal))
        if refusal is not None:
            self._done(refusal)
        elif self._dropped_report:
            # From now on the record is all there is of the report: it has to be on disk before the 250.
            self._services.logs.durable(lambda ok: self._accept(outcomes) if ok else self._done(replies.STORAGE))
        else:
            self._accept(outcomes)

    def _accept(self, outcomes: Sequence[RecipientOutcome]) -> None:
        self._services.page.add(self._disposition())
        refused = sum(outcome.status is Status.PERMANENT for outcome in outcomes)
        ids = " ".join(message.id for message, _ in self._messages)
        self._done(replies.accepted(ids, refused, len(self._event.recipients)))

    def _refusal(self, outcomes: Sequence[RecipientOutcome]) -> Reply | None:
        """The 4xx or 5xx that the outcomes call for; None where the contract allows 250."""
        for status in (Status.UNKNOWN, Status.TRANSIENT):
            for outcome in outcomes:
                if outcome.status is status:
                    return _as_reply(outcome)
        served_otherwise = self._discarded or self._dropped_report
        if outcomes and not served_otherwise and all(o.status is Status.PERMANENT for o in outcomes):
            return _as_reply(outcomes[0])
        return None

    def _disposition(self) -> int:
        if self._results:
            return _RELAYED
        return _DISCARDED if self._discarded else _REPORT_LOGGED

    # -- records ------------------------------------------------------------------------------------------------------

    def _log_messages(self) -> None:
        """A Reception for each accepted message, or what takes its place for a report."""
        services, origin = self._services, self._facts.origin
        now_ns = services.now_ns()
        for message, queue_name in self._messages:
            found, relayed = self._reports.get(message.id, (NOTHING, True))
            if found is NOTHING:
                record = records.reception(message, origin, queue_name, now_ns)
                if self.unreadable is not None:
                    record["report_unreadable"] = self.unreadable
                services.logs.submit(record, message)
                continue
            logged = found.records(message, origin, queue_name, now_ns)
            for record in logged:
                services.logs.submit(record, message)
            count(found, message, logged, relayed=relayed, page=services.page)

    def _log_hand_overs(self, refused: bool) -> None:
        """What became of each hand-over. The Rejection of a refused message is logged with its reply."""
        services, origin = self._services, self._facts.origin
        now_ns = services.now_ns()
        for delivery, result in self._results:
            if refused and all(outcome.status is Status.PERMANENT for outcome in result.outcomes):
                continue  # never accepted, so there is nothing to bounce: the Rejection says it all
            for record in records.handed_over(delivery.message, origin, delivery.queue_name, result, now_ns):
                services.logs.submit(record, delivery.message)


def _failed_for_now(result: HandOver) -> bool:
    return any(outcome.status in (Status.TRANSIENT, Status.UNKNOWN) for outcome in result.outcomes)


def _as_reply(outcome: RecipientOutcome) -> Reply:
    response = outcome.response
    text = f"{response.enhanced} {response.content}" if response.enhanced else response.content
    return replies.make(response.code, text, outcome.reason or Reason.UPSTREAM_REFUSED)
