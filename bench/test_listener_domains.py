"""What a large file for `policy-extras.listener_domains` costs: to read where the policy is checked, to have in a
worker, and to look a domain up. DOMAINS=1000000 for the size that it is meant for.
"""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy
from gateway.policy.source import PolicySource

DOMAINS = int(os.environ.get("DOMAINS", "10000"))
BODIES = (
    "relay_to = true",
    'log_oob = "LogThenDrop"\nlog_arf = "LogThenDrop"',
    'relay_from = ["10.0.0.0/8", "192.168.1.0/24"]',
    "relay_to = false",
)
LISTENER = "192.0.2.1:25"
CONN = ConnMeta({"received_from": "192.0.2.7:40000"})
_READS_ONE_KEY = b"""
kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  return not conn_meta:get_meta 'authz_id' and kumo.make_listener_domain { relay_to = true } or nil
end)
"""
CACHED = PolicySource("bench.lua", {"bench.lua": _READS_ONE_KEY})

# How many octets of memory a process has more when it has a policy out of its standard input.
_WORKER = """
import os, pickle, sys
sys.path.insert(0, sys.argv[1])
from bench.test_listener_domains import loaded
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
data = sys.stdin.buffer.read()
before = resident()
policy = loaded(pickle.loads(data))
print(resident() - before)
"""


def domain(number: int) -> str:
    return f"mail{number:07d}.example{number % 1000}.com"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PolicySource:
    path = tmp_path_factory.mktemp("domains") / "domains.toml"
    path.write_text("".join(f'["{domain(number)}"]\n{BODIES[number % 4]}\n\n' for number in range(DOMAINS)))
    text = f"kumo.on('get_listener_domain', require('policy-extras.listener_domains'):setup {{ '{path}' }})"
    return PolicySource("bench.lua", {"bench.lua": text.encode()})


@pytest.fixture(scope="module")
def handed_over(source: PolicySource) -> bytes:
    """What a worker is given."""
    loaded(source)
    return pickle.dumps(source)


def loaded(source: PolicySource) -> Policy:
    return Policy.load(source, page=CounterPage(bytearray(metrics.page_size())))


def test_reading_the_file(benchmark: Any, source: PolicySource) -> None:
    """At most 10 s for a million."""
    benchmark.pedantic(lambda: loaded(PolicySource(source.path, dict(source.files))), rounds=1)


def test_loading_in_a_worker(benchmark: Any, handed_over: bytes) -> None:
    """Aim: 0.1 s for a million; most of it is copying, which a fork does not."""
    benchmark.pedantic(lambda: loaded(pickle.loads(handed_over)), rounds=3)


def test_memory(handed_over: bytes) -> None:
    """At most 250 octets for each domain, of all workers together."""
    command = [sys.executable, "-c", _WORKER, str(Path(__file__).parent.parent)]
    octets = int(subprocess.run(command, input=handed_over, capture_output=True, check=True).stdout) / DOMAINS
    print(f"\n{octets:.0f} octets of memory for each of {DOMAINS} domains")
    if DOMAINS >= 1_000_000:  # of fewer, what else is allocated meanwhile is more
        assert octets <= 250


@pytest.mark.parametrize("different", [1_000, DOMAINS])
@pytest.mark.parametrize("way", ["table", "cached"])
def test_a_decision(benchmark: Any, handed_over: bytes, way: str, different: int) -> None:
    """Aim: of few domains, what a cached decision costs that has read one key of conn_meta; of all, more by what memory
    takes that the processor has not at hand. Each name is another string every time, as those of clients are. (Of a
    million domains the cache keeps those that were asked for lately, so that most are decided anew.)
    """
    policy = loaded(pickle.loads(handed_over)) if way == "table" else loaded(CACHED)
    asked = cycle([domain(number).encode() for number in random.sample(range(DOMAINS), min(different, DOMAINS))])
    benchmark(lambda: policy.listener_domain(next(asked).decode(), LISTENER, CONN))
