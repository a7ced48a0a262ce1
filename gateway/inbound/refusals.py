"""Refusals: the one place that counts and records what a client was refused, a whole connection or one command.

What is refused, and with which reply, is decided elsewhere; the reply is sent elsewhere.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import _fastpath as fp
from gateway import metrics
from gateway.delivery.services import Services
from gateway.logs import records
from gateway.logs.identity import new_session_id
from gateway.metrics.stages import CONNECTION_REASONS
from gateway.policy.conn_meta import ConnMeta
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.commands import address_in
from gateway.smtp.events import MessageReceived
from gateway.smtp.replies import Reason, Reply
from gateway.smtp.session import NO_COMMAND, ServerSession
from gateway.smtp.states import END_OF_DATA
from gateway.smtp.xclient import without_login
from gateway.tracing.witness import Session
from gateway.tracing.words import MOST_NAMED

log = logging.getLogger(__name__)

MOST_ALIKE = 100  # records for one reason, until the session's next message is taken: more of them tell nothing new
EVERY = 1000  # of the refusals without a record of their own, one has a record after all, which tells their number

_STAGES = {
    NO_COMMAND: "connect",
    fp.MAIL: "mail",
    fp.RCPT: "rcpt",
    fp.DATA: "data",
    fp.BDAT: "data",
    END_OF_DATA: "data",
    fp.STARTTLS: "tls",
    fp.AUTH: "auth",
}
_NOTHING: dict[str, str | int] = {}
_NO_WORDS: dict[str, str] = {}
_LEFT_OUT = metrics.REJECTIONS_LEFT_OUT.slot()
_REFUSED = metrics.MESSAGES.slot("refused")
_UNKNOWN = metrics.MESSAGES.slot("unknown")
_CONNECTIONS = {reason: metrics.CONNECTIONS_REFUSED.slot(reason) for reason in CONNECTION_REASONS}


class _Alike:
    """The refusals of one session for one reason: those that may still have a record, and those that had none."""

    def __init__(self) -> None:
        self.room = MOST_ALIKE
        self.left_out = 0
        self.last: Reply | None = None


class RefusedCommand:
    """What was refused, and why. command: as a record shows it. sender, recipients: whom it concerns. added: to the
    record.
    """

    def __init__(
        self,
        verb: int,
        argument: bytes,
        under_way: ServerSession | MessageReceived,
        unreadable: str | None,
        why: Mapping[str, str] | None,
    ) -> None:
        """verb, argument: as an Observer gets them. under_way: knows the transaction. unreadable: why what claimed to
        be a report was taken for none. why: what decided.
        """
        mail = under_way.mail
        self.command = shown_command(verb, argument)
        self.sender = None if mail is None else mail.sender
        self.recipients: Sequence[EnvelopeAddress] = under_way.recipients if verb == END_OF_DATA else []
        self.added = _NOTHING if unreadable is None else {"report_unreadable": unreadable}
        self.why = _NO_WORDS if why is None else why
        if verb == fp.MAIL:
            self.sender = address_in(argument) or self.sender
        elif verb == fp.RCPT:
            recipient = address_in(argument)
            self.recipients = [] if recipient is None else [recipient]


class Refusals:
    """What one session's client is refused."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._alike: dict[Reason, _Alike] | None = None  # few clients are refused anything

    def refused(
        self,
        verb: int,
        reply: Reply,
        origin: records.Origin,
        conn: ConnMeta,
        refused: RefusedCommand,
        told: bool,
    ) -> None:
        """A reply that refuses something. verb: as an Observer gets it. told: it is worth a record."""
        assert reply.reason is not None
        page = self._services.page
        added = refused.added
        _count(page, stage_of(verb), reply.reason)
        if verb == END_OF_DATA:  # each message has its record, however many there are
            page.add(_UNKNOWN if reply.reason is Reason.OUTCOME_UNKNOWN else _REFUSED)
        elif verb != NO_COMMAND:
            alike = self._of(reply.reason)
            alike.room -= 1
            if alike.room < 0 or not told:
                alike.last = reply
                alike.left_out += 1
                page.add(_LEFT_OUT)
                if alike.left_out < EVERY:
                    return
                added = {**added, "left_out": alike.left_out}
                alike.left_out = 0
        self._services.tracer.refused(
            reply,
            session_id=origin.session_id,
            peer_address=origin.peer_address,
            ehlo=origin.peer_name,
            meta=conn.values,
            hidden=conn.secret,
            command=refused.command,
            sender=None if refused.sender is None else refused.sender.email,
            recipients=[each.email for each in refused.recipients[:MOST_NAMED]],
            **refused.why,
        )
        self._services.logs.submit(
            records.rejection(
                reply,
                origin,
                self._services.now_ns(),
                command=refused.command,
                sender=refused.sender,
                recipients=refused.recipients,
                meta=conn.values,
                added=added,
            )
        )

    def begin_anew(self, origin: records.Origin, meta: Mapping[str, Any]) -> None:
        """The session is over, or a message was taken: this client does its work, and what it is refused from now on is
        worth a record again. Tells how many refusals have had none.
        """
        if self._alike is None:
            return
        for alike in self._alike.values():
            if alike.left_out:
                assert alike.last is not None
                now_ns, added = self._services.now_ns(), {"left_out": alike.left_out}
                record = records.rejection(alike.last, origin, now_ns, command=None, meta=meta, added=added)
                self._services.logs.submit(record)
        self._alike = None

    def _of(self, reason: Reason) -> _Alike:
        if self._alike is None:
            self._alike = {}
        alike = self._alike.get(reason)
        if alike is None:
            alike = self._alike[reason] = _Alike()
        return alike


