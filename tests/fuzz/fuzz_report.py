"""No message makes the report scanner, the readers of other forms, or what interprets their fields, fail; and a report
is one however it is stuffed.

The target of `make fuzz`. Findings are kept in tests/corpus/reports/regressions, which the tests read.
"""

import json

from gateway._fastpath import RECOGNISED, UNREADABLE_REASONS, Report, outline, scan_report
from gateway.reports import rfc3464, rfc5965
from gateway.reports.explain import Places, explained
from gateway.reports.formats import find_report
from gateway.reports.original import first_values, original_recipient, original_sender, quoted_fields
from gateway.reports.prose import MAX_EXCERPT, excerpt


def one_input(data: memoryview) -> None:
    """Scan `data` as it is and as dot-stuffed, from everybody; an exception is a finding."""
    message = bytes(data)
    outline(message)
    for dot_stuffed in (False, True):
        report = scan_report(data, dot_stuffed=dot_stuffed)
        if report is not None:
            check(report, message)
        for sender in ({}, {"null_sender": True}, {"listed_sender": True}):
            scan_report(data, dot_stuffed=dot_stuffed, tolerant=True, **sender)
            places = Places()
            report = find_report(message, dot_stuffed=dot_stuffed, placed=places.keep, **sender)
            if report is not None:
                check(report, message)
                if report.reason is None:
                    explained(report, message, places)


def check(report: Report, message: bytes) -> None:
    """Hold what a report must be, and interpret it in every way there is."""
    assert (report.kind == "unreadable") == (report.reason in UNREADABLE_REASONS)
    assert report.kind is None or report.how in RECOGNISED
    for place in (report.original, report.leading, report.fields_from):
        if place is not None:
            start, end = place
            assert 0 <= start <= end <= len(message)
    shown = excerpt(report, message)
    assert shown is None or 0 < len(shown.encode()) <= MAX_EXCERPT
    fields = quoted_fields(report, message)
    original_sender(report, first_values(fields))
    original_recipient(report, first_values(fields))
    if report.kind == "dsn":
        entries = rfc3464.out_of_band(report, fields, shown)
        values = [[entry.recipient, entry.content, entry.reporting_mta, entry.added] for entry in entries]
        values.append(rfc3464.bounce_report(report, message))
    elif report.kind == "arf":
        values = [rfc5965.recorded_report(report, message)]
    else:
        values = []
    json.dumps(values, ensure_ascii=False).encode()
