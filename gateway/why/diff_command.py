"""`relay-gateway diff`: what another policy would change of what the records say that clients asked."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson

from gateway.logs.reader import DirectoryReader
from gateway.policy import deployment, printing
from gateway.policy.background import Background
from gateway.policy.problems import PolicyProblems
from gateway.why.asking import Silence, desk_for
from gateway.why.command import EX_CONFIG, EX_USAGE
from gateway.why.difference import Comparison, PolicyChange, as_json, listed
from gateway.why.prose import rule_in_words
from gateway.why.recorded import Unusable, asked_in

CHANGES = 1  # the exit status where something changes
PROGRESS_SECONDS = 1.0
_REPORTS = ("OOB", "Feedback")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `diff`."""
    parser.add_argument("--old", metavar="FILE", required=True, help="the policy that is compared with")
    parser.add_argument("--new", metavar="FILE", required=True, help="the policy that is to be")
    parser.add_argument("--log", metavar="DIR", action="append", required=True, help="a log directory; may be repeated")
    deployment.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for a program: docs/why.md lists the keys")


def run(args: argparse.Namespace) -> int:
    """Prints what would change. Returns 0 where nothing does, 1 where something does, 2 where no records can be read,
    78 for a policy that cannot be used.
    """
    background = Background.alone()
    try:
        with Silence(), printing.on_standard_error():
            old, new = (desk_for(deployment.source_of(args, path), background) for path in (args.old, args.new))
            comparison = Comparison(old, new)
            comparison.require_listeners()
            report = _compared(comparison, args)
    except PolicyProblems as bad:
        for problem in bad.problems:
            print(problem, file=sys.stderr)
        return EX_CONFIG
    except OSError as error:
        print(f"relay-gateway diff: {error.filename}: {error.strerror}", file=sys.stderr)
        return EX_CONFIG if error.filename in (args.old, args.new) else EX_USAGE
    finally:
        background.end()
    if not report["records"]:
        print(f"relay-gateway diff: there are no log records in {', '.join(args.log)}", file=sys.stderr)
        return EX_USAGE
    if args.json:
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        print("\n".join(_in_words(report, comparison.changes, deployed=bool(args.fleet or args.gateway_config))))
    return CHANGES if comparison.changes else 0


class Progress:
    """Says on a terminal how far the work is, once a second."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PROGRESS_SECONDS
        self._shown = False
        self._is_terminal = sys.stderr.isatty()

    def tell(self, text: str) -> None:
        """Now is this."""
        if self._is_terminal and time.monotonic() >= self._next:
            print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
            self._next = time.monotonic() + PROGRESS_SECONDS
            self._shown = True

    def end(self) -> None:
        """The work is done."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _compared(comparison: Comparison, args: argparse.Namespace) -> dict[str, Any]:
    progress = Progress()
    kinds: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    report_ids = {str(record.get("id")) for record in _records(args.log) if record.get("type") in _REPORTS}
    for number, record in enumerate(_records(args.log), 1):
        kinds[str(record.get("type"))] += 1
        try:
            for asked in asked_in(record, report_ids):
                comparison.add(asked)
        except Unusable as why:
            left_out[str(why)] += 1
        progress.tell(f"{number} records read")
    questions = comparison.questions
    comparison.decide(lambda number: progress.tell(f"{number} of {questions} questions decided"))
    progress.end()
    domains: Counter[str] = Counter()
    peers: Counter[str] = Counter()
    for change in comparison.changes:
        domains += change.domains
        peers += change.peers
    return {
        "old": args.old,
        "new": args.new,
        "logs": args.log,
        "records": dict(kinds),
        "left_out": dict(left_out),
        "questions": questions,
        "recipients": comparison.recipients,
        "changed": sum(change.recipients for change in comparison.changes),
        "unlike_recorded": comparison.unlike,
        "unknown_listener": comparison.unknown_listener,
        "by_domain": listed("domain", domains),
        "by_peer": listed("peer", peers),
        "by_rule": [as_json(change) for change in comparison.changes],
    }


def _records(directories: list[str]) -> Iterator[dict[str, Any]]:
    for directory in directories:
        reader = DirectoryReader(directory)
        try:
            for line in reader.lines():
                try:
                    record = orjson.loads(line)
                except orjson.JSONDecodeError:  # written by a template
                    record = None
                yield record if isinstance(record, dict) else {}
        finally:
            reader.close()


def _in_words(report: dict[str, Any], changes: list[PolicyChange], *, deployed: bool) -> Iterator[str]:
    yield (
        f"{report['recipients']} recipients in {sum(report['records'].values())} records, "
        f"{report['questions']} different questions: {report['changed'] or 'nothing'} would change"
    )
    for why, count in report["left_out"].items():
        yield f"  left out, {count}: {why}"
    if report["unlike_recorded"]:
        hint = "" if deployed else "; where that was with --fleet, give it here, too"
        yield f"  {report['unlike_recorded']} are decided by the old policy otherwise than was recorded{hint}"
    if report["unknown_listener"]:
        yield f"  of {report['unknown_listener']} the listener is not recorded; the first one was asked"
    for title, rows, key in (("domain", report["by_domain"], "domain"), ("peer", report["by_peer"], "peer")):
        if rows:
            yield f"by {title}"
            yield from (f"  {row['recipients']:8} {row[key] or '(none)'}" for row in rows)
    if changes:
        yield "by rule"
    for change in changes:
        yield f"  {change.recipients:8} recipients, {change.questions} questions"
        for word, decided, rule in zip(("old", "new"), (change.old, change.new), change.rules, strict=True):
            said = " ".join(filter(None, (str(decided.code), decided.enhanced, decided.text.replace("\n", " / "))))
            yield f"           {word}: {said}, {decided.outcome}" + (f" to {decided.where}" if decided.where else "")
            if rule is not None:
                yield from (f"                {line}" for line in rule_in_words(rule))
        for asked in change.examples:
            yield f"           such as {asked.peer} from <{asked.sender}> to <{asked.recipient or ''}>: {asked.content}"
