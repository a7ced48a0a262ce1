"""Addresses of listeners: which of them collide, and which only this machine reaches. Nothing is opened."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.policy.problems import Problem

_EVERY = frozenset({"0.0.0.0", "::"})


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
    if one.listen == other.listen:
        return not one.listen.endswith(":0")
    host, port = _parts(one.listen)
    other_host, other_port = _parts(other.listen)
    if one.function == other.function == "start_esmtp_listener" or port != other_port or port in ("", "0"):
        return False  # of SMTP listeners, the one with the narrower address gets the connection
    same_family = (":" in host) == (":" in other_host)
    return same_family and not _EVERY.isdisjoint({host, other_host})


def _parts(listen: str) -> tuple[str, str]:
    if listen.startswith("fd:"):
        return listen, ""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), port


def is_reached_from_elsewhere(listen: str) -> bool:
    """Whether others than this machine may connect; False for a socket of systemd's, of which nobody knows."""
    host, port = _parts(listen)
    return bool(port) and not ipaddress.ip_address(host).is_loopback
