"""Counter pages, the families over them, and their documentation."""

from __future__ import annotations

import mmap
import os
import re
from bisect import bisect_left
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics
from gateway._fastpath import PAGE_HEADER_WORDS, CounterPage, HistogramSlot
from gateway.admin.processes import PolicyName, System
from gateway.couriers.fleet.table import SIZE as SIZE_OF_MEMBERS
from gateway.couriers.fleet.table import MemberTable
from gateway.metrics import Surroundings, families
from gateway.metrics.listeners import MOST, OTHERS, SIZE, ListenerNames, ListenerWatch
from gateway.smtp.replies import Reason

DOCS = Path(__file__).parent.parent / "docs" / "metrics.md"
MAIL_OK = metrics.COMMANDS.slot("MAIL", "2xx")


def new_page(*, worker: int = 0, generation: int = 1, pid: int = 1) -> CounterPage:
    page = CounterPage(bytearray(metrics.page_size()))
    metrics.claim(page, worker=worker, generation=generation, now=0.0)
    page.pid = pid
    return page


class Elsewhere(Surroundings):
    """What these tests know besides pages."""

    def listeners(self) -> list[str]:
        return ["192.0.2.1:25", "192.0.2.1:587"]

    def memory(self, pid: int) -> int:
        return pid * 4096

    def descriptors(self, pid: int) -> tuple[int, int]:
        return pid, 1024


class Registry:
    """What prometheus-client's exposition wants to see."""

    def __init__(self, *pages: CounterPage, now: float = 0.0) -> None:
        self.pages, self.now = pages, now

    def collect(self):
        return metrics.collect(self.pages, now=self.now, surroundings=Elsewhere())


def exposed(*pages: CounterPage, now: float = 0.0) -> dict[str, float]:
    """Every sample as exposed: {'name{label="value"}': value}."""
    samples = {}
    for family in text_string_to_metric_families(generate_latest(Registry(*pages, now=now)).decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}"] = sample.value
    return samples


# --- the page ---------------------------------------------------------------------------------------------------------


def test_a_slot_outside_the_page_is_refused():
    page = CounterPage(bytearray((PAGE_HEADER_WORDS + 4) * 8))
    assert len(page) == 4
    page.add(3)
    for slot in (4, -1, 2**40):
        for bump in (page.add, page.get, page.get_float):
            with pytest.raises(IndexError):
                bump(slot)
        with pytest.raises(IndexError):
            page.set(slot, 1)
    with pytest.raises(IndexError):
        page.observe(HistogramSlot(2, [1.0]), 0.5)  # needs three words


def test_a_page_needs_writable_aligned_memory_of_some_size():
    with pytest.raises(ValueError, match="aligned"):
        CounterPage(bytearray(8))
    with pytest.raises(ValueError, match="aligned"):
        CounterPage(memoryview(bytearray(1024))[1:])
    with pytest.raises(BufferError):
        CounterPage(bytes(1024))


def test_pages_in_one_mapping_do_not_touch_each_other():
    size = metrics.page_size()
    memory = memoryview(mmap.mmap(-1, 3 * size))
    pages = [CounterPage(memory[i * size : (i + 1) * size]) for i in range(3)]
    for slot in range(len(pages[1])):
        pages[1].set(slot, -1)
    pages[1].pid = pages[1].worker = pages[1].generation = pages[1].state = -1
    for neighbour in (pages[0], pages[2]):
        assert not any(neighbour.get(slot) for slot in range(len(neighbour)))
        assert (neighbour.pid, neighbour.worker, neighbour.generation, neighbour.heartbeat) == (0, 0, 0, 0.0)


def test_what_a_forked_process_counts_is_seen_by_its_parent():
    page = CounterPage(mmap.mmap(-1, metrics.page_size()))
    child = os.fork()
    if not child:
        page.add(MAIL_OK, 7)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert page.get(MAIL_OK) == 7


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=32, unique=True).map(sorted),
    st.lists(st.floats(-1e7, 1e7), max_size=50),
)
def test_a_histogram_counts_each_value_under_the_first_bound_not_below_it(bounds, values):
    page = CounterPage(bytearray(1024))
    slot = HistogramSlot(3, bounds)
    for value in [*values, *bounds]:
        page.observe(slot, value)
    expected = [0] * (len(bounds) + 1)
    for value in [*values, *bounds]:
        expected[bisect_left(bounds, value)] += 1
    assert [page.get(3 + i) for i in range(len(bounds) + 1)] == expected
    assert page.get_float(3 + len(bounds) + 1) == pytest.approx(sum(values) + sum(bounds), abs=1e-3)


