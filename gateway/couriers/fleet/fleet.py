"""A fleet: the members of one `mx_list`, the connections to them, and the jobs that wait for one.

Work goes to the member with the fewest transactions in flight; where none has room it waits, first in, first out. A
member that fails a job before the content was sent is replaced by another one; a kept connection that turns out dead
gets one more try on a new connection to the same member, and so does a member that offers CHUNKING but does not know
BDAT. What a single connection does is connection.py, what answers mean is outcome.py.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import replace

from gateway._fastpath import CounterPage
from gateway.config import EgressPath, Host, SmtpFleet, site_name
from gateway.couriers.fleet import counting, outcome
from gateway.couriers.fleet.connection import Connection
from gateway.couriers.fleet.job import Job
from gateway.handover import Batch
from gateway.later import Later
from gateway.net.outbox import Outbox
from gateway.net.resolver import Resolver
from gateway.net.streams import Poller
from gateway.smtp import replies
from gateway.smtp.client_values import Transaction
from gateway.smtp.replies import Reply

REST = 5.0  # seconds for which a member that failed is asked last
_MOST_BUSY = 1 << 30  # more than a member ever has in flight

# What is looked up for every message: CPython 3.11 takes its time to find another module's name.
_UNREACHABLE, _DURATION = replies.UPSTREAM_UNREACHABLE, counting.DURATION

logger = logging.getLogger(__name__)


class Fleet:
    """The members of one `mx_list` as one worker reaches them with one egress path.

    jobs: submitted and not reported yet. last_used: when a sweep last found something going on, on the loop's clock.
    """

    def __init__(
        self,
        poller: Poller,
        outbox: Outbox,
        resolver: Resolver,
        page: CounterPage,
        hostname: str,
        protocol: SmtpFleet,
        path: EgressPath,
    ) -> None:
        self.poller = poller
        self.outbox = outbox
        self.resolver = resolver
        self.page = page
        self.hostname = hostname
        self.path = path
        self.jobs = 0
        self.last_used = poller.time()
        self.closing = False
        self._ends = math.inf  # when nothing may be under way any more
        self._submitting = False  # whoever is waiting for a job must not be called now
        self._members = [Member(self, host) for host in protocol.mx_list]
        self._next = 0  # where the next choice starts, so that ties go round
        self._waiting: deque[Job] = deque()
        self._site = f"unspecified->{site_name(protocol)}@smtp_client"

    # --- the courier's side -------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, deadline: float) -> Later:
        """Take a batch on: see Courier.submit."""
        job = Job(batch, deadline)
        self.jobs += 1
        self._submitting = True
        self._place(job, _UNREACHABLE)
        self._submitting = False
        return job.later

    def sweep(self, now: float) -> bool:
        """Notice whose time is up: connections, their jobs, and jobs that wait. Called a few times a second.

        Returns True while there are jobs or connections.
        """
        if now >= self._ends:
            self._drop_all(now)
        for job in [job for job in self._waiting if now >= job.deadline]:
            self._waiting.remove(job)
            self.page.add(counting.WAITING, -1)
            self._give_up(job, replies.UPSTREAM_BUSY)
        for member in self._members:
            member.sweep(now)
        self.serve_waiting()
        in_use = self.jobs > 0 or any([member.connections for member in self._members])
        if in_use:
            self.last_used = now
        return in_use

    def close(self, deadline: float) -> None:
        """Take leave of every connection as soon as it carries nothing; jobs go on until the deadline."""
        self.closing = True
        self._ends = deadline
        for member in self._members:
            member.quit_idle()

    def _drop_all(self, now: float) -> None:
        """Nobody's time is longer than this."""
        for job in self._waiting:
            job.deadline = now
        for member in self._members:
            member.abort(now)

    # --- the members' side --------------------------------------------------------------------------------------------

    def report(self, job: Job) -> None:
        """The job has all its outcomes."""
        self.jobs -= 1
        self.page.observe(_DURATION, job.conclude(self._site))
        if self._submitting:
            self.poller.call_soon(job.tell)
        else:
            job.tell()

    def next_waiting(self, member: Member) -> Job | None:
        """The job that has waited longest for this member or any other."""
        if not self._waiting:
            return None
        for index, job in enumerate(self._waiting):
            if member not in job.tried:
                del self._waiting[index]
                self.page.add(counting.WAITING, -1)
                return job
        return None

    def serve_waiting(self) -> None:
        """There may be room again: place those that wait, in their order."""
        while self._waiting and (member := self._choose(self._waiting[0])) is not None:
            self.page.add(counting.WAITING, -1)
            member.carry(self._waiting.popleft())

    def recover(self, member: Member, job: Job, connection: Connection) -> None:
        """A connection ended under its job: go on elsewhere if that is safe."""
        now = self.poller.time()
        transaction = connection.transaction
        if transaction is not None and connection.may_have_delivered:
            member.rest(now, connection)
            job.settle(outcome.unknown(transaction))
            self.report(job)
        elif job.begun():
            self._give_up(job, outcome.failure_reply(connection.session))
        elif now >= job.deadline:
            self._give_up(job, replies.UPSTREAM_TIMEOUT)
        elif connection.session.bdat_unknown or _died_unnoticed(connection):
            member.carry(job, afresh=True)
        else:
            member.rest(now, connection)
            job.tried.add(member)
            self._place(job, outcome.failure_reply(connection.session))

    # --- choosing -----------------------------------------------------------------------------------------------------

    def _place(self, job: Job, reply: Reply) -> None:
        """Give the job to a member, or let it wait for one, or report it with `reply` when all have failed it."""
        member = self._choose(job)
        if member is not None:
            member.carry(job)
        elif len(job.tried) == len(self._members):
            self._give_up(job, reply)
        else:
            self._waiting.append(job)
            self.page.add(counting.WAITING)

    def _choose(self, job: Job) -> Member | None:
        """The member for this job; None where it is better to wait, or where all have failed it.

        A member that failed lately is asked only where all others have failed the job too.
        """
        members = self._members
        first = self._next = (self._next + 1) % (len(members) or 1)
        best: Member | None = None
        for index in range(first, first + len(members)):
            member = members[index % len(members)]
            if member not in job.tried and (best is None or member.load() < best.load()):
                best = member
        return best if best is not None and best.has_room() else None

    def _give_up(self, job: Job, reply: Reply) -> None:
        job.settle_rest(reply)
        self.report(job)


