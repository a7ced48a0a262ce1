"""How far directories have been read, as a word that a later reader goes on from. No files are touched here."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from gateway.logs.segments import opening_time, segment_name

_SLACK = 5_000_000_000  # ns within which segments may appear in another order than that of their names
_READ = -1  # to its end


class LogPlace(NamedTuple):
    """How far one directory has been read. Segments up to the name `upto` have been, to their ends, unless `at` has
    them: name → octets of their text that were read, or -1 for all.
    """

    upto: str
    at: Mapping[str, int]

    def position(self, name: str) -> int | None:
        """Octets of the text of a segment that were read; None for all."""
        position = self.at.get(name, _READ if name <= self.upto else 0)
        return None if position == _READ else position

    @classmethod
    def after(cls, read: Mapping[str, int | None]) -> LogPlace:
        """The place after these have been read: name → octets, or None for segments that nothing is added to."""
        if not read:
            return NOWHERE
        upto = segment_name(max(0, opening_time(max(read)) - _SLACK), "")
        return cls(
            upto,
            {
                name: _READ if position is None else position
                for name, position in sorted(read.items())
                if position is not None or name > upto
            },
        )


NOWHERE = LogPlace("", {})


def as_word(places: Mapping[str, LogPlace]) -> str:
    """A cursor: the places of directories, in letters that no shell minds."""
    text = orjson.dumps({directory: list(place) for directory, place in places.items()})
    return base64.urlsafe_b64encode(zlib.compress(text, 9)).decode().rstrip("=")


def from_word(word: str) -> dict[str, LogPlace]:
    """What `as_word` gave. Raises ValueError."""
    try:
        found = orjson.loads(zlib.decompress(base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))))
        return {directory: _place(*values) for directory, values in found.items()}
    except (binascii.Error, zlib.error, orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        raise ValueError("this is no cursor of `relay-gateway logs`") from None


def _place(upto: Any, at: Any) -> LogPlace:
    if not isinstance(upto, str) or not all(isinstance(position, int) for position in at.values()):
        raise TypeError
    return LogPlace(upto, at)
