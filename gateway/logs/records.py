"""The log records: one pure function per type, which lays a record out as KumoMTA does. docs/log-records.md
explains every field. No I/O and no clock; what of `meta` and `headers` is shown is each logger's business
(encoding.py), so a record starts with all of the metadata.

What the records of a type have in common is a form, made of the layout once. Its gaps are filled in the layout's order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from gateway.handover import HandOver, RecipientOutcome, Status
from gateway.logs.encoding import GAP, Draft, Form, Record, to_json
from gateway.logs.identity import node_id
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.replies import Reply
from gateway.smtp.response import Response

if TYPE_CHECKING:
    from gateway.mail.message import Message
    from gateway.mail.notification import Notice
    from gateway.reports.rfc3464 import OutOfBand

Keys = dict[str, Any]

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
        self.peer_name = peer_name
        self.peer_address = peer_address
        self.session_id = session_id
        self.protocol = protocol
        self.tls_cipher = tls_cipher
        self.tls_protocol_version = tls_protocol_version
        self.tls_peer_subject_name = tls_peer_subject_name


# --- forms ------------------------------------------------------------------------------------------------------------

_TIMES = ("timestamp", "event_time", "created", "created_time")
_OF_MESSAGE = ("id", "sender", "recipient", "queue", "size", *_TIMES, "num_attempts")
_PEER = {"name": GAP, "addr": GAP}
_RESPONSE = {"code": GAP, "enhanced_code": GAP, "content": GAP, "command": GAP}
_RECEIVED = {"code": 250, "enhanced_code": None, "content": "", "command": None}


def _layout(kind: str, gaps: Iterable[str], **known: Any) -> Keys:
    """The layout with `known` values, and gaps; those that are no key of it are optional ones and go to the end."""
    return _LAYOUT | {"type": kind, "nodeid": node_id()} | known | dict.fromkeys(gaps, GAP)


def _of_session(tls: bool, session: bool = True) -> tuple[str, ...]:
    """The optional keys that tell of a session. They are absent rather than null."""
    keys = ("tls_cipher", "tls_protocol_version", "tls_peer_subject_name") if tls else ()
    return (*keys, "session_id") if session else keys


def _reception_layout(tls: bool) -> Keys:
    gaps = (*_OF_MESSAGE, "reception_protocol", *_of_session(tls))
    return _layout("Reception", gaps, response=_RECEIVED, peer_address=_PEER)


_reception_forms: dict[bool, Form] = {}  # by whether they tell of TLS


def _new_reception_form(tls: bool) -> Form:
    form = _reception_forms[tls] = Form(_reception_layout(tls))
    return form


# By what they tell of, a bit each, see _outcome().
_hand_over_forms: dict[str, dict[int, Form]] = {
    kind: {} for kind in ("Delivery", "Bounce", "TransientFailure", "Expiration", "AdminBounce")
}


def _hand_over_form(
    kind: str, peer: bool, source: bool, tls: bool, session: bool, reason: bool, notification: bool
) -> Form:
    """The form for records that tell of: the server, our own address there, …"""
    gaps = (*_OF_MESSAGE, "site", "egress_pool", "delivery_protocol", "reception_protocol", *_of_session(tls, session))
    layout = _layout(
        kind,
        (*gaps, *(("reason",) if reason else ()), *(("notification",) if notification else ())),
        response=_RESPONSE,
        peer_address=_PEER if peer else None,
        egress_source="unspecified",
        source_address={"address": GAP} if source else None,
    )
    return Form(layout)


@cache
def _rejection_form(tls: bool, added: tuple[str, ...]) -> Form:
    gaps = ("sender", "recipient", *_TIMES, *_of_session(tls), "reason", *added)
    return Form(_layout("Rejection", gaps, response=_RESPONSE, peer_address=_PEER))


@lru_cache(maxsize=256)
def _out_of_band_form(added: tuple[str, ...]) -> Form:
    gaps = ("id", "sender", "recipient", "queue", *_TIMES, "reception_protocol", *_of_session(False), *added)
    return Form(_layout("OOB", gaps, response=_RESPONSE | {"command": None}, peer_address=_PEER))


_draft = Draft()  # of whatever record is under way: they are made on one thread, one after the other


def _begun(form: Form) -> Draft:
    _draft.begin(form)
    return _draft


# --- what fills several gaps ------------------------------------------------------------------------------------------


def _put_recipients(draft: Draft, recipients: Sequence[EnvelopeAddress]) -> None:
    """One recipient is a string, several are a list."""
    if len(recipients) == 1:
        recipient = recipients[0]
        draft.text(recipient.email)
    else:
        draft.json(to_json([recipient.email for recipient in recipients] or ""))


def _put_envelope(draft: Draft, message: Message, recipients: Sequence[EnvelopeAddress], queue: str) -> None:
    sender = message.sender
    draft.text(message.id)
    draft.text(sender.email)
    _put_recipients(draft, recipients)
    draft.text(queue)


def _put_response(draft: Draft, code: int, enhanced: str, content: str) -> None:
    draft.integer(code)
    draft.json(_enhanced_code(enhanced))
    draft.text(_on_one_line(content))


_MOST_CODES = 256
_enhanced_codes: dict[str, bytes] = {}  # as records have them; those of late


def _enhanced_code(text: str) -> bytes:
    octets = _enhanced_codes.get(text)
    return _new_enhanced_code(text) if octets is None else octets


def _new_enhanced_code(text: str) -> bytes:
    if len(_enhanced_codes) >= _MOST_CODES:
        _enhanced_codes.clear()
    octets = b"null"
    if text:
        octets = to_json(dict(zip(("class", "subject", "detail"), map(int, text.split(".")), strict=True)))
    _enhanced_codes[text] = octets
    return octets


def _on_one_line(text: str) -> str:
    if "\n" not in text and "\r" not in text:
        return text
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


def _put_event_time(draft: Draft, ns: int) -> None:
    seconds = ns // 1_000_000_000
    draft.integer(seconds)
    draft.time(seconds, ns % 1_000_000_000, 9)


def _put_created(draft: Draft, message: Message) -> None:
    received_at = message.received_at
    microseconds = int(received_at * 1_000_000)
    seconds = microseconds // 1_000_000
    draft.integer(seconds)
    draft.time(seconds, microseconds % 1_000_000, 6)


def _put_session(draft: Draft, origin: Origin) -> None:
    if origin.tls_cipher is not None:
        draft.text(origin.tls_cipher)
        draft.text(origin.tls_protocol_version)
        draft.json(to_json(list(origin.tls_peer_subject_name)))
    draft.text(origin.session_id)


# --- records ----------------------------------------------------------------------------------------------------------


def reception(message: Message, origin: Origin, queue: str, now_ns: int, unreadable: str | None = None) -> Record:
    """A message was accepted.

    queue: its queue's name. now_ns: nanoseconds since 1970. unreadable: why what claimed to be a report is none.
    """
    tls = origin.tls_cipher is not None
    form = _reception_forms.get(tls) or _new_reception_form(tls)
    if unreadable is not None:
        form = Form(_reception_layout(tls) | {"report_unreadable": unreadable})
    return _accepted(form, message, origin, queue, now_ns)


def feedback(
    message: Message, origin: Origin, queue: str, report: Keys, now_ns: int, added: Keys | None = None
) -> Record:
    """A Feedback record, which takes the place of the Reception of a feedback report (ARF).

    report: what gateway.reports.rfc5965.recorded_report made of it. added: keys that KumoMTA's record does not have.
    """
    layout = _reception_layout(origin.tls_cipher is not None)
    form = Form(layout | {"type": "Feedback", "feedback_report": report} | (added or {}))
    return _accepted(form, message, origin, queue, now_ns)


def _accepted(form: Form, message: Message, origin: Origin, queue: str, now_ns: int) -> Record:
    draft = _begun(form)
    _put_envelope(draft, message, message.recipients, queue)
    draft.integer(message.size)
    draft.text(origin.peer_name)
    draft.text(origin.peer_address)
    _put_event_time(draft, now_ns)
    _put_created(draft, message)
    draft.integer(message.attempts)
    draft.leave_out_meta_and_headers()
    draft.text(origin.protocol)
    _put_session(draft, origin)
    return draft.record(message.meta)


_DELIVERED, _PERMANENT = Status.DELIVERED, Status.PERMANENT


def _type_of(status: Status) -> str:
    if status is _DELIVERED:
        return "Delivery"
    return "Bounce" if status is _PERMANENT else "TransientFailure"


def handed_over(
    message: Message,
    origin: Origin,
    queue: str,
    result: HandOver,
    now_ns: int,
    egress_pool: str | None = None,
    notice: Notice | None = None,
) -> list[Record]:
    """What became of a message that was handed over: a Delivery, Bounce or TransientFailure for each group of
    recipients with the same result. An unknown outcome is a TransientFailure with `reason` "outcome_unknown".

    notice: how the sender was told of those who bounced.
    """
    pool = egress_pool or "unspecified"
    return [
        _outcome(_type_of(outcomes[0].status), message, origin, queue, result, now_ns, pool, outcomes, notice)
        for outcomes in _same_results(result.outcomes)
    ]


def given_up(  # noqa: PLR0913, PLR0917  # all that a record tells of it
    kind: str,
    message: Message,
    origin: Origin,
    queue: str,
    response: Response,
    site: str,
    now_ns: int,
    egress_pool: str | None = None,
    notice: Notice | None = None,
) -> Record:
    """Nobody tries to deliver a message any more: an "Expiration", or an "AdminBounce" where an operator said so.

    response: why. site: where it was to go. notice: how the sender was told.
    """
    outcomes = [RecipientOutcome(recipient, _PERMANENT, response, None) for recipient in message.recipients]
    result = HandOver(outcomes, site, "ESMTP", 0.0)
    return _outcome(kind, message, origin, queue, result, now_ns, egress_pool or "unspecified", outcomes, notice)


def _outcome(  # noqa: PLR0913, PLR0917  # a record
    kind: str,
    message: Message,
    origin: Origin,
    queue: str,
    result: HandOver,
    now_ns: int,
    egress_pool: str,
    outcomes: list[RecipientOutcome],
    notice: Notice | None,
) -> Record:
    first = outcomes[0]
    answer = first.response
    peer, source = bool(result.peer_address), bool(result.source_address)
    tls, session = result.tls_cipher is not None, result.session_id is not None
    reason, tells = first.reason is not None, notice is not None and first.status is _PERMANENT
    forms, shape = _hand_over_forms[kind], peer | source << 1 | tls << 2 | session << 3 | reason << 4 | tells << 5
    form = forms.get(shape)
    if form is None:
        form = forms[shape] = _hand_over_form(kind, peer, source, tls, session, reason, tells)
    draft = _begun(form)
    _put_envelope(draft, message, [outcome.recipient for outcome in outcomes], queue)
    draft.text(result.site)
    draft.integer(message.size)
    _put_response(draft, answer.code, answer.enhanced, answer.content)
    draft.text(answer.command)
    if peer:
        draft.text(result.peer_name)
        draft.text(result.peer_address)
    _put_event_time(draft, now_ns)
    _put_created(draft, message)
    draft.integer(message.attempts)
    draft.text(egress_pool)
    if source:
        draft.text(result.source_address)
    draft.leave_out_meta_and_headers()
    draft.text(result.protocol)
    draft.text(origin.protocol)
    if tls:
        draft.text(result.tls_cipher)
        draft.text(result.tls_protocol_version)
        draft.json(b"[]")
    if session:
        draft.text(result.session_id)
    if reason:
        draft.text(str(first.reason))
    if tells and notice is not None:
        draft.json(to_json(_told(notice)))
    return draft.record(message.meta)


def _told(notice: Notice) -> Keys:
    answer = notice.response
    told: Keys = {"result": notice.result}
    if notice.id is not None:
        told["id"] = notice.id
    if answer is not None:
        told["response"] = _on_one_line(f"{answer.code} {answer.enhanced} {answer.content}".replace("  ", " "))
    return told


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
    added: Mapping[str, str | int] = {},
) -> Record:
    """A command, message or connection was refused.

    command: the line that was refused, without its line end; "DATA" after the data; None where no command was answered.
    sender: of the transaction, or the one that was refused. recipients: the refused ones: the one of a RCPT, all of
    the transaction after DATA. meta: the session's. added: `report_unreadable`, why what claimed to be a report is
    none; `left_out`, how many refusals of the session for the same reason, this one included, have no other record.
    """
    draft = _begun(_rejection_form(origin.tls_cipher is not None, tuple(added)))
    draft.text(sender.email if sender is not None else "")
    _put_recipients(draft, recipients)
    _put_response(draft, reply.code, reply.enhanced, reply.text)
    draft.text(redacted(command))
    draft.text(origin.peer_name)
    draft.text(origin.peer_address)
    _put_event_time(draft, now_ns)
    _put_event_time(draft, now_ns)  # as created and created_time
    draft.leave_out_meta_and_headers()
    _put_session(draft, origin)
    draft.text(str(reply.reason))
    for value in added.values():
        draft.json(to_json(value))
    return draft.record(meta)


def out_of_band(message: Message, origin: Origin, queue: str, bounce: OutOfBand, now_ns: int) -> Record:
    """An OOB record: a recipient of which `message`, a delivery status notification, says that it failed or is delayed.

    The sender is the one the report came back to; the peer's name is that of the reporting MTA.
    """
    draft = _begun(_out_of_band_form(tuple(bounce.added)))
    draft.text(message.id)
    draft.text(message.recipients[0].email)
    draft.text(bounce.recipient)
    draft.text(queue)
    draft.integer(bounce.code)
    draft.json(to_json(bounce.enhanced_code))
    draft.text(_on_one_line(bounce.content))
    draft.text(bounce.reporting_mta)
    draft.text(origin.peer_address)
    if bounce.attempted_at is None:
        _put_event_time(draft, now_ns)
    else:
        seconds = int(bounce.attempted_at.timestamp())
        draft.integer(seconds)
        draft.time(seconds, 0, 9)
    _put_created(draft, message)
    draft.leave_out_meta_and_headers()
    draft.text(origin.protocol)
    draft.text(origin.session_id)
    for value in bounce.added.values():
        draft.json(to_json(value))
    return draft.record(message.meta)


# Commands that are shown as they came. No other line is: after an AUTH that was refused at once, a client that did not
# wait sends its password as the next line, and a slip such as "AUHT PLAIN …" must not show one either.
_SHOWN = {"HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT"}
_SHOWN |= {"STARTTLS", "ETRN", "XCLIENT", "XFORWARD"}
# First words of protocols that end up on SMTP ports; the rest of such a line may hold a password or a cookie.
_FIRST_WORD_SHOWN = {"AUTH", "GET", "HEAD", "POST", "PUT", "OPTIONS", "CONNECT", "PROXY", "USER", "PASS", "LOGIN"}


def redacted(command: str | None) -> str | None:
    """A command without what may be a secret."""
    if command is None:
        return None
    verb = command.lstrip().partition(" ")[0].upper()
    if verb in _SHOWN or verb == "":
        return command
    return f"{verb} [redacted]" if verb in _FIRST_WORD_SHOWN else "[redacted]"
