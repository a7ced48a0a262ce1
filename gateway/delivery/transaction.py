"""From a complete message to the reply to its content, step by step.

The order: trace headers and policy, report recognition and each recipient's fate, destinations, hand-over, records,
reply; or the reply before the records, where the fleet has everything and none of them makes the 250 true. When that is
so is the verdict's business, who travels with whom is routing's, what is logged the journal's. No sockets, no SMTP
dialogue here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gateway import metrics
from gateway.config import Destination
from gateway.couriers.spool.kept import Envelope
from gateway.decision import RELAY, Decision, fate
from gateway.delivery.journal import Accepted, log_hand_overs, log_messages
from gateway.delivery.notifying import tell_of_success, tell_senders
from gateway.delivery.recognition import NOTHING, Recognition, count, recognise
from gateway.delivery.redelivery import to_keep
from gateway.delivery.routing import Delivery, deliveries, is_discarded, queue_names, split
from gateway.delivery.services import Services
from gateway.delivery.shaping import shaped
from gateway.delivery.verdict import UNACCOUNTED, UNRECORDED, Evidence, Next, Verdict, verdict
from gateway.handover import Batch, HandOver, RecipientOutcome, Response, Status
from gateway.later import Later, Waits
from gateway.logs import identity, records
from gateway.mail.headers import HeaderField
from gateway.mail.message import Message
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.events import MESSAGE_RECEIVED
from gateway.smtp import replies, trace
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.events import MessageReceived
from gateway.smtp.replies import Reply
from gateway.smtp.terms import Terms

log = logging.getLogger(__name__)

# What is looked up for every message: CPython 3.11 takes its time to find a member in its enum, or a module's name.
_DELIVERED, _PERMANENT, _SPOOLED = Status.DELIVERED, Status.PERMANENT, Status.SPOOLED
_ACCEPT, _RECORD, _SYNC = Next.ACCEPT, Next.RECORD, Next.SYNC
_MAX_HOPS = trace.MAX_HOPS

_RELAYED = metrics.MESSAGES.slot("relayed")
_INTO_SPOOL = metrics.MESSAGES.slot("spooled")
_REPORT_LOGGED = metrics.MESSAGES.slot("report_logged")
_DISCARDED = metrics.MESSAGES.slot("discarded")
_RECEIVED_BYTES = metrics.RECEIVED_BYTES.slot()
_SENT_BYTES = metrics.SENT_BYTES.slot()


class SessionFacts:
    """What a transaction needs to know of its session. received_start: see trace.received_from()."""

    def __init__(self, terms: Terms, conn: ConnMeta, origin: records.Origin, received_start: str) -> None:
        self.terms = terms
        self.conn = conn
        self.origin = origin
        self.received_start = received_start


class TransactionRefused(Exception):
    """The whole transaction is refused with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


