"""The bench suite measures what it says: the source against the sink, the histogram against a sorted list.

Nothing here asserts a speed.
"""

import random
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relay_gateway_bench import _load
from relay_gateway_bench.histogram import Histogram, bounds
from relay_gateway_bench.load import Plan, Target, TargetError, send
from relay_gateway_bench.mix import (
    Mix,
    MixError,
    load_mix,
    message_from_file,
    message_of,
    parse_size,
    plain_mix,
)
from relay_gateway_bench.sink import SinkProcess, parse_refusals


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkProcess]:
    with SinkProcess() as process:
        yield process


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
).map(lambda parts: b"".join(parts).replace(b"\r\n.\r\n", b"\r\n..\r\n"))


@settings(max_examples=60, deadline=None)
@given(bodies=st.lists(CONTENT, min_size=1, max_size=3), seed=st.integers())
def test_the_sink_finds_the_end_of_data_at_any_split(sink: SinkProcess, bodies: list[bytes], seed: int) -> None:
    run = secrets.randbits(64)
    stream = b""
    for number, body in enumerate(bodies):
        content = b"Received: by relay.example\r\nSubject: x\r\n\r\n" + body.removeprefix(b".") + b"\r\n"
        content = content.replace(b"\r\n.\r\n", b"\r\n..\r\n")
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
