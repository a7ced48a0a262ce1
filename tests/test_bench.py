"""The bench suite measures what it says: the source against the sink, the histogram against a sorted list.

Nothing here asserts a speed.
"""

import argparse
import json
import random
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relay_gateway_bench import _load, measure
from relay_gateway_bench.analysis import Curve, Result
from relay_gateway_bench.cli import add_arguments, run
from relay_gateway_bench.histogram import Histogram, bounds
from relay_gateway_bench.load import Plan, Target, TargetError, send
from relay_gateway_bench.mix import Mix, MixError, load_mix, message_from_file, message_of, parse_size, plain_mix
from relay_gateway_bench.peers import PEERS, Knobs, Peer, PeerError
from relay_gateway_bench.report import BEGIN, END, write_report
from relay_gateway_bench.run import Settings, write
from relay_gateway_bench.scenarios import SCENARIOS, TARGETS
from relay_gateway_bench.sink import SinkProcess, parse_refusals


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkProcess]:
    with SinkProcess() as process:
        yield process


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


def at(sink: SinkProcess) -> Target:
    return Target(sink.host, sink.port)


@pytest.mark.parametrize(
    ("plan", "mix"),
    [
        (Plan(messages=500), plain_mix(1024)),
        (Plan(messages=500, pipelining=True), plain_mix(1024)),
        (Plan(messages=300, per_connection=1), plain_mix(1024)),
        (Plan(messages=300, per_connection=7, pipelining=True), plain_mix(100)),
        (Plan(messages=20, connections=3), plain_mix(3_000_000)),
        (Plan(messages=200), plain_mix(1024, recipients=7)),
        (Plan(messages=200, pipelining=True), plain_mix(1024, recipients=7, domains=50)),
        (Plan(messages=300, rate=3000), plain_mix(1024)),
        (Plan(messages=100, rate=2000, per_connection=1), plain_mix(1024)),
        (Plan(messages=600, connections=300), plain_mix(1024)),
    ],
)
def test_every_message_arrives_once_and_intact(sink: SinkProcess, plan: Plan, mix: Mix) -> None:
    result = send(at(sink), mix, plan)
    assert result["acked"] == result["sent"] == plan.messages
    assert sum(count for _, count in result["histogram"]) == plan.messages
    assert sink.run(result["run"]) == {
        "messages": plan.messages,
        "unique": plan.messages,
        "recipients": plan.messages * mix.per_message,
        "corrupt": 0,
    }


def test_a_load_is_bounded_by_time(sink: SinkProcess) -> None:
    result = send(at(sink), plain_mix(1024), Plan(messages=10**9, seconds=0.1))
    assert 0 < result["sent"] < 10**9


def test_latency_of_the_open_loop_counts_from_when_a_message_was_due() -> None:
    # One connection, 10 ms per message, one due every millisecond: the last of 20 waits for 19 others.
    with SinkProcess("--delay", "0.01") as slow:
        result = send(at(slow), plain_mix(1024), Plan(messages=20, connections=1, rate=1000))
    assert result["latency_us"]["max"] > 20 * 10_000 - 20 * 1000 - 2000


def test_refusals_are_counted_by_code_and_the_conversation_goes_on() -> None:
    refusals = ("--refuse", "MAIL=451/10", "--refuse", "RCPT=550/10", "--refuse", "DOT=452/10")
    for pipelining in (False, True):
        with SinkProcess(*refusals) as sink:
            result = send(at(sink), plain_mix(1024), Plan(messages=300, connections=2, pipelining=pipelining))
            arrived = sink.run(result["run"])
        assert result["acked"] + result["refused"] == 300
        assert result["refusals"]["451"] == 30
        assert result["lost"] == result["unknown"] == 0
        assert result["connects"] == 2
        assert arrived["unique"] == result["acked"] + result["refusals"]["452"]


@pytest.mark.parametrize("misbehaviour", ["--drop", "--reset"])
def test_a_connection_lost_after_the_dot_leaves_the_outcome_unknown(misbehaviour: str) -> None:
    with SinkProcess(misbehaviour, "10") as sink:
        result = send(at(sink), plain_mix(1024), Plan(messages=200, connections=4))
        arrived = sink.run(result["run"])
        dropped = sink.counts()["dropped"]
    assert result["unknown"] == dropped == 20
    assert result["acked"] == 180
    assert arrived["unique"] == 200


