"""The two ends of a client connection: addresses as lookups, records and policies want them. No sockets.

An IPv4-mapped IPv6 address counts as the IPv4 address it stands for, so that a listener on [::] and one on 0.0.0.0
decide alike.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

NOTHING_TOLD: dict[str, Any] = {}  # by nobody; never changed


class Endpoints:
    """Who is connected to where.

    peer: packed address of the client, 4 or 16 octets; b"", which is in no list, where nobody knows it. peer_address,
    local_address: as text. received_from, received_via: with port, "192.0.2.1:25" or "[2001:db8::1]:25". told: what a
    proxy said besides, by the name of its metadata.
    """

    def __init__(self, peer: tuple[Any, ...], local: tuple[Any, ...]) -> None:
        """peer, local: socket addresses, (host, port, …)."""
        self.peer, self.peer_address = _canonical(peer[0])
        self.received_from = _with_port(self.peer_address, peer[1])
        self.local_address, self.received_via = _named(local)
        self.told: dict[str, Any] = NOTHING_TOLD

    def behind(
        self,
        peer: tuple[Any, ...] | None,
        local: tuple[Any, ...] | None,
        told: dict[str, Any],
        *,
        known: bool = True,
    ) -> Endpoints:
        """The ends as a proxy told them, which is the peer here. peer, local: None for what it did not say. known:
        whether it named the client; a client that it did not name has the proxy's address, and none of its rights.
        """
        found = Endpoints(peer or _parted(self.received_from), local or _parted(self.received_via))
        if not known:
            found.peer = b""
        first_from = self.told.get("orig_received_from", self.received_from)
        first_via = self.told.get("orig_received_via", self.received_via)
        found.told = {**told}
        if found.received_from != first_from:
            found.told["orig_received_from"] = first_from
        if found.received_via != first_via:
            found.told["orig_received_via"] = first_via
        return found


def _parted(with_port: str) -> tuple[str, int]:
    host, _, port = with_port.rpartition(":")
    return host.strip("[]"), int(port)


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@lru_cache(maxsize=256)  # of our own ends there are few
def _named(local: tuple[Any, ...]) -> tuple[str, str]:
    _, address = _canonical(local[0])
    return address, _with_port(address, local[1])


@lru_cache(maxsize=4096)
def _canonical(host: str) -> tuple[bytes, str]:
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.packed, str(ip)
