"""The two ends of a client connection: addresses as lookups, records and policies want them. No sockets.

An IPv4-mapped IPv6 address counts as the IPv4 address it stands for, so that a listener on [::] and one on 0.0.0.0
decide alike.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any


class Endpoints:
    """Who is connected to where.

    peer: packed address of the client, 4 or 16 octets. peer_address, local_address: as text. received_from,
    received_via: with port, "192.0.2.1:25" or "[2001:db8::1]:25".
    """

    __slots__ = ("local_address", "peer", "peer_address", "received_from", "received_via")

    def __init__(self, peer: tuple[Any, ...], local: tuple[Any, ...]) -> None:
        """peer, local: socket addresses, (host, port, …)."""
        self.peer, self.peer_address, self.received_from = _read(peer)
        _, self.local_address, self.received_via = _read(local)


def _read(address: tuple[Any, ...]) -> tuple[bytes, str, str]:
    packed, text = _canonical(address[0])
    return packed, text, f"{text}:{address[1]}" if len(packed) == 4 else f"[{text}]:{address[1]}"


@lru_cache(maxsize=4096)
def _canonical(host: str) -> tuple[bytes, str]:
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.packed, str(ip)
