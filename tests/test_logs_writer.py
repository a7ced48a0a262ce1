"""LogWriter: what is written where, when it is durable, and what happens when the disk does not cooperate."""

from __future__ import annotations

import errno
import json
import os
import queue
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import LocalLogs, RecordSettings
from gateway.later import Later, answered
from gateway.logs import writer as writer_module
from gateway.logs.encoding import GAP, Record, laid_out
from gateway.logs.reader import DirectoryReader
from gateway.logs.segments import Segment, is_complete, list_segments
from gateway.logs.writer import LogWriter
from gateway.mail.message import Message
from gateway.smtp.address import NULL_SENDER, parse_address

LOST = metrics.LOG_LOST.slot()
FAILURES = metrics.LOG_FAILURES.slot()


class Loop:
    """The event loop's part: callbacks come from the thread and run here."""

    def __init__(self) -> None:
        self.callbacks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run_one(self) -> None:
        self.callbacks.get(timeout=30)()


def when_durable(writer: LogWriter, tell: Callable[[bool], object]) -> None:
    later = writer.durable()
    later.then(lambda: tell(later.result()))


class Harness:
    """Makes writers over a directory and closes what a test leaves open."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = Loop()
        self.page = CounterPage(bytearray(metrics.page_size()))
        self.writers: list[LogWriter] = []

    def writer(self, *loggers: LocalLogs, filter: Callable[[str, Message], bool] | None = None) -> LogWriter:
        writer = LogWriter(loggers, self.page, filter, call_soon=self.loop.callbacks.put)
        self.writers.append(writer)
        return writer

    def logger(self, **options: Any) -> LocalLogs:
        options = {"log_dir": str(self.directory), "min_free_space": 0, "min_free_inodes": 0, **options}
        return LocalLogs(**options)

    def durable(self, writer: LogWriter) -> bool:
        answers: list[bool] = []
        when_durable(writer, answers.append)
        while not answers:
            self.loop.run_one()
        return answers[0]

    def lines(self, directory: Path | None = None) -> list[bytes]:
        reader = DirectoryReader(str(directory or self.directory))
        try:
            return list(reader.lines())
        finally:
            reader.close()

    def numbers(self, directory: Path | None = None) -> list[int]:
        return [json.loads(line)["n"] for line in self.lines(directory)]


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path / "log")
    yield harness
    for writer in harness.writers:
        writer.close(10)


@pytest.fixture
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.001)


class FailingDisk:
    """Makes a function of `os` fail in the writer's thread, for as long as `error` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, function: str, error: int) -> None:
        self.error: int | None = error
        self.calls = threading.Semaphore(0)
        original = getattr(os, function)

        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread().name == "logs" and self.error is not None:
                self.calls.release()
                raise OSError(self.error, os.strerror(self.error))
            return original(*args, **kwargs)

        monkeypatch.setattr(os, function, call)


def record(n: int, kind: str = "Reception", filler: str = "", **meta: Any) -> Record:
    return laid_out({"type": kind, "n": n, "filler": filler, "meta": GAP, "headers": GAP}, meta)


A_MESSAGE = Message(
    "6f0c0000000011f1881a010b26353bd1",
    NULL_SENDER,
    [parse_address("u@d")],
    data=b"Subject: one\r\nX-Job: 7\r\nx-job: 8\r\nTo: u@d\r\n\r\nbody\r\n",
)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_records_are_written_in_order_and_complete_segments_are_left_behind(harness):
    writer = harness.writer(harness.logger())
    for n in range(1000):
        assert writer.submit(record(n))
    assert writer.close(10)
    assert harness.numbers() == list(range(1000))
    (path,) = list_segments(str(harness.directory))
    assert is_complete(os.stat(path))


def test_nothing_is_opened_before_the_first_record(harness):
    writer = harness.writer(harness.logger())
    assert harness.durable(writer)
    assert list_segments(str(harness.directory)) == []


