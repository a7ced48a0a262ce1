"""One file of the spool: what is written is there again, what was damaged is found, what failed changed nothing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.couriers.spool import store as stores
from gateway.couriers.spool import writer as writers
from gateway.couriers.spool.store import DAMAGED, WAITS_FOR_TIME, Damaged, Row, Store, opened
from gateway.couriers.spool.writer import SpoolFull, SpoolUnusable, SpoolWriter


def row(envelope: bytes = b"{}", queue: str = "q", number: int = 0) -> Row:
    return Row(number, 10.0, 5.0, 100.0, 0, 1, WAITS_FOR_TIME, "site", queue, envelope)


def filled(path: Path, *contents: bytes) -> None:
    with closing(Store(str(path))) as store, store.transaction():
        for place, content in enumerate(contents):
            store.append(row(b'{"place": %d}' % place), [content])


def damage(path: Path, octets: bytes, by: bytes) -> None:
    """Changes octets that stand in the file."""
    data = path.read_bytes()
    assert data.count(octets) == 1
    path.write_bytes(data.replace(octets, by))


def test_what_was_stored_is_there_when_the_file_is_opened_again(tmp_path):
    large = os.urandom(stores.PART * 2 + 17)
    filled(tmp_path / "s", b"first\r\n", large)
    store, rows, aside = opened(str(tmp_path / "s"))
    with closing(store):
        assert [(each.number, each.size, each.envelope) for each in rows] == [(1, 7, b""), (2, len(large), b"")]
        assert [each.envelope for each in store.rows()] == [b'{"place": 0}', b'{"place": 1}']
        assert store.content(1) == b"first\r\n"
        assert store.content(2) == large
        assert aside is None
        assert store.is_sound()


def test_what_is_added_together_is_there_as_if_it_had_been_added_alone(tmp_path):
    contents = [b"%d" % place * place * 100 for place in range(stores.MOST_ROWS * 2 + 3)]
    filled(tmp_path / "s", *contents)
    store, rows, _ = opened(str(tmp_path / "s"))
    with closing(store):
        assert [store.content(each.number) for each in rows] == contents


def test_a_transaction_that_fails_has_changed_nothing_then_or_later(tmp_path):
    with closing(Store(str(tmp_path / "s"))) as store:
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.append(row(), [b"x"])
            1 / 0  # noqa: B018
        with store.transaction():
            with pytest.raises(ZeroDivisionError), store.part():
                store.append(row(), [b"x"])
                1 / 0  # noqa: B018
            store.append(row(), [b"y"])
        assert [store.content(each.number) for each in store.rows()] == [b"y"]


def test_what_is_removed_takes_its_content_along_and_no_other(tmp_path):
    filled(tmp_path / "s", b"one", b"two", b"three")
    with closing(Store(str(tmp_path / "s"))) as store:
        with store.transaction():
            store.remove(2)
        assert [each.number for each in store.rows()] == [1, 3]
        assert (store.content(1), store.content(3)) == (b"one", b"three")
        assert store._database.execute("SELECT count(*) FROM contents").fetchone() == (2,)


def test_the_room_of_what_was_removed_is_used_again_and_given_back(tmp_path):
    with closing(Store(str(tmp_path / "s"))) as store:
        most = 0
        for _ in range(3):
            with store.transaction():
                rows = [row() for _ in range(200)]
                for each in rows:
                    store.append(each, [os.urandom(10_000)])
            store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            grown, most = store.octets(), max(most, store.octets())
            with store.transaction():
                for each in rows:
                    store.remove(each.number)
        assert grown < most * 1.1
        store.shrink()
        assert store.octets() < 100_000


@pytest.mark.parametrize("field", ["due", "site", "state", "envelope"])
def test_a_changed_row_is_noticed(tmp_path, field):
    filled(tmp_path / "s", b"one", b"two")
    with closing(sqlite3.connect(tmp_path / "s")) as other:
        other.execute(f"UPDATE messages SET {field} = 3 WHERE number = 1")
        other.commit()
    store, rows, _ = opened(str(tmp_path / "s"))
    with closing(store):
        assert [each.state for each in rows] == [DAMAGED, WAITS_FOR_TIME]


def test_an_octet_that_changed_in_a_content_is_noticed_when_it_is_read(tmp_path):
    filled(tmp_path / "s", b"the first content", b"the other content")
    damage(tmp_path / "s", b"the first content", b"the fIrst content")
    with closing(Store(str(tmp_path / "s"))) as store:
        with pytest.raises(Damaged):
            store.content(1)
        assert store.content(2) == b"the other content"


def test_a_content_that_is_missing_is_damaged(tmp_path):
    filled(tmp_path / "s", b"one")
    with closing(Store(str(tmp_path / "s"))) as store:
        store._database.execute("DELETE FROM contents")
        with pytest.raises(Damaged):
            store.content(1)


@pytest.mark.parametrize("garbage", [b"no database at all" * 500, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_file_that_is_no_spool_is_set_aside(tmp_path, garbage):
    (tmp_path / "s").write_bytes(garbage)
    store, rows, aside = opened(str(tmp_path / "s"))
    with closing(store):
        assert rows == []
        assert aside is not None
        assert Path(aside).read_bytes() == garbage


def test_what_can_be_read_of_a_damaged_file_goes_on(tmp_path):
    contents = [os.urandom(600) for _ in range(800)]
    filled(tmp_path / "s", *contents)
    data = bytearray((tmp_path / "s").read_bytes())
    with closing(sqlite3.connect(tmp_path / "s")) as known:
        (root,) = known.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'messages'").fetchone()
        leaf = int.from_bytes(data[(root - 1) * stores.PAGE_SIZE + 12 + 2 :][:2], "big")  # where its second cell is
        page = int.from_bytes(data[(root - 1) * stores.PAGE_SIZE + leaf :][:4], "big")  # the child that it names
    at = (page - 1) * stores.PAGE_SIZE
    data[at : at + stores.PAGE_SIZE] = b"\xa5" * stores.PAGE_SIZE
    (tmp_path / "s").write_bytes(data)
    store, rows, aside = opened(str(tmp_path / "s"))
    with closing(store):
        assert aside is not None
        assert 400 < len(rows) < 800
        assert all(store.content(each.number) == contents[each.number - 1] for each in rows)


def test_a_torn_log_ends_before_the_torn_transaction(tmp_path):
    path = tmp_path / "s"
    with closing(Store(str(path))) as store:
        for content in (b"one" * 1000, b"two" * 1000):
            with store.transaction():
                store.append(row(), [content])
        (tmp_path / "torn").write_bytes(path.read_bytes())
        log = (tmp_path / "s-wal").read_bytes()
        (tmp_path / "torn-wal").write_bytes(log[: len(log) - 3000])
    store, rows, aside = opened(str(tmp_path / "torn"))
    with closing(store):
        assert (len(rows), aside) == (1, None)
        assert store.content(1) == b"one" * 1000


# --- the thread -------------------------------------------------------------------------------------------------------


class Told:
    """What a writer tells, on this test's own event loop."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.opened: list[tuple[int, bool]] = []
        self.syncs: list[float] = []
        self.writer = SpoolWriter(
            str(path),
            self.loop.call_soon_threadsafe,
            lambda rows, aside: self.opened.append((len(rows), aside)),
            self.syncs.append,
            **options,
        )

    def wait(self, holds: Callable[[], Any]) -> None:
        async def watch() -> None:
            while not holds():
                await asyncio.sleep(0.001)

        self.loop.run_until_complete(asyncio.wait_for(watch(), 30))

    def answer(self, later: Any) -> Any:
        self.wait(lambda: later.done)
        return later.result()

    def close(self) -> None:
        self.writer.close()
        self.loop.close()


