"""Delivery into a Maildir: what is on disk when the relay says so."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from gateway import metrics
from gateway._fastpath import CounterPage, content_of
from gateway.config import Destination, EgressPath, Maildir, QueueConfig
from gateway.couriers import maildir as maildir_module
from gateway.couriers.couriers import Couriers
from gateway.handover import Batch, HandOver, Status
from gateway.net.streams import Poller
from gateway.smtp.address import parse_address
from gateway.smtp.replies import Reason

STUFFED = b"Subject: x\r\n\r\n..dot\r\n...\r\n"
CONTENT = b"Subject: x\r\n\r\n.dot\r\n..\r\n"


def deliver(maildir: Maildir, times: int = 1, recipients: int = 1) -> list[HandOver]:
    async def main() -> list[HandOver]:
        loop = asyncio.get_running_loop()
        couriers = Couriers(Poller(loop), CounterPage(bytearray(metrics.page_size())), "gw.example", "gw.example")
        results: list[asyncio.Future[HandOver]] = [loop.create_future() for _ in range(times)]
        addresses = [parse_address(f"r{n}@y.example") for n in range(recipients)]
        batch = Batch("id1", parse_address("a@x.example"), addresses, content_of(STUFFED))
        destination = Destination(QueueConfig(protocol=maildir), EgressPath())
        for result in results:
            later = couriers.submit(batch, destination, loop.time() + 20)
            later.then(lambda result=result, later=later: result.set_result(later.result()))
        reports = [await result for result in results]
        await couriers.close(1)
        return reports

    return asyncio.run(main())


def test_the_content_is_stored_unstuffed_and_nothing_is_left_in_tmp(tmp_path: Path) -> None:
    (hand_over,) = deliver(Maildir(str(tmp_path / "box")), recipients=2)
    (file,) = (tmp_path / "box" / "new").iterdir()
    assert file.read_bytes() == CONTENT
    assert [outcome.status for outcome in hand_over.outcomes] == [Status.DELIVERED] * 2
    assert file.name in hand_over.outcomes[0].response.content
    assert hand_over.protocol == "Maildir"
    assert hand_over.peer_name == str(tmp_path / "box")
    assert not list((tmp_path / "box" / "tmp").iterdir())
    assert (tmp_path / "box" / "cur").is_dir()


def test_every_message_has_a_name_of_its_own(tmp_path: Path) -> None:
    deliver(Maildir(str(tmp_path)), times=30)
    names = [file.name for file in (tmp_path / "new").iterdir()]
    assert len(names) == 30
    assert all(re.fullmatch(r"\d+\.M\d+P\d+Q\d+\.gw\.example", name) for name in names)


def test_modes_are_as_configured_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        deliver(Maildir(str(tmp_path / "deep" / "box"), dir_mode=0o750, file_mode=0o640))
    finally:
        os.umask(umask)
    for directory in ("deep", "deep/box", "deep/box/tmp", "deep/box/new", "deep/box/cur"):
        assert (tmp_path / directory).stat().st_mode & 0o777 == 0o750
    (file,) = (tmp_path / "deep" / "box" / "new").iterdir()
    assert file.stat().st_mode & 0o777 == 0o640


def test_files_are_private_unless_configured_otherwise(tmp_path: Path) -> None:
    deliver(Maildir(str(tmp_path)))
    (file,) = (tmp_path / "new").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_path_that_cannot_be_used_is_transient(tmp_path: Path) -> None:
    (tmp_path / "box").write_text("a file, no directory")
    (hand_over,) = deliver(Maildir(str(tmp_path / "box")))
    (outcome,) = hand_over.outcomes
    assert (outcome.status, outcome.response.code, outcome.reason) == (Status.TRANSIENT, 451, Reason.STORAGE)
    assert outcome.response.enhanced == "4.3.0"
    assert str(tmp_path) not in outcome.response.content


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("which", range(3))
def test_a_failing_disk_is_transient_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, which: int
) -> None:
    deliver(Maildir(str(tmp_path)))  # makes the directories
    real, calls = getattr(os, call), []

    def failing(*args: object) -> object:
        calls.append(args)
        if len(calls) == which + 1:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(maildir_module.os, call, failing)
    (hand_over,) = deliver(Maildir(str(tmp_path)))
    failed = len(calls) > which
    assert hand_over.outcomes[0].status is (Status.TRANSIENT if failed else Status.DELIVERED)
    assert len(list((tmp_path / "new").iterdir())) == (1 if failed else 2)
    assert not list((tmp_path / "tmp").iterdir())


def test_file_and_directory_are_synced_before_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(Maildir(str(tmp_path)))
    synced: list[str] = []
    real = os.fsync

    def recording(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(maildir_module.os, "fsync", recording)
    deliver(Maildir(str(tmp_path)))
    assert synced[0].startswith(str(tmp_path / "tmp"))
    assert synced[1] == str(tmp_path / "new")
