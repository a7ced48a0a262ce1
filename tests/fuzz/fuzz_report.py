"""No message makes the report scanner, or what interprets its fields, fail; and a report is one however it is stuffed.

The target of `make fuzz`. Findings are kept in tests/corpus/reports/regressions, which the tests read.
"""

import json

from gateway._fastpath import UNREADABLE_REASONS, Report, scan_report
from gateway.reports import rfc3464, rfc5965
from gateway.reports.original import first_values, original_recipient, original_sender, quoted_fields


def one_input(data: memoryview) -> None:
    """Scan `data` as it is and as dot-stuffed; an exception is a finding."""
    for dot_stuffed in (False, True):
        report = scan_report(data, dot_stuffed=dot_stuffed, null_sender=True)
        if report is not None:
            check(report, bytes(data))


def check(report: Report, message: bytes) -> None:
    """Hold what a report must be, and interpret it in every way there is."""
    assert (report.kind == "unreadable") == (report.reason in UNREADABLE_REASONS)
    if report.original is not None:
        start, end = report.original
        assert 0 <= start <= end <= len(message)
    fields = quoted_fields(report, message)
    original_sender(report, first_values(fields))
    original_recipient(report, first_values(fields))
    if report.kind == "dsn":
        values = [entry.added for entry in rfc3464.out_of_band(report, fields)]
        values.append(rfc3464.bounce_report(report, message))
    elif report.kind == "arf":
        values = [rfc5965.feedback_report(report, message)]
    else:
        values = []
    json.dumps(values, ensure_ascii=False).encode()
