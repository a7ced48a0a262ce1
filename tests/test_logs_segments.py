"""Segment files: names, what a reader sees of them while they grow, completion, torn tails, sealing."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.logs.reader import DirectoryReader, SegmentReader
from gateway.logs.segments import Segment, is_complete, list_segments, seal_abandoned, segment_name
from tests.programs import program

NOW = 1_785_847_290_123_456_789  # 2026-08-04T12:41:30Z


def new_segment(directory: Path, *, header: str = "", now_ns: int = NOW) -> Segment:
    return Segment(str(directory), "_log", level=0, header=header, now_ns=now_ns)


def read(path: str | os.PathLike[str]) -> list[bytes]:
    reader = SegmentReader(os.fspath(path))
    try:
        return list(reader.lines())
    finally:
        reader.close()


def torn_copies(path: str, directory: Path) -> list[Path]:
    """Copies of the file that end after each of its bytes."""
    content = Path(path).read_bytes()
    copies = []
    for length in range(len(content) + 1):
        copy = directory / f"20260804-124130.{length:09d}"
        copy.write_bytes(content[:length])
        copies.append(copy)
    return copies


def test_a_name_is_the_utc_time_of_opening_to_the_nanosecond_and_the_suffix():
    assert segment_name(NOW, "_recv") == "20260804-124130.123456789_recv"
    assert segment_name(1_785_847_290_000_000_001, "") == "20260804-124130.000000001"


def test_segments_opened_at_the_same_instant_get_different_names(tmp_path):
    first, second = new_segment(tmp_path), new_segment(tmp_path)
    assert list_segments(str(tmp_path)) == [first.path, second.path]
    first.finish()
    second.finish()


def test_an_open_segment_shows_every_record_that_was_flushed(tmp_path):
    segment = new_segment(tmp_path, header="# one\n")
    segment.add(b"two\nthree\n")
    segment.flush()
    reader = SegmentReader(segment.path)
    assert list(reader.lines()) == [b"# one", b"two", b"three"]
    segment.add(b"four\n")
    assert list(reader.lines()) == []
    segment.flush()
    assert list(reader.lines()) == [b"four"]
    assert not reader.finished
    segment.finish()
    assert list(reader.lines()) == []
    assert reader.finished


def test_a_finished_segment_is_read_only_and_one_whole_zstd_frame(tmp_path):
    segment = new_segment(tmp_path)
    segment.add(b"one\n")
    assert not is_complete(os.stat(segment.path))
    segment.finish()
    assert not os.stat(segment.path).st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    frame = zstandard.ZstdDecompressor().decompressobj()
    assert frame.decompress(Path(segment.path).read_bytes()) == b"one\n"
    assert frame.eof


def test_the_segment_and_its_directory_entry_are_synced_once_per_change(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    segment = new_segment(tmp_path)
    segment.add(b"one\n")
    segment.flush()
    segment.sync()
    assert synced == [segment.path, str(tmp_path)]
    segment.sync()
    segment.add(b"two\n")
    segment.flush()
    segment.sync()
    assert synced == [segment.path, str(tmp_path), segment.path]
    segment.finish()
    assert len(synced) == 4


def test_a_segment_torn_after_any_byte_is_read_up_to_its_last_whole_record(tmp_path):
    segment = new_segment(tmp_path)
    records = [b'{"n":%d}' % n for n in range(12)]
    seen_at = {}
    for record in records:
        segment.add(record + b"\n")
        segment.flush()
        seen_at[os.stat(segment.path).st_size] = len(seen_at) + 1
    segment.finish()
    copies = tmp_path / "copies"
    copies.mkdir()
    for copy in torn_copies(segment.path, copies):
        found = read(copy)
        assert found == records[: len(found)]
        assert len(found) >= max((n for size, n in seen_at.items() if size <= copy.stat().st_size), default=0)


def test_records_of_a_batch_larger_than_a_zstd_block_are_never_read_in_half(tmp_path):
    segment = new_segment(tmp_path)
    records = [os.urandom(600).hex().encode() for _ in range(300)]  # 360 kB: several blocks
    segment.add(b"\n".join(records) + b"\n")
    segment.flush()
    content = Path(segment.path).read_bytes()
    segment.abandon()
    torn = tmp_path / "20260804-000000"
    for length in range(0, len(content), 7919):
        torn.write_bytes(content[:length])
        found = read(torn)
        assert found == records[: len(found)]


def test_damage_hides_what_follows_it_and_nothing_else(tmp_path, caplog):
    segment = new_segment(tmp_path)
    for n in range(50):
        segment.add(b"record %d\n" % n + os.urandom(100).hex().encode() + b"\n")
    segment.finish()
    damaged = tmp_path / "20260804-000000"
    damaged.write_bytes(Path(segment.path).read_bytes()[:3000] + b"\xff" * 500)
    found = read(damaged)
    assert 10 < len(found) < 80
    assert found == read(segment.path)[: len(found)]
    assert "cannot be read further" in caplog.text


def test_several_frames_in_one_segment_are_read(tmp_path):
    path = tmp_path / "20260804-124130"
    path.write_bytes(zstandard.compress(b"one\n") + zstandard.compress(b"two\n"))
    assert read(path) == [b"one", b"two"]


def test_a_segment_under_way_is_not_sealed_and_an_abandoned_one_is(tmp_path):
    segment = new_segment(tmp_path)
    segment.add(b"one\n")
    segment.flush()
    assert seal_abandoned(str(tmp_path)) == 0
    os.close(segment._fd)  # as the end of its process does
    assert seal_abandoned(str(tmp_path)) == 1
    assert is_complete(os.stat(segment.path))
    assert seal_abandoned(str(tmp_path)) == 0


def test_a_sealed_segment_is_a_whole_zstd_frame_wherever_it_was_torn(tmp_path):
    segment = new_segment(tmp_path)
    records = [b'{"n":%d}' % n for n in range(5)]
    for record in records:
        segment.add(record + b"\n")
        segment.flush()
    copies = tmp_path / "copies"
    copies.mkdir()
    paths = torn_copies(segment.path, copies)
    segment.finish()
    whole = {path: read(path) for path in paths}
    assert seal_abandoned(str(copies)) == len(paths)
    for path in paths[6:]:  # a frame's header has six bytes
        frame = zstandard.ZstdDecompressor().decompressobj()
        text = frame.decompress(path.read_bytes())
        assert frame.eof
        assert text.splitlines() == whole[path]


def test_the_zstd_command_reads_a_sealed_segment_without_complaint(tmp_path):
    segment = new_segment(tmp_path)
    segment.add(b"one\n")
    segment.flush()
    os.close(segment._fd)
    seal_abandoned(str(tmp_path))
    assert subprocess.run([program("zstd"), "-dc", segment.path], capture_output=True, check=True).stdout == b"one\n"


def test_files_that_are_no_segments_are_left_alone(tmp_path):
    note, hidden = tmp_path / "README", tmp_path / ".20260804-124130"
    note.write_text("x")
    hidden.write_text("x")
    assert seal_abandoned(str(tmp_path)) == 0
    assert os.access(note, os.W_OK)
    assert list_segments(str(tmp_path)) == []


def test_a_segment_given_up_keeps_what_was_flushed_and_drops_the_rest(tmp_path, monkeypatch):
    segment = new_segment(tmp_path)
    segment.add(b"kept\n")
    segment.flush()
    segment.add(os.urandom(5000).hex().encode() + b"\n")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:100]) if len(data) > 4900 else fail())

    def fail() -> int:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        segment.flush()
    monkeypatch.undo()
    segment.abandon()
    assert is_complete(os.stat(segment.path))
    assert zstandard.ZstdDecompressor().decompressobj().decompress(Path(segment.path).read_bytes()) == b"kept\n"


def test_a_segment_given_up_with_nothing_in_it_disappears(tmp_path):
    segment = new_segment(tmp_path)
    segment.add(b"never written\n")
    segment.abandon()
    assert list_segments(str(tmp_path)) == []


def test_a_directory_is_read_in_the_order_of_segment_names_and_followed(tmp_path):
    second = new_segment(tmp_path, now_ns=NOW + 10**9)
    first = new_segment(tmp_path, now_ns=NOW)
    for segment, record in ((second, b"2\n"), (first, b"1\n")):
        segment.add(record)
        segment.flush()
    reader = DirectoryReader(str(tmp_path))
    assert list(reader.lines()) == [b"1", b"2"]
    third = new_segment(tmp_path, now_ns=NOW + 2 * 10**9)
    for segment, record in ((third, b"3\n"), (first, b"1b\n")):
        segment.add(record)
        segment.flush()
    assert list(reader.lines()) == [b"1b", b"3"]
    for segment in (first, second, third):
        segment.finish()
    assert list(reader.lines()) == []
    assert list(reader.lines()) == []
    os.unlink(first.path)
    assert list(reader.lines()) == []
    reader.close()


@settings(max_examples=50)
@given(
    batches=st.lists(st.lists(st.binary().map(lambda b: b.replace(b"\n", b""))), max_size=8), cut=st.integers(0, 400)
)
def test_any_records_come_back_as_a_prefix_from_a_torn_segment(tmp_path_factory, batches, cut):
    directory = tmp_path_factory.mktemp("segments")
    segment = new_segment(directory)
    for batch in batches:
        segment.add(b"".join(line + b"\n" for line in batch))
        segment.flush()
    segment.finish()
    records = [line for batch in batches for line in batch]
    assert read(segment.path) == records
    content = Path(segment.path).read_bytes()
    torn = directory / "20260804-000000"
    torn.write_bytes(content[: max(0, len(content) - cut)])
    found = read(torn)
    assert found == records[: len(found)]


def test_names_match_what_kumomta_writes():
    assert re.fullmatch(r"\d{8}-\d{6}(\.\d{3,9})?_recv", segment_name(NOW, "_recv"))
