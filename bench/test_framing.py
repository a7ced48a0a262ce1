"""What framing costs: `python -m pytest bench/test_framing.py`.

Aims: a command below 80 ns, a 1 KiB body below 0.5 µs, one of 100 KiB in 64 KiB portions below 12 µs. Bodies made
of nothing but trouble show that the worst case is linear too.
"""

from __future__ import annotations

import pytest

from gateway import _fastpath
from gateway._fastpath import Framer

KIB = 1024
LINE = b"x" * 76 + b"\r\n"
COMMANDS = (
    b"EHLO client.example\r\nMAIL FROM:<a@client.example> SIZE=1024\r\nRCPT TO:<b@in.example>\r\n"
    b"DATA\r\nRSET\r\nQUIT\r\n"
)


def body_of(line: bytes, size: int) -> bytes:
    return (line * (size // len(line) + 1))[: size - 2] + b"\r\n"


def report(benchmark, octets: int) -> None:
    benchmark.extra_info["GB_per_s"] = round(octets / benchmark.stats.stats.median / 1e9, 2)


def test_600_pipelined_commands(benchmark):
    framer = Framer(512)

    def frame():
        framer.feed(COMMANDS * 100)
        next_verb = framer.next_verb
        while next_verb() >= 0:
            pass

    benchmark(frame)
    benchmark.extra_info["ns_per_command"] = round(benchmark.stats.stats.median / 600 * 1e9, 1)


def test_600_commands_one_by_one(benchmark):
    framer = Framer(512)
    lines = COMMANDS.splitlines(keepends=True) * 100

    def frame():
        for line in lines:
            framer.feed(line)
            framer.next_verb()
            framer.next_verb()

    benchmark(frame)
    benchmark.extra_info["ns_per_command"] = round(benchmark.stats.stats.median / 600 * 1e9, 1)


@pytest.mark.parametrize("kib", [1, 10, 100, 5 * KIB])
def test_body_of_76_character_lines(benchmark, kib):
    stream = body_of(LINE, kib * KIB) + b".\r\n"
    portions = [stream[at : at + 64 * KIB] for at in range(0, len(stream), 64 * KIB)]
    framer = Framer(512)

    def frame():
        framer.start_content(1 << 30, 998)
        for portion in portions:
            framer.feed(portion)
            body = framer.next_content()
        return body

    assert benchmark(frame).size == kib * KIB
    report(benchmark, len(stream))


@pytest.mark.parametrize("line", [b"\n", b"\r", b".", b"\n.", b"\r\n", b"\r\n.x", b"\r\n..", b"\0", b"x" * 997 + b"\n"])
def test_64_kib_body_of_nothing_but_trouble(benchmark, line):
    stream = body_of(line, 64 * KIB) + b"x\r\n.\r\n"
    framer = Framer(512)

    def frame():
        framer.start_content(1 << 30, 998)
        framer.feed(stream)
        return framer.next_content()

    assert benchmark(frame) is not None
    report(benchmark, len(stream))


@pytest.mark.parametrize("line", [LINE, b"." * 75 + b"\r\n"], ids=["no dots", "dots"])
@pytest.mark.parametrize("function", [_fastpath.unstuff, _fastpath.stuff])
def test_dots_of_100_kib(benchmark, function, line):
    content = body_of(line, 100 * KIB)
    benchmark(function, content)
    report(benchmark, len(content))


@pytest.mark.parametrize("fix", [False, True])
def test_repair_of_100_kib_with_bare_lfs(benchmark, fix):
    content = body_of(b"x" * 76 + b"\n", 100 * KIB)
    benchmark(_fastpath.repair_line_endings, content, fix)
    report(benchmark, len(content))