def test_a_record_is_written_without_anybody_asking(harness):
    writer = harness.writer(harness.logger())
    writer.submit(record(1))
    wait_until(lambda: harness.directory.exists() and harness.numbers() == [1])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_segment_ends_at_max_file_size_before_compression(harness):
    writer = harness.writer(harness.logger(max_file_size=1000))
    for n in range(3):
        writer.submit(record(n, filler="x" * 2000))
        assert harness.durable(writer)
    paths = list_segments(str(harness.directory))
    assert len(paths) == 3
    assert all(is_complete(os.stat(path)) for path in paths)


def test_a_segment_ends_after_max_segment_duration_although_nothing_comes(harness):
    writer = harness.writer(harness.logger(max_segment_duration=0.02))
    writer.submit(record(1))
    assert harness.durable(writer)
    (path,) = list_segments(str(harness.directory))
    wait_until(lambda: is_complete(os.stat(path)))
    writer.submit(record(2))
    assert harness.durable(writer)
    assert harness.numbers() == [1, 2]
    assert len(list_segments(str(harness.directory))) == 2


def test_types_go_where_per_record_says(harness, tmp_path):
    bounces = tmp_path / "bounces"
    writer = harness.writer(
        harness.logger(
            per_record={
                "Reception": RecordSettings(suffix="_recv"),
                "Delivery": RecordSettings(suffix="_recv"),
                "Bounce": RecordSettings(log_dir=str(bounces)),
                "Rejection": RecordSettings(enable=False),
            }
        )
    )
    kinds = ["Reception", "Delivery", "Bounce", "Rejection", "TransientFailure"]
    assert [writer.submit(record(n, kind)) for n, kind in enumerate(kinds)] == [True, True, True, False, True]
    writer.close(10)
    names = sorted(Path(path).name.partition("_")[2] for path in list_segments(str(harness.directory)))
    assert names == ["", "recv"]
    assert harness.numbers(bounces) == [2]
    assert sorted(harness.numbers()) == [0, 1, 4]


def test_any_covers_the_types_that_are_not_listed(harness):
    writer = harness.writer(
        harness.logger(per_record={"Any": RecordSettings(enable=False), "OOB": RecordSettings(suffix="_oob")})
    )
    assert not writer.submit(record(1))
    assert writer.submit(record(2, "OOB"))
    writer.close(10)
    assert harness.numbers() == [2]


def test_loggers_are_independent_and_each_shows_its_own_metadata_and_headers(harness, tmp_path):
    directories = [tmp_path / name for name in ("none", "some", "all")]
    writer = harness.writer(
        harness.logger(log_dir=str(directories[0])),
        harness.logger(log_dir=str(directories[1]), meta=("tenant", "x_*"), headers=("X-*",)),
        harness.logger(log_dir=str(directories[2]), meta=("*",), headers=("*",)),
    )
    metadata = {"tenant": "t", "x_one": 1, "Tenant": "other", "x_null": None}
    writer.submit(record(1, **metadata), A_MESSAGE)
    writer.submit(record(2, "Rejection", **metadata))
    writer.close(10)
    shown = [[(r["meta"], r["headers"]) for r in map(json.loads, harness.lines(d))] for d in directories]
    some = {"tenant": "t", "x_one": 1, "x_null": None}
    every = some | {"Tenant": "other"}
    assert shown == [
        [({}, {}), ({}, {})],
        [(some, {"X-Job": ["7", "8"]}), (some, {})],
        [(every, {"Subject": "one", "X-Job": ["7", "8"], "To": "u@d"}), (every, {})],
    ]


def test_a_template_and_a_segment_header_replace_json(harness):
    template = "{{ type }},{{ n }},{{ nothing }},{{ log_record.meta.flag }},{{ log_record.meta.absent }}"
    writer = harness.writer(
        harness.logger(meta=("*",), per_record={"Any": RecordSettings(template=template, segment_header="type,n\n")})
    )
    writer.submit(record(1, flag=True))
    writer.submit(record(2, flag=None))
    writer.close(10)
    assert harness.lines() == [b"type,n", b"Reception,1,,true,", b"Reception,2,,none,"]


