"""What asking a CIDR set costs: `python -m pytest bench/test_cidr.py`, next to pytricia, py-radix and ipaddress.

Every round looks up the same ROUND packed addresses, half of them inside a prefix of the set, half anywhere;
ns_per_lookup includes the loop around it. From 200,000 prefixes on, the bar is a tenth of what pytricia takes, the
aim a fifteenth.
"""

from __future__ import annotations

import random
from functools import cache
from ipaddress import ip_address, ip_network

import pytest
import pytricia

from gateway._fastpath import CidrSet

ROUND = 100_000

# Lengths as routing tables and block lists have them: (prefix length, weight)
IPV4_LENGTHS = [(8, 0.02), (12, 0.1), (16, 4), (20, 6), (21, 6), (22, 12), (23, 12), (24, 40), (28, 5), (32, 15)]
IPV6_LENGTHS = [(32, 15), (36, 5), (40, 8), (44, 6), (48, 40), (56, 6), (64, 12), (128, 8)]


def random_address(rng: random.Random) -> bytes:
    """IPv4 anywhere, IPv6 in 2000::/3, half and half."""
    if rng.random() < 0.5:
        return rng.randbytes(4)
    return (1 << 125 | rng.getrandbits(125)).to_bytes(16, "big")


@cache
def prefixes(count: int) -> list[str]:
    rng = random.Random(count)
    found = []
    for _ in range(count):
        packed = random_address(rng)
        lengths, weights = zip(*(IPV4_LENGTHS if len(packed) == 4 else IPV6_LENGTHS), strict=True)
        host_bits = 8 * len(packed) - rng.choices(lengths, weights)[0]
        network = int.from_bytes(packed, "big") >> host_bits << host_bits
        found.append(f"{ip_address(network.to_bytes(len(packed), 'big'))}/{8 * len(packed) - host_bits}")
    return found


@cache
def addresses(count: int, octets: int) -> list[bytes]:
    """Packed addresses of a family to look up in prefixes(count)."""
    rng = random.Random(count + 1)
    found: list[bytes] = []
    while len(found) < ROUND:
        packed = random_address(rng)
        if rng.random() < 0.5:
            network = ip_network(rng.choice(prefixes(count)))
            packed = network[rng.randrange(network.num_addresses)].packed
        if len(packed) == octets:
            found.append(packed)
    return [bytes(bytearray(packed)) for packed in found]  # copies, side by side in memory


class PytriciaPair:
    """pytricia keeps one family per tree."""

    def __init__(self, texts: list[str]) -> None:
        self.trees = {4: pytricia.PyTricia(32), 16: pytricia.PyTricia(128)}
        for text in texts:
            self.trees[16 if ":" in text else 4][text] = True


ours = cache(lambda count: CidrSet(prefixes(count)))
pytricias = cache(lambda count: PytriciaPair(prefixes(count)))


def run(benchmark, count, lookups, packed):
    benchmark.group = f"lookup, {count} prefixes, {len(packed[0])} octets"
    benchmark.pedantic(lookups, (packed,), rounds=15, warmup_rounds=2)
    benchmark.extra_info["ns_per_lookup"] = round(benchmark.stats.stats.median / len(packed) * 1e9, 1)


def membership(container):
    """A function that looks up many addresses, with as little Python around the lookup as there can be."""
    return lambda packed: [address in container for address in packed]


SIZES = [3, 50, 10_000, 200_000, 1_000_000]


@pytest.mark.parametrize("octets", [4, 16])
@pytest.mark.parametrize("count", SIZES)
def test_lookup_ours(benchmark, count, octets):
    benchmark.extra_info["bytes_per_prefix"] = round(ours(count).memory_bytes / len(ours(count)), 1)
    run(benchmark, count, membership(ours(count)), addresses(count, octets))


@pytest.mark.parametrize("octets", [4, 16])
@pytest.mark.parametrize("count", SIZES)
def test_lookup_pytricia(benchmark, count, octets):
    run(benchmark, count, membership(pytricias(count).trees[octets]), addresses(count, octets))


@pytest.mark.parametrize("octets", [4, 16])
@pytest.mark.parametrize("count", SIZES)
def test_lookup_py_radix(benchmark, count, octets):
    radix = pytest.importorskip("radix")
    tree = radix.Radix()
    for text in prefixes(count):
        tree.add(text)

    def lookups(packed):
        return [tree.search_best(packed=address) for address in packed]

    run(benchmark, count, lookups, addresses(count, octets))


@pytest.mark.parametrize("octets", [4, 16])
def test_lookup_ipaddress_in_a_list(benchmark, octets):
    networks = [ip_network(text) for text in prefixes(50)]

    def lookups(packed):
        return [any(ip_address(address) in network for network in networks) for address in packed]

    run(benchmark, 50, lookups, addresses(50, octets)[:1000])


@pytest.mark.parametrize("build", [CidrSet, PytriciaPair])
def test_build_a_million(benchmark, build):
    benchmark.group = "build, 1000000 prefixes"
    benchmark.pedantic(build, (prefixes(1_000_000),), rounds=3)