def test_a_server_that_is_not_there_ends_the_load() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = send(Target("127.0.0.1", unused.getsockname()[1]), plain_mix(1024), Plan(messages=10_000))
    assert result["acked"] == 0
    assert result["connect_failures"] > 0


# ------------------------------------------------------------------------------------------------- the sink


def dialogue(sink: SinkProcess, pieces: list[bytes], replies: int) -> bytes:
    """Send pieces one by one; what came back, up to so many reply lines."""
    with socket.create_connection((sink.host, sink.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        file = connection.makefile("rb")
        answer = file.readline()
        for piece in pieces:
            connection.sendall(piece)
        answer += b"".join(file.readline() for _ in range(replies))
        file.close()
    return answer


def envelope(content: bytes) -> bytes:
    return b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + content + b".\r\n"


CONTENT = st.lists(
    st.sampled_from([b"\r\n..", b"\r\n", b"\n.", b"\r", b"..", b"text", b"\r\n.\r", b"\n.\r\n", b"x" * 70]),
    max_size=30,
).map(b"".join)


@settings(max_examples=60, deadline=None)
@given(bodies=st.lists(CONTENT, min_size=1, max_size=3), seed=st.integers())
def test_the_sink_finds_the_end_of_data_at_any_split(sink: SinkProcess, bodies: list[bytes], seed: int) -> None:
    run = secrets.randbits(64)
    stream = b""
    for number, body in enumerate(bodies):
        content = b"Received: by relay.example\r\nSubject: x\r\n\r\n" + body.removeprefix(b".") + b"\r\n"
        content = re.sub(rb"\r\n\.(?=\r\n)", b"\r\n..", content)  # no end of data before the end
        stream += envelope(_load.mark(run, number, _load.body_hash(content)) + content)
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(len(stream)), min(len(stream), 40)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    dialogue(sink, pieces, 4 * len(bodies))
    assert sink.run(f"{run:016x}") == {
        "messages": len(bodies), "unique": len(bodies), "recipients": len(bodies), "corrupt": 0,
    }  # fmt: skip


def test_the_sink_tells_repeated_altered_and_unmarked_messages(sink: SinkProcess) -> None:
    run = secrets.randbits(64)
    content = message_of(2000)
    marked = _load.mark(run, 5, _load.body_hash(content)) + content
    altered = marked[:-5] + b"y" + marked[-4:]
    before = sink.counts()["unmarked"]
    replies = dialogue(sink, [envelope(m) for m in (marked, marked, altered, content)], 16)
    assert replies.count(b"250 2.0.0") == 4
    assert sink.run(f"{run:016x}") == {"messages": 3, "unique": 1, "recipients": 3, "corrupt": 1}
    assert sink.counts()["unmarked"] == before + 1


def in_chunks(content: bytes, *sizes: int) -> bytes:
    """A transaction whose content comes in chunks of these sizes and a last one with the rest."""
    stream = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
    for size in sizes:
        stream += b"BDAT %d\r\n" % len(content[:size]) + content[:size]
        content = content[size:]
    return stream + b"BDAT %d LAST\r\n" % len(content) + content


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 900), max_size=3), seed=st.integers())
def test_the_sink_takes_chunks_at_any_split(sink: SinkProcess, sizes: list[int], seed: int) -> None:
    run = secrets.randbits(64)
    content = b"Subject: x\r\n\r\n" + b".\r\nBDAT 3\r\n" * 50
    marked = _load.mark(run, 1, _load.body_hash(content)) + content
    other = b"Subject: y\r\n\r\nby DATA\r\n"
    stream = in_chunks(marked, *sizes) + envelope(_load.mark(run, 2, _load.body_hash(other)) + other)
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(len(stream)), 20))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    replies = dialogue(sink, pieces, 3 + len(sizes) + 4)
    assert replies.count(b"250 2.0.0") == 2 + len(sizes)
    assert sink.run(f"{run:016x}") == {"messages": 2, "unique": 2, "recipients": 2, "corrupt": 0}


