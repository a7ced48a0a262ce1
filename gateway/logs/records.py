"""The log records: one pure function per type, which lays a record out as KumoMTA does. docs/log-records.md
explains every field. No I/O and no clock; what of `meta` and `headers` is shown is each logger's business
(encoding.py), so a record starts with all of the metadata.

A type that comes with every message has a form, made of the layout once; a rare one is laid out each time.

This module is compiled (records.pxd has its types), and runs as plain Python, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from gateway.logs.encoding import GAP, Form, Record, to_json
from gateway.logs.identity import node_id
from gateway.relay.handover import HandOver, RecipientOutcome, Status
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.replies import Reply

if TYPE_CHECKING:
    from gateway.message import Message
    from gateway.reports.rfc3464 import OutOfBand

Keys = dict[str, Any]

RECORD_TYPES = ("Reception", "Delivery", "TransientFailure", "Bounce", "Rejection", "OOB", "Feedback")

# Every key in its place; a record of any type is this with its own values put in, and optional keys behind.
_LAYOUT: Keys = {
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
    "meta": GAP,
    "headers": GAP,
    "delivery_protocol": None,
    "reception_protocol": None,
    "nodeid": "",
}


class Origin:
    """What all records of one inbound session share. Make a new one when one of these values changes (EHLO, TLS).

    peer_name: the name given with EHLO or HELO, or "". peer_address: the client's IP address.
    """

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
        self._peer = {"name": peer_name, "addr": peer_address}
        self._session = _session(tls_cipher, tls_protocol_version, tls_peer_subject_name, session_id)
        self.peer_json = to_json(self._peer)
        self.optional_keys = tuple(self._session)
        self.without_tls = _session(None, None, (), session_id)
        self.behind = (protocol, *[_json_of_list(value) for value in self._session.values()])

    def layout(self, values: Keys) -> Keys:
        """The layout with this session's values and `values`."""
        session = {"peer_address": self._peer, "reception_protocol": self.protocol, "nodeid": node_id()}
        return _LAYOUT | session | self._session | values


_TLS_KEYS = ("tls_cipher", "tls_protocol_version", "tls_peer_subject_name")


def _session(
    tls_cipher: str | None, tls_protocol_version: str | None, subject: Sequence[str], session_id: str | None
) -> Keys:
    """The optional keys at the end of a record, which are absent rather than null."""
    keys: Keys = {}
    if tls_cipher is not None:
        keys |= zip(_TLS_KEYS, (tls_cipher, tls_protocol_version, list(subject)), strict=True)
    if session_id is not None:
        keys["session_id"] = session_id
    return keys


def _json_of_list(value: Any) -> Any:
    return to_json(value) if isinstance(value, list) else value


class _Second:
    """The second that was written last: records come in runs of the same."""

    def __init__(self) -> None:
        self.seconds = 0
        self.text = "1970-01-01T00:00:00"


_last = _Second()


def _date_and_time(seconds: int) -> str:
    if seconds != _last.seconds:
        _last.seconds = seconds
        _last.text = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
    return _last.text


def rfc3339(ns: int) -> str:
    """Nanoseconds since 1970 in the form of `event_time`."""
    seconds = ns // 1_000_000_000
    fraction = ns % 1_000_000_000
    return f"{_date_and_time(seconds)}.{fraction:09d}Z"


def _rfc3339_to_the_microsecond(microseconds: int) -> str:
    """Microseconds since 1970 in the form of `created_time`."""
    seconds = microseconds // 1_000_000
    fraction = microseconds % 1_000_000
    return f"{_date_and_time(seconds)}.{fraction:06d}Z"


def _recipient(recipients: Sequence[EnvelopeAddress]) -> str | list[str]:
    """One recipient is a string, several are a list."""
    if len(recipients) == 1:
        return recipients[0].email
    return [recipient.email for recipient in recipients] or ""


def _response(code: int, enhanced: str, content: str, command: str | None) -> Keys:
    return {
        "code": code,
        "enhanced_code": _enhanced_code(enhanced),
        "content": _on_one_line(content),
        "command": command,
    }


def _on_one_line(text: str) -> str:
    if text.isprintable():
        return text
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


@lru_cache(maxsize=256)
def _enhanced_code(text: str) -> dict[str, int] | None:
    if not text:
        return None
    return dict(zip(("class", "subject", "detail"), map(int, text.split(".")), strict=True))


