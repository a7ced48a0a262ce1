"""The couriers of one worker: which of them serves a destination, and the clock that they all live by.

Everything happens in callbacks on the worker's event loop; a connection being opened has a task, a message has none.
Nothing is retried over time and nothing is stored: what cannot be handed over by its deadline comes back, and the
client that still holds the message is told to try again.
"""

from __future__ import annotations

import asyncio

from gateway._fastpath import CounterPage
from gateway.config import Destination, Maildir, SmtpFleet
from gateway.couriers.courier import Courier
from gateway.couriers.fleet.courier import FleetCourier
from gateway.couriers.maildir import MaildirCourier
from gateway.handover import Batch
from gateway.later import Later
from gateway.net.streams import Poller

SWEEP_INTERVAL = 0.25  # seconds; how late a timeout may be noticed
CLOSE_INTERVAL = 0.02  # seconds


class Couriers:
    """hostname: for EHLO where the egress path names none, and in Maildir file names."""

    def __init__(self, poller: Poller, page: CounterPage, hostname: str) -> None:
        self._loop = poller.loop
        self._by_type: dict[type, Courier] = {
            SmtpFleet: FleetCourier(poller, page, hostname),
            Maildir: MaildirCourier(self._loop, page, hostname),
        }
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, batch: Batch, destination: Destination, deadline: float) -> Later:
        """Hand a batch over to where its queue says (its `protocol` must not be None): see Courier.submit."""
        courier = self._by_type[type(destination.queue.protocol)]
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_INTERVAL, self._sweep)
        return courier.submit(batch, destination, deadline)

    async def close(self, grace: float) -> None:
        """Stop: hand-overs under way get `grace` seconds, then come back as if their deadline had passed."""
        deadline = self._loop.time() + grace
        for courier in self._by_type.values():
            courier.close(deadline)
        while self._at_work():
            await asyncio.sleep(CLOSE_INTERVAL)
        if self._timer is not None:
            self._timer.cancel()

    def _at_work(self) -> bool:
        """Sweeps all couriers; True when one of them wants it again."""
        now = self._loop.time()
        return any([courier.sweep(now) for courier in self._by_type.values()])

    def _sweep(self) -> None:
        self._timer = self._loop.call_later(SWEEP_INTERVAL, self._sweep) if self._at_work() else None