def test_the_sink_discards_a_chunk_that_is_for_nobody(sink: SinkProcess) -> None:
    before = sink.counts()["messages"]
    replies = dialogue(sink, [b"BDAT 6 LAST\r\nNOOP\r\nBDAT x\r\nNOOP\r\n"], 3)
    assert [line[:3] for line in replies.splitlines()] == [b"220", b"503", b"501", b"250"]
    assert sink.counts()["messages"] == before


def test_the_sink_offers_chunking_unless_told_otherwise(sink: SinkProcess) -> None:
    assert b"CHUNKING" in dialogue(sink, [b"EHLO x.example\r\n"], 7)
    with SinkProcess("--no-chunking") as without:
        assert b"CHUNKING" not in dialogue(without, [b"EHLO x.example\r\n"], 6)
        assert b"500 " in dialogue(without, [b"BDAT 0 LAST\r\n"], 1)


def test_an_empty_message_is_a_message(sink: SinkProcess) -> None:
    assert b"250 2.0.0" in dialogue(sink, [envelope(b"")], 4)


def test_a_refusal_that_is_no_refusal_is_not_understood() -> None:
    assert parse_refusals(["mail=451/10"]) == {"MAIL": (451, 10)}
    for wrong in ("EHLO=550", "MAIL=250", "MAIL"):
        with pytest.raises(ValueError, match="STAGE=CODE"):
            parse_refusals([wrong])


# ------------------------------------------------------------------------------------------------ histogram


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 99.9, 100]))
def test_percentiles_are_within_one_percent_of_a_sorted_list(values: list[int], percent: float) -> None:
    counts: dict[int, int] = {}
    for value in values:
        counts[_load.bucket(value)] = counts.get(_load.bucket(value), 0) + 1
    below = -(-len(values) * percent // 100)
    exact = sorted(values)[max(0, int(below) - 1)]
    assert Histogram(counts).percentile(percent) * 1000 == pytest.approx(exact, rel=0.01, abs=1)


@given(st.integers(0, 10**12))
def test_a_value_lies_within_the_bounds_of_its_bucket(value: int) -> None:
    low, high = bounds(_load.bucket(value))
    assert low <= value <= high
    assert _load.bucket(low) == _load.bucket(high) == _load.bucket(value)


def test_merged_histograms_count_all() -> None:
    merged = Histogram({1: 2, 5: 1}).add(Histogram({5: 3, 300: 1}))
    assert merged.counts == {1: 2, 5: 4, 300: 1}
    assert Histogram.from_json(merged.to_json()).counts == merged.counts
    assert Histogram().percentile(50) == 0


# ------------------------------------------------------------------------------------------- targets, mixes


@pytest.mark.parametrize("target", ["192.0.2.1:25", "[2001:db8::1]:25", "0.0.0.0:25"])
def test_a_target_that_is_not_on_loopback_is_refused_unless_it_is_mine(target: str) -> None:
    with pytest.raises(TargetError, match="--target-is-mine"):
        Target.parse(target)
    assert Target.parse(target, mine=True).port == 25


def test_loopback_targets_are_taken() -> None:
    assert Target.parse("127.9.9.9:2525") == Target("127.9.9.9", 2525)
    assert Target.parse("[::1]:2525") == Target("::1", 2525)
    assert Target.parse(":2525") == Target("127.0.0.1", 2525)
    with pytest.raises(TargetError, match="HOST:PORT"):
        Target.parse("localhost")


@pytest.mark.parametrize("size", [1024, 10_240, 102_400])
def test_a_message_has_the_size_asked_for(size: int) -> None:
    message = message_of(size)
    assert len(message) + len(_load.mark(1, 2, 3)) == size
    assert message.endswith(b"\r\n")
    assert b"\r\n.\r\n" not in message


def test_a_file_becomes_a_message_as_on_the_wire() -> None:
    assert message_from_file(b"A: b\n\n.dot\nend") == b"A: b\r\n\r\n..dot\r\nend\r\n"
    assert message_from_file(b".\r\n\r\n.\r\n") == b"..\r\n\r\n..\r\n"


def test_a_mix_file_sets_sizes_reports_domains_and_weights(sink: SinkProcess, tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "bounce.eml").write_bytes(b"From: <>\n\nIt bounced.\n")
    path = tmp_path / "mix.toml"
    path.write_text(
        'recipients_per_message = 2\n[[message]]\nsize = "2KiB"\nweight = 3\n'
        '[[message]]\ncorpus = "reports"\n'
        'sender = ""\n'
        '[[domain]]\nname = "big.example"\nweight = 9\n[[domain]]\nname = "d{}.example"\ncount = 1000\n'
    )
    mix = load_mix(path)
    assert [sender for sender, _ in mix.contents] == [b"bench@sender.example", b""]
    assert 0.6 < mix.order.count(0) / len(mix.order) < 0.9
    assert 0.8 < sum(r.endswith(b"@big.example") for r in mix.recipients) / len(mix.recipients) < 0.97
    result = send(at(sink), mix, Plan(messages=200))
    assert sink.run(result["run"])["unique"] == result["acked"] == 200
    assert result["recipients_acked"] == 400


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[[message]]\nsize = 'huge'",
        "[[domain]]\ncount = 3",
        "colour = 1",
        "[[message]]\ncorpus='no'",
    ],
)
def test_a_bad_mix_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mix.toml"
    path.write_text(text)
    with pytest.raises(MixError):
        load_mix(path)


