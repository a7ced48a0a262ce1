"""How a member of the fleet fares, by what is known of it: up, suspect, down. Pure: times come in, states go out.

A member that is not up gets no client's message. It is tried by probes with growing pauses, and when one succeeds it is
up on trial: one message at a time, twice as many with each that it answers, until it is trusted as before. A greeting
alone does not make it sound, so that one that greets and then fails at MAIL is not asked more and more often.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

EJECTED_AFTER = 3  # failures in a row
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds from a failure to the probe
LONGEST_IF_NEEDED = 0.5  # seconds, where no other member can take the mail: mail that waits costs more than a probe
JITTER = 0.25  # of a pause, in both directions
NO_LIMIT = 1 << 30
TRUSTED_FROM = 16  # messages at a time


class MemberState(IntEnum):
    """UNKNOWN and ON_TRIAL may have some messages; DOWN has failed EJECTED_AFTER times, SUSPECT less often."""

    UNKNOWN = 0
    UP = 1
    ON_TRIAL = 2
    SUSPECT = 3
    DOWN = 4


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a member. Times are on one clock for all who share it.

    at: when it was learned; of two that differ the later holds. failures: in a row. since: when it last was in order,
    where it is not. until: when the next probe is due. window: how many messages it may have at a time.
    """

    state: MemberState = MemberState.UNKNOWN
    at: float = 0.0
    failures: int = 0
    since: float = 0.0
    until: float = 0.0
    window: int = 1

    @property
    def admits(self) -> bool:
        """Whether it may have clients' messages at all."""
        return self.state < MemberState.SUSPECT

    def in_order(self) -> bool:
        """Whether nothing speaks against it, or it has answered again since it was on trial.

        What ends that is news, as is the first such answer; and by this only one of all workers that share it says so.
        """
        return self.state in (MemberState.UNKNOWN, MemberState.UP) or self.window > 1

    def failed(self, now: float, chance: float, probe: bool = False) -> Health:
        """It failed with a message, or a probe. chance: a random number from 0 to 1, which spreads the probes of many.

        What else it was at when it failed first, and now ends as well, counts no more.
        """
        if not self.admits and not probe:
            return self
        failures = self.failures + 1
        state = MemberState.DOWN if failures >= EJECTED_AFTER else MemberState.SUSPECT
        until = now + _pause(failures) * (1 + JITTER * (2 * chance - 1))
        since = self.since if self.state in (MemberState.ON_TRIAL, MemberState.SUSPECT, MemberState.DOWN) else now
        return Health(state, now, failures, since, until, 0)

    def stalled(self, now: float, patience: float) -> Health:
        """It let somebody wait who went elsewhere. patience: seconds until it will have failed or answered."""
        if not self.admits:
            return self
        since = self.since if self.state is MemberState.ON_TRIAL else now
        return Health(MemberState.SUSPECT, now, self.failures, since, now + patience, 0)

    def probing(self, now: float, patience: float) -> Health:
        """A probe begins, which nobody else has to do meanwhile. patience: seconds that it may take."""
        return replace(self, at=now, until=now + patience)

    def greeted(self, now: float) -> Health:
        """It was ready for a message."""
        if self.state is MemberState.UNKNOWN:
            return Health(MemberState.UP, now, window=NO_LIMIT)
        return self if self.admits else replace(self, state=MemberState.ON_TRIAL, at=now, window=1)

    def answered(self, now: float) -> Health:
        """It answered to all of a message."""
        if self.state is MemberState.UP and not self.failures:
            return self
        window = 2 * self.window or 1
        if self.state in (MemberState.UP, MemberState.UNKNOWN) or window >= TRUSTED_FROM:
            return Health(MemberState.UP, now, window=NO_LIMIT)
        return replace(self, state=MemberState.ON_TRIAL, at=now, failures=0, window=window)

    def due(self, now: float, needed: bool) -> bool:
        """Whether a probe should begin. needed: no other member can take the mail."""
        if self.admits:
            return False
        return now >= self.until or (needed and self.failures > 0 and now >= self.at + _pause_if_needed(self.failures))


def later(one: Health, other: Health) -> Health:
    """What holds of what two have learned."""
    return other if other.at > one.at else one


def _pause(failures: int) -> float:
    return float(min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(failures - 1, 20)))


def _pause_if_needed(failures: int) -> float:
    """None after the first failure: what just failed may have been one connection."""
    return 0.0 if failures == 1 else float(min(LONGEST_IF_NEEDED, SHORTEST_PAUSE * 2.0 ** min(failures - 4, 20)))
