"""The log records: one pure function per type, which lays a record out as KumoMTA does. docs/log-records.md
explains every field. No I/O and no clock; what of `meta` and `headers` is shown is each logger's business
(encoding.py), so a record starts with all of the metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gateway.logs.identity import node_id
from gateway.relay.handover import HandOver, RecipientOutcome, Status
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.replies import Reply

if TYPE_CHECKING:
    from gateway.message import Message
    from gateway.reports.rfc3464 import OutOfBand

Record = dict[str, Any]

RECORD_TYPES = ("Reception", "Delivery", "TransientFailure", "Bounce", "Rejection", "OOB", "Feedback")

# Every key in its place; a record of any type is this with its own values put in, and optional keys behind.
_LAYOUT: Record = {
    "type": "",
    "id": "",
    "sender": "",
    "recipient": "",
    "queue": "",
    "site": "",
    "size": 0,
    "response": None,
    "peer_address": None,
    "timestamp": 0,
    "event_time": "",
    "created": 0,
    "created_time": "",
    "num_attempts": 0,
    "bounce_classification": "Uncategorized",
    "egress_pool": None,
    "egress_source": None,
    "source_address": None,
    "feedback_report": None,
    "meta": {},
    "headers": {},
    "delivery_protocol": None,
    "reception_protocol": None,
    "nodeid": "",
}


class Origin:
    """What all records of one inbound session share. Make a new one when one of these values changes (EHLO, TLS).

    peer_name: the name given with EHLO or HELO, or "". peer_address: the client's IP address.
    """

    __slots__ = ("_base", "peer_address", "protocol")

    def __init__(
        self,
        peer_name: str,
        peer_address: str,
        session_id: str,
        *,
        protocol: str = "ESMTP",
        tls_cipher: str | None = None,
        tls_protocol_version: str | None = None,
        tls_peer_subject_name: Sequence[str] = (),
    ) -> None:
        self.peer_address = peer_address
        self.protocol = protocol
        self._base = _LAYOUT | {
            "peer_address": {"name": peer_name, "addr": peer_address},
            "reception_protocol": protocol,
            "nodeid": node_id(),
            **_session_keys(tls_cipher, tls_protocol_version, tls_peer_subject_name, session_id),
        }

    def record(self, values: Record) -> Record:
        """The layout with this session's values and `values`."""
        return self._base | values


_TLS_KEYS = ("tls_cipher", "tls_protocol_version", "tls_peer_subject_name")


def _session_keys(
    tls_cipher: str | None, tls_protocol_version: str | None, subject: Sequence[str], session_id: str | None
) -> Record:
    """The optional keys at the end of a record, which are absent rather than null."""
    keys: Record = {}
    if tls_cipher is not None:
        keys |= zip(_TLS_KEYS, (tls_cipher, tls_protocol_version, list(subject)), strict=True)
    if session_id is not None:
        keys["session_id"] = session_id
    return keys


@lru_cache(maxsize=8)
def _date_and_time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def rfc3339(ns: int) -> str:
    """Nanoseconds since 1970 in the form of `event_time`."""
    return f"{_date_and_time(ns // 1_000_000_000)}.{str(ns)[-9:]}Z"  # its last nine digits are the fraction


def _reception_time(message: Message) -> tuple[int, str]:
    microseconds = int(message.received_at * 1_000_000)
    seconds = microseconds // 1_000_000
    return seconds, f"{_date_and_time(seconds)}.{str(microseconds)[-6:]}Z"


def _recipient(recipients: Sequence[EnvelopeAddress]) -> str | list[str]:
    """One recipient is a string, several are a list."""
    if len(recipients) == 1:
        return recipients[0].email
    return [recipient.email for recipient in recipients] or ""


def _response(code: int, enhanced: str, content: str, command: str | None) -> Record:
    if not content.isprintable():
        content = content.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
    return {"code": code, "enhanced_code": _enhanced_code(enhanced), "content": content, "command": command}


@lru_cache(maxsize=256)
def _enhanced_code(text: str) -> dict[str, int] | None:
    if not text:
        return None
    return dict(zip(("class", "subject", "detail"), map(int, text.split(".")), strict=True))


_RECEIVED = _response(250, "", "", None)


def reception(message: Message, origin: Origin, queue: str, now_ns: int) -> Record:
    """A message was accepted. queue: its queue's name. now_ns: nanoseconds since 1970."""
    created, created_time = _reception_time(message)
    return origin.record(
        {
            "type": "Reception",
            "id": message.id,
            "sender": message.sender.email,
            "recipient": _recipient(message.recipients),
            "queue": queue,
            "size": message.size,
            "response": _RECEIVED,
            "timestamp": now_ns // 1_000_000_000,
            "event_time": rfc3339(now_ns),
            "created": created,
            "created_time": created_time,
            "num_attempts": message.attempts,
            "meta": message.meta,
        }
    )


