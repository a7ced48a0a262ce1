"""Looking for a report in an accepted message, and the records that a logged one becomes.

The scanning is the compiled module's, the meaning of fields gateway/reports', the layout of records gateway/logs';
who asks, and what becomes of the message, is the transaction's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway import metrics
from gateway._fastpath import RECOGNISED, UNREADABLE_REASONS, Content, CounterPage, Report, content_of, scan_received
from gateway.decision import ReportKind
from gateway.logs import records
from gateway.logs.encoding import Record
from gateway.logs.records import Origin
from gateway.mail.message import Message
from gateway.reports import rfc3464, rfc5965
from gateway.reports.formats import is_listed, read_form
from gateway.reports.original import quoted_fields
from gateway.reports.prose import excerpt

_KINDS = {"dsn": ReportKind.OOB, "arf": ReportKind.ARF}
_PARSED = {
    (kind, result): metrics.REPORT_PARSE.slot(kind.value, result) for kind in ReportKind for result in ("ok", "partial")
}
_UNREADABLE = {reason: metrics.REPORTS_UNREADABLE.slot(reason) for reason in UNREADABLE_REASONS}
_RECOGNISED = {how: metrics.REPORTS_RECOGNISED.slot(how) for how in RECOGNISED}
_REPORTS = {
    (kind, action): metrics.REPORTS.slot(kind.value, action)
    for kind in ReportKind
    for action in ("ignored", "logged_and_relayed", "logged_and_dropped")
}
_BYTES = metrics.REPORT_BYTES.slot()
_SCAN_DURATION = metrics.REPORT_SCAN_DURATION.slot()


class Recognition:
    """What a message turned out to be.

    kind: None for no report. unreadable: one of UNREADABLE_REASONS for what claims to be one, else None.
    partial: a field could not be interpreted, so that its raw text stands beside it; known once it has its records.
    """

    __slots__ = ("_content", "_report", "_shows_excerpt", "kind", "partial", "unreadable")

    def __init__(self, report: Report | None, content: Content, shows_excerpt: bool = False) -> None:
        self._report = report
        self._content = content
        self._shows_excerpt = shows_excerpt
        self.kind = _KINDS.get(report.kind or "") if report is not None else None
        self.unreadable = report.reason if report is not None else None
        self.partial = False

    def records(self, message: Message, origin: Origin, queue: str, now_ns: int) -> list[Record]:
        """What is logged of the report: a Feedback record, or a Reception and an OOB record per failed recipient."""
        report = self._report
        assert report is not None
        scanned = self._content.joined()
        shown = excerpt(report, scanned) if self._shows_excerpt else None
        if self.kind is ReportKind.ARF:
            feedback = rfc5965.recorded_report(report, scanned)
            self.partial = _has_raw(feedback)
            added: dict[str, Any] = {"inferred": True} if report.inferred else {}
            added |= {"excerpt": shown} if shown is not None else {}
            return [records.feedback(message, origin, queue, feedback, now_ns, added)]
        bounces = rfc3464.out_of_band(report, quoted_fields(report, scanned), shown)
        self.partial = any(_has_raw(bounce.added) for bounce in bounces)
        out_of_band = [records.out_of_band(message, origin, queue, bounce, now_ns) for bounce in bounces]
        return [records.reception(message, origin, queue, now_ns), *out_of_band]


NOTHING = Recognition(None, content_of(b""))


def recognise(
    message: Message,
    page: CounterPage,
    monotonic: Callable[[], float],
    feedback_senders: frozenset[str] = frozenset(),
    shows_excerpt: bool = False,
) -> Recognition:
    """Scans a message.

    monotonic: seconds, to measure with. feedback_senders, shows_excerpt: as the listener has them (`report_excerpt`).
    """
    content = message.content  # what was put in front of it is the gateway's or the policy's
    sender = message.sender
    listed = bool(feedback_senders) and is_listed(sender.email, feedback_senders)
    began = monotonic()
    scanned = content.joined()
    report = scan_received(scanned, not sender.email, listed)
    if report is not None:
        report = read_form(report, scanned)
    page.observe(_SCAN_DURATION, monotonic() - began)
    if report is None:
        return NOTHING
    found = Recognition(report, content, shows_excerpt)
    if found.unreadable is not None:
        page.add(_UNREADABLE[found.unreadable])
    else:
        page.add(_RECOGNISED[report.how])
    return found


def count(found: Recognition, message: Message, *, logged: bool, relayed: bool, page: CounterPage) -> None:
    """Counts a report once it is known what became of it. logged: it has records; False where nobody logs its kind."""
    kind = found.kind
    assert kind is not None
    page.add(_PARSED[kind, "partial" if found.partial else "ok"])
    action = "ignored" if not logged else "logged_and_relayed" if relayed else "logged_and_dropped"
    page.add(_REPORTS[kind, action])
    page.add(_BYTES, message.size)


def _has_raw(values: dict[str, Any]) -> bool:
    return any(key.endswith("_raw") for key in values)
