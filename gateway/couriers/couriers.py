"""The couriers of one worker: which of them serves a destination, and the clock that they all live by.

Everything happens in callbacks on the worker's event loop; a connection being opened has a task, a message has none.
Nothing is kept here: what cannot be handed over by its deadline comes back. Whoever submitted it puts it into the spool
(gateway/couriers/spool/), or tells the client, which still holds the message, to try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway._fastpath import CounterPage
from gateway.config import Destination, Listener, Maildir, SmtpFleet
from gateway.couriers.courier import Courier
from gateway.couriers.fleet.courier import FleetCourier
from gateway.couriers.fleet.table import MemberTable
from gateway.couriers.maildir import MaildirCourier
from gateway.handover import Batch
from gateway.later import Later
from gateway.net.streams import Poller
from gateway.smtp.capabilities import UNKNOWN, Abilities

SWEEP_INTERVAL = 0.25  # seconds; how late a timeout may be noticed
CLOSE_INTERVAL = 0.02  # seconds


def ehlo_domain(listeners: Sequence[Listener], hostname: str) -> str:
    """The name that this host has towards the fleet: the first listener's that is fully qualified, else the machine's.

    "" where there is none, since a name without a domain is refused by many (RFC 5321 §2.3.5). No lookup: a name server
    that is silent must not hold up a start.
    """
    names = [str(listener.overrides.get("hostname", "")) for listener in listeners]
    return next((name for name in [*names, hostname] if "." in name.strip(".")), "")


class Couriers:
    """hostname: the machine's, in Maildir file names. ehlo_domain: for EHLO where the egress path names none; "" is the
    address of our end of the connection (RFC 5321 §4.1.4). table: what the workers know of the fleet's members; None
    where there are no others.
    """

    def __init__(
        self, poller: Poller, page: CounterPage, hostname: str, ehlo_domain: str, table: MemberTable | None = None
    ) -> None:
        self._loop = poller.loop
        self._fleets = FleetCourier(poller, page, ehlo_domain, table)
        self._taken = UNKNOWN
        self._look_at = 0.0  # when it is looked again what the members take
        self._by_type: dict[type, Courier] = {
            SmtpFleet: self._fleets,
            Maildir: MaildirCourier(self._loop, page, hostname),
        }
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, batch: Batch, destination: Destination, deadline: float) -> Later:
        """Hand a batch over to where its queue says (its `protocol` must not be None): see Courier.submit."""
        courier = self._by_type[type(destination.queue.protocol)]
        if self._timer is None:
            self._at_work()  # nobody has looked for a while what other workers have learned
            self._timer = self._loop.call_later(SWEEP_INTERVAL, self._sweep)
        return courier.submit(batch, destination, deadline)

    def room(self, destination: Destination) -> int:
        """How many batches more could be under way to where a queue says: see Courier.room."""
        courier = self._by_type[type(destination.queue.protocol)]
        return courier.room(destination)

    def learn(self, destination: Destination, ask: bool) -> None:
        """Know a fleet's members before there is mail for it. ask: what they can, where no worker has been told."""
        if not isinstance(destination.queue.protocol, SmtpFleet):
            return
        self._fleets.learn(destination, ask)
        if self._timer is None:
            self._sweep()

    def fleet_takes(self) -> Abilities:
        """What the fleet takes, as far as is known: see gateway/smtp/capabilities.py."""
        now = self._loop.time()
        if now >= self._look_at:
            self._look_at = now + SWEEP_INTERVAL
            self._taken = self._fleets.taken()
        return self._taken

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
