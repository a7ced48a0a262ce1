"""PrefixMap: values by CIDR; what is found is that of the longest prefix, whatever order they were put in. No names."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from gateway._fastpath import CidrSet


class PrefixMap:
    """A table of values for each length of prefix that there is. A CIDR is written as in `relay_hosts`; "any" is all.

    A lookup costs as many steps as there are lengths, of which lists that people write have few.
    """

    def __init__(self) -> None:
        # By octets in an address: for each length, longest first, (bits behind the prefix, value by prefix).
        self._by_size: dict[int, list[tuple[int, dict[int, Any]]]] = {4: [], 16: []}

    def put(self, cidr: str, value: Any) -> None:
        """None takes the entry away. Raises CidrError."""
        for size, behind, prefix in self._places(cidr):
            tables = self._by_size[size]
            table = dict(tables).get(behind)
            if value is not None:
                if table is None:
                    table = {}
                    tables.append((behind, table))
                    tables.sort(key=_bits_behind)
                table[prefix] = value
            elif table is not None:
                table.pop(prefix, None)

    def find(self, packed: bytes) -> Any:
        """The value for an address, 4 or 16 octets in network order; None where no prefix covers it."""
        number = int.from_bytes(packed)
        for behind, table in self._by_size[len(packed)]:
            value = table.get(number >> behind)
            if value is not None:
                return value
        return None

    def _places(self, cidr: str) -> Iterator[tuple[int, int, int]]:
        """For each that the CIDR stands for: octets in an address, bits behind the prefix, the prefix as a number."""
        for prefix in CidrSet((cidr,)):
            for one in ("0.0.0.0/0", "::/0") if prefix == "any" else (prefix,):
                address, _, length = one.partition("/")
                packed = socket.inet_pton(socket.AF_INET6 if ":" in one else socket.AF_INET, address)
                bits = 8 * len(packed)
                behind = bits - int(length or bits)
                yield len(packed), behind, int.from_bytes(packed) >> behind


def _bits_behind(entry: tuple[int, dict[int, Any]]) -> int:
    return entry[0]
