"""The upstream client without sockets: what a relayed message costs in Python. `pytest bench/test_relay.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine

from gateway import metrics
from gateway._fastpath import CounterPage, content_of
from gateway.config import Destination, EgressPath, Host, QueueConfig, SmtpFleet, UpstreamTls
from gateway.couriers.couriers import Couriers
from gateway.handover import Batch, HandOver, Status
from gateway.net.streams import Poller, Protocol
from gateway.smtp.address import parse_address
from gateway.smtp.client import ClientSession
from gateway.smtp.exchange import Exchange
from gateway.smtp.response import ReplyReader

GREETING = b"220 up.example ESMTP\r\n"
EHLO = b"250-up.example\r\n250-PIPELINING\r\n250-SIZE 20000000\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
ENVELOPE = b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
VERDICT = b"250 2.0.0 Ok: queued as 4fXyZk1abcz1\r\n"
SENDER = parse_address("bounces+123@send.example")
RECIPIENTS = [parse_address("someone@example.com")]
CONTENT = content_of(b"x" * 1000 + b"\r\n").behind([b"Received: by gw.example\r\n"])


def ready() -> ClientSession:
    session = ClientSession(EgressPath(enable_tls=UpstreamTls.DISABLED), "gw.example", "gw.example")
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
        session.begin(Exchange(SENDER, RECIPIENTS, CONTENT))
        session.data_to_send()
        session.receive_data(ENVELOPE)
        session.data_to_send()
        session.receive_data(VERDICT)
        session.data_to_send()

    benchmark(relay)


class Stream:
    """Takes everything at once and remembers nothing but its protocol."""

    def set_protocol(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def local_address(self) -> tuple[str, int]:
        return "127.0.0.1", 40000

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def writelines(self, chunks: list[bytes]) -> None:
        pass


class NoPoller(Poller):
    """Connects at once, to nowhere."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.streams: list[Stream] = []

    async def connect(self, host: str, port: int) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]


class Loop:
    """As much of an event loop as a relay needs: `run` does what would be done in a later turn."""

    def __init__(self) -> None:
        self.tasks: list[Coroutine[None, None, None]] = []

    def time(self) -> float:
        return 1.0

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        pass

    def create_task(self, task: Coroutine[None, None, None]) -> None:
        self.tasks.append(task)

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        pass

    def run(self) -> None:
        while self.tasks:
            with contextlib.suppress(StopIteration):
                self.tasks.pop().send(None)


def test_a_message_from_hand_over_to_done(benchmark) -> None:
    """Everything that is done per message, except moving the bytes."""
    loop = Loop()
    poller = NoPoller(loop)
    couriers = Couriers(poller, CounterPage(bytearray(metrics.page_size())), "gw.example", "gw.example")
    queue = QueueConfig(protocol=SmtpFleet((Host("up", "127.0.0.1", 25),)))
    path = EgressPath(enable_tls=UpstreamTls.DISABLED, max_deliveries_per_connection=2**60)
    destination = Destination(queue, path)
    done: list[HandOver] = []

    def hand_over() -> None:
        later = couriers.submit(Batch("id", SENDER, RECIPIENTS, CONTENT), destination, 60.0)
        later.then(lambda: done.append(later.result()))

    hand_over()
    loop.run()
    (stream,) = poller.streams
    connection = stream.protocol
    for answer in (GREETING, EHLO, ENVELOPE, VERDICT):
        connection.data_received(answer)

    def message() -> None:
        hand_over()
        connection.data_received(ENVELOPE)
        connection.data_received(VERDICT)
        assert done.pop().outcomes[0].status is Status.DELIVERED

    benchmark(message)
