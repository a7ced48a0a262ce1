"""PrefixMap against `ipaddress`: the longest prefix wins, whatever order things were put in and taken away."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import CidrError
from gateway.policy.prefixes import PrefixMap
from tests.test_cidr import networks, packed_addresses

entries = st.lists(st.tuples(networks(32) | networks(128), st.none() | st.integers(0, 9)), max_size=40)


@given(entries, st.lists(packed_addresses, max_size=20))
def test_what_is_found_is_the_value_of_the_longest_prefix(entries, addresses):
    found, expected = PrefixMap(), {}
    for network, value in entries:
        if network.version == 6 and network.network_address.ipv4_mapped:
            continue  # which is IPv4's
        found.put(str(network), value)
        expected[network] = value
    known = [network for network, value in expected.items() if value is not None]
    for packed in [*addresses, *(network.network_address.packed for network in known)]:
        covering = [network for network in known if ip_address(packed) in network]
        longest = max(covering, key=lambda network: network.prefixlen, default=None)
        assert found.find(packed) == expected.get(longest)


def test_any_is_both_families_and_none_takes_away():
    found = PrefixMap()
    found.put("any", "all")
    found.put("192.0.2.1", "one")
    assert (found.find(bytes(16)), found.find(bytes(4)), found.find(bytes([192, 0, 2, 1]))) == ("all", "all", "one")
    found.put("any", None)
    found.put("10/8", None)
    assert (found.find(bytes(16)), found.find(bytes(4)), found.find(bytes([192, 0, 2, 1]))) == (None, None, "one")
    with pytest.raises(CidrError):
        found.put("10.0.0.0/33", 1)
