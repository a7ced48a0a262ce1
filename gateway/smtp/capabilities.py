"""Capabilities: the extensions of SMTP that concern more than one hop, as sets of bits; who announces which, and what a
fleet takes. Pure.

A listener offers one of these only where all members of the fleet announced it when they were last asked: what a client
asks for with it is passed on, not done here. What a client asks for is gateway/smtp/requests.py's.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

DSN = 1 << 0  # RFC 3461

KEYWORDS = {"DSN": DSN}  # as EHLO has them
MOST = 1 << 16  # a set of them is less


def announced(keywords: Iterable[str]) -> int:
    """Those that an answer to EHLO names. keywords: in upper case, without their parameters."""
    return sum([bit for keyword, bit in KEYWORDS.items() if keyword in keywords])


@lru_cache(maxsize=256)  # there are few different ones, and each session has one
def offered(lines: tuple[str, ...]) -> int:
    """Those that are in what EHLO offers, a line each."""
    return announced({line.partition(" ")[0].upper() for line in lines})


def taken_by_all(members: Iterable[int | None]) -> int:
    """What a fleet takes. members: what each of its members has announced; None where it was not asked yet.

    What is not known of one is not taken by all; and by nobody nothing is.
    """
    taken = MOST - 1
    nobody = True
    for capabilities in members:
        if capabilities is None:
            return 0
        taken &= capabilities
        nobody = False
    return 0 if nobody else taken


@lru_cache(maxsize=256)
def lines(capabilities: int) -> tuple[str, ...]:
    """What EHLO offers with these."""
    return tuple(keyword for keyword, bit in KEYWORDS.items() if capabilities & bit)
