"""`kumo.regex_set_map`: values by regular expressions, of which the first that matches a text decides.

First is which pattern comes first as a text: the order of a Lua table is nobody's. (KumoMTA takes any of those that
match.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.policy.kumo.regexes import Regex, is_match
from gateway.policy.kumo.values import described, string


class RegexSetMap:
    """Values by pattern; it cannot be changed."""

    def __init__(self, entries: dict[str, Any]) -> None:
        self._entries = [(Regex(pattern), entries[pattern]) for pattern in sorted(entries)]

    def get(self, text: str) -> Any:
        """The value of the first pattern that matches anywhere in a text, None where none does."""
        return next((value for pattern, value in self._entries if is_match(pattern, text)), None)

    def __setitem__(self, pattern: str, value: Any) -> None:
        raise ValueError("a regex set map cannot be changed")


def new(entries: Any = None) -> RegexSetMap:
    """A map with the values of a table by the regular expressions that are its keys"""
    if entries is None or entries == []:
        return RegexSetMap({})
    if not isinstance(entries, dict):
        raise ValueError(f"new: expected a table by pattern, got {described(entries)}")
    return RegexSetMap({string(pattern, "new"): value for pattern, value in entries.items()})


FUNCTIONS: dict[str, Callable[..., Any]] = {"new": new}
INDEXED = (RegexSetMap,)  # map[text] reads with `get`
