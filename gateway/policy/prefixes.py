"""PrefixMap: values by CIDR; what is found is that of the longest prefix, whatever order they were put in. No names."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from pytricia import PyTricia

from gateway._fastpath import CidrSet


class PrefixMap:
    """A tree for IPv4 and one for IPv6. A CIDR is written as in `relay_hosts`; "any" is all of both."""

    def __init__(self) -> None:
        self._by_size = {4: PyTricia(32, socket.AF_INET), 16: PyTricia(128, socket.AF_INET6)}

    def put(self, cidr: str, value: Any) -> None:
        """None takes the entry away. Raises CidrError."""
        for tree, prefix in self._places(cidr):
            if value is not None:
                tree[prefix] = value
            elif tree.has_key(prefix):
                del tree[prefix]

    def find(self, packed: bytes) -> Any:
        """The value for an address, 4 or 16 octets in network order; None where no prefix covers it."""
        return self._by_size[len(packed)].get(packed)

    def _places(self, cidr: str) -> Iterator[tuple[PyTricia, str]]:
        for prefix in CidrSet((cidr,)):
            for one in ("0.0.0.0/0", "::/0") if prefix == "any" else (prefix,):
                yield self._by_size[16 if ":" in one else 4], one
