"""What a connection tells those who look on, where it takes more than a call: who is told, and of what so far.

Nobody is told anything from here while nobody looks on; what is told, and how, is gateway/tracing's.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config import ListenerDomain
from gateway.decision import Decision, Ground
from gateway.delivery.services import Services
from gateway.net.endpoints import Endpoints
from gateway.policy import events
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.commands import MailCommand, RcptCommand
from gateway.smtp.session import ServerSession
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
    policy: Policy,
    conn: ConnMeta,
    session: ServerSession,
    decision: Decision | None,
    ground: Ground,
    to_recipient: ListenerDomain | None,
    to_sender: ListenerDomain | None,
    cached: bool,
) -> dict[str, str] | None:
    """Tells why the recipient that is waited for is accepted or not; returns what of that is kept with a refusal."""
    event, mail = session.awaiting, session.mail
    assert isinstance(event, RcptCommand)
    known = ground, event.recipient, to_recipient, None if mail is None else mail.sender, to_sender
    if conn.witness is not None:
        asked = events.LISTENER_DOMAIN in policy.handles
        handler = "{}:{}".format(*policy.registered_at(events.LISTENER_DOMAIN)) if asked else None
        conn.witness.decided(decision, *known, cached, handler)
    return {"because": because(*known)} if decision is None else None
