"""A batch on its way through a fleet: what is left to do for it, and the one answer it ends with.

No choice of members and no I/O: gateway/relay/fleet.py drives it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.relay import outcome
from gateway.relay.handover import Batch, Done, HandOver, RecipientOutcome, Status
from gateway.smtp import replies
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.client_values import Transaction
from gateway.smtp.replies import Reply

if TYPE_CHECKING:
    from gateway.relay.connection import Connection
    from gateway.relay.fleet import Member

_FINAL = (Status.DELIVERED, Status.PERMANENT)


class Job:
    """One call of `Relay.hand_over`.

    deadline: on the loop's clock. done: called exactly once. tried: members that failed it.

    A batch with more recipients than `max_recipients_per_batch` goes out in several transactions, one after the other
    on one connection. A recipient deferred in a later one cannot call the earlier ones back: their outcomes stand, the
    rest is TRANSIENT, and a client that is told 4xx and sends everything again reaches the earlier ones twice.
    """

    __slots__ = ("_done", "_outcomes", "_started", "batch", "connection", "deadline", "tried")

    def __init__(self, batch: Batch, deadline: float, done: Done) -> None:
        self.batch = batch
        self.deadline = deadline
        self.tried: set[Member] = set()
        self.connection: Connection | None = None  # the last one that was to carry it
        self._outcomes: list[RecipientOutcome] = []
        self._done = done
        self._started = time.monotonic()  # finer than the loop's clock

    @property
    def begun(self) -> bool:
        """True when some recipients have their outcome already: no other member may take over any more."""
        return bool(self._outcomes)

    @property
    def finished(self) -> bool:
        """True when nothing more is to be sent: all recipients have an outcome, or one was not handed over."""
        return len(self._outcomes) == len(self.batch.recipients)

    def next_transaction(self, most_recipients: int) -> Transaction:
        """The transaction that carries the next recipients."""
        batch = self.batch
        recipients: Sequence[EnvelopeAddress] = batch.recipients
        if self._outcomes or len(recipients) > most_recipients:
            recipients = recipients[len(self._outcomes) :][:most_recipients]
        return Transaction(
            batch.sender,
            recipients,
            batch.chunks,
            size=batch.size,
            eight_bit=batch.eight_bit,
            smtputf8=batch.smtputf8,
        )

    def settle(self, outcomes: list[RecipientOutcome]) -> None:
        """The outcomes of the next recipients. The rest is not tried once one of these is not final."""
        self._outcomes = self._outcomes + outcomes if self._outcomes else outcomes
        if not self.finished and not all(settled.status in _FINAL for settled in outcomes):
            self.settle_rest(replies.UPSTREAM_NOT_SENT)

    def settle_rest(self, reply: Reply) -> None:
        """The recipients without an outcome are TRANSIENT."""
        left = self.batch.recipients[len(self._outcomes) :]
        self._outcomes = self._outcomes + outcome.same_for_all(left, Status.TRANSIENT, reply)

    def report(self, site: str) -> float:
        """Hand the outcomes to whoever asked for them. Returns the seconds that all of it took."""
        hand_over = HandOver(self._outcomes, site, "ESMTP", time.monotonic() - self._started)
        connection = self.connection
        if connection is not None:
            hand_over.peer_name = connection.host.name
            hand_over.peer_address = connection.address
            hand_over.session_id = connection.session_id
            hand_over.source_address = connection.source_address
            hand_over.tls_cipher = connection.tls_cipher
            hand_over.tls_protocol_version = connection.tls_protocol_version
        self._done(hand_over)
        return hand_over.seconds
