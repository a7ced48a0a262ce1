"""`relay-gateway ship`: brings log records where a file of its own says, beside the service or without it."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tomllib
from collections.abc import Sequence

from gateway.policy.options import BadOptions, Trouble, as_table
from gateway.policy.shipping_schemas import SHIPMENT
from gateway.service import diagnostics
from gateway.service.context import EX_CONFIG, EX_TEMPFAIL
from gateway.shipments import Shipment
from gateway.shipping.running import ship
from gateway.shipping.told import MetricsFile

_TABLE = "ship"

DESCRIPTION = """\
Read log directories behind the gateway and bring their records to webhooks, Kafka, NATS, AMQP, files or standard
output, each at least once, until SIGTERM. It needs no running gateway, and no mail waits for it.
"""
EPILOG = """\
FILE is TOML, with a table for each shipment; docs/shipping.md lists all options, which are those of gateway.ship:

  [[ship]]
  name = "warehouse"
  log_dirs = ["/var/log/relay-gateway"]
  sink.webhook = { url = "https://warehouse.example/records", signing_key = "/etc/relay-gateway/webhook.key" }

exit codes:
  0   stopped by a signal; with --once: everything is shipped
  1   with --once: something is left
  75  a file or directory cannot be used: starting again may help
  78  FILE is bad: only an edit helps
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the subcommand."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("file", metavar="FILE", help="what is to be shipped where")
    parser.add_argument("--check", action="store_true", help="only say what is wrong with FILE")
    parser.add_argument("--once", action="store_true", help="ship what there is, and end")
    parser.add_argument("--metrics", metavar="FILE", help="write Prometheus' text format there every few seconds")
    parser.add_argument("--log-level", choices=diagnostics.LEVELS, default="info", help="of the diagnostics")


def run(args: argparse.Namespace) -> int:
    """Ships; returns the exit code."""
    diagnostics.configure("ship", args.log_level)
    try:
        with open(args.file, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        print(f"{args.file}: {getattr(error, 'strerror', None) or 'is no UTF-8'}", file=sys.stderr)
        return EX_TEMPFAIL
    shipments, problems = read(text)
    for line, problem in problems:
        print(f"{args.file}:{line}: {problem}", file=sys.stderr)
    if problems or args.check:
        return EX_CONFIG if problems else 0
    told = MetricsFile(args.metrics, shipments)
    try:
        everything = asyncio.run(ship(shipments, told.tell, once=args.once))
    except (OSError, ValueError) as error:
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        print(f"relay-gateway ship: {where}{getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return EX_TEMPFAIL
    return 0 if everything or not args.once else 1


def read(text: str) -> tuple[list[Shipment], list[tuple[int, str]]]:
    """The shipments of a file, and what is wrong with it: line and words."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [], [(int(place[1]) if (place := re.search(r"line (\d+)", str(error))) else 1, f"no TOML: {error}")]
    lines = _Lines(text)
    problems = [(lines.of(None, [key]), f"unknown table '{key}'; accepted: {_TABLE}") for key in found if key != _TABLE]
    tables = found.get(_TABLE)
    if not isinstance(tables, list) or not tables:
        return [], [*problems, (1, "nothing is to be shipped: there is no [[ship]]")]
    shipments: list[Shipment] = []
    for number, table in enumerate(tables):
        try:
            shipment = SHIPMENT(as_table(table))
        except BadOptions as bad:
            problems += [(lines.of(number, trouble.keys), _words(trouble)) for trouble in bad.troubles]
            continue
        if not shipment.log_dirs:
            problems.append((lines.of(number, ["log_dirs"]), "'log_dirs' is missing"))
        elif shipment.name in [other.name for other in shipments]:
            problems.append((lines.of(number, ["name"]), f"there is a shipment '{shipment.name}' already"))
        shipments.append(shipment)
    return shipments, sorted(problems)


def _words(trouble: Trouble) -> str:
    return f"{trouble}; {trouble.hint}" if trouble.hint else str(trouble)


class _Lines:
    """Where in a text of TOML something is, as well as that can be told without its parser's help."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._starts = [n for n, line in enumerate(self._lines) if re.match(rf"\s*\[\[\s*{_TABLE}\s*\]\]", line)]

    def of(self, table: int | None, keys: Sequence[object]) -> int:
        """The line of the innermost of these keys that is found in the table with that number; else the table's."""
        begin, end = 0, len(self._lines)
        if table is not None and table < len(self._starts):
            begin = self._starts[table]
            end = self._starts[table + 1] if table + 1 < len(self._starts) else end
        for key in reversed([str(key) for key in keys]):
            for number in range(begin, end):
                if re.search(rf"(?:^|[\s\[{{.,\"']){re.escape(key)}(?:[\"'\]\s.]*=|[\s.\]])", self._lines[number]):
                    return number + 1
        return begin + 1
