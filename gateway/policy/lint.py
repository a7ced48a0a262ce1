"""What can be seen wrong with a policy's text without running it: calls of what there is not, and of what there is with
what it does not take. Uses the same schemas and words as the running functions; walk.py finds the calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from gateway.policy import delivery_side, events
from gateway.policy.abstract import Closure, Path, as_options, lua_type
from gateway.policy.api import DECLARATIONS, WARNED
from gateway.policy.conn_meta import KEYS
from gateway.policy.findings import Called, NilUse, Place, Where
from gateway.policy.fleet_schemas import FLEET
from gateway.policy.handlers import extras
from gateway.policy.kumo.values import integer
from gateway.policy.memo import MEMOIZE
from gateway.policy.messages.content import CONFORMANCE
from gateway.policy.model import Model, of_this_gateway
from gateway.policy.options import UNKNOWN, BadOptions, did_you_mean
from gateway.policy.outside.http import BUILD_CLIENT
from gateway.policy.outside.jsonl import NEW_WRITER
from gateway.policy.outside.measures import DEFINE
from gateway.policy.outside.redis import OPEN
from gateway.policy.problems import MISSING_EXTRAS, NOT_YET, Problem, Severity, missing_module
from gateway.policy.schemas import SCHEMAS
from gateway.policy.shipping_schemas import SHIPMENT
from gateway.policy.source import PolicySource
from gateway.policy.walk import Walk

_EVENTS = (*events.SUPPORTED, *events.NOT_SUPPORTED, *events.WITHOUT_EFFECT)
# by function: which argument is a table of options, and which those are
_OPTIONS = {**{f"kumo.{name}": (0, schema) for name, schema in SCHEMAS.items()}, "kumo.memoize": (1, MEMOIZE)}
_OPTIONS |= {"gateway.fleet": (0, FLEET), "gateway.ship": (0, SHIPMENT), "kumo.counter_series.define": (0, DEFINE)}
_OPTIONS["message:check_fix_conformance"] = (2, CONFORMANCE)
# Those that leave out what they do not know, as KumoMTA does: see read_known_options.
_LENIENT = {
    "kumo.http.build_client": (0, BUILD_CLIENT),
    "kumo.jsonl.new_writer": (0, NEW_WRITER),
    "redis.open": (0, OPEN),
}
_OPTIONS |= _LENIENT
_MAY_BE_LEFT_OUT = frozenset({"kumo.http.build_client", "message:check_fix_conformance"})
_ANYTIME = frozenset({"", events.PRE_INIT, events.INIT, events.VALIDATE_CONFIG})
_DECLARATIONS = frozenset(f"kumo.{name}" for name in DECLARATIONS)


class Lint:
    """What the text of a policy shows. Reads the files that handlers require into `source`.

    calls: of what the gateway offers, as far as they can be reached.
    """

    def __init__(self, source: PolicySource, model: Model | None = None) -> None:
        model = model or of_this_gateway()
        walk = Walk(model, source)
        walk.go()
        self._nil_uses = walk.nil_uses
        self._source = source
        self._has_fleet = source.deployment.fleet is not None
        self._calls = walk.calls
        self._strings = walk.strings()
        self._names = walk.fields()
        self._places = walk.lines()
        self._missing_modules = walk.missing_modules
        self._modules = ["kumo", *model.modules, *(f"policy-extras.{name}" for name in (*extras(), *MISSING_EXTRAS))]
        self.calls = [call for call in walk.calls if call.where.uncalled is None]

    def tables(self, function: str) -> Iterator[tuple[Called, dict[object, Any], dict[Path, int]]]:
        """The calls of a function that have their options written in them: with those, and the lines of each."""
        for call in self.calls:
            options, lines = options_of(call)
            if call.function.name == function and isinstance(options, dict):
                yield call, options, lines

    def missing(self, names: Iterable[str]) -> Iterator[Problem]:
        """A warning wherever one of these functions of the gateway's own is used and is not there."""
        wanted = frozenset(names)
        for use in self._nil_uses:
            if use.absent.written in wanted and use.where.uncalled is None and not use.harmless:
                name = use.absent.written
                yield _warning(use.where, f"{name}: KumoMTA has nothing of that name", f"write: if {name} then … end")

    def problems(self) -> list[Problem]:
        """Errors and warnings, each once, in no order."""
        found: dict[Problem, None] = {}
        uncalled: dict[Place, list[Problem]] = defaultdict(list)
        for where, problem in self._all():
            if where.uncalled is None:
                found[replace(problem, severity=Severity.WARNING) if where.caught else problem] = None
            elif problem.severity is Severity.ERROR and problem not in uncalled[where.uncalled]:
                uncalled[where.uncalled].append(problem)
        return [*found, *(self._in_uncalled(place, problems) for place, problems in uncalled.items() if problems)]

    def _in_uncalled(self, place: Place, problems: list[Problem]) -> Problem:
        """Nobody calls a helper with mistakes in it: that is worth one warning."""
        first, more = min(problems, key=lambda one: one.line), len(problems) - 1
        others = f", and {more} more" if more else ""
        message = f"nothing calls this function; line {first.line} would be an error: {first.text}{others}"
        return Problem(place[0], self._places[place], message, "", Severity.WARNING)

    def left_to_the_fleet(self) -> list[Problem]:
        """What of the policy, once it was loaded, the fleet does, each thing once."""
        if self._has_fleet:
            for call in self.calls:
                if self._is_left(call):
                    self._source.left.note(_name_left(call), call.where.file, call.where.line)
        return self._source.left.notes()

    def _is_left(self, call: Called) -> bool:
        return self._has_fleet and bool(_name_left(call))

    def _all(self) -> Iterator[tuple[Where, Problem]]:
        for use in self._nil_uses:
            for problem in self._of_nil(use):
                yield use.where, problem
        for call in self._calls:
            if self._is_left(call):
                continue
            for problem in (*self._of_call(call), *_notes_of(call), *self._removal(call)):
                yield call.where, problem

    def _of_nil(self, use: NilUse) -> Iterator[Problem]:
        absent, where = use.absent, use.where
        if not use.harmless:
            yield _error(where, absent.message, absent.hint)
        elif not any(other.absent == absent and not other.harmless for other in self._nil_uses):
            yield replace(_error(where, absent.message, absent.hint), severity=Severity.WARNING)

    def _of_call(self, call: Called) -> Iterator[Problem]:
        name = call.function.name
        if call.function.unsupported:
            hint = delivery_side.HINT if delivery_side.is_function(name) else ""
            yield _error(call.where, f"{call.written if ':' in name else name} {NOT_YET}", hint)
        elif name in _DECLARATIONS and call.where.event not in _ANYTIME:
            yield _error(call.where, f"{name} must be called in the init event")
        elif name in _OPTIONS:
            yield from _of_options(call)
        elif name == "kumo.on":
            yield from self._of_event(call)
        elif name in ("kumo.reject", "kumo.disconnect"):
            yield from _of_verdict(call)
        elif name == "conn_meta:get_meta":
            yield from self._of_key(call)
        elif name == "require" and call.arguments and call.arguments[0] in self._missing_modules:
            message, _ = missing_module(str(call.arguments[0]))
            meant = self._module_meant(str(call.arguments[0]))
            yield _error(call.where, message, delivery_side.HINT if _is_module(call) else meant)

    def _module_meant(self, name: str) -> str:
        """ "did you mean …?" of a module; within a package that there is, only what comes behind its name counts."""
        package, _, rest = name.partition(".")
        inside = [known.partition(".")[2] for known in self._modules if known.startswith(f"{package}.")]
        return did_you_mean(rest, inside) if inside else did_you_mean(name, self._modules)

    def _of_key(self, call: Called) -> Iterator[Problem]:
        """A key that nothing in the policy sets, and that is nearly one of those that are set."""
        key = call.arguments[0] if call.arguments else None
        if not isinstance(key, str) or key in KEYS or self._strings[key] > 1 or key in self._names:
            return
        if hint := did_you_mean(key, KEYS):
            yield _warning(call.where, f"{call.written}: nothing sets '{key}'", hint)

    def _removal(self, call: Called) -> Iterator[Problem]:
        """Header fields that are gone when the fleet's policy looks for them."""
        kind, _, method = call.function.name.partition(":")
        if self._has_fleet and kind == "message" and method in ("remove_all_named_headers", "remove_x_headers"):
            message = f"{call.written}: the policy of the fleet does not see what is removed here"
            yield _warning(call.where, message, "where it looks for that, write `if not kumo.gateway then … end`")

    def _of_event(self, call: Called) -> Iterator[Problem]:
        event = _event_of(call)
        if call.where.event:
            message = f"kumo.on: a handler cannot be registered from within '{call.where.event}'"
            yield _error(call.where, message, "register it where the policy is loaded")
        yield from _of_handler(call)
        if not event or event in events.SUPPORTED:
            return
        if not events.is_supported(event):
            hint = delivery_side.HINT if delivery_side.is_event(event) else ""
            yield _error(call.where, f"kumo.on: event '{event}' {NOT_YET}", hint)
        elif event in events.WITHOUT_EFFECT:
            yield _warning(call.where, f"kumo.on: event '{event}' is never triggered", events.WITHOUT_EFFECT[event])
        elif self._strings[event] == 1 and (hint := did_you_mean(event, _EVENTS)):
            # One of the policy's own is named a second time, where it is triggered.
            yield _error(call.where, f"kumo.on: event '{event}' is never triggered", hint)


