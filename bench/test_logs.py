"""What a log record costs: built, encoded, submitted, and written by the thread."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import LocalLogs
from gateway.handover import HandOver, RecipientOutcome, Response, Status
from gateway.logs import records
from gateway.logs.identity import new_message_id, new_session_id
from gateway.logs.writer import LogWriter
from gateway.mail.message import Message
from gateway.smtp.address import parse_address

NOW = 1_785_847_290_123_456_789
ORIGIN = records.Origin("client.example", "192.0.2.7", new_session_id())


MESSAGE = Message(
    new_message_id(NOW),
    parse_address("a@send.example"),
    [parse_address("u@example.com")],
    content=b"Subject: x\r\n\r\n" + b"x" * 1000,
    meta={"reception_protocol": "ESMTP", "received_from": "192.0.2.7:40112", "tenant": "t"},
    received_at=NOW / 1e9,
)


def test_a_reception_built(benchmark):
    benchmark(records.reception, MESSAGE, ORIGIN, "example.com", NOW)


def test_a_reception_built_and_encoded(benchmark):
    benchmark(lambda: records.reception(MESSAGE, ORIGIN, "example.com", NOW).line())


def test_a_delivery_built_and_encoded(benchmark):
    answer = Response(250, "2.0.0", "Ok: queued as 0123456789", ".\r\n")
    result = HandOver(
        [RecipientOutcome(MESSAGE.recipients[0], Status.DELIVERED, answer, None)],
        site="unspecified->mx_list:mta1.example,mta2.example@smtp_client",
        protocol="ESMTP",
        seconds=0.001,
        peer_name="mta1.example",
        peer_address="10.0.0.1",
        session_id=new_session_id(),
        source_address="10.0.0.9:40112",
    )

    def deliver() -> bytes:
        (record,) = records.handed_over(MESSAGE, ORIGIN, "example.com", result, NOW)
        return record.line()

    benchmark(deliver)


def test_a_message_id(benchmark):
    benchmark(new_message_id, NOW)


def test_a_session_id(benchmark):
    benchmark(new_session_id)


@pytest.mark.parametrize("loggers", [1, 2])
def test_a_thousand_records_submitted_and_written(benchmark, tmp_path: Path, loggers: int):
    """Process time of both threads; divide by a thousand."""
    config = [LocalLogs(log_dir=str(tmp_path / str(n)), min_free_space=0, min_free_inodes=0) for n in range(loggers)]
    writer = LogWriter(config, CounterPage(bytearray(metrics.page_size())), call_soon=lambda callback: callback())

    def submit() -> None:
        for _ in range(1000):
            writer.submit(records.reception(MESSAGE, ORIGIN, "example.com", time.time_ns()), MESSAGE)

    benchmark.pedantic(submit, rounds=30)
    writer.close(30)