def handed_over(
    message: Message, origin: Origin, queue: str, result: HandOver, now_ns: int, *, egress_pool: str | None = None
) -> list[Record]:
    """What became of a message that was handed over: a Delivery, Bounce or TransientFailure for each group of
    recipients with the same result. An unknown outcome is a TransientFailure with `reason` "outcome_unknown".
    """
    created, created_time = _reception_time(message)
    common = _LAYOUT | {
        "id": message.id,
        "sender": message.sender.email,
        "queue": queue,
        "site": result.site,
        "size": message.size,
        "peer_address": {"name": result.peer_name, "addr": result.peer_address} if result.peer_address else None,
        "timestamp": now_ns // 1_000_000_000,
        "event_time": rfc3339(now_ns),
        "created": created,
        "created_time": created_time,
        "num_attempts": message.attempts,
        "egress_pool": egress_pool or "unspecified",
        "egress_source": "unspecified",
        "source_address": {"address": result.source_address} if result.source_address else None,
        "meta": message.meta,
        "delivery_protocol": result.protocol,
        "reception_protocol": origin.protocol,
        "nodeid": node_id(),
        **_session_keys(result.tls_cipher, result.tls_protocol_version, (), result.session_id),
    }
    return [common | _outcome(outcomes) for outcomes in _same_results(result.outcomes)]


_TYPE_OF_OUTCOME = {
    Status.DELIVERED: "Delivery",
    Status.TRANSIENT: "TransientFailure",
    Status.PERMANENT: "Bounce",
    Status.UNKNOWN: "TransientFailure",
}


def _same_results(outcomes: Sequence[RecipientOutcome]) -> Iterable[Sequence[RecipientOutcome]]:
    if len(outcomes) == 1:
        return (outcomes,)
    groups: dict[tuple[Any, ...], list[RecipientOutcome]] = {}
    for outcome in outcomes:
        answer = outcome.response
        result = outcome.status, answer.code, answer.enhanced, answer.content, answer.command, outcome.reason
        groups.setdefault(result, []).append(outcome)
    return groups.values()


def _outcome(outcomes: Sequence[RecipientOutcome]) -> Record:
    first = outcomes[0]
    answer = first.response
    record: Record = {
        "type": _TYPE_OF_OUTCOME[first.status],
        "recipient": _recipient([outcome.recipient for outcome in outcomes]),
        "response": _response(answer.code, answer.enhanced, answer.content, answer.command),
    }
    if first.reason is not None:
        record["reason"] = str(first.reason)
    return record


def rejection(
    reply: Reply,
    origin: Origin,
    now_ns: int,
    *,
    command: str | None,
    sender: EnvelopeAddress | None = None,
    recipients: Sequence[EnvelopeAddress] = (),
    meta: Mapping[str, Any],
) -> Record:
    """A command, message or connection was refused.

    command: the line that was refused, without its line end; "DATA" after the data; None where no command was answered.
    sender: of the transaction, or the one that was refused. recipients: the refused ones: the one of a RCPT, all of
    the transaction after DATA. meta: the session's.
    """
    seconds, event_time = now_ns // 1_000_000_000, rfc3339(now_ns)
    return origin.record(
        {
            "type": "Rejection",
            "sender": sender.email if sender is not None else "",
            "recipient": _recipient(recipients),
            "response": _response(reply.code, reply.enhanced, reply.text, _shown(command)),
            "timestamp": seconds,
            "event_time": event_time,
            "created": seconds,
            "created_time": event_time,
            "meta": meta,
            "reception_protocol": None,
            "reason": str(reply.reason),
        }
    )


def out_of_band(message: Message, origin: Origin, queue: str, bounce: OutOfBand, now_ns: int) -> Record:
    """An OOB record: a recipient of which `message`, a delivery status notification, says that it failed or is delayed.

    The sender is the one the report came back to; the peer's name is that of the reporting MTA.
    """
    created, created_time = _reception_time(message)
    attempted = bounce.attempted_at
    attempt_ns = int(attempted.timestamp()) * 1_000_000_000 if attempted is not None else now_ns
    response = _response(bounce.code, "", bounce.content, None) | {"enhanced_code": bounce.enhanced_code}
    record = origin.record(
        {
            "type": "OOB",
            "id": message.id,
            "sender": message.recipients[0].email,
            "recipient": bounce.recipient,
            "queue": queue,
            "response": response,
            "peer_address": {"name": bounce.reporting_mta, "addr": origin.peer_address},
            "timestamp": attempt_ns // 1_000_000_000,
            "event_time": rfc3339(attempt_ns),
            "created": created,
            "created_time": created_time,
            "meta": message.meta,
        }
    )
    for key in _TLS_KEYS:
        record.pop(key, None)
    return record | bounce.added


def feedback(message: Message, origin: Origin, queue: str, report: Record, now_ns: int) -> Record:
    """A Feedback record, which takes the place of the Reception of a feedback report (ARF).

    report: what gateway.reports.rfc5965.feedback_report made of it.
    """
    return reception(message, origin, queue, now_ns) | {"type": "Feedback", "feedback_report": report}


# Commands that are shown as they came. No other line is: after an AUTH that was refused at once, a client that did not
# wait sends its password as the next line, and a slip such as "AUHT PLAIN …" must not show one either.
_SHOWN = {"HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT"}
_SHOWN |= {"STARTTLS", "ETRN", "XCLIENT", "XFORWARD"}
# First words of protocols that end up on SMTP ports; the rest of such a line may hold a password or a cookie.
_FIRST_WORD_SHOWN = {"AUTH", "GET", "HEAD", "POST", "PUT", "OPTIONS", "CONNECT", "PROXY", "USER", "PASS", "LOGIN"}


def _shown(command: str | None) -> str | None:
    if command is None:
        return None
    verb = command.lstrip().partition(" ")[0].upper()
    if verb in _SHOWN or verb == "":
        return command
    return f"{verb} [redacted]" if verb in _FIRST_WORD_SHOWN else "[redacted]"