class Transaction:
    """One complete message on its way to its reply.

    decisions: what each recipient was accepted for, in the order of event.recipients.
    """

    def __init__(
        self, services: Services, facts: SessionFacts, event: MessageReceived, decisions: list[Decision]
    ) -> None:
        self._services = services
        self._page = self._services.page  # of what has a C type: attributes cost next to nothing
        self._policy = self._services.policy
        self._facts: SessionFacts = facts
        self._terms = self._facts.terms
        self._event = event
        self._decisions = decisions
        self._began = self._services.monotonic()
        self._now_ns = self._services.now_ns()
        self.unreadable: str | None = None  # why what claimed to be a report was taken for none
        self._accepted: list[Accepted] = []
        self._deliveries: list[Delivery] = []
        self._handed_over = 0  # so many of them
        self._outcomes: list[RecipientOutcome] = []  # of all that is over
        # Recipients: all of them, those whom the policy discards, those who are served by a report's record alone.
        self._promised = self._discarded = self._reported = 0
        spool = self._services.spool
        self._spool = spool if spool is not None and spool.usable else None
        self._not_taken: list[Delivery] = []  # those of which somebody failed for now, and is to be spooled

    def seconds(self) -> float:
        """How long the transaction has been under way."""
        return self._services.monotonic() - self._began

    def steps(self) -> Waits:
        """All of it; the reply is what the generator returns.

        Raises TransactionRefused, or what the policy raises.
        """
        self._begin()
        wanted = MESSAGE_RECEIVED in self._policy.handles
        meta = self._facts.conn.values
        meta = meta.copy() if wanted else meta  # what a handler does to it reaches no other message of the transaction
        whole: Message | None = None
        if self._policy.shapes_transactions:
            whole = self._make_message(self._event.recipients, meta)
            groups = yield from shaped(whole, self._policy, self._facts.conn, self._terms.batch_handling)
        else:
            groups = split(self._event.recipients, self._terms.batch_handling)
        for recipients in groups:
            message = self._message_to(recipients, meta, whole, len(groups))
            if wanted:
                yield self._policy.message_received(message, self._facts.conn)
                self._forget_recipient(message, recipients)
            relayed = self._settle(message)
            if relayed is None:
                continue
            names = queue_names(message, relayed, self._accepted[-1].queue_name)
            destinations: dict[str, Any] = dict.fromkeys(names)
            for name in destinations:
                destinations[name] = _existing((yield self._policy.destination(name)))
            self._deliveries += deliveries(message, self._named(recipients, whole), relayed, names, destinations)
        for delivery in self._deliveries:
            if not self._goes_on(delivery, (yield self._hand_over(delivery))):
                break
        if self._not_taken:
            yield from self._keep()
        evidence = None
        decided = self._verdict(evidence)
        if decided.next is _RECORD:
            evidence = self._recorded((yield from self._tell(tell_senders)) if self._deliveries else True)
            decided = self._verdict(evidence)
            if decided.next is _SYNC:
                evidence.on_disk = yield self._services.logs.durable()
                decided = self._verdict(evidence)
        if self._event.mail.requests is not None and decided.next is _ACCEPT:
            yield from self._tell(tell_of_success)
        return self._end(decided, evidence)

    # -- the message --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        content = self._event.content
        self._page.add(_RECEIVED_BYTES, content.size)
        if trace.hops(content) >= _MAX_HOPS:
            raise TransactionRefused(replies.MAIL_LOOP)

    def _make_message(self, recipients: list[EnvelopeAddress], meta: dict[str, Any]) -> Message:
        event = self._event
        meta = meta.copy()
        if event.mail.requests is not None:
            meta["client_requests"] = event.mail.requests.about(recipients, recipients).as_values()
        return Message(
            identity.new_message_id(self._now_ns),
            event.mail.sender,
            recipients.copy(),
            event.content,
            meta=meta,
            received_at=self._now_ns / 1e9,
            fix_line_endings=self._terms.fix_line_endings,
        )

    def _message_to(
        self, recipients: list[EnvelopeAddress], meta: dict[str, Any], whole: Message | None, groups: int
    ) -> Message:
        """One of the messages that the transaction becomes, with its Received header. whole: the transaction as the
        policy has left it, None where it was not asked.
        """
        if whole is None:
            message = self._make_message(recipients, meta)
        elif groups == 1:
            message = whole
        else:
            message = whole.for_others(identity.new_message_id(self._now_ns), recipients)
        if self._terms.received_header:
            message.prepend(self._received(message.id, _only(recipients)))
        return message

    def _named(self, recipients: list[EnvelopeAddress], whole: Message | None) -> list[EnvelopeAddress]:
        """Whom the client named for a message to these recipients; all of them where the policy put others in."""
        if whole is None:
            return recipients
        named = self._event.recipients
        return [recipient for recipient in recipients if recipient in named] or named

    def _received(self, message_id: str, recipient: str | None) -> bytes:
        asked = self._event.mail.requests
        priority = None if asked is None else asked.priority
        return trace.received(
            self._facts.received_start, message_id, recipient, self._now_ns // 1_000_000_000, priority
        )

    def _forget_recipient(self, message: Message, before: list[EnvelopeAddress]) -> None:
        """Takes the one recipient out of the trace of a message to which the policy has added others."""
        if len(before) > 1 or len(message.recipients) <= 1 or not self._terms.received_header:
            return
        told = self._received(message.id, before[0].email)
        untold = HeaderField("Received", self._received(message.id, None))
        message.replace_fields([untold if field.raw == told else field for field in message.fields()])

    # -- fates and destinations ---------------------------------------------------------------------------------------

    def _settle(self, message: Message) -> list[EnvelopeAddress] | None:
        """Decides what becomes of the message for each recipient: to whom it is handed over; None for nobody."""
        if not message.recipients:
            raise TransactionRefused(replies.NO_RECIPIENTS)
        self._promised += len(message.recipients)
        relayed = message.recipients
        report = None
        if self._decisions.count(RELAY) != len(self._decisions):
            relayed, report = self._fates(message)
            self._reported += len(message.recipients) - len(relayed)
        accepted = Accepted(message, message.queue_name(), report, len(relayed))
        self._accepted.append(accepted)
        if self._facts.conn.witness is not None:
            kind = None if report is None or report.kind is None else report.kind.value
            goes_on = accepted.relayed and not is_discarded(message)
            self._facts.conn.witness.message(message.id, message.recipients, accepted.queue_name, kind, goes_on)
        if not relayed:
            return None
        if is_discarded(message):
            self._discarded += len(relayed)
            return None
        if self._terms.supplemental_header:
            self._add_supplemental_header(message)
        return relayed

    def _fates(self, message: Message) -> tuple[list[EnvelopeAddress], Recognition | None]:
        """The recipients the message goes on to, and the report that is logged, after a look for one where a recipient
        logs reports.
        """
        by_recipient = dict(zip(self._event.recipients, self._decisions, strict=True))
        # A recipient that the policy put in has the standing of those it accepted.
        decisions = [by_recipient.get(recipient, self._decisions[0]) for recipient in message.recipients]
        found = NOTHING
        if any([decision.takes_reports for decision in decisions]):
            monotonic = self._services.monotonic
            found = recognise(message, self._page, monotonic, self._terms.feedback_senders, self._terms.report_excerpt)
            self.unreadable = found.unreadable
        fates = [fate(decision, found.kind) for decision in decisions]
        relayed = []
        logged = False
        for recipient, outcome in zip(message.recipients, fates, strict=True):
            if outcome is None:
                raise TransactionRefused(replies.NOT_A_REPORT)
            logged = logged or outcome.log is not None
            if outcome.relay:
                relayed.append(recipient)
        if found.kind is not None and not logged:
            count(found, message, logged=False, relayed=True, page=self._page)
        return relayed, found if logged else None

    def _add_supplemental_header(self, message: Message) -> None:
        terms, recipient = self._terms, _only(message.recipients)
        message.prepend(trace.supplemental(terms.header_name, recipient, message.meta, terms.include_meta_names))

    # -- handing over -------------------------------------------------------------------------------------------------

    def _hand_over(self, delivery: Delivery) -> Later:
        message = delivery.message
        requests = self._event.mail.requests
        if requests is not None:
            requests = delivery.requests = requests.about(delivery.recipients, delivery.given)
        batch = Batch(
            message.id,
            message.sender,
            delivery.recipients,
            message.wire(),
            self._event.mail.smtputf8,
            self._spool is not None,
            self._facts.origin,
            requests,
        )
        witness = self._facts.conn.witness
        if witness is not None:
            witness.handing_over(message.id, delivery.recipients, delivery.queue_name, delivery.destination)
        return self._services.couriers.submit(batch, delivery.destination, self._began + self._terms.processing_timeout)

    def _goes_on(self, delivery: Delivery, result: HandOver) -> bool:
        """Takes a result down. After a recipient that failed for now no more is sent, unless it can be spooled."""
        delivery.result = result
        self._handed_over += 1
        self._outcomes += result.outcomes
        delivered = 0
        goes_on = True
        for outcome in result.outcomes:
            if outcome.status is _DELIVERED:
                delivered += 1
            elif outcome.status is not _PERMANENT:
                goes_on = False
        if delivered:
            self._page.add(_SENT_BYTES, delivery.message.size)
        if not goes_on and self._spool is not None:
            self._not_taken.append(delivery)
            return True
        if self._facts.conn.witness is not None:
            self._facts.conn.witness.handed_over(delivery.message.id, result)
        return goes_on

    def _keep(self) -> Waits:
        """Has all that the fleet could not take for now on disk, and takes that down as its outcome."""
        facts, now = self._facts, self._now_ns / 1e9
        kept = []
        for delivery in self._not_taken:
            result, message = delivery.result, delivery.message
            assert result is not None
            envelope = Envelope(
                id=message.id,
                sender=message.sender,
                recipients=[outcome.recipient for outcome in result.outcomes if _failed_for_now(outcome)],
                given=delivery.given,
                meta=message.meta,
                origin=facts.origin,
                smtputf8=self._event.mail.smtputf8,
                hostname=self._terms.hostname,
                received_at=message.received_at,
                requests=delivery.requests,
            )
            kept.append(to_keep(envelope, message, delivery.queue_name, result, delivery.destination, now))
        assert self._spool is not None
        refused = yield from self._spool.keep(kept)
        self._outcomes = [
            _kept(outcome, refused) if _failed_for_now(outcome) else outcome for outcome in self._outcomes
        ]
        if facts.conn.witness is not None:
            for delivery in self._not_taken:
                facts.conn.witness.handed_over(delivery.message.id, _with_what_was_kept(delivery.result, refused))

    # -- the end ------------------------------------------------------------------------------------------------------

    def _verdict(self, evidence: Evidence | None) -> Verdict:
        return verdict(self._promised, self._outcomes, self._discarded, self._reported, evidence)

    def _tell(self, tell: Callable[..., Waits]) -> Waits:
        """Tells the sender whom the fleet refused, and returns whether that was everybody; or who was served."""
        deadline = self._began + self._terms.processing_timeout
        facts = self._facts
        return tell(self._services, self._terms.hostname, facts.origin, self._deliveries, deadline)

    def _recorded(self, told: bool) -> Evidence:
        """All records of a message of which some are all there is of a recipient. told: the sender knows of those whom
        the fleet refused.
        """
        services, origin = self._services, self._facts.origin
        now_ns = services.now_ns()
        reports = log_messages(services, origin, self._accepted, self.unreadable, now_ns)
        bounces = log_hand_overs(services, origin, self._deliveries, True, now_ns)
        return Evidence(reports, bounces, told)

    def _end(self, decided: Verdict, evidence: Evidence | None) -> Reply | None:
        """The reply; and the records, of which there are none as long as there is no evidence."""
        if evidence is not None:
            if decided is UNRECORDED and evidence.on_disk is None:
                log.error("a record that a 250 would rest on is taken by no logger: see configure_local_logs")
        elif decided.next is _ACCEPT:
            self._services.afterwards(self)  # the fleet has it all: the client need not wait for them
        else:
            self._log_refused(decided)
        return self._taken() if decided.next is _ACCEPT else decided.reply

    def __call__(self) -> None:
        """What comes afterwards: the records of a message that was handed over to everybody."""
        services, origin = self._services, self._facts.origin
        now_ns = services.now_ns()
        log_messages(services, origin, self._accepted, self.unreadable, now_ns)
        log_hand_overs(services, origin, self._deliveries, True, now_ns)

    def _log_refused(self, decided: Verdict) -> None:
        if decided is UNACCOUNTED:
            log.error("a recipient of message %s is unaccounted for", self._accepted[0].message.id)
        services, handed_over = self._services, self._deliveries[: self._handed_over]
        log_hand_overs(services, self._facts.origin, handed_over, False, services.now_ns())

    def _taken(self) -> Reply:
        """The 250, counted."""
        disposition = _RELAYED if self._handed_over else _DISCARDED if self._discarded else _REPORT_LOGGED
        if self._not_taken:
            disposition = _INTO_SPOOL
        self._page.add(disposition)
        ids = [accepted.message.id for accepted in self._accepted]
        refused = 0
        for outcome in self._outcomes:
            if outcome.status is _PERMANENT:
                refused += 1
        return replies.accepted(ids, refused, len(self._event.recipients))


