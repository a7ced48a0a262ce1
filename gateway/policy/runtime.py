"""LuaState: one Lua interpreter, and every value that crosses its border. The only module that imports lupa.

What the `kumo` module does is api.py's business, what objects offer is objects.py's; here is how Lua is started,
called and kept away from Python. Lua strings are bytes: they cross as Latin-1, so that nothing can fail to decode,
and text is turned into UTF-8 at the border (`outward`, `inward`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lupa.lua54 import LuaError, LuaRuntime, LuaSyntaxError, lua_type

from gateway.policy.options import Opaque

_PRELUDE = Path(__file__).with_name("prelude.lua")
_MAX_DEPTH = 64  # of nested tables; one that contains itself must not recurse for ever

LuaFunction = Any  # lupa's objects have no types
LuaTable = Any


class LuaFailure(Exception):
    """Lua code failed. text: the message. traceback: where. cause: the Python exception behind it, if any."""

    def __init__(self, text: str, traceback: str = "", cause: BaseException | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.traceback = traceback
        self.cause = cause


class Fault(Exception):
    """A function called from Lua was used wrongly: becomes a Lua error with this text."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """What Lua may do with objects of one Python type.

    methods: called with the object first. fields: all fields of an object, by name, as Lua values.
    """

    methods: Mapping[str, Callable[..., Any]]
    fields: Callable[[Any], Mapping[str, Any]] = lambda _: {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a LuaState offers to the policy. read: a Lua file's content, None if there is none. unstable: called when
    something without a stable answer is used. protected: told of every pcall, +1 at its start and -1 at its end."""

    version: str
    package_path: str
    functions: Mapping[str, Callable[..., Any]]
    missing_modules: tuple[str, ...]
    exposed: Mapping[type, Exposed]
    read: Callable[[str], bytes | None]
    unstable: Callable[[], None]
    protected: Callable[[int], None]


def outward(text: str) -> str:
    """Text on its way into Lua."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def inward(text: str) -> str:
    """A Lua string as text; octets that are no UTF-8 survive as surrogates."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "surrogateescape")


class LuaState:
    """One Lua state with the prelude loaded."""

    def __init__(self, host: Host) -> None:
        self._exposed = host.exposed
        self._lua = LuaRuntime(
            encoding="latin-1",
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
            attribute_handlers=(self._get, self._set),
        )
        services = {
            "version": host.version,
            "package_path": host.package_path,
            "functions": self._lua.table_from(host.functions),
            "missing_modules": " ".join(host.missing_modules),
            "read": lambda path: host.read(inward(path)),
            "unstable": host.unstable,
            "protected": host.protected,
            "fields": lambda value: self._lua.table_from(self._fields(value)),
            "text": lambda value: outward(str(value)),
        }
        calls = self._lua.execute(_PRELUDE.read_bytes(), self._lua.table_from(services), self, name="=prelude")
        self._run = calls.run
        self._where = calls.where
        self._watch = calls.watch
        self._tostring = calls.tostring

    def load(self, path: str, text: bytes) -> LuaFunction:
        """Compiles a chunk. Raises LuaFailure."""
        try:
            return self._lua.compile(text, name=f"@{path}".encode(), mode="t")
        except (LuaSyntaxError, LuaError) as error:
            raise LuaFailure(inward(str(error))) from None

    def set_global(self, name: str, value: object) -> None:
        """Sets a global variable."""
        self._lua.globals()[name] = value

    def watch(self, watcher: Callable[[], None] | None) -> None:
        """Calls `watcher` every million instructions of Lua; what it raises ends the running code. None: no more."""
        self._watch(None if watcher is None else lambda *_: watcher())

    def call(self, function: LuaFunction, *arguments: object) -> tuple[Any, ...]:
        """Runs a Lua function; returns its results, as many as it returned. Raises LuaFailure."""
        try:
            results = self._run(function, *arguments)
        except LuaError as error:  # an error that even the error handler could not take
            raise LuaFailure(inward(str(error))) from None
        if results[0]:
            return results[2:]  # type: ignore[no-any-return]
        _, problem, trace = results
        if isinstance(problem, KeyboardInterrupt):
            raise problem
        if isinstance(problem, BaseException):
            raise LuaFailure(str(problem), _trimmed(trace), problem)
        raise LuaFailure(self.text(problem), _trimmed(trace))

    def where(self) -> tuple[str, int]:
        """File and line of the policy's code that is calling the host; ("?", 0) outside any."""
        place = self._where()
        return ("?", 0) if place is None else (inward(place[0]), place[1])

    def text(self, value: object) -> str:
        """What Lua's `tostring` says of a value."""
        return inward(self._tostring(value))

    def plain(self, value: object, depth: int = 0) -> Any:
        """A Lua value as plain Python: tables become dicts; what has no counterpart becomes Opaque."""
        if isinstance(value, str):
            return inward(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        kind = lua_type(value)
        if kind == "table" and depth < _MAX_DEPTH:
            return {self.plain(k, depth + 1): self.plain(v, depth + 1) for k, v in value.items()}  # type: ignore[attr-defined]
        if kind is None and (fields := self._fields(value)):  # an object that pairs() can walk
            return {name: self.plain(field, depth + 1) for name, field in fields.items()}
        return Opaque(kind or "userdata")

    def items(self, value: object) -> list[Any]:
        """The items of a Lua sequence, as they are. Raises Fault for anything else."""
        if lua_type(value) != "table":
            raise Fault(f"expected a list, got a {kind_of(value)}")
        table: LuaTable = value
        return [table[index] for index in range(1, len(table) + 1)]

    def value(self, value: object) -> Any:
        """A plain Python value as a Lua one: dicts and lists become fresh tables."""
        if isinstance(value, str):
            return outward(value)
        if isinstance(value, dict):
            return self._lua.table_from({self.value(key): self.value(item) for key, item in value.items()})
        if isinstance(value, list | tuple):
            return self._lua.table_from([self.value(item) for item in value])
        return value

    def _fields(self, value: object) -> Mapping[str, Any]:
        exposed = self._exposed.get(value.__class__)
        return {} if exposed is None else exposed.fields(value)

    def _get(self, value: object, name: object) -> Any:
        """Lua indexes a Python object: its methods and fields, nothing else of it."""
        exposed = self._exposed.get(value.__class__)
        if exposed is None or not isinstance(name, str):
            return None
        method = exposed.methods.get(name)
        return exposed.fields(value).get(name) if method is None else method

    def _set(self, value: object, name: object, item: object) -> None:
        raise Fault(f"cannot set '{name}': the object is read-only")


def is_function(value: object) -> bool:
    """Whether a value from Lua is a function."""
    return bool(lua_type(value) == "function")


def kind_of(value: object) -> str:
    """Lua's name for a value's type."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    return lua_type(value) or "userdata"


def _trimmed(trace: str | None) -> str:
    """A traceback without the frames of the prelude that called the handler."""
    lines = [line for line in inward(trace or "").strip().splitlines() if "prelude:" not in line]
    return "\n".join(line for line in lines if not (line.lstrip().startswith("[C]:") and "'xpcall'" in line))
