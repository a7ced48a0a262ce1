"""`relay-gateway report --why`: how a message was recognised, where each value stands, and why another is no report."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from gateway._fastpath import Report, outline, scan_report
from gateway.reports.fields import typed
from gateway.reports.formats import find_report
from gateway.reports.replies import diagnostic_reply
from gateway.reports.rfc3464 import is_refusal, status_or_code

JSON = dict[str, Any]

MOST = 1000  # values that are explained

HOW = {
    "report": "a multipart/report with such a part",
    "mixed": "such a part in a multipart/mixed",
    "multipart": "from the null reverse-path, with such a part in another multipart",
    "wrapped": "from the null reverse-path, in a multipart inside another one",
    "private_type": "a multipart/report with a part of a private or slightly wrong type",
    "claimed": "from the null reverse-path, with report-type=delivery-status and the original, but no status part",
    "x_failed_recipients": "from the null reverse-path, with X-Failed-Recipients",
    "qsbmf": 'from the null reverse-path, in QSBMF: the text begins "Hi. This is the"',
    "junk": "from a listed sender, the original alone, which names its recipient",
}
UNREADABLE = {
    "no_boundary": "the Content-Type names no boundary",
    "no_parts": "no line delimits a part by the boundary",
    "too_many_parts": "there are too many parts to look at them all",
    "no_report_part": "no part is of the type that the report-type announces",
    "no_recipient": "no group of fields names a recipient with an Action or Status",
    "no_feedback_type": "the feedback part has no Feedback-Type",
}
_UNREAD = {
    "claimed": "it claims success or delay",
    "x_failed_recipients": "X-Failed-Recipients names no address, or it claims success or delay",
    "qsbmf": "no paragraph names a recipient as QSBMF has it",
    "junk": "the original has no field such as X-HmXmrOriginalRecipient",
}
# Of inferred reports: what nothing in the message says, and what may stand in more than one place.
_CONCLUDED = ("action", "feedback-type")
_ADDRESSES = ("final-recipient", "original-rcpt-to", "original-mail-from")


class Places:
    """Where the fields of a report stand: octets start to end of the message, -1 for both in a part that is encoded.

    `keep` is what `scan_report` calls for each of them. A value is known again by its identity, so it is held.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[str, int, int]] = {}

    def keep(self, value: str, start: int, end: int) -> str:
        own = (value + " ")[:-1] if len(value) > 1 else value  # not one that Python shares, but for the shortest
        self._kept[id(own)] = (own, start, end)
        return own

    def of(self, value: str) -> tuple[int, int] | None:
        """None: no field has this value."""
        kept = self._kept.get(id(value))
        return (kept[1], kept[2]) if kept is not None else None


def explained(report: Report, message: bytes, places: Places) -> JSON:
    """How a report was recognised, and where its values are from; `message` is what was scanned."""
    values = []
    address = b""  # of the recipient that the values are about
    for title, name, value in islice(_values(report), MOST):
        if name == "final-recipient":
            address = _octets(typed(value)[1])
        place = _place(report, message, name, value, address, places.of(value))
        values.append({"of": title, "name": name, "value": value, **place})
    return {"how": HOW[report.how], "values": values, "taken": list(islice(_taken(report), MOST))}


def why_not(report: Report | None, message: bytes, sender: str | None) -> list[str]:
    """Why a message is no report, in sentences. sender: its reverse-path; None where it is not known."""
    said = []
    if report is not None and report.reason is not None:
        said.append(f"claims to be a report, but {UNREADABLE[report.reason]}")
    (kind, _, _), *children = outline(message)
    said.append(f"its Content-Type is {kind or 'missing'}")
    if children:
        said.append("its parts are " + ", ".join(part or "without type" for part, _, _ in children))
    candidate = scan_report(message, null_sender=not sender, listed_sender=bool(sender)) if sender is not None else None
    if candidate is not None and candidate.candidate is not None:
        said.append(f"looked at as {candidate.candidate}: {_UNREAD[candidate.candidate]}")
    if sender != "":
        if (other := find_report(message, null_sender=True)) is not None and other.kind in ("dsn", "arf"):
            said.append(f"from the null reverse-path (--sender '<>') it would be one: {HOW[other.how]}")
        elif (other := find_report(message, listed_sender=True)) is not None and other.kind in ("dsn", "arf"):
            said.append(f"from a sender in feedback_senders it would be one: {HOW[other.how]}")
    return said


