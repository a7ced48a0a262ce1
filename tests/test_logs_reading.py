"""`relay-gateway logs`: order over workers, cursors, filters, what a person reads, and sums."""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import subprocess
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.config import RecordSettings
from gateway.logs import command, cursor
from gateway.logs.merging import LogEntry, MergedLogs, parsed, time_of
from gateway.logs.segments import Segment, opening_time, segment_name
from gateway.logs.selection import Selected, moment
from gateway.logs.sums import RecordSums
from gateway.logs.terse import line_of
from gateway.terminal import bar, printable, short, table
from tests.programs import program

NOW = 1_785_847_290_000_000_000  # 2026-08-04 12:41:30 UTC
SECOND = 1_000_000_000


def record(kind: str, second: float = 0, **values: Any) -> dict[str, Any]:
    stamp = f"{datetime.fromtimestamp(NOW / 1e9 + second, UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"
    return {"type": kind, "event_time": stamp, "created_time": stamp, **values}


class Directory:
    """A log directory with segments under way."""

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.segments: list[Segment] = []

    def segment(self, second: float, *records: dict[str, Any]) -> Segment:
        made = Segment(str(self.path), ".zst", level=0, header="", now_ns=NOW + int(second * SECOND))
        self.segments.append(made)
        self.add(made, *records)
        return made

    def add(self, segment: Segment, *records: dict[str, Any]) -> None:
        segment.add(b"".join(json.dumps(each).encode() + b"\n" for each in records))
        segment.flush()


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Directory]:
    directory = Directory(tmp_path / "logs")
    yield directory
    for segment in directory.segments:
        segment.finish()


def read(*directories: Directory, begin: str | None = None, oldest: float = 0.0) -> tuple[list[Any], str]:
    """The numbers of the records, and the cursor."""
    reading = MergedLogs([str(each.path) for each in directories], begin, oldest)
    try:
        return [entry.record.get("n") for entry in reading.entries()], reading.cursor
    finally:
        reading.close()


# --- order ------------------------------------------------------------------------------------------------------------


def test_records_of_several_workers_and_directories_come_in_order_of_time(logs, tmp_path):
    other = Directory(tmp_path / "other")
    logs.segment(0, record("Reception", 1, n=1), record("Reception", 4, n=4))
    logs.segment(0.5, record("Reception", 2, n=2), record("Reception", 6, n=6))
    other.segment(0.6, record("OOB", 3, n=3))
    logs.segment(5, record("Reception", 5, n=5))
    assert read(logs, other)[0] == [1, 2, 3, 4, 5, 6]
    other.segments[0].finish()


def test_a_bounce_stands_where_it_came_not_where_it_happened_elsewhere():
    bounce = record("OOB", 3) | {"event_time": "2020-01-01T00:00:00Z"}
    assert time_of(bounce) == (NOW + 3 * SECOND) / 1e9
    assert time_of({"type": "OOB", "created_time": "yesterday"}) is None


def test_what_a_template_wrote_stays_behind_what_was_in_front_of_it(logs):
    segment = logs.segment(0, record("Reception", 2, n=2))
    segment.add(b"from a template\n[1]\n")
    segment.flush()
    logs.segment(0.1, record("Reception", 1, n=1), record("Reception", 3, n=3))
    assert read(logs)[0] == [1, 2, None, None, 3]


def test_a_segment_without_whole_lines_holds_nothing_up(logs):
    segment = logs.segment(0)
    segment.add(b'{"type":')
    segment.flush()
    logs.segment(1, record("Reception", 1, n=1))
    assert read(logs)[0] == [1]


# --- cursors ----------------------------------------------------------------------------------------------------------


def test_a_cursor_leads_to_what_came_since_and_to_nothing_twice(logs):
    growing = logs.segment(0, record("Reception", 0, n=1))
    logs.segment(100, record("Reception", 100, n=2)).finish()
    logs.segments.pop()
    found, begin = read(logs)
    assert found == [1, 2]
    assert read(logs, begin=begin)[0] == []
    logs.add(growing, record("Reception", 101, n=3))
    logs.segment(102, record("Reception", 102, n=4))
    logs.segment(99, record("Reception", 103, n=5))  # by another worker, seen late
    found, begin = read(logs, begin=begin)
    assert found == [3, 4, 5]
    assert read(logs, begin=begin)[0] == []


def test_a_cursor_keeps_the_places_of_directories_that_are_not_read_this_time(logs, tmp_path):
    other = Directory(tmp_path / "other")
    logs.segment(0, record("Reception", n=1))
    other.segment(0, record("Reception", n=2))
    _, begin = read(logs, other)
    _, begin = read(other, begin=begin)
    assert read(logs, other, begin=begin)[0] == []
    other.segments[0].finish()


