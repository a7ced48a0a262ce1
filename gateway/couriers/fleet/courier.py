"""The courier to fleets: finds the one that a destination means, and forgets those that nobody uses.

What a fleet does with a batch is gateway/couriers/fleet/fleet.py.
"""

from __future__ import annotations

from gateway._fastpath import CounterPage
from gateway.config import Destination, EgressPath, SmtpFleet
from gateway.couriers.courier import Courier
from gateway.couriers.fleet.fleet import Fleet
from gateway.handover import Batch
from gateway.later import Later
from gateway.net.outbox import Outbox
from gateway.net.resolver import Resolver
from gateway.net.streams import Poller

FORGET_AFTER = 600.0  # seconds without use after which a fleet is forgotten
MOST_DESTINATIONS = 1024


class FleetCourier(Courier):
    """hostname: for EHLO where the egress path names none."""

    def __init__(self, poller: Poller, page: CounterPage, hostname: str) -> None:
        self._poller = poller
        self._page = page
        self._hostname = hostname
        # apart from the clients': what goes to one process goes there in one run
        self._outbox = Outbox(poller.call_soon)
        self._resolver = Resolver(poller.loop)
        self._fleets: dict[tuple[SmtpFleet, EgressPath], Fleet] = {}
        self._by_destination: dict[Destination, Fleet] = {}

    def submit(self, batch: Batch, destination: Destination, deadline: float) -> Later:
        fleet = self._by_destination.get(destination)
        if fleet is None:
            fleet = self._find(destination)
        return fleet.submit(batch, deadline)

    def sweep(self, now: float) -> bool:
        busy = False
        for key, fleet in list(self._fleets.items()):
            if fleet.sweep(now):
                busy = True
            elif now - fleet.last_used > FORGET_AFTER:
                del self._fleets[key]
                self._by_destination.clear()
        return busy

    def close(self, deadline: float) -> None:
        for fleet in self._fleets.values():
            fleet.close(deadline)

    def _find(self, destination: Destination) -> Fleet:
        """The fleet of a destination that was not seen before, or not lately."""
        protocol, path = destination.queue.protocol, destination.path
        assert isinstance(protocol, SmtpFleet)
        fleet = self._fleets.get((protocol, path))
        if fleet is None:
            fleet = Fleet(self._poller, self._outbox, self._resolver, self._page, self._hostname, protocol, path)
            self._fleets[protocol, path] = fleet
        if len(self._by_destination) >= MOST_DESTINATIONS:
            self._by_destination.clear()
        self._by_destination[destination] = fleet
        return fleet
