"""What is found in a policy's text: where something is called and with what, where nil is used; and Lua files as trees.

Values only: walk.py finds them, lint.py judges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tree_sitter import Node

from gateway.policy import lua_text
from gateway.policy.abstract import Absent, Value
from gateway.policy.lua_text import field, parts, written
from gateway.policy.model import Function

Place: TypeAlias = "tuple[str, int]"  # of a function: its file, and the octet where it begins


_MAKERS_OF_GLOBALS = frozenset({"_G", "_ENV", "load", "loadfile"})


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the policy. line: of what is wrong. at: the line that Lua names when the call fails. caught: an error
    is caught there. uncalled: the place of the function around it that nothing calls, if any. event: whose handler it
    is reached from, "" while the policy loads.
    """

    file: str
    line: int
    at: int
    caught: bool
    uncalled: Place | None
    event: str = ""


@dataclass(frozen=True, slots=True)
class Called:
    """A call of something that the gateway offers.

    written: what is called, as it stands there. more: there may be more arguments than these.
    """

    function: Function
    written: str
    arguments: list[Value]
    where: Where
    more: bool = False


@dataclass(frozen=True, slots=True)
class NilUse:
    """Something that is nil is called or indexed; or, where `harmless`, read."""

    absent: Absent
    where: Where
    harmless: bool = False


class LuaFile:
    """One Lua file. assigned: how often each name is assigned to, other than where it is declared local. fields: the
    names of all fields that are written to. understood: whether the grammar knows all of it. makes_globals: whether
    there may be global names that are not written as such.
    """

    def __init__(self, content: bytes) -> None:
        self.root = lua_text.parse(content)
        self.understood = not self.root.has_error
        self.assigned: Counter[str] = Counter()
        self.fields: set[str] = set()
        self.makes_globals = self.root.has_error
        for node in lua_text.everything(self.root):
            if node.type == "identifier":
                self.makes_globals |= written(node) in _MAKERS_OF_GLOBALS
            elif node.type == "function_declaration":
                if not is_local(node):
                    self._target(field(node, "name"))
            elif node.type == "assignment_statement" and (node.parent is None or not is_local(node.parent)):
                for target in parts(parts(node)[0]):
                    self._target(target)

    def strings(self) -> Iterator[str]:
        """Every string literal."""
        return (lua_text.string(node) for node in lua_text.everything(self.root) if node.type == "string")

    def _target(self, node: Node) -> None:
        if node.type == "identifier":
            self.assigned[written(node)] += 1
            return
        name = node.child_by_field_name("field") or node.child_by_field_name("method")
        if name is not None:
            self.fields.add(lua_text.string(name) if name.type == "string" else written(name))


def is_local(declaration: Node) -> bool:
    """Whether a declaration begins with `local`."""
    kinds = "variable_declaration", "function_declaration"
    return declaration.type in kinds and declaration.children[0].type == "local"
