"""What strangers can make the policy keep: a domain that nobody has asked for before leaves no memory behind.

RANDOM_DOMAINS says how many there are; 10,000,000 take about a quarter of an hour for each kind of handler on a machine
that has nothing else to do, and need `--timeout 0`.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy
from gateway.policy.source import PolicySource

DOMAINS = int(os.environ.get("RANDOM_DOMAINS", "130000"))
FULL = 100_000  # domains after which every cache has what it may have
LISTENER = "192.0.2.1:25"
KINDS = {
    "nothing": "kumo.on('get_listener_domain', function() end)",
    "memoized": """
        local known = kumo.domain_map.new { ['*.example.com'] = true }
        local lookup = kumo.memoize(function(domain) return { relay = known[domain] or #domain % 2 == 0 } end,
          { name = 'lookup', ttl = '1 hour', capacity = 10000 })
        kumo.on('get_listener_domain', function(domain, listener, conn_meta)
          if lookup(domain).relay then return kumo.make_listener_domain { relay_to = true } end
        end)""",
    "each-another": """
        kumo.on('get_listener_domain', function(domain)
          local digest = kumo.digest.sha1(domain).bytes
          return kumo.make_listener_domain { relay_from = { ('10.%d.%d.%d'):format(digest:byte(1, 3)) } }
        end)""",
}
QUEUE = """
kumo.on('get_queue_config', function(domain)
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { '127.0.0.1:2526' } } } }
end)
"""


def resident() -> int:
    """Octets of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", KINDS)
def test_random_domains_leave_memory_flat(kind: str) -> None:
    page = CounterPage(bytearray(metrics.page_size()))
    source = PolicySource("bench.lua", {"bench.lua": (KINDS[kind] + QUEUE).encode()})
    policy = Policy.load(source, page=page)
    words = random.Random(1)
    conn = ConnMeta({})
    seen = []
    for number in range(DOMAINS):
        domain = f"{words.getrandbits(64):x}.example"
        policy.listener_domain(domain, LISTENER, conn).result()
        if number % 8 == 0:
            policy.destination(f"@{domain}").result()
        if number >= FULL and number % 10_000 == 0:
            seen.append(resident())
    growth = (seen[-1] - seen[0]) / 2**20
    print(f"\n{DOMAINS} domains: {seen[0] / 2**20:.0f} MiB when the caches are full, {growth:+.1f} MiB at the end")
    assert growth < 8