def _existing(destination: Destination | None) -> Destination:
    if destination is None:
        raise TransactionRefused(replies.NO_DESTINATION)
    return destination


def _failed_for_now(outcome: RecipientOutcome) -> bool:
    """Whether the spool takes it over. It does where nobody knows (RFC 1047), as the client would: it tries again."""
    return outcome.status is not _DELIVERED and outcome.status is not _PERMANENT


def _kept(outcome: RecipientOutcome, refused: Reply | None) -> RecipientOutcome:
    """What became of it in the spool."""
    if refused is None:
        return RecipientOutcome(outcome.recipient, _SPOOLED, outcome.response, outcome.reason)
    if outcome.status is Status.UNKNOWN:
        return outcome
    return RecipientOutcome(outcome.recipient, Status.TRANSIENT, Response.from_reply(refused), refused.reason)


def _with_what_was_kept(result: HandOver | None, refused: Reply | None) -> HandOver:
    """The same hand-over for those who look on: with what became of each recipient in the spool."""
    assert result is not None
    return HandOver(
        [_kept(outcome, refused) if _failed_for_now(outcome) else outcome for outcome in result.outcomes],
        result.site,
        result.protocol,
        result.seconds,
        result.peer_name,
        result.peer_address,
        result.session_id,
        result.source_address,
        result.tls_cipher,
        result.tls_protocol_version,
    )


def _only(recipients: list[EnvelopeAddress]) -> str | None:
    """The one recipient, whom the trace may name; None where there are several."""
    if len(recipients) != 1:
        return None
    recipient = recipients[0]
    return recipient.email
