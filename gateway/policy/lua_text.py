"""A look at Lua text without running it: tokens, and the calls of `kumo` functions with their literal arguments.

Knows just enough of the grammar for that (Lua 5.4 manual, §3.1 and §9); what it cannot follow it skips.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.policy.options import UNKNOWN

_TOKEN = re.compile(
    r"""
    (?P<comment>--\[(?P<level>=*)\[.*?(?:\](?P=level)\]|\Z) | --[^\n]*)
  | (?P<long>\[(?P<equals>=*)\[\r?\n?(?P<text>.*?)(?:\](?P=equals)\]|\Z))
  | (?P<string>"(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*')
  | (?P<number>0[xX][0-9a-fA-F.]+(?:[pP][+-]?\d+)? | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<symbol>\.\.\.|\.\.|::|<<|>>|//|==|~=|<=|>=|[-+*/%^\#&~|<>=(){}\[\];:,.])
  | (?P<blank>\s+ | .)
    """,
    re.X | re.S,
)
_KINDS = ("comment", "long", "string", "number", "name", "symbol", "blank")
_ESCAPE = re.compile(r"\\(z\s*|x[0-9a-fA-F]{2}|[0-9]{1,3}|u\{[0-9a-fA-F]+\}|.)", re.S)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_OPENING = frozenset({"function", "if", "do", "repeat", "(", "{", "["})
_CLOSING = frozenset({"end", "until", ")", "}", "]"})
_END = "<end>"

Path = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """kind: name, number, string, symbol, or end. value: the string's content, else the text."""

    kind: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Call:
    """`kumo.function(…)`. argument: its first one if it is a literal, else UNKNOWN; None without one. lines: where the
    entries of a literal table are, by the keys that lead to them."""

    function: str
    line: int
    argument: object
    lines: dict[Path, int] = field(default_factory=dict)


def tokens(text: str) -> list[Token]:
    """All tokens but comments; the last one is of kind "end"."""
    found, line = [], 1
    for match in _TOKEN.finditer(text):
        kind = next(kind for kind in _KINDS if match[kind] is not None)
        if kind == "long":
            found.append(Token("string", match["text"], line))
        elif kind == "string":
            found.append(Token("string", _ESCAPE.sub(_unescaped, match[0][1:-1]), line))
        elif kind in ("number", "name", "symbol"):
            found.append(Token(kind, match[0], line))
        line += match[0].count("\n")
    return [*found, Token("end", _END, line)]


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


def calls(text: str) -> Iterator[Call]:
    """Every call of a function of the global or local `kumo`; of one in a sub-module as `module.function`."""
    stream = tokens(text)
    for index, token in enumerate(stream):
        if token.value != "kumo" or token.kind != "name" or (index and stream[index - 1].value in (".", ":")):
            continue
        reader = _Reader(stream, index + 1)
        name = reader.dotted_name()
        if name and (reader.token.value in ("(", "{") or reader.token.kind == "string"):
            argument = reader.argument()
            yield Call(name, token.line, argument, reader.lines)


class _Reader:
    """Reads literals from a position on."""

    def __init__(self, stream: list[Token], index: int) -> None:
        self._stream = stream
        self._index = index
        self.lines: dict[Path, int] = {}

    @property
    def token(self) -> Token:
        """The next token."""
        return self._stream[self._index]

    def _take(self) -> Token:
        token = self.token
        if token.kind != "end":
            self._index += 1
        return token

    def dotted_name(self) -> str:
        """ "name" or "module.name" for what follows; "" where no name follows."""
        names = []
        while self.token.value == "." and self._stream[self._index + 1].kind == "name":
            self._take()
            names.append(self._take().value)
        return ".".join(names)

    def argument(self) -> object:
        """The first argument of a call."""
        if self.token.value != "(" or self.token.kind == "string":
            return self._literal(())
        self._take()
        return None if self.token.value == ")" else self._expression((), {",", ")"})

    def _expression(self, path: Path, ends: set[str]) -> object:
        """A literal up to one of `ends`, or UNKNOWN for any other expression."""
        value = self._literal(path)
        if value is not UNKNOWN and self.token.kind == "symbol" and self.token.value in ends:
            return value
        depth = 0
        while self.token.kind != "end":
            word = "" if self.token.kind == "string" else self.token.value
            if depth == 0 and word in ends:
                break
            depth += (word in _OPENING) - (word in _CLOSING)
            self._take()
        return UNKNOWN

    def _literal(self, path: Path) -> object:
        token = self.token
        if token.kind == "symbol" and token.value == "{":
            self._take()
            return self._table(path)
        if token.kind == "string":
            return self._take().value
        if token.kind == "number":
            self._take()
            return _number(token.value)
        if token.value == "-" and token.kind == "symbol" and self._stream[self._index + 1].kind == "number":
            self._take()
            return _number("-" + self._take().value)
        constants = {"true": True, "false": False, "nil": None}
        if token.kind == "name" and token.value in constants:
            return constants[self._take().value]
        return UNKNOWN

    def _table(self, path: Path) -> dict[object, object]:
        table: dict[object, object] = {}
        position = 1
        while self.token.kind != "end" and self.token.value != "}":
            line = self.token.line
            key = self._key()
            if key is None:
                key, position = position, position + 1
            if len(path) < 32:  # deeper than any option
                self.lines[(*path, key)] = line
            value = self._expression((*path, key), {",", ";", "}"})
            if value is not None and key is not UNKNOWN:
                table[key] = value
            if self.token.value in (",", ";"):
                self._take()
        self._take()
        return table

    def _key(self) -> object:
        """A `name =` or `[literal] =`; None for a positional entry; UNKNOWN for a key that is computed."""
        following = self._stream[min(self._index + 1, len(self._stream) - 1)]
        if self.token.kind == "name" and following.value == "=" and following.kind == "symbol":
            name = self._take().value
            self._take()
            return name
        if self.token.value == "[" and self.token.kind == "symbol":
            self._take()
            key = self._expression((), {"]"})
            self._take()
            self._take()
            return UNKNOWN if isinstance(key, dict) else key
        return None


def _number(text: str) -> object:
    try:
        return int(text, 0) if re.fullmatch(r"-?0[xX][0-9a-fA-F]+", text) else int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return UNKNOWN
