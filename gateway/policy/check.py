"""`relay-gateway check FILE`: reads a policy as the service would, without binding anything, and says what is wrong.

Runs the service's own loader, walks through the text of what loading does not reach, looks at what the policy names
outside of itself, and rehearses a first message. Each problem is told once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.net import tls
from gateway.policy import deployment, events, printing, surroundings
from gateway.policy.background import Idle
from gateway.policy.collisions import is_reached_from_elsewhere
from gateway.policy.engine import Policy
from gateway.policy.kumomta import refused as kumomta_refuses
from gateway.policy.lint import Lint, merged
from gateway.policy.model import of_this_gateway
from gateway.policy.problems import PolicyProblems, Problem, Severity
from gateway.policy.rehearsal import NOBODYS_DOMAIN, Rehearsal
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
    try:
        return _report(source, background, kumomta)
    finally:
        background.end()


def _report(source: PolicySource, background: Idle, kumomta: bool) -> tuple[list[Problem], str]:
    policy, loading = _loaded(source, background)
    model = of_this_gateway()
    text = Lint(source, model)
    listeners = policy.config.listeners if policy is not None else ()
    files, now = tls.KeyFiles(), datetime.now(UTC)
    defects = surroundings.unusable_keys(source, listeners, files, text, now)
    old = surroundings.expiring(source, listeners, files, text, now) if not defects else []
    defects += surroundings.unusable_towards_members(text)
    config = policy.config if policy is not None else None
    defects += surroundings.unusable_directories(source, config, text, make=False)
    unshipped = surroundings.unreadable_by_shipments(source, config, text)
    elsewhere = kumomta_refuses(source, model) if kumomta else []
    found = merged(loading, [*text.problems(), *(defect.problem for defect in defects), *old, *unshipped, *elsewhere])
    if policy is None:
        return found, f"{_number(found)}; the gateway would not start with it"
    background.idle = True
    rehearsal = Rehearsal(policy, background)
    rehearsal.run()
    failed = [problem for problem in rehearsal.problems if not _is_explained(problem, found)]
    notes = [*_rights_of_strangers(policy, rehearsal), *_rights_of_everybody(policy), *_rights_behind_a_proxy(policy)]
    notes += text.left_to_the_fleet()
    found = merged([*failed, *notes], found)
    if not _errors(found):
        return found, _summary(policy, rehearsal, len(_warnings_in(found)))
    outcome = "not start with it" if defects else "start with it nevertheless"
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


def _rights_of_strangers(policy: Policy, rehearsal: Rehearsal) -> Iterator[Problem]:
    """Warns of what anybody may do: relay to any domain, or have reports about any domain logged."""
    if events.LISTENER_DOMAIN not in policy.handles:
        return
    granted = rehearsal.granted(NOBODYS_DOMAIN)
    if granted is None:
        return
    file, line = policy.registered_at(events.LISTENER_DOMAIN)
    if granted.relay_to:
        message = "anybody may relay to any domain: get_listener_domain grants relay_to for domains it does not know"
        hint = "grant it for domains of yours, or to clients that authenticated"
        yield Problem(file, line, message, hint, Severity.WARNING)
    if granted.takes_reports:
        message = "anybody may have reports logged, whatever domain they are addressed to"
        hint = "set log_oob and log_arf for the domains that reports come back to"
        yield Problem(file, line, message, hint, Severity.WARNING)


_CLAIMS = (
    ("require_proxy_protocol", "proxy_protocol_from", "in a PROXY header"),
    ("allow_xclient", "xclient_from", "with XCLIENT"),
)


def _rights_of_everybody(policy: Policy) -> Iterator[Problem]:
    """Warns where all addresses may relay to anywhere."""
    for number, listener in enumerate(policy.config.listeners):
        for text in listener.overrides.get("relay_hosts", ()):
            if (text == "any" or text.endswith("/0")) and is_reached_from_elsewhere(listener.listen):
                file, line = policy.declared_at("start_esmtp_listener", number)
                message = f"anybody may relay to any domain: relay_hosts has {text}"
                yield Problem(file, line, message, "set it to the networks of those who may", Severity.WARNING)
                break


def _rights_behind_a_proxy(policy: Policy) -> Iterator[Problem]:
    """Warns where anybody may be whom it likes; and where others than this machine may connect, and the machine itself
    may relay because nothing is said.
    """
    for number, listener in enumerate(policy.config.listeners):
        for option, limit, where in _CLAIMS:
            if listener.overrides.get(option) and limit not in listener.overrides:
                file, line = policy.declared_at("start_esmtp_listener", number)
                message = f"whoever connects may claim any address {where}, also one that may relay"
                yield Problem(file, line, message, f"set {limit} to the proxies", Severity.WARNING)
    if events.DYNAMIC_PARAMETERS in policy.handles:
        return
    for number, listener in enumerate(policy.config.listeners):
        if "relay_hosts" not in listener.overrides and is_reached_from_elsewhere(listener.listen):
            file, line = policy.declared_at("start_esmtp_listener", number)
            message = "relay_hosts is not set, so 127.0.0.1 and ::1 may relay to any domain: behind a proxy on this "
            hint = "set relay_hosts to those who may"
            yield Problem(file, line, f"{message}machine, everybody", hint, Severity.WARNING)


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
