"""Messages that report something, put together from pieces, and what becomes of them: for the tests of reports."""

from __future__ import annotations

from typing import Any

from gateway._fastpath import Report
from gateway.reports import rfc3464, rfc5965
from gateway.reports.formats import find_report
from gateway.reports.original import quoted_fields
from gateway.reports.rfc3464 import OutOfBand

DSN = "multipart/report; report-type=delivery-status"
ARF = "multipart/report; report-type=feedback-report"
ORIGINAL = "Return-Path: <news+77@near.example>\nFrom: News <news@near.example>\nTo: u@far.example\nSubject: July\n"
GROUP = "Final-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.1.1\n"
HEAD = "Reporting-MTA: dns; mx.far.example\n"
STATUS = f"{HEAD}\n{GROUP}"
FEEDBACK = "Feedback-Type: abuse\nVersion: 1\nUser-Agent: Loop/1.0\n"


def part(kind: str, text: str, header: str = "") -> str:
    return f"Content-Type: {kind}\n{header}\n{text}"


def multipart(*parts: str, kind: str = DSN, boundary: str = "b1", head: str = "Subject: Returned mail\n") -> bytes:
    body = "".join(f"--{boundary}\n{each}\n" for each in parts)
    text = f'{head}MIME-Version: 1.0\nContent-Type: {kind}; boundary="{boundary}"\n\n{body}--{boundary}--\n'
    return text.encode("utf-8", "surrogateescape")


def bounce(
    status: str = STATUS, *, of: str = "message/delivery-status", header: str = "", text: str = "Sorry.", **how: str
) -> bytes:
    parts = (part("text/plain", f"{text}\n"), part(of, status, header), part("message/rfc822", f"{ORIGINAL}\nhi\n"))
    return multipart(*parts, **how)


def claim(text: str, original: str = ORIGINAL, *, of: str = "message/rfc822", **how: str) -> bytes:
    """A report-type without a status part."""
    return multipart(part("text/plain", f"{text}\n"), part(of, f"{original}\nhi\n"), **how)


def found(message: bytes, sender: str = "", listed: bool = False) -> Report | None:
    """The report, if it is one."""
    report = find_report(message, null_sender=not sender, listed_sender=listed)
    return None if report is None or report.kind == "unreadable" else report


def entries(message: bytes, sender: str = "") -> list[OutOfBand]:
    report = found(message, sender)
    assert report is not None and report.kind == "dsn"
    return rfc3464.out_of_band(report, quoted_fields(report, message))


def entry(message: bytes, sender: str = "") -> OutOfBand:
    (one,) = entries(message, sender)
    return one


def status_of(one: OutOfBand) -> str | None:
    return one.enhanced_code and ".".join(map(str, one.enhanced_code.values()))


def complaint(message: bytes, sender: str = "fbl@far.example", listed: bool = False) -> dict[str, Any]:
    report = found(message, sender, listed)
    assert report is not None and report.kind == "arf"
    return rfc5965.recorded_report(report, message) | {"inferred": report.inferred}
