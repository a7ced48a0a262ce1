"""The modules of `kumo` at the border: their functions (gateway/policy/kumo) with Lua's values in and out.

Which modules and functions there are is a table here, which the runtime, `check` and the docs share. A function that
answers differently at other times makes a decision uncacheable; a file read while the policy loads is part of its
snapshot.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gateway.later import Later
from gateway.policy.kumo import (
    cidr_map,
    digest,
    domain_map,
    encode,
    files,
    regexes,
    secrets,
    serde,
    strings,
    times,
    uuids,
)
from gateway.policy.kumo.cidr_map import CidrMap
from gateway.policy.kumo.domain_map import DomainMap
from gateway.policy.options import sequences
from gateway.policy.runtime import Exposed, Fault, LuaState, Waiting, inward

# by the name of the module in Lua
MODULES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "cidr": cidr_map.FUNCTIONS,
    "digest": digest.FUNCTIONS,
    "domain_map": domain_map.FUNCTIONS,
    "encode": encode.FUNCTIONS,
    "fs": files.FUNCTIONS,
    "regex": regexes.FUNCTIONS,
    "secrets": secrets.FUNCTIONS,
    "serde": serde.FUNCTIONS,
    "string": strings.FUNCTIONS,
    "time": times.FUNCTIONS,
    "uuid": uuids.FUNCTIONS,
}
# Older names in `kumo` itself: where they are now.
ALIASES = {
    **{name: ("serde", name) for name in serde.LEGACY},
    "read_dir": ("fs", "read_dir"),
    "glob": ("fs", "glob"),
    "uncached_glob": ("fs", "uncached_glob"),
}
_OBJECTS = {**digest.OBJECTS, **regexes.OBJECTS, **times.OBJECTS, **uuids.OBJECTS}
_MAPS = (*cidr_map.INDEXED, *domain_map.INDEXED)
UNSTABLE = {
    "fs": files.UNSTABLE,
    "secrets": frozenset(secrets.FUNCTIONS),
    "serde": serde.READ_FILES,
    "time": times.UNSTABLE,
    "uuid": uuids.UNSTABLE,
}


def names() -> frozenset[str]:
    """Every function as a policy writes it behind `kumo.`."""
    return frozenset(f"{module}.{name}" for module, functions in MODULES.items() for name in functions) | {"time.sleep"}


class Modules:
    """The modules of one Lua state.

    read: the content of a file as the policy's snapshot has it, None where there is none. loading: whether the policy
    is being loaded. unstable: called when something without a stable answer is used. sleep: what `kumo.sleep` does.
    """

    def __init__(
        self,
        lua: Callable[[], LuaState],
        read: Callable[[str], bytes | None],
        loading: Callable[[], bool],
        unstable: Callable[[], None],
        sleep: Callable[..., Later],
    ) -> None:
        self._lua = lua
        self._read = read
        self._loading = loading
        self._unstable = unstable
        self._sleep = sleep

    def functions(self) -> dict[str, dict[str, Callable[..., Any] | Waiting]]:
        """For LuaHost.modules."""
        found: dict[str, dict[str, Callable[..., Any] | Waiting]] = {
            module: {name: self._function(module, name, function) for name, function in functions.items()}
            for module, functions in MODULES.items()
        }
        found["time"]["sleep"] = Waiting(self._sleep)
        return found

    def aliases(self) -> dict[str, Callable[..., Any]]:
        """The older names, for LuaHost.functions."""
        return {alias: self._function(module, name, MODULES[module][name]) for alias, (module, name) in ALIASES.items()}

    def exposed(self) -> dict[type, Exposed]:
        """For LuaHost.exposed."""
        found = {}
        for kind, (methods, fields) in _OBJECTS.items():
            bound = {name: self._checked(f"{kind.__name__}:{name}", method) for name, method in methods.items()}
            found[kind] = Exposed(bound, self._fields(fields), operators=True)
        for kind in _MAPS:
            found[kind] = Exposed({}, index=self._entry, assign=self._set_entry)
        return found

    def _fields(self, fields: Callable[[Any], Mapping[str, Any]]) -> Callable[[Any], Mapping[str, Any]]:
        return lambda value: {name: self._lua().value(field) for name, field in fields(value).items()}

    def _function(self, module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if module == "serde" and name in serde.READ_FILES:
            form = name.partition("_")[0]

            def function(path: Any) -> Any:
                return serde.load(path, form, self._content)

        call = self._checked(f"kumo.{module}.{name}", function)
        if name not in UNSTABLE.get(module, ()):
            return call

        def unstable(*arguments: object) -> Any:
            self._unstable()
            return call(*arguments)

        return unstable

    def _checked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with values of Lua: what is left out is nil, what is too much is ignored."""
        parameters = inspect.signature(function).parameters.values()
        takes_all = any(one.kind is one.VAR_POSITIONAL for one in parameters)
        most = len(parameters)
        own_name = name.replace(":", ".").rpartition(".")[2] + ": "  # functions begin their sentences with it

        def call(*arguments: object) -> Any:
            given = list(map(self._plain, arguments))
            if not takes_all:
                given = given[:most] + [None] * (most - len(given))
            try:
                return self._lua().value(function(*given))
            except ValueError as error:
                raise Fault(f"{name}: {str(error).removeprefix(own_name)}") from None
            except OverflowError:
                raise Fault(f"{name}: the number is too large") from None

        return call

    def _plain(self, argument: object) -> Any:
        if type(argument) in _OBJECTS or isinstance(argument, _MAPS):
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

    def _entry(self, entries: DomainMap | CidrMap, key: object) -> Any:
        if not isinstance(key, str):
            return None
        try:
            return self._lua().value(entries.get(inward(key)))
        except ValueError as error:
            raise Fault(str(error)) from None

    def _set_entry(self, entries: DomainMap | CidrMap, key: object, value: object) -> None:
        if not self._loading():
            self._unstable()  # what a later call finds there is nobody's argument
        if not isinstance(key, str):
            raise Fault("a key must be a string")
        try:
            entries[inward(key)] = self._plain(value)
        except ValueError as error:
            raise Fault(str(error)) from None
