"""A multipart/report with report-type=delivery-status that has no status part, only prose and the original.

The recipient is the original's, where it went to exactly one; the reply is the first that the prose quotes. The reply
alone becomes the diagnostic, for the prose of such mailers is long and the same for all.
"""

import re

from gateway._fastpath import Report
from gateway.reports.fields import addresses
from gateway.reports.formats.groups import recipient_group
from gateway.reports.original import Fields, first_values
from gateway.reports.prose import claims_no_failure, read_prose, split_at_copy
from gateway.reports.replies import first_reply

# Whom a header section says that its message was for: each of these by itself, the most telling first.
_RECIPIENTS = (("x-apparently-to",), ("delivered-to", "x-original-to", "x-delivered-to"), ("to", "cc"))
_NAMES = (*(name for names in _RECIPIENTS for name in names), "list-post")

_SUCCEEDED = re.compile(
    r"(?:^|\bsaid:|<<<|[\[(\"'])[ \t]*2[0-5]\d[ \n-]|:[ \t]+2[0-5]\d[ -](?:2\.\d\.\d|ok)\b",
    re.ASCII | re.MULTILINE | re.IGNORECASE,
)


def read(report: Report, message: bytes) -> None:
    """Reads the candidate, unless it claims success or delay."""
    text = split_at_copy(read_prose(report, message) or "")[0]
    subject = first_values(report.header_fields(message, ("subject",))).get("subject", "")
    if claims_no_failure(subject, text):
        return
    reply = first_reply(text)
    if reply is None and _SUCCEEDED.search(text):
        return
    recipient = only_recipient(report.original_fields(message, _NAMES))
    report.infer("dsn", per_message={}, per_recipient=[recipient_group(recipient, reply)])


def only_recipient(fields: Fields) -> str | None:
    """The one address that a message was for; None where there are more, or none, or it is that of a mailing list
    (RFC 2369 §3.4), of which some member failed."""
    lists = {url.removeprefix("mailto:").partition("?")[0] for url in _addresses(fields, ("list-post",))}
    for names in _RECIPIENTS:
        if found := _addresses(fields, names):
            return next(iter(found.values())) if len(found) == 1 and found.keys().isdisjoint(lists) else None
    return None


def _addresses(fields: Fields, names: tuple[str, ...]) -> dict[str, str]:
    """Those in the fields of these names, by themselves in lower case."""
    return {address.lower(): address for name, value in fields if name.lower() in names for address in addresses(value)}
