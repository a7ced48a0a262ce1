"""`kumo.cidr`: values by network; the longest prefix that covers an address counts, whatever the order of the entries.

An address may stand in brackets and have a port, as in `conn_meta:get_meta 'received_from'`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from gateway._fastpath import CidrError
from gateway.policy.kumo.values import described, string
from gateway.policy.prefixes import PrefixMap


class CidrMap:
    """Values by CIDR."""

    def __init__(self, entries: Iterable[tuple[str, Any]] = ()) -> None:
        self._values = PrefixMap()
        for cidr, value in entries:
            self[cidr] = value

    def __setitem__(self, key: str, value: Any) -> None:
        """key: a CIDR, an address, or "any". None takes an entry away. Raises ValueError."""
        address = peer_address(key)
        try:
            self._values.put(key if address is None else str(address), value)
        except CidrError as error:
            raise ValueError(str(error)) from None

    def get(self, key: str) -> Any:
        """The value of the longest prefix; None where none covers the address. Raises ValueError for no address."""
        address = peer_address(key)
        if address is None:
            raise ValueError(f"'{key}' is not an IP address")
        return self._values.find(address.packed)


def peer_address(key: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
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
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
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