def test_a_template_that_fails_leaves_the_record_as_json(harness, caplog):
    writer = harness.writer(harness.logger(per_record={"Any": RecordSettings(template="{{ 1 / 0 }}")}))
    writer.submit(record(1))
    writer.close(10)
    assert harness.numbers() == [1]
    assert "a template failed" in caplog.text


def test_a_filter_suppresses_records_of_messages_in_its_logger_only(harness, tmp_path):
    events = []

    def policy(event: str, message: Any) -> Later:
        events.append((event, message))
        return answered(False)

    filtered, open_to_all = tmp_path / "filtered", tmp_path / "all"
    writer = harness.writer(
        harness.logger(log_dir=str(filtered), filter_event="should_log"),
        harness.logger(log_dir=str(open_to_all)),
        filter=policy,
    )
    writer.submit(record(1), A_MESSAGE)
    writer.submit(record(2, "Rejection"))  # as in KumoMTA, no filter sees these
    writer.close(10)
    assert events == [("should_log", A_MESSAGE)]
    assert harness.numbers(filtered) == [2]
    assert harness.numbers(open_to_all) == [1, 2]


def test_a_filter_that_waits_decides_later(harness):
    answers: list[Later] = []

    def policy(event: str, message: Any) -> Later:
        answers.append(Later())
        return answers[-1]

    writer = harness.writer(harness.logger(filter_event="should_log"), filter=policy)
    assert [writer.submit(record(number), A_MESSAGE) for number in range(3)] == [False] * 3
    answers[1].settle(True)
    answers[0].settle(False)
    writer.close(10)  # nobody is left to decide about the last: a record too many is better than one too few
    assert harness.numbers() == [1, 2]


def test_a_filter_that_fails_suppresses_nothing(harness):
    def policy(event: str, message: Any) -> Later:
        later = Later()
        later.fail(RuntimeError("boom"))
        return later

    writer = harness.writer(harness.logger(filter_event="should_log"), filter=policy)
    assert writer.submit(record(1), A_MESSAGE)
    writer.close(10)
    assert harness.numbers() == [1]


def test_records_are_counted_by_type(harness):
    writer = harness.writer(harness.logger(), harness.logger())
    writer.submit(record(1, "Bounce"))
    writer.submit(record(2, "Bounce"))
    assert harness.page.get(metrics.LOG_RECORDS.slot("Bounce")) == 2
    writer.close(10)
    assert harness.page.get(metrics.LOG_BACKLOG.slot()) == 0


def test_abandoned_segments_are_sealed_when_a_writer_starts(harness):
    harness.directory.mkdir()
    abandoned = Segment(str(harness.directory), "", level=0, header="", now_ns=time.time_ns())
    abandoned.add(b"x\n")
    abandoned.flush()
    os.close(abandoned._fd)
    writer = harness.writer(harness.logger())
    assert harness.durable(writer)
    assert is_complete(os.stat(abandoned.path))


def test_a_segment_that_somebody_removed_is_replaced(harness):
    writer = harness.writer(harness.logger())
    writer.submit(record(1))
    assert harness.durable(writer)
    (path,) = list_segments(str(harness.directory))
    os.unlink(path)
    writer.submit(record(2))
    assert harness.durable(writer)
    assert harness.numbers() == [2]


# --- durability -------------------------------------------------------------------------------------------------------


def test_durable_answers_after_the_write_and_the_sync_of_file_and_directory(harness, monkeypatch):
    order: list[str] = []
    for name in ("write", "fsync"):
        original = getattr(os, name)

        def call(fd: int, *args: Any, _name: str = name, _original: Any = original) -> Any:
            if threading.current_thread().name == "logs":
                order.append(f"{_name} {'directory' if os.path.isdir(f'/proc/self/fd/{fd}') else 'file'}")
            return _original(fd, *args)

        monkeypatch.setattr(os, name, call)
    writer = harness.writer(harness.logger())
    writer.submit(record(1))
    when_durable(writer, lambda ok: order.append(f"done {ok}"))
    harness.loop.run_one()
    assert order == ["write file", "fsync file", "fsync directory", "done True"]


