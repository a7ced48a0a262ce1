"""What can go wrong with a policy: problems found while reading it, and the two ways an event handler can end badly.

Values and exceptions only; who logs, counts or answers them is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

# Modules of KumoMTA's policy-extras that the gateway has not.
MISSING_EXTRAS = frozenset({"dkim_sign", "log_hooks", "queue", "rollup", "shaping", "sources"})
NOT_YET = "is not supported yet by relay-gateway"

_MISSING_MODULE = re.compile(r"module '(?P<name>[^'\n]+)' not found:\n")
_LUA_FRAME = re.compile(r"^\s*(?P<file>[^\n]+?):(?P<line>\d+): in ", re.M)
_LUA_POSITION = re.compile(r"(?P<file>[^\n]+?):(?P<line>\d+): (?P<message>.*)", re.S)


class Severity(Enum):
    """How bad a problem is."""

    ERROR = "error"
    WARNING = "warning"  # the policy runs; it may be meant otherwise
    NOTE = "note"  # nothing is wrong with it


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a policy file, where it is, and what would be accepted.

    line: 1-based; 0 where only the file is known. hint: "" or what to write instead. at: the line that Lua names when
    it fails there, 0 for the same.
    """

    file: str
    line: int
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR
    at: int = field(default=0, compare=False)

    @property
    def text(self) -> str:
        """Message and hint."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {'' if self.severity is Severity.ERROR else f'{self.severity.value}: '}{self.text}"

    @classmethod
    def from_lua(cls, text: str, file: str, files: Iterable[str] = (), traceback: str = "") -> Problem:
        """Reads the position out of a Lua error message.

        file: stands in where it has none, nor the traceback. files: of the policy; Lua shows only the end of a long
        name.
        """
        match = _LUA_POSITION.match(text)
        if match is None or match["file"] == "prelude":  # what the gateway offers has failed
            place = next(_places(traceback, files), (file, 0))
            return cls(*place, text if match is None else match["message"])
        name = _whole(match["file"], files)
        missing = _MISSING_MODULE.match(match["message"])
        message = (match["message"], "") if missing is None else missing_module(missing["name"], match["message"])
        return cls(name, int(match["line"]), *message)


def _whole(name: str, files: Iterable[str]) -> str:
    if not name.startswith("..."):
        return name
    return next((known for known in files if known.endswith(name[3:])), name)


def _places(traceback: str, files: Iterable[str]) -> Iterator[tuple[str, int]]:
    """The calls in a traceback that are the policy's own, the innermost first."""
    for frame in _LUA_FRAME.finditer(traceback):
        name = _whole(frame["file"], files)
        if name in files:
            yield name, int(frame["line"])


def missing_module(name: str, tried: str = "") -> tuple[str, str]:
    """What to say of a module that `require` does not find: message and hint. tried: Lua's list of files."""
    package, _, extra = name.partition(".")
    if package == "policy-extras" and extra in MISSING_EXTRAS:
        return f"require '{name}': it {NOT_YET}", ""
    path = name.replace(".", "/")
    places = dict.fromkeys(re.findall(rf"no file '(.*?)/?{re.escape(path)}(?:/init)?\.lua'", tried))
    return f"require '{name}': there is no {path}.lua", f"looked for in {', '.join(places)}" if places else ""


class PolicyProblems(Exception):
    """A policy cannot be used. `problems` has everything that was found, in the order of finding."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[PolicyProblems], tuple[tuple[Problem, ...]]]:
        return PolicyProblems, (self.problems,)


class PolicyError(Exception):
    """An event handler failed or returned something unusable. Logged and counted where it was raised; the text never
    reaches a peer."""


class Rejected(Exception):
    """A handler called kumo.reject or kumo.disconnect.

    code: 200–599. text: "\\n" separates lines. closes: the connection ends after the reply. follow_with_421: a 421
    line of its own comes before the end. place: FILE:LINE of the call; "" where it is not known.
    """

    def __init__(self, code: int, text: str, closes: bool, follow_with_421: bool = False, place: str = "") -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text
        self.closes = closes
        self.follow_with_421 = follow_with_421
        self.place = place
