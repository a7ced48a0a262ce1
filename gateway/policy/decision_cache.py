"""The cache of decisions: results of a handler under everything the handler looked at. No Lua, no policy.

A result depends on the arguments *and* on the metadata values read on the way to it, so what is known about a handler
is a decision tree: an inner node names the metadata key that the handler read next, its children are the values seen
there, and the leaves are results. Two connections that differ in anything the handler read never share a result.
The tree's nodes are kept in one bounded map, by their paths; losing any of them only means asking the handler again.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from enum import Enum
from typing import Any, Final

from gateway.later import Later


class Missing(Enum):
    """The type of MISSING, which is no cached value."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


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


class _Read:
    """An inner node: the handler read metadata `key` next."""

    def __init__(self, key: str) -> None:
        self.key = key


class Known(Later):
    """A leaf: the result of the handler, as an answer that is there."""

    def __init__(self, value: object) -> None:
        self.done = True
        self.failed = False
        self._value = value
        self._error = None
        self._waiter = None


class DecisionCache:
    """Results of one handler. capacity: greatest number of tree nodes."""

    def __init__(self, capacity: int) -> None:
        self._nodes = RecentlyUsed(capacity)

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
            if type(node) is not _Read:
                return node
            value = values.get(node.key)
            path = path, value if type(value) is str else frozen(value)

    def store(self, arguments: Hashable, reads: Iterable[tuple[str, Hashable]], result: Any) -> bool:
        """Remembers a result and the (key, frozen value) pairs that were read on the way to it, in order.

        False: this contradicts what the handler did before under the same circumstances, so that something else
        must have influenced it, and none of its results can be relied on.
        """
        path = arguments
        for key, value in reads:
            node = self._nodes.get(path)
            if node is MISSING:
                self._nodes.put(path, _Read(key))
            elif type(node) is not _Read or node.key != key:
                return False
            path = path, value
        node = self._nodes.get(path)
        if node is MISSING:
            self._nodes.put(path, Known(result))
            return True
        return type(node) is Known and bool(node.result() == result)


class Evaluation:
    """What a running handler has looked at so far. stable: nothing but its arguments and `reads` influenced it."""

    def __init__(self, connection: object) -> None:
        self._connection = connection
        self.reads: dict[str, Hashable] = {}
        self.stable = True

    def read(self, connection: object, key: str, value: Any) -> None:
        """The handler read a metadata value. One of another connection, kept from earlier, is nobody's argument."""
        if connection is not self._connection:
            self.stable = False
        self.reads.setdefault(key, frozen(value))
