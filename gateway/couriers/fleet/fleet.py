"""A fleet: the members of one `mx_list` as one worker reaches them with one egress path, and the jobs for them.

A job goes to the lane that choice.py names, or preference.py where members are no equals; where none has room it waits,
first in, first out, except that small ones pass large ones. A member that fails a job before the content was sent is
replaced by another one, and so is one that cannot take the message; a kept connection that turns out dead gets one more
try on a new connection to the same member, and so does a member that offers CHUNKING but does not know BDAT. What
answers mean is outcome.py.
"""

from __future__ import annotations

from collections import deque

from gateway.config import SmtpFleet, site_name
from gateway.couriers.fleet import choice, counting, outcome
from gateway.couriers.fleet.connection import MemberConnection
from gateway.couriers.fleet.job import Dispatcher, Job
from gateway.couriers.fleet.lane import Lane
from gateway.couriers.fleet.preference import Preference
from gateway.couriers.fleet.wiring import Wiring
from gateway.handover import Batch
from gateway.later import Later
from gateway.smtp import replies
from gateway.smtp.client_values import Failure
from gateway.smtp.replies import Reply
from gateway.smtp.requests import Requests

# What is looked up for every message: CPython 3.11 takes its time to find another module's name.
_UNREACHABLE, _DURATION = replies.UPSTREAM_UNREACHABLE, counting.DURATION


