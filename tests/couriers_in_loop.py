"""A worker's couriers in the event loop of a test, for tests with scripted upstreams (tests/upstream.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from upstream import Upstream

from gateway import metrics
from gateway._fastpath import ContentStore, CounterPage, content_of
from gateway.config import Destination, EgressPath, Host, QueueConfig, SmtpFleet
from gateway.couriers import couriers
from gateway.couriers.couriers import Couriers
from gateway.couriers.fleet.table import MemberTable
from gateway.handover import Batch, HandOver, Status
from gateway.net.streams import Poller
from gateway.smtp.address import parse_address
from gateway.smtp.replies import Reason

Main = Coroutine[Any, Any, None]

CONTENT = b"Subject: x\r\n\r\nhello\r\n..dot\r\n"
PATH = EgressPath(enable_chunking=True)  # where it is offered
BOTH = ("b@y.example", "c@z.example")


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Main], None]:
    """Runs a coroutine on either event loop, with timeouts noticed quickly."""
    monkeypatch.setattr(couriers, "SWEEP_INTERVAL", 0.01)
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main: Main) -> None:
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(main)

    return runner


def batch(*recipients: str, content: bytes = CONTENT, store: ContentStore | None = None, **flags: bool) -> Batch:
    addresses = [parse_address(recipient) for recipient in recipients or ("b@y.example",)]
    return Batch("id1", parse_address("a@x.example"), addresses, content_of(content, store), **flags)


class Gateway:
    """A worker's couriers, and what they reported: every hand-over must be reported once, and never at once."""

    def __init__(self, *members: Upstream, ehlo_domain: str = "gw.example", table: MemberTable | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.page = CounterPage(bytearray(metrics.page_size()))
        self.poller = Poller(self.loop)
        self.couriers = Couriers(self.poller, self.page, "machine", ehlo_domain, table)
        self.members = members
        self.reports: list[HandOver] = []
        self.handed = 0

    async def __aenter__(self) -> Gateway:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.couriers.close(0)
        self.poller.close()
        assert len(self.reports) == self.handed
        assert self.value(metrics.UPSTREAM_OPEN.slot()) == 0
        assert self.value(metrics.UPSTREAM_WAITING.slot()) == 0

    def value(self, slot: int) -> int:
        return self.page.get(slot)

    @property
    def queue(self) -> QueueConfig:
        hosts = tuple(Host(f"m{n}", "127.0.0.1", member.port) for n, member in enumerate(self.members))
        return QueueConfig(protocol=SmtpFleet(hosts))

    def start(
        self, handed: Batch, path: EgressPath = PATH, seconds: float = 20, queue: QueueConfig | None = None
    ) -> asyncio.Future[HandOver]:
        result: asyncio.Future[HandOver] = self.loop.create_future()

        def done() -> None:
            self.reports.append(later.result())
            result.set_result(later.result())

        self.handed += 1
        destination = Destination(queue or self.queue, path)
        later = self.couriers.submit(handed, destination, self.loop.time() + seconds)
        later.then(done)  # which it must not be yet
        return result

    async def hand_over(self, handed: Batch, path: EgressPath = PATH, seconds: float = 20) -> HandOver:
        async with asyncio.timeout(30):
            return await self.start(handed, path, seconds)


def statuses(hand_over: HandOver) -> list[Status]:
    return [outcome.status for outcome in hand_over.outcomes]


def only(hand_over: HandOver) -> tuple[Status, int, Reason | None]:
    (outcome,) = hand_over.outcomes
    return outcome.status, outcome.response.code, outcome.reason


DELIVERED = (Status.DELIVERED, 250, None)
UNREACHABLE = (Status.TRANSIENT, 451, Reason.UPSTREAM_UNREACHABLE)
