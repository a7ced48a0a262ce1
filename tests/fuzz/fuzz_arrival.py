"""What a client says before it is known: no octets make its readers fail otherwise than they say, and how the octets
are cut into portions makes no difference.

A target of `make fuzz`; the tests run it on a few inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from gateway.net.proxy_protocol import SIGNATURE, HeaderReader, NoHeader


def portions(octets: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The octets, cut at these places."""
    places = [0, *sorted(cuts), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(places) if start < end]


def outcome_of_proxy(octets: bytes, cuts: Iterable[int]) -> object:
    """What a reader of PROXY headers makes of it: the ends and what else was told, the rest; or what is wrong."""
    reader = HeaderReader()
    parts = portions(octets, cuts)
    for number, part in enumerate(parts, 1):
        try:
            header = reader.feed(part)
        except NoHeader as error:
            return error.fault
        if header is not None:
            return header._replace(rest=header.rest + b"".join(parts[number:]))
    return "incomplete"


def header_in(octets: bytes) -> bytes:
    """A header of version 2 that is well-formed as far as its length goes."""
    return SIGNATURE + b"\x21\x11" + len(octets).to_bytes(2, "big") + octets


def check_proxy(octets: bytes, cuts: list[int]) -> None:
    for each in (octets, b"PROXY " + octets, header_in(octets)):
        assert outcome_of_proxy(each, cuts) == outcome_of_proxy(each, range(len(each)))


CHECKS = (check_proxy,)


def one_input(data: memoryview) -> None:
    """The first octet chooses what is checked, the next two where the rest is cut."""
    octets = bytes(data)
    if len(octets) > 3:
        rest = octets[3:]
        CHECKS[octets[0] % len(CHECKS)](rest, [octets[1] % len(rest), octets[2] % len(rest)])
