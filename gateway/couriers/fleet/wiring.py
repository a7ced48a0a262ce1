"""Wiring: what all upstream connections of a worker share, in one value; no behaviour of its own."""

from __future__ import annotations

from gateway._fastpath import CounterPage
from gateway.couriers.fleet.table import MemberTable
from gateway.net.outbox import Outbox
from gateway.net.resolver import Resolver
from gateway.net.streams import Poller


class Wiring:
    """ehlo_domain: for EHLO where the egress path names none; "" for the address of our end of the connection.

    closing: connections are not kept any more. submitting: a batch is being submitted, so that nobody who waits for a
    job may be called now. waiting: jobs of all fleets that wait for a connection. table: what all workers know of the
    members.
    """

    def __init__(self, poller: Poller, page: CounterPage, ehlo_domain: str, table: MemberTable) -> None:
        self.poller = poller
        self.page = page
        self.ehlo_domain = ehlo_domain
        # apart from the clients': what goes to one process goes there in one run
        self.outbox = Outbox(poller.call_soon)
        self.resolver = Resolver(poller.loop)
        self.table = table
        self.closing = False
        self.submitting = False
        self.waiting = 0
