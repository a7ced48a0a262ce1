"""Delivery status notifications (RFC 3464, RFC 6533): their fields as values, for Lua and for `OOB` records.

One field that cannot be understood never loses the rest: its value is None, and its text stands beside it in a key
of its own that ends in `_raw`.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from gateway._fastpath import Report, scan_report
from gateway.reports.dates import parse_date, rfc3339
from gateway.reports.fields import clean, decoded_words, envelope_recipient, typed
from gateway.reports.original import Fields, first_values, original_text, return_path, supplemental_trace

JSON = dict[str, Any]

ACTIONS = ("failed", "delayed", "delivered", "relayed", "expanded")  # RFC 3464 §2.3.3
_ACTION_OF_CLASS = {2: "delivered", 4: "delayed", 5: "failed"}  # RFC 3463 §3.1
_STATUS = re.compile(r"#?([245])\.(\d{1,3})\.(\d{1,3})(?!\d)\s*(.*)", re.ASCII | re.DOTALL)
_REPLY = re.compile(r"([2-5]\d\d)(?:[ \t-]\s*(.*))?", re.ASCII | re.DOTALL)
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


def smtp_response(value: str | None, no_reply_code: int = NO_REPLY_CODE) -> tuple[int, str]:
    """(code, text) of the SMTP reply that a `Diagnostic-Code` quotes; also out of `550-5.1.1 …` forms.

    A text without type counts if it begins with a code. Otherwise the code is `no_reply_code`, and the text is ""
    where the type is not smtp.
    """
    kind, text = typed(value or "")
    match = _REPLY.fullmatch(text) if kind is None or kind == "smtp" else None
    if match is None:
        return no_reply_code, clean(text) if kind == "smtp" else ""
    return int(match[1]), clean(match[2] or "")


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

_FOR_THE_LOG = PER_RECIPIENT | {"last-attempt-date": ("last_attempt_date", parse_date)}


class OutOfBand:
    """What an `OOB` record says of one recipient.

    recipient: Original-Recipient, else Final-Recipient, as an envelope address where it is one.
    action: "failed" or "delayed"; from the status where Action is no known word.
    enhanced_code: class, subject and detail of Status. attempted_at: Last-Attempt-Date in UTC.
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


def out_of_band(report: Report, original: Fields) -> list[OutOfBand]:
    """One entry for each recipient that failed or is delayed; `original`: `original.quoted_fields` of the report."""
    fields = report.per_message or {}
    mta = clean(typed(fields.get("reporting-mta", ""))[1])[:MAX_SHOWN]
    marks: JSON = {"multipart_mixed": True} if report.mixed else {}
    described = marks | _described(fields, original)
    groups = report.per_recipient or []
    entries = [_entry(group, mta, described) for group in groups[:MAX_DESCRIBED]]
    entries += [_entry(group, mta, marks) for group in groups[MAX_DESCRIBED:]]
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


def _entry(group: dict[str, str], mta: str, shared: JSON) -> OutOfBand | None:
    values, raw = understood(group, _FOR_THE_LOG)
    get = values.get
    grade = get("status")
    done = get("action") or _ACTION_OF_CLASS[grade["class"] if grade else 5]
    original = group.get("original-recipient")
    written = original or group.get("final-recipient")
    if done not in ("failed", "delayed") or not written:
        return None
    address = get("original_recipient" if original else "final_recipient")
    # Of what is delayed nothing was refused for good.
    code, content = smtp_response(group.get("diagnostic-code"), 450 if done == "delayed" else NO_REPLY_CODE)
    added = {"action": done, **shared, **raw}
    if (quoted := get("diagnostic_code")) and quoted["diagnostic_type"] != "smtp":
        added["diagnostic_code"] = quoted
    if remote := get("remote_mta"):
        added["remote_mta"] = remote["name"]
    added |= {key: values[key] for key in ("final_log_id", "will_retry_until") if get(key)}
    return OutOfBand(
        recipient=address["recipient"] if address else envelope_recipient(written)[1],
        action=done,
        code=code,
        content=content,
        enhanced_code={part: grade[part] for part in ("class", "subject", "detail")} if grade else None,
        reporting_mta=mta,
        attempted_at=get("last_attempt_date"),
        added=added,
    )