def _event_of(call: Called) -> str:
    """The event that kumo.on is given; "" where it is computed."""
    event = call.arguments[0] if call.arguments else None
    return event if isinstance(event, str) else ""


def _of_handler(call: Called) -> Iterator[Problem]:
    """Whether there is a handler, and whether it expects more than it gets."""
    event, handler = [*call.arguments, None, None][:2]
    kinds = lua_type(event), lua_type(handler)
    if not call.more and (kinds[0] not in ("", "string") or kinds[1] not in ("", "function")):
        name, function = (kind or "value" for kind in kinds)
        yield _error(call.where, f"kumo.on: expected a name and a function, got a {name} and a {function}")
    if isinstance(handler, Closure) and event in events.SUPPORTED:
        passed = events.PARAMETERS[str(event)]
        for name in [name for name in handler.parameters()[len(passed) :] if not name.startswith("_")]:
            hint = f"it is given {', '.join(passed) or 'nothing'}"
            yield _warning(call.where, f"kumo.on: a handler of '{event}' gets nothing for '{name}'", hint)


def _is_module(call: Called) -> bool:
    """Whether a module of the delivery side is required."""
    name = call.arguments[0] if call.function.name == "require" and call.arguments else None
    return isinstance(name, str) and delivery_side.is_module(name)


