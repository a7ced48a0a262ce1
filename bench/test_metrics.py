"""What counting costs: `python -m pytest bench/test_metrics.py`. A bump from Python is to stay below 50 ns."""

from __future__ import annotations

import mmap
from itertools import repeat

import pytest

from gateway import metrics
from gateway._fastpath import CounterPage

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
