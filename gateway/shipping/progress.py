"""How far the records of directories are shipped, as values: kept in a file by state.py. No I/O.

A directory's place is that of `relay-gateway logs` (gateway/logs/cursor.py): the segments that are done with are not
listed one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from gateway.logs.cursor import NOWHERE, LogPlace
from gateway.shipping.dispatch import Mark

_VERSION = 1


class ShippingProgress:
    """The places of one shipment's directories."""

    def __init__(self, directories: Sequence[str], places: Mapping[str, LogPlace] | None = None) -> None:
        """places: from before. Those of other directories are kept for when they are shipped from again."""
        known = places or {}
        self._others = {name: place for name, place in known.items() if name not in directories}
        self._places = {name: known.get(name, NOWHERE) for name in directories}
        self._read: dict[str, dict[str, int | None]] = {
            name: {segment: place.position(segment) for segment in place.at} for name, place in self._places.items()
        }

    def place(self, directory: str) -> LogPlace:
        """For a reader to go on from."""
        return self._places[directory]

    def note(self, marks: Iterable[Mark]) -> None:
        """All in front of these is shipped."""
        for mark in marks:
            self._read[mark.directory][mark.segment] = mark.position
        for directory, read in self._read.items():
            before = self._places[directory]
            after = LogPlace.after(read)
            self._places[directory] = place = after if after.upto >= before.upto else before._replace(at=after.at)
            for segment in [name for name, position in read.items() if position is None and name not in place.at]:
                del read[segment]

    def is_shipped(self, directory: str, segment: str) -> bool:
        """Whether nothing of a segment is left to be shipped, provided that nothing is added to it."""
        return self._places[directory].position(segment) is None

    def encoded(self) -> bytes:
        """As a file keeps it."""
        places = {**self._others, **self._places}
        return orjson.dumps({"version": _VERSION, "places": {name: list(place) for name, place in places.items()}})

    @classmethod
    def decoded(cls, directories: Sequence[str], content: bytes) -> ShippingProgress:
        """What `encoded` gave. Raises ValueError."""
        try:
            found = orjson.loads(content)
            if found["version"] != _VERSION:
                raise ValueError("it was written by another version")
            return cls(directories, {name: _place(*values) for name, values in found["places"].items()})
        except (KeyError, TypeError, AttributeError, orjson.JSONDecodeError):
            raise ValueError("it is not what `relay-gateway ship` writes") from None


def _place(upto: Any, at: Any) -> LogPlace:
    if not isinstance(upto, str) or not all(isinstance(position, int) for position in at.values()):
        raise TypeError
    return LogPlace(upto, at)