def _name_left(call: Called) -> str:
    """What a call of the delivery side is called; "" where it is none."""
    name = call.function.name
    if name == "kumo.on":
        return f"the handler of {_event_of(call)}" if delivery_side.is_event(_event_of(call)) else ""
    if name == "require":
        return str(call.arguments[0]) if _is_module(call) else ""
    if name == delivery_side.HTTP_LISTENER:
        options, _ = options_of(call)
        return delivery_side.INJECTION if isinstance(options, dict) and delivery_side.is_injection(options) else ""
    return name.replace("message:", "msg:") if delivery_side.is_function(name) else ""


def options_of(call: Called) -> tuple[Any, dict[Path, int]]:
    """The table of options that is written in a call, and the lines of its entries; UNKNOWN where it is computed."""
    lines: dict[Path, int] = {}
    position = _OPTIONS.get(call.function.name, (0,))[0]
    given = call.arguments[position] if position < len(call.arguments) else None
    options = as_options(given, (), lines)
    return (_with_keys(options) if call.function.name == "kumo.start_esmtp_listener" else options), lines


def _with_keys(options: Any) -> Any:
    """Keys from a vault or an event are found when the listener is declared."""
    if not isinstance(options, dict):
        return options
    is_elsewhere = not {"event_name", "vault_mount", "vault_path"}.isdisjoint(options)
    return UNKNOWN if is_elsewhere else {name: _with_keys(value) for name, value in options.items()}


def _error(where: Where, message: str, hint: str = "", line: int = 0) -> Problem:
    return Problem(where.file, line or where.line, message, hint, at=where.at)


