"""The object model: what a policy can call and read, and what it gets, read off the tables that the runtime works with.

For those who look at a policy's text (`check`). Nothing of what there is may be listed here: the `kumo` module and its
modules, objects with their methods and fields, and Lua's own libraries are what a Lua state was given.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.policy import events
from gateway.policy.api import MAKERS
from gateway.policy.background import Background
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.handlers import Handlers
from gateway.policy.messages.handle import MessageHandle
from gateway.policy.objects import Made
from gateway.policy.runtime import Exposed, Repeated, Unsupported, Waiting
from gateway.policy.schemas import SCHEMAS
from gateway.policy.source import PolicySource
from gateway.smtp.address import EnvelopeAddress

# What the names of handlers' parameters stand for; any other one is a string.
_PARAMETERS: dict[str, type] = {
    "msg": MessageHandle,
    "conn_meta": ConnMeta,
    "sender": EnvelopeAddress,
    "recipient": EnvelopeAddress,
    "extensions": dict,
}


@dataclass(frozen=True, slots=True)
class Function:
    """Something that can be called. name: as a policy writes it. gives: the class of its result, None where nobody
    knows. unsupported: KumoMTA has it, the gateway has not.
    """

    name: str
    gives: type | None = None
    unsupported: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """What objects of one class offer. fields: None where they differ from one object to the other. read_only: none of
    them can be assigned.
    """

    name: str
    methods: Mapping[str, Function]
    fields: frozenset[str] | None
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Namespace:
    """A table of functions: the `kumo` module, one in it, or a library of Lua. members: functions, further namespaces,
    or None for a plain value. unsupported: KumoMTA has it, the gateway has nothing of it.
    """

    name: str
    members: Mapping[str, Function | Namespace | None]
    unsupported: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """libraries: what is global, by name: `kumo`, Lua's libraries and functions. modules: what `require` gives besides.
    kinds: by class. extras: the text of a module of `policy-extras`, None where there is none of that name.
    """

    libraries: Mapping[str, Function | Namespace | None]
    modules: Mapping[str, Namespace]
    kinds: Mapping[type, Kind]
    extras: Callable[[str], bytes | None]

    @property
    def kumo(self) -> Namespace:
        """The `kumo` module."""
        found = self.libraries["kumo"]
        assert isinstance(found, Namespace)
        return found

    def parameters(self, event: str) -> tuple[type, ...]:
        """The classes of what a handler of an event receives; () where nobody knows."""
        return tuple(_PARAMETERS.get(name, str) for name in events.PARAMETERS.get(event, ()))

    @classmethod
    def of(cls, handlers: Handlers) -> Model:
        """What a Lua state that has loaded nothing yet offers."""
        host = handlers.host
        members: dict[str, Function | Namespace | None] = dict.fromkeys(handlers.lua.globals()["kumo"])
        members |= _functions("kumo.", host.functions)
        members |= {name: Function(f"kumo.{name}") for name in ("memoize", "traceback")}  # they are Lua code
        modules = {name: Namespace(name, _functions(f"{name}.", found)) for name, found in host.modules.items()}
        members |= {name.removeprefix("kumo."): one for name, one in modules.items() if name.startswith("kumo.")}
        for module in host.missing_modules:
            members[module] = Namespace(f"kumo.{module}", {}, unsupported=True)
        libraries: dict[str, Function | Namespace | None] = {
            name: Namespace(name, {key: Function(f"{name}.{key}") for key in keys}) if keys else Function(name)
            for name, keys in handlers.lua.globals().items()
        }
        for name, found in modules.items():
            ours = libraries.get(name)
            if isinstance(ours, Namespace):  # functions that join Lua's
                modules[name] = libraries[name] = Namespace(name, {**ours.members, **found.members})
        kinds = {kind: _kind(kind, exposed) for kind, exposed in host.exposed.items()}
        for maker in MAKERS:  # each is a class of its own here, because they differ in their options
            made = type(maker, (Made,), {})
            members[maker] = Function(f"kumo.{maker}", made)
            name = maker.removeprefix("make_").replace("_", " ")
            kinds[made] = Kind(name, {}, frozenset(SCHEMAS[maker].options))
        members["gateway"] = Namespace("kumo.gateway", {"version": None, "fleet": None, "ship": None})
        libraries["kumo"] = Namespace("kumo", members)
        strings = {key: Function(f"string.{key}", str) for key in handlers.lua.globals()["string"]}
        kinds[str] = Kind("string", strings, frozenset(), read_only=False)
        return cls(libraries, modules, kinds, host.extras)


def of_this_gateway() -> Model:
    """What every policy is given."""
    page = CounterPage(bytearray(metrics.page_size()))
    source = PolicySource("", {"": b""})
    return Model.of(Handlers(source, page, lambda: 0.0, Background()))


def _functions(prefix: str, functions: Mapping[str, Callable[..., Any] | Waiting | Repeated]) -> dict[str, Function]:
    return {name: _function(prefix + name, function) for name, function in functions.items()}


def _function(name: str, function: Callable[..., Any] | Waiting | Repeated) -> Function:
    return Function(name, _given(function), isinstance(function, Unsupported))


def _kind(kind: type, exposed: Exposed) -> Kind:
    name = exposed.name or kind.__name__
    fields = None if callable(exposed.fields) or exposed.index is not None else frozenset(exposed.fields)
    return Kind(name, _functions(f"{name}:", exposed.methods), fields, exposed.assign is None)


def _given(function: Callable[..., Any] | Waiting | Repeated) -> type | None:
    """The class of a function's result, by its annotation; None where it may be one or the other."""
    if isinstance(function, Unsupported | Repeated):
        return None
    if isinstance(function, Waiting):
        function = function.function
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = inspect.unwrap(function.func)
    try:
        hint = typing.get_type_hints(function).get("return")
    except NameError:  # a name that is only there for the type checker
        return None
    choices = _at_once(typing.get_args(hint)) if isinstance(hint, types.UnionType) else [hint]
    found = choices[0] if len(choices) == 1 else None
    if found is bytes:
        return str
    return found if isinstance(found, type) and found not in (Any, type(None)) else None


def _at_once(choices: Iterable[object]) -> list[object]:
    """Without nil, and without the coroutine that may give the same later."""
    return [one for one in choices if one is not type(None) and typing.get_origin(one) is not Coroutine]