def test_many_durable_calls_share_a_sync(harness, monkeypatch):
    blocked, syncs = threading.Event(), []
    fsync = os.fsync

    def slow_fsync(fd: int) -> None:
        syncs.append(fd)
        blocked.wait(30)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    writer = harness.writer(harness.logger())
    answers: list[bool] = []
    writer.submit(record(0))
    when_durable(writer, answers.append)
    wait_until(lambda: bool(syncs))
    for n in range(1, 50):
        writer.submit(record(n))
        when_durable(writer, answers.append)
    blocked.set()
    while len(answers) < 50:
        harness.loop.run_one()
    assert all(answers)
    assert len(syncs) == 3  # file and directory, then the file once for the 49 others


def test_whoever_asks_soon_after_a_sync_shares_the_next_one(harness, monkeypatch):
    paused, syncs = threading.Event(), []
    fsync, sleep = os.fsync, time.sleep

    def pause(seconds: float) -> None:
        if threading.current_thread().name == "logs" and seconds > 0:
            paused.wait(30)
        else:
            sleep(seconds)

    monkeypatch.setattr(os, "fsync", lambda fd: (syncs.append(fd), fsync(fd)))
    monkeypatch.setattr(time, "sleep", pause)
    monkeypatch.setattr(writer_module, "SYNC_SECONDS", 60)
    writer = harness.writer(harness.logger())
    writer.submit(record(0))
    assert harness.durable(writer)
    answers: list[bool] = []
    for n in range(1, 10):
        writer.submit(record(n))
        when_durable(writer, answers.append)
    paused.set()
    while len(answers) < 9:
        harness.loop.run_one()
    assert all(answers)
    assert len(syncs) == 3  # file and directory, then the file once


def test_a_failed_sync_is_reported_and_the_segment_is_not_trusted_again(harness, monkeypatch, quick_retry):
    disk = FailingDisk(monkeypatch, "fsync", errno.EIO)
    writer = harness.writer(harness.logger())
    writer.submit(record(1))
    assert not harness.durable(writer)
    disk.error = None
    wait_until(lambda: harness.durable(writer))
    writer.submit(record(2))
    assert harness.durable(writer)
    assert len(list_segments(str(harness.directory))) == 2
    assert harness.numbers() == [1, 2]


def test_a_sync_that_fails_with_nobody_waiting_fails_the_next_one_who_asks(harness, monkeypatch, quick_retry):
    disk = FailingDisk(monkeypatch, "fsync", errno.EIO)
    writer = harness.writer(harness.logger(max_file_size=1))  # every batch is finished, hence synced
    writer.submit(record(1))
    assert disk.calls.acquire(timeout=30)
    disk.error = None
    wait_until(lambda: harness.page.get(FAILURES) == 1)
    assert not harness.durable(writer)
    wait_until(lambda: harness.durable(writer))


# --- a disk that fails ------------------------------------------------------------------------------------------------


def test_records_wait_while_there_is_no_space_and_are_written_once(harness, monkeypatch, quick_retry, caplog):
    disk = FailingDisk(monkeypatch, "write", errno.ENOSPC)
    writer = harness.writer(harness.logger())
    for n in range(100):
        writer.submit(record(n))
    assert disk.calls.acquire(timeout=30)
    for n in range(100, 200):
        writer.submit(record(n))
    assert not harness.durable(writer)
    disk.error = None
    assert writer.close(10)
    assert harness.numbers() == list(range(200))
    assert len(list_segments(str(harness.directory))) == 1
    assert harness.page.get(FAILURES) > 0
    assert harness.page.get(LOST) == 0
    assert caplog.text.count("cannot write log records") == 1


