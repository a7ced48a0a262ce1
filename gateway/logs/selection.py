"""Which records somebody wants to see. Pure: the time comes as an argument."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from gateway.logs.merging import LogEntry

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|hours?|d|days?|w|weeks?)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

Record = dict[str, Any]


class Selected(NamedTuple):
    """What is asked for; what is None or empty asks for nothing. Times are seconds since 1970."""

    since: float | None = None
    until: float | None = None
    types: Collection[str] = ()
    domains: Collection[str] = ()
    peers: Sequence[str] = ()
    reasons: Collection[str] = ()
    sessions: Collection[str] = ()
    messages: Collection[str] = ()

    def test(self) -> Callable[[LogEntry], bool]:
        """Whether an entry is wanted. Raises ValueError for a peer that is neither an address, a network nor a name."""
        since = self.since if self.since is not None else float("-inf")
        until = self.until if self.until is not None else float("inf")
        tests = [
            test
            for test in (
                _one_of("type", self.types),
                _one_of("reason", self.reasons),
                _one_of("session_id", self.sessions),
                _one_of("id", self.messages),
                _domain_in({domain.lower() for domain in self.domains}) if self.domains else None,
                _peer_in(self.peers) if self.peers else None,
            )
            if test is not None
        ]
        return lambda entry: since <= entry.when < until and all(test(entry.record) for test in tests)


def _one_of(key: str, values: Collection[str]) -> Callable[[Record], bool] | None:
    return (lambda record: record.get(key) in values) if values else None


def _domain_in(domains: Collection[str]) -> Callable[[Record], bool]:
    return lambda record: any(domain_of(address) in domains for address in addresses_of(record))


def _peer_in(peers: Sequence[str]) -> Callable[[Record], bool]:
    networks = [ip_network(peer, strict=False) for peer in peers if _is_network(peer)]
    names = {peer.lower() for peer in peers if not _is_network(peer)}

    def test(record: Record) -> bool:
        peer = record.get("peer_address") or {}
        if str(peer.get("name")).lower() in names:
            return True
        try:
            address = ip_address(str(peer.get("addr")).partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in networks)

    return test


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def addresses_of(record: Record) -> Iterator[str]:
    """The sender and the recipients, those that are empty left out."""
    for address in (record.get("sender"), *recipients_of(record)):
        if isinstance(address, str) and address:
            yield address


def recipients_of(record: Record) -> list[str]:
    """None, one or several."""
    found = record.get("recipient")
    return [found] if isinstance(found, str) and found else found if isinstance(found, list) else []


def domain_of(address: str) -> str:
    """In small letters."""
    return address.rpartition("@")[2].lower()


def moment(text: str, now: float) -> float:
    """A time as people put it: RFC 3339, a date or a time without a zone, in UTC as in records; or how long ago: 90s,
    15m, 2h, 3d, 1w. Raises ValueError.
    """
    if found := _AGO.fullmatch(text.strip()):
        return now - float(found[1]) * _SECONDS[found[2][0]]
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text}: neither a time such as 2026-08-04T12:30 nor an age such as 15m") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
