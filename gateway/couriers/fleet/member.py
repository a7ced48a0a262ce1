"""Member: a host of the fleet as one worker knows it, whatever fleets and egress paths name it.

What it is like today (sound, or failed lately) and what has been learned about it; no connections: those are its lanes'
(gateway/couriers/fleet/lane.py). Times are on the event loop's clock.
"""

from __future__ import annotations

import logging

from gateway.couriers.fleet.connection import MemberConnection

REST = 5.0  # seconds for which a member that failed is asked last
NO_LIMIT = 1 << 30

logger = logging.getLogger(__name__)


class Member:
    """busy: transactions in flight, over all lanes. away: it failed, and has not done its work since. resting: it
    failed lately, so that the others come first.

    most_recipients: what it has been found to take in one transaction. bdat_unknown: it offers CHUNKING, but does not
    know BDAT. address: the one that served last, "" before.
    """

    def __init__(self) -> None:
        self.busy = 0
        self.away = False
        self.resting = False
        self.most_recipients = NO_LIMIT
        self.bdat_unknown = False
        self.address = ""
        self._rests_until = 0.0
        self._away_since = 0.0
        self._greets = False  # it failed with a message in hand, so a greeting does not mean that it is back

    def failed(self, now: float, connection: MemberConnection) -> None:
        """It failed a job; the others come first for a while."""
        session = connection.session
        self._greets = session.exchange is not None
        if not self.away:
            self.away = True
            self._away_since = now
            where = f"{connection.host.name} [{connection.address}]"
            logger.warning("%s failed at %s: %s: %s", where, session.failed_at, session.failure, session.detail)
        self.resting = True
        self._rests_until = now + REST

    def greeted(self, now: float, connection: MemberConnection) -> None:
        """It was away, and answered to EHLO."""
        if not self._greets:
            self._is_back(now, connection)

    def concluded(self, now: float, connection: MemberConnection) -> None:
        """It was away, and answered to all of an exchange."""
        self._is_back(now, connection)

    def sweep(self, now: float) -> None:
        """It has rested for long enough."""
        if self.resting and now >= self._rests_until:
            self.resting = False

    def learn_limit(self, recipients: int, connection: MemberConnection) -> None:
        """It took so many recipients in one transaction, and no more."""
        if recipients < self.most_recipients:
            self.most_recipients = recipients
            logger.warning("%s takes %d recipients in one transaction", connection.host.name, recipients)

    def learn_bdat_unknown(self, connection: MemberConnection) -> None:
        """It does not know the command that it offers."""
        if not self.bdat_unknown:
            self.bdat_unknown = True
            where, detail = connection.host.name, connection.session.detail
            logger.warning("%s is sent to without CHUNKING from now on: %s", where, detail)

    def _is_back(self, now: float, connection: MemberConnection) -> None:
        where = f"{connection.host.name} [{connection.address}]"
        logger.warning("%s is back after %.1f s", where, now - self._away_since)
        self.away = self.resting = False
