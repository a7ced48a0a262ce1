"""Delivery status notifications (RFC 3464, RFC 6533): their fields as values, for Lua and for `OOB` records.

One field that cannot be understood never loses the rest: its value is None, and its text stands beside it in a key
of its own that ends in `_raw`.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeGuard

from gateway._fastpath import Report, scan_report
from gateway.reports.dates import parse_date, rfc3339
from gateway.reports.fields import clean, decoded_words, decoded_xtext, envelope_recipient, typed
from gateway.reports.original import Fields, first_values, original_text, return_path, supplemental_trace
from gateway.reports.replies import QuotedReply, diagnostic_reply

JSON = dict[str, Any]

ACTIONS = ("failed", "delayed", "delivered", "relayed", "expanded")  # RFC 3464 §2.3.3
_ACTION_OF_CLASS = {2: "delivered", 4: "delayed", 5: "failed"}  # RFC 3463 §3.1
_STATUS = re.compile(r"#?([245])\.(\d{1,3})\.(\d{1,3})(?!\d)\s*(.*)", re.ASCII | re.DOTALL)
_BASIC = re.compile(r"#?([245]\d\d)\b\D{0,3}", re.ASCII)
_INSIDE = re.compile(r"(?<![\w.])([245])\.([0-7])\.(\d{1,3})(?!\d|\.\d)", re.ASCII)
SHOWN_HEADERS = {name.lower(): name for name in ("From", "To", "Subject", "Date", "Message-ID")}  # of the original
# Limits on what many recipients can make of one original in records: characters of a header field, entries that tell
# of the original at all.
MAX_SHOWN = 1000
MAX_DESCRIBED = 100
NO_REPLY_CODE = 550  # what KumoMTA records where the report tells no SMTP reply


class ReportError(ValueError):
    """The message claims to be a report and is none; the text is one of `_fastpath.UNREADABLE_REASONS`."""


# --- values of fields ---


def named(value: str) -> JSON | None:
    """`Reporting-MTA` and the like: type and name of an MTA; None without type or name."""
    kind, name = typed(value)
    return {"mta_type": clean(kind), "name": decoded_words(name)} if kind and name else None


def diagnostic(value: str) -> JSON | None:
    """`Diagnostic-Code`: type and text; None without type."""
    kind, text = typed(value)
    return {"diagnostic_type": clean(kind), "diagnostic": decoded_words(text)} if kind else None


def action(value: str) -> str | None:
    """`Action`: one of ACTIONS, in any case and with a comment behind it; None for anything else."""
    word = value.replace("(", " ").lower().split()
    return word[0] if word and word[0] in ACTIONS else None


def status(value: str) -> JSON | None:
    """`Status`: class, subject, detail and what stands behind them (RFC 3463)."""
    match = _STATUS.match(value)
    if match is None:
        return None
    kind, subject, detail, comment = match.groups()
    return {
        "class": int(kind),
        "subject": int(subject),
        "detail": int(detail),
        "comment": decoded_words(comment) or None,
    }


def recipient(value: str) -> JSON | None:
    """`Final-Recipient`, `Original-Recipient`: type and address; None where they cannot be told."""
    kind, address, understood = envelope_recipient(value)
    return {"recipient_type": clean(kind), "recipient": address} if understood else None


def date(value: str) -> str | None:
    """A date as RFC 3339 in UTC."""
    moment = parse_date(value)
    return rfc3339(moment) if moment else None


def status_or_code(value: str) -> tuple[JSON | None, int | None]:
    """`Status` as records have it: (class, subject and detail, or None; the reply code in its place, or None)."""
    code = _BASIC.match(value)
    match = _STATUS.match(value[code.end() :] if code else value) or _INSIDE.search(value[:MAX_SHOWN])
    grade = {"class": int(match[1]), "subject": int(match[2]), "detail": int(match[3])} if match else None
    return grade, int(code[1]) if code else None


def is_refusal(code: int | None) -> TypeGuard[int]:
    """Whether there is a reply code, and one of refusal."""
    return code is not None and code >= 400


# --- the shape for Lua ---

# name of a field -> key of its value, how to read it
Readers = dict[str, tuple[str, Callable[[str], Any]]]

PER_MESSAGE: Readers = {
    "original-envelope-id": ("original_envelope_id", decoded_words),
    "reporting-mta": ("reporting_mta", named),
    "dsn-gateway": ("dsn_gateway", named),
    "received-from-mta": ("received_from_mta", named),
    "arrival-date": ("arrival_date", date),
}
PER_RECIPIENT: Readers = {
    "final-recipient": ("final_recipient", recipient),
    "action": ("action", action),
    "status": ("status", status),
    "original-recipient": ("original_recipient", recipient),
    "remote-mta": ("remote_mta", named),
    "diagnostic-code": ("diagnostic_code", diagnostic),
    "last-attempt-date": ("last_attempt_date", date),
    "final-log-id": ("final_log_id", decoded_words),
    "will-retry-until": ("will_retry_until", date),
}


def extension(value: str) -> str | list[int]:
    """A field nobody knows: its text, or the numbers of its octets where they are not UTF-8."""
    octets = value.encode("utf-8", "surrogateescape")
    try:
        octets.decode()
    except UnicodeDecodeError:
        return list(octets)
    return decoded_words(value)


def understood(fields: dict[str, str], readers: Readers) -> tuple[JSON, JSON]:
    """(values, raw) of the fields that `readers` knows and that are not empty; raw: the text of those whose value is
    None, under `…_raw`."""
    values: JSON = {}
    raw: JSON = {}
    for name, text in fields.items():
        if text and name in readers:
            key, read = readers[name]
            values[key] = read(text)
            if values[key] is None:
                raw[f"{key}_raw"] = clean(text)
    return values, raw


def shape(fields: dict[str, str], readers: Readers) -> JSON:
    """Every field of `readers`, None if it is missing; the others under `extensions`."""
    values, raw = understood(fields, readers)
    extensions = {name: [extension(text)] for name, text in fields.items() if name not in readers}
    return {key: None for key, _ in readers.values()} | values | raw | {"extensions": extensions}


def bounce_report(report: Report, message: bytes) -> JSON:
    """What `msg:parse_rfc3464()` returns; `message` is what was scanned."""
    return {
        "per_message": shape(report.per_message or {}, PER_MESSAGE),
        "per_recipient": [shape(group, PER_RECIPIENT) for group in report.per_recipient or ()],
        "original_message": original_text(report, message),
    }


def parse(message: bytes) -> JSON | None:
    """The report as `msg:parse_rfc3464()` returns it; None for a message that is no DSN.

    Raises ReportError for one that claims to be a report and cannot be read.
    """
    report = scan_report(message)
    if report is None or report.kind == "arf" or report.reason == "no_feedback_type":
        return None
    if report.kind == "unreadable":
        raise ReportError(report.reason)
    return bounce_report(report, message)


# --- out-of-band bounces for the log ---

# Status and Diagnostic-Code are read more widely than Lua's shape has them: _entry().
_FOR_THE_LOG: Readers = {
    name: reader for name, reader in PER_RECIPIENT.items() if name not in ("status", "diagnostic-code")
} | {"last-attempt-date": ("last_attempt_date", parse_date)}


class OutOfBand:
    """What an `OOB` record says of one recipient.

    recipient: Original-Recipient, else Final-Recipient, as an envelope address where it is one; "" where an inferred
    report does not tell.
    action: "failed" or "delayed"; from the status where Action is no known word.
    enhanced_code: class, subject and detail of Status, else of the reply. attempted_at: Last-Attempt-Date in UTC.
    added: keys that KumoMTA's record does not have.
    """

    def __init__(
        self,
        recipient: str,
        action: str,
        code: int,
        content: str,
        enhanced_code: JSON | None,
        reporting_mta: str,
        attempted_at: datetime | None,
        added: JSON,
    ) -> None:
        self.recipient = recipient
        self.action = action
        self.code = code
        self.content = content
        self.enhanced_code = enhanced_code
        self.reporting_mta = reporting_mta
        self.attempted_at = attempted_at
        self.added = added


def out_of_band(report: Report, original: Fields, excerpt: str | None = None) -> list[OutOfBand]:
    """One entry for each recipient that failed or is delayed; `original`: `original.quoted_fields` of the report.

    excerpt: of the text for people, for entries without a diagnostic.
    """
    fields = report.per_message or {}
    mta = clean(typed(fields.get("reporting-mta", ""))[1])[:MAX_SHOWN]
    marks: JSON = {"inferred": True} if report.inferred else {}
    marks |= {"multipart_mixed": True} if report.mixed else {}
    described = marks | _described(fields, original)
    groups = report.per_recipient or []
    entries = [_entry(group, mta, described, excerpt) for group in groups[:MAX_DESCRIBED]]
    entries += [_entry(group, mta, marks, None) for group in groups[MAX_DESCRIBED:]]
    return [entry for entry in entries if entry is not None]


def _described(fields: dict[str, str], original: Fields) -> JSON:
    """What the report tells of the original, in added keys."""
    told: JSON = {}
    if envelope_id := fields.get("original-envelope-id"):
        told["original_envelope_id"] = clean(envelope_id)[:MAX_SHOWN]
    values = first_values(original)
    if (path := return_path(values)) is not None:
        told["original_return_path"] = path[:MAX_SHOWN]
    if (trace := supplemental_trace(original)) is not None:
        told["supplemental_trace"] = trace
    if headers := {name: values[key][:MAX_SHOWN] for key, name in SHOWN_HEADERS.items() if key in values}:
        told["original_headers"] = headers
    return told


def _entry(group: dict[str, str], mta: str, shared: JSON, excerpt: str | None) -> OutOfBand | None:
    recipient, final = _recipients(group)
    if recipient is None and not ("inferred" in shared and len(group) > 0):
        return None
    values, raw = understood(group, _FOR_THE_LOG)
    get = values.get
    reply = diagnostic_reply(group.get("diagnostic-code") or "")
    grade, basic = status_or_code(group.get("status") or "")
    done = get("action") or _ACTION_OF_CLASS[_class(grade, basic, reply)]
    if done not in ("failed", "delayed"):
        return None
    added: JSON = {"action": done, **shared, **raw}
    if not (group.get("action") or group.get("status")):
        added["inferred"] = True  # the reply alone says what happened
    if final is not None and final.lower() != (recipient or "").lower():
        added["final_recipient"] = final
    added |= _told(group, grade, basic, reply)
    if remote := get("remote_mta"):
        added["remote_mta"] = remote["name"]
    added |= {key: values[key] for key in ("final_log_id", "will_retry_until") if get(key)}
    if excerpt is not None and not group.get("diagnostic-code"):
        added["excerpt"] = excerpt
    if grade is None and reply.enhanced:
        grade = dict(zip(("class", "subject", "detail"), map(int, reply.enhanced.split(".")), strict=True))
    # Of what is delayed nothing was refused for good.
    return OutOfBand(
        recipient=recipient or "",
        action=done,
        code=_code(reply.code, basic, done),
        content=reply.text,
        enhanced_code=grade,
        reporting_mta=mta,
        attempted_at=get("last_attempt_date"),
        added=added,
    )


def _recipients(group: dict[str, str]) -> tuple[str | None, str | None]:
    """(who the message was sent to, who the report says failed): they differ where an address stands for others, and
    the second is None where only the first is named."""
    original, final = _address(group.get("original-recipient")), _address(group.get("final-recipient"))
    if original is not None and "+" in original:  # as ORCPT has it, where nobody has decoded that
        plain = decoded_xtext(original)
        original = plain if plain == final or "@" not in original else original
    return (final, None) if original is None else (original, final)


def _address(value: str | None) -> str | None:
    return envelope_recipient(value)[1] or None if value else None


def _class(grade: JSON | None, basic: int | None, reply: QuotedReply) -> int:
    """The class of what happened (RFC 3463 §3.1), by the most explicit that is there; 5 where nothing is."""
    if grade is not None:
        return int(grade["class"])
    return basic // 100 if basic is not None else reply.reply_class or 5


def _code(quoted: int | None, basic: int | None, done: str) -> int:
    """The first reply code that is a refusal's: one of success does not tell what went wrong."""
    for code in (quoted, basic):
        if is_refusal(code):
            return code
    return 450 if done == "delayed" else NO_REPLY_CODE


def _told(group: dict[str, str], grade: JSON | None, basic: int | None, reply: QuotedReply) -> JSON:
    """Added keys: the diagnostic where it is of another type than smtp, and what could not be understood."""
    told: JSON = {}
    status_text, diagnostic_text = group.get("status"), group.get("diagnostic-code")
    if status_text and grade is None and basic is None:
        told["status_raw"] = clean(status_text)
    quoted = diagnostic(diagnostic_text) if diagnostic_text else None
    if quoted is not None and quoted["diagnostic_type"] != "smtp" and quoted["diagnostic_type"][:1].isalpha():
        told["diagnostic_code"] = quoted
    return told