def _warning(where: Where, message: str, hint: str = "", line: int = 0) -> Problem:
    return replace(_error(where, message, hint, line), severity=Severity.WARNING)


def _of_options(call: Called) -> Iterator[Problem]:
    name, (options, lines) = call.function.name, options_of(call)
    schema, written = _OPTIONS[name][1], call.written if ":" in name else name
    if options is UNKNOWN or (options is None and name in _MAY_BE_LEFT_OUT):
        return
    if name in _LENIENT and isinstance(options, dict):
        for key in [key for key in options if key not in schema.options]:
            meant, line = did_you_mean(str(key), schema.options), lines.get((key,), 0)
            yield _warning(call.where, f"{written}: {key}: unknown option, which does nothing", meant, line)
        options = {key: value for key, value in options.items() if key in schema.options}
    try:
        schema.read(options)
    except BadOptions as bad:
        for trouble in bad.troubles:
            if trouble.computed:
                continue
            hint = delivery_side.hint_for(name, trouble)
            yield _error(call.where, f"{written}: {trouble}", hint, lines.get(trouble.keys, 0))


def _of_verdict(call: Called) -> Iterator[Problem]:
    """As api.py has it, for what is written out."""
    name, arguments = call.function.name, call.arguments
    code = arguments[0] if arguments else None
    if len(arguments) == 1 and not call.more and lua_type(code) not in ("", "nil"):
        yield _error(call.where, f"{name}: expected a code and a text, got 1 arguments")
    elif code is None or isinstance(code, bool | int | float | str):
        with suppress(ValueError):
            if 400 <= integer(code, name) <= 599:
                return
        yield _error(call.where, f"{name}: expected a code from 400 to 599, got {'nil' if code is None else code}")


def _notes_of(call: Called) -> Iterator[Problem]:
    """What is no mistake, but is often meant otherwise."""
    name = call.function.name.removeprefix("kumo.")
    if name in WARNED:
        yield _warning(call.where, f"kumo.{name} has no effect", WARNED[name])
    options, lines = options_of(call)
    if not isinstance(options, dict):
        return
    if name == "make_listener_domain":
        for option in ("log_oob", "log_arf"):
            if options.get(option) is True:
                yield _warning(
                    call.where,
                    f"{option} = true logs a report and then relays it only where relaying is allowed anyway",
                    "'LogThenDrop' never relays a report, 'LogThenRelay' always does",
                    lines[(option,)],
                )
    if name == "make_queue_config" and "protocol" not in options:
        yield _warning(call.where, "the queue has no protocol: its mail is answered 451 4.3.5", "name an mx_list")


def merged(loading: Iterable[Problem], seen: list[Problem]) -> list[Problem]:
    """Both views of a policy, each problem once, by file and line.

    loading: what running it said, in its words. seen: what its text shows, at the exact line.
    """
    found = dict.fromkeys(seen)
    for problem in loading:
        twin = next((other for other in found if _is_same(problem, other)), None)
        if twin is None:
            found[problem] = None
            continue
        found.pop(twin)
        told = twin if _is_about_nil(problem) or _knows_more(twin, problem) else replace(problem, line=twin.line)
        found[replace(told, severity=problem.severity) if problem.severity is Severity.ERROR else told] = None
    return sorted(found, key=lambda problem: (problem.file, problem.line, problem.severity.value, problem.message))


def _knows_more(seen: Problem, loading: Problem) -> bool:
    """Also where running it says all that is wrong there at once."""
    if loading.message.startswith(f"{seen.message}; "):
        return True
    return seen.message == loading.message and (bool(seen.hint) or not loading.hint)


def _is_about_nil(problem: Problem) -> bool:
    return problem.message.startswith(("attempt to call a nil value", "attempt to index a nil value"))


def _is_same(loading: Problem, seen: Problem) -> bool:
    if seen.file != loading.file or loading.line not in (seen.line, seen.at):
        return False
    if _is_about_nil(loading):
        name = loading.message.partition("'")[2].partition("'")[0]
        return bool(name) and name in seen.message
    return loading.message.split(": ")[:2] == seen.message.split(": ")[:2]
