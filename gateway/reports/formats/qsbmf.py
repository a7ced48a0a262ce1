"""QSBMF, the bounces of qmail and its heirs: https://cr.yp.to/proto/qsbmf.txt.

Paragraphs: an introduction that begins "Hi. This is the"; one for each failed recipient, whose first line is the
address in angle brackets and a colon; and one that begins with a hyphen, behind which the original stands.
"""

import re

from gateway._fastpath import Report
from gateway.reports.fields import first_address
from gateway.reports.formats.groups import MAX_RECIPIENTS, Group, group_of_text
from gateway.reports.prose import read_prose

MAX_TEXT = 262144  # octets that are read, of text and original
INTRODUCTION = "Hi. This is the"
# An empty line, or, where somebody has dropped that, the first recipient.
_INTRODUCTION_END = re.compile(r"\n(?=\n|<[^\n<>]+>:[ \t]*(?:\n|\Z))")


def read(report: Report, message: bytes) -> None:
    """Reads the candidate: if it has a recipient paragraph."""
    text = (read_prose(report, message, MAX_TEXT) or "").lstrip("\n")
    if not text.startswith(INTRODUCTION):
        return
    groups: list[Group] = []
    introduction = _INTRODUCTION_END.search(text)
    at = introduction.end() if introduction else len(text)
    while at < len(text) and len(groups) < MAX_RECIPIENTS:
        end = text.find("\n\n", at)
        paragraph = text[at : end if end >= 0 else len(text)].strip("\n")
        at = end + 2 if end >= 0 else len(text)
        if paragraph.startswith("-"):
            break
        if paragraph.startswith("<") and (group := _group(paragraph)) is not None:
            groups.append(group)
    if groups:
        original = text[at:].lstrip("\n").encode("utf-8", "surrogateescape") if report.original is None else None
        report.infer("dsn", per_message={}, per_recipient=groups, quoted=original or None)


def _group(paragraph: str) -> Group | None:
    first, _, reason = paragraph.partition("\n")
    name, colon, rest = first.rstrip().rpartition(">:")
    if not colon or rest:
        return None
    address = name[1:].strip()
    return group_of_text(first_address(f"<{address}>") or address, reason)
