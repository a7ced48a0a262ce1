"""`relay-gateway check FILE`: reads a policy as the service would, without binding anything, and says what is wrong.

Runs the service's own loader, walks through the text of what loading does not reach, looks at what the policy names
outside of itself, and rehearses a first message. Each problem is told once.
"""

from __future__ import annotations

import argparse
import json
import logging
from contextlib import nullcontext
from datetime import UTC, datetime

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.net import tls
from gateway.policy import deployment, events, printing, surroundings
from gateway.policy.background import Idle
from gateway.policy.engine import Policy
from gateway.policy.kumomta import refused as kumomta_refuses
from gateway.policy.lint import Lint, merged
from gateway.policy.model import of_this_gateway
from gateway.policy.open_relays import open_relays
from gateway.policy.outside import outside
from gateway.policy.problems import PolicyProblems, Problem, Severity
from gateway.policy.rehearsal import Rehearsal
from gateway.policy.source import PolicySource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `check`."""
    parser.add_argument("policy", metavar="FILE", help="the policy, a Lua file")
    deployment.add_arguments(parser)
    parser.add_argument("--strict", action="store_true", help="warnings make the exit status 1, too")
    parser.add_argument(
        "--kumomta", action="store_true", help="warn of what KumoMTA would refuse, too, for a file that both load"
    )
    parser.add_argument(
        "--json", action="store_true", help="print a list of {file, line, severity, message} and nothing else"
    )


def run(args: argparse.Namespace) -> int:
    """Prints every problem as FILE:LINE: …; returns 0 for a policy that can be used, else 1."""
    with printing.on_standard_error() if args.json else nullcontext():
        found, summary = _found(args)
    if args.json:
        print(json.dumps([_plain(problem) for problem in found], indent=2, ensure_ascii=False))
    else:
        for problem in found:
            print(problem)
        print(f"{args.policy}: {summary}")
    failing = _errors(found) or (args.strict and _warnings_in(found))
    return 1 if failing else 0


def _found(args: argparse.Namespace) -> tuple[list[Problem], str]:
    try:
        source = deployment.source_of(args)
    except OSError as error:
        return [Problem(args.policy, 0, error.strerror or str(error))], "it cannot be read"
    except PolicyProblems as bad:
        return list(bad.problems), "it was not looked at"
    return report(source, kumomta=args.kumomta)


def report(source: PolicySource, *, kumomta: bool = False) -> tuple[list[Problem], str]:
    """Every problem once, in the order of files and lines, and one line about it all.

    kumomta: also what KumoMTA would refuse.
    """
    background = Idle.alone()
    outside.log.addFilter(_told_here)
    try:
        return _report(source, background, kumomta)
    finally:
        outside.log.removeFilter(_told_here)
        background.end()


def _told_here(record: logging.LogRecord) -> bool:
    """Not what the service logs of options that do nothing: here that is one of the problems, with its line."""
    return record.funcName != outside.read_known_options.__name__


def _report(source: PolicySource, background: Idle, kumomta: bool) -> tuple[list[Problem], str]:
    policy, loading = _loaded(source, background)
    model = of_this_gateway()
    text = Lint(source, model)
    listeners = policy.config.listeners if policy is not None else ()
    files, now = tls.KeyFiles(), datetime.now(UTC)
    defects = surroundings.unusable_keys(source, listeners, files, text, now)
    old = surroundings.expiring(source, listeners, files, text, now) if not defects else []
    config = policy.config if policy is not None else None
    unwritable = surroundings.unusable_directories(source, config, text, make=False)
    # Those that are out of date, and those towards members, are met when they are needed.
    stopping = [*surroundings.unusable_keys(source, listeners, files, text), *unwritable]
    defects += [*surroundings.unusable_towards_members(text), *unwritable]
    unshipped = surroundings.unreadable_by_shipments(source, config, text)
    elsewhere = kumomta_refuses(source, model) if kumomta else []
    found = merged(loading, [*text.problems(), *(defect.problem for defect in defects), *old, *unshipped, *elsewhere])
    if policy is None:
        return found, f"{_number(found)}; the gateway would not start with it"
    background.idle = True
    rehearsal = Rehearsal(policy, background)
    rehearsal.run()
    failed = [problem for problem in rehearsal.problems if not _is_explained(problem, found)]
    failed += surroundings.unusable_computed_keys(policy, rehearsal.computed, files, now)
    notes = [*open_relays(policy, rehearsal, text), *text.left_to_the_fleet()]
    found = merged([*failed, *notes], found)
    if not _errors(found):
        return found, _summary(policy, rehearsal, len(_warnings_in(found)))
    outcome = "not start with it" if stopping else "start with it nevertheless"
    return found, f"{_number(found)}; the gateway would {outcome}"


def _loaded(source: PolicySource, background: Idle) -> tuple[Policy | None, list[Problem]]:
    """The policy, or what is wrong with it."""
    try:
        page = CounterPage(bytearray(metrics.page_size()))
        return Policy.load(source, page=page, validating=True, background=background, clock=background.clock), []
    except PolicyProblems as bad:
        return None, list(bad.problems)


def _errors(found: list[Problem]) -> list[Problem]:
    return [problem for problem in found if problem.severity is Severity.ERROR]


def _warnings_in(found: list[Problem]) -> list[Problem]:
    return [problem for problem in found if problem.severity is Severity.WARNING]


def _is_explained(failure: Problem, found: list[Problem]) -> bool:
    """Whether an error at that line, or in the same words in that file, says already why a handler failed."""
    return any(
        one.file == failure.file and (failure.line in (one.line, one.at) or failure.message == one.message)
        for one in _errors(found)
    )


def _number(found: list[Problem]) -> str:
    errors = len(_errors(found))
    warnings = _warnings(len(_warnings_in(found)))
    return f"{errors} problem{'s' * (errors != 1)}{f', {warnings}' if warnings else ''}"


def _warnings(number: int) -> str:
    return f"{number} warning{'s' * (number > 1)}" if number else ""


def _plain(problem: Problem) -> dict[str, object]:
    return {
        "file": problem.file,
        "line": problem.line,
        "severity": problem.severity.value,
        "message": problem.text,
    }


def _summary(policy: Policy, rehearsal: Rehearsal, warnings: int) -> str:
    config = policy.config
    told = f", {_warnings(warnings)}" if warnings else ""
    listeners = ", ".join(listener.listen for listener in config.listeners) or "no SMTP listener"
    handlers = ", ".join(sorted(policy.handles)) or "none"
    asked = config.listeners and events.LISTENER_DOMAIN in policy.handles
    postmaster = f"; {_postmaster(policy, rehearsal)}" if asked else ""
    return f"good{told}; {listeners}; handlers: {handlers}{postmaster}"


def _postmaster(policy: Policy, rehearsal: Rehearsal) -> str:
    """What becomes of mail for <Postmaster>, which RFC 5321 §4.5.1 wants to be taken where mail for any domain is."""
    for domain in ("", *(str(listener.overrides.get("hostname", "")).lower() for listener in policy.config.listeners)):
        granted = rehearsal.granted(domain)
        if granted is not None and (granted.relay_to or granted.takes_reports):
            return f"mail for <Postmaster> is taken {'from anybody' if granted.relay_to else 'where it is a report'}"
    return "mail for <Postmaster> is refused but from relay_hosts: nothing is granted for '' or a listener's hostname"
