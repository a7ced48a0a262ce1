"""Contents: the same octets in memory, in files and in both; what they take is counted, bounded, and given back."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._fastpath import Content, ContentStore, Framer, content_of, stuff, unstuff
from gateway.mail.message import Message
from gateway.smtp.address import NULL_SENDER
from tests.test_framing import CONTENTS, CUTS, MAX_LINE, cuts_of, splits

LINE = b"x" * 98 + b"\r\n"
THRESHOLDS = st.integers(0, 40)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def store_in(directory: Path | str, *, threshold: int = 0, limit: int = 1 << 20, most_files: int = 100) -> ContentStore:
    return ContentStore(str(directory), limit, most_files, threshold)


def received(
    portions: Iterable[bytes], store: ContentStore | None, *, max_size: int = 1 << 30, max_line: int = 1 << 20
) -> Content:
    framer = Framer(1000, store)
    framer.start_content(max_size, max_line)
    content = None
    for portion in portions:
        framer.feed(portion)
        content = content or framer.next_content()
    assert content is not None
    return content


def files() -> dict[int, str]:
    """What this process's descriptors lead to."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the list's own
            found[int(fd)] = str(Path(f"/proc/self/fd/{fd}").readlink())
    return found


def unused(store: ContentStore) -> bool:
    return (store.memory, store.files, store.file_octets) == (0, 0, 0)


# --- the same octets ------------------------------------------------------------------------------------------------


@given(CONTENTS, CUTS, THRESHOLDS)
def test_a_content_is_that_of_the_oracle_wherever_it_is_kept(start: bytes, cuts: list[int], threshold: int) -> None:
    stream = start + b"\r\n.\r\nQUIT\r\n"
    expected = reference.content(stream)
    assert expected is not None
    store = store_in("/tmp", threshold=threshold)
    for portions in splits(stream, cuts):
        content = received(portions, store)
        assert b"".join(content.pieces()) == content.joined() == expected.stuffed
        assert content.octets == len(expected.stuffed)
        assert content.size == expected.size
        assert b"".join(content.plain_pieces()) == reference.unstuff(expected.stuffed)
        assert content.head(7) == expected.stuffed[: len(content.head(7))]
        assert len(content.head(7)) >= min(7, content.octets)
        assert content.in_memory is (store.files == 0)
        assert store.memory + store.file_octets == content.octets
        del content
        assert unused(store)


@settings(max_examples=20)
@given(st.binary(max_size=40), st.integers(250_000, 270_000), st.lists(st.integers(0, 600_000), max_size=8))
def test_dots_are_found_wherever_a_file_is_cut_into_pieces(middle: bytes, distance: int, cuts: list[int]) -> None:
    plain = (b".\r\n.x\r\n" * 40_000)[:distance] + middle + b"\r\n" + b"..\r\n" * 80_000
    content = received(cuts_of(stuff(plain) + b".\r\n", cuts), store_in("/tmp"))
    assert not content.in_memory
    pieces = list(content.pieces())
    assert len(pieces) > 2 and max(map(len, pieces)) <= 256 * 1024
    assert b"".join(pieces) == stuff(plain)
    assert b"".join(content.plain_pieces()) == unstuff(stuff(plain))


@given(CONTENTS, THRESHOLDS, st.booleans())
def test_a_message_is_the_same_wherever_its_content_is_kept(start: bytes, threshold: int, fix: bool) -> None:
    def message(store: ContentStore | None) -> Message:
        content = received([start + b"\r\n.\r\n"], store)
        made = Message("0" * 32, NULL_SENDER, [], content, fix_line_endings=fix)
        made.prepend(b"Received: x\r\n")
        return made

    there, here = message(store_in("/tmp", threshold=threshold)), message(None)
    assert there.data() == here.data()
    assert there.header_block() == here.header_block()
    assert b"".join(there.wire().pieces()) == b"".join(here.wire().pieces())
    assert (there.wire().size, there.wire().octets) == (here.wire().size, here.wire().octets)
    for one in (there, here):
        one.set_data(one.data() + b".more")
    assert there.data() == here.data()


