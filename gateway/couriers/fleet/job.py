"""A batch on its way through a fleet: what is left to do for it, and the one answer it ends with.

No choice of members and no I/O: gateway/couriers/fleet/fleet.py drives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from gateway.couriers.fleet import outcome
from gateway.handover import Batch, HandOver, RecipientOutcome, Status
from gateway.later import Later
from gateway.smtp import replies
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.client_values import Transaction
from gateway.smtp.replies import Reply

if TYPE_CHECKING:
    from gateway.couriers.fleet.connection import Connection
    from gateway.couriers.fleet.fleet import Member

_DELIVERED, _PERMANENT = Status.DELIVERED, Status.PERMANENT  # these are final


class Job:
    """One batch that was submitted.

    deadline: on the loop's clock. later: settled exactly once. tried: members that failed it.

    A batch with more recipients than `max_recipients_per_batch` goes out in several transactions, one after the other
    on one connection. A recipient deferred in a later one cannot call the earlier ones back: their outcomes stand, the
    rest is TRANSIENT, and a client that is told 4xx and sends everything again reaches the earlier ones twice.
    """

    def __init__(self, batch: Batch, deadline: float) -> None:
        self.batch = batch
        self.deadline = deadline
        self.later = Later()
        self.tried: set[Member] = set()
        self.connection: Connection | None = None  # the last one that was to carry it
        self._outcomes: list[RecipientOutcome] = []
        self._hand_over: HandOver | None = None
        self._started = monotonic()  # finer than the loop's clock

    def begun(self) -> bool:
        """True when some recipients have their outcome already: no other member may take over any more."""
        return bool(self._outcomes)

    def finished(self) -> bool:
        """True when nothing more is to be sent: all recipients have an outcome, or one was not handed over."""
        return len(self._outcomes) == len(self.batch.recipients)

    def next_transaction(self, most_recipients: int) -> Transaction:
        """The transaction that carries the next recipients."""
        batch = self.batch
        recipients: Sequence[EnvelopeAddress] = batch.recipients
        if self._outcomes or len(recipients) > most_recipients:
            recipients = recipients[len(self._outcomes) :][:most_recipients]
        return Transaction(batch.sender, recipients, batch.content, batch.smtputf8)

    def settle(self, outcomes: list[RecipientOutcome]) -> None:
        """The outcomes of the next recipients. The rest is not tried once one of these is not final."""
        self._outcomes = self._outcomes + outcomes if self._outcomes else outcomes
        if self.finished():
            return
        if not all([settled.status is _DELIVERED or settled.status is _PERMANENT for settled in outcomes]):
            self.settle_rest(replies.UPSTREAM_NOT_SENT)

    def settle_rest(self, reply: Reply) -> None:
        """The recipients without an outcome are TRANSIENT."""
        left = self.batch.recipients[len(self._outcomes) :]
        self._outcomes = self._outcomes + outcome.same_for_all(left, Status.TRANSIENT, reply)

    def tell(self) -> None:
        """Give the hand-over to whoever waits for it."""
        self.later.settle(self._hand_over)

    def conclude(self, site: str) -> float:
        """All recipients have an outcome, which makes the hand-over. Returns the seconds that all of it took."""
        self._hand_over = self._made(site)
        return self._hand_over.seconds

    def _made(self, site: str) -> HandOver:
        seconds = monotonic() - self._started
        connection = self.connection
        if connection is None:
            return HandOver(self._outcomes, site, "ESMTP", seconds)
        return HandOver(
            self._outcomes,
            site,
            "ESMTP",
            seconds,
            connection.host.name,
            connection.address,
            connection.session_id,
            connection.source_address,
            connection.tls_cipher,
            connection.tls_protocol_version,
        )
