"""Which parameters apply to a connection: `peer` and `via` blocks against a slow oracle."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Listener
from gateway.net.endpoints import Endpoints
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.listener import TermsTable
from gateway.smtp.terms import Terms
from tests.policy_tools import load

V4 = st.builds(lambda n: f"10.{n >> 2 & 3}.{n & 3}.{n >> 4 & 3}", st.integers(0, 63))
V6 = st.builds(lambda n: f"2001:db8:{n & 3}::{n >> 2 & 3}", st.integers(0, 15))
ADDRESS = V4 | V6 | V4.map(lambda address: f"::ffff:{address}")
PREFIX = st.one_of(
    st.builds(
        lambda a, n: str(ipaddress.ip_network(f"{a}/{n}", strict=False)), V4, st.sampled_from([0, 8, 14, 16, 24, 32])
    ),
    st.builds(
        lambda a, n: str(ipaddress.ip_network(f"{a}/{n}", strict=False)), V6, st.sampled_from([0, 32, 48, 126, 128])
    ),
    st.just("any"),
)
NAMES = st.sampled_from(["banner", "max_message_size", "client_timeout"])
PLAIN = st.dictionaries(NAMES, st.integers(1, 1000)) | st.builds(
    lambda plain, meta: {**plain, "meta": meta},
    st.dictionaries(NAMES, st.integers(1, 1000)),
    st.dictionaries(st.sampled_from(["x_a", "x_b"]), st.integers(0, 9)),
)
BLOCKS = st.recursive(
    PLAIN,
    lambda inner: st.builds(
        lambda plain, peer, via: {**plain, "peer": peer, "via": via},
        PLAIN,
        st.dictionaries(PREFIX, inner, max_size=4),
        st.dictionaries(PREFIX, inner, max_size=3),
    ),
    max_leaves=8,
)


def find(blocks: dict[str, Any], address: str) -> dict[str, Any] | None:
    """The block of the longest prefix that covers an address."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6 and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    best: tuple[int, dict[str, Any]] | None = None
    for prefix, block in blocks.items():
        for text in ("0.0.0.0/0", "::/0") if prefix == "any" else (prefix,):
            network = ipaddress.ip_network(text)
            if ip in network and (best is None or network.prefixlen >= best[0]):
                best = network.prefixlen, block
    return None if best is None else best[1]


def merged(block: dict[str, Any], peer: str, local: str, into: dict[str, Any]) -> dict[str, Any]:
    """The parameters after a block and the ones inside it, one after the other."""
    into["meta"] = {**into.get("meta", {}), **block.get("meta", {})}
    into.update({name: value for name, value in block.items() if name not in ("meta", "peer", "via")})
    for kind, address in (("peer", peer), ("via", local)):
        inner = find(block.get(kind, {}), address)
        if inner is not None:
            merged(inner, peer, local, into)
    return into


def unambiguous(block: dict[str, Any]) -> bool:
    """No two keys of a table mean the same prefix, such as `any` and `::/0`."""
    tables = [block.get(kind, {}) for kind in ("peer", "via")]
    return all(
        not ("any" in table and {"0.0.0.0/0", "::/0"} & set(table)) and all(map(unambiguous, table.values()))
        for table in tables
    )


@given(BLOCKS.filter(unambiguous), st.lists(st.tuples(ADDRESS, ADDRESS), min_size=1, max_size=10))
def test_blocks_apply_as_in_the_oracle(block: dict[str, Any], connections: list[tuple[str, str]]) -> None:
    plain = {name: value for name, value in block.items() if name not in ("peer", "via")}
    table = TermsTable(
        Listener(listen="127.0.0.1:25", overrides=plain, peer=block.get("peer", {}), via=block.get("via", {})),
        offer_auth=False,
    )
    for peer, local in connections:
        params = table.terms_for(peer, local).params
        expected = merged(block, peer, local, {})
        assert params.meta == expected.pop("meta")
        for name, value in expected.items():
            assert getattr(params, name) == value


def table_of(text: str) -> TermsTable:
    [listener] = load(f"kumo.start_esmtp_listener {text}").config.listeners
    return TermsTable(listener, offer_auth=False)


def test_the_longest_prefix_wins_whatever_the_order() -> None:
    table = table_of("{ peer = { ['10/8'] = { banner = 'wide' }, ['10.1/16'] = { banner = 'narrow' } } }")
    assert table.terms_for("10.1.2.3", "127.0.0.1").params.banner == "narrow"
    assert table.terms_for("10.2.2.3", "127.0.0.1").params.banner == "wide"
    assert table.terms_for("192.0.2.1", "127.0.0.1").params.banner == "relay-gateway"


def test_via_overrides_peer_and_meta_is_merged() -> None:
    table = table_of("""{
        meta = { x_a = 1, x_b = 1 },
        peer = { any = { banner = 'peer', meta = { x_b = 2, x_c = 2 } } },
        via = { ['127.0.0.2'] = { banner = 'via', meta = { x_c = 3 } } },
    }""")
    params = table.terms_for("192.0.2.1", "127.0.0.2").params
    assert params.banner == "via"
    assert params.meta == {"x_a": 1, "x_b": 2, "x_c": 3}


def test_mapped_peers_count_as_ipv4() -> None:
    table = table_of("{ peer = { ['192.0.2.1'] = { banner = 'four' }, ['::/0'] = { banner = 'six' } } }")
    assert table.terms_for("::ffff:192.0.2.1", "::1").params.banner == "four"
    assert table.terms_for("fe80::1%eth0", "::1").params.banner == "six"


def test_connections_with_the_same_blocks_share_their_parameters() -> None:
    table = table_of("{ peer = { ['10/8'] = { banner = 'ten' } } }")
    assert table.terms_for("10.0.0.1", "127.0.0.1") is table.terms_for("10.9.9.9", "127.0.0.1")


@pytest.mark.parametrize(
    ("listen", "bound"),
    [("0:25", "0.0.0.0:25"), ("0.0.0.0:25", "0.0.0.0:25"), ("[::]:25", "[::]:25"), ("[0:0::1]:0", "[::1]:0")],
)
def test_listen_is_normalised(listen: str, bound: str) -> None:
    assert load(f"kumo.start_esmtp_listener {{ listen = '{listen}' }}").config.listeners[0].listen == bound


def test_equal_parameters_of_a_handler_are_worked_out_once() -> None:
    policy = load(
        "kumo.start_esmtp_listener {}\n"
        "kumo.on('smtp_server_get_dynamic_parameters', function(_, conn_meta)\n"
        "return { banner = conn_meta:get_meta 'x', via = { ['127.0.0.1'] = { meta = { y = 1 } } } } end)"
    )
    table = TermsTable(policy.config.listeners[0], offer_auth=False)
    endpoints = Endpoints(("192.0.2.1", 40_000), ("127.0.0.1", 25))

    def terms(banner: str) -> Terms:
        block = policy.dynamic_parameters("127.0.0.1:25", ConnMeta({"x": banner})).result()
        return table.terms_with(endpoints, block)

    assert terms("a") is terms("a")
    assert terms("b").params.banner == "b" and terms("a").params.meta == {"y": 1}