@pytest.mark.parametrize("end", [b"\r\n.\r\n", b"\r", b"\r\n", b"\r\n.", b"\r\n.\r"])
def test_the_end_is_found_behind_what_is_in_the_file_already(directory: Path, end: bytes) -> None:
    stream = b"a" * 1000 + b"\r\n.\r\n"
    cut = 1000 + len(end)
    content = received([stream[:cut], stream[cut:]], store_in(directory))
    assert content.joined() == b"a" * 1000 + b"\r\n"
    assert content.octets == content.size == 1002


def test_fields_stand_in_front_of_a_content_in_a_file(directory: Path) -> None:
    content = received([LINE * 5000 + b".\r\n"], store_in(directory))
    whole = content.behind([b"A: b\r\n", "C: ü\r\n".encode()])
    assert not whole.in_memory and whole.has_8bit and not content.has_8bit
    assert b"".join(whole.pieces()) == whole.joined() == b"A: b\r\nC: \xc3\xbc\r\n" + LINE * 5000
    assert whole.octets == whole.size == content.size + 13


# --- the store --------------------------------------------------------------------------------------------------------


def test_a_small_content_has_no_file_and_a_large_one_has_one_without_a_name(directory: Path) -> None:
    store = ContentStore(str(directory), 1 << 30, 100)
    small = received([LINE * 10_000 + b".\r\n"], store)
    assert (small.in_memory, store.memory, store.files, store.written) == (True, 1_000_000, 0, 0)
    large = received(cuts_of(LINE * 20_000 + b".\r\n", range(0, 2_000_000, 200_000)), store)
    assert (large.in_memory, store.files, store.written) == (False, 1, 1)
    assert store.memory < 1_000_000 + 65_536
    assert store.memory + store.file_octets == 3_000_000
    assert list(directory.iterdir()) == []
    assert any(str(directory) in target for target in files().values())


def test_a_file_system_without_nameless_files_will_do(directory: Path) -> None:
    store = ContentStore("/dev/shm" if Path("/dev/shm").is_dir() else str(directory), 1 << 20, 100, 0)
    assert received([LINE + b".\r\n"], store).joined() == LINE


def test_memory_and_files_are_given_back_with_the_content(directory: Path) -> None:
    before = files()
    store = store_in(directory, threshold=1000)
    contents = [received([LINE * n + b".\r\n"], store) for n in (1, 5, 50, 5000)]
    contents += [content.repaired(True) for content in contents]
    contents += [content.behind([b"X: y\r\n"]) for content in contents]
    assert store.files == 4 and store.memory > 0
    del contents
    assert unused(store) and files() == before
    framer = Framer(1000, store)
    framer.start_content(1 << 30, 998)
    framer.feed(LINE * 100)
    framer.next_content()
    assert store.files == 1
    del framer
    assert unused(store) and files() == before
    assert not gc.garbage


