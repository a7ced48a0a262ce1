"""The message a report is about, as far as the report quotes it: who sent it, to whom, and its trace header.

Works on the header fields that `_fastpath.Report.original_fields` found.
"""

import base64
from collections.abc import Iterable
from typing import Any

import orjson

from gateway._fastpath import Report, unstuff
from gateway.reports.fields import clean, first_address, recipient_address

Fields = list[tuple[str, str]]

# kumo-compatible supplemental trace header: what marks its JSON object
TRACE_MARK = ("_@_", "\\_/")
MAX_TRACE = 8192  # characters of base64
MAX_BRACKETS = 100  # in a trace, and so its depth, which JSON encoders limit


# What records tell of the original; the last one stands for all names that begin with it.
QUOTED = ("from", "to", "subject", "date", "message-id", "return-path", "x-")


def quoted_fields(report: Report, message: bytes) -> Fields:
    """The header fields of the original that are QUOTED, fit for records (see `fields.clean`); `message` is what was
    scanned."""
    return [(name, clean(value)) for name, value in report.original_fields(message, QUOTED)]


def first_values(fields: Fields) -> dict[str, str]:
    """The value of the first field of each name, by the name in lower case."""
    return {name.lower(): value for name, value in reversed(fields)}


def _first_of(candidates: Iterable[str | None]) -> str | None:
    return next((address for value in candidates if value and (address := first_address(value))), None)


def original_sender(report: Report, values: dict[str, str]) -> str | None:
    """Who sent the original: Original-Mail-From of the report, else Return-Path, else From of the original.

    `values`: `first_values` of its fields, here and below.
    """
    reported = (report.feedback or {}).get("original-mail-from", [None])[0]
    return _first_of((reported, values.get("return-path"), values.get("from")))


def original_recipient(report: Report, values: dict[str, str]) -> str | None:
    """Whom the original was sent to, as far as one recipient stands for all: the first of the report."""
    if report.kind == "arf":
        reported = (report.feedback or {}).get("original-rcpt-to", [None])[0]
        return _first_of((reported, values.get("to")))
    for telling in (("action", "status"), ("diagnostic-code",)):
        for group in report.per_recipient or ():
            named = group.get("original-recipient") or group.get("final-recipient")
            if named and any(map(group.get, telling)):
                return recipient_address(named)
    return None


def return_path(values: dict[str, str]) -> str | None:
    """The reverse-path the original was sent with, which is where VERP puts the recipient; "" is the null one."""
    value = values.get("return-path")
    if value is None:
        return None
    return "" if value.replace(" ", "") == "<>" else first_address(value)


def supplemental_trace(fields: Fields) -> dict[str, Any] | None:
    """What the trace header of the original says about its recipients and metadata, without its mark; None if it has
    none. Any `X-` header may carry it: base64 of a JSON object with the mark."""
    for name, value in fields:
        # base64 of what begins with a brace and a quote
        if value.startswith("ey") and name[:2] in ("X-", "x-") and (trace := _trace(value)) is not None:
            return trace
    return None


def _trace(value: str) -> dict[str, Any] | None:
    if len(value) > MAX_TRACE:
        return None
    try:
        text = base64.b64decode("".join(value.split()), validate=True)
        payload = orjson.loads(text) if text.count(b"{") + text.count(b"[") <= MAX_BRACKETS else None
    except ValueError:  # not base64, or nothing that a record could hold
        return None
    if not isinstance(payload, dict) or payload.pop(TRACE_MARK[0], None) != TRACE_MARK[1]:
        return None
    return payload


def original_text(report: Report, message: bytes) -> str | list[int] | None:
    """The original as it stands in the report, with LF; the numbers of its octets where it is not UTF-8."""
    if report.quoted is not None:
        octets = report.quoted
    elif report.original is not None:
        start, end = report.original
        octets = message[start:end]
        if report.dot_stuffed:
            octets = unstuff(octets)
    else:
        return None
    octets = octets.replace(b"\r\n", b"\n")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return list(octets)
