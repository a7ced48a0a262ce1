"""`kumo.cidr`: values by network; the longest prefix that covers an address counts, whatever the order of the entries.

An address may stand in brackets and have a port, as in `conn_meta:get_meta 'received_from'`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any

from pytricia import PyTricia

from gateway._fastpath import CidrError, CidrSet
from gateway.policy.kumo.values import described, string


class CidrMap:
    """Values by CIDR."""

    def __init__(self, entries: Iterable[tuple[str, Any]] = ()) -> None:
        self._by_version = {4: PyTricia(32, socket.AF_INET), 6: PyTricia(128, socket.AF_INET6)}
        for cidr, value in entries:
            self[cidr] = value

    def __len__(self) -> int:
        return sum(map(len, self._by_version.values()))

    def __setitem__(self, key: str, value: Any) -> None:
        """key: a CIDR, an address, or "any". None takes an entry away. Raises ValueError."""
        address = _address(key)
        try:
            prefixes = [str(address)] if address is not None else list(CidrSet((key,)))
        except CidrError as error:
            raise ValueError(str(error)) from None
        for prefix in prefixes:
            for one in ("0.0.0.0/0", "::/0") if prefix == "any" else (prefix,):
                tree = self._by_version[6 if ":" in one else 4]
                if value is not None:
                    tree[one] = value
                elif tree.has_key(one):
                    del tree[one]

    def get(self, key: str) -> Any:
        """The value of the longest prefix; None where none covers the address. Raises ValueError for no address."""
        address = _address(key)
        if address is None:
            raise ValueError(f"'{key}' is not an IP address")
        return self._by_version[address.version].get(str(address))


def _address(key: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in `IP`, `[IP]`, `IP:PORT` or `[IP]:PORT`; an IPv4-mapped one as the IPv4 address that it is."""
    text = key
    if text.startswith("["):
        text, _, port = text[1:].partition("]")
        text = text.removeprefix("IPv6:")
        if port and not (port.startswith(":") and port[1:].isdigit()):
            return None
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


def make_map(entries: Any = None) -> CidrMap:
    """A map with the entries of a table."""
    if entries is None or entries == []:
        return CidrMap()
    if not isinstance(entries, dict):
        raise ValueError(f"make_map: expected a table by CIDR, got {described(entries)}")
    return CidrMap((string(cidr, "make_map"), value) for cidr, value in entries.items())


FUNCTIONS: dict[str, Callable[..., Any]] = {"make_map": make_map}
INDEXED = (CidrMap,)