def test_at_half_the_limit_contents_take_less_and_at_the_limit_nothing(directory: Path) -> None:
    store = ContentStore(str(directory), 1 << 26, 1000)
    ballast = [content_of(LINE * 10_000, store) for _ in range(store.limit // 2_000_000)]
    assert all(content.in_memory for content in ballast)
    while store.memory < store.limit // 2:
        ballast.append(content_of(LINE * 650, store))
    less = [content_of(LINE * n, store) for n in (650, 700, 650)]
    assert [content.in_memory for content in less] == [True, False, True]
    while store.memory + 65_000 < store.limit:
        ballast.append(content_of(LINE * 650, store))
    assert not content_of(LINE * 650, store).in_memory  # the limit is not passed
    assert not store.is_full()  # there are files to be had
    ballast.clear()
    assert content_of(LINE * 10_000, store).in_memory


def test_without_a_file_to_be_had_contents_stay_in_memory_and_the_store_is_full(directory: Path) -> None:
    store = store_in(directory, limit=1000, most_files=2)
    contents = [content_of(LINE * 100, store) for _ in range(3)]
    assert [content.in_memory for content in contents] == [False, False, True]
    assert store.is_full()
    del contents[0]
    assert not store.is_full()
    assert [content.joined() for content in contents] == [LINE * 100] * 2


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_directory_that_will_not_do_is_told_at_once(directory: Path, name: str) -> None:
    (directory / "file").write_text("")
    with pytest.raises(OSError, match=name):
        ContentStore(str(directory / name), 1 << 20, 1)


# --- what is not kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "mark"), [(b"x" * 999 + b"\r\n", "long_line"), (b"a\rb\r\n", "bare_cr"), (b"a\nb\r\n", "bare_lf")]
)
@pytest.mark.parametrize("threshold", [0, 1 << 20])
def test_a_content_whose_answer_is_known_is_not_kept(directory: Path, line: bytes, mark: str, threshold: int) -> None:
    store = ContentStore(str(directory), 1 << 30, 10, threshold)
    framer = Framer(1000, store)
    framer.start_content(1 << 30, 998, strict=True)
    framer.feed(LINE * 100)
    framer.next_content()
    assert store.memory + store.file_octets == 10_000
    for _ in range(50):
        framer.feed(line * 20)
        assert framer.next_content() is None
        assert unused(store) and not framer.is_bulky()
    framer.feed(b".\r\n")
    content = framer.next_content()
    assert content is not None and getattr(content, mark)
    assert (content.size, content.octets) == (10_000 + 1000 * len(line), 0)
    assert list(content.pieces()) == []


def test_line_ends_that_are_allowed_are_kept(directory: Path) -> None:
    assert received([b"a\rb\nc\r\n.\r\n"], store_in(directory)).joined() == b"a\rb\nc\r\n"


@given(CONTENTS, CUTS, THRESHOLDS)
def test_size_and_marks_are_the_same_whether_a_content_is_kept_or_not(
    start: bytes, cuts: list[int], threshold: int
) -> None:
    stream = start + b"\r\n.\r\n"
    expected = reference.content(stream)
    assert expected is not None
    for portions in splits(stream, cuts):
        content = received(portions, store_in("/tmp", threshold=threshold), max_line=MAX_LINE)
        assert (content.size, content.long_line) == (expected.size, expected.has_line_longer_than(MAX_LINE))
        assert content.joined() == (b"" if content.long_line else expected.stuffed)


# --- a disk that is full ----------------------------------------------------------------------------------------------


@pytest.fixture
def little_disk() -> Iterator[Callable[[int], None]]:
    """Files of this process can have so many octets only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(octets: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_content_that_cannot_be_written_is_lost_and_the_next_one_is_not(directory: Path, little_disk) -> None:
    store = store_in(directory)
    little_disk(50_000)
    lost = received(cuts_of(LINE * 3000 + b".\r\n", range(0, 300_000, 40_000)), store)
    fits = received([LINE * 400 + b".\r\n"], store)
    assert (lost.lost, lost.size, lost.octets, list(lost.pieces())) == (True, 300_000, 0, [])
    assert (fits.lost, fits.joined()) == (False, LINE * 400)
    assert (store.failures, store.error) == (1, errno.EFBIG)
    with pytest.raises(OSError, match="large"):
        content_of(LINE * 3000, store)
    del fits
    assert unused(store)


def test_a_file_that_has_become_shorter_is_an_error_and_no_shorter_message(directory: Path) -> None:
    content = received([LINE * 5000 + b".\r\n"], store_in(directory))
    (descriptor,) = [fd for fd, target in files().items() if str(directory) in target]
    os.ftruncate(descriptor, 300_000)
    for read in (content.joined, lambda: list(content.pieces()), lambda: list(content.plain_pieces())):
        with pytest.raises(OSError, match="error"):
            read()
