"""A batch on its way through a fleet: what is left to do for it, and the one answer it ends with.

No choice of members and no I/O: gateway/couriers/fleet/fleet.py drives it, and is the Dispatcher that lanes report to.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from gateway._fastpath import Content, is_ascii
from gateway.couriers.fleet import outcome
from gateway.couriers.fleet.asked import obstacle
from gateway.handover import Batch, HandOver, RecipientOutcome, Status
from gateway.later import Later
from gateway.net.streams import Poller
from gateway.smtp import replies
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.client import ClientSession
from gateway.smtp.exchange import Exchange
from gateway.smtp.replies import Reply

if TYPE_CHECKING:
    from gateway.couriers.fleet.connection import MemberConnection
    from gateway.couriers.fleet.lane import Lane

_DELIVERED, _PERMANENT = Status.DELIVERED, Status.PERMANENT  # these are final
_NOBODY: frozenset[Any] = frozenset()
_HEADER_AT_FIRST = 8192  # octets of a content in which to look for the end of its header


class Dispatcher:
    """Who gives jobs to lanes, and hears from them what came of it."""

    def report(self, job: Job) -> None:
        """The job has all its outcomes."""
        raise NotImplementedError

    def declined(self, lane: Lane, job: Job, reply: Reply) -> None:
        """This member cannot take the message, whatever is sent to it."""
        raise NotImplementedError

    def recover(self, lane: Lane, job: Job, connection: MemberConnection) -> None:
        """The connection ended under its job."""
        raise NotImplementedError

    def moves(self, lane: Lane, job: Job) -> bool:
        """True where another lane carries the job now, which waited for a connection of this one."""
        raise NotImplementedError

    def oldest_waiting(self, lane: Lane) -> Job | None:
        """The job that has waited longest among those that this lane may carry."""
        raise NotImplementedError

    def carried(self, job: Job) -> None:
        """The job, which waited, is on a connection now."""
        raise NotImplementedError

    def serve_waiting(self) -> None:
        """There may be room again."""
        raise NotImplementedError


class Job:
    """One batch that was submitted.

    deadline: on the loop's clock. later: settled exactly once. tried: lanes that failed or declined it. declined: how
    many of them cannot take the message at all. avoided: lanes of those tried whose members lack what its client wants
    passed on; they are for when no other takes it. smtputf8: it really needs SMTPUTF8. large: its content is in a file.

    A batch goes out in several transactions, one after the other, where it has more recipients than
    `max_recipients_per_batch` or than the member takes at a time. A recipient deferred in a later one cannot call the
    earlier ones back: their outcomes stand, the rest is TRANSIENT, and a client that is told 4xx and sends everything
    again reaches the earlier ones twice. Where a connection is lost in between, the rest goes elsewhere.
    """

    def __init__(self, batch: Batch, deadline: float, dispatcher: Dispatcher) -> None:
        self.batch = batch
        self.deadline = deadline
        self.dispatcher = dispatcher
        self.later = Later()
        self.tried: frozenset[Lane] = _NOBODY
        self.avoided = _NOBODY
        self.declined = 0
        self.connection: MemberConnection | None = None  # the last one that was to carry it
        self.smtputf8 = _needs_smtputf8(batch)
        self.large = not self.batch.content.in_memory
        self.started = monotonic()  # finer than the loop's clock
        self._outcomes: list[RecipientOutcome | None] | None = None  # then one for each recipient, or None
        self._asked: list[int] | None = None  # whom the last exchange was for, by their places; None: everyone
        self._exchange: Exchange | None = None  # the last one, where its client has asked for more than delivery
        self._relayed: dict[EnvelopeAddress, int] | None = None  # to servers that lack what would pass that on
        self._hand_over: HandOver | None = None

    def finished(self) -> bool:
        """True when nothing more is to be sent: all recipients have an outcome."""
        return self._outcomes is not None and _complete(self._outcomes)

    def rule_out(self, lane: Lane) -> None:
        """It shall not be tried again."""
        self.tried |= {lane}

    def avoid(self, lanes: Sequence[Lane]) -> None:
        """Try these last."""
        self.avoided = frozenset(lanes)
        self.tried |= self.avoided

    def stop_avoiding(self) -> None:
        """No others are left."""
        self.tried -= self.avoided
        self.avoided = _NOBODY

    def lacks(self, session: ClientSession) -> Reply | None:
        """Why the message may not be sent to this server; None where it may."""
        content, extensions = self.batch.content, session.extensions
        if self.smtputf8 and "SMTPUTF8" not in extensions:  # RFC 6531 §3.2
            return replies.UPSTREAM_WITHOUT_SMTPUTF8
        if content.has_8bit and "8BITMIME" not in extensions:  # RFC 6152 §3
            return replies.UPSTREAM_WITHOUT_8BITMIME
        if 0 < session.size_limit < content.size:  # RFC 1870 §6.1
            return replies.UPSTREAM_TOO_BIG
        batch = self.batch
        return None if batch.requests is None else obstacle(batch.requests, batch.sender, session.takes, time())

    def next_exchange(self, most_recipients: int) -> Exchange:
        """The exchange that carries the next recipients."""
        batch = self.batch
        if self._outcomes is None and len(batch.recipients) <= most_recipients:
            self._asked = None
            recipients = batch.recipients
        else:
            self._asked = self._open()[:most_recipients]
            recipients = [batch.recipients[place] for place in self._asked]
        requests = None if batch.requests is None else batch.requests.at(time())
        exchange = Exchange(batch.sender, recipients, batch.content, self.smtputf8, batch.divisible, requests)
        if requests is not None:
            self._exchange = exchange
        return exchange

    def settle(self, outcomes: list[RecipientOutcome | None]) -> None:
        """The outcomes of the last exchange's recipients. The rest is not tried once one of these is not final."""
        if self._exchange is not None and self._exchange.left_out:
            taken = [each.recipient for each in outcomes if each is not None and each.status is _DELIVERED]
            self._relayed = {**(self._relayed or {}), **dict.fromkeys(taken, self._exchange.left_out)}
        if self._asked is None:
            self._outcomes = outcomes
        else:
            self._fill(self._asked, outcomes)
        if not self.finished() and not all([_is_final(settled) for settled in outcomes]):
            self.settle_rest(replies.UPSTREAM_NOT_SENT)

    def settle_rest(self, reply: Reply) -> None:
        """The recipients without an outcome get this one: PERMANENT or TRANSIENT by the reply's code."""
        left = self._open()
        self._fill(left, outcome.same_for_all([self.batch.recipients[place] for place in left], reply))

    def _open(self) -> list[int]:
        """The places of those that have no outcome yet."""
        if self._outcomes is None:
            return list(range(len(self.batch.recipients)))
        return [place for place, settled in enumerate(self._outcomes) if settled is None]

    def _fill(self, places: list[int], outcomes: Sequence[RecipientOutcome | None]) -> None:
        if self._outcomes is None:
            self._outcomes = [None] * len(self.batch.recipients)
        for place, settled in zip(places, outcomes, strict=True):
            self._outcomes[place] = settled

    def tell(self) -> None:
        """Give the hand-over to whoever waits for it."""
        self.later.settle(self._hand_over)

    def tell_soon(self, poller: Poller) -> None:
        """The same at the end of this turn."""
        poller.call_soon(self.tell)

    def conclude(self, site: str) -> float:
        """All recipients have an outcome, which makes the hand-over. Returns the seconds that all of it took."""
        self._hand_over = self._made(site)
        if self._relayed is not None:
            self._hand_over.relayed = self._relayed
        return self._hand_over.seconds

    def _made(self, site: str) -> HandOver:
        seconds = monotonic() - self.started
        outcomes: Any = self._outcomes
        connection = self.connection
        if connection is None:
            return HandOver(outcomes, site, "ESMTP", seconds)
        return HandOver(
            outcomes,
            site,
            "LMTP" if connection.is_lmtp else "ESMTP",
            seconds,
            connection.host.name,
            connection.address,
            connection.session_id,
            connection.source_address,
            connection.tls_cipher,
            connection.tls_protocol_version,
        )


def _complete(outcomes: list[RecipientOutcome | None]) -> bool:
    for settled in outcomes:  # noqa: SIM110  # a loop in C
        if settled is None:
            return False
    return True


def _is_final(settled: RecipientOutcome | None) -> bool:
    return settled is None or settled.status is _DELIVERED or settled.status is _PERMANENT


def _needs_smtputf8(batch: Batch) -> bool:
    """Whether SMTPUTF8 is needed, which is not what the client declared: RFC 6531 §3.4.

    Domains are A-labels here, so a mailbox that is not ASCII has a local part that is not. A header is looked at only
    where the client has declared it: without that, 8-bit octets there are no UTF-8 anybody promised.
    """
    if not is_ascii(batch.sender.email):
        return True
    for recipient in batch.recipients:
        if not is_ascii(recipient.email):
            return True
    return batch.smtputf8 and batch.content.has_8bit and not _header_is_ascii(batch.content)


def _header_is_ascii(content: Content) -> bool:
    wanted = _HEADER_AT_FIRST
    while True:
        head = content.head(wanted)
        end = head.find(b"\r\n\r\n")
        if end >= 0 or wanted >= content.octets:
            return head[:end].isascii() if end >= 0 else head.isascii()
        wanted *= 2