class Fleet(Dispatcher):
    """jobs: submitted and not reported yet. last_used: when a sweep last found some, on the loop's clock."""

    def __init__(
        self,
        wiring: Wiring,
        protocol: SmtpFleet,
        lanes: list[Lane],
        patience: float,
        preference: Preference | None = None,
    ) -> None:
        """patience: seconds for which a batch waits for a connection at most. preference: None among equals."""
        self.lanes = lanes
        self.jobs = 0
        self.last_used = wiring.poller.time()
        self._wiring = wiring
        self._next = 0  # where the next choice starts, so that ties go round
        self._waiting: deque[Job] = deque()
        self._since: dict[Job, float] = {}  # when each of them began to wait
        self._patience = patience
        self._preference = preference
        self._site = f"unspecified->{site_name(protocol)}@smtp_client"
        for lane in lanes:
            lane.dispatchers.append(self)

    # --- the courier's side -------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, deadline: float) -> Later:
        """Take a batch on: see Courier.submit."""
        job = Job(batch, deadline, self)
        if batch.requests is not None:
            self._prefer(job, batch.requests)
        self.jobs += 1
        self._wiring.submitting = True
        try:
            self._place(job, _UNREACHABLE)
        finally:
            self._wiring.submitting = False
        return job.later

    def room(self) -> int:
        """How many jobs more could be on connections at once; 0 while some wait."""
        if self._waiting:
            return 0
        lanes = self.lanes if self._preference is None else self._preference.foremost()
        return sum([lane.room() for lane in lanes])

    def sweep(self, now: float) -> None:
        """Notice whose time is up among those that wait."""
        for job in [job for job in self._waiting if now >= min(job.deadline, self._since[job] + self._patience)]:
            self.carried(job)
            self._give_up(job, replies.UPSTREAM_BUSY)
        self.serve_waiting()
        if self.jobs > 0:
            self.last_used = now

    def expire(self, now: float) -> None:
        """Nobody waits any longer than this."""
        for job in self._waiting:
            job.deadline = now

    def is_waiting(self) -> bool:
        """True where there are more jobs than connections."""
        return bool(self._waiting)

    def leave(self) -> None:
        """No job will come any more."""
        for lane in self.lanes:
            lane.dispatchers.remove(self)

    # --- what lanes tell ----------------------------------------------------------------------------------------------

    def report(self, job: Job) -> None:
        self.jobs -= 1
        self._wiring.page.observe(_DURATION, job.conclude(self._site))
        if self._wiring.submitting:
            job.tell_soon(self._wiring.poller)
        else:
            job.tell()

    def declined(self, lane: Lane, job: Job, reply: Reply) -> None:
        job.declined += 1
        job.rule_out(lane)
        self._place(job, reply)

    def recover(self, lane: Lane, job: Job, connection: MemberConnection) -> None:
        """A connection ended under its job: go on elsewhere if that is safe and called for."""
        now = self._wiring.poller.time()
        exchange, failure = connection.exchange, connection.session.failure
        if exchange is not None and connection.may_have_delivered:
            lane.member.lost(True)
            lane.member.failed(now, connection)
            job.settle(outcome.unknown(exchange))
            self._go_on(lane, job)
            return
        if exchange is not None and failure is not Failure.PROTOCOL:
            judged = outcome.judged(exchange)
            if judged is not None:
                job.settle(judged)
                self._go_on(lane, job)
                return
        if now >= job.deadline:
            self._give_up(job, replies.UPSTREAM_TIMEOUT)
        elif _is_no_failure(connection):
            self._retry(lane, job)
        elif lane.turned_away(connection):
            self._place(job, outcome.failure_reply(connection.session))
        else:
            if exchange is not None:
                lane.member.lost(False)
            lane.member.failed(now, connection)
            job.rule_out(lane)
            self._place(job, outcome.failure_reply(connection.session))

    def moves(self, lane: Lane, job: Job) -> bool:
        if self._preference is not None:
            other = self._preference.choose(job, gone=lane)
        else:
            other = choice.choose([each for each in self.lanes if each is not lane], job, 0)
        if other is None or not other.claim():
            return False
        job.rule_out(lane)
        other.carry(job)
        return True

    def oldest_waiting(self, lane: Lane) -> Job | None:
        for job in self._waiting:
            if lane not in job.tried and lane.admits(job) and self._is_foremost(lane, job):
                return job
        return None

    def carried(self, job: Job) -> None:
        self._waiting.remove(job)
        del self._since[job]
        self._wiring.waiting -= 1
        self._wiring.page.add(counting.WAITING, -1)

    def serve_waiting(self) -> None:
        """There may be room again: place those that wait, in their order; small ones may pass large ones."""
        blocked = False  # for large ones
        for job in list(self._waiting):
            if blocked and job.large:
                continue
            lane = self._choose(job)
            if lane is not None:
                self.carried(job)
                lane.carry(job)
            elif not job.large:
                break
            else:
                blocked = True
        if self._waiting and not all([lane.member.admits for lane in self.lanes]):
            self._give_up_hopeless()

    # --- choosing -----------------------------------------------------------------------------------------------------

    def _go_on(self, lane: Lane, job: Job) -> None:
        """Some recipients have got their outcome, though the connection is gone."""
        if job.finished():
            self.report(job)
        else:
            self._retry(lane, job)

    def _retry(self, lane: Lane, job: Job) -> None:
        """A new connection to the same member may do better."""
        if lane.member.admits:
            lane.carry(job, True)
        else:
            self._place(job, _UNREACHABLE)

    def _place(self, job: Job, reply: Reply) -> None:
        """Give the job to a lane, or let it wait for one, or give up with `reply` when all have been tried."""
        lane = self._choose(job)
        if lane is not None:
            lane.carry(job)
        elif self._has_hope(job):
            self._waiting.append(job)
            self._since[job] = self._wiring.poller.time()
            self._wiring.waiting += 1
            self._wiring.page.add(counting.WAITING)
        elif job.declined == len(self.lanes):
            self._give_up(job, reply if self.lanes else _UNREACHABLE)
        else:  # one that failed might have taken it
            self._give_up(job, _UNREACHABLE if reply.code // 100 == 5 else reply)

    def _prefer(self, job: Job, requests: Requests) -> None:
        """Members that can pass on what the message's client wants go before those that cannot."""
        wanted = requests.wanted()
        unable = []
        for lane in self.lanes:
            taken = lane.member.entry.announced()
            if taken is not None and wanted & ~taken.capabilities:
                unable.append(lane)
        if 0 < len(unable) < len(self.lanes):
            job.avoid(unable)

    def _settle_for_less(self, job: Job) -> None:
        """Where none of the members that it prefers is in order, any will do."""
        if not any([lane.member.admits for lane in self.lanes if lane not in job.tried]):
            job.stop_avoiding()

    def _has_hope(self, job: Job) -> bool:
        """True where a member that the job was not tried on may take it, now or after a probe that is under way; which
        is begun here where no member is left that admits any.
        """
        if job.avoided:
            self._settle_for_less(job)
        left = [lane for lane in self.lanes if lane not in job.tried]
        if any([lane.member.admits or lane.member.probes for lane in left]):
            return True
        now = self._wiring.poller.time()
        due = [lane for lane in left if lane.member.due(now, True)]
        for lane in due:
            lane.probe()
        return bool(due)

    def _give_up_hopeless(self) -> None:
        """Those that wait, and whom no member can take."""
        for job in list(self._waiting):
            if job in self._waiting and not self._has_hope(job):
                self.carried(job)
                self._give_up(job, _UNREACHABLE)

    def _is_foremost(self, lane: Lane, job: Job) -> bool:
        return self._preference is None or lane in self._preference.foremost(job)

    def _choose(self, job: Job) -> Lane | None:
        if job.avoided:
            self._settle_for_less(job)
        if self._preference is not None:
            return self._preference.claimed(job)
        self._next = (self._next + 1) % (len(self.lanes) or 1)
        lane = choice.choose(self.lanes, job, self._next)
        if lane is None or lane.claim():
            return lane
        others = [each for each in self.lanes if each is not lane]
        while others:  # other workers have the connections, or this member takes no more
            lane = choice.choose(others, job, self._next)
            if lane is None or lane.claim():
                return lane
            others.remove(lane)
        return None

    def _give_up(self, job: Job, reply: Reply) -> None:
        job.settle_rest(reply)
        self.report(job)


def _is_no_failure(connection: MemberConnection) -> bool:
    """True where another connection to the same member may do better: this one did its part and ended, or was a kept
    one that ended before it answered anything, or has taught that the member does not know BDAT.
    """
    session, exchange = connection.session, connection.exchange
    if exchange is None:
        return session.failure is None
    return session.bdat_unknown or (exchange.mail is None and connection.transactions > 1)