def test_those_who_ask_while_a_sync_is_under_way_share_the_next_one(tmp_path):
    with closing(Told(tmp_path / "s")) as told:
        told.wait(lambda: told.opened)
        busy, go_on = threading.Event(), threading.Event()

        def stall(_: Store) -> None:
            busy.set()
            go_on.wait()

        first = told.writer.write(stall)
        busy.wait()
        others = [told.writer.write(lambda store: store.append(row(), [b"x"])) for _ in range(20)]
        go_on.set()
        told.answer(first)
        for later in others:
            told.answer(later)
        assert len(told.syncs) == 2


def test_what_nobody_waits_for_shares_the_sync_of_the_next_who_does(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "PATIENT", 1e6)
    filled(tmp_path / "s", b"one", b"two", b"three")
    with closing(Told(tmp_path / "s")) as told:
        told.wait(lambda: told.opened)
        removals = [told.writer.write_by_and_by(lambda store, n=n: store.remove(n)) for n in (1, 2)]
        assert told.answer(told.writer.read(lambda store: len(list(store.rows())))) == 3
        told.answer(told.writer.write(lambda store: store.remove(3)))
        assert [told.answer(later) for later in removals] == [None, None]
        assert len(told.syncs) == 1


@pytest.mark.parametrize(("patience", "number"), [(0.01, 1), (1e6, writers.MANY)])
def test_what_nobody_waits_for_is_done_after_a_moment_or_where_there_is_much_of_it(
    tmp_path, monkeypatch, patience, number
):
    monkeypatch.setattr(writers, "PATIENT", patience)
    with closing(Told(tmp_path / "s")) as told:
        told.wait(lambda: told.opened)
        for later in [told.writer.write_by_and_by(lambda store: None) for _ in range(number)]:
            told.answer(later)
        assert len(told.syncs) == 1


