"""Records in a line each, for a person. Pure; nothing that a client wrote can do more to a terminal than be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.logs.merging import LogEntry
from gateway.logs.selection import Record, recipients_of
from gateway.terminal import printable, short

_MOST_RECIPIENTS = 3


def line_of(entry: LogEntry) -> str:
    """The line of an entry; what a template wrote, as it stands."""
    record = entry.record
    if not record:
        return printable(entry.line.decode("utf-8", "replace"))
    told = _TOLD.get(str(record.get("type")), _response)(record)
    words = (_clock(record), f"{record.get('type', ''):<16}", _who(record), told, _names(record))
    return printable(" ".join(word for word in words if word)).rstrip()


def _clock(record: Record) -> str:
    text = str(record.get("event_time") or record.get("created_time") or "")
    return f"{text[:10]} {text[11:23].rstrip('Z')}"  # UTC, milliseconds


def _who(record: Record) -> str:
    sender, recipients = record.get("sender"), recipients_of(record)
    if not sender and not recipients:
        return ""
    more = len(recipients) - _MOST_RECIPIENTS
    shown = ", ".join(f"<{each}>" for each in recipients[:_MOST_RECIPIENTS]) or "nobody"
    return f"<{sender or ''}> -> {shown}{f' and {more} more' if more > 0 else ''}"


def _response(record: Record) -> str:
    response = record.get("response") or {}
    enhanced = response.get("enhanced_code")
    code = ".".join(str(enhanced.get(key)) for key in ("class", "subject", "detail")) if enhanced else ""
    words = (response.get("code") or "", code, response.get("content") or "")
    reason = f" [{record['reason']}]" if record.get("reason") else ""
    return " ".join(str(word) for word in words if word) + reason


def _peer(record: Record, word: str) -> str:
    peer = record.get("peer_address") or {}
    name, address = peer.get("name"), peer.get("addr")
    both = f"{name} ({address})" if name and address and name != address else name or address
    return f"{word} {both}" if both else ""


def _reception(record: Record) -> str:
    queue = record.get("queue")
    return f"{short(record.get('size') or 0)} octets, {_peer(record, 'from')}" + (f", queue {queue}" if queue else "")


def _attempt(record: Record) -> str:
    return " ".join(word for word in (_peer(record, "at") or str(record.get("site") or ""), _response(record)) if word)


def _rejection(record: Record) -> str:
    command = (record.get("response") or {}).get("command")
    said = f", to {command}" if command and not record.get("recipient") else ""
    return f"{_peer(record, 'from')}{said}: {_response(record)}"


def _feedback(record: Record) -> str:
    report: dict[str, Any] = record.get("feedback_report") or {}
    words = (report.get("feedback_type"), _peer(record, "from"))
    return " ".join(str(word) for word in words if word)


def _names(record: Record) -> str:
    """What to look further with."""
    names = (("id", record.get("id")), ("session", record.get("session_id")))
    return " ".join(f"{word} {name}" for word, name in names if name)


_TOLD: dict[str, Callable[[Record], str]] = {
    "Reception": _reception,
    "Delivery": _attempt,
    "TransientFailure": _attempt,
    "Bounce": _attempt,
    "Rejection": _rejection,
    "Feedback": _feedback,
}