def shown_command(verb: int, argument: bytes) -> str | None:
    """A command as a record shows it; None where a reply answers none."""
    if verb in (END_OF_DATA, NO_COMMAND):
        return "DATA" if verb == END_OF_DATA else None
    command = f"{fp.VERB_NAMES[verb]} {argument.decode('utf-8', 'replace')}".rstrip()
    return without_login(command) if verb == fp.XCLIENT else command


def stage_of(verb: int) -> str:
    """Where a session stands with a reply: the word of metrics. verb: as an Observer gets it."""
    return _STAGES.get(verb, "command")


def connection_refused(services: Services, reply: Reply) -> None:
    """Counts a connection that gets this reply instead of the banner."""
    assert reply.reason is not None
    services.page.add(_CONNECTIONS[reply.reason])


def turned_away(
    services: Services, reply: Reply, peer_address: str, meta: Mapping[str, Any], told: bool = True
) -> None:
    """A connection was refused before it had a session. told: it is worth a record."""
    assert reply.reason is not None
    connection_refused(services, reply)
    _count(services.page, "connect", reply.reason)
    if not told:
        services.page.add(_LEFT_OUT)
        return
    origin = records.Origin("", peer_address, new_session_id())
    services.tracer.refused(
        reply, session_id=origin.session_id, peer_address=peer_address, ehlo="", meta=meta, hidden=frozenset()
    )
    if services.traced and peer_address:
        packed = ipaddress.ip_address(peer_address).packed
        session = Session(origin.session_id, packed, peer_address, "", services.monotonic())
        services.tracer.turned_away(session, reply)
    if reply.reason is not Reason.STORAGE and not services.logs.full:  # a flood of records must not make that worse
        services.logs.submit(records.rejection(reply, origin, services.now_ns(), command=None, meta=meta))


def _count(page: fp.CounterPage, stage: str, reason: Reason) -> None:
    slot = metrics.REJECTIONS.slots.get((stage, reason))
    if slot is None:  # a fault of REFUSED_AT, which must not cost a client its reply
        log.error("refused at %s for %s: no series counts that", stage, reason)
        return
    page.add(slot)
