"""What somebody who looks on wants to see: which peers, which recipients' domains, refusals only, in a word or whole.

Values, and how they travel as the query of a URL and as a line of JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway._fastpath import CidrError, CidrSet
from gateway.smtp.address import AddressError, normalise_domain

FLAGS = ("refused", "terse")
KEYS = ("peer", "to", *FLAGS)
MOST_NAMED = 64  # peers, and again domains


class BadWish(ValueError):
    """Nothing can be wanted like this; the text says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """peers: None for all. domains: of recipients, normalised; none for all. refused: only transactions that are
    refused something. terse: one event for a transaction.
    """

    peers: CidrSet | None = None
    domains: frozenset[str] = field(default_factory=frozenset)
    refused: bool = False
    terse: bool = False

    @classmethod
    def read(cls, wishes: Iterable[tuple[str, str]]) -> Wanted:
        """From the pairs of a query: `peer=CIDR` and `to=DOMAIN` any number of times, `refused=1`, `terse=1`.

        Raises BadWish.
        """
        peers, domains, flags = [], [], set()
        for key, value in wishes:
            if key == "peer":
                peers.append(value)
            elif key == "to":
                domains.append(_domain(value))
            elif key in FLAGS:
                if value not in ("", "0", "1"):
                    raise BadWish(f"{key}={value}: expected 1 or 0")
                if value != "0":
                    flags.add(key)
            else:
                raise BadWish(f"{key}: expected one of {', '.join(KEYS)}")
        if max(len(peers), len(domains)) > MOST_NAMED:
            raise BadWish(f"at most {MOST_NAMED} peers and {MOST_NAMED} domains")
        try:
            networks = CidrSet(peers) if peers else None
        except CidrError as error:
            raise BadWish(f"peer: {error}") from None
        return cls(networks, frozenset(domains), "refused" in flags, "terse" in flags)

    def pairs(self) -> list[tuple[str, str]]:
        """What `read` reads."""
        peers = [("peer", network) for network in self.peers or ()]
        domains = [("to", domain) for domain in sorted(self.domains)]
        return [*peers, *domains, *((flag, "1") for flag in FLAGS if getattr(self, flag))]

    def has_peer(self, peer: bytes) -> bool:
        """Whether sessions of a peer are wanted. peer: its packed address."""
        return self.peers is None or peer in self.peers

    def has_refusal(self, event: Mapping[str, Any]) -> bool:
        """Whether a `refused` event is wanted."""
        if self.peers is not None and not self.peers.contains_text(event["peer_address"]):
            return False
        if not self.domains:
            return True
        return any(domain_of(recipient) in self.domains for recipient in event.get("recipients", ()))


def domain_of(address: str) -> str:
    """What stands behind the last @ of an address that was normalised before."""
    return address.rpartition("@")[2]


def _domain(text: str) -> str:
    try:
        return normalise_domain(domain_of(text.strip("<>")))
    except AddressError as error:
        raise BadWish(f"to={text}: {error}") from None
