"""Which terms a connection gets: a listener's own, then its `peer` and `via` blocks, the longest prefix first.

KumoMTA's order: plain parameters, `meta` key by key, then the matching peer block in the same way, then the matching
via block, then likewise what smtp_server_get_dynamic_parameters returned; what comes later wins. Results are kept per
combination of blocks, of which a listener has few.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from gateway.config import BatchHandling, Listener, ListenerParams, PolicyConfig
from gateway.net.endpoints import Endpoints
from gateway.policy.decision_cache import MISSING, RecentlyUsed
from gateway.policy.prefixes import PrefixMap
from gateway.smtp.terms import MessageCount, Terms

_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 §2.5.5.2: ::ffff:0:0/96
_PARAMETERS = frozenset(field.name for field in fields(ListenerParams))


MOST_COMPUTED = 1024  # different terms of parameters that a handler returned which are kept


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A table of parameters with the blocks inside it. Each is a key of its own."""

    plain: Mapping[str, Any]
    meta: Mapping[str, Any]
    peer: PrefixMap | None
    via: PrefixMap | None


def block_of(parameters: Mapping[str, Any]) -> Block:
    """The block of a checked table of parameters."""
    return Block(
        plain={name: value for name, value in parameters.items() if name in _PARAMETERS and name != "meta"},
        meta=parameters.get("meta", {}),
        peer=_blocks(parameters.get("peer")),
        via=_blocks(parameters.get("via")),
    )


def _blocks(by_cidr: Mapping[str, Mapping[str, Any]] | None) -> PrefixMap | None:
    if not by_cidr:
        return None
    blocks = PrefixMap()
    for cidr, parameters in by_cidr.items():
        blocks.put(cidr, block_of(parameters))
    return blocks


@lru_cache(maxsize=4096)
def _packed(address: str) -> bytes:
    """An address in network order; one that is IPv4-mapped as the IPv4 address that it is."""
    if ":" not in address:
        return socket.inet_pton(socket.AF_INET, address)
    packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])  # RFC 4007 §11: a zone id may follow
    return packed[12:] if packed.startswith(_MAPPED) else packed


def one_by_one(config: PolicyConfig) -> PolicyConfig:
    """With a copy of a message for each recipient, as KumoMTA has it, where a listener does not say otherwise: for a
    policy that calls `msg:recipient()`, which is one address only there.
    """
    default = {"batch_handling": BatchHandling.BIFURCATE}
    listeners = (replace(one, overrides=default | dict(one.overrides)) for one in config.listeners)
    return replace(config, listeners=tuple(listeners))


class TermsTable:
    """The terms of one listener's connections, and how many messages came by them. offer_auth: see Terms.

    same_for_all: of all connections; None where they depend on the peer or the local address.
    """

    def __init__(self, listener: Listener, offer_auth: bool) -> None:
        self.count = MessageCount()  # kept by whoever receives messages
        self._offer_auth, self._scope = offer_auth, listener.listen
        self._root = block_of({**listener.overrides, "peer": listener.peer, "via": listener.via})
        self._known: dict[tuple[int, ...], Terms] = {}
        self._computed = RecentlyUsed(MOST_COMPUTED)
        has_blocks = self._root.peer is not None or self._root.via is not None
        self.same_for_all = None if has_blocks else self._merged([self._root])

    def terms_for(self, peer: str, local: str) -> Terms:
        """peer, local: the connection's addresses as text, without ports."""
        if self.same_for_all is not None:
            return self.same_for_all
        chain = _matching(self._root, _packed(peer), _packed(local))
        key = tuple(map(id, chain))
        terms = self._known.get(key)
        if terms is None:
            terms = self._known[key] = self._merged(chain)
        return terms

    def terms_with(self, endpoints: Endpoints, computed: Block) -> Terms:
        """Likewise, with parameters over all of the listener's that a handler returned for this connection."""
        peer, local = _packed(endpoints.peer_address), _packed(endpoints.local_address)
        chain = (*_matching(self._root, peer, local), *_matching(computed, peer, local))
        terms = self._computed.get(chain)
        if terms is MISSING:
            terms = self._merged(list(chain))
            self._computed.put(chain, terms)
        return terms  # type: ignore[no-any-return]

    def _merged(self, chain: list[Block]) -> Terms:
        parameters: dict[str, Any] = {"hostname": os.uname().nodename or "localhost"}
        meta: dict[str, Any] = {}
        for block in chain:
            parameters.update(block.plain)
            meta.update(block.meta)
        return Terms(ListenerParams(**parameters, meta=meta), offer_auth=self._offer_auth, scope=self._scope)


def _matching(block: Block, peer: bytes, local: bytes) -> list[Block]:
    """The blocks that apply, in the order in which they are merged."""
    chain = [block]
    for blocks, address in ((block.peer, peer), (block.via, local)):
        inner = None if blocks is None else blocks.find(address)
        if inner is not None:
            chain += _matching(inner, peer, local)
    return chain
