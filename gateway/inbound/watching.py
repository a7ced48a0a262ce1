"""What a connection tells those who look on, where it takes more than a call: who is told, and of what so far.

Nobody is told anything from here while nobody looks on; what is told, and how, is gateway/tracing's.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config import ListenerDomain
from gateway.decision import Decision
from gateway.delivery.services import Services
from gateway.net.endpoints import Endpoints
from gateway.policy.conn_meta import ConnMeta
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.commands import MailCommand
from gateway.tracing.tracer import known_of
from gateway.tracing.witness import Session
from gateway.tracing.words import because


class SessionWatch:
    """One connection, as it is told of. began: seconds on the tracer's clock, when it was opened."""

    def __init__(self, services: Services, conn: ConnMeta, session_id: str, endpoints: Endpoints, began: float) -> None:
        self._tracer = services.tracer
        self._conn = conn
        self._session = Session(
            session_id, endpoints.peer, endpoints.received_from, endpoints.received_via, began
        )  # fmt: skip

    def begin(self) -> None:
        """It has just been opened."""
        self._conn.witness = self._tracer.witness(self._session)
        if self._conn.witness is not None:
            self._conn.witness.connected()

    def join(self, mail: MailCommand | None, recipients: Sequence[EnvelopeAddress]) -> None:
        """Others look on than before. mail, recipients: of the transaction under way, if there is one."""
        before = self._conn.witness
        self._conn.witness = self._tracer.witness(self._session, before)
        if before is None and self._conn.witness is not None:
            known = known_of(self._conn.values, self._conn.secret)
            self._conn.witness.joined(known, None if mail is None else mail.sender, list(recipients))


def explain(
    conn: ConnMeta,
    decision: Decision | None,
    relay_host: bool,
    recipient: EnvelopeAddress,
    to_recipient: ListenerDomain | None,
    mail: MailCommand | None,
    to_sender: ListenerDomain | None,
    cached: bool,
) -> dict[str, str] | None:
    """Tells why a recipient is accepted or not; returns what a refusal says of it, None where it is none."""
    sender = None if mail is None else mail.sender
    if conn.witness is not None:
        conn.witness.decided(decision, relay_host, recipient, to_recipient, sender, to_sender, cached)
    if decision is not None:
        return None
    return {"because": because(decision, relay_host, recipient, to_recipient, sender, to_sender)}