def test_sizes_have_units() -> None:
    assert [parse_size(text) for text in ("100", "1KiB", "5 MiB", "2k")] == [100, 1024, 5 * 1024**2, 2048]


# ------------------------------------------------------------------------------------- measuring and reporting


def test_the_cpu_of_children_that_have_ended_is_counted() -> None:
    child = "os.fork() or (sum(range(4_000_000)), os._exit(0))"
    work = f"import os, sys\nsys.stdin.readline()\nfor _ in range(3):\n    {child}\n    os.wait()\n"
    script = work + "print(sum(os.times()[:4]), flush=True)\nsys.stdin.readline()"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin and process.stdout
        before = measure.usage([process.pid])
        process.stdin.write("\n")
        process.stdin.flush()
        told = float(process.stdout.readline())
        after = measure.usage([process.pid])
        process.stdin.close()
    assert after.cpu == pytest.approx(told, abs=0.05)
    assert measure.cost(before, after, 1)["cpu_us"] == pytest.approx(1e6 * (after.cpu - before.cpu))


STRACE = """\
71    epoll_pwait(6, [{events=EPOLLIN, data={u32=14, u64=14}}], 1024, 3, NULL, 8) = 1
71    recvfrom(17, ""..., 262144, 0, NULL, NULL) = 953
72    futex(0x7f, FUTEX_WAIT_BITSET_PRIVATE, 0, {tv_sec=2, tv_nsec=3}, FUTEX_BITSET_MATCH_ANY <unfinished ...>
71    sendmsg(18, {msg_name=NULL, msg_iov=[{iov_base=""..., iov_len=69}], msg_iovlen=1}, MSG_NOSIGNAL) = 69
71    read(5, ""..., 4096 <unfinished ...>
72    <... futex resumed>)              = -1 ETIMEDOUT (Connection timed out)
71    <... read resumed>)               = 12
71    write(9, ""..., 5)                = -1 EAGAIN (Resource temporarily unavailable)
71    mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3, 0) = 0x7f0000000000
71    +++ exited with 0 +++
"""


def test_a_trace_tells_calls_and_the_octets_that_they_moved() -> None:
    calls, copied = measure.returned_calls(STRACE)
    expected = ("epoll_pwait", "recvfrom", "sendmsg", "futex", "read", "write", "mmap")
    assert calls == dict.fromkeys(expected, 1)
    assert copied == 953 + 69 + 12


def sample(scenario: str, contender: str, repetition: int, cpu_us: float) -> dict[str, Any]:
    latency = Histogram({_load.bucket(int(cpu_us * 1000)): 1000})
    return {
        "scenario": scenario, "contender": contender, "repetition": repetition, "cpu_us": cpu_us, "user_us": cpu_us / 2,
        "system_us": cpu_us / 2, "messages_per_second": 1e6 / cpu_us, "resident_bytes": 1 << 24, "shares": [1.0],
        "latency_us": latency.summary(), "histogram": latency.to_json(), "spin_seconds": 0.01 + repetition / 1000,
        "trouble": {"lost": 2} if repetition == 2 else {},
    }  # fmt: skip