def test_a_cursor_stays_short_however_many_segments_were_read():
    names = {segment_name(NOW + number * 60 * SECOND, ".zst"): None for number in range(5000)}
    assert len(cursor.as_word({"/var/log/relay-gateway": cursor.LogPlace.after(names)})) < 200


def test_the_place_of_nothing_is_the_beginning():
    assert cursor.LogPlace.after({}).position(segment_name(NOW, "")) == 0
    assert cursor.from_word(cursor.as_word({"/a": cursor.NOWHERE})) == {"/a": cursor.NOWHERE}


@pytest.mark.parametrize("word", ["", "x", "abcd", "a" * 50, "cursor", "ä", cursor.as_word({})[:-3]])
def test_what_is_no_cursor_is_refused(word):
    with pytest.raises(ValueError, match="no cursor"):
        cursor.from_word(word)


@pytest.mark.parametrize("places", ["[]", '{"/a": ["", {"x": "y"}]}', '{"/a": [1, {}]}', '{"/a": [""]}', '{"/a": 1}'])
def test_what_is_no_place_is_refused(places):
    with pytest.raises(ValueError, match="no cursor"):
        cursor.from_word(base64.urlsafe_b64encode(zlib.compress(places.encode())).decode())


def test_the_name_of_a_segment_says_when_it_was_opened():
    assert opening_time(segment_name(NOW + 123_456_789, ".zst")) == NOW + 123_456_789
    assert opening_time("20260804-124130_recv") == NOW
    assert opening_time("20260804-124130.5") == NOW + SECOND // 2
    with pytest.raises(ValueError, match="no segment"):
        opening_time("notes.txt")


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def numbers(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[int]:
    assert run(*arguments) == 0
    return [json.loads(line)["n"] for line in capfd.readouterr().out.splitlines()]


def test_the_last_ones_are_shown(logs, capfd):
    logs.segment(0, *(record("Reception", second, n=second) for second in range(10)))
    assert numbers(capfd, "-n", "3", str(logs.path)) == [7, 8, 9]
    assert numbers(capfd, "-n", "0", str(logs.path)) == []


def test_a_cursor_is_printed_and_taken_back(logs, capfd):
    growing = logs.segment(0, record("Reception", n=1))
    assert run("--show-cursor", str(logs.path)) == 0
    said = capfd.readouterr().err.strip()
    logs.add(growing, record("Reception", n=2))
    assert numbers(capfd, "--from", said, str(logs.path)) == [2]
    assert numbers(capfd, "--from", said.removeprefix("cursor: "), str(logs.path)) == [2]


def test_a_cursor_file_remembers(logs, capfd, tmp_path):
    growing, place = logs.segment(0, record("Reception", n=1)), str(tmp_path / "place")
    assert numbers(capfd, "--cursor-file", place, str(logs.path)) == [1]
    assert numbers(capfd, "--cursor-file", place, str(logs.path)) == []
    logs.add(growing, record("Reception", n=2))
    assert numbers(capfd, "--cursor-file", place, "-t", "Reception", str(logs.path)) == [2]


def test_what_is_wrong_with_arguments_is_said(logs, capfd):
    assert run("--from", "nonsense", str(logs.path)) == 2
    assert capfd.readouterr().err == "relay-gateway logs: this is no cursor of `relay-gateway logs`\n"
    for arguments in (["--since", "soon"], ["-n", "-1"], ["-t", "Letter"], ["--json", "--terse"]):
        with pytest.raises(SystemExit):
            run(*arguments, str(logs.path))


def test_a_filter_and_a_time_choose(logs, capfd):
    logs.segment(
        0,
        record("Rejection", 1, n=1, reason="relay_denied", session_id="s1", peer_address={"name": "a", "addr": "::1"}),
        record("Rejection", 2, n=2, reason="syntax", session_id="s2", peer_address={"name": "", "addr": "10.1.2.3"}),
        record("Reception", 3, n=3, id="m1", sender="a@From.example", recipient="b@to.example", session_id="s2"),
        record("Delivery", 4, n=4, id="m1", sender="", recipient=["c@other.example", "b@to.example"]),
    )
    for arguments, expected in (
        (["-t", "Rejection"], [1, 2]),
        (["-r", "syntax", "-r", "relay_denied"], [1, 2]),
        (["-r", "syntax", "-s", "s1"], []),
        (["-s", "s2"], [2, 3]),
        (["-m", "m1"], [3, 4]),
        (["-d", "to.example"], [3, 4]),
        (["-d", "FROM.example"], [3]),
        (["-d", "example"], []),
        (["-p", "10.0.0.0/8"], [2]),
        (["-p", "::1", "-p", "10.1.2.3"], [1, 2]),
        (["-p", "A"], [1]),
        (["--since", "2026-08-04T12:41:32"], [2, 3, 4]),
        (["--until", "2026-08-04T12:41:32Z"], [1]),
        (["--since", "2026-08-04T14:41:32+02:00", "--until", "2026-08-04T12:41:33"], [2]),
        (["--since", "2026-08-05"], []),
    ):
        assert numbers(capfd, *arguments, str(logs.path)) == expected, arguments


def test_segments_that_were_complete_before_are_not_opened(logs):
    old = logs.segment(0, record("Reception", n=1))
    old.finish()
    logs.segments.clear()
    os.utime(old.path, (0, 1000))
    os.chmod(old.path, 0o000)  # root may open it all the same: so the text is no zstd either
    Path(old.path).chmod(0o644)
    Path(old.path).write_bytes(b"not zstd")
    Path(old.path).chmod(0o444)
    os.utime(old.path, (0, 1000))
    logs.segment(1, record("Reception", 1, n=2))
    assert read(logs, oldest=2000.0)[0] == [2]


def test_ages_and_times_are_understood():
    assert moment("90s", 1000.0) == 910.0
    assert [moment(text, 1e6) for text in ("15m", "2 h", "3 days", "1w")] == [999100.0, 992800.0, 740800.0, 395200.0]
    assert moment("1970-01-02", 0.0) == 86400.0
    assert moment("1970-01-01T01:00+01:00", 5.0) == 0.0
    with pytest.raises(ValueError, match="neither a time"):
        moment("2 moons", 0.0)


def test_nothing_asked_for_is_everything():
    wanted = Selected().test()
    assert wanted(LogEntry(0.0, b"from a template", {}))
    assert not Selected(types=["OOB"]).test()(LogEntry(0.0, b"from a template", {}))


# --- for a person -----------------------------------------------------------------------------------------------------


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_lines_for_people_unless_json_is_asked_for(logs, monkeypatch):
    logs.segment(0, record("Rejection", 1, reason="syntax", response={"code": 500, "content": "what?"}))
    for arguments, beginning in (([], b"2026-08-04 12:41:31.000 Rejection"), (["--json"], b'{"type": ')):
        output = io.BytesIO()
        monkeypatch.setattr("sys.stdout", Terminal(output))
        assert run(*arguments, str(logs.path)) == 0
        assert output.getvalue().startswith(beginning)


def words(**values: Any) -> str:
    made = record(**values)
    return line_of(LogEntry(0.0, json.dumps(made).encode(), made))


def test_a_line_says_who_to_whom_and_what_became_of_it():
    response = {"code": 550, "enhanced_code": {"class": 5, "subject": 7, "detail": 1}, "content": "no", "command": "X"}
    peer = {"name": "mx.example", "addr": "192.0.2.1"}
    to = ["b@x.example", "c@x.example", "d@x.example", "e@x.example"]
    assert words(
        kind="Reception", sender="a@x.example", recipient="b@x.example", size=1234, peer_address=peer, id="1"
    ) == (
        "2026-08-04 12:41:30.000 Reception        <a@x.example> -> <b@x.example> 1.2k octets, "
        "from mx.example (192.0.2.1) id 1"
    )
    assert words(kind="Bounce", sender="", recipient=to, response=response, reason="r", site="s") == (
        "2026-08-04 12:41:30.000 Bounce           <> -> <b@x.example>, <c@x.example>, <d@x.example> and 1 more "
        "s 550 5.7.1 no [r]"
    )
    assert words(kind="Rejection", response=response, peer_address={"name": "", "addr": "::1"}, session_id="s") == (
        "2026-08-04 12:41:30.000 Rejection        from ::1, to X: 550 5.7.1 no session s"
    )
    assert words(kind="Feedback", feedback_report={"feedback_type": "abuse"}, peer_address=peer) == (
        "2026-08-04 12:41:30.000 Feedback         abuse from mx.example (192.0.2.1)"
    )
    assert line_of(LogEntry(0.0, b"of a \x1b[31mtemplate", {})) == "of a \\x1b[31mtemplate"


@pytest.mark.parametrize("kind", ["Reception", "Delivery", "Rejection", "OOB", "Feedback", "AdminBounce", ""])
def test_no_record_does_more_to_a_terminal_than_be_read(kind):
    evil = "\x1b]0;owned\x07\r\n\u202e"
    values = {"sender": evil, "recipient": [evil], "session_id": evil, "response": {"code": 5, "content": evil}}
    line = words(kind=kind, **values, peer_address={"name": evil, "addr": evil}, reason=evil, site=evil)
    assert line.isprintable()


def test_amounts_are_short():
    amounts = [0, 0.254, 7, 12.34, 999, 999.6, 1000, 1234, 9949, 9950, 12345, 999_500, 1e6, 38e6, 2.5e18]
    assert [short(each) for each in amounts] == (
        ["0", "0.254", "7", "12.3", "999", "1000", "1.0k", "1.2k", "9.9k", "10k", "12k", "1.0M", "1.0M", "38M", "2500P"]
    )


def test_bars_are_as_long_as_what_they_stand_for():
    assert [bar(value, 10, 4) for value in (0, 0.001, 5, 10, 20)] == ["", "▏", "██", "████", "████"]
    assert bar(3, 0, 4) == ""


def test_columns_are_as_wide_as_what_is_in_them():
    assert list(table([("a", "1", "x"), ("b\n", "10", "")], right=(1,))) == ["a      1  x", "b |   10"]
    assert list(table([])) == []
    assert printable("a\tb") == "a\\tb"


# --- sums -------------------------------------------------------------------------------------------------------------


def test_records_are_summed_up_by_reason_domain_member_and_hour(logs, capfd):
    logs.segment(
        0,
        record("Reception", 0, size=100, sender="a@x.example", recipient=["b@One.example", "c@two.example"]),
        record("Delivery", 1, recipient="b@one.example", peer_address={"name": "mta1", "addr": "::1"}),
        record("TransientFailure", 2, recipient="c@two.example", reason="upstream_lost", site="fleet"),
        record("Rejection", 3, recipient="d@three.example", reason="relay_denied"),
        record("Rejection", 1800, recipient="", reason="syntax", left_out=40),
    )
    assert run("--stats", "--json", "--top", "2", str(logs.path)) == 0
    sums = json.loads(capfd.readouterr().out)
    assert sums == {
        "first": NOW / 1e9,
        "last": NOW / 1e9 + 1800,
        "records": {"Rejection": 2, "Reception": 1, "Delivery": 1, "TransientFailure": 1},
        "octets": 100,
        "reasons": {
            "syntax": {"Rejection": 40},
            "relay_denied": {"Rejection": 1},
            "upstream_lost": {"TransientFailure": 1},
        },
        "domains": {
            "one.example": {"Reception": 1, "Delivery": 1},
            "two.example": {"Reception": 1, "TransientFailure": 1},
        },
        "members": {"fleet": {"TransientFailure": 1}, "mta1": {"Delivery": 1}},
        "hours": {
            "2026-08-04 12:00": {"Reception": 1, "Delivery": 1, "TransientFailure": 1, "Rejection": 1},
            "2026-08-04 13:00": {"Rejection": 1},
        },
    }
    assert run("--stats", "--top", "2", "-t", "Rejection", str(logs.path)) == 0
    assert capfd.readouterr().out.splitlines() == [
        "2026-08-04 12:41 to 2026-08-04 13:11 UTC: 2 Rejection; 0 octets received",
        "",
        "by reason",
        "syntax        40  ████████████████████  40 Rejection",
        "relay_denied   1  ▌                     1 Rejection",
        "",
        "by recipient's domain",
        "three.example  1  ████████████████████  1 Rejection",
        "",
        "Rejection by hour, UTC",
        f"2026-08-04 12:00  1  {'█' * 40}",
        f"2026-08-04 13:00  1  {'█' * 40}",
    ]


def test_sums_of_nothing_say_so(logs, capfd):
    assert run("--stats", str(logs.path)) == 0
    assert capfd.readouterr().out == "no records\n"


def test_hours_without_records_have_their_place_and_the_last_week_is_shown():
    sums = RecordSums()
    for hour in (0, 500, 502):
        sums.add(LogEntry(hour * 3600.0, b"", {"type": "Reception"}))
    plotted = [line for line in sums.lines(5) if line.startswith("1970")][1:]
    assert len(plotted) == 168
    assert [line.split()[2] for line in plotted[-3:]] == ["1", "0", "1"]
    assert sums.as_json(5)["octets"] == 0


def test_more_domains_than_are_shown_are_counted():
    sums = RecordSums()
    for number in range(5):
        sums.add(LogEntry(0.0, b"", {"type": "Reception", "recipient": f"a@d{number}.example"}))
    assert "and 3 more" in list(sums.lines(2))
    assert parsed(b"[1]") == parsed(b"x") == {}


# --- names ------------------------------------------------------------------------------------------------------------


def test_zstds_own_tools_take_segments_by_their_name(logs):
    assert RecordSettings().suffix == ".zst"
    segment = logs.segment(0, record("Reception", n=1))
    segment.finish()
    logs.segments.clear()
    done = subprocess.run([program("zstd"), "-d", "-c", segment.path], capture_output=True, check=True)
    assert json.loads(done.stdout)["n"] == 1