def test_histogram_bounds_must_ascend_and_be_few():
    for bounds in ([], [1.0, 1.0], [2.0, 1.0], [float(i) for i in range(33)]):
        with pytest.raises(ValueError, match="bounds"):
            HistogramSlot(0, bounds)


# --- families ---------------------------------------------------------------------------------------------------------


def test_no_two_series_share_a_word():
    taken: list[int] = []
    for family in metrics.LAYOUT.families:
        width = len(family.bounds) + 2 if isinstance(family, families.Histogram) else 1
        for first in family.slots.values():
            taken += range(first, first + width)
    assert sorted(taken) == list(range(len(taken)))
    assert metrics.page_size() >= (PAGE_HEADER_WORDS + len(taken)) * 8


def test_an_unknown_label_value_is_refused_by_name():
    with pytest.raises(KeyError, match="relay_gateway_commands_total"):
        metrics.COMMANDS.slot("MAIL", "9xx")
    with pytest.raises(KeyError, match="relay_gateway_relay_duration_seconds"):
        metrics.RELAY_DURATION.slot("surplus")


def test_every_series_is_present_from_the_start():
    samples = exposed(new_page())
    assert samples['relay_gateway_commands_total{reply="2xx",verb="MAIL"}'] == 0
    assert samples['relay_gateway_rejections_total{reason="relay_denied",stage="rcpt"}'] == 0
    assert samples['relay_gateway_worker_memory_bytes{worker="0"}'] == 4096
    expected = sum(
        2 * (family.labels == ("listener",))  # there are no shipments
        if isinstance(family, families.NamedSlots)
        else len(family.slots) * (len(family.bounds) + 3 if isinstance(family, families.Histogram) else 1)
        for family in metrics.LAYOUT.families
    )
    assert len(samples) == expected + len(families.ProcessState) + 1  # workers by state, build info


def test_counters_outlive_the_process_and_gauges_do_not():
    first, second = new_page(worker=0), new_page(worker=1)
    for page in (first, second):
        page.add(MAIL_OK, 5)
        page.set(metrics.CONNECTIONS_OPEN.slot(), 3)
        page.observe(metrics.RELAY_DURATION.slot(), 0.002)
    assert exposed(first, second)["relay_gateway_connections_open{}"] == 6
    metrics.release(first)
    samples = exposed(first, second)
    assert samples['relay_gateway_commands_total{reply="2xx",verb="MAIL"}'] == 10
    assert samples["relay_gateway_relay_duration_seconds_count{}"] == 2
    assert samples["relay_gateway_connections_open{}"] == 3
    assert 'relay_gateway_worker_memory_bytes{worker="0"}' not in samples
    metrics.claim(first, worker=0, generation=1, now=9.0)
    first.pid = 77
    first.add(MAIL_OK)
    assert exposed(first, second)['relay_gateway_commands_total{reply="2xx",verb="MAIL"}'] == 11


def test_the_youngest_process_speaks_for_its_worker_slot():
    old, new, supervisor = new_page(generation=1), new_page(generation=2), new_page(worker=-1)
    old.state, new.state = families.ProcessState.DRAINING, families.ProcessState.READY
    old.set_float(metrics.EVENT_LOOP_LAG.slot(), 9.0)
    new.set_float(metrics.EVENT_LOOP_LAG.slot(), 0.25)
    new.heartbeat = 98.5
    samples = exposed(new, old, supervisor, now=100.0)
    assert samples['relay_gateway_worker_event_loop_lag_seconds{worker="0"}'] == 0.25
    assert samples['relay_gateway_worker_heartbeat_age_seconds{worker="0"}'] == 1.5
    assert [samples[f'relay_gateway_workers{{state="{s}"}}'] for s in ("starting", "ready", "draining")] == [0, 1, 1]


def test_a_histogram_is_exposed_cumulatively_in_seconds():
    page = new_page()
    for seconds in (0.00004, 0.00004, 0.5, 4000.0):
        page.observe(metrics.POLICY_EVENT_DURATION.slot("get_listener_domain"), seconds)
    samples = exposed(page)
    name = 'relay_gateway_policy_event_duration_seconds_bucket{event="get_listener_domain",le="%s"}'
    assert [samples[name % le] for le in ("2.5e-05", "5e-05", "0.25", "1.0", "+Inf")] == [0, 2, 2, 3, 4]
    assert samples['relay_gateway_policy_event_duration_seconds_sum{event="get_listener_domain"}'] == 4000.50008


