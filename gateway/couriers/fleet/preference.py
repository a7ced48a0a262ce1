"""Which lane a job goes to in a fleet whose members are no equals: groups, zones and weights of `gateway.fleet`. Pure.

Members of one group and nearness stand in one rank. The first rank that has a member in order gets the mail, all of it:
where that has no room a job waits, as in any fleet. Within the rank the one with the least to do for its weight is
chosen; of those that have equally little, each gets as many as its weight says, evenly spread.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from gateway.config import Host, SmtpFleet
from gateway.couriers.fleet.job import Job
from gateway.couriers.fleet.lane import Lane


@dataclass(slots=True, eq=False)
class Place:
    """A lane in its rank. credit: what it is owed of its share."""

    lane: Lane
    weight: int
    credit: int = 0


def preference_of(fleet: SmtpFleet, lanes: Sequence[Lane]) -> Preference | None:
    """None where all members are equals. lanes: of each member, in their order."""
    hosts = list(dict.fromkeys(fleet.mx_list))
    terms = {(host.weight, _rank(host, fleet.zone)) for host in hosts}
    return Preference(hosts, lanes, fleet.zone) if len(terms) > 1 else None


class Preference:
    """zone: where the gateway is; members that are there go before the others of their group. "" for anywhere."""

    def __init__(self, hosts: Sequence[Host], lanes: Sequence[Lane], zone: str) -> None:
        ranks: dict[tuple[int, bool], list[Place]] = {}
        for host, lane in zip(hosts, lanes, strict=True):
            ranks.setdefault(_rank(host, zone), []).append(Place(lane, host.weight))
        self._ranks = [ranks[key] for key in sorted(ranks)]

    def foremost(self, job: Job | None = None) -> list[Lane]:
        """The lanes that mail goes to now, and this job."""
        return [place.lane for place in self._foremost(job, None)]

    def choose(self, job: Job, gone: Lane | None = None, full: Container[Lane] = ()) -> Lane | None:
        """The lane for this job; None where it is better to wait, or where all have been tried.

        gone: counts as if it were not in order. full: take no more.
        """
        free = [
            place
            for place in self._foremost(job, gone)
            if place.lane.member.trusted() and place.lane not in full and place.lane.has_room(job)
        ]
        if not free:
            return None
        loads = [place.lane.load(job) / place.weight for place in free]
        least = min(loads)
        return _next([place for place, load in zip(free, loads, strict=True) if load == least])

    def claimed(self, job: Job) -> Lane | None:
        """The same, with a connection for the job."""
        full: list[Lane] = []
        while (lane := self.choose(job, full=full)) is not None and not lane.claim():
            full.append(lane)  # other workers have the connections, or this member takes no more
        return lane

    def _foremost(self, job: Job | None, gone: Lane | None) -> list[Place]:
        for rank in self._ranks:
            places = [
                place for place in rank if place.lane is not gone and (job is None or place.lane not in job.tried)
            ]
            if any(place.lane.member.admits for place in places):
                return places
        return []


def _rank(host: Host, zone: str) -> tuple[int, bool]:
    return host.group, bool(zone) and host.zone != zone


def _next(places: list[Place]) -> Lane:
    """Of equally good ones, by their weights."""
    for place in places:
        place.credit += place.weight
    chosen = max(places, key=lambda place: place.credit)
    chosen.credit -= sum(place.weight for place in places)
    return chosen.lane
