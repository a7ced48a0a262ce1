"""What can be seen wrong with a policy's text without running it: options and names in handlers that loading does not
reach. Uses the same schemas and words as the running functions."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.policy import events
from gateway.policy.api import FUNCTION_NAMES, MISSING_MODULES, WARNED
from gateway.policy.api import NOT_SUPPORTED as FUNCTIONS_NOT_SUPPORTED
from gateway.policy.lua_text import Call, calls
from gateway.policy.modules import ALIASES, names
from gateway.policy.options import UNKNOWN, BadOptions, did_you_mean
from gateway.policy.problems import Problem
from gateway.policy.runtime import NOT_YET
from gateway.policy.schemas import SCHEMAS
from gateway.policy.source import PolicySource

_KNOWN = frozenset({*FUNCTION_NAMES, *ALIASES, *names()})


def problems(source: PolicySource) -> list[Problem]:
    """Mistakes in the calls of `kumo` functions, in all files of a policy."""
    return [problem for file, call in calls_in(source) for problem in _of_call(file, call)]


def notes(source: PolicySource) -> list[Problem]:
    """What is no mistake, but is often meant otherwise."""
    return list(dict.fromkeys(note for file, call in calls_in(source) for note in _notes_of(file, call)))


def calls_in(source: PolicySource) -> Iterator[tuple[str, Call]]:
    """Every call of a `kumo` function, with its file."""
    for path, content in source.files.items():
        if content is not None and (path == source.path or path.endswith(".lua")):
            for call in calls(content.decode("utf-8", "replace")):
                yield path, call


def _of_call(file: str, call: Call) -> Iterator[Problem]:
    name = f"kumo.{call.function}"
    if call.function in SCHEMAS:
        yield from _of_options(file, call)
    elif call.function in FUNCTIONS_NOT_SUPPORTED or call.function.partition(".")[0] in MISSING_MODULES:
        yield Problem(file, call.line, f"{name} {NOT_YET}")
    elif call.function not in _KNOWN:
        yield Problem(file, call.line, f"{name}: no such function", did_you_mean(call.function, _KNOWN))
    elif call.function == "on" and isinstance(call.argument, str) and not events.is_supported(call.argument):
        yield Problem(file, call.line, f"kumo.on: event '{call.argument}' {NOT_YET}")


def _of_options(file: str, call: Call) -> Iterator[Problem]:
    if call.argument is UNKNOWN:
        return
    try:
        SCHEMAS[call.function].read(call.argument)
    except BadOptions as bad:
        for trouble in bad.troubles:
            line = call.lines.get(trouble.keys, call.line)
            yield Problem(file, line, f"kumo.{call.function}: {trouble}", trouble.hint)


def _notes_of(file: str, call: Call) -> Iterator[Problem]:
    table = call.argument if isinstance(call.argument, dict) else {}
    if call.function == "make_listener_domain":
        for option in ("log_oob", "log_arf"):
            if table.get(option) is True:
                yield Problem(
                    file,
                    call.lines[(option,)],
                    f"{option} = true logs a report and then relays it only where relaying is allowed anyway",
                    "'LogThenDrop' never relays a report, 'LogThenRelay' always does",
                )
    if call.function in WARNED:
        yield Problem(file, call.line, f"kumo.{call.function} has no effect", WARNED[call.function])
    if call.function == "on" and isinstance(call.argument, str) and call.argument in events.WITHOUT_EFFECT:
        message = f"kumo.on: event '{call.argument}' is never triggered"
        yield Problem(file, call.line, message, events.WITHOUT_EFFECT[call.argument])
    elif call.function == "on" and isinstance(call.argument, str) and call.argument not in events.SUPPORTED:
        hint = did_you_mean(call.argument, events.SUPPORTED)
        if hint and events.is_supported(call.argument):
            yield Problem(file, call.line, f"kumo.on: event '{call.argument}' is never triggered", hint)
    if call.function == "make_queue_config" and isinstance(call.argument, dict) and "protocol" not in table:
        yield Problem(file, call.line, "the queue has no protocol: its mail is answered 451 4.3.5", "name an mx_list")
