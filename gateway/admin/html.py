"""The status page: what status.py tells, as HTML. Pure. Every text is escaped here, whoever wrote it.

status.html is the page around it; its script puts in anew what `fragment` makes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from gateway.admin.status import Status
from gateway.terminal import amount, printable, short

_PAGE = files("gateway.admin").joinpath("status.html").read_text(encoding="utf-8")
_MARK = "<!-- status -->"
_FORMS_MARK = "<!-- operator -->"
_FORMS = files("gateway.admin").joinpath("operator.html").read_text(encoding="utf-8")
_SHARE_BAD = 0.8


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _policy_for(page: str) -> str:
    """A Content-Security-Policy that runs and styles nothing but what stands in the page itself."""

    def source(tag: str) -> str:
        text = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {source('script')}; style-src {source('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


CONTENT_SECURITY = _policy_for(_PAGE)


def page(status: Status, can_operate: bool = False) -> str:
    """The whole page. can_operate: with forms for who has the operator's token."""
    return _PAGE.replace(_MARK, fragment(status)).replace(_FORMS_MARK, _FORMS if can_operate else "")


def fragment(status: Status) -> str:
    """What changes of it."""
    halves = (_refusals, _handlers, _limits, _listeners, _members, _workers, _spool)
    sections = "".join(half(status) for half in halves)
    return f'{_head(status)}{_tiles(status)}<div class="columns">{sections}</div>{_refused(status)}{_ways(status)}'


def text_page(title: str, text: str) -> str:
    """A page with a text of many lines."""
    body = f'<p><a href="/">back</a></p><h2>{_text(title)}</h2><pre>{escape(text)}</pre>'
    return _PAGE.partition("<script>")[0].replace(_MARK, body) + "</body></html>\n"