def test_a_write_that_is_cut_short_goes_on_where_it_stopped(harness, monkeypatch, quick_retry):
    write, calls = os.write, []

    def scant(fd: int, data: bytes) -> int:
        if threading.current_thread().name != "logs":
            return write(fd, data)
        calls.append(len(data))
        if len(calls) % 3 == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:7])

    monkeypatch.setattr(os, "write", scant)
    writer = harness.writer(harness.logger())
    for n in range(20):
        writer.submit(record(n))
    writer.durable()
    wait_until(lambda: harness.numbers() == list(range(20)))
    monkeypatch.undo()


def test_the_thread_rests_between_attempts_although_an_open_segment_has_expired(harness, monkeypatch):
    waits: list[float | None] = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if harness.page.get(FAILURES):
                waits.append(timeout)
            return super().wait(timeout)

    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(threading, "Event", Event)
    writer = harness.writer(harness.logger(max_segment_duration=0.2))
    writer.submit(record(1))
    assert harness.durable(writer)
    disk = FailingDisk(monkeypatch, "write", errno.ENOSPC)
    writer.submit(record(2))
    for _ in range(8):  # the last ones when the segment has long expired
        assert disk.calls.acquire(timeout=30)
    assert len(waits) <= 2 * 8
    disk.error = None
    assert writer.close(10)
    assert harness.numbers() == [1, 2]


def test_an_input_output_error_moves_the_records_to_another_segment(harness, monkeypatch, quick_retry):
    writer = harness.writer(harness.logger())
    writer.submit(record(1))
    assert harness.durable(writer)
    disk = FailingDisk(monkeypatch, "write", errno.EIO)
    writer.submit(record(2))
    assert not harness.durable(writer)
    disk.error = None
    assert writer.close(10)
    assert harness.numbers() == [1, 2]
    assert len(list_segments(str(harness.directory))) == 2


def test_what_cannot_be_written_until_the_end_is_counted_as_lost(harness, monkeypatch, caplog):
    FailingDisk(monkeypatch, "write", errno.ENOSPC)
    writer = harness.writer(harness.logger())
    for n in range(3):
        writer.submit(record(n))
    assert not writer.close(10)
    assert harness.page.get(LOST) == 3
    assert "3 log records could not be written" in caplog.text
    harness.writers.clear()


def test_one_loggers_failure_does_not_hold_up_another(harness, tmp_path, quick_retry):
    good, bad = tmp_path / "good", tmp_path / "bad"
    writer = harness.writer(harness.logger(log_dir=str(bad)), harness.logger(log_dir=str(good)))
    bad.rmdir()
    bad.write_text("a file where a directory should be")
    writer.submit(record(1))
    assert not harness.durable(writer)
    assert harness.numbers(good) == [1]
    bad.unlink()
    assert writer.close(10)
    assert harness.numbers(bad) == [1]


def test_at_back_pressure_the_writer_is_full_and_calls_back_when_there_is_room(harness, monkeypatch, quick_retry):
    disk = FailingDisk(monkeypatch, "write", errno.ENOSPC)
    writer = harness.writer(harness.logger(back_pressure=10))
    calls: list[str] = []
    for n in range(9):
        writer.submit(record(n))
        assert not writer.full
    writer.submit(record(9))
    assert writer.full
    writer.submit(record(10))  # a transaction under way: kept as well
    writer.when_room(lambda: calls.append("first"))
    writer.when_room(lambda: calls.append("second"))
    disk.error = None
    while writer.full:
        harness.loop.run_one()
    assert calls == ["first", "second"]
    writer.close(10)
    assert harness.numbers() == list(range(11))


def test_when_room_calls_back_at_once_where_there_is_room(harness):
    writer = harness.writer(harness.logger())
    calls: list[str] = []
    writer.when_room(lambda: calls.append("room"))
    harness.loop.run_one()
    assert calls == ["room"]


def test_a_stalled_disk_does_not_stall_submit(harness, monkeypatch):
    stalled, released = threading.Event(), threading.Event()
    write = os.write

    def stall(fd: int, data: bytes) -> int:
        if threading.current_thread().name == "logs":
            stalled.set()
            released.wait(30)
        return write(fd, data)

    monkeypatch.setattr(os, "write", stall)
    writer = harness.writer(harness.logger(back_pressure=500))
    writer.submit(record(0))
    writer.durable()
    assert stalled.wait(30)
    for n in range(1, 500):
        writer.submit(record(n))
    assert writer.full
    released.set()
    assert writer.close(10)
    assert harness.numbers() == list(range(500))


