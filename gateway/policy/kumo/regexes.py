"""`kumo.regex`: regular expressions with look-around, on text, bounded in time.

The `regex` library reads nearly what Rust's fancy_regex reads; what is written differently in replacements is turned
here. Positions never reach a policy, so it does not matter that ours count characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import regex

from gateway.policy.kumo.values import Objects, integer, string

TIMEOUT = 1.0  # seconds for one search: backtracking must not stop a worker
_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+)|(\$))")


class Regex:
    """A compiled regular expression; printed as its pattern."""

    def __init__(self, pattern: str) -> None:
        self.compiled = _compiled(pattern)

    def __str__(self) -> str:
        return str(self.compiled.pattern)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> regex.Pattern[str]:
    try:
        return regex.compile(pattern, regex.VERSION1)
    except regex.error as error:
        raise ValueError(f"compile: {error} in '{pattern}'") from None


def _bounded(search: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return search(*arguments, timeout=TIMEOUT, **options)
    except TimeoutError:
        raise ValueError(f"the regular expression takes more than {TIMEOUT:.0f} s on this text") from None


def captures(one: Regex, text: Any) -> dict[int | str, str] | None:
    """The groups of the first match by number and name, 0 for all of it; nil where there is none."""
    found = _bounded(one.compiled.search, string(text, "captures"))
    if found is None:
        return None
    groups = {number: found.group(number) for number in range(one.compiled.groups + 1)}
    return {name: text for name, text in {**groups, **found.groupdict()}.items() if text is not None}


def is_match(one: Regex, text: Any) -> bool:
    """Whether it matches anywhere."""
    return _bounded(one.compiled.search, string(text, "is_match")) is not None


def find(one: Regex, text: Any) -> str | None:
    """The first match."""
    found = _bounded(one.compiled.search, string(text, "find"))
    return None if found is None else found.group()


def find_all(one: Regex, text: Any) -> list[str]:
    """All matches."""
    return [found.group() for found in _bounded(one.compiled.finditer, string(text, "find_all"))]


def replace(one: Regex, text: Any, replacement: Any) -> str:
    """The first match replaced; `$1`, `${name}` stand for groups."""
    return _replaced(one, text, 1, replacement, "replace")


def replace_all(one: Regex, text: Any, replacement: Any) -> str:
    """All matches replaced."""
    return _replaced(one, text, 0, replacement, "replace_all")


def replacen(one: Regex, text: Any, limit: Any, replacement: Any) -> str:
    """The first `limit` matches replaced; 0 for all."""
    return _replaced(one, text, max(0, integer(limit, "replacen")), replacement, "replacen")


def _replaced(one: Regex, text: Any, count: int, replacement: Any, function: str) -> str:
    template = string(replacement, function)

    def expand(found: regex.Match[str]) -> str:
        def reference(name: re.Match[str]) -> str:
            if name[3]:
                return "$"
            group = name[1] or name[2]
            try:
                return found.group(int(group) if group.isdigit() else group) or ""
            except IndexError:
                return ""

        return _REFERENCE.sub(reference, template)

    result: str = _bounded(one.compiled.sub, expand, string(text, function), count=count)
    return result


def split(one: Regex, text: Any) -> list[str]:
    """The pieces between the matches."""
    whole = string(text, "split")
    pieces, begin = [], 0
    for found in _bounded(one.compiled.finditer, whole):
        pieces.append(whole[begin : found.start()])
        begin = found.end()
    return [*pieces, whole[begin:]]


def compile(pattern: Any) -> Regex:
    """A regular expression from its pattern."""
    return Regex(string(pattern, "compile"))


def escape(text: Any) -> str:
    """A text that matches itself."""
    return re.sub(r"[\\.+*?()|\[\]{}^$#&\-~]", r"\\\g<0>", string(text, "escape"))


FUNCTIONS: dict[str, Callable[..., Any]] = {"compile": compile, "escape": escape}
_METHODS = {
    method.__name__: method for method in (captures, is_match, find, find_all, replace, replace_all, replacen, split)
}
OBJECTS: Objects = {Regex: (_METHODS, {})}
