"""CidrSet against `ipaddress`: membership, merging, syntax and error texts."""

import pickle
import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway._fastpath import CidrError, CidrSet
from tests.reference import Network, covers, merged

MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 §2.5.5.2


# --- membership and merging against the oracle ------------------------------------------------------------


def network(address: int, length: int, width: int) -> Network:
    """The prefix of that length around an address of 32 or 128 bits."""
    kind = IPv4Network if width == 32 else IPv6Network
    return kind((address >> (width - length) << (width - length), length))


def networks(width: int) -> st.SearchStrategy[Network]:
    """Prefixes of one family: some anywhere, some so crowded that they cover, touch and merge."""
    anywhere = st.builds(network, st.integers(0, 2**width - 1), st.integers(0, width), st.just(width))
    crowded = st.builds(
        lambda top, low, length: network(top << (width - 4) | low, length, width),
        st.integers(0, 1),
        st.integers(0, 40),
        st.integers(width - 6, width) | st.integers(0, 8),
    )
    return anywhere | crowded


lists_of_networks = st.lists(networks(32) | networks(128), max_size=60)
packed_addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)


def cidr_set(prefixes: list[Network]) -> CidrSet:
    return CidrSet(str(prefix) for prefix in prefixes)


def addresses_near(prefixes: list[Network]) -> list[bytes]:
    """The first and last address of each prefix and those just outside."""
    near = set()
    for prefix in prefixes:
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        for number in (first - 1, first, last, last + 1):
            if 0 <= number < 1 << prefix.max_prefixlen:
                near.add(number.to_bytes(prefix.max_prefixlen // 8, "big"))
    return sorted(near)


@given(lists_of_networks, st.lists(packed_addresses))
def test_membership_is_that_of_ipaddress(prefixes: list[Network], anywhere: list[bytes]) -> None:
    cidrs = cidr_set(prefixes)
    for packed in addresses_near(prefixes) + anywhere:
        assert (packed in cidrs) == covers(prefixes, packed), ip_address(packed)


@given(lists_of_networks)
@example([IPv4Network("0.0.0.0/0"), IPv6Network("::/0")])
@example([IPv4Network("10.0.0.0/25"), IPv4Network("10.0.0.128/25"), IPv4Network("10.0.1.0/24")])
def test_iteration_gives_the_merged_prefixes_in_address_order(prefixes: list[Network]) -> None:
    cidrs = cidr_set(prefixes)
    assert list(cidrs) == merged(prefixes)
    assert len(cidrs) == len(merged(prefixes))
    assert bool(cidrs) == bool(prefixes)


@given(lists_of_networks, st.randoms())
def test_sets_that_cover_the_same_addresses_are_equal(prefixes: list[Network], rng: random.Random) -> None:
    rewritten = [*prefixes, *(half for prefix in prefixes if prefix.prefixlen < 32 for half in prefix.subnets())]
    rng.shuffle(rewritten)
    cidrs = cidr_set(prefixes)
    for other in (cidr_set(rewritten), CidrSet(cidrs), pickle.loads(pickle.dumps(cidrs))):
        assert other == cidrs
        assert hash(other) == hash(cidrs)


def allocations(count: int) -> list[Network]:
    """Random blocks with customers inside them, as routing tables and block lists have."""
    rng = random.Random(count)
    found: list[Network] = []
    while len(found) < count:
        block = rng.getrandbits(12) << 20
        site = 0x2001 << 112 | rng.getrandbits(rng.choice((4, 32))) << 80
        for _ in range(rng.choice((1, 3, 40))):
            found.append(network(block | rng.getrandbits(20), rng.choice((12, 24, 24, 30, 32)), 32))
            found.append(network(site | rng.getrandbits(rng.choice((6, 80))), rng.choice((32, 48, 64, 65, 128)), 128))
    return found


@pytest.mark.parametrize("count", [9, 100, 1_000, 20_000])
def test_a_large_set_agrees_with_ipaddress(count: int) -> None:
    prefixes = allocations(count)
    cidrs = cidr_set(prefixes)
    assert list(cidrs) == merged(prefixes)
    for packed in random.Random(count).choices(addresses_near(prefixes), k=20 + 20_000 // count):
        assert (packed in cidrs) == covers(prefixes, packed), ip_address(packed)


@pytest.mark.parametrize("width", [32, 128])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_set_built_to_make_the_deepest_tree_stays_small_and_right(width: int, step: int) -> None:
    staircase = [network(1 << (width - length), length, width) for length in range(1, width + 1, step)]
    hosts = [network((5 << bit) % 2**width, width, width) for bit in range(0, width, step)]
    for prefixes in (staircase, hosts, staircase + hosts):
        cidrs = cidr_set(prefixes)
        assert list(cidrs) == merged(prefixes)
        assert all((packed in cidrs) == covers(prefixes, packed) for packed in addresses_near(prefixes))
        assert cidrs.memory_bytes < 49 * len(prefixes) + 64


def test_memory_is_a_few_octets_per_prefix() -> None:
    assert CidrSet(["127.0.0.1", "::1", "10.0.0.0/8"]).memory_bytes < 100
    cidrs = cidr_set(allocations(20_000))
    assert cidrs.memory_bytes < 32 * len(cidrs)


# --- the edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "inside", "outside"),
    [
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], ["::", "::1", "2001:db8::1"]),
        ("::/0", ["::", "::1", "ffff::"], ["0.0.0.0", "1.2.3.4", "::ffff:1.2.3.4"]),
        ("any", ["0.0.0.0", "255.255.255.255", "::", "ffff::", "::ffff:1.2.3.4"], []),
        ("192.0.2.1", ["192.0.2.1", "::ffff:192.0.2.1"], ["192.0.2.0", "192.0.2.2", "::192.0.2.1"]),
        ("128.0.0.0/1", ["128.0.0.0", "255.255.255.255"], ["127.255.255.255", "::ffff:127.0.0.1"]),
        ("2001:db8::1/128", ["2001:db8::1"], ["2001:db8::", "2001:db8::2"]),
        ("2001:db8::/63", ["2001:db8::", "2001:db8:0:1::1"], ["2001:db8:0:2::"]),
        ("2001:db8::/64", ["2001:db8::ffff:0:0:1"], ["2001:db8:0:1::"]),
        ("2001:db8::/65", ["2001:db8::7fff:0:0:1"], ["2001:db8::8000:0:0:0"]),
        ("::ffff:10.0.0.0/104", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.0", "::10.1.2.3"]),
    ],
)
def test_a_prefix_covers_its_addresses_and_no_others(prefix: str, inside: list[str], outside: list[str]) -> None:
    cidrs = CidrSet([prefix])
    for address in inside:
        assert ip_address(address).packed in cidrs, address
        assert cidrs.contains_text(address)
    for address in outside:
        assert ip_address(address).packed not in cidrs, address
        assert not cidrs.contains_text(address)


@given(networks(32))
def test_ipv4_mapped_addresses_and_prefixes_count_as_ipv4(prefix: IPv4Network) -> None:
    cidrs = CidrSet([str(prefix)])
    assert CidrSet([f"::ffff:{prefix.network_address}/{96 + prefix.prefixlen}"]) == cidrs
    for packed in addresses_near([prefix]):
        assert (MAPPED + packed in cidrs) == (packed in cidrs)


def test_the_empty_set_contains_nothing() -> None:
    empty = CidrSet()
    assert not empty
    assert len(empty) == 0
    assert list(empty) == []
    assert empty == CidrSet([])
    assert bytes(4) not in empty
    assert bytes(16) not in empty


@pytest.mark.parametrize("length", [0, 1, 3, 5, 8, 15, 17, 32])
def test_bytes_of_any_other_length_are_in_no_set(length: int) -> None:
    assert bytes(length) not in CidrSet(["any"])


@pytest.mark.parametrize("address", ["10.0.0.1", None, IPv4Address("10.0.0.1"), bytearray(4), 4])
def test_only_bytes_can_be_looked_up(address: object) -> None:
    cidrs = CidrSet(["any"])
    with pytest.raises(TypeError):
        _ = address in cidrs  # type: ignore[operator]


@pytest.mark.parametrize("address", ["", "10", "10.0.0.0/8", "localhost", "[::1]"])
def test_contains_text_refuses_what_is_no_address(address: str) -> None:
    cidrs = CidrSet(["any"])
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        cidrs.contains_text(address)


def test_sets_of_different_addresses_are_unequal() -> None:
    assert CidrSet(["10.0.0.0/8"]) != CidrSet(["10.0.0.0/9"])
    assert CidrSet(["0.0.0.0/0"]) != CidrSet(["::/0"])
    assert CidrSet(["10.0.0.0/8"]) != ["10.0.0.0/8"]


def test_repr_shows_the_prefixes() -> None:
    assert repr(CidrSet(["::1", "10/8"])) == "CidrSet(['10.0.0.0/8', '::1'])"


# --- syntax -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("10", "10.0.0.0"),
        ("10.1", "10.1.0.0"),
        ("10/8", "10.0.0.0/8"),
        ("10.0/8", "10.0.0.0/8"),
        ("192.168/16", "192.168.0.0/16"),
        ("192.0.2/24", "192.0.2.0/24"),
        ("0/0", "0.0.0.0/0"),
        ("10.0.0.0/08", "10.0.0.0/8"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("::0001/128", "::1"),
        ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("any", "any"),
    ],
)
def test_a_prefix_is_normalised(written: str, normalised: str) -> None:
    assert list(CidrSet([written])) == [normalised]


