"""The upstream client without sockets: what a relayed message costs in Python. `pytest bench/test_relay.py`."""

from __future__ import annotations

from gateway.config import EgressPath, UpstreamTls
from gateway.relay import outcome
from gateway.relay.handover import Batch
from gateway.relay.job import Job
from gateway.smtp.address import parse_address
from gateway.smtp.client import ClientSession
from gateway.smtp.client_values import Transaction
from gateway.smtp.response import ReplyReader

GREETING = b"220 up.example ESMTP\r\n"
EHLO = b"250-up.example\r\n250-PIPELINING\r\n250-SIZE 20000000\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
ENVELOPE = b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
VERDICT = b"250 2.0.0 Ok: queued as 4fXyZk1abcz1\r\n"
SENDER = parse_address("bounces+123@send.example")
RECIPIENTS = [parse_address("someone@example.com")]
CHUNKS = [b"Received: by gw.example\r\n", b"x" * 1000 + b"\r\n"]


def ready() -> ClientSession:
    session = ClientSession(EgressPath(enable_tls=UpstreamTls.DISABLED), "gw.example")
    for answer in (GREETING, EHLO):
        session.receive_data(answer)
        session.data_to_send()
    return session


def test_reading_three_replies(benchmark) -> None:
    reader = ReplyReader()

    benchmark(reader.read, ENVELOPE)


def test_a_transaction_with_pipelining(benchmark) -> None:
    session = ready()

    def relay() -> None:
        session.begin(Transaction(SENDER, RECIPIENTS, CHUNKS, size=1027))
        session.data_to_send()
        session.receive_data(ENVELOPE)
        session.data_to_send()
        session.receive_data(VERDICT)
        session.data_to_send()

    benchmark(relay)


def test_a_transaction_from_batch_to_hand_over(benchmark) -> None:
    """Everything that is done per message except choosing a connection and moving bytes."""
    session = ready()

    def relay() -> None:
        job = Job(Batch("id", SENDER, RECIPIENTS, CHUNKS, 1027), 1.0, lambda hand_over: None)
        transaction = job.next_transaction(100)
        session.begin(transaction)
        session.data_to_send()
        session.receive_data(ENVELOPE)
        session.data_to_send()
        session.receive_data(VERDICT)
        session.data_to_send()
        job.settle(outcome.concluded(transaction))
        job.report("site")

    benchmark(relay)
