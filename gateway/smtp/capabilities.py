"""Capabilities: the extensions of SMTP that concern more than one hop, as sets of bits; who announces which, what a
fleet takes, and what EHLO offers of that. Pure.

Two kinds. Promises about the rest of the way are offered where all members of the fleet announced them when they were
last asked: what a client asks for with one is passed on, not done here. The listener's own are offered unless a member
is known to lack them: a client that was not told of them sends its message in another form. What a client asks for is
gateway/smtp/requests.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

DSN = 1 << 0  # RFC 3461
EIGHT_BIT = 1 << 1  # RFC 6152
UTF8 = 1 << 2  # RFC 6531
CHUNKS = 1 << 3  # RFC 3030
PRIORITY = 1 << 4  # RFC 6710
DELIVER_BY = 1 << 5  # RFC 2852
BINARY = 1 << 7  # RFC 3030, with CHUNKING
REQUIRE_TLS = 1 << 6  # RFC 8689: announced over TLS with a certificate that was verified
VERIFIED_TLS = 1 << 8  # what was announced, was over such
# With PRIORITY: what numbers mean, by the policies that RFC 6710 §10.2 has registered. Of others there is no bit.
_MEANINGS = {"MIXER": 1 << 9, "STANAG4406": 1 << 10, "NSEP": 1 << 11}

PROMISES = {
    "DSN": DSN,
    "MT-PRIORITY": PRIORITY,
    "DELIVERBY": DELIVER_BY,
    "REQUIRETLS": REQUIRE_TLS,
    "BINARYMIME": BINARY,
}  # as EHLO has them
OWN = {"8BITMIME": EIGHT_BIT, "SMTPUTF8": UTF8, "CHUNKING": CHUNKS}
_KEYWORDS = {**PROMISES, **OWN}
_OF_MEMBERS = EIGHT_BIT | UTF8  # of the listener's own, those that its members have to know as well
_ALL_OWN = EIGHT_BIT | UTF8 | CHUNKS
MOST = 1 << 16  # a set of them is less


class Abilities(NamedTuple):
    """What a server takes, or a fleet. size: octets of a message at most; 0 where it names no limit. least_time: the
    seconds that it has to be given for a delivery, where the message is to come back else (RFC 2852 §3).
    """

    capabilities: int
    size: int = 0
    least_time: int = 0

    def without(self, capabilities: int) -> Abilities:
        """The same without these."""
        return self._replace(capabilities=self.capabilities & ~capabilities)


UNKNOWN = Abilities(_ALL_OWN)  # of a fleet of which nobody was asked yet; and after HELO, as ever


def announced(extensions: Mapping[str, str], *, verified: bool, lmtp: bool = False) -> Abilities:
    """What an answer to EHLO names. extensions: parameters by keyword, in upper case. verified: it came by TLS from
    who has shown that it is the server. lmtp: it is spoken to in LMTP, in which there are no chunks here.
    """
    capabilities = sum([bit for keyword, bit in _KEYWORDS.items() if keyword in extensions])
    if lmtp or not capabilities & CHUNKS:
        capabilities &= ~BINARY
    capabilities = capabilities | VERIFIED_TLS if verified else capabilities & ~REQUIRE_TLS
    if capabilities & PRIORITY:
        capabilities |= _MEANINGS.get(extensions["MT-PRIORITY"].upper() or "MIXER", 0)  # §9.2: by default
    least_time = number(extensions.get("DELIVERBY", "").partition(",")[0])
    return Abilities(capabilities, number(extensions.get("SIZE", "")), least_time)


def number(parameter: str) -> int:
    """A parameter that is a number; 0 for none, or for what is none: RFC 1870 §4."""
    return int(parameter) if parameter.isascii() and parameter.isdigit() and len(parameter) <= 18 else 0


@lru_cache(maxsize=256)  # there are few different ones, and each session has one
def offered(lines: tuple[str, ...] | None) -> Abilities:
    """What EHLO offers, a line each; None: it was HELO."""
    if lines is None:
        return UNKNOWN
    extensions = {}
    for line in lines:
        keyword, _, parameters = line.partition(" ")
        extensions[keyword.upper()] = parameters.strip()
    return announced(extensions, verified=True).without(VERIFIED_TLS)  # which is about servers


def taken_by_all(members: Iterable[Abilities | None]) -> Abilities:
    """What a fleet takes. members: what each of its members has announced; None where it was not asked yet.

    Of the promises what is not known of one is not taken by all; and by nobody nothing is. A message may be as large as
    one of them takes: it goes to that one. The time for a delivery has to be enough for every one.
    """
    promised, own, size, limited, least_time = MOST - 1, _ALL_OWN, 0, True, 0
    nobody = True
    for member in members:
        nobody = False
        if member is None:
            promised, limited = 0, False
            continue
        promised &= member.capabilities
        own &= member.capabilities | ~_OF_MEMBERS
        limited = limited and member.size > 0
        size, least_time = max(size, member.size), max(least_time, member.least_time)
    return UNKNOWN if nobody else Abilities(promised & ~_ALL_OWN | own, size if limited else 0, least_time)


@lru_cache(maxsize=256)
def with_fleet(lines: tuple[str, ...], taken: Abilities, withheld: frozenset[str]) -> tuple[str, ...]:
    """What EHLO offers: of the listener's own what the fleet takes as well, and what else that promises.

    lines: the listener's. withheld: keywords that it does not want offered.
    """
    found = []
    for line in lines:
        keyword, _, parameter = line.partition(" ")
        if OWN.get(keyword, 0) & ~taken.capabilities:
            continue
        smaller = keyword == "SIZE" and 0 < taken.size < number(parameter)
        found.append(f"SIZE {taken.size}" if smaller else line)
    for keyword, bit in PROMISES.items():
        if taken.capabilities & bit:
            found += _promise(keyword, bit, taken)
    if "CHUNKING" in withheld:
        withheld |= {"BINARYMIME"}  # for which there would be no way
    return tuple([line for line in found if line.partition(" ")[0] not in withheld])


def _promise(keyword: str, bit: int, taken: Abilities) -> list[str]:
    """The line that offers what all of a fleet take, unless a priority means one thing here and another there."""
    if bit == PRIORITY:
        meanings = [name for name, each in _MEANINGS.items() if taken.capabilities & each]
        return ["MT-PRIORITY" if name == "MIXER" else f"MT-PRIORITY {name}" for name in meanings]
    return [f"{keyword} {taken.least_time}" if bit == DELIVER_BY and taken.least_time else keyword]


@lru_cache(maxsize=256)
def in_clear(lines: tuple[str, ...]) -> tuple[str, ...]:
    """What EHLO may offer of this where there is no TLS (RFC 8689 §4.1)."""
    return tuple([line for line in lines if line.partition(" ")[0].upper() != "REQUIRETLS"])
