"""The older form of complaints, of junk-mail reporting programmes: nothing but the original, whose header got a field
that names the recipient (`X-HmXmrOriginalRecipient`). Only from senders that the listener lists.
"""

import re

from gateway._fastpath import Report
from gateway.reports.fields import addresses
from gateway.reports.original import first_values

_RECIPIENT = re.compile(r"x-(?:[a-z0-9-]*-)?(?:hmxmr)?original-?(?:recipient|rcpt-?to|to)", re.IGNORECASE)
_SOURCE = re.compile(r"\bfrom\s+\[?([0-9a-f:.]{2,45})\]?(?![\w.:@-])", re.IGNORECASE)
_SOURCE_FIELDS = ("x-source-ip", "x-sender-ip", "x-originating-ip", "x-hmxmroriginalip")
_NAMES = ("return-path", "arrival-date", "date", "x-")


def read(report: Report, message: bytes) -> None:
    """Reads the candidate: if its original names a recipient."""
    fields = report.original_fields(message, _NAMES)
    recipients = [address for name, value in fields if _RECIPIENT.fullmatch(name) for address in addresses(value)]
    if not recipients:
        return
    values = first_values(fields)
    complaint: dict[str, list[str]] = {"feedback-type": ["abuse"], "original-rcpt-to": recipients}
    if path := values.get("return-path"):
        complaint["original-mail-from"] = [path]
    subject = first_values(report.header_fields(message, ("subject",))).get("subject", "")
    source = _SOURCE.search(subject[:1000])
    if address := source[1] if source else next((values[name] for name in _SOURCE_FIELDS if name in values), None):
        complaint["source-ip"] = [address.strip("[] ")]
    report.infer("arf", feedback=complaint)
