"""Bounces and complaints that are no reports by RFC 3464 or 5965, read as if they were: one module a form.

The compiled scanner looks for a mark of each form, and only for those; it names the candidate, and FORMS the function
that reads it. A form that is added here gets its mark in gateway/fastpath/report_scan.pxi. What such a function takes
for a report is a guess: it says so with `Report.infer`, in the fields that the RFCs have, so that nothing else needs to
know the form. One that finds no report in a candidate leaves it as it is.
"""

from collections.abc import Callable

from gateway._fastpath import Report, scan_report
from gateway.reports.formats import claimed, junk, qsbmf, x_failed_recipients

# A candidate's name -> (candidate, octets that were scanned): reads it with Report.infer, or not at all.
FORMS: dict[str, Callable[[Report, bytes], None]] = {
    "claimed": claimed.read,
    "junk": junk.read,
    "qsbmf": qsbmf.read,
    "x_failed_recipients": x_failed_recipients.read,
}


def find_report(
    message: bytes,
    *,
    dot_stuffed: bool = False,
    null_sender: bool = False,
    listed_sender: bool = False,
    placed: Callable[[str, int, int], str] | None = None,
) -> Report | None:
    """What a message reports, by the letter or inferred; None for no report. Arguments as for `scan_report`.

    The reverse-path is known: without `null_sender` and `listed_sender` it is anybody's.
    """
    report = scan_report(
        message,
        dot_stuffed=dot_stuffed,
        null_sender=null_sender,
        listed_sender=listed_sender,
        tolerant=True,
        placed=placed,
    )
    return None if report is None else read_form(report, message)


def read_form(report: Report, message: bytes) -> Report | None:
    """What `scan_report` has found, read in its form if it is a candidate; None where that reports nothing."""
    if report.candidate is not None:
        FORMS[report.candidate](report, message)
        if report.kind is None:
            return None
    return report


def is_listed(sender: str, listed: frozenset[str]) -> bool:
    """Whether a reverse-path is among addresses and domains in lower case; a domain stands for itself alone."""
    address = sender.lower()
    return address in listed or address.rpartition("@")[2] in listed
