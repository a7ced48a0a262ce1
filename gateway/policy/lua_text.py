"""Lua text as a tree of nodes, and what its literals say. Reads and understands nothing more.

tree-sitter and its grammar of Lua do the work; for `check` alone, so nothing else imports this at its start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import tree_sitter_lua
from tree_sitter import Language, Node, Parser

_LANGUAGE = Language(tree_sitter_lua.language())
_ESCAPE = re.compile(r"\\(z\s*|x[0-9a-fA-F]{2}|[0-9]{1,3}|u\{[0-9a-fA-F]+\}|.)", re.S)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_MOST_SHOWN = 60
_LONG = re.compile(r"\[(=*)\[(?:\r?\n)?(.*)\]\1\]", re.S)


def parse(text: bytes) -> Node:
    """The root of a file's tree; `has_error` where it is no Lua."""
    return Parser(_LANGUAGE).parse(text).root_node


def line_of(node: Node) -> int:
    """Where a node begins; 1-based."""
    return node.start_point.row + 1


def written(node: Node) -> str:
    """A node as it stands in the file."""
    return (node.text or b"").decode("utf-8", "replace")


def shown(node: Node) -> str:
    """A node for people: on one line, and of a long one the end."""
    text = " ".join(written(node).split())
    return text if len(text) <= _MOST_SHOWN else f"…{text[-_MOST_SHOWN:]}"


def parts(node: Node) -> list[Node]:
    """The named children, without comments."""
    return [child for child in node.named_children if child.type != "comment"]


def field(node: Node, name: str) -> Node:
    """A child that the grammar says is there."""
    found = node.child_by_field_name(name)
    assert found is not None, (node.type, name)
    return found


def everything(node: Node) -> Iterator[Node]:
    """A node and all below it."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += one.named_children


def functions(node: Node) -> Iterator[Node]:
    """All functions in a piece of Lua, the outer ones before those inside."""
    return (one for one in everything(node) if one.type in ("function_definition", "function_declaration"))


def string(node: Node) -> str:
    """What a string literal stands for."""
    text = written(node)
    long = _LONG.fullmatch(text)
    return long[2] if long else _ESCAPE.sub(_unescaped, text[1:-1])


def _unescaped(match: re.Match[str]) -> str:
    """What an escape sequence stands for; one that Lua would refuse stands for its letter."""
    code = match[1]
    if code[0] == "z":
        return ""
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code[0] == "u" and len(code) > 1:
        return chr(min(int(code[2:-1], 16), 0x10FFFF))
    if "0" <= code[0] <= "9":
        return chr(int(code))
    return _ESCAPES.get(code, code)


def number(text: str) -> int | float | None:
    """What a number literal stands for; None where Python does not know it."""
    try:
        return int(text, 0) if re.fullmatch(r"0[xX][0-9a-fA-F]+", text) else int(text)
    except ValueError:
        pass
    try:
        return float.fromhex(text) if text[:2].lower() == "0x" else float(text)
    except (ValueError, OverflowError):
        return None