def test_what_nobody_waits_for_is_done_before_the_file_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "PATIENT", 1e6)
    filled(tmp_path / "s", b"one")
    with closing(Told(tmp_path / "s")) as told:
        told.wait(lambda: told.opened)
        told.writer.write_by_and_by(lambda store: store.remove(1))
    with closing(Store(str(tmp_path / "s"))) as store:
        assert list(store.rows()) == []


def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path):
    with closing(Told(tmp_path / "missing" / "s")) as told:
        with pytest.raises(SpoolUnusable):
            told.answer(told.writer.write(lambda store: store.append(row(), [b"x"])))
        (tmp_path / "missing").mkdir()
        told.wait(lambda: told.opened)
        told.answer(told.writer.write(lambda store: store.append(row(), [b"x"])))


def test_a_disk_that_is_short_of_room_takes_nothing_new_and_gives_what_it_has(tmp_path):
    filled(tmp_path / "s", b"one")
    with closing(Told(tmp_path / "s", limits=("100%", 0))) as told:
        with pytest.raises(SpoolFull):
            told.answer(told.writer.write(lambda store: store.append(row(), [b"x"]), needs_room=True))
        assert told.answer(told.writer.read(lambda store: store.content(1))) == b"one"
        told.answer(told.writer.write(lambda store: store.remove(1)))


def test_a_file_that_sqlite_calls_full_refuses_with_full_and_goes_on(tmp_path):
    with closing(Told(tmp_path / "s")) as told:
        told.wait(lambda: told.opened)

        def limit(store: Store, pages: int) -> None:
            store._database.execute(f"PRAGMA max_page_count={pages}")

        told.answer(told.writer.read(lambda store: limit(store, 20)))
        with pytest.raises(SpoolFull):
            told.answer(told.writer.write(lambda store: store.append(row(), [os.urandom(1 << 20)])))
        told.answer(told.writer.read(lambda store: limit(store, 10_000)))
        told.answer(told.writer.write(lambda store: store.append(row(), [os.urandom(1 << 20)])))
        assert told.answer(told.writer.read(lambda store: len(list(store.rows())))) == 1


def test_a_file_found_damaged_while_in_use_is_set_aside_and_a_new_one_begun(tmp_path, caplog):
    filled(tmp_path / "s", *[os.urandom(9000) for _ in range(50)])
    with closing(Told(tmp_path / "s")) as told:
        told.wait(lambda: told.opened)
        data = bytearray((tmp_path / "s").read_bytes())
        data[stores.PAGE_SIZE :] = b"\xff" * (len(data) - stores.PAGE_SIZE)
        (tmp_path / "s").write_bytes(data)

        def forget_pages(store: Store) -> None:
            store._database.execute("PRAGMA shrink_memory")

        told.answer(told.writer.read(forget_pages))
        with pytest.raises(SpoolUnusable):
            told.answer(told.writer.write(lambda store: store.append(row(), [b"x"])))
        told.wait(lambda: len(told.opened) == 2)
        told.answer(told.writer.write(lambda store: store.append(row(), [b"new"])))
        assert told.opened[1][1]
        assert "was damaged" in caplog.text


def test_one_damaged_content_fails_for_whoever_asks_for_it_alone(tmp_path):
    filled(tmp_path / "s", b"the first content", b"the other content")
    damage(tmp_path / "s", b"the first content", b"the fIrst content")
    with closing(Told(tmp_path / "s")) as told:
        first = told.writer.read(lambda store: store.content(1))
        other = told.writer.read(lambda store: store.content(2))
        assert told.answer(other) == b"the other content"
        with pytest.raises(Damaged):
            told.answer(first)


def test_what_is_read_does_not_fail_with_what_is_written_at_the_same_time(tmp_path):
    filled(tmp_path / "s", b"one")
    with closing(Told(tmp_path / "s")) as told:
        told.wait(lambda: told.opened)
        busy, go_on = threading.Event(), threading.Event()

        def stall(store: Store) -> None:
            store._database.execute("PRAGMA query_only=1")
            busy.set()
            go_on.wait()

        first = told.writer.read(stall)
        busy.wait()
        written = told.writer.write(lambda store: store.remove(1))
        read = told.writer.read(lambda store: store.content(1))
        go_on.set()
        told.answer(first)
        assert told.answer(read) == b"one"
        with pytest.raises(SpoolUnusable):
            told.answer(written)
