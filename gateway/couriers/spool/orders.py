"""What an operator asks of a spool: which messages, and what is to be done to them. On an open file, in any process."""

from __future__ import annotations

from gateway._fastpath import content_of
from gateway.couriers.spool.kept import Envelope, legible
from gateway.couriers.spool.store import DAMAGED, HELD, WAITS_FOR_TIME, Row, Store
from gateway.handover import Response
from gateway.logs import records
from gateway.logs.encoding import Record
from gateway.mail.message import Message

STATES = {0: "waiting", 1: "unreachable", HELD: "held", DAMAGED: "damaged"}  # as list shows them

DROPPED = Response(551, "5.7.1", "An administrator has dropped the message")


class Order:
    """what: "retry", "hold" or "drop". The others say which messages: those that meet all that is not None.

    ids: some of these. older: arrived before this unix time.
    """

    def __init__(  # every filter there is
        self,
        *,
        what: str = "",
        ids: list[str] | None = None,
        queue: str | None = None,
        site: str | None = None,
        sender: str | None = None,
        recipient: str | None = None,
        state: str | None = None,
        older: float | None = None,
    ) -> None:
        self.what = what
        self.ids = ids
        self.queue = queue
        self.site = site
        self.sender = sender
        self.recipient = recipient
        self.state = state
        self.older = older

    def means(self, row: Row) -> bool:
        """Whether it is about this message. An address may be a domain alone: "@example.com". What is damaged can only
        be dropped.
        """
        if row.state == DAMAGED and self.what in {"retry", "hold"}:
            return False
        if self.queue is not None and self.queue != row.queue:
            return False
        if self.site is not None and self.site not in row.site:
            return False
        if self.state is not None and self.state != STATES[row.state]:
            return False
        if self.older is not None and row.arrived >= self.older:
            return False
        if self.ids is None and self.sender is None and self.recipient is None:
            return True
        envelope = legible(row.envelope)
        if envelope is None:
            return False
        if self.ids is not None and envelope.id not in self.ids:
            return False
        if self.sender is not None and not _is(self.sender, envelope.sender.email):
            return False
        return self.recipient is None or any([_is(self.recipient, each.email) for each in envelope.recipients])


def select(store: Store, which: Order) -> list[Row]:
    """The messages that are meant."""
    return [row for row in store.rows() if which.means(row)]


def carry_out(store: Store, number: int, what: str) -> Row | None:
    """Does it to one message, inside a transaction; returns the message, None where it is there no more."""
    row = store.row(number)
    if row is None:
        return None
    if what == "drop":
        store.remove(number)
    else:
        row.state = HELD if what == "hold" else WAITS_FOR_TIME
        if what == "retry":
            row.due = 0.0
        store.change(row)
    return row


def bounce_of(row: Row, now_ns: int) -> tuple[Record, Message] | None:
    """The AdminBounce record of a message that was dropped; None for a damaged one, of which nothing is known."""
    if row.state == DAMAGED:
        return None
    envelope = Envelope.decoded(row.envelope)
    message = Message(
        envelope.id,
        envelope.sender,
        envelope.recipients,
        content_of(b""),
        meta=envelope.meta,
        received_at=envelope.received_at,
    )
    message.attempts, message.size = row.attempts, row.size
    record = records.given_up("AdminBounce", message, envelope.origin, row.queue, DROPPED, row.site, now_ns)
    return record, message


def _is(wanted: str, address: str) -> bool:
    wanted, address = wanted.lower(), address.lower()
    return address.endswith(wanted) if wanted.startswith("@") else address == wanted
