"""Records on their way from segments to sinks, in one process: what arrives, is noted, kept and removed."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.logs.segments import list_segments
from gateway.metrics.shipments import Told
from gateway.shipments import FilesSettings, RecordForm, Secret, Shipment, StdoutSettings, WebhookSettings
from gateway.shipping import shipper
from gateway.shipping.dispatch import Failed, Mark, NeverTaken, Parcel, RecordBatch, Taken
from gateway.shipping.progress import ShippingProgress
from gateway.shipping.shipper import Shipper, remove_shipped
from gateway.shipping.sinks import files, webhook
from gateway.shipping.source import RecordSource
from gateway.shipping.state import ShippingState
from tests.shipping import Receiver, add, begin, line, receiving, write


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    directory = tmp_path / "logs"
    directory.mkdir()
    return directory


def shipped_once(shipment: Shipment) -> tuple[bool, Told]:
    """Ships what there is."""
    told: list[Told] = []

    async def run() -> bool:
        return await Shipper(shipment, lambda _, each: told.append(each)).run(asyncio.Event(), once=True)

    done = asyncio.run(run())
    sums = {name: sum(each.counts[name] for each in told) for name in {name for each in told for name in each.counts}}
    return done, Told(sums, told[-1].gauges)


def to_files(logs: Path, **settings: Any) -> Shipment:
    return Shipment("out", FilesSettings(str(logs.parent / "out"), compress=False), (str(logs),), **settings)


def to_webhook(receiver: Receiver, logs: Path, **settings: Any) -> Shipment:
    options = {name: settings.pop(name) for name in ("compress", "signing_key", "timeout") if name in settings}
    return Shipment("hook", WebhookSettings(receiver.url, **options), (str(logs),), **settings)


def numbers_in(directory: Path) -> list[int]:
    found = []
    for path in sorted(directory.iterdir()):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += [json.loads(each)["number"] for each in text.splitlines()]
    return found


# --- reading ----------------------------------------------------------------------------------------------------------


def test_all_records_are_shipped_once_and_nothing_the_next_time(logs, tmp_path):
    write(logs, range(10))
    growing = begin(logs)
    add(growing, 10, 11)
    assert shipped_once(to_files(logs))[0]
    assert numbers_in(tmp_path / "out") == list(range(12))
    add(growing, 12)
    assert shipped_once(to_files(logs))[0]
    growing.finish()
    assert shipped_once(to_files(logs))[0]
    assert numbers_in(tmp_path / "out") == list(range(13))


def test_a_segment_without_records_so_far_is_not_taken_for_one_that_was_read(logs, tmp_path):
    late = begin(logs)
    os.rename(late.path, older := str(logs / "20200101-000000.000000000.zst"))
    late.path = older
    write(logs, range(3))
    shipped_once(to_files(logs))
    add(late, 3)
    late.finish()
    shipped_once(to_files(logs))
    assert numbers_in(tmp_path / "out") == [0, 1, 2, 3]


def test_ids_are_the_same_whenever_a_record_is_sent_and_never_for_two(logs):
    with receiving() as receiver:
        write(logs, range(50))
        write(logs, range(50, 60))
        shipped_once(to_webhook(receiver, logs, max_batch_records=7))
        first = dict(receiver.ids)
        for name in ("hook.place",):
            (logs / ".ship" / name).unlink()
        shipped_once(to_webhook(receiver, logs, max_batch_records=11))
        assert len(receiver.taken) == 120
        assert receiver.ids == first
        assert sorted(first.values()) == list(range(60))


def test_only_what_is_wanted_is_shipped_and_in_the_form_that_is_wanted(logs, tmp_path):
    segment = begin(logs)
    segment.add(line(1) + line(2, "Bounce", response={"code": 550}) + line(3, "Bounce", response={"code": 450}))
    segment.add(line(4, "Rejection", response={"code": 550}) + b"no JSON\n")
    segment.flush()
    shipment = to_files(
        logs,
        where="response.code >= 500 or number == 1",
        per_record={
            "Rejection": RecordForm(enable=False),
            "Bounce": RecordForm(template='{"number": {{ number }}, "code": {{ log_record.response.code }}}'),
        },
    )
    done, told = shipped_once(shipment)
    [file] = (tmp_path / "out").iterdir()
    sent = file.read_bytes().splitlines()
    assert (done, told.counts["unwanted"]) == (True, 2)
    assert sent[1:] == [b'{"number": 2, "code": 550}', b"no JSON"]
    assert json.loads(sent[0])["number"] == 1
    segment.finish()


def test_a_template_that_fails_leaves_the_record_as_it_is(logs, tmp_path, caplog):
    write(logs, range(1))
    with caplog.at_level(logging.ERROR):
        shipped_once(to_files(logs, per_record={"Any": RecordForm(template="{{ response.code.nothing }}")}))
    assert numbers_in(tmp_path / "out") == [0]
    assert "a template failed" in caplog.text


def test_little_is_read_ahead_of_a_sink_that_takes_nothing(logs):
    write(logs, range(5000))
    progress = ShippingProgress([str(logs)])
    source = RecordSource([str(logs)], progress)
    room = iter([True] * 10 + [False])
    assert len(list(source.read(lambda: next(room)))) == 10
    assert not source.is_exhausted
    source.close()


def test_segments_that_somebody_removes_are_not_waited_for(logs, caplog):
    segment = begin(logs)
    add(segment, 1)
    source = RecordSource([str(logs)], ShippingProgress([str(logs)]))
    list(source.read(lambda: True))
    os.unlink(segment.path)
    segment.finish()
    found = list(source.read(lambda: True))
    assert found[-1].mark == Mark(str(logs), os.path.basename(segment.path), None)
    assert "is gone" in caplog.text
    source.close()


# --- state ------------------------------------------------------------------------------------------------------------


def test_what_is_done_with_is_not_listed_segment_by_segment():
    progress = ShippingProgress(["d"])
    for day in range(1, 30):
        progress.note([Mark("d", f"202601{day:02}-000000.000000000", None)])
    progress.note([Mark("d", "20260101-000000.500000000", 17)])
    again = ShippingProgress.decoded(["d"], progress.encoded())
    assert len(again.encoded()) < 200
    assert again.is_shipped("d", "20260102-000000.000000000")
    assert again.is_shipped("d", "20260129-000000.000000000")
    assert not again.is_shipped("d", "20260101-000000.500000000")
    assert again.place("d").position("20260101-000000.500000000") == 17
    assert not again.is_shipped("d", "20260130-000000.000000000")


def test_a_damaged_state_is_an_error_that_says_what_removing_it_does(logs):
    (logs / ".ship").mkdir()
    (logs / ".ship" / "out.place").write_text("{}")
    with pytest.raises(ValueError, match=r"out\.place: .*all records are shipped again"):
        shipped_once(to_files(logs))


def test_two_processes_do_not_ship_the_same(logs):
    other = ShippingState(str(logs / ".ship"), "out")
    assert other.claim()
    write(logs, range(3))
    try:
        assert shipped_once(to_files(logs))[0] is False
    finally:
        other.release()
    assert shipped_once(to_files(logs))[0]


# --- segments kept and removed ----------------------------------------------------------------------------------------


def test_segments_are_removed_once_all_shipments_of_their_directory_are_done_with_them(logs):
    paths = [write(logs, range(3)), write(logs, range(3))]
    growing = begin(logs)
    add(growing, 1)

    async def run() -> list[int]:
        one, two = (
            Shipper(Shipment(name, StdoutSettings(), (str(logs),), remove_shipped=True), lambda *_: None)
            for name in ("one", "two")
        )
        counts = []
        stop = asyncio.Event()
        for each in (one, two):
            await each.run(stop, once=True)
            counts.append(remove_shipped([one, two]))
        return counts

    assert asyncio.run(run()) == [0, 2]
    assert list_segments(str(logs)) == [growing.path]
    assert paths[0] not in list_segments(str(logs))
    growing.finish()


def test_nothing_is_removed_unless_every_shipment_of_the_directory_allows_it(logs):
    write(logs, range(3))

    async def run() -> int:
        both = [
            Shipper(Shipment(str(allows), StdoutSettings(), (str(logs),), remove_shipped=allows), lambda *_: None)
            for allows in (True, False)
        ]
        for each in both:
            await each.run(asyncio.Event(), once=True)
        return remove_shipped(both)

    assert asyncio.run(run()) == 0


def test_the_oldest_segments_are_given_up_beyond_the_bound_and_counted(logs, caplog):
    paths = [write(logs, range(number, number + 5)) for number in (0, 5, 10)]
    sizes = [os.path.getsize(path) for path in paths]
    growing = begin(logs)
    add(growing, 15)
    with receiving() as receiver:
        shipment = to_webhook(receiver, logs, max_held=sizes[2] + os.path.getsize(growing.path))
        shipper.Shipper._read, read = lambda self: None, shipper.Shipper._read  # it has read nothing so far
        try:
            _, told = shipped_once(shipment)
        finally:
            shipper.Shipper._read = read
        assert told.counts["dropped_segments"] == 2
        assert told.counts["dropped_octets"] == sizes[0] + sizes[1]
        assert shipped_once(shipment)[0]
        assert receiver.taken == [10, 11, 12, 13, 14, 15]
    assert "is given up" in caplog.text
    growing.finish()


def test_giving_up_the_segment_that_is_being_read_leaves_the_others_whole(logs):
    write(logs, range(5))
    write(logs, range(5, 10))
    source = RecordSource([str(logs)], ShippingProgress([str(logs)]))
    room = iter([True] * 3 + [False])
    before = list(source.read(lambda: next(room)))
    given_up = source.give_up(os.path.getsize(list_segments(str(logs))[1]))
    after = list(source.read(lambda: True))
    numbers = [json.loads(found.line)["number"] for found in before + after if found.line]
    assert numbers == [0, 1, 5, 6, 7, 8, 9]
    assert [mark.segment for mark, _ in given_up] == [os.path.basename(list_segments(str(logs))[0])]
    source.close()


def test_what_is_told_says_how_far_behind_it_is(logs):
    write(logs, range(100))
    with receiving() as receiver:
        receiver.mood = 503
        done, told = shipped_once(to_webhook(receiver, logs, max_batch_records=10))
    assert not done
    assert told.counts["failures"] == 1
    assert told.gauges["lag_records"] == 20
    assert told.gauges["held_segments"] == 1
    assert told.gauges["held_octets"] == os.path.getsize(list_segments(str(logs))[0])


# --- webhooks ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_signed_so_that_its_receiver_can_check_it(logs):
    write(logs, range(3))
    key = base64.b64encode(b"k" * 24).decode()
    with receiving() as receiver:
        shipped_once(to_webhook(receiver, logs, signing_key=Secret(text=f"whsec_{key}"), compress=True))
        [(headers, body)] = receiver.requests
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + gzip.decompress(body)
    expected = base64.b64encode(hmac.new(b"k" * 24, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert receiver.taken == [0, 1, 2]


def test_a_signature_is_that_of_the_published_example():
    key = webhook.key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = webhook.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, Taken), (204, Taken), (400, NeverTaken), (413, NeverTaken), (422, NeverTaken), (301, Failed), (401, Failed),
     (404, Failed), (429, Failed), (500, Failed), (503, Failed)],
)  # fmt: skip
def test_an_answer_blames_the_batch_or_anything_else(status, expected):
    assert isinstance(webhook.meaning(status, {}), expected)


def test_retry_after_is_heard():
    assert webhook.meaning(429, {"Retry-After": "7"}) == Failed("HTTP 429", after=7.0)
    assert webhook.meaning(503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}) == Failed("HTTP 503")


def test_a_record_that_is_refused_is_kept_beside_the_state(logs):
    write(logs, range(20))
    with receiving() as receiver:
        receiver.mood = lambda numbers: 400 if 13 in numbers else 200
        done, told = shipped_once(to_webhook(receiver, logs))
        assert done
        assert sorted(receiver.taken) == [number for number in range(20) if number != 13]
    assert (told.counts["refused"], told.counts["acknowledged"]) == (1, 19)
    [kept] = (logs / ".ship" / "hook.refused").read_text().splitlines()
    assert json.loads(json.loads(kept)["body"])["number"] == 13


@pytest.mark.parametrize("mood", ["half", "mute", "slow", 500])
def test_a_batch_without_a_whole_answer_comes_again(logs, mood):
    write(logs, range(5))
    with receiving() as receiver:
        receiver.mood = mood
        assert shipped_once(to_webhook(receiver, logs, timeout=0.3))[0] is False
        receiver.mood = 200
        assert shipped_once(to_webhook(receiver, logs))[0]
        assert sorted(set(receiver.taken)) == list(range(5))


def test_nothing_secret_is_shown(logs, caplog):
    key, password = "whsec_c2VjcmV0", "s3cret"
    settings = WebhookSettings(
        f"http://user:{password}@127.0.0.1:1/{password}",
        signing_key=Secret(text=key),
        authorization=Secret(text=password),
        headers={"X-Token": password},
    )
    write(logs, range(1))
    with caplog.at_level(logging.DEBUG):
        shipped_once(Shipment("hook", settings, (str(logs),)))
    said = caplog.text + repr(settings)
    assert "not taken" in said
    assert password not in said
    assert key not in said


# --- files ------------------------------------------------------------------------------------------------------------


def batch(*numbers: int) -> RecordBatch:
    return RecordBatch([Parcel(str(number), line(number).rstrip()) for number in numbers])


def test_files_are_begun_anew_and_named_when_they_are_whole(tmp_path):
    async def run() -> None:
        sink = files.FilesSink(FilesSettings(str(tmp_path / "out"), max_file_size=150))
        for number in range(5):
            assert await sink.send(batch(number)) == Taken()
        assert sum(path.suffix == files.PART for path in (tmp_path / "out").iterdir()) == 1
        await sink.close()

    asyncio.run(run())
    assert numbers_in(tmp_path / "out") == [0, 1, 2, 3, 4]
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert all(path.name.endswith(".jsonl.gz") for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("compress", [True, False])
def test_what_a_killed_process_left_is_cut_to_what_is_whole(tmp_path, compress):
    directory = tmp_path / "out"
    settings = FilesSettings(str(directory), compress=compress)

    async def send(number: int) -> None:
        sink = files.FilesSink(settings)
        await sink.send(batch(number))
        await sink.close()

    asyncio.run(send(1))
    [whole] = directory.iterdir()
    content = whole.read_bytes()
    whole.unlink()
    (directory / (whole.name + files.PART)).write_bytes(content + content[:-3])
    asyncio.run(send(2))
    assert numbers_in(directory) == [1, 2]


def test_a_directory_that_cannot_be_written_is_tried_again(tmp_path):
    (tmp_path / "out").write_text("no directory")

    async def run() -> object:
        return await files.FilesSink(FilesSettings(str(tmp_path / "out"))).send(batch(1))

    assert isinstance(asyncio.run(run()), Failed)
