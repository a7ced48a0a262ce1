"""The message a report is about, as far as the report quotes it: who sent it, to whom, and its trace header.

Works on the header fields that `_fastpath.Report.original_fields` found.
"""

from collections.abc import Iterable

from gateway._fastpath import Report
from gateway.reports.fields import first_address, recipient_address

Fields = list[tuple[str, str]]


def first_field(fields: Fields, name: str) -> str | None:
    """The value of the first field of that name (given in lower case); None if there is none."""
    return next((value for key, value in fields if key.lower() == name), None)


def _first_of(candidates: Iterable[str | None]) -> str | None:
    return next((address for value in candidates if value and (address := first_address(value))), None)


def original_sender(report: Report, fields: Fields) -> str | None:
    """Who sent the original: Original-Mail-From of the report, else Return-Path, else From of the original."""
    reported = (report.feedback or {}).get("original-mail-from", [None])[0]
    return _first_of((reported, first_field(fields, "return-path"), first_field(fields, "from")))


def original_recipient(report: Report, fields: Fields) -> str | None:
    """Whom the original was sent to, as far as one recipient stands for all: the first of the report."""
    if report.kind == "arf":
        reported = (report.feedback or {}).get("original-rcpt-to", [None])[0]
        return _first_of((reported, first_field(fields, "to")))
    for group in report.per_recipient or ():
        named = group.get("original-recipient") or group.get("final-recipient")
        if named and (group.get("action") or group.get("status")):
            return recipient_address(named)
    return None
