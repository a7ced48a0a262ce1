"""LuaState: one Lua interpreter, and every value that crosses its border. The only module that imports lupa.

What the `kumo` module does is api.py's business, what objects offer is objects.py's, what becomes of a call runs.py's;
here is how Lua is started, called and kept away from Python.

Handlers run in coroutines. A Lua object that is handed to Python there belongs to that coroutine: it is converted
before the host function returns, and never kept, or it would be let go of after its coroutine.

Lua strings are bytes: they cross as Latin-1, so that nothing can fail to decode, and text is turned into UTF-8 at the
border (`outward`, `inward`).
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from traceback import clear_frames
from typing import Any

import lupa.lua54
from lupa.lua54 import LuaError, LuaRuntime, LuaSyntaxError, lua_type

from gateway._fastpath import LuaLimits
from gateway.later import Later
from gateway.policy import delivery_side
from gateway.policy.delivery_side import LeftToTheFleet
from gateway.policy.limits import WATCHDOG, Watched
from gateway.policy.options import Opaque
from gateway.policy.problems import NOT_YET

_PRELUDE = Path(__file__).with_name("prelude.lua")
_MEMOIZE = Path(__file__).with_name("memoize.lua")
_KEYS = Path(__file__).with_name("keys.lua")
LUA_FUNCTIONS = (
    *("lua_getallocf", "lua_setallocf", "lua_sethook", "luaL_where"),
    *("lua_pushstring", "lua_tolstring", "lua_settop", "lua_error"),
)
_MAX_DEPTH = 64  # of nested tables; one that contains itself must not recurse for ever
MOST_VALUES = 2_000_000  # with one that contains itself twice there would be 2^64

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


class Results(tuple[Any, ...]):
    """Several results of a Waiting."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A host function that may have to wait: it returns a Later, or what it has at once. The answer is a plain value,
    which `LuaState.value` turns into Lua's, or Results; what calls it in Lua stands still meanwhile, and nothing else
    does."""

    function: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Repeated:
    """A method that gives a function for loops, which calls another one with the same arguments each time."""

    method: Waiting


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A function or method that KumoMTA has and the gateway has not. name: as a policy writes it. found: called instead
    of the error, where a mistake is only taken down. hint: "" or what to do about it.
    """

    name: str
    found: Callable[[str, str], None] | None = None
    hint: str = ""

    def __call__(self, *_: object) -> None:
        message = f"{self.name} {NOT_YET}"
        if self.found is None:
            raise Fault(f"{message}; {self.hint}" if self.hint else message)
        self.found(message, self.hint)


# By name what gives a field's value; or, where objects of one class have different ones, all fields of an object.
Fields = Mapping[str, Callable[[Any], Any]] | Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Exposed:
    """What Lua may do with objects of one Python type.

    methods: called with the object first; a Waiting may have to wait. fields: as Lua values. index, assign: for one
    that is indexed by any key instead. operators: `==`, `+` and `-` are Python's. name: what policies call such an
    object. whole: functions get it as it is, not what pairs() walks.
    """

    methods: Mapping[str, Callable[..., Any] | Waiting | Repeated]
    fields: Fields = field(default_factory=dict)
    index: Callable[[Any, object], Any] | None = None
    assign: Callable[[Any, object, object], None] | None = None
    operators: bool = False
    name: str = ""
    whole: bool = False


