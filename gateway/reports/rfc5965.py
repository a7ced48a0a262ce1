"""Feedback reports (RFC 5965, "ARF"): their fields as values, for Lua and for `Feedback` records.

As in `rfc3464`, a field that cannot be understood is None and its text stands beside it under `…_raw`.
"""

import re
from typing import Any

from gateway._fastpath import Report, scan_report
from gateway.reports.fields import MAX_ENCODED, addresses, decoded_words, mailbox, without_comments
from gateway.reports.original import original_text, quoted_fields, supplemental_trace
from gateway.reports.rfc3464 import ReportError, date, extension, named

JSON = dict[str, Any]

MAX_INCIDENTS = 2**32 - 1


def incidents(value: str) -> int | None:
    """How many complaints the report stands for (RFC 5965 §3.2); None for what is no such number."""
    word = without_comments(value[:MAX_ENCODED]).strip()
    return int(word) if re.fullmatch(r"[0-9]{1,10}", word) and int(word) <= MAX_INCIDENTS else None


def source_port(value: str) -> int | None:
    """The port that the message came from (RFC 6692 §4); None for what is no port."""
    number = incidents(value)
    return number if number is not None and number < 65536 else None


def compact(value: str) -> str:
    """A field in base64, without the blanks of its folds."""
    return "".join(decoded_words(value).split())


SINGLE = {
    "feedback-type": decoded_words,
    "user-agent": decoded_words,
    "version": decoded_words,
    "arrival-date": date,
    "incidents": incidents,
    "original-envelope-id": decoded_words,
    "original-mail-from": mailbox,
    "reporting-mta": named,
    "source-ip": decoded_words,
}
REPEATED = {
    "authentication-results": decoded_words,
    "original-rcpt-to": mailbox,
    "reported-domain": decoded_words,
    "reported-uri": decoded_words,
}
# Of authentication failure reports (RFC 6591 §3.2, RFC 7489 §7.3) and RFC 6692; KumoMTA knows them as extensions only.
ADDED = {
    "auth-failure": decoded_words,
    "delivery-result": decoded_words,
    "identity-alignment": decoded_words,
    "dkim-adsp-dns": decoded_words,
    "dkim-canonicalized-body": compact,
    "dkim-canonicalized-header": compact,
    "dkim-domain": decoded_words,
    "dkim-identity": decoded_words,
    "dkim-selector": decoded_words,
    "dkim-selector-dns": decoded_words,
    "source-port": source_port,
}
ADDED_REPEATED = {"spf-dns": decoded_words}  # RFC 6591 §3.2.6: once for each record
KEYS = {"original-rcpt-to": "original_rcpto_to"}  # KumoMTA's spelling


def feedback_report(report: Report, message: bytes) -> JSON:
    """What `msg:parse_rfc5965()` returns; `message` is what was scanned."""
    fields = dict(report.feedback or {})
    recipients = fields.get("original-rcpt-to", [])
    if any("," in value for value in recipients):  # RFC 5965 §3.2 has one in each field
        fields["original-rcpt-to"] = [each for value in recipients for each in addresses(value) or [value]]
    if not fields.get("arrival-date") and (received := fields.pop("received-date", None)):
        fields["arrival-date"] = received  # RFC 5965 §3.2: its older name
    result: JSON = {}
    for name, read in SINGLE.items():
        _put(result, name.replace("-", "_"), fields.get(name, [""])[:1], read, single=True)
    for name, read in REPEATED.items():
        _put(result, KEYS.get(name, name.replace("-", "_")), fields.get(name, []), read, single=False)
    result["extensions"] = {
        name: [extension(value) for value in values]
        for name, values in fields.items()
        if name not in SINGLE and name not in REPEATED
    }
    result["original_message"] = original_text(report, message)
    result["supplemental_trace"] = supplemental_trace(quoted_fields(report, message))
    return result


def recorded_report(report: Report, message: bytes) -> JSON:
    """The `feedback_report` of a record: ADDED fields that the report has are keys of their own in it, at the end."""
    result = feedback_report(report, message)
    for name, values in (report.feedback or {}).items():
        if name in ADDED:
            _put(result, name.replace("-", "_"), values[:1], ADDED[name], single=True)
        elif name in ADDED_REPEATED:
            _put(result, name.replace("-", "_"), values, ADDED_REPEATED[name], single=False)
    return result


def _put(result: JSON, key: str, values: list[str], read: Any, *, single: bool) -> None:
    read_values = [(value, read(value)) for value in values if value]
    understood = [meaning for _, meaning in read_values if meaning is not None]
    raw = [decoded_words(value) for value, meaning in read_values if meaning is None]
    result[key] = (understood[0] if understood else None) if single else understood
    if raw:
        result[f"{key}_raw"] = raw[0] if single else raw


def parse(message: bytes) -> JSON | None:
    """The report as `msg:parse_rfc5965()` returns it; None for a message that is no feedback report.

    Raises ReportError for one that claims to be a report and cannot be read.
    """
    report = scan_report(message)
    if report is None or report.kind == "dsn" or report.reason == "no_recipient":
        return None
    if report.kind == "unreadable":
        raise ReportError(report.reason)
    return feedback_report(report, message)