def lines(explanation: JSON) -> list[str]:
    """`explained` for people."""
    text = [f"  how: {explanation['how']}"]
    for value in explanation["values"]:
        text.append(f"  {value['of']}, {value['name']}: {value['value']}")
        text.append(f"      {_where(value)}")
    return text + [f"  taken: {each}" for each in explanation["taken"]]


def _where(value: JSON) -> str:
    if "octets" not in value:
        return "concluded"
    first, last = value["lines"]
    start, end = value["octets"]
    found = f"line {first}" if first == last else f"lines {first}-{last}"
    return f"{'decoded from ' if value.get('decoded') else ''}{found}, octets {start}-{end}"


def _values(report: Report) -> Iterator[tuple[str, str, str]]:
    if report.kind == "dsn":
        yield from (("message", name, value) for name, value in (report.per_message or {}).items())
        for number, group in enumerate(report.per_recipient or [], 1):
            yield from ((f"recipient {number}", name, value) for name, value in group.items())
    else:
        fields = (report.feedback or {}).items()
        yield from (("feedback", name, value) for name, values in fields for value in values)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _place(
    report: Report, message: bytes, name: str, value: str, address: bytes, place: tuple[int, int] | None
) -> JSON:
    """`lines` and `octets`, numbered from 1 and 0; `decoded` where they are those of an encoded part; nothing where the
    value was concluded."""
    if place is not None:
        if place[0] >= 0:
            return _span(message, *place)
        return _span(message, *report.fields_from) | {"decoded": True} if report.fields_from else {}
    if name in _CONCLUDED:
        return {}
    bare = _octets(typed(value)[1])
    for piece in (bare, bare.partition(b" ")[2].strip()):  # the reply may have been put together
        for begin in (_likely(report, message, name, address), 0):
            if piece and (start := message.find(piece, begin)) >= 0:
                return _span(message, start, start + len(piece))
    if report.leading is not None:
        return _span(message, *report.leading) | {"decoded": True}
    return {}


def _likely(report: Report, message: bytes, name: str, address: bytes) -> int:
    """Where the form has the value from: the original, the text for people from the address on, or the header
    section."""
    if report.how in ("claimed", "junk") and name in _ADDRESSES and report.original is not None:
        return report.original[0]
    if report.leading is None or name in (*_ADDRESSES, "source-ip"):
        return 0
    return max(message.find(address, report.leading[0]), report.leading[0])


def _span(message: bytes, start: int, end: int) -> JSON:
    first = message.count(b"\n", 0, start) + 1
    return {"lines": [first, first + message.count(b"\n", start, max(start, end - 1))], "octets": [start, end]}


def _taken(report: Report) -> Iterator[str]:
    """What records tell of a bounce's recipients and is no field's value as it stands."""
    for number, group in enumerate(report.per_recipient or [], 1):
        reply = diagnostic_reply(group.get("diagnostic-code") or "")
        grade, basic = status_or_code(group.get("status") or "")
        if is_refusal(reply.code):
            yield f"recipient {number}: code {reply.code} and text {reply.text!r} from diagnostic-code"
        elif is_refusal(basic):
            yield f"recipient {number}: code {basic} from status"
        else:
            yield f"recipient {number}: no refusal is quoted, so 550, or 450 where it is delayed"
        if grade is None and reply.enhanced:
            yield f"recipient {number}: enhanced code {reply.enhanced} from diagnostic-code"
        if not (group.get("action") or group.get("status")):
            yield f"recipient {number}: the action is inferred from diagnostic-code"