_RECEIVED = _response(250, "", "", None)


# Gaps of the forms, by what fills them. Wherever they are named, values go in in the layout's order.
_OF_MESSAGE = ("id", "sender", "recipient", "queue", "size", "created", "created_time", "num_attempts")
_OF_EVENT = ("peer_address", "timestamp", "event_time", "reception_protocol")
_OF_HAND_OVER = ("site", "egress_pool", "source_address", "delivery_protocol")
_OF_RESPONSE = ("code", "enhanced_code", "content", "command")


def _reception_layout(optional_keys: tuple[str, ...]) -> Keys:
    gaps = (*_OF_MESSAGE, *_OF_EVENT, *optional_keys)
    return _LAYOUT | {"type": "Reception", "response": _RECEIVED, "nodeid": node_id()} | dict.fromkeys(gaps, GAP)


@cache
def _reception_form(optional_keys: tuple[str, ...]) -> Form:
    return Form(_reception_layout(optional_keys))


def _accepted(form: Form, message: Message, origin: Origin, queue: str, now_ns: int) -> Record:
    created = int(message.received_at * 1_000_000)
    values = (
        message.id,
        message.sender.email,
        _json_of_list(_recipient(message.recipients)),
        queue,
        message.size,
        origin.peer_json,
        now_ns // 1_000_000_000,
        rfc3339(now_ns),
        created // 1_000_000,
        _rfc3339_to_the_microsecond(created),
        message.attempts,
    )
    return Record(form, message.meta, values, origin.behind)


def reception(message: Message, origin: Origin, queue: str, now_ns: int, unreadable: str | None = None) -> Record:
    """A message was accepted.

    queue: its queue's name. now_ns: nanoseconds since 1970. unreadable: why what claimed to be a report is none.
    """
    form = _reception_form(origin.optional_keys)
    if unreadable is not None:
        form = Form(_reception_layout(origin.optional_keys) | {"report_unreadable": unreadable})
    return _accepted(form, message, origin, queue, now_ns)


def feedback(message: Message, origin: Origin, queue: str, report: Keys, now_ns: int) -> Record:
    """A Feedback record, which takes the place of the Reception of a feedback report (ARF).

    report: what gateway.reports.rfc5965.feedback_report made of it.
    """
    form = Form(_reception_layout(origin.optional_keys) | {"type": "Feedback", "feedback_report": report})
    return _accepted(form, message, origin, queue, now_ns)


@cache
def _hand_over_form(kind: str, optional_keys: tuple[str, ...]) -> Form:
    gaps = (*_OF_MESSAGE, *_OF_EVENT, *_OF_HAND_OVER, *optional_keys)
    response = dict.fromkeys(_OF_RESPONSE, GAP)
    known = {"type": kind, "response": response, "egress_source": "unspecified", "nodeid": node_id()}
    return Form(_LAYOUT | known | dict.fromkeys(gaps, GAP))


@lru_cache(maxsize=256)
def _enhanced_code_json(text: str) -> bytes:
    return to_json(_enhanced_code(text))


@lru_cache(maxsize=1024)
def _upstream_json(name: str, address: str, source: str | None) -> tuple[bytes | None, bytes | None]:
    """`peer_address` and `source_address`; None where there was no connection."""
    return (
        to_json({"name": name, "addr": address}) if address else None,
        to_json({"address": source}) if source else None,
    )


_DELIVERED, _PERMANENT = Status.DELIVERED, Status.PERMANENT


def _type_of(status: Status) -> str:
    if status is _DELIVERED:
        return "Delivery"
    return "Bounce" if status is _PERMANENT else "TransientFailure"


def handed_over(
    message: Message, origin: Origin, queue: str, result: HandOver, now_ns: int, egress_pool: str | None = None
) -> list[Record]:
    """What became of a message that was handed over: a Delivery, Bounce or TransientFailure for each group of
    recipients with the same result. An unknown outcome is a TransientFailure with `reason` "outcome_unknown".
    """
    return [
        _outcome(message, origin, queue, result, now_ns, egress_pool or "unspecified", outcomes)
        for outcomes in _same_results(result.outcomes)
    ]