def test_openmetrics_accepts_the_exposition():
    page = new_page()
    page.add(MAIL_OK, 3)
    page.observe(metrics.RELAY_DURATION.slot(), 0.002)
    parsed = {family.name: family for family in parse_openmetrics(generate_openmetrics(Registry(page)).decode())}
    assert parsed["relay_gateway_commands"].type == "counter"
    assert parsed["relay_gateway_relay_duration_seconds"].type == "histogram"
    assert set(parsed["relay_gateway_build"].samples[0].labels) == {"version", "python"}


def test_names_follow_prometheus_conventions():
    for family in metrics.LAYOUT.families:
        assert re.fullmatch(r"relay_gateway_[a-z][a-z0-9_]*", family.name)
        is_counter = isinstance(family, families.Counter | families.NamedCounter)
        assert family.name.endswith("_total") == is_counter, family.name
        assert not isinstance(family, families.Histogram) or family.name.endswith("_seconds")
        assert family.help and not family.help.endswith(".")


# --- listeners --------------------------------------------------------------------------------------------------------


def test_a_listener_keeps_its_place_and_further_ones_share_the_last():
    memory = memoryview(bytearray(SIZE))
    names = ListenerNames(memory)
    assert names.all() == []
    first, second = "[2001:db8::1]:25", "192.0.2.1:25"
    assert [names.place_of(address) for address in (first, second, first)] == [0, 1, 0]
    assert ListenerNames(memory).all() == ["[2001:db8::1]:25", "192.0.2.1:25"]
    places = [names.place_of(f"192.0.2.2:{port}") for port in range(100)]
    assert places == [*range(2, MOST - 1), *[MOST - 1] * (102 - MOST + 1)]
    assert len(names.all()) == MOST
    assert names.all()[-1] == OTHERS
    assert names.place_of("192.0.2.1:25") == 1


def test_a_worker_tells_of_its_listeners_and_what_it_had_open_ends_with_it():
    page = new_page()
    watch, alike = ListenerWatch(page, 1), ListenerWatch(page, 1)
    watch.tell(opened=5, refused=2, messages=4, now_open=3, limit=100)
    watch.tell(opened=6, refused=2, messages=9, now_open=1, limit=100)
    alike.tell(opened=1, refused=0, messages=1, now_open=1, limit=10)

    def told() -> list[float]:
        names = ("connections_opened_total", "connections_refused_total", "messages_total")
        gauges = ("connections_open", "connections_limit")
        samples = exposed(page)
        return [samples[f'relay_gateway_listener_{name}{{listener="192.0.2.1:587"}}'] for name in (*names, *gauges)]

    assert told() == [7, 2, 10, 2, 110]
    metrics.release(page)
    assert told() == [7, 2, 10, 0, 0]


def test_counts_by_listener_do_not_go_over_to_another_layout():
    page = new_page()
    ListenerWatch(page, 0).tell(1, 1, 1, 1, 1)
    assert not [name for name in metrics.totals([page]) if "listener" in name]


# --- documentation ----------------------------------------------------------------------------------------------------


def test_docs_and_code_agree_on_names_types_and_labels():
    row = re.compile(r"^\| `(\w+?)(?:\{([a-z,]+)\})?` \| (\w+) \| \S", re.MULTILINE)
    documented = {
        ("" if name.startswith("process_") else "relay_gateway_") + name: (kind, tuple(filter(None, labels.split(","))))
        for name, labels, kind in row.findall(DOCS.read_text())
    }
    declared = {}
    page = new_page(pid=os.getpid())
    members = MemberTable(memoryview(bytearray(SIZE_OF_MEMBERS)), 1)
    members.enter("10.0.0.1", 25, "mta1")
    surroundings = System([page], lambda: ["192.0.2.1:25"], PolicyName("init.lua", "0"), members, lambda: ["out"])
    for family in metrics.collect([page], now=0.0, surroundings=surroundings):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = family.samples[0].labels.keys() - {"le"}
        declared[family.name + suffix] = ("gauge" if family.type == "info" else family.type, labels)
    assert {name: (kind, set(labels)) for name, (kind, labels) in documented.items()} == {
        name: (kind, set(labels)) for name, (kind, labels) in declared.items()
    }


def test_docs_list_every_label_value():
    text = DOCS.read_text()
    for family in metrics.LAYOUT.families:
        for values in () if isinstance(family, families.NamedSlots) else family.slots:
            for label, value in zip(family.labels, values, strict=False):
                elsewhere = family is metrics.REJECTIONS and value in set(Reason)  # docs/reasons.md
                assert elsewhere or f"`{value}`" in text, (family.name, label, value)