def _text(value: Any) -> str:
    return value if isinstance(value, Html) else escape(printable(str(value)))


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Any]], nothing: str = "") -> str:
    """Heads that begin with > are of numbers. Without rows: the text for that, or nothing at all."""
    made = list(rows)
    if not made:
        return f'<section><h2>{_text(title)}</h2><p class="dim">{_text(nothing)}</p></section>' if nothing else ""
    kinds = [' class="n"' if head.startswith(">") else "" for head in heads]
    head = "".join(f"<th{kind}>{_text(each.lstrip('>'))}</th>" for kind, each in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{_text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in made
    )
    return f'<section><h2>{_text(title)}</h2><div class="wide"><table><tr>{head}</tr>{body}</table></div></section>'


def _head(status: Status) -> str:
    policy, ready = status["policy"], status["ready"]
    word = Html('<b class="good">ready</b>') if ready["ready"] else Html('<b class="bad">not ready</b>')
    why = "" if ready["ready"] else f": {_text(ready['problem'] or 'not every listener takes connections')}"
    failed = policy["failed"] and policy["failed"] > (policy["loaded"] or 0)
    note = ' <b class="bad">what is on the disk could not be loaded</b>' if failed else ""
    return (
        f"<p>{word}{why} · version {_text(status['version'])}, up {_span(status['uptime'])} · policy "
        f"{_text(policy['file'])}, epoch {policy['epoch'] or 0:.0f}, {_text(policy['hash'])}{note}</p>"
    )


def _tiles(status: Status) -> str:
    rates, upstream = status["rates"], status["upstream"]
    tiles = [
        ("messages/s", short(rates["messages"])),
        ("relayed/s", short(rates["relayed"])),
        ("refused/s", short(rates["refused"])),
        ("refusals/s, all stages", short(rates["refusals"])),
        ("connections/s", short(rates["connections"])),
        ("octets/s", short(rates["octets"])),
        ("messages so far", short(sum(status["messages"].values()))),
        ("reply after, 99 %", _seconds(status["durations"]["message"]["p99"])),
        ("fleet: open, waiting", f"{short(upstream['open'] or 0)}, {short(upstream['waiting'] or 0)}"),
    ]
    cells = "".join(f'<div class="tile"><b>{_text(value)}</b>{_text(what)}</div>' for what, value in tiles)
    return f'<div class="tiles">{cells}</div>'


def _refusals(status: Status) -> str:
    rows = [(each["reason"], each["stage"], short(each["minute"]), short(each["total"])) for each in status["refusals"]]
    return _table("Refusals", ("reason", "stage", ">last minute", ">in all"), rows, "nothing was refused")


def _handlers(status: Status) -> str:
    rows = [
        (each["event"], short(each["calls"]), _seconds(each["mean"]), _seconds(each["p99"]))
        for each in status["handlers"]
    ]
    heads = ("handlers of the policy", ">calls, last minute", ">mean", ">99 % below")
    return _table("Slowest handlers", heads, rows, "none was called in the last minute")


def _limits(status: Status) -> str:
    return _table("Limits", ("", "", ">used", ">of"), map(_limit, status["limits"]))


def _limit(each: Mapping[str, Any]) -> tuple[Any, ...]:
    share = min(1.0, each["used"] / each["limit"])
    meter = Html(f'<meter value="{share:.4f}" high="{_SHARE_BAD}" optimum="0">{share:.0%}</meter>')
    return each["what"], meter, short(each["used"]), short(each["limit"])


def _listeners(status: Status) -> str:
    answers: Mapping[str, str] = status["ready"]["listeners"]
    counted = {each["listener"]: each for each in status["listeners"]}
    rows = []
    for address, answer in answers.items():
        each = counted.get(address, {})
        names = ("connections_open", "connections_opened", "connections_refused", "messages")
        word = answer if answer != "ok" else Html('<span class="good">ok</span>')
        rows.append((address, word, *(short(each.get(name, 0)) for name in names)))
    return _table("Listeners", ("listener", "", ">open", ">accepted", ">turned away", ">messages"), rows)


def _any(title: str, label: str) -> Callable[[Status], str]:
    """A table of whatever is told of each."""

    def section(status: Status) -> str:
        entries = status[f"{label}s"]
        entries = entries["each"] if isinstance(entries, dict) else entries
        columns = list(dict.fromkeys(key for each in entries for key in each if key != label))
        columns.sort(key=lambda column: column != "state")  # which one looks for first
        heads = (label, *(f">{column.replace('_', ' ')}" for column in columns))
        rows = [(each[label], *(amount(each.get(key, "")) for key in columns)) for each in entries]
        return _table(title, heads, rows)

    return section


_members = _any("Members of the fleet", "member")
_workers = _any("Workers", "worker")


def _spool(status: Status) -> str:
    spool = status["spool"] if any(status["spool"].values()) else {}
    return _table("Spool", ("", ">"), [(key.replace("_", " "), short(value)) for key, value in spool.items()])


def _refused(status: Status) -> str:
    rows = []
    for event in reversed(status["refused"]):
        query = urlencode({"session": event.get("session", ""), "time": event.get("time", "")})
        why = Html(f'<a href="/status/refused?{escape(query)}">why</a>')
        reply = " ".join(str(event[key]) for key in ("code", "enhanced", "text") if event.get(key))
        to = ", ".join(map(str, event.get("recipients") or ()))
        who = f"{event.get('peer', '')} {event.get('ehlo') or ''}"
        rows.append((str(event.get("time", ""))[11:19], who, event.get("sender") or "", to, reply, why))
    return _table("Refused last", ("UTC", "client", "from", "to", "reply", ""), rows)


def _ways(status: Status) -> str:
    following = status["following"]
    note = "while you look, and while there are few" if following["on"] else "not now: too much happens for that"
    parts = []
    for way in following["ways"]:
        logs = " ".join(following["log_dirs"])
        hints = [f"records: relay-gateway logs -m {each} {logs}" for each in way["ids"]] if logs else []
        hints += [f"  {line}" for line in way.get("records", ())]
        head = f"session {way['session']} of {way['peer']}"
        parts.append(f"<pre>{escape(chr(10).join(map(printable, (head, *way['lines'], *hints))))}</pre>")
    shown = "".join(parts) or '<p class="dim">send a message, and its way is shown here</p>'
    return f'<section><h2>The way of the last messages</h2><p class="dim">{_text(note)}</p>{shown}</section>'