def result_of(samples: list[dict[str, Any]], only: tuple[str, ...]) -> dict[str, Any]:
    scenarios = [asdict(scenario) for scenario in Settings(only=only).scenarios()]
    return {
        "begun": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "commit": "abc", "project": "0", "scenarios": scenarios,
        "machine": measure.machine() | {"stolen_seconds": 0.0}, "settings": asdict(Settings()), "samples": samples,
        "versions": {"gateway": "relay-gateway 0"}, "skipped": {"exim": "not\ninstalled"},
    }  # fmt: skip


def test_ratios_are_taken_pair_by_pair() -> None:
    # The machine becomes ten times slower on the way; the ratio does not.
    speeds = [(10.0, 15.0), (20.0, 28.0), (100.0, 160.0)]
    samples = [sample("accept-1k", "smtp-sink", i, a) for i, (a, _) in enumerate(speeds)]
    samples += [sample("accept-1k", "gateway", i, b) for i, (_, b) in enumerate(speeds)]
    result = Result(result_of(samples, ("accept-1k",)))
    ratio = result.ratio("accept-1k", "gateway", "smtp-sink")
    assert ratio and (ratio.median, ratio.low, ratio.high) == pytest.approx((1.5, 1.4, 1.6))
    verdicts = {verdict.target.scenario: verdict.word for verdict in result.verdicts()}
    assert verdicts["accept-1k"] == "bar met"
    assert verdicts["tls-1k"] == "not measured"
    assert result.trouble() == [
        "accept-1k, smtp-sink, repetition 3: 2 lost",
        "accept-1k, gateway, repetition 3: 2 lost",
    ]


@pytest.mark.parametrize(
    ("points", "word"),
    [
        ([(1, 100.0), (10, 100.0), (100, 110.0)], "flat"),
        ([(1, 100.0), (10, 190.0), (100, 1090.0)], "straight"),
        ([(1, 110.0), (10, 180.0), (100, 1090.0), (1000, 10_100.0)], "straight"),
        ([(1, 30.0), (1000, 31.0), (1e5, 45.0), (1e6, 46.0)], "below"),
        ([(1, 10.0), (10, 11.0), (100, 110.0), (1000, 10_000.0)], "above"),
        ([(1, 100.0), (10, 90.0), (100, 88.0)], "flat"),
        ([(1, 200.0), (10, 100.0), (100, 86.0)], "falling"),
    ],
)
def test_a_growth_curve_is_a_straight_line_or_better_or_not(points: list[tuple[float, float]], word: str) -> None:
    assert Curve.of(points).word == word


@given(st.floats(0, 1e4), st.floats(0.001, 1e3), st.lists(st.integers(1, 10**6), min_size=3, max_size=6, unique=True))
def test_the_line_of_points_on_a_line_is_that_line(start: float, slope: float, xs: list[int]) -> None:
    curve = Curve.of([(x, start + slope * x) for x in sorted(xs)])
    assert curve.error < 1e-6


def a_result(directory: Path) -> Path:
    grown = ("grow-connections-1", "grow-connections-10", "grow-connections-100")
    only = ("relay-1k", "idle-latency", *grown)
    samples = [sample(name, label, i, 50.0 + i) for name in only for label in ("gateway", "direct") for i in range(3)]
    calls = {"recvfrom": 4.0, "sendto": 4.1}
    traced = {"scenario": "relay-1k", "contender": "gateway", "repetition": None, "syscalls": calls, "copied": 2.5}
    return write(result_of([*samples, traced], only), directory)


