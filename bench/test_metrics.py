"""What counting and scraping cost: `python -m pytest bench/test_metrics.py`. A bump from Python is to stay below 50 ns,
a scrape of eight workers below 20 ms.
"""

from __future__ import annotations

import mmap
import os
from itertools import repeat

import pytest
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.admin.processes import PolicyName, System
from gateway.metrics.families import ProcessState

ROUND = 1000


@pytest.fixture
def page() -> CounterPage:
    return CounterPage(mmap.mmap(-1, metrics.page_size()))


def test_bump_a_counter_1000_times(benchmark, page):
    slot, add = metrics.COMMANDS.slot("MAIL", "2xx"), page.add

    def bump():
        for _ in repeat(None, ROUND):
            add(slot)

    benchmark(bump)
    benchmark.extra_info["ns_per_bump"] = benchmark.stats.stats.median / ROUND * 1e9


def test_observe_a_duration_1000_times(benchmark, page):
    slot, observe = metrics.RELAY_DURATION.slot(), page.observe

    def bump():
        for _ in repeat(None, ROUND):
            observe(slot, 0.003)

    benchmark(bump)
    benchmark.extra_info["ns_per_bump"] = benchmark.stats.stats.median / ROUND * 1e9


def test_collect_32_pages(benchmark):
    pages = [CounterPage(bytearray(metrics.page_size())) for _ in range(32)]
    benchmark(lambda: list(metrics.collect(pages, now=0.0, memory=lambda pid: 0)))


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"], ids=["text", "openmetrics"])
def test_scrape_eight_workers(benchmark, accept):
    size = metrics.page_size()
    memory = memoryview(mmap.mmap(-1, size * 19))  # two generations of eight workers and an admin; the supervisor
    pages = [CounterPage(memory[size * i : size * (i + 1)]) for i in range(19)]
    for number, each in enumerate(pages[:10]):
        metrics.claim(each, worker=number - 1 if number < 9 else -1, generation=1, now=0.0)
        each.pid, each.state = os.getpid(), ProcessState.READY
    system = System(pages, lambda: ["192.0.2.1:25", "192.0.2.1:587"], PolicyName("init.lua", "0"))

    class Scraped(Collector):
        def collect(self):
            return metrics.collect(pages, now=0.0, surroundings=system)

    encode, _ = choose_encoder(accept)
    assert len(benchmark(encode, Scraped())) > 10_000