def read_fields(
    lua: Callable[[], LuaState], fields: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Callable[[Any], Any]]:
    """Fields of `Exposed` out of functions that give plain values. A ValueError of theirs is a Fault."""

    def field_of(get: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def read(value: Any) -> Any:
            try:
                return lua().value(get(value))
            except ValueError as error:
                raise Fault(str(error)) from None

        return read

    return {name: field_of(get) for name, get in fields.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LuaHost:
    """What a LuaState offers to the policy.

    functions: of the kumo module; a Waiting may have to wait. modules: likewise, of other modules, by what `require`
    takes. extras: the text of a `policy-extras` module by name. extra_functions: those that such a module is given.
    leave_to_fleet: told what of the delivery side is used. fleet: whether there is one that it is left to. read: a Lua
    file's content, None if there is none. handler_of: the first handler of an event, for keys.lua. memo: what
    memoize.lua calls. unstable: called when something without a stable answer is used. published: called when something
    would be published, if it were not left to the fleet. wait: told of a Later that what runs waits for; returns True
    if it is going to, False if the answer is there now. forget: it cannot wait, after all. condemned: whether what runs
    has to end, whatever it is prepared for. loading: whether the policy is still being loaded.
    """

    version: str
    package_path: str
    functions: Mapping[str, Callable[..., Any] | Waiting]
    handler_of: Callable[[object], LuaFunction]
    memo: Mapping[str, Any]
    modules: Mapping[str, Mapping[str, Callable[..., Any] | Waiting]]
    extras: Callable[[str], bytes | None]
    extra_functions: Mapping[str, Mapping[str, Callable[..., Any]]]
    missing_modules: tuple[str, ...]
    leave_to_fleet: Callable[[str], None]
    fleet: bool
    exposed: Mapping[type, Exposed]
    read: Callable[[str], bytes | None]
    unstable: Callable[[], None]
    published: Callable[[], None]
    wait: Callable[[Later], bool]
    forget: Callable[[], None]
    condemned: Callable[[], bool]
    loading: Callable[[], bool]


def outward(text: str) -> str:
    """Text on its way into Lua."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def inward(text: str) -> str:
    """A Lua string as text; octets that are no UTF-8 survive as surrogates."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "surrogateescape")


class LuaState:
    """One Lua state with the prelude loaded."""

    def __init__(self, host: LuaHost) -> None:
        self.limits: LuaLimits
        self._exposed = host.exposed
        self._has_fleet = host.fleet
        self._values_left = 0  # that plain() may still meet
        self._wait = host.wait
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
            "functions": self._plain_ones(host.functions),
            "waiting": self._waiting_ones(host.functions),
            "modules": self._lua.table_from({name: self._plain_ones(found) for name, found in host.modules.items()}),
            "waiting_in": self._lua.table_from({name: self._waiting_ones(f) for name, f in host.modules.items()}),
            "extras": lambda name: host.extras(inward(name)),
            "extra_functions": self._lua.table_from(
                {name: self._plain_ones(found) for name, found in host.extra_functions.items()}
            ),
            "equal": self._equal,
            "add": partial(self._combined, operator.add),
            "subtract": partial(self._combined, operator.sub),
            "missing_modules": " ".join(host.missing_modules),
            "left_modules": " ".join(delivery_side.MODULES),
            "publishers": " ".join(delivery_side.PUBLISHERS),
            "published": host.published,
            "left_extras": " ".join(delivery_side.EXTRAS),
            "left": " ".join(name for name, found in host.functions.items() if isinstance(found, LeftToTheFleet)),
            "leave_to_fleet": host.leave_to_fleet,
            "fleet": host.fleet,
            "read": lambda path: host.read(inward(path)),
            "unstable": host.unstable,
            "forget": host.forget,
            "enter": lambda address: self.limits.enter(address),  # noqa: PLW0108  # there are none yet
            "leave": lambda: self.limits.leave(),  # noqa: PLW0108
            "condemned": host.condemned,
            "loading": host.loading,
            "fields": lambda value: self._lua.table_from(self._fields(value)),
            "text": lambda value: outward(str(value)),
        }
        calls = self._lua.execute(_PRELUDE.read_bytes(), self._lua.table_from(services), self, name="=prelude")
        self._run = calls.run
        self._resume = calls.resume
        self._trace = calls.trace
        self._address = calls.address
        self.base = 0  # octets that it holds after loading
        self.idle: list[tuple[int, int]] = []  # coroutines that serve no handler, by number and address
        self._coroutine = calls.coroutine
        self._collect = calls.collect
        self.limits = LuaLimits(_addresses(), calls.address, self._memory())
        self.watched = Watched(self.limits)
        WATCHDOG.watch(self.watched)
        memo = {
            name: self._waiter(found.function) if isinstance(found, Waiting) else found
            for name, found in host.memo.items()
        }
        memoize = self._lua.compile(_MEMOIZE.read_bytes(), name=b"=memoize", mode="t")
        self.refresh, self._whole = calls.memoize(memoize, self._lua.table_from(memo)), calls.whole
        calls.key_sources(self._lua.compile(_KEYS.read_bytes(), name=b"=keys", mode="t"), host.handler_of)
        self.protected: Callable[[], int] = calls.protected  # how many pcalls deep a policy is that is being loaded
        # Functions of Lua, so that they may wait; kept here, because they were not met inside a coroutine.
        self._methods = {
            kind: {name: self._method(calls, name, method) for name, method in exposed.methods.items()}
            for kind, exposed in host.exposed.items()
        }
        self._where = calls.where
        self._watch = calls.watch
        self._tostring = calls.tostring
        self.is_inert: Callable[[object], bool] = calls.is_inert  # whether it is what the delivery side answers with
        self.behind: Callable[[LuaFunction], object] = calls.behind  # what a function of policy-extras asks, if no more

    def load(self, path: str, text: bytes) -> LuaFunction:
        """Compiles a chunk. Raises LuaFailure."""
        try:
            return self._lua.compile(text, name=f"@{path}".encode(), mode="t")
        except (LuaSyntaxError, LuaError) as error:
            raise LuaFailure(inward(str(error))) from None

    def globals(self) -> dict[str, frozenset[str]]:
        """What is global, by name, with the names of what is in it."""
        found: dict[str, frozenset[str]] = {}
        for name, value in _entries(self._lua.globals()):
            found[name] = frozenset(value.keys()) if lua_type(value) == "table" else frozenset()
        return found

    def set_global(self, name: str, value: object) -> None:
        """Sets a global variable."""
        self._lua.globals()[name] = value

    def watch(self, watcher: Callable[[], None] | None) -> None:
        """Calls `watcher` every million instructions of Lua; what it raises ends the running code. None: no more."""
        self._watch(None if watcher is None else lambda *_: watcher())

    def call(self, function: LuaFunction) -> None:
        """Runs a Lua function that is part of loading. Raises LuaFailure."""
        results = self._run(function)
        if results is not True and not results[0]:
            raise self.failure(results[1], results[2])

    def coroutine(self) -> tuple[int, int]:
        """One for a handler: number and address. Back to `idle` with it when it is served."""
        return self.idle.pop() if self.idle else self._coroutine()

    def resume(self, number: int, arguments: tuple[object, ...]) -> tuple[Any, ...]:
        """Runs a handler in a coroutine, or goes on with one that waits; prelude.lua says what is returned."""
        try:
            return self._resume(number, *arguments)  # type: ignore[no-any-return]
        except (LuaError, MemoryError) as error:  # not even the coroutine's end could be told
            return False, str(error)

    def trace(self) -> str | None:
        """The traceback of the last error of a handler, once."""
        return self._trace()  # type: ignore[no-any-return]

    def collect(self) -> None:
        """Gives memory back that nothing uses."""
        self._collect()

    def _memory(self) -> int:
        return int(self._lua.eval("collectgarbage('count') * 1024"))

    def failure(self, problem: object, trace: str | None) -> LuaFailure:
        """The exception for an error of Lua code. Raises KeyboardInterrupt where that is the error."""
        if isinstance(problem, KeyboardInterrupt):
            raise problem
        if isinstance(problem, BaseException):
            # Its frames hold Lua objects, which must not outlive the coroutine that they were met in.
            clear_frames(problem.__traceback__)
            return LuaFailure(str(problem), _trimmed(trace), problem)
        return LuaFailure(self.text(problem), _trimmed(trace))

    def _method(self, calls: LuaTable, name: str, method: Callable[..., Any] | Waiting | Repeated) -> LuaFunction:
        if isinstance(method, Repeated):
            return calls.repeated(self._method(calls, name, method.method))
        if isinstance(method, Waiting):
            return calls.waiting(name, self._waiter(method.function))
        return calls.method(method)

    def _waiter(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """False and the result of a host function; or True, where it is going to be waited for."""

        def call(*arguments: object) -> Any:
            answer = function(*arguments)
            if isinstance(answer, Later):
                if not answer.done and self._wait(answer):
                    return True
                answer = answer.result()
            return False, *self.values(answer)

        return call

    def _plain_ones(self, functions: Mapping[str, Callable[..., Any] | Waiting]) -> LuaTable:
        return self._lua.table_from({name: f for name, f in functions.items() if not isinstance(f, Waiting)})

    def _waiting_ones(self, functions: Mapping[str, Callable[..., Any] | Waiting]) -> LuaTable:
        return self._lua.table_from(
            {name: self._waiter(f.function) for name, f in functions.items() if isinstance(f, Waiting)}
        )

    def _with_operators(self, value: object) -> bool:
        exposed = self._exposed.get(value.__class__)
        return exposed is not None and exposed.operators

    def _equal(self, one: object, other: object) -> bool:
        return one == other if self._with_operators(one) and type(one) is type(other) else one is other

    def _combined(self, operation: Callable[[Any, Any], Any], one: object, other: object) -> Any:
        if not self._with_operators(one):
            raise Fault(f"attempt to perform arithmetic on a {kind_of(one)} value")
        try:
            return operation(one, other)
        except (TypeError, ValueError) as error:
            raise Fault(str(error)) from None

    def where(self) -> tuple[str, int]:
        """File and line of the policy's code that is calling the host; ("?", 0) outside any."""
        place = self._where()
        return ("?", 0) if place is None else (inward(place[0]), place[1])

    def text(self, value: object) -> str:
        """What Lua's `tostring` says of a value, which may be the policy's code."""
        self.limits.enter(self._address)
        try:
            return inward(self._tostring(value))
        except (LuaError, MemoryError) as error:
            return f"({error})"
        finally:
            self.limits.leave()

    def plain(self, value: object) -> Any:
        """A Lua value in Python: tables become dicts, what has no counterpart Opaque. Raises Fault for too much."""
        self._values_left = MOST_VALUES
        return self._plain(value, 0)

    def _plain(self, value: object, depth: int) -> Any:
        self._values_left -= 1
        if self._values_left < 0:
            raise Fault(f"a table with more than {MOST_VALUES} values: does it contain itself?")
        if isinstance(value, str):
            return inward(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        kind = lua_type(value)
        if kind == "table" and depth < _MAX_DEPTH:
            entries = (self._without_left if self._has_fleet else _entries)(self._whole(value))
            return {self._plain(k, depth + 1): self._plain(v, depth + 1) for k, v in entries}
        exposed = self._exposed.get(value.__class__)
        if exposed is not None and exposed.whole:
            return value
        if kind is None and (fields := self._fields(value)):  # an object that pairs() can walk
            return {name: self._plain(field, depth + 1) for name, field in fields.items()}
        return Opaque(kind or "userdata")

    def _without_left(self, table: LuaTable) -> list[tuple[Any, Any]]:
        """The entries of a table but those that are left to the fleet; a sequence stays one."""
        entries = [(k, v) for k, v in _entries(table) if lua_type(v) != "table" or not self.is_inert(v)]
        if len(entries) < len(table) and all(isinstance(key, int) for key, _ in entries):
            return [(number, value) for number, (_, value) in enumerate(sorted(entries, key=itemgetter(0)), 1)]
        return entries

    def items(self, value: object) -> list[Any]:
        """The items of a Lua sequence, as they are. Raises Fault for anything else."""
        if lua_type(value) != "table":
            raise Fault(f"expected a list, got a {kind_of(value)}")
        table: LuaTable = self._whole(value)
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

    def values(self, answer: object) -> tuple[Any, ...]:
        """What a Waiting answers, as Lua values."""
        return tuple(map(self.value, answer)) if isinstance(answer, Results) else (self.value(answer),)

    def _fields(self, value: object) -> Mapping[str, Any]:
        exposed = self._exposed.get(value.__class__)
        if exposed is None:
            return {}
        fields = exposed.fields
        return fields(value) if callable(fields) else {name: get(value) for name, get in fields.items()}

    def _get(self, value: object, name: object) -> Any:
        """Lua indexes a Python object: its methods and fields, nothing else of it."""
        exposed = self._exposed.get(value.__class__)
        if exposed is not None and exposed.index is not None:
            return exposed.index(value, name)
        if exposed is None or not isinstance(name, str):
            return None
        method = self._methods[value.__class__].get(name)
        if method is not None:
            return method
        fields = exposed.fields
        if callable(fields):
            return fields(value).get(name)
        getter = fields.get(name)
        return None if getter is None else getter(value)

    def _set(self, value: object, name: object, item: object) -> None:
        exposed = self._exposed.get(value.__class__)
        if exposed is not None and exposed.assign is not None:
            return exposed.assign(value, name, item)
        raise Fault(f"cannot set '{name}': the object is read-only")


def _addresses() -> dict[str, int]:
    """Where the functions of Lua are that LuaLimits calls."""
    library = ctypes.CDLL(lupa.lua54.__file__)
    return {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in LUA_FUNCTIONS}


def _entries(table: Any) -> list[tuple[Any, Any]]:
    """lupa's items() loses its place behind a function of the host, and that error keeps lupa's lock."""
    return [(key, table[key]) for key in table.keys()]  # noqa: SIM118 - a table of Lua's iterates over values


def is_function(value: object) -> bool:
    """Whether a value from Lua is a function. Those of the host come out as what they are in Python."""
    return bool(lua_type(value) == "function") or _is_of_the_host(value)


def _is_of_the_host(value: object) -> bool:
    return lua_type(value) is None and callable(value)


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
    return "function" if _is_of_the_host(value) else lua_type(value) or "userdata"


def _trimmed(trace: str | None) -> str:
    """A traceback without the frames of the prelude that called the handler."""
    lines = [line for line in inward(trace or "").strip().splitlines() if "prelude:" not in line]
    return "\n".join(line for line in lines if not (line.lstrip().startswith("[C]:") and "'xpcall'" in line))
