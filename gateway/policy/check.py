"""`relay-gateway check FILE`: reads a policy as the service would, without binding anything, and says what is wrong.

Runs the service's own loader, looks at the text of handlers that loading does not reach, and asks
get_listener_domain about a domain that nobody has heard of.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import suppress

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import ListenerDomain
from gateway.net import tls
from gateway.policy import events, lint, surroundings
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy
from gateway.policy.problems import PolicyError, PolicyProblems, Problem, Rejected
from gateway.policy.source import PolicySource

# RFC 2606 §2: .invalid is nobody's domain; RFC 5737: 192.0.2.0/24 is nobody's network.
_STRANGER = {"received_from": "192.0.2.1:40000", "received_via": "192.0.2.2:25", "reception_protocol": "ESMTP"}
_NOBODYS_DOMAIN = "nobody-has-heard-of-this.invalid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `check`."""
    parser.add_argument("policy", metavar="FILE", help="the policy, a Lua file")


def run(args: argparse.Namespace) -> int:
    """Prints every problem and warning as FILE:LINE: …; returns 0 for a policy that can be used, else 1."""
    try:
        source = PolicySource.read(args.policy)
    except OSError as error:
        print(f"{args.policy}: {error.strerror}")
        return 1
    found, warnings, summary = examine(source)
    for problem in found:
        print(problem)
    for warning in warnings:
        print(_as_warning(warning))
    if found:
        print(f"{args.policy}: {len(found)} problem{'s' * (len(found) > 1)}; the gateway would not start with it")
        return 1
    print(f"{args.policy}: {summary}")
    return 0


def examine(source: PolicySource) -> tuple[list[Problem], list[Problem], str]:
    """(problems, warnings, one line about what the policy declares). Reads the policy's other files into `source`."""
    page = CounterPage(bytearray(metrics.page_size()))
    policy, found = None, []
    try:
        policy = Policy.load(source, page=page, validating=True)
    except PolicyProblems as bad:
        found = list(bad.problems)
    listeners = policy.config.listeners if policy is not None else ()
    loggers = policy.config.local_logs if policy is not None else ()
    troubles = surroundings.unusable_keys(source, listeners, tls.KeyFiles())
    troubles += surroundings.unusable_directories(source, loggers, make=False)
    found = _merged(found, [*lint.problems(source), *(trouble.problem for trouble in troubles)])
    warnings = lint.notes(source)
    if policy is not None and not found:
        warnings += _strangers_rights(policy)
    return found, warnings, "" if policy is None else _summary(policy)


def _merged(loading: Iterable[Problem], seen: list[Problem]) -> list[Problem]:
    """Both views of the policy; where they agree, the one that knows the exact line or the better words."""
    messages = {(problem.file, problem.message) for problem in seen}
    places = {(problem.file, problem.line) for problem in seen}
    rest = [
        problem
        for problem in loading
        if (problem.file, problem.message) not in messages
        and not (problem.message.startswith("attempt to call a nil value") and (problem.file, problem.line) in places)
    ]
    return sorted({*rest, *seen}, key=lambda problem: (problem.file, problem.line, problem.message))


def _strangers_rights(policy: Policy) -> Iterator[Problem]:
    """Warns of what anybody may do: relay to any domain, or have reports about any domain logged."""
    if events.LISTENER_DOMAIN not in policy.handles:
        return
    granted = _granted(policy, _NOBODYS_DOMAIN)
    if granted is None:
        return
    file, line = policy.registered_at(events.LISTENER_DOMAIN)
    if granted.relay_to:
        message = "anybody may relay to any domain: get_listener_domain grants relay_to for domains it does not know"
        yield Problem(file, line, message, "grant it for domains of yours, or to clients that authenticated")
    if granted.takes_reports:
        message = "anybody may have reports logged, whatever domain they are addressed to"
        yield Problem(file, line, message, "set log_oob and log_arf for the domains that reports come back to")


def _granted(policy: Policy, domain: str) -> ListenerDomain | None:
    """What a stranger's mail for a domain is granted."""
    granted: ListenerDomain | None = None
    with suppress(Rejected, PolicyError):
        answer = policy.listener_domain(domain, _STRANGER["received_via"], ConnMeta(dict(_STRANGER)))
        granted = policy.finish(answer)
    return granted


def _as_warning(problem: Problem) -> str:
    return str(Problem(problem.file, problem.line, f"warning: {problem.message}", problem.hint))


def _summary(policy: Policy) -> str:
    config = policy.config
    listeners = ", ".join(listener.listen for listener in config.listeners) or "no SMTP listener"
    handlers = ", ".join(sorted(policy.handles)) or "none"
    postmaster = f"; {_postmaster(policy)}" if config.listeners and events.LISTENER_DOMAIN in policy.handles else ""
    return f"good; {listeners}; handlers: {handlers}{postmaster}"


def _postmaster(policy: Policy) -> str:
    """What becomes of mail for <Postmaster>, which RFC 5321 §4.5.1 wants to be taken where mail for any domain is."""
    for domain in ("", *(str(listener.overrides.get("hostname", "")).lower() for listener in policy.config.listeners)):
        granted = _granted(policy, domain)
        if granted is not None and (granted.relay_to or granted.takes_reports):
            return f"mail for <Postmaster> is taken {'from anybody' if granted.relay_to else 'where it is a report'}"
    return "mail for <Postmaster> is refused but from relay_hosts: nothing is granted for '' or a listener's hostname"