def test_a_report_has_tables_pictures_and_what_was_skipped(tmp_path: Path) -> None:
    path = a_result(tmp_path)
    names = {file.name.removeprefix(path.stem): file for file in write_report(path)}
    assert set(names) == {
        ".md", ".html", "-cost-relay-1k.svg", "-throughput-relay-1k.svg", "-latency-idle-latency.svg",
        "-growth-connections.svg",
    }  # fmt: skip
    for name, file in names.items():
        if name.endswith(".svg"):
            ElementTree.fromstring(file.read_text())
    markdown = names[".md"].read_text()
    assert "Skipped: exim: installed" in markdown
    assert "| gateway | 51.0 (50.0–52.0) |" in markdown
    assert "| gateway | 8.10 | 2.50 × | sendto 4.10, recvfrom 4.00 |" in markdown
    assert "Flat: from 51.0 µs at 1 to 51.0 µs at 100" in markdown
    assert all(f"]({path.stem}{name})" in markdown for name in names if name.endswith(".svg"))
    assert names[".html"].read_text().count("<svg") == 4


def test_the_readme_gets_the_main_picture_and_the_targets(tmp_path: Path) -> None:
    results = tmp_path / "bench" / "results"
    results.mkdir(parents=True)
    path = a_result(results)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")
    assert main(["report", str(path), "--readme", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("before\n<!-- bench: begin -->\n![cost-relay-1k](bench/results/")
    assert text.endswith("\n<!-- bench: end -->\nafter\n")
    assert "old" not in text
    assert "| accept and relay, 1 KiB ÷ smtp-sink accepting | – |" in text
    assert all((tmp_path / link).exists() for link in re.findall(r"\]\((bench/results/[^)]*)\)", text))
    assert main(["report", str(path), "--readme", str(path)]) == 2


def test_the_projects_readme_has_a_place_for_the_figures() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    section = readme.partition("## What it costs")[2].partition("\n## ")[0]
    assert section.index(BEGIN) < section.index(END)


def test_every_target_names_a_scenario_with_both_contenders() -> None:
    labels = {scenario.name: {contender.label for contender in scenario.contenders} for scenario in SCENARIOS}
    assert len(labels) == len(SCENARIOS)
    for target in TARGETS:
        assert {target.contender, target.other} <= labels[target.scenario], target.title
    assert {c.peer for scenario in SCENARIOS for c in scenario.contenders} == set(PEERS)


def test_an_unknown_scenario_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="accept-1k"):
        Settings(only=("accept-1kk",)).scenarios()


def test_a_peer_that_does_not_start_says_why_and_leaves_nothing() -> None:
    class Broken(Peer):
        name = "broken"

        def start(self) -> None:
            self.run("sh", "-c", "echo no such luck; exit 3")

    broken = Broken(Knobs())
    with pytest.raises(PeerError, match="no such luck"), broken:
        pass
    assert not broken.home.exists()


def test_a_smoke_run_measures_the_gateway_and_reports(tmp_path: Path) -> None:
    assert main(["run", "--smoke", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    data = json.loads(path.read_text())
    mine = [s for s in data["samples"] if s["contender"] == "gateway"]
    assert {s["scenario"] for s in mine} == {"accept-1k", "relay-1k", "idle-latency"}, data["skipped"]
    assert all(s["intact"] and s["acked"] and s["cpu_us"] > 0 for s in mine), mine
    assert path.with_suffix(".html").exists()


def test_load_says_how_it_did(sink: SinkProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    assert main(["load", f"127.0.0.1:{sink.port}", "-n", "50", "-q", "--json", str(out)]) == 0
    assert "50 of 50 messages taken" in capsys.readouterr().out
    assert json.loads(out.read_text())["acked"] == 50
    assert main(["load", "192.0.2.1:25"]) == 2
    assert "--target-is-mine" in capsys.readouterr().err


def test_tls_and_auth_reach_the_gateway() -> None:
    with SinkProcess() as sink, PEERS["gateway"](Knobs(upstream=sink.port)) as gateway:
        plan = Plan(messages=30, connections=3, tls=True, auth=("bench", "bench"))
        result = send(Target("127.0.0.1", gateway.port), plain_mix(1024), plan)
        assert result["acked"] == 30, result
        assert sink.run(result["run"])["unique"] == 30
        wrong = send(Target("127.0.0.1", gateway.port), plain_mix(1024), replace(plan, auth=("bench", "x")))
        assert wrong["acked"] == 0
