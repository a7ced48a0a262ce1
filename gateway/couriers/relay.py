"""The relay of one worker: hands batches over to fleets and Maildirs.

Everything happens in callbacks on the worker's event loop; a connection being opened has a task, a message has none.
Nothing is retried over time and nothing is stored: what cannot be handed over by the deadline comes back, and the
client that still holds the message is told to try again.
"""

from __future__ import annotations

import asyncio

from gateway._fastpath import CounterPage
from gateway.config import Destination, EgressPath, Maildir, SmtpFleet
from gateway.couriers.fleet.fleet import Fleet
from gateway.couriers.fleet.job import Job
from gateway.couriers.handover import Batch, Done
from gateway.couriers.maildir import MaildirWriter
from gateway.net.outbox import Outbox
from gateway.net.resolver import Resolver
from gateway.net.streams import Poller

SWEEP_INTERVAL = 0.25  # seconds; how late a timeout may be noticed
FORGET_AFTER = 600.0  # seconds without use after which a fleet is forgotten
CLOSE_INTERVAL = 0.02  # seconds
MOST_DESTINATIONS = 1024


class Relay:
    """hostname: for EHLO where the egress path names none, and in Maildir file names."""

    def __init__(self, poller: Poller, page: CounterPage, hostname: str) -> None:
        loop = poller.loop
        self._loop = loop
        self._poller = poller
        self._page = page
        self._hostname = hostname
        # apart from the clients': what goes to one process goes there in one run
        self._outbox = Outbox(poller.call_soon)
        self._resolver = Resolver(loop)
        self._maildirs = MaildirWriter(loop, page, hostname)
        self._fleets: dict[tuple[SmtpFleet, EgressPath], Fleet] = {}
        self._by_destination: dict[Destination, Fleet] = {}
        self._timer: asyncio.TimerHandle | None = None

    def hand_over(self, batch: Batch, destination: Destination, deadline: float, done: Done) -> None:
        """Hand a batch over to where its queue says (its `protocol` must not be None).

        deadline: on the loop's clock; what is not delivered by then comes back TRANSIENT, or UNKNOWN if the upstream
        may have it. done: called exactly once with the outcome of each recipient, at once or later, from the loop.
        """
        fleet = self._by_destination.get(destination)
        if fleet is None:
            protocol = destination.queue.protocol
            if isinstance(protocol, Maildir):
                self._maildirs.deliver(batch, protocol, done)
                return
            if protocol is None:
                raise ValueError("the queue has no destination")
            fleet = self._find_fleet(destination, protocol)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_INTERVAL, self._sweep)
        fleet.submit(Job(batch, deadline, done))

    async def close(self, grace: float) -> None:
        """Stop: hand-overs under way get `grace` seconds, then come back as if their deadline had passed."""
        for fleet in self._fleets.values():
            fleet.close()
        end = self._loop.time() + grace
        while self._at_work and self._loop.time() < end:
            await asyncio.sleep(CLOSE_INTERVAL)
        for fleet in self._fleets.values():
            fleet.abort()
        if self._timer is not None:
            self._timer.cancel()
        self._maildirs.close()

    @property
    def _at_work(self) -> bool:
        return self._maildirs.jobs > 0 or any(fleet.in_use for fleet in self._fleets.values())

    def _find_fleet(self, destination: Destination, protocol: SmtpFleet) -> Fleet:
        """The fleet of a destination that was not seen before, or not lately."""
        path = destination.path
        fleet = self._fleets.get((protocol, path))
        if fleet is None:
            fleet = Fleet(self._poller, self._outbox, self._resolver, self._page, self._hostname, protocol, path)
            self._fleets[protocol, path] = fleet
        if len(self._by_destination) >= MOST_DESTINATIONS:
            self._by_destination.clear()
        self._by_destination[destination] = fleet
        return fleet

    def _sweep(self) -> None:
        now = self._loop.time()
        busy = False
        for key, fleet in list(self._fleets.items()):
            fleet.sweep(now)
            if fleet.in_use:
                busy = True
            elif now - fleet.last_used > FORGET_AFTER:
                del self._fleets[key]
                self._by_destination.clear()
        self._timer = self._loop.call_later(SWEEP_INTERVAL, self._sweep) if busy else None
