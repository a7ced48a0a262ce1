"""Member: a host of the fleet as one worker knows it, whatever fleets and egress paths name it.

How it fares (gateway/couriers/fleet/health.py decides, table.py tells the other workers) and what has been learned
about it; no connections: those are its lanes' (gateway/couriers/fleet/lane.py). Times are on the event loop's clock.
"""

from __future__ import annotations

import logging
import random

from gateway.couriers.fleet.connection import MemberConnection
from gateway.couriers.fleet.health import NO_LIMIT, Health, MemberState, later
from gateway.couriers.fleet.table import STAGES, MemberTable

FIRST_PACE = 0.05  # seconds, before it has taken a message
_SMOOTHING = 0.1  # how much the last message counts
DEFERRED = 1.0  # seconds that a message it deferred counts for: it is not quick because it takes none
GROWTH = 5.0  # seconds until one connection more is tried than a member was found to take
FIRST_GROWTH = 1.0  # seconds, where this worker has none because others have them all

logger = logging.getLogger(__name__)


class Member:
    """busy: transactions in flight, over all lanes. probes: connections under way that are to show how it fares.

    admits: it may have clients' messages, `window` of them at a time. watched: what it answers is news.
    connections: open or being opened from here, over all lanes. pace: seconds that it takes for a message, lately.
    share: connections that this worker may keep, because others wait for some.
    most_recipients: what it has been found to take in one transaction. no_chunks: it offers CHUNKING, but does not
    know BDAT, or says what it is not asked for. address: the one that served last, "" before.
    """

    def __init__(self, table: MemberTable, host: str, port: int, name: str) -> None:
        self.busy = 0
        self.probes = 0
        self.connections = 0
        self.pace = FIRST_PACE
        self.share = NO_LIMIT
        self.most_recipients = NO_LIMIT
        self.no_chunks = False
        self.address = ""
        self.table = table
        self.entry = table.enter(host, port, name)
        self._health = Health()
        self._drained = self.entry.is_drained()
        self._delivered = self._refused = self._deferred = self._failed = self._unknown = 0  # since the last sync
        self._seconds = 0.0
        self._failures: dict[str, int] = {}
        self._most_connections = NO_LIMIT  # as many as it was found to take
        self._grows_at = 0.0  # when one more is tried
        self._full: tuple[str, str] | None = None  # its name and words, to be told when it is known how many it takes
        self._take(self.entry.latest())

    def trusted(self) -> bool:
        """True when it may have one more message."""
        return self.admits and self.busy < self.window

    def claim(self, limit: int, now: float) -> bool:
        """Count one more connection, if there are fewer than `limit` from all workers and it takes that many.

        It is counted first and taken back where it was one too many, so that no two workers take the same.
        """
        if self.connections >= self._most_connections or self.connections >= self.share:
            return False
        self.connect(1, now)
        if self.connections + self.entry.connections_of_others(now) <= limit:
            return True
        self.connect(-1, now)
        return False

    def connect(self, more: int, now: float) -> None:
        """Count connections, or take them back."""
        self.connections += more
        self.entry.connect(self.connections, now)

    def learn_full(self, now: float, connection: MemberConnection) -> None:
        """It turned a connection away, but has others: it is asked for no more than these for a while."""
        if self._most_connections == NO_LIMIT:
            self._full = connection.host.name, connection.session.detail
        self._most_connections = self.connections
        self._grows_at = now + (GROWTH if self.connections else FIRST_GROWTH)

    def took(self, seconds: float) -> None:
        """It took a message, in so much time."""
        self.pace += (seconds - self.pace) * _SMOOTHING
        self._delivered += 1
        self._seconds += seconds

    def declined(self, deferred: bool) -> None:
        """It answered a message with 4xx or 5xx."""
        if deferred:
            self.pace += (DEFERRED - self.pace) * _SMOOTHING
            self._deferred += 1
        else:
            self._refused += 1

    def lost(self, unknown: bool) -> None:
        """It failed with a message in hand, which it may have or has not."""
        if unknown:
            self._unknown += 1
        else:
            self._failed += 1

    def failed(self, now: float, connection: MemberConnection, probe: bool = False) -> None:
        """It failed a job, or a probe; the others do its work until a probe succeeds."""
        session = connection.session
        stage = session.failed_at.value if connection.source_address is not None else "connect"
        if stage in STAGES:
            self._failures[stage] = self._failures.get(stage, 0) + 1
        if self._health.in_order():
            where = f"{connection.host.name} [{connection.address}]"
            cause = "" if session.failure == stage else f"{session.failure}: "
            logger.warning("%s failed at %s: %s%s", where, stage, cause, session.detail)
        self._learn(self._health.failed(now, random.random(), probe))

    def stalled(self, now: float, connection: MemberConnection, patience: float) -> None:
        """A message that waited for it to be ready goes elsewhere. patience: seconds that it still has."""
        if self._health.in_order():
            where = f"{connection.host.name} [{connection.address}]"
            logger.warning("%s lets messages wait at %s", where, connection.session.stage)
        self._learn(self._health.stalled(now, patience))

    def probing(self, now: float, patience: float) -> None:
        """A probe begins."""
        self._learn(self._health.probing(now, patience))

    def greeted(self, now: float) -> None:
        """It is ready for a message."""
        self._learn(self._health.greeted(now))

    def concluded(self, now: float, connection: MemberConnection) -> None:
        """It answered to all of an exchange."""
        before = self._health
        self._learn(before.answered(now))
        if before.admits and not before.in_order():
            where = f"{connection.host.name} [{connection.address}]"
            logger.warning("%s is back after %.1f s", where, now - before.since)

    def due(self, now: float, needed: bool) -> bool:
        """True when a probe should begin. needed: no other member can take the mail."""
        return not self.admits and not self.probes and not self._drained and self._health.due(now, needed)

    def sync(self, now: float, limit: int, waiting: bool) -> None:
        """Learn what the other workers have learned, and tell them what is asked of it here.

        limit: connections from all workers. waiting: messages wait here for one.
        """
        self.entry.ask(self.busy, waiting)
        self._count()
        if self._drained != self.entry.is_drained():
            self._drained = not self._drained
            self._take(self._health)
        workers, wait = self.entry.others(now)
        self.share = max(1, limit // (workers + 1)) if wait else NO_LIMIT
        if self._full is not None:
            name, words = self._full
            self._full = None
            logger.warning("%s takes %d connections: %s", name, self._most_connections, words)
        if self._most_connections != NO_LIMIT and now >= self._grows_at:
            self._most_connections += 1
            self._grows_at = now + GROWTH
            if self._most_connections > limit:
                self._most_connections = NO_LIMIT
        latest = later(self._health, self.entry.latest())
        if latest is not self._health:
            self._take(latest)

    def learn_limit(self, recipients: int, connection: MemberConnection) -> None:
        """It took so many recipients in one transaction, and no more."""
        if recipients < self.most_recipients:
            self.most_recipients = recipients
            logger.warning("%s takes %d recipients in one transaction", connection.host.name, recipients)

    def learn_no_chunks(self, connection: MemberConnection) -> None:
        """It does not know the command that it offers, or what it says to BDAT cannot be told from what is surplus."""
        if not self.no_chunks:
            self.no_chunks = True
            where, detail = connection.host.name, connection.session.detail
            logger.warning("%s is sent to without CHUNKING from now on: %s", where, detail)

    def _count(self) -> None:
        results = self._delivered, self._refused, self._deferred, self._failed, self._unknown
        if any(results) or self._failures:
            self.entry.count(results, self._seconds, self._failures)
            self._delivered = self._refused = self._deferred = self._failed = self._unknown = 0
            self._seconds = 0.0
            self._failures = {}

    def _learn(self, health: Health) -> None:
        if health is not self._health:
            self._take(health)
            self.entry.publish(health)

    def _take(self, health: Health) -> None:
        self._health = health
        self.admits = health.admits and not self._drained
        self.window = health.window
        self.watched = health.state is not MemberState.UP
