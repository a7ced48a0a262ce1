"""What is traced, as lines for a person: one for each event, or for each transaction where it is told in a word.

Pure functions over what /trace says. Nothing that a client or a policy wrote can do more to a terminal than be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.terminal import printable

Event = Mapping[str, Any]

_STATES = {"watching": "watched from here on", "gone": "the worker has ended"}


def line_of(event: Event) -> str:
    """The line of an event."""
    kind = event.get("event")
    if kind in ("dropped", "failed", *_STATES):
        return printable(f"# worker {event.get('worker')}: {_about_us(event)}")
    told = _TOLD.get(str(kind), _unknown)(event)
    return printable(f"{_clock(event)} {_since(event)} {event.get('session', '')} {event.get('peer', '')} {told}")


def head_of(event: Event) -> str:
    """The line about the session that a refusal was in."""
    known = _pairs(event.get("known") or {})
    listener = event.get("listener")
    to = f" to {listener}" if listener else ""
    return printable(f"{event.get('session')} {event.get('peer')}{to}{': ' if known else ''}{known}")


def _clock(event: Event) -> str:
    return str(event.get("time", ""))[11:23]  # UTC, milliseconds


def _since(event: Event) -> str:
    return f"+{event.get('since', 0.0):.3f}"


def _about_us(event: Event) -> str:
    match event.get("event"):
        case "dropped":
            return f"{event.get('count')} events are missing here, what reads them is too slow"
        case "failed":
            return str(event.get("error"))
        case kind:
            return _STATES[str(kind)]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value not in (None, ""))


def _list(event: Event, key: str) -> str:
    return ", ".join(f"<{each}>" if "@" in each or not each else each for each in event.get(key, ()))


def _reply(event: Event) -> str:
    words = [str(event[key]) for key in ("code", "enhanced", "text") if event.get(key)]
    return " ".join(words) + (f" [{event['reason']}]" if event.get("reason") else "")


def _took(event: Event) -> str:
    return f" ({event['took'] * 1000:.3g} ms)" if "took" in event else ""


def _joined(event: Event) -> str:
    known = _pairs(event.get("known") or {})
    where = f"under way at {event.get('listener')}{': ' if known else ''}{known}"
    return where + (f"; from <{event['sender']}> to {_list(event, 'recipients')}" if "sender" in event else "")


def _policy(event: Event) -> str:
    where = f" at {event['handler']}" if event.get("handler") else ""
    read = f", having read {_pairs(event['read'])}" if event.get("read") else ""
    answer = event["error"] if "error" in event else _result(event.get("result"))
    rule = f" at {event['rule']}" if "rule" in event else ""
    if "domain" in event:
        what = f"{event.get('name')}({event['domain']})"
        answer = answer if "error" in event or event.get("result") is not None else "nothing is granted"
    else:
        what = str(event.get("name"))
    return f"policy {what}{where}: {answer}{rule}{read}{_took(event)}"


def _result(value: Any) -> str:
    if isinstance(value, dict):
        return _pairs(
            {key: ", ".join(map(str, each)) if isinstance(each, list) else each for key, each in value.items()}
        )
    if isinstance(value, list):
        said = ["nil" if each is None else str(each) for each in value]
        return "no objection" if {*said} == {"nil"} else ", ".join(said)
    return "no objection" if value is None else str(value)


def _decision(event: Event) -> str:
    cached = f" (cached, {event.get('handler', 'no handler')})" if event.get("cached") else ""
    return f"{event.get('decision')} for <{event.get('recipient')}>: {event.get('because')}{cached}"


def _message(event: Event) -> str:
    report = f"; a report, logged as {event['report']}" if "report" in event else ""
    end = "" if event.get("goes_on") else "; goes to nobody"
    return f"message {event.get('id')} for {_list(event, 'recipients')}, queue {event.get('queue')}{report}{end}"


def _handing_over(event: Event) -> str:
    where = f"Maildir {event['maildir']}" if "maildir" in event else f"fleet {', '.join(event.get('fleet', ()))}"
    return f"=> {where}: {_list(event, 'recipients')}"


def _handed_over(event: Event) -> str:
    member = " ".join(str(event[key]) for key in ("member", "address") if event.get(key)) or event.get("protocol", "")
    more = f"; and {event['more_recipients']} more" if "more_recipients" in event else ""
    outcomes = [
        f"{each.get('status')} <{each.get('recipient')}> {_reply(each)}" for each in event.get("recipients", ())
    ]
    return f"<= {member}: {'; '.join(outcomes)}{more}{_took(event)}"


def _transaction(event: Event) -> str:
    to = _list(event, "recipients") or "nobody"
    members = f" via {', '.join(event['members'])}" if "members" in event else ""
    return f"<{event.get('sender')}> -> {to}{members}: {_reply(event) or 'no message'}"


def _refused(event: Event) -> str:
    """Without the session, whose line is `head_of`."""
    sender = f" from <{event['sender']}>" if "sender" in event else ""
    to = f" to {_list(event, 'recipients')}" if event.get("recipients") else ""
    command = f"{event['command']}: " if event.get("command") else ""
    why = "".join(f"; {key}: {event[key]}" for key in ("because", "rule", "error") if event.get(key))
    return f"{command}{_reply(event)}{sender}{to}{why}"


def refusal_of(event: Event) -> str:
    """The line of a refusal below the line of its session."""
    return printable(f"  {str(event.get('time', ''))[:19]}Z {_refused(event)}")


def _unknown(event: Event) -> str:
    return f"{event.get('event')}: {_pairs({key: value for key, value in event.items() if key not in _COMMON})}"


_COMMON = ("event", "time", "worker", "session", "since", "peer")
_TOLD = {
    "connected": lambda event: f"connected to {event.get('listener')}" if event.get("listener") else "connected",
    "joined": _joined,
    "command": lambda event: f"< {event.get('command')}",
    "content": lambda event: f"< content, {event.get('octets')} octets" if event.get("octets") else "< content",
    "reply": lambda event: f"> {_reply(event)}",
    "tls": lambda event: f"TLS: {event.get('version')} {event.get('cipher')}",
    "tls_failed": lambda event: str(event.get("text")),
    "policy": _policy,
    "decision": _decision,
    "message": _message,
    "handing_over": _handing_over,
    "handed_over": _handed_over,
    "closed": lambda event: "closed",
    "transaction": _transaction,
    "session": lambda event: _reply(event) or "no transaction",
    "refused": _refused,
}
