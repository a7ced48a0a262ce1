"""`kumo.uuid`: making and reading UUIDs (RFC 9562)."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import Any

from gateway.policy.kumo.values import Objects, string, text_of

_GREGORIAN = 0x01B21DD213814000  # 100 ns intervals from 1582-10-15 to 1970 (RFC 9562 §5.1)


class Uuid:
    """A UUID; printed with hyphens."""

    def __init__(self, value: uuid.UUID) -> None:
        self.value = value

    def __str__(self) -> str:
        return str(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Uuid) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


UUID_FIELDS: dict[str, Callable[[Uuid], str]] = {
    "bytes": lambda one: text_of(one.value.bytes),
    "hyphenated": str,
    "simple": lambda one: one.value.hex,
    "braced": lambda one: f"{{{one}}}",
    "urn": lambda one: one.value.urn,
}


def new_v1() -> Uuid:
    """From the clock and this machine's network address."""
    return Uuid(uuid.uuid1())


def new_v4() -> Uuid:
    """Random."""
    return Uuid(uuid.uuid4())


def new_v6() -> Uuid:
    """Like version 1, but sorted by time (RFC 9562 §5.6)."""
    ticks = time.time_ns() // 100 + _GREGORIAN
    clock = int.from_bytes(os.urandom(2), "big") & 0x3FFF
    high = (ticks >> 12) << 16 | 0x6000 | ticks & 0xFFF
    return Uuid(uuid.UUID(int=high << 64 | (0x8000 | clock) << 48 | uuid.getnode()))


def new_v7() -> Uuid:
    """Milliseconds since 1970, then random bits (RFC 9562 §5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    high = milliseconds << 16 | 0x7000 | random >> 68 & 0xFFF
    low = 0x8000000000000000 | random & 0x3FFFFFFFFFFFFFFF
    return Uuid(uuid.UUID(int=high << 64 | low))


def parse(text: Any) -> Uuid:
    """Any of the usual spellings."""
    written = string(text, "parse")
    try:
        return Uuid(uuid.UUID(written))
    except ValueError:
        raise ValueError(f"parse: '{written}' is no UUID") from None


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (new_v1, new_v4, new_v6, new_v7, parse)
}
OBJECTS: Objects = {Uuid: ({}, UUID_FIELDS)}
UNSTABLE = frozenset({"new_v1", "new_v4", "new_v6", "new_v7"})
