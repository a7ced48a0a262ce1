"""The courier to fleets: finds the one that a destination means, knows the members, and forgets what nobody uses.

What a fleet does with a batch is gateway/couriers/fleet/fleet.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

from gateway._fastpath import CounterPage
from gateway.config import Destination, EgressPath, Host, SmtpFleet
from gateway.couriers.courier import Courier
from gateway.couriers.fleet.fleet import Fleet
from gateway.couriers.fleet.lane import Lane
from gateway.couriers.fleet.member import Member
from gateway.couriers.fleet.preference import preference_of
from gateway.couriers.fleet.table import MemberTable
from gateway.couriers.fleet.wiring import Wiring
from gateway.handover import Batch
from gateway.later import Later
from gateway.net.streams import Poller
from gateway.smtp.capabilities import Abilities, taken_by_all

FORGET_AFTER = 600.0  # seconds without use after which a fleet is forgotten, and what is known about its members
MOST_DESTINATIONS = 1024


class FleetCourier(Courier):
    """ehlo_domain: for EHLO where the egress path names none; see Wiring."""

    def __init__(self, poller: Poller, page: CounterPage, ehlo_domain: str, table: MemberTable | None = None) -> None:
        self._wiring = Wiring(poller, page, ehlo_domain, table or MemberTable())
        self._by_destination: dict[Destination, Fleet] = {}
        self._fleets: dict[tuple[SmtpFleet, EgressPath], Fleet] = {}
        self._lanes: dict[tuple[Host, EgressPath], Lane] = {}
        self._members: dict[tuple[str, int], Member] = {}  # by what is connected to, whatever it is called
        self._kept: list[Fleet] = []  # however long nobody uses them
        self._ends = math.inf  # when nothing may be under way any more

    def submit(self, batch: Batch, destination: Destination, deadline: float) -> Later:
        fleet = self._by_destination.get(destination)
        if fleet is None:
            fleet = self._find(destination)
        return fleet.submit(batch, deadline)

    def room(self, destination: Destination) -> int:
        fleet = self._by_destination.get(destination) or self._find(destination)
        return fleet.room()

    def sweep(self, now: float) -> bool:
        ended = now >= self._ends
        self._sync(now)
        for fleet in self._fleets.values():
            if ended:
                fleet.expire(now)
            fleet.sweep(now)
        for lane in self._lanes.values():
            if ended:
                lane.abort(now)
            lane.sweep(now)
        self._forget(now)
        return (
            any([lane.connections for lane in self._lanes.values()])
            or any([fleet.jobs for fleet in self._fleets.values()])
            or (not self._wiring.closing and any([not member.admits for member in self._members.values()]))
        )

    def close(self, deadline: float) -> None:
        self._ends = deadline
        self._wiring.closing = True
        for lane in self._lanes.values():
            lane.quit_idle()
        self._wiring.resolver.close()

    def learn(self, destination: Destination, ask: bool) -> None:
        """Know its members from now on. ask: what they can, where nobody has been told."""
        fleet = self._find(destination)
        self._kept.append(fleet)
        self._wiring.table.look()
        for lane in fleet.lanes:
            if ask and lane.member.entry.announced() is None:
                lane.probe()

    def taken(self) -> Abilities:
        """What the members that are known here take: see gateway/smtp/capabilities.py."""
        self._wiring.table.look()
        return taken_by_all([member.entry.announced() for member in self._members.values()])

    # --- who is there -------------------------------------------------------------------------------------------------

    def _find(self, destination: Destination) -> Fleet:
        """The fleet of a destination that was not seen before, or not lately."""
        protocol, path = destination.queue.protocol, destination.path
        assert isinstance(protocol, SmtpFleet)
        fleet = self._fleets.get((protocol, path))
        if fleet is None:
            lanes = [self._lane(host, path) for host in dict.fromkeys(protocol.mx_list)]
            preference = preference_of(protocol, lanes)
            fleet = Fleet(self._wiring, protocol, lanes, path.wait_timeout, preference)
            self._fleets[protocol, path] = fleet
        if len(self._by_destination) >= MOST_DESTINATIONS:
            self._by_destination.clear()
        self._by_destination[destination] = fleet
        return fleet

    def _lane(self, host: Host, path: EgressPath) -> Lane:
        if host.path:
            path = replace(path, **dict(host.path))
        lane = self._lanes.get((host, path))
        if lane is None:
            key = host.address.lower(), host.port or path.smtp_port
            member = self._members.get(key)
            if member is None:
                member = self._members[key] = Member(self._wiring.table, *key, host.name)
            member.entry.describe(host.group, host.weight, host.zone)
            lane = self._lanes[host, path] = Lane(self._wiring, member, host, path)
        return lane

    def _sync(self, now: float) -> None:
        """Tell the other workers what is asked of the members here, and learn what they know."""
        self._wiring.table.beat(now)
        self._wiring.table.look()
        waiting = {id(lane) for fleet in self._fleets.values() if fleet.is_waiting() for lane in fleet.lanes}
        limits: dict[int, tuple[Member, int, bool]] = {}
        for (_, path), lane in self._lanes.items():
            member, limit, waits = limits.get(id(lane.member), (lane.member, 0, False))
            limits[id(member)] = member, max(limit, path.connection_limit), waits or id(lane) in waiting
        for member, limit, waits in limits.values():
            member.sync(now, limit, waits)

    def _forget(self, now: float) -> None:
        """Fleets that nobody uses, and what only they use."""
        old = [
            key
            for key, fleet in self._fleets.items()
            if not fleet.jobs and now - fleet.last_used > FORGET_AFTER and fleet not in self._kept
        ]
        if not old:
            return
        self._by_destination.clear()
        for key in old:
            self._fleets.pop(key).leave()
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.dispatchers or lane.connections}
        used = {id(lane.member) for lane in self._lanes.values()}
        for member in [member for member in self._members.values() if id(member) not in used]:
            self._wiring.table.leave(member.entry)
        self._members = {key: member for key, member in self._members.items() if id(member) in used}
