"""Names of things in records: message ids, session ids and the node's id. No clock: times come as arguments."""

from __future__ import annotations

import os
import socket
import uuid
from functools import cache

# Offset of RFC 9562 §5.1's epoch (1582-10-15) to 1970 in steps of 100 ns.
_GREGORIAN = 0x01B21DD213814000
_VERSION_1 = 1 << 28  # above the upper 28 of the 60 bits of time
_NODE_NAMESPACE = uuid.UUID("0d3b1f46-52b0-5a53-9a3c-6f2d2c1d9f0e")


class _Sequence:
    """The state behind message ids: RFC 9562 §5.1 with a random node (§6.10), so that no process needs another."""

    def __init__(self) -> None:
        self.reseed()

    def reseed(self) -> None:
        random = int.from_bytes(os.urandom(8), "big")
        clock = random >> 48 & 0x3FFF | 0x8000  # 14 bits and the variant
        node = random & 0xFFFFFFFFFFFF | 0x010000000000  # multicast bit: not a hardware address
        self.suffix = f"{clock:04x}{node:012x}"
        self.last = self.slow = 0
        self.rest = ""

    def turn(self, slow: int) -> None:
        """Writes down what ids have in common for seven minutes: all but the lowest 32 bits of their time."""
        self.slow = slow
        self.rest = f"{slow & 0xFFFF:04x}{(slow | _VERSION_1) >> 16:04x}{self.suffix}"


class _Count:
    """The state behind session ids: what is random in this process, and how many there were."""

    def __init__(self) -> None:
        self.reseed()

    def reseed(self) -> None:
        random = os.urandom(9).hex()
        self.prefix = f"{random[:8]}-{random[8:12]}-8{random[12:15]}-8{random[15:]}-"  # version 8, then variant 8
        self.count = 0


_sequence = _Sequence()
_sessions = _Count()
os.register_at_fork(after_in_child=_sequence.reseed)
os.register_at_fork(after_in_child=_sessions.reseed)


def new_message_id(now_ns: int) -> str:
    """A UUID version 1 as 32 hex digits: unique among all processes and machines, its time within 100 ns of `now_ns`.

    now_ns: nanoseconds since 1970. Where the clock stands still or goes back, the ids still go forward.
    """
    ticks = now_ns // 100 + _GREGORIAN
    if ticks <= _sequence.last:
        ticks = _sequence.last + 1
    _sequence.last = ticks
    slow = ticks >> 32
    if slow != _sequence.slow:
        _sequence.turn(slow)
    low = ticks & 0xFFFFFFFF
    return f"{low:08x}{_sequence.rest}"


def new_session_id() -> str:
    """A UUID version 8 for one connection (RFC 9562 §5.8): random in what a process's have in common, then a count."""
    _sessions.count += 1
    return f"{_sessions.prefix}{_sessions.count:012x}"


@cache
def node_id() -> str:
    """This machine's UUID: the same for all processes and after every restart, without a file of our own.

    It is a hash of /etc/machine-id, which must not be published itself (machine-id(5)), and of the host name, which
    tells apart containers made from one image.
    """
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            machine = file.read().strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    return str(uuid.uuid5(_NODE_NAMESPACE, f"{machine}/{socket.gethostname()}"))
