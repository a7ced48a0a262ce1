"""`relay-gateway report`: what is in these messages? Reads files or standard input, prints a summary or JSON lines."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gateway._fastpath import Report, scan_report
from gateway.reports.original import first_values, original_recipient, original_sender

JSON = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand on `parser`."""
    parser.description = (
        "Say which of the messages are bounces (RFC 3464) or feedback reports (RFC 5965), and what they report."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per message")
    parser.add_argument(
        "--sender",
        metavar="ADDR",
        help="the reverse-path the messages came with; with '' or '<>' a multipart/mixed bounce counts as well",
    )
    parser.add_argument("file", nargs="*", metavar="FILE", help="raw messages, CRLF or LF; standard input if none")


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
    result["original_message_present"] = report.original is not None
    if report.kind == "unreadable":
        return result | {"unreadable": report.reason}
    if report.kind == "dsn":
        result["dsn"] = {"per_message": report.per_message, "per_recipient": report.per_recipient}
    result["arf"] = report.feedback
    fields = first_values(report.original_fields(message))
    result["original_sender"] = original_sender(report, fields)
    result["original_recipient"] = original_recipient(report, fields)
    result |= {flag: True for flag in ("mixed", "truncated") if getattr(report, flag)}
    return result


def summary(found: JSON) -> str:
    """`row` for people: what the message is, then its fields, one to a line."""
    titles = {"dsn": "delivery status report", "arf": "feedback report", "other": "not a report"}
    title = titles[found["class"]]
    if reason := found.get("unreadable"):
        title = f"claims to be a report, unreadable: {reason}"
    lines = [f"{found['file']}: {title}"]
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


def run(args: argparse.Namespace) -> int:
    """Print what was found in each file; 1 if one could not be read."""
    null_sender = args.sender is not None and args.sender.strip() in ("", "<>")
    status = 0
    for name in args.file or ["-"]:
        try:
            message = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            print(f"relay-gateway report: {name}: {error.strerror}", file=sys.stderr)
            status = 1
            continue
        found = row(name, message, scan_report(message, null_sender=null_sender))
        if args.json:
            print(json.dumps(found))
        else:
            print(summary(found).encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    return status