def _died_unnoticed(connection: Connection) -> bool:
    """True when a kept connection ended before it answered anything to its transaction."""
    transaction = connection.transaction
    return transaction is not None and not transaction.answers and connection.transactions > 1


class Member:
    """One host of the fleet and its connections: the Owner of gateway/couriers/fleet/connection.py.

    connections: all of them, with the job each was opened for or works on. busy: how many have one. resting: it
    failed lately, so that the others come first.
    """

    def __init__(self, fleet: Fleet, host: Host) -> None:
        self.connections: dict[Connection, Job | None] = {}
        self.busy = 0
        self.resting = False
        self._rests_until = 0.0
        self._fleet = fleet
        self._host = host
        self._path = fleet.path
        self._idle: list[Connection] = []  # last used last, so that a surplus grows old and is closed

    def has_room(self) -> bool:
        """True when a job could be carried at once."""
        return bool(self._idle) or len(self.connections) < self._fleet.path.connection_limit

    def load(self) -> int:
        """What makes one member a worse choice than another: it rests, else it has no room, else it is busier."""
        return (2 * self.resting + (not self.has_room())) * _MOST_BUSY + self.busy

    def carry(self, job: Job, afresh: bool = False) -> None:
        """Put the job on an idle connection, or on a new one: always with `afresh`."""
        self.busy += 1
        if self._idle and not afresh:
            connection = self._idle.pop()
            if not self._begin(connection, job):
                self._spare(connection)
            return
        fleet = self._fleet
        connection = Connection(
            fleet.poller, fleet.outbox, fleet.resolver, self._host, self._path, fleet.hostname, self
        )
        self.connections[connection] = job
        job.connection = connection
        connection.open()

    def rest(self, now: float, connection: Connection) -> None:
        """The member failed a job; the others come first for a while."""
        if not self.resting:
            session = connection.session
            where = f"{self._host.name} [{connection.address}]"
            logger.warning("%s failed at %s: %s: %s", where, session.failed_at, session.failure, session.detail)
        self.resting = True
        self._rests_until = now + REST

    def sweep(self, now: float) -> None:
        """Close what has been idle for long enough, drop what has been waited for in vain."""
        self.resting = self.resting and now < self._rests_until
        for connection, job in list(self.connections.items()):
            if not connection.overdue(now) and (job is None or now < job.deadline):
                continue
            if connection.ready():
                self._idle.remove(connection)
                connection.quit()
            else:
                connection.time_out()

    def quit_idle(self) -> None:
        """Close what carries nothing."""
        while self._idle:
            self._idle.pop().quit()

    def abort(self, now: float) -> None:
        """Drop every connection; the jobs on them are not carried on elsewhere."""
        for connection, job in list(self.connections.items()):
            if job is not None:
                job.deadline = now
            connection.time_out()

    # --- what connections tell ----------------------------------------------------------------------------------------

    def connection_opened(self, connection: Connection) -> None:
        self._fleet.page.add(counting.OPENED)
        self._fleet.page.add(counting.OPEN)

    def connection_ready(self, connection: Connection) -> None:
        self._count_answered(connection)
        self.resting = False
        job = self.connections[connection]
        if job is None or not self._begin(connection, job):
            self._spare(connection)

    def transaction_concluded(self, connection: Connection, transaction: Transaction) -> None:
        counting.count_transaction(self._fleet.page, transaction)
        job = self.connections[connection]
        assert job is not None
        job.settle(outcome.concluded(transaction))
        if not job.finished():
            if connection.ready():
                self._begin(connection, job)
            return
        self._release(connection)
        if connection.ready():
            self._spare(connection)  # first, so that whoever is told next finds it
        self._fleet.report(job)

    def connection_ended(self, connection: Connection) -> None:
        job = self.connections[connection]
        if connection in self._idle:
            self._idle.remove(connection)
        self._count_end(connection, job)
        if connection.session.bdat_unknown:
            logger.warning("%s is sent to without CHUNKING from now on: %s", self._host.name, connection.session.detail)
            self._path = replace(self._path, enable_chunking=False)
        if job is not None:
            self._release(connection)
        del self.connections[connection]
        if job is not None:
            self._fleet.recover(self, job, connection)
        self._fleet.serve_waiting()

    # --- jobs on connections ------------------------------------------------------------------------------------------

    def _begin(self, connection: Connection, job: Job) -> bool:
        """Start the job's next transaction; False when the member cannot take the message and the job is reported."""
        self.connections[connection] = job
        job.connection = connection
        refusals = outcome.unsendable(job.batch, connection.session)
        if refusals is None:
            connection.begin(job.next_transaction(self._fleet.path.max_recipients_per_batch))
            return True
        self._release(connection)
        job.settle(refusals)
        self._fleet.report(job)
        return False

    def _release(self, connection: Connection) -> None:
        self.connections[connection] = None
        self.busy -= 1

    def _spare(self, connection: Connection) -> None:
        """A connection has nothing to do: give it the job that waits longest, keep it, or close it."""
        fleet = self._fleet
        if connection.transactions < fleet.path.max_deliveries_per_connection:
            while (job := fleet.next_waiting(self)) is not None:
                self.busy += 1
                if self._begin(connection, job):
                    return
            if not fleet.closing:
                self._idle.append(connection)
                return
        connection.quit()

    def _count_answered(self, connection: Connection) -> None:
        answered = connection.session.answered
        counting.count_others(self._fleet.page, answered)
        answered.clear()

    def _count_end(self, connection: Connection, job: Job | None) -> None:
        page = self._fleet.page
        self._count_answered(connection)
        if connection.source_address is not None:
            page.add(counting.OPEN, -1)
        if connection.transaction is not None:
            counting.count_transaction(page, connection.transaction)
        if job is not None:  # an idle connection may be closed by either side at any time
            counting.count_failure(page, connection.session)
