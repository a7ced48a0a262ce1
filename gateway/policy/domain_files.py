"""What `policy-extras.listener_domains` reads: parameters by listener and domain, out of TOML, JSON and inline tables.

Texts in, values and Problems with their lines out. What parameters mean is domain_table.py's business.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.policy.kumo import serde
from gateway.policy.problems import Problem

LISTENERS = "listener"  # the key that is no domain: parameters by listener
EVERYWHERE = "*"  # the listener of what stands outside of it

# A table of TOML that a file for many domains is made of: its domain in quotes, and its lines up to the next table.
_SECTION = re.compile(
    r"""(?m)^[ \t]*\[[ \t]*("[^"\\\n]*"|'[^'\n]*')[ \t]*\][ \t]*(?:\#[^\n]*)?\r?\n"""
    r"""((?:[ \t]*+(?:[^\[\n][^\n]*)?\n)*+)"""
)
_BODIES = 4_096  # different ones that are kept


class Group(NamedTuple):
    """What a file says about some domains, by their names. Equal parameters are often the same object."""

    listener: str
    domains: dict[str, object]


class Parameters(NamedTuple):
    """What a file says of one domain."""

    listener: str
    domain: str
    values: object = None


class Text:
    """The text of a file that parameters came from; it knows the lines of what is wrong with them.

    start: where to look for everything, for an inline table in the middle of a policy.
    """

    def __init__(self, name: str, text: str, start: int = 0) -> None:
        self.name = name
        self.text = text
        self._start = start
        self._lines: list[int] | None = None

    def line(self, at: int) -> int:
        """The line of a place."""
        if self._lines is None:
            self._lines = [found.end() for found in re.finditer("\n", self.text)]
        return bisect_right(self._lines, at) + 1

    def line_of(self, found: Parameters, keys: tuple[object, ...] = ()) -> int:
        """The line that most likely has a domain's parameters, or one of them."""
        at = self._start
        names = [found.domain, *keys] if found.listener == EVERYWHERE else [found.listener, found.domain, *keys]
        for name in names:
            if isinstance(name, str):
                quoted = re.compile(rf"""["']{re.escape(name)}["']""")
                bare = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])")
                place = quoted.search(self.text, at) or bare.search(self.text, at)
                if place is None:
                    break
                at = place.start()
        return self.line(at)

    def problem(self, found: Parameters, message: str, keys: tuple[object, ...] = (), hint: str = "") -> Problem:
        """A mistake in a domain's parameters."""
        return Problem(self.name, self.line_of(found, keys), f"'{found.domain}': {message}", hint)


class Unreadable(Exception):
    """A file is not what its name says. `problem` has the place."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def read(text: Text) -> list[Group]:
    """What a file says, in its order: TOML where its name ends so, otherwise JSON, which may have comments.

    Raises Unreadable.
    """
    return _read_toml(text) if text.name.endswith(".toml") else read_table(parsed(text, serde.from_json), text)


def read_table(table: object, text: Text) -> list[Group]:
    """The same of a table: domains, and under `listener` domains by listener. What stands outside comes last."""
    if not isinstance(table, dict):
        raise Unreadable(Problem(text.name, 1, "expected a table of domains and their parameters"))
    listeners = table.get(LISTENERS, {})
    if not isinstance(listeners, dict) or not all(isinstance(domains, dict) for domains in listeners.values()):
        at = Parameters(EVERYWHERE, LISTENERS)
        raise Unreadable(text.problem(at, "expected a table of listeners, each with a table of domains"))
    everywhere = {domain: values for domain, values in table.items() if domain != LISTENERS}
    groups = [*listeners.items(), (EVERYWHERE, everywhere)]
    return [Group(str(listener), {str(name): value for name, value in domains.items()}) for listener, domains in groups]


def parsed(text: Text, parse: Callable[[str], Any]) -> Any:
    """What a parser makes of a text. Raises Unreadable with the line that it names."""
    try:
        return parse(text.text)
    except ValueError as error:
        message = " ".join(str(error).split())
        place = re.search(r"\(?(?:at |: )line (\d+),? column \d+(?: \(char \d+\))?\)?", message)
        at_the_end = len(text.text.splitlines()) if "at end of document" in message else 0
        line = int(place[1]) if place else at_the_end
        plain = message.replace(place[0], "").strip() if place else message.removesuffix(" (at end of document)")
        raise Unreadable(Problem(text.name, line, plain)) from None
    except RecursionError:
        raise Unreadable(Problem(text.name, 0, "tables are nested too deeply")) from None


# --- TOML -------------------------------------------------------------------------------------------------------------


def _read_toml(text: Text) -> list[Group]:
    """A file of a million tables is cut into these, and each different body is parsed once; what does not consist of
    `["DOMAIN"]` tables is parsed as it stands. Where the pieces are not TOML each, the whole decides: what could be cut
    in the middle of an array is none, and texts over several lines are not cut.
    """
    groups = None if '"""' in text.text or "'''" in text.text else _in_pieces(text)
    return read_table(parsed(text, tomllib.loads), text) if groups is None else groups


def _in_pieces(text: Text) -> list[Group] | None:
    """None where the whole has to decide."""
    try:
        sections, rest = _cut(text.text)
        others = tomllib.loads(rest)
    except (ValueError, RecursionError):
        return None
    if not sections.keys().isdisjoint(others):
        return None
    return [*read_table(others, text), Group(EVERYWHERE, sections)]


def _cut(text: str) -> tuple[dict[str, object], str]:
    """The tables of single domains, and the rest of the text. Raises ValueError where the whole has to decide."""
    text += "\n"
    sections: dict[str, object] = {}
    bodies: dict[str, object] = {}
    rest: list[str] = []
    end = 0
    for found in _SECTION.finditer(text):
        name, body = found[1][1:-1], found[2]
        if found.start() != end:
            rest.append(text[end : found.start()])
        end = found.end()
        if name in sections or name == LISTENERS:
            raise ValueError(name)
        values = bodies.get(body)
        if values is None:
            if len(bodies) >= _BODIES:
                bodies.clear()
            values = bodies[body] = tomllib.loads(body)
        sections[name] = values
    rest.append(text[end:])
    return sections, "".join(rest)
