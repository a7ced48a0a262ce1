"""What is known of a Lua value without running anything: a constant, a table, a function, an object of a class, or
nothing (UNKNOWN). And where names live: scopes.

Values only; who works them out is walk.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tree_sitter import Node

from gateway.policy.lua_text import field as child
from gateway.policy.lua_text import parts, written
from gateway.policy.model import Function, Namespace
from gateway.policy.options import UNKNOWN, Opaque

Path = tuple[object, ...]

LEFT = Opaque("value of the fleet's")  # what is left to the fleet gives: nothing of it is called here

# None, booleans, numbers and strings are constants and stand for themselves.
Value: TypeAlias = "bool | int | float | str | Opaque | Table | Closure | Thing | Absent | Function | Namespace | None"


@dataclass(eq=False, slots=True)
class Table:
    """A table that the policy's text made.

    entries: by key. lines: where each was written, by its key. open: it may have other entries than
    these by now. written: as it was written, and nothing was assigned later.
    """

    entries: dict[object, Value] = field(default_factory=dict)
    lines: dict[object, int] = field(default_factory=dict)
    open: bool = False
    as_written: bool = True


@dataclass(eq=False, slots=True)
class Scope:
    """The local names of one block; those of the blocks around it are the parent's."""

    parent: Scope | None = None
    names: dict[str, Value] = field(default_factory=dict)

    def holder(self, name: str) -> Scope | None:
        """The scope that a local name belongs to; None for a global one."""
        scope: Scope | None = self
        while scope is not None and name not in scope.names:
            scope = scope.parent
        return scope


@dataclass(eq=False, slots=True)
class Closure:
    """A function of the policy. file: where it stands. scope: of the names around it."""

    node: Node
    file: str
    scope: Scope

    def parameters(self) -> list[str]:
        """Their names, without `self` and `...`."""
        return [written(name) for name in parts(child(self.node, "parameters")) if name.type == "identifier"]


@dataclass(frozen=True, slots=True)
class Thing:
    """A value of a class that the model knows, or nil."""

    kind: type


@dataclass(frozen=True, slots=True)
class Absent:
    """nil, because there is nothing of that name. written: how the policy tried to reach it. why: what there is not.
    hint: what it may have meant.
    """

    written: str
    why: str
    hint: str = ""

    @property
    def message(self) -> str:
        """For people."""
        return f"{self.written}: {self.why}"


def truth(value: Value) -> bool | None:
    """Whether a condition holds; None where nobody knows."""
    if value is None or value is False or isinstance(value, Absent):
        return False
    return None if isinstance(value, Opaque | Thing) else True


def is_nil(value: Value) -> bool | None:
    """Whether a value is nil; None where nobody knows."""
    if value is None or isinstance(value, Absent):
        return True
    return None if isinstance(value, Opaque | Thing) else False


def lua_type(value: Value) -> str:
    """Lua's name for what kind of value it is; "" where nobody knows."""
    if value is None or isinstance(value, Absent):
        return "nil"
    for kinds, name in _TYPES:
        if isinstance(value, kinds):
            return name
    return ""


_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "boolean"),
    ((int, float), "number"),
    (str, "string"),
    ((Table, Namespace), "table"),
    ((Closure, Function), "function"),
)


def same(one: Value, other: Value) -> bool:
    """Whether two values are known to be the same, or of the same class."""
    return type(one) is type(other) and one == other


def joined(one: Value, other: Value) -> Value:
    """What is known of a value that is one or the other."""
    return one if same(one, other) else UNKNOWN


def as_options(value: Value, path: Path = (), lines: dict[Path, int] | None = None) -> Any:
    """A value as the readers of options take it: tables as dicts, UNKNOWN for what is not known. lines: receives where
    each entry stands.
    """
    if isinstance(value, Table):
        if value.open or not value.as_written:
            return UNKNOWN
        if lines is not None:
            lines.update({(*path, key): line for key, line in value.lines.items()})
        found = {key: as_options(item, (*path, key), lines) for key, item in value.entries.items()}
        return {key: item for key, item in found.items() if item is not None}
    if isinstance(value, Closure | Function):
        return Opaque("function")
    if value is LEFT or isinstance(value, Thing | Absent | Namespace):
        return UNKNOWN
    return value
