"""The cache of decisions: results of a handler under everything the handler looked at. No Lua, no policy.

A result depends on the arguments *and* on the metadata values read on the way to it, so what is known about a handler
is a decision tree: an inner node names the metadata key that the handler read next, its children are the values seen
there, and the leaves are results. Two connections that differ in anything the handler read never share a result.
The tree's nodes are kept in one bounded map, by their paths; losing any of them only means asking the handler again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from enum import Enum
from typing import Any, Final

from gateway.later import Later


class Missing(Enum):
    """The type of MISSING, which is no cached value."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
NEVER = float("inf")
_NEVER = NEVER  # as a number of the machine, for what every decision passes


def frozen(value: Any) -> Hashable:
    """A hashable stand-in for a JSON value, equal only for values of the same type and content: true, 1, 1.0 and "1"
    are four different ones."""
    if value is None or value.__class__ is str:
        return value
    if isinstance(value, dict | list):
        return "json", json.dumps(value)
    return value.__class__, repr(value)


class RecentlyUsed:
    """A bounded map that forgets what was not used lately.

    LRU in two generations, so that a hit in the young one writes nothing: when the young generation is full it
    becomes the old one, and what nobody asked for since the last turn is gone.
    """

    def __init__(self, capacity: int) -> None:
        self._half = max(1, capacity // 2)
        # `young` may be looked into directly; what is not there may still be known to `get`
        self.young: dict[Hashable, Any] = {}
        self._old: dict[Hashable, Any] = {}
        self.evictions = 0

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def get(self, key: Hashable) -> Any:
        """The value, which thereby counts as used, or MISSING."""
        value = self.young.get(key, MISSING)
        if value is MISSING:
            value = self._old.pop(key, MISSING)
            if value is not MISSING:
                self.put(key, value)
        return value

    def put(self, key: Hashable, value: Any) -> None:
        """Adds a value under a key that `get` does not find."""
        if len(self.young) >= self._half:
            self.evictions += len(self._old)
            self._old, self.young = self.young, {}
        self.young[key] = value

    def replace(self, key: Hashable, value: Any) -> None:
        """The same under a key that `get` may have found."""
        if key in self.young:
            self.young[key] = value
        else:
            self.put(key, value)


class _Read:
    """An inner node: the handler read metadata `key` next. expires: when that may have become another one."""

    def __init__(self, key: str, expires: float) -> None:
        self.key = key
        self.expires = expires


class Known(Later):
    """A leaf: the result of the handler, as an answer that is there. expires: when it may have become another one."""

    def __init__(self, value: object, expires: float = NEVER) -> None:
        self.expires = expires
        self.done = True
        self.failed = False
        self._value = value
        self._error = None
        self._waiter = None


class DecisionCache:
    """Results of one handler. capacity: greatest number of tree nodes. clock: seconds.

    missed: how far the last lookup without a result got; equal for calls of which the same is known.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._nodes = RecentlyUsed(capacity)
        self._clock = clock
        self.missed: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def evictions(self) -> int:
        """Nodes dropped for want of room, in total."""
        return self._nodes.evictions

    def lookup(self, arguments: tuple[Hashable, ...], values: dict[str, Any]) -> Any:
        """The result for a call with these arguments under this metadata, as a Known, or MISSING."""
        path: tuple[Any, ...] = arguments
        while True:
            node = self._nodes.young.get(path, MISSING)
            if node is MISSING:
                node = self._nodes.get(path)
            if type(node) is Known:
                known = node
                if known.expires != _NEVER and self._clock() >= known.expires:
                    break
                return known
            if type(node) is not _Read:
                break
            inner = node
            value = values.get(inner.key)
            path = path, value if type(value) is str else frozen(value)
        self.missed = path
        return MISSING

    def store(
        self, arguments: Hashable, reads: Iterable[tuple[str, Hashable]], result: Any, expires: float = NEVER
    ) -> bool:
        """Remembers a result and the (key, frozen value) pairs that were read on the way to it, in order.

        What expires is forgotten by `expires`; what was known before and has expired contradicts nothing. (A node lasts
        as long as the longest of what is below it, so that nothing outlives the node that says what its place means.)

        False: this contradicts what the handler did before under the same circumstances, so that something else
        must have influenced it, and none of its results can be relied on.
        """
        now = self._clock()
        path = arguments
        for key, value in reads:
            node = self._nodes.get(path)
            if node is MISSING or node.expires <= now:
                self._nodes.replace(path, _Read(key, expires))
            elif type(node) is not _Read or node.key != key:
                return False
            elif node.expires < expires:
                node.expires = expires
            path = path, value
        node = self._nodes.get(path)
        if node is MISSING or node.expires <= now:
            self._nodes.replace(path, Known(result, expires))
            return True
        return type(node) is Known and bool(node.result() == result)


class Evaluation:
    """What a running handler has looked at so far. stable: nothing but its arguments and `reads` influenced it.
    expires: when what it looked at besides may have changed, on the cache's clock."""

    def __init__(self, connection: object) -> None:
        self._connection = connection
        self.reads: dict[str, Hashable] = {}
        self.stable = True
        self.expires = NEVER

    def read(self, connection: object, key: str, value: Any) -> None:
        """The handler read a metadata value. One of another connection, kept from earlier, is nobody's argument."""
        if connection is not self._connection:
            self.stable = False
        self.reads.setdefault(key, frozen(value))

    def lasts_until(self, expires: float) -> None:
        """The handler looked at something that may be something else by then."""
        self.expires = min(self.expires, expires)

    def fits(self, values: Mapping[str, Any]) -> bool:
        """Whether it would have gone the same way with this metadata."""
        return self.stable and all(frozen(values.get(key)) == seen for key, seen in self.reads.items())
