"""`relay-gateway report`: what is in these messages? Prints summaries or JSON lines, and sums of many."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from gateway._fastpath import Report, scan_report
from gateway.reports import explain, rfc3464, sources
from gateway.reports.formats import find_report, is_listed
from gateway.reports.original import first_values, original_recipient, original_sender, quoted_fields
from gateway.reports.sums import Sums, mailer

JSON = dict[str, Any]

PROGRESS = 1000  # messages between two signs of life
_TITLES = {"dsn": "delivery status report", "arf": "feedback report", "other": "not a report"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand on `parser`."""
    parser.description = (
        "Say which of the messages are bounces (RFC 3464) or feedback reports (RFC 5965), and what they report.\n"
        "Without --sender by the letter of the RFCs alone, with it as the gateway takes mail from that reverse-path."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per message")
    parser.add_argument("--why", action="store_true", help="say how each was recognised and where its values are from")
    parser.add_argument("--summary", action="store_true", help="print only sums by kind, mailer and reason")
    parser.add_argument("--sender", metavar="ADDR", help="the reverse-path the messages came with; '<>' for bounces")
    parser.add_argument(
        "--feedback-sender",
        metavar="ADDR|DOMAIN",
        action="append",
        help="what the listener's feedback_senders names; without it --sender counts as one of them",
    )
    parser.add_argument(
        "file",
        nargs="*",
        metavar="FILE",
        help="raw messages, CRLF or LF; mbox files; Maildirs and other directories with all in them; standard input if "
        "none, or for -",
    )


def row(name: str, message: bytes, report: Report | None) -> JSON:
    """What is known about one message, as one JSON object.

    Octets that are not UTF-8 are lone surrogates in its strings.
    """
    kind = report.kind if report and report.kind != "unreadable" else "other"
    result: JSON = {
        "file": name,
        "class": kind,
        "dsn": None,
        "arf": None,
        "original_message_present": False,
        "original_sender": None,
        "original_recipient": None,
    }
    if report is None:
        return result
    result["original_message_present"] = report.original is not None or report.quoted is not None
    if report.kind == "unreadable":
        return result | {"unreadable": report.reason}
    if report.kind == "dsn":
        result["dsn"] = {"per_message": report.per_message, "per_recipient": report.per_recipient}
        result["recipients"] = recorded(report, message)
    result["arf"] = report.feedback
    fields = first_values(report.original_fields(message))
    result["original_sender"] = original_sender(report, fields)
    result["original_recipient"] = original_recipient(report, fields)
    result |= {flag: True for flag in ("mixed", "truncated") if getattr(report, flag)}
    if report.inferred or any(each.get("inferred") for each in result.get("recipients", ())):
        result["inferred"] = True
    return result | {"how": report.how}


def recorded(report: Report, message: bytes) -> list[JSON]:
    """What the OOB records of a bounce say of its recipients."""
    found = []
    for entry in rfc3464.out_of_band(report, quoted_fields(report, message)):
        status = entry.enhanced_code
        told: JSON = {
            "recipient": entry.recipient,
            "action": entry.action,
            "code": entry.code,
            "status": ".".join(map(str, status.values())) if status else None,
            "content": entry.content,
        }
        found.append(told | {key: entry.added[key] for key in ("final_recipient", "inferred") if key in entry.added})
    return found


def summary(found: JSON) -> str:
    """`row` for people: what the message is, then its fields, one to a line."""
    title = _TITLES[found["class"]] + (", inferred" if found.get("inferred") else "")
    if reason := found.get("unreadable"):
        title = f"claims to be a report, unreadable: {reason}"
    lines = [f"{found['file']}: {title}"]
    if "why" in found:
        why = found["why"]
        return "\n".join([*lines, *(explain.lines(why) if isinstance(why, dict) else [f"  {each}" for each in why])])
    if found["dsn"]:
        lines += _block("message", found["dsn"]["per_message"])
        for number, group in enumerate(found["dsn"]["per_recipient"], 1):
            lines += _block(f"recipient {number}", group)
    if found["arf"]:
        lines += _block("feedback", {name: ", ".join(values) for name, values in found["arf"].items()})
    if found["class"] != "other" and found["original_message_present"]:
        lines += _block("original", {"sender": found["original_sender"], "recipient": found["original_recipient"]})
    return "\n".join(lines)


def _block(title: str, fields: dict[str, str | None]) -> list[str]:
    return [f"  {title}", *(f"    {name}: {value}" for name, value in fields.items() if value is not None)]


class Reading:
    """How the messages of one call are to be read."""

    def __init__(self, sender: str | None, listed: list[str] | None, why: bool) -> None:
        """sender, listed: as given, the first None where it is not known; why: to explain."""
        self.sender = sender.strip().removeprefix("<").removesuffix(">").strip() if sender is not None else None
        self._listed = bool(self.sender)
        if self.sender and listed is not None:
            self._listed = is_listed(self.sender, frozenset(each.lower() for each in listed))
        self._places = explain.Places() if why else None  # of the message that was read last

    def report(self, message: bytes) -> Report | None:
        if self._places is not None:
            self._places = explain.Places()
        keep = self._places.keep if self._places is not None else None
        if self.sender is None:
            return scan_report(message, placed=keep)
        return find_report(message, null_sender=not self.sender, listed_sender=self._listed, placed=keep)

    def row(self, name: str, message: bytes, report: Report | None) -> JSON:
        found = row(name, message, report)
        if self._places is None:
            return found
        if report is not None and report.reason is None:
            found["why"] = explain.explained(report, message, self._places)
        else:
            found["why"] = explain.why_not(report, message, self.sender)
        return found


def run(args: argparse.Namespace) -> int:
    """Print what was found in each message; 1 if a file could not be read."""
    reading = Reading(args.sender, args.feedback_sender, args.why)
    sums = Sums()
    unread: list[str] = []
    for name, message in _all(args.file or [sources.STDIN], unread):
        report = reading.report(message)
        found = reading.row(name, message, report)
        sums.add(found, mailer(report, message) if report is not None and report.reason is None else None)
        if sums.messages % PROGRESS == 0:
            print(f"relay-gateway report: {sums.messages} messages", file=sys.stderr, flush=True)
        if not args.summary:
            _print(json.dumps(found) if args.json else summary(found))
    if args.summary or (sums.messages > 1 and not args.json):
        _print(json.dumps(sums.as_json()) if args.json else sums.text())
    return 1 if unread else 0


def _print(text: str) -> None:
    print(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _all(names: list[str], unread: list[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        for place, one in sources.places(name):
            try:
                yield from sources.messages(place, one)
            except OSError as error:
                print(f"relay-gateway report: {place}: {error.strerror}", file=sys.stderr)
                unread.append(place)