ADDRESS = "couldn't parse address in network: invalid IP address syntax"
DIGIT = "couldn't parse length in network: invalid digit found in string"
HOST_NAME = ". Host names are not looked up: list the addresses"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("10.0.0.1/24", "host part of address was not zero. Did you mean 10.0.0.0/24?"),
        ("10.1/8", "host part of address was not zero. Did you mean 10.0.0.0/8?"),
        ("10.0.0.1/0", "host part of address was not zero. Did you mean 0.0.0.0/0?"),
        ("2001:db8::1/32", "host part of address was not zero. Did you mean 2001:db8::/32?"),
        ("2001:db8::1/64", "host part of address was not zero. Did you mean 2001:db8::/64?"),
        ("10.0.0.0/33", "invalid length for network: Network length 33 is too long for Ipv4 (maximum: 32)"),
        ("::/129", "invalid length for network: Network length 129 is too long for Ipv6 (maximum: 128)"),
        ("10.0.0.0/256", "couldn't parse length in network: number too large to fit in target type"),
        ("::/99999999999999999999", "couldn't parse length in network: number too large to fit in target type"),
        ("10.0.0.0/", "couldn't parse length in network: cannot parse integer from empty string"),
        ("10.0.0.0/-1", DIGIT),
        ("10.0.0.0/8 ", f"{DIGIT}. Did you mean 10.0.0.0/8?"),
        ("10.0.0.0/255.255.0.0", f"{DIGIT}. Did you mean 10.0.0.0/16?"),
        ("10.0.0.0/8/8", ADDRESS),
        ("", f"{ADDRESS}. The entry is empty"),
        (" \t", f"{ADDRESS}. The entry is empty"),
        (" 10.0.0.1", f"{ADDRESS}. Did you mean 10.0.0.1?"),
        ("10.0.0.0 / 8", f"{ADDRESS}. Did you mean 10.0.0.0/8?"),
        ("10.0.0.1:25", f"{ADDRESS}. Did you mean 10.0.0.1?"),
        ("[10.0.0.1]", f"{ADDRESS}. Did you mean 10.0.0.1?"),
        ("[::1]", f"{ADDRESS}. Did you mean ::1?"),
        ("[2001:db8::]:25", f"{ADDRESS}. Did you mean 2001:db8::?"),
        ("[2001:db8::]/32", f"{ADDRESS}. Did you mean 2001:db8::/32?"),
        ("fe80::1%eth0", f"{ADDRESS}. Did you mean fe80::1?"),
        ("fe80::%eth0/64", f"{ADDRESS}. Did you mean fe80::/64?"),
        ("ANY", f"{ADDRESS}. Did you mean any?"),
        ("*", f"{ADDRESS}. Did you mean any?"),
        ("localhost", ADDRESS + HOST_NAME),
        ("mx.example.com", ADDRESS + HOST_NAME),
        ("mx.example.com:25", ADDRESS + HOST_NAME),
        ("bücher.example", ADDRESS + HOST_NAME),
        ("010.0.0.1", ADDRESS),
        ("256/8", ADDRESS),
        ("10./8", ADDRESS),
        ("10..1", ADDRESS),
        (".", ADDRESS),
        ("/8", ADDRESS),
        ("1.2.3.4.5", ADDRESS),
        ("10.0.0.0-10.0.0.255", ADDRESS),
        ("10.0.0.1,10.0.0.2", ADDRESS),
        ("1::2::3", ADDRESS),
        ("12345::", ADDRESS),
        ("::1\0", ADDRESS),
        ("10.0.0.1\0", ADDRESS),
        ("٣/8", ADDRESS),
        ("\udcff", ADDRESS),
        (":" * 500, ADDRESS),
        ("1" * 500, ADDRESS),
    ],
)
def test_a_bad_entry_is_explained(entry: str, problem: str) -> None:
    with pytest.raises(CidrError) as caught:
        CidrSet([entry])
    assert caught.value.problems == [f"{entry}: {entry} is not a valid CIDR: {problem}"]


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(CidrError) as caught:
        CidrSet(["10.0.0.1/24", "10.0.0.0/8", "/8"])
    assert str(caught.value) == (
        "10.0.0.1/24: 10.0.0.1/24 is not a valid CIDR: host part of address was not zero. "
        f"Did you mean 10.0.0.0/24?, /8: /8 is not a valid CIDR: {ADDRESS}"
    )
    assert len(caught.value.problems) == 2
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("prefixes", ["10.0.0.0/8", b"10.0.0.0/8", [10], [None], [b"10.0.0.0/8"], 8])
def test_entries_that_are_no_strings_are_a_type_error(prefixes: object) -> None:
    with pytest.raises(TypeError):
        CidrSet(prefixes)  # type: ignore[arg-type]


def is_prefix(text: str) -> bool:
    """The syntax once more, by way of `ipaddress`, which knows neither short forms nor `any`."""
    address, slash, length = text.rpartition("/") if "/" in text else (text, "", "")
    if text == "any":
        return True
    if "%" in address or (slash and not (length.isascii() and length.isdigit())):
        return False
    if ":" not in address:
        address += ".0" * (3 - address.count("."))
    try:
        number = int(ip_address(address))
    except ValueError:
        return False
    width = 128 if isinstance(ip_address(address), IPv6Address) else 32
    return not slash or (int(length) <= width and number % (1 << (width - int(length))) == 0)


@given(st.text(st.sampled_from("0123456789abf.:/%[]- any"), max_size=20) | st.from_regex(r"[0-9.:/]{1,12}"))
@example("0:0:0:0:0:0:0:0/0")
@example("0.0.0.0/000")
def test_exactly_the_documented_syntax_is_accepted(text: str) -> None:
    try:
        CidrSet([text])
    except CidrError:
        assert not is_prefix(text)
    else:
        assert is_prefix(text)
