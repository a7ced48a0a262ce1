"""Lane: the connections of one worker to one member with one egress path, shared by all fleets that name both.

It puts jobs on connections, keeps the idle ones, and closes what is old. Which lane a job goes to, and what is done
when one fails, is gateway/couriers/fleet/fleet.py; what a single connection does is connection.py.
"""

from __future__ import annotations

import logging

from gateway.config import ClientAddress, EgressPath, Host
from gateway.couriers.fleet import counting, outcome
from gateway.couriers.fleet.connection import MemberConnection, Owner
from gateway.couriers.fleet.job import Dispatcher, Job
from gateway.couriers.fleet.member import Member
from gateway.couriers.fleet.route import Route
from gateway.couriers.fleet.wiring import Wiring
from gateway.smtp.exchange import Exchange

# One in so many of a lane's connections carries no large job, so that the others need not wait until those are sent.
KEPT_FOR_SMALL = 4
_NO_ROOM = 1e12  # seconds, more than a member ever has to do
_BOUND = (ClientAddress.PROXY, ClientAddress.XCLIENT)  # connections are not anybody's
HEDGE = 0.25  # seconds for which a message waits for a new connection while another member could have it

logger = logging.getLogger(__name__)


class Lane(Owner):
    """The Owner of its connections (gateway/couriers/fleet/connection.py).

    connections: all of them. dispatchers: whose jobs it carries.
    """

    def __init__(self, wiring: Wiring, member: Member, host: Host, path: EgressPath) -> None:
        self.member = member
        self.connections: list[MemberConnection] = []
        self.dispatchers: list[Dispatcher] = []
        self._wiring = wiring
        self._host = host
        self._path = path
        self._limit = path.connection_limit
        self._claimed = False  # a connection that is not opened yet
        self._large = 0  # jobs under way
        self._most_large = max(1, self._limit - max(1, self._limit // KEPT_FOR_SMALL))
        self._most_deliveries = path.max_deliveries_per_connection
        self._most_recipients = path.max_recipients_per_batch
        self._introduces = path.client_address is not None
        self._bound = path.client_address in _BOUND
        self._told = ""  # the log, why the member does not know its clients
        self._probes: set[MemberConnection] = set()
        self._idle: list[MemberConnection] = []  # last used last, so that a surplus grows old and is closed

    def admits(self, job: Job) -> bool:
        """False for a large job where there are as many as there may be: the other connections are for small ones."""
        return not job.large or self._large < self._most_large

    def room(self) -> int:
        """How many jobs more could be carried at once; 0 while its member is not trusted."""
        member = self.member
        if not member.trusted():
            return 0
        return max(0, min(member.window - member.busy, self._limit - member.connections + len(self._idle)))

    def has_room(self, job: Job) -> bool:
        """True when this job could be carried at once."""
        return (bool(self._idle) or self.member.connections < self._limit) and self.admits(job)

    def load(self, job: Job) -> float:
        """What makes a lane a worse choice than another: it has no room, else its member has more to do, in seconds."""
        return (0.0 if self.has_room(job) else _NO_ROOM) + self.member.busy * self.member.pace

    def claim(self) -> bool:
        """True where a connection is there for a job, which `carry` must be given next: idle, or claimed here."""
        if not self._idle:
            self._claimed = self.member.claim(self._limit, self._wiring.poller.time())
            return self._claimed
        return True

    def carry(self, job: Job, afresh: bool = False) -> None:
        """Put the job on an idle connection, or on a new one: always with `afresh`."""
        self._take_on(job)
        if self._idle and not afresh and (not self._bound or self._has_for(job)):
            connection = self._idle.pop()
            if not self._begin(connection, job):
                self._spare(connection)
            return
        if not self._claimed:
            self.member.connect(1, self._wiring.poller.time())
        self._claimed = False
        self._open(job, Route(self._host, self._host.port or self._path.smtp_port, self.member.address))

    def _has_for(self, job: Job) -> bool:
        """True where an idle connection suits the job, the last one then; one that does not has to make room."""
        client = job.batch.client
        for connection in reversed(self._idle):
            if connection.suits(client):
                self._idle.remove(connection)
                self._idle.append(connection)
                return True
        if not self._claimed:
            self._idle.pop(0).quit()
        return False

    def sweep(self, now: float) -> None:
        """Close what has been idle for long enough, drop what has been waited for in vain."""
        if self.dispatchers and not self._wiring.closing and self.member.due(now, False):
            self.probe()
        for connection in self.connections.copy():
            job = connection.job
            if connection in self._probes and now - connection.started >= self._path.connect_timeout:
                connection.time_out()
                continue
            if connection in self._probes and self._wiring.closing:
                self._probes.remove(connection)  # what it would find out is nobody's business any more
                self.member.probes -= 1
                connection.time_out()
                continue
            if not connection.overdue(now) and (job is None or now < job.deadline):
                if job is not None and not connection.transactions and now - connection.started >= HEDGE:
                    self._let_go(connection, job, now)
                continue
            if connection.ready():
                self._idle.remove(connection)
                connection.quit()
            else:
                connection.time_out()
        if self._idle and self.member.connections > self.member.share:
            self._idle.pop(0).quit()

    def probe(self) -> None:
        """Open a connection that carries no message, to see how the member fares."""
        now = self._wiring.poller.time()
        self.member.probing(now, self._path.connect_timeout)
        self.member.connect(1, now)
        self._open(None, Route(self._host, self._host.port or self._path.smtp_port, self.member.address))

    def quit_idle(self) -> None:
        """Close what carries nothing."""
        while self._idle:
            self._idle.pop().quit()

    def abort(self, now: float) -> None:
        """Drop every connection; the jobs on them are not carried on elsewhere."""
        for connection in self.connections.copy():
            job = connection.job
            if job is not None:
                job.deadline = now
            connection.time_out()

    # --- what connections tell ----------------------------------------------------------------------------------------

    def connection_opened(self, connection: MemberConnection) -> None:
        self._wiring.page.add(counting.OPENED)
        self._wiring.page.add(counting.OPEN)

    def connection_ready(self, connection: MemberConnection) -> None:
        self._count_answered(connection)
        self.member.address = connection.address
        if not connection.transactions:
            self.member.entry.announce(connection.session.takes, self._wiring.poller.time())
        watched = self.member.watched
        if watched:
            self.member.greeted(self._wiring.poller.time())
        job = connection.job
        if connection in self._probes:
            self._probes.remove(connection)
            self.member.probes -= 1
            self._spare(connection, False)
        elif job is None or not self._begin(connection, job):
            self._spare(connection)
        if watched:
            self._serve()

    def exchange_concluded(self, connection: MemberConnection, exchange: Exchange) -> None:
        counting.count_exchange(self._wiring.page, exchange)
        if connection.session.answered:  # what came before MAIL
            self._count_answered(connection)
        watched = self.member.watched
        if watched:
            self.member.concluded(self._wiring.poller.time(), connection)
        if exchange.postponed:
            self.member.learn_limit(exchange.accepted, connection)
        job = connection.job
        assert job is not None
        if exchange.deferred and not exchange.divisible:
            self.member.declined(True)
            if exchange.accepted and job.dispatcher.moves(self, job):  # perhaps another member takes all of them
                self._release(connection)
                if connection.ready():
                    self._spare(connection)
                return
        elif exchange.taken():
            self.member.took(self._wiring.poller.time() - connection.begun)
        else:
            self.member.declined(exchange.last_code() // 100 == 4)
        job.settle(outcome.concluded(exchange))
        if not job.finished():
            if connection.ready():
                self._begin(connection, job)
            return
        self._release(connection)
        if connection.ready():
            self._spare(connection)  # first, so that whoever is told next finds it
        job.dispatcher.report(job)
        if watched:
            self._serve()

    def connection_ended(self, connection: MemberConnection) -> None:
        job = connection.job
        if connection in self._idle:
            self._idle.remove(connection)
        self._count_end(connection, job)
        probe = connection in self._probes
        if probe:
            self._probes.remove(connection)
            self.member.probes -= 1
        if self._path.enable_chunking and (connection.session.bdat_unknown or connection.session.out_of_step):
            self.member.learn_no_chunks(connection)
        if (probe or job is not None) and self._may_go_on(connection, job):
            connection.job = None
            self.connections.remove(connection)
            self._open(job, connection.route)  # counted already
            return
        self.member.connect(-1, self._wiring.poller.time())
        if probe and not self.turned_away(connection):
            self.member.failed(self._wiring.poller.time(), connection, True)
        if job is not None:
            self._release(connection)
        self.connections.remove(connection)
        if job is not None:
            job.dispatcher.recover(self, job, connection)
        self._serve()

    def turned_away(self, connection: MemberConnection) -> bool:
        """True where the member takes no more connections, but serves others: it does not fail, it is full."""
        now = self._wiring.poller.time()
        others = self.member.connections + self.member.entry.connections_of_others(now) - self.member.probes
        if not connection.session.turned_away or others < 1:
            return False
        self.member.learn_full(now, connection)
        return True

    # --- jobs on connections ------------------------------------------------------------------------------------------

    def _open(self, job: Job | None, route: Route) -> None:
        """A new connection, for a job or as a probe."""
        client = None if job is None else job.batch.client
        connection = MemberConnection(self._wiring, self._host, self._path, self, route, client)
        self.connections.append(connection)
        connection.job = job
        if job is None:
            self._take_for_probe(connection)
        else:
            job.connection = connection
        connection.open()

    def _may_go_on(self, connection: MemberConnection, job: Job | None) -> bool:
        """True where the member has further addresses to attempt, and nothing was asked of it yet: RFC 5321 §5.1."""
        if not connection.route.untried or connection.transactions:
            return False
        return not self._wiring.closing if job is None else self._wiring.poller.time() < job.deadline

    def _take_for_probe(self, connection: MemberConnection) -> None:
        self._probes.add(connection)
        self.member.probes += 1

    def _let_go(self, connection: MemberConnection, job: Job, now: float) -> None:
        """Let a job that waits for this connection to be ready go elsewhere, if it can; the connection is a probe then.

        Nothing was said of it yet, so nobody gets it twice.
        """
        if job.dispatcher.moves(self, job):
            self._release(connection)
            self._take_for_probe(connection)
            self.member.stalled(now, connection, self._path.connect_timeout)

    def _serve(self) -> None:
        """There may be room, or none any more."""
        for dispatcher in self.dispatchers:
            dispatcher.serve_waiting()

    def _begin(self, connection: MemberConnection, job: Job) -> bool:
        """Start the job's next exchange; False when the member cannot take the message."""
        connection.job = job
        job.connection = connection
        lacking = job.lacks(connection.session)
        if lacking is None:
            if self.member.no_chunks:
                connection.session.without_chunks()
            if self._introduces:
                self._introduce(connection, job)
            connection.begin(job.next_exchange(min(self._most_recipients, self.member.most_recipients)))
            return True
        self._release(connection)
        job.dispatcher.declined(self, job, lacking)
        return False

    def _introduce(self, connection: MemberConnection, job: Job) -> None:
        connection.introduce(job.batch.client)
        problem = connection.session.not_introduced
        if problem and problem != self._told:
            self._told = problem
            logger.warning("%s is not told whose messages it gets: %s", connection.host.name, problem)

    def _take_on(self, job: Job) -> None:
        self.member.busy += 1
        if job.large:
            self._large += 1

    def _release(self, connection: MemberConnection) -> None:
        job = connection.job
        connection.job = None
        self.member.busy -= 1
        if job is not None and job.large:
            self._large -= 1

    def _spare(self, connection: MemberConnection, keep: bool = True) -> None:
        """A connection has nothing to do: give it the job that waits longest, keep it, or close it."""
        if connection.transactions < self._most_deliveries and self.member.connections <= self.member.share:
            while self._wiring.waiting and self.member.trusted() and (job := self._oldest_waiting()) is not None:
                if self._bound and not connection.suits(job.batch.client):
                    connection.quit()  # and makes room
                    return
                job.dispatcher.carried(job)
                self._take_on(job)
                if self._begin(connection, job):
                    return
            if keep and not self._wiring.closing:
                self._idle.append(connection)
                return
        connection.quit()

    def _oldest_waiting(self) -> Job | None:
        oldest: Job | None = None
        for dispatcher in self.dispatchers:
            job = dispatcher.oldest_waiting(self)
            if job is not None and (oldest is None or job.started < oldest.started):
                oldest = job
        return oldest

    def _count_answered(self, connection: MemberConnection) -> None:
        answered = connection.session.answered
        counting.count_others(self._wiring.page, answered)
        answered.clear()

    def _count_end(self, connection: MemberConnection, job: Job | None) -> None:
        page = self._wiring.page
        self._count_answered(connection)
        if connection.source_address is not None:
            page.add(counting.OPEN, -1)
        if connection.exchange is not None:
            counting.count_exchange(page, connection.exchange)
        if job is not None or connection in self._probes:  # an idle connection may be closed by either side at any time
            counting.count_failure(page, connection.session)
