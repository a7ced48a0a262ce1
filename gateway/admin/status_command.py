"""`relay-gateway status` and `top`: what happens in a running gateway, in a terminal, once or again and again.

What there is to tell is status.py's; which gateway answers locate.py's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

from gateway.admin import locate
from gateway.admin.display import line_of
from gateway.admin.locate import NoGateway
from gateway.admin.status import Status
from gateway.terminal import amount, bar, printable, short, table

CLEAR = "\x1b[H\x1b[2J"
_BAR = 20
_MOST_REFUSED = 5


class StatusCommand:
    """Either command. follow: goes on until Ctrl-C."""

    def __init__(self, *, follow: bool) -> None:
        self._follow = follow

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments of the subcommand."""
        locate.add_arguments(parser)
        if self._follow:
            parser.add_argument("--interval", type=float, default=2.0, metavar="S", help="seconds in between (2)")
        else:
            parser.add_argument("--json", action="store_true", help="as one JSON object")

    def run(self, args: argparse.Namespace) -> int:
        """Returns 0, 1 where nobody answers, and for `status` where the gateway is not ready."""
        try:
            base = locate.find(args.policy, args.admin)
            if self._follow:
                while True:
                    _draw(_asked(base))
                    time.sleep(max(0.2, args.interval))
            status = _asked(base)
        except NoGateway as error:
            print(f"relay-gateway {'top' if self._follow else 'status'}: {error}", file=sys.stderr)
            return 1
        print(json.dumps(status) if args.json else "\n".join(lines_of(status)))
        return 0 if status["ready"]["ready"] else 1


status = StatusCommand(follow=False)
top = StatusCommand(follow=True)


def _asked(base: str) -> Status:
    with locate.ask(base, "/status") as response:
        found: Status = json.loads(response.read())
    return found


def _draw(status: Status) -> None:
    columns, rows = shutil.get_terminal_size()
    lines = [line[:columns] for line in lines_of(status)]
    sys.stdout.write(f"{CLEAR}{chr(10).join(lines[: rows - 1])}\n")
    sys.stdout.flush()


def lines_of(status: Status) -> Iterator[str]:
    """For a person."""
    ready, policy, rates = status["ready"], status["policy"], status["rates"]
    word = "ready" if ready["ready"] else f"NOT READY: {ready['problem'] or 'not every listener takes connections'}"
    yield printable(f"relay-gateway {status['version']}: {word}; up {status['uptime']:.0f} s")
    yield printable(f"policy {policy['file']}, epoch {policy['epoch'] or 0:.0f}, {policy['hash']}")
    if policy["failed"] and policy["failed"] > (policy["loaded"] or 0):
        yield "  what is on the disk could not be loaded: relay-gateway check says why"
    named = ("messages", "relayed", "refused", "connections", "octets")
    yield "a second: " + ", ".join(f"{short(rates[name])} {name}" for name in named)
    reply, relay = (_duration(status["durations"][name]["p99"]) for name in ("message", "relay"))
    upstream = status["upstream"]
    fleet = f"{short(upstream['open'] or 0)} connections open, {short(upstream['waiting'] or 0)} messages wait"
    yield f"99 % within: reply {reply}, hand-over {relay}; fleet: {fleet}"
    yield from _section("limits", [_limit(each) for each in status["limits"]])
    refusals = [
        (each["reason"], each["stage"], short(each["minute"]), short(each["total"])) for each in status["refusals"]
    ]
    yield from _section("refused: reason, stage, in the last minute, in all", refusals)
    handlers = [
        (each["event"], short(each["calls"]), _duration(each["mean"]), _duration(each["p99"]))
        for each in status["handlers"]
    ]
    yield from _section("handlers in the last minute: calls, mean, 99 % within", handlers)
    yield from _section("listeners", _listeners(status))
    yield from _section("members", [_pairs(each, "member") for each in status["members"]])
    yield from _section("workers", [_pairs(each, "worker") for each in status["workers"]["each"]])
    if any(status["spool"].values()):
        yield from _section("spool", [(key.replace("_", " "), short(value)) for key, value in status["spool"].items()])
    if status["refused"]:
        yield ""
        yield "refused last"
        yield from (f"  {line_of(event)}" for event in status["refused"][-_MOST_REFUSED:])


def _section(title: str, rows: list[Any]) -> Iterator[str]:
    if rows:
        yield ""
        yield title
        yield from (f"  {line}" for line in table(rows))


def _limit(each: dict[str, Any]) -> tuple[str, ...]:
    share = each["used"] / each["limit"]
    shown = bar(each["used"], each["limit"], _BAR).ljust(_BAR, "·")
    return each["what"], shown, f"{share:.0%}", f"{short(each['used'])} of {short(each['limit'])}"


def _listeners(status: Status) -> list[tuple[str, ...]]:
    """Whether each takes connections, and what came there."""
    counted = {each["listener"]: each for each in status["listeners"]}
    names = {"open": "connections_open", "accepted": "connections_opened", "turned away": "connections_refused"}
    names["messages"] = "messages"
    rows: list[tuple[str, ...]] = []
    for address, answer in status["ready"]["listeners"].items():
        each = counted.get(address, {})
        rows.append((address, answer, ", ".join(f"{word} {short(each.get(name, 0))}" for word, name in names.items())))
    return rows


def _pairs(each: dict[str, Any], label: str) -> tuple[str, str]:
    told = ", ".join(f"{key.replace('_', ' ')} {amount(value)}" for key, value in each.items() if key != label)
    return str(each[label]), told


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
