"""What KumoMTA would refuse of what runs here, for files that both load: `relay-gateway check --kumomta`.

What was seen of KumoMTA is here; which functions and options are the gateway's own is said where they are declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gateway.policy.abstract import Path, Thing
from gateway.policy.api import MODULES, OURS
from gateway.policy.findings import Called
from gateway.policy.lint import Lint, options_of
from gateway.policy.model import Model
from gateway.policy.options import UNKNOWN, Schema, path_of
from gateway.policy.problems import Problem, Severity
from gateway.policy.schemas import LISTENER_BLOCK, SCHEMAS
from gateway.policy.source import PolicySource
from gateway.smtp.address import EnvelopeAddress

_NO_EMPTY_LIST = {  # it takes {} for a map
    "relay_hosts": "name an address that nobody has, such as '192.0.2.1'",
    "include_meta_names": "leave it out",
}
_NO_SHORT_CIDR = frozenset({"relay_hosts", "relay_from", "trusted_hosts"})
_SHORT = re.compile(r"\d+(\.\d+){0,2}(/\d+)?")
_ONCE = frozenset({"kumo.start_esmtp_listener", "kumo.start_http_listener"})
_TEXTS_ONLY = frozenset({"message:set_sender", "message:set_recipient"})


def refused(source: PolicySource, model: Model) -> list[Problem]:
    """A warning for each. model: what the gateway has."""
    kumo = replace(model.kumo, members={name: one for name, one in model.kumo.members.items() if name not in OURS})
    there = Lint(source, replace(model, libraries={**model.libraries, "kumo": kumo}))
    found = dict.fromkeys(there.missing(f"kumo.{name}" for name in OURS))
    for call in there.calls:
        for line, message, hint in _of_call(call):
            found[Problem(call.where.file, line or call.where.line, message, hint, Severity.WARNING)] = None
    return list(found)


def _of_call(call: Called) -> Iterator[tuple[int, str, str]]:
    name = call.function.name
    if name in _ONCE and not call.where.event:
        yield 0, f"{name}: KumoMTA does this each time it loads the policy, and fails", "call it in the init event"
    if name in _TEXTS_ONLY and Thing(EnvelopeAddress) in call.arguments:
        yield 0, f"{call.written}: KumoMTA takes no address object", "give it .email"
    if name == "require" and call.arguments and call.arguments[0] in MODULES:
        yield 0, f"require '{call.arguments[0]}': KumoMTA has no such module", "require it where kumo.gateway is true"
    schema = SCHEMAS.get(name.removeprefix("kumo."))
    options, lines = options_of(call)
    if schema is not None and isinstance(options, dict):
        for path, message, hint in _of_options(schema, options, ()):
            yield lines.get(path, 0), f"{name}: {path_of(path)}: {message}", hint


def _of_options(schema: Schema, options: Mapping[Any, Any], path: Path) -> Iterator[tuple[Path, str, str]]:
    for name, value in options.items():
        here = (*path, name)
        option = schema.options.get(name)
        if option is not None and option.ours:
            yield here, "KumoMTA has no such option", "set it where kumo.gateway is true"
        if name in ("peer", "via") and isinstance(value, dict):
            for cidr, block in value.items():
                if isinstance(block, dict):
                    yield from _of_options(LISTENER_BLOCK, block, (*here, cidr))
        elif name == "trace_headers" and isinstance(value, dict):
            yield from _of_options(schema, value, here)
        else:
            yield from ((here, message, hint) for message, hint in _of_value(name, value))


def _of_value(name: str, value: object) -> Iterator[tuple[str, str]]:
    if value == {} and name in _NO_EMPTY_LIST:
        yield "KumoMTA takes {} for a map and refuses it", _NO_EMPTY_LIST[name]
    if name in _NO_SHORT_CIDR and isinstance(value, dict):
        short = [one for one in value.values() if one is not UNKNOWN and _SHORT.fullmatch(str(one))]
        for cidr in short:
            yield f"KumoMTA refuses the short form {cidr}", "write all four numbers"
    if name == "batch_handling" and value == "Together":
        yield "KumoMTA knows no 'Together'", "it is the default here"
    if name == "listen" and isinstance(value, str) and value.startswith("fd:"):
        yield "KumoMTA takes no sockets of systemd's", ""
