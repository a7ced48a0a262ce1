"""Which lane a job goes to. Pure."""

from __future__ import annotations

from gateway.couriers.fleet.job import Job
from gateway.couriers.fleet.lane import Lane


def choose(lanes: list[Lane], job: Job, first: int) -> Lane | None:
    """The lane for this job; None where it is better to wait, or where all have been tried.

    The one whose member has the least to do, of those that may have one more: the fewest transactions in flight, each
    for as long as that member takes. first: the place of the lane that comes first among equals.
    """
    best: Lane | None = None
    for index in range(first, first + len(lanes)):
        lane = lanes[index % len(lanes)]
        if lane.member.trusted() and lane not in job.tried and (best is None or lane.load(job) < best.load(job)):
            best = lane
    return best if best is not None and best.has_room(job) else None