def _outcome(
    message: Message,
    origin: Origin,
    queue: str,
    result: HandOver,
    now_ns: int,
    egress_pool: str,
    outcomes: list[RecipientOutcome],
) -> Record:
    first = outcomes[0]
    answer = first.response
    created = int(message.received_at * 1_000_000)
    peer_address, source_address = _upstream_json(result.peer_name, result.peer_address, result.source_address)
    optional = _session(result.tls_cipher, result.tls_protocol_version, (), result.session_id)
    if first.reason is not None:
        optional["reason"] = str(first.reason)
    values = (
        message.id,
        message.sender.email,
        _json_of_list(_recipient([outcome.recipient for outcome in outcomes])),
        queue,
        result.site,
        message.size,
        answer.code,
        _enhanced_code_json(answer.enhanced),
        _on_one_line(answer.content),
        answer.command,
        peer_address,
        now_ns // 1_000_000_000,
        rfc3339(now_ns),
        created // 1_000_000,
        _rfc3339_to_the_microsecond(created),
        message.attempts,
        egress_pool,
        source_address,
    )
    behind = (result.protocol, origin.protocol, *[_json_of_list(value) for value in optional.values()])
    form = _hand_over_form(_type_of(first.status), tuple(optional))
    return Record(form, message.meta, values, behind)


def _same_results(outcomes: list[RecipientOutcome]) -> list[list[RecipientOutcome]]:
    if len(outcomes) == 1:
        return [outcomes]
    groups: dict[tuple[Any, ...], list[RecipientOutcome]] = {}
    for outcome in outcomes:
        answer = outcome.response
        result = outcome.status, answer.code, answer.enhanced, answer.content, answer.command, outcome.reason
        groups.setdefault(result, []).append(outcome)
    return list(groups.values())


def rejection(
    reply: Reply,
    origin: Origin,
    now_ns: int,
    *,
    command: str | None,
    sender: EnvelopeAddress | None = None,
    recipients: Sequence[EnvelopeAddress] = (),
    meta: Mapping[str, Any],
    unreadable: str | None = None,
) -> Record:
    """A command, message or connection was refused.

    command: the line that was refused, without its line end; "DATA" after the data; None where no command was answered.
    sender: of the transaction, or the one that was refused. recipients: the refused ones: the one of a RCPT, all of
    the transaction after DATA. meta: the session's. unreadable: why what claimed to be a report is none.
    """
    seconds, event_time = now_ns // 1_000_000_000, rfc3339(now_ns)
    layout = origin.layout(
        {
            "type": "Rejection",
            "sender": sender.email if sender is not None else "",
            "recipient": _recipient(recipients),
            "response": _response(reply.code, reply.enhanced, reply.text, _shown(command)),
            "timestamp": seconds,
            "event_time": event_time,
            "created": seconds,
            "created_time": event_time,
            "reception_protocol": None,
            "reason": str(reply.reason),
        }
    )
    if unreadable is not None:
        layout["report_unreadable"] = unreadable
    return Record(Form(layout), meta)


@lru_cache(maxsize=256)
def _out_of_band_form(optional_keys: tuple[str, ...]) -> Form:
    gaps = ("id", "sender", "recipient", "queue", "created", "created_time", *_OF_EVENT, *optional_keys)
    response = dict.fromkeys(_OF_RESPONSE, GAP) | {"command": None}
    known = {"type": "OOB", "response": response, "nodeid": node_id()}
    return Form(_LAYOUT | known | dict.fromkeys(gaps, GAP))


def out_of_band(message: Message, origin: Origin, queue: str, bounce: OutOfBand, now_ns: int) -> Record:
    """An OOB record: a recipient of which `message`, a delivery status notification, says that it failed or is delayed.

    The sender is the one the report came back to; the peer's name is that of the reporting MTA.
    """
    created = int(message.received_at * 1_000_000)
    attempted = bounce.attempted_at
    attempt_ns = int(attempted.timestamp()) * 1_000_000_000 if attempted is not None else now_ns
    optional = {**origin.without_tls, **bounce.added}
    values = (
        message.id,
        message.recipients[0].email,
        bounce.recipient,
        queue,
        bounce.code,
        to_json(bounce.enhanced_code),
        _on_one_line(bounce.content),
        to_json({"name": bounce.reporting_mta, "addr": origin.peer_address}),
        attempt_ns // 1_000_000_000,
        rfc3339(attempt_ns),
        created // 1_000_000,
        _rfc3339_to_the_microsecond(created),
    )
    behind = (origin.protocol, *[value if isinstance(value, str) else to_json(value) for value in optional.values()])
    return Record(_out_of_band_form(tuple(optional)), message.meta, values, behind)


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
