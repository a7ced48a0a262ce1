"""`kumo.domain_map`: values by domain name, with wildcards.

The exact name is looked for first, then the longest suffix that has a wildcard: `*.example.com` covers every name
below example.com, but not example.com itself; `*` covers all. Names are compared as the gateway compares domains: case
folded, U-labels as A-labels. KumoMTA compares them as they are, and does not go back to a shorter suffix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gateway.policy.kumo.values import described, string
from gateway.smtp.address import AddressError, normalise_domain


class DomainMap:
    """Values by domain."""

    def __init__(self, entries: Iterable[tuple[str, Any]] = ()) -> None:
        self._exact: dict[str, Any] = {}
        self._below: dict[str, Any] = {}  # by the suffix behind "*."; "" for all names
        for name, value in entries:
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        """None takes an entry away."""
        entries, key = self._exact, normalised(name)
        if key == "*":
            entries, key = self._below, ""
        elif key.startswith("*."):
            entries, key = self._below, key[2:]
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value

    def get(self, name: str) -> Any:
        """The value of the best entry, None where none covers the name."""
        return self.find(normalised(name))

    def find(self, name: str) -> Any:
        """The same for a name that is normalised already, as those of addresses are."""
        value = self._exact.get(name)
        below = self._below
        if value is not None or not below:
            return value
        while name:
            _, dot, name = name.partition(".")
            if dot and name in below:
                return below[name]
        return below.get("")


def normalised(name: str) -> str:
    """A key; what is no domain is only case folded. A wildcard's "*." stays."""
    wildcard, suffix = ("*.", name[2:]) if name.startswith("*.") else ("", name)
    if suffix.isascii() and suffix.replace(".", "").replace("-", "").isalnum():
        return wildcard + suffix.lower()
    try:
        return wildcard + normalise_domain(suffix)
    except AddressError:
        return wildcard + suffix.lower()


def new(entries: Any = None) -> DomainMap:
    """A map with the entries of a table."""
    if entries is None or entries == []:
        return DomainMap()
    if not isinstance(entries, dict):
        raise ValueError(f"new: expected a table by domain, got {described(entries)}")
    return DomainMap((string(name, "new"), value) for name, value in entries.items())


FUNCTIONS: dict[str, Callable[..., Any]] = {"new": new}
INDEXED = (DomainMap,)  # map[name] reads with `get`, map[name] = value writes
