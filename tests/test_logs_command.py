"""`relay-gateway logs`: what it prints, how it follows, and how it ends."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.logs import command
from gateway.logs.segments import Segment

NOW = 1_785_847_290_123_456_789
RUN = (
    "import argparse, signal, sys; from gateway.logs import command; parser = argparse.ArgumentParser();"
    "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a shell's background job ignores it
    "command.add_arguments(parser); sys.exit(command.run(parser.parse_args()))"
)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    segment = Segment(str(tmp_path), "", level=0, header="", now_ns=NOW)
    add(segment, b'{"type":"Reception","n":1}\n{"type":"Bounce","n":2}\nfrom a template\n')
    return segment


def add(segment: Segment, lines: bytes) -> None:
    segment.add(lines)
    segment.flush()


def test_records_are_printed_one_per_line(segment, tmp_path, capfdbinary):
    assert run(str(tmp_path)) == 0
    assert capfdbinary.readouterr().out == b'{"type":"Reception","n":1}\n{"type":"Bounce","n":2}\nfrom a template\n'
    segment.finish()


def test_only_the_types_asked_for_are_printed(segment, tmp_path, capfdbinary):
    assert run("-t", "Bounce", "-t", "OOB", str(tmp_path)) == 0
    assert capfdbinary.readouterr().out == b'{"type":"Bounce","n":2}\n'
    segment.finish()


def test_several_directories_are_read(segment, tmp_path, capfdbinary):
    other = tmp_path / "other"
    other.mkdir()
    second = Segment(str(other), "_oob", level=0, header="", now_ns=NOW)
    add(second, b"{}\n")
    assert run(str(other), str(tmp_path)) == 0
    assert len(lines := capfdbinary.readouterr().out.splitlines()) == 4
    assert b"{}" in lines
    segment.finish()
    second.finish()


def test_a_directory_that_is_not_there_is_an_error(tmp_path, capfd):
    assert run(str(tmp_path / "absent")) == 1
    assert capfd.readouterr().err == f"relay-gateway logs: {tmp_path}/absent: No such file or directory\n"


def test_following_prints_what_comes_and_ends_quietly_at_ctrl_c(segment, tmp_path):
    process = start("-f", str(tmp_path))
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as output, process.stderr as errors:
        assert [output.readline()[:7] for _ in range(3)] == [b'{"type"', b'{"type"', b"from a "]
        add(segment, b"more\n")
        assert output.readline() == b"more\n"
        segment.finish()
        following = Segment(str(tmp_path), "", level=0, header="", now_ns=NOW + 1)
        add(following, b"next segment\n")
        assert output.readline() == b"next segment\n"
        following.finish()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert errors.read() == b""


def test_a_reader_that_has_seen_enough_is_no_error(segment, tmp_path):
    add(segment, b"".join(os.urandom(500).hex().encode() + b"\n" for _ in range(2000)))
    segment.finish()
    process = start(str(tmp_path))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    with process.stderr as errors:
        assert process.wait(30) == 0
        assert errors.read() == b""
