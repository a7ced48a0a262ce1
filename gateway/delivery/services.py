"""What a worker lends to each of its sessions, in one value; no behaviour of its own."""

from __future__ import annotations

from collections.abc import Callable

from gateway._fastpath import CounterPage
from gateway.couriers.couriers import Couriers
from gateway.couriers.spool.spool import Spool
from gateway.logs.writer import LogWriter
from gateway.net.turns import Room
from gateway.policy.engine import Policy
from gateway.quotas import Quotas
from gateway.tracing.tracer import Tracer


class Services:
    """now_ns: nanoseconds since 1970. monotonic: seconds on the event loop's clock, for deadlines. afterwards: calls
    something when the replies of this turn of the loop are written. room: of contents, what messages are
    kept in, and for those who wait for more of it. spool: None unless the policy has one. quotas: of
    all clients; None: nobody has any. tracer: knows who looks on;
    traced: somebody does.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        couriers: Couriers,
        logs: LogWriter,
        page: CounterPage,
        now_ns: Callable[[], int],
        monotonic: Callable[[], float],
        afterwards: Callable[[Callable[[], None]], None],
        room: Room,
    ) -> None:
        self.policy = policy
        self.couriers = couriers
        self.logs = logs
        self.page = page
        self.now_ns = now_ns
        self.monotonic = monotonic
        self.afterwards = afterwards
        self.room = room
        self.contents = room.contents
        self.spool: Spool | None = None
        self.quotas: Quotas | None = None
        self.tracer = Tracer(0, now_ns, monotonic)
        self.traced = False