# --- free space -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"min_free_space": 2**62}, {"min_free_space": "100.0%"}, {"min_free_space": "101%"}])
def test_too_little_free_space_is_a_disk_problem_from_the_start(harness, limit):
    writer = harness.writer(harness.logger(**limit))
    assert writer.disk_problem is not None
    assert "min_free_space" in writer.disk_problem


def test_enough_space_is_no_problem_and_a_shortage_later_is_noticed(harness, monkeypatch, caplog):
    monkeypatch.setattr(writer_module, "DISK_CHECK_SECONDS", 0.001)
    writer = harness.writer(harness.logger())
    assert writer.disk_problem is None
    monkeypatch.setattr(writer_module, "shortage", lambda *args: "not enough")
    wait_until(lambda: writer.disk_problem == "not enough")
    monkeypatch.setattr(writer_module, "shortage", lambda *args: None)
    wait_until(lambda: writer.disk_problem is None)


def test_a_directory_that_cannot_be_made_is_a_disk_problem(harness, tmp_path, quick_retry):
    (tmp_path / "file").write_text("")
    writer = harness.writer(harness.logger(log_dir=str(tmp_path / "file" / "log")))
    assert writer.disk_problem is not None
    assert "Not a directory" in writer.disk_problem


# --- killed -----------------------------------------------------------------------------------------------------------

SUBMIT_UNTIL_KILLED = textwrap.dedent("""
    import os, queue, sys, time
    from gateway import metrics
    from gateway._fastpath import CounterPage
    from gateway.config import LocalLogs
    from gateway.logs.encoding import GAP, laid_out
    from gateway.logs.writer import LogWriter

    answers = queue.SimpleQueue()
    config = LocalLogs(log_dir=sys.argv[1], min_free_space=0, min_free_inodes=0, max_file_size=200_000)
    writer = LogWriter([config], CounterPage(bytearray(metrics.page_size())), call_soon=lambda call: call())
    for n in range(10**9):
        layout = {"type": "Reception", "n": n, "meta": GAP, "headers": GAP, "filler": os.urandom(n % 400).hex()}
        writer.submit(laid_out(layout, {}))
        if n % 200 == 0:
            os.write(1, b"submitted %d %d\\n" % (n, time.monotonic_ns()))
            later = writer.durable()
            later.then(lambda later=later, n=n: os.write(1, b"durable %d %d\\n" % (n, later.result())))
            time.sleep(0.001)
""")


@pytest.mark.parametrize("lines_before_the_kill", [1, 40, 333])
def test_a_killed_process_leaves_every_durable_record_and_loses_at_most_the_last_second(
    tmp_path, lines_before_the_kill
):
    process = subprocess.Popen(
        [sys.executable, "-c", SUBMIT_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdout is not None
    with process.stdout as output:
        lines = [output.readline() for _ in range(lines_before_the_kill)]
        process.kill()
        killed_at = time.monotonic_ns()
        lines += output.read().splitlines()
    process.wait()
    said = [line.split() for line in lines]
    durable = max((int(n) for what, n, ok in said if what == b"durable"), default=-1)
    old = max((int(n) for what, n, ns in said if what == b"submitted" and killed_at - int(ns) > 10**9), default=-1)

    harness = Harness(tmp_path)
    before_sealing = harness.numbers() if list_segments(str(tmp_path)) else []
    assert before_sealing == list(range(len(before_sealing)))
    assert len(before_sealing) > max(durable, old)

    writer = harness.writer(harness.logger())  # a starting writer seals what was left
    assert harness.durable(writer)
    assert all(is_complete(os.stat(path)) for path in list_segments(str(tmp_path)))
    assert harness.numbers() == before_sealing
    writer.close(10)
