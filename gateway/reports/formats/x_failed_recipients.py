"""Bounces with X-Failed-Recipients, the field of Exim and its heirs: the header names who failed, the text says why.

In the text each address stands on a line of its own, its reasons indented below it; a copy of the original follows.
"""

from gateway._fastpath import Report
from gateway.reports.fields import addresses, decoded_words
from gateway.reports.formats.groups import MAX_RECIPIENTS, group_of_text
from gateway.reports.original import first_values
from gateway.reports.prose import claims_no_failure, read_prose, split_at_copy
from gateway.reports.replies import first_reply

MAX_TEXT = 262144  # octets that are read, of text and original


def read(report: Report, message: bytes) -> None:
    """Reads the candidate, unless it claims delay."""
    fields = report.header_fields(message, ("x-failed-recipients", "subject"))
    failed = {
        address.lower(): address
        for name, value in fields
        if name.lower() == "x-failed-recipients"
        for address in addresses(decoded_words(value))
    }
    text, original = split_at_copy(read_prose(report, message, MAX_TEXT) or "")
    if not failed or claims_no_failure(first_values(fields).get("subject", ""), text):
        return
    reasons = reasons_of(list(failed), text)
    groups = [group_of_text(failed[key], reasons.get(key, "")) for key in list(failed)[:MAX_RECIPIENTS]]
    quoted = original.encode("utf-8", "surrogateescape") if original and report.original is None else None
    report.infer("dsn", per_message={}, per_recipient=groups, quoted=quoted)


def reasons_of(recipients: list[str], text: str) -> dict[str, str]:
    """By recipient, which are in lower case: the lines below the one that names it, up to an empty one or the next
    address at its margin. One alone has all of the text if its own lines quote no reply."""
    reasons: dict[str, list[str]] = {}
    wanted = set(recipients)
    current: list[str] | None = None
    margin = 0
    for line in text.split("\n"):
        words = line.strip()
        name, _, rest = words.partition(" ")
        name = name.strip("<>:;,").lower()
        if name in wanted:
            current = reasons.setdefault(name, [])
            current += [rest.strip()] if rest.strip() else []
            margin = _indentation(line)
        elif current and (not words or ("@" in name and not rest and _indentation(line) <= margin)):
            current = None
        elif current is not None and words:
            current.append(words)
    # Where the text is there in two languages, so is each reason.
    found = {name: "\n".join(dict.fromkeys(lines)) for name, lines in reasons.items() if lines}
    if len(recipients) == 1 and (not found or (quotes_no_reply(found[recipients[0]]) and not quotes_no_reply(text))):
        return {recipients[0]: text}
    return found


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def quotes_no_reply(text: str) -> bool:
    reply = first_reply(text)
    return reply is None or reply.code is None
