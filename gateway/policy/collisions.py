"""Addresses of listeners: which of them collide, and which only this machine reaches. Nothing is opened."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gateway.policy.problems import Problem

_BINDV6ONLY = Path("/proc/sys/net/ipv6/bindv6only")


class Declared(NamedTuple):
    """A listener in a policy. function: of `kumo`. listen: its address."""

    function: str
    listen: str
    file: str
    line: int


def collisions(declared: Sequence[Declared]) -> Iterator[Problem]:
    """A problem for each listener that has the address of one before it: they would take each other's connections."""
    for index, one in enumerate(declared):
        first = next((other for other in declared[:index] if _collide(one, other)), None)
        if first is not None:
            message = f"kumo.{one.function}: listen: {one.listen} is taken by the listener of {first.file}:{first.line}"
            yield Problem(one.file, one.line, message)


def _collide(one: Declared, other: Declared) -> bool:
    """Whether the system gives the second no socket any more."""
    host, port = _parts(one.listen)
    other_host, other_port = _parts(other.listen)
    if port != other_port or port == "0":
        return False
    if one.function == other.function and (":" in host) != (":" in other_host):
        return False  # [::] leaves IPv4 to listeners of its own kind at its port
    return host == other_host or _covers(host, other_host) or _covers(other_host, host)


def _covers(every: str, host: str) -> bool:
    """Whether a listener on every address has this one, too: [::] also has those of IPv4, unless the system is told
    otherwise (ipv6(7), bindv6only).
    """
    if every == "0.0.0.0":
        return ":" not in host
    return every == "::" and (":" in host or _has_both())


@cache
def _has_both() -> bool:
    try:
        return _BINDV6ONLY.read_text().strip() == "0"
    except OSError:
        return True


def _parts(listen: str) -> tuple[str, str]:
    if listen.startswith("fd:"):
        return listen, ""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    mapped = ipaddress.IPv6Address(host).ipv4_mapped if ":" in host else None
    return host if mapped is None else str(mapped), port


def is_reached_from_elsewhere(listen: str) -> bool:
    """Whether others than this machine may connect; False for a socket of systemd's, of which nobody knows."""
    host, port = _parts(listen)
    return bool(port) and not ipaddress.ip_address(host).is_loopback
