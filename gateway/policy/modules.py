"""The modules at the border: their functions (gateway/policy/kumo and outside) with Lua's values in and out.

Which modules and functions there are is a table here, which the runtime, `check` and the docs share. A function that
answers differently at other times makes a decision uncacheable, or says how long the decision may be kept; a file read
while the policy loads is part of its snapshot.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from functools import partial, wraps
from types import FunctionType
from typing import Any, NoReturn

from gateway.later import Later
from gateway.mail.mime import MimePart
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import Evaluation
from gateway.policy.kumo import (
    cidr_map,
    crypto,
    digest,
    domain_map,
    encode,
    file_types,
    files,
    mimeparts,
    regex_sets,
    regexes,
    serde,
    strings,
    times,
    uuids,
)
from gateway.policy.kumo.cidr_map import CidrMap
from gateway.policy.kumo.domain_map import DomainMap
from gateway.policy.kumo.regex_sets import RegexSetMap
from gateway.policy.kumo.values import string
from gateway.policy.options import BadOptions, sequences
from gateway.policy.outside import (
    async_files,
    dmarc,
    http,
    jsonl,
    lookups,
    measures,
    programs,
    redis,
    spf,
    sqlite,
    throttles,
    vaults,
)
from gateway.policy.outside.outside import Lasting, Outside, Several, Unavailable
from gateway.policy.runs import Runs
from gateway.policy.runtime import (
    Exposed,
    Fault,
    LuaState,
    Repeated,
    Results,
    Unsupported,
    Waiting,
    inward,
    read_fields,
)

# by the name of the module in Lua, behind `kumo.`
MODULES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "cidr": cidr_map.FUNCTIONS,
    "crypto": crypto.FUNCTIONS,
    "digest": digest.FUNCTIONS,
    "domain_map": domain_map.FUNCTIONS,
    "encode": encode.FUNCTIONS,
    "file_type": file_types.FUNCTIONS,
    "fs": files.FUNCTIONS,
    "mimepart": mimeparts.FUNCTIONS,
    "regex": regexes.FUNCTIONS,
    "regex_set_map": regex_sets.FUNCTIONS,
    "serde": serde.FUNCTIONS,
    "string": strings.FUNCTIONS,
    "time": times.FUNCTIONS,
    "uuid": uuids.FUNCTIONS,
}
# Likewise; their functions are given an Outside first.
OUTSIDE: dict[str, Mapping[str, Callable[..., Any]]] = {
    "dns": lookups.FUNCTIONS,
    "fs": async_files.FUNCTIONS,
    "counter_series": measures.COUNTERS,
    "dmarc": dmarc.FUNCTIONS,
    "http": http.FUNCTIONS,
    "jsonl": jsonl.FUNCTIONS,
    "secrets": vaults.FUNCTIONS,
    "spf": spf.FUNCTIONS,
    "time": measures.TIMERS,
}
# Likewise, of modules of their own, by what `require` gives; those of `io` and `os` join Lua's.
LIBRARIES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "io": programs.OF_IO,
    "os": programs.OF_OS,
    "redis": redis.FUNCTIONS,
    "sqlite": sqlite.FUNCTIONS,
}
# Likewise, of `kumo` itself.
TOP: Mapping[str, Callable[..., Any]] = throttles.FUNCTIONS
# Functions, and methods by class, that may take their time.
_ASKING = (async_files, http, jsonl, measures, programs, redis, sqlite, throttles)
WAITING = frozenset(lookups.WAITING.union(*(module.WAITING for module in (dmarc, spf, vaults, *_ASKING))))
MISTAKES = (ValueError, OverflowError, BadOptions)
# Older names in `kumo` itself: where they are now.
ALIASES = {
    **{name: ("serde", name) for name in serde.LEGACY},
    "read_dir": ("fs", "read_dir"),
    "glob": ("fs", "glob"),
    "uncached_glob": ("fs", "uncached_glob"),
}
OUTSIDE_OBJECTS = {kind: members for module in _ASKING for kind, members in module.OBJECTS.items()}
_OBJECTS = {**digest.OBJECTS, **regexes.OBJECTS, **times.OBJECTS, **uuids.OBJECTS, **OUTSIDE_OBJECTS}
_MAPS = (*cidr_map.INDEXED, *domain_map.INDEXED, *regex_sets.INDEXED)
NOT_SUPPORTED = {
    "jsonl": ("new_tailer", "new_multi_tailer"),
}
_INSTEAD = {"jsonl": "`relay-gateway logs` and `relay-gateway ship` read records"}
UNSTABLE = {
    "crypto": crypto.UNSTABLE,
    "fs": files.UNSTABLE,
    "mimepart": mimeparts.UNSTABLE,
    "serde": serde.READ_FILES,
    "time": times.UNSTABLE,
    "uuid": uuids.UNSTABLE,
}


def names() -> frozenset[str]:
    """Every function as a policy writes it behind `kumo.`."""
    modules = (*MODULES.items(), *OUTSIDE.items())
    return frozenset({*(f"{module}.{name}" for module, found in modules for name in found), *TOP, "time.sleep"})


class Modules:
    """The modules of one Lua state.

    read: the content of a file as the policy's snapshot has it, None where there is none. sleep: what `kumo.sleep`
    does. secrets: of the snapshot. outside: what functions that take time are given. objects: classes whose objects
    functions get as they are.
    """

    def __init__(
        self,
        lua: Callable[[], LuaState],
        runs: Runs,
        read: Callable[[str], bytes | None],
        sleep: Callable[..., Later],
        secrets: dict[str, bytes],
    ) -> None:
        self._lua = lua
        self._runs = runs
        self._read = read
        self._sleep = sleep
        self.objects: set[type] = {ConnMeta, *_OBJECTS}
        self.outside = Outside(runs.background, runs.clock, self._loading, count=runs.page.add, secrets=secrets)

    def _loading(self) -> bool:
        return self._runs.loading

    def functions(self) -> dict[str, dict[str, Callable[..., Any] | Waiting]]:
        """For LuaHost.modules, by what `require` gives."""
        found: dict[str, dict[str, Callable[..., Any] | Waiting]] = {
            f"kumo.{module}": {name: self._function(module, name, function) for name, function in functions.items()}
            for module, functions in MODULES.items()
        }
        found["kumo.time"]["sleep"] = Waiting(self._sleep)
        for prefix, modules in (("kumo.", OUTSIDE), ("", LIBRARIES)):
            for module, functions in modules.items():
                found.setdefault(prefix + module, {}).update(
                    {
                        name: self._given(f"{module}.{name}", f"{prefix}{module}.{name}", function)
                        for name, function in functions.items()
                    }
                )
        for module, missing in NOT_SUPPORTED.items():
            hint = _INSTEAD.get(module, "")
            found[f"kumo.{module}"] |= {name: Unsupported(f"kumo.{module}.{name}", hint=hint) for name in missing}
        return found

    def _given(self, key: str, name: str, function: Callable[..., Any]) -> Callable[..., Any] | Waiting:
        return self._border(key, name, partial(function, self.outside))

    def top(self) -> dict[str, Callable[..., Any] | Waiting]:
        """Functions of `kumo` itself, and the older names of others, for LuaHost.functions."""
        found = {
            alias: self._function(module, name, MODULES[module][name]) for alias, (module, name) in ALIASES.items()
        }
        return {**found, **{name: self._given(name, f"kumo.{name}", function) for name, function in TOP.items()}}

    def exposed(self) -> dict[type, Exposed]:
        """For LuaHost.exposed."""
        found = {}
        for kind, (methods, fields) in _OBJECTS.items():
            names = {name: f"{kind.__name__}:{name}" for name in methods}
            bound = {name: self._method(names[name], _of(kind, method)) for name, method in methods.items()}
            found[kind] = Exposed(bound, read_fields(self._lua, fields), operators=True, name=kind.__name__)
        for kind, (methods, fields) in mimeparts.OBJECTS.items():
            names = {name: f"{kind.__name__}:{name}" for name in methods}
            bound = {name: self._checked(names[name], _of(kind, method)) for name, method in methods.items()}
            assign = self._set_part_field if kind is MimePart else None
            found[kind] = Exposed(bound, read_fields(self._lua, fields), assign=assign, name=kind.__name__, whole=True)
        for kind in _MAPS:
            found[kind] = Exposed({}, index=self._entry, assign=self._set_entry, name=kind.__name__)
        found[http.HttpHeaders] = Exposed(
            {},
            lambda headers: {name: self._lua().value(value) for name, value in headers.values.items()},
            index=self._entry,
        )
        return found

    def _set_part_field(self, part: MimePart, name: object, value: object) -> None:
        if name != "body":
            raise Fault(f"cannot set '{name}': only .body of a part can be set")
        try:
            mimeparts.set_body(part, self._plain(value))
        except ValueError as error:
            raise Fault(str(error)) from None

    def _function(self, module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if module == "serde" and name in serde.READ_FILES:
            form = name.partition("_")[0]

            def function(path: Any) -> Any:
                return serde.load(path, form, self._content)

        call = self._checked(f"kumo.{module}.{name}", function)
        if name not in UNSTABLE.get(module, ()):
            return call

        return self._unstable(call)

    def _unstable(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def unstable(*arguments: object) -> Any:
            self._runs.unstable()
            return call(*arguments)

        return unstable

    def bound(self, name: str, function: Callable[..., Any], waits: bool = False) -> Callable[..., Any] | Waiting:
        """A function at the border; its mistakes become Lua errors with its name. waits: it is a coroutine's."""
        return self._waiting(name, function) if waits else self._checked(name, function)

    def _method(self, name: str, method: Callable[..., Any]) -> Callable[..., Any] | Waiting | Repeated:
        return Repeated(self._waiting(name, method)) if name in programs.REPEATED else self._border(name, name, method)

    def _border(self, key: str, name: str, function: Callable[..., Any]) -> Callable[..., Any] | Waiting:
        if key in WAITING:
            return self._waiting(name, function)
        call = self._checked(name, function)
        return self._unstable(call) if key in measures.UNSTABLE else call

    def _checked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with values of Lua."""
        prepared = self._preparation(function)

        @wraps(function)
        def call(*arguments: object) -> Any:
            try:
                return self._lua().value(function(*prepared(arguments)))
            except MISTAKES as error:
                refuse(name, error)

        return call

    def _preparation(self, function: Callable[..., Any]) -> Callable[[tuple[object, ...]], list[Any]]:
        """Makes a function's arguments of Lua's: what is left out is nil, what is too much is ignored."""
        most, takes_all = parameters_of(function)

        def prepared(arguments: tuple[object, ...]) -> list[Any]:
            given = list(map(self._plain, arguments))
            given += [None] * (most - len(given))
            return given if takes_all else given[:most]

        return prepared

    # --- what takes its time ------------------------------------------------------------------------------------------

    def _waiting(self, name: str, function: Callable[..., Any]) -> Waiting:
        prepared = self._preparation(function)

        @wraps(function)
        def call(*arguments: object) -> Any:
            run = self._runs.running
            evaluation = None if run is None else run.evaluation
            try:
                answer = function(*prepared(arguments))
            except MISTAKES as error:
                self._hold(evaluation, error)
                refuse(name, error)
            if inspect.iscoroutine(answer):
                return self._runs.background.task(self._answered(name, answer, evaluation))
            return self._hold(evaluation, answer)

        return Waiting(call)

    async def _answered(self, name: str, coming: Coroutine[Any, Any, Any], evaluation: Evaluation | None) -> Any:
        try:
            answer = await coming
        except MISTAKES as error:
            self._hold(evaluation, error)
            refuse(name, error)
        return self._hold(evaluation, answer)

    def _hold(self, evaluation: Evaluation | None, answer: Any) -> Any:
        """A decision that stands on an answer holds for no longer than that."""
        if evaluation is not None:
            if isinstance(answer, Lasting | Unavailable):
                evaluation.lasts_until(self._runs.clock() + answer.seconds)
            else:
                evaluation.stable = False
        if isinstance(answer, Several):
            return Results(answer)
        return Results(answer.results) if isinstance(answer, Lasting) else answer

    # --- arguments ----------------------------------------------------------------------------------------------------

    def _plain(self, argument: object) -> Any:
        if type(argument) in self.objects or isinstance(argument, _MAPS):
            return argument
        return sequences(self._lua().plain(argument))

    def _content(self, path: str) -> bytes:
        """A file as it was when the policy was checked; later, as it is now. Raises OSError."""
        if self._loading():
            content = self._read(path)
            if content is not None:
                return content
        with open(path, "rb") as file:
            return file.read()

    # --- maps -------------------------------------------------------------------------------------------------------

    def _entry(self, entries: DomainMap | CidrMap | RegexSetMap | http.HttpHeaders, key: object) -> Any:
        name = _key(key)
        if name is None:
            return None
        try:
            return self._lua().value(entries.get(name))
        except ValueError as error:
            raise Fault(str(error)) from None

    def _set_entry(self, entries: DomainMap | CidrMap | RegexSetMap, key: object, value: object) -> None:
        if not self._loading():
            self._runs.unstable()  # what a later call finds there is nobody's argument
        name = _key(key)
        if name is None:
            raise Fault("a key must be a string")
        try:
            entries[name] = self._plain(value)
        except ValueError as error:
            raise Fault(str(error)) from None


def _key(key: object) -> str | None:
    """A key of a map; None for what is none."""
    try:
        return inward(string(key, "key"))
    except ValueError:
        return None


def _of(kind: type, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that is called with an object of its class first, as `object:method()` does."""

    @wraps(method)
    def call(*arguments: Any) -> Any:
        if not isinstance(arguments[0], kind):
            raise ValueError(f"call it with a colon, on a {kind.__name__}")
        return method(*arguments)

    return call


def refuse(name: str, error: Exception) -> NoReturn:
    """The Lua error for what a function refuses; functions begin their sentences with their own name."""
    if isinstance(error, OverflowError):
        raise Fault(f"{name}: the number is too large") from None
    if isinstance(error, BadOptions):
        trouble = error.troubles[0]
        raise Fault(f"{name}: {trouble}" + (f"; {trouble.hint}" if trouble.hint else "")) from None
    own_name = name.replace(":", ".").rpartition(".")[2] + ": "
    raise Fault(f"{name}: {str(error).removeprefix(own_name)}") from None


def parameters_of(function: Callable[..., Any]) -> tuple[int, bool]:
    """How many arguments a function takes, and whether it takes any number. (Every Lua state asks this of hundreds, and
    inspect.signature takes its time.)
    """
    given = 0
    if isinstance(function, partial):
        given = len(function.args)
        function = function.func
    function = inspect.unwrap(function)
    if isinstance(function, FunctionType):
        return function.__code__.co_argcount - given, bool(function.__code__.co_flags & inspect.CO_VARARGS)
    parameters = inspect.signature(function).parameters.values()
    return len(parameters) - given, any(one.kind is one.VAR_POSITIONAL for one in parameters)
