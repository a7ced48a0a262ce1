"""When which message of the spool is tried again. Pure: time goes in, messages to try come out.

A message waits for its time (`retry_interval`, doubled each time up to `max_retry_interval`) where the fleet has said
something about it, and for its site where that could not be reached. A site that is down is tried with one message at a
time, after growing pauses, or at once where others find it back; the first answer brings all that wait for it back, as
many at a time as pace.py says, so that what was full for an hour does not fall on it in a second. The oldest goes
first.

Messages are taken some time before they are tried, since they have to be read: what is taken begins, or is put back.

Times are unix times: they outlive the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from heapq import heappop, heappush
from itertools import count

from gateway.couriers.spool.pace import SitePace

FIRST_PAUSE = 1.0  # seconds from a site's failure to the next try
MOST_PAUSE = 60.0  # … doubled up to this, so that the end of an outage is noticed within a minute
LEAST_INTERVAL = 1.0  # seconds from one try of a message to the next, whatever the policy says
AHEAD = 8  # messages of a site that are taken before their turn, so that several are read at once
AHEAD_OCTETS = 4 << 20  # … as long as they have no more


class Phase(Enum):
    """What a message waits for."""

    TIME = "time"
    SITE = "site"
    TURN = "turn"  # its time has come
    ANSWER = "answer"  # it is being tried
    OPERATOR = "operator"  # it is held
    NOTHING = "nothing"  # it is gone


class Spooled:
    """A message that waits.

    place: what tells it from all others. site: where it goes, as records name it. arrived: what is older goes first.
    due: its time. expires: when nobody waits any more. octets: its content's.
    """

    __slots__ = ("arrived", "attempts", "change", "due", "expires", "octets", "phase", "place", "queue", "site")

    def __init__(  # all that is kept in memory of a message
        self,
        place: tuple[int, int],
        site: str,
        queue: str,
        arrived: float,
        due: float,
        expires: float,
        octets: int,
        attempts: int,
    ) -> None:
        self.place = place
        self.site = site
        self.queue = queue
        self.arrived = arrived
        self.due = due
        self.expires = expires
        self.octets = octets
        self.attempts = attempts
        self.phase = Phase.NOTHING
        self.change = 0  # how often its phase has changed: tells what in a heap is out of date


_Entry = tuple[float, int, int, Spooled]  # of a heap: by what it is ordered, a serial number, `change` at the time, who


def retry_after(deferred: int, retry_interval: float, max_retry_interval: float | None) -> float:
    """Seconds from the end of an attempt to the next one. deferred: how often it was put off, 1 for the first time."""
    delay = retry_interval * 2.0 ** min(max(0, deferred - 1), 64)
    return max(LEAST_INTERVAL, delay if max_retry_interval is None else min(delay, max_retry_interval))


class _Site:
    """turns: those whose time has come, the oldest first. stalled: those that wait for the site to be back; they stay
    there when it is, since there may be many, and take turns with the others. under_way: with the site. ahead: taken,
    and not begun.
    """

    def __init__(self) -> None:
        self.turns: list[_Entry] = []
        self.stalled: deque[tuple[int, Spooled]] = deque()
        self.pace = SitePace()
        self.under_way = self.ahead = self.ahead_octets = 0
        self.down = False
        self.pause = 0.0
        self.not_before = 0.0

    def next(self) -> Spooled | None:
        """Takes who is next: where the site is down, whoever waits for it may be the one that finds it back."""
        if self._is_a_turn():
            return heappop(self.turns)[3]
        return self.stalled.popleft()[1] if self.stalled else None

    def has_fresh(self) -> bool:
        """Whether who is next was not tried since it is in the spool."""
        if self._is_a_turn():
            return self.turns[0][3].attempts <= 1
        return bool(self.stalled) and self.stalled[0][1].attempts <= 1

    def _is_a_turn(self) -> bool:
        """Whether who is next is one whose time has come; forgets who waits no more."""
        while self.turns and self.turns[0][3].change != self.turns[0][2]:
            heappop(self.turns)
        while self.stalled and self.stalled[0][1].change != self.stalled[0][0]:
            self.stalled.popleft()
        return bool(self.turns) and (not self.stalled or self.turns[0][0] <= self.stalled[0][1].arrived)

    def allowance(self, now: float) -> int:
        """How many may be taken now, as far as the site is concerned."""
        if self.down:
            return int(now >= self.not_before and self.under_way + self.ahead == 0)
        wanted = max(self.pace.window, AHEAD)
        return wanted - self.ahead if self.ahead <= wanted // 2 else 0

    def is_idle(self) -> bool:
        """Nothing is to be remembered."""
        return not (self.turns or self.stalled or self.under_way or self.ahead or self.down)


class Schedule:
    """All that waits. messages, octets: of all of them."""

    def __init__(self) -> None:
        self._sites: dict[str, _Site] = {}
        self._times: list[_Entry] = []
        self._all: dict[tuple[int, int], Spooled] = {}
        self._serial = count()  # so that no two entries of a heap are alike
        self._by_age: deque[Spooled] = deque()  # those that are gone are taken out by and by
        self.octets = 0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Spooled]:
        return iter(self._all.values())

    def get(self, place: tuple[int, int]) -> Spooled | None:
        """Who has this place."""
        return self._all.get(place)

    def oldest(self) -> float | None:
        """When the one arrived that has been here for longest; None where nobody waits."""
        if len(self._by_age) > 2 * len(self._all) + 1000:
            self._by_age = deque(sorted(self._all.values(), key=lambda each: each.arrived))
        while self._by_age and self._by_age[0].phase is Phase.NOTHING:
            self._by_age.popleft()
        return self._by_age[0].arrived if self._by_age else None

    # --- what happens to one ------------------------------------------------------------------------------------------

    def wait_for_time(self, waiting: Spooled) -> None:
        """It is tried when it is due."""
        self._enter(waiting, Phase.TIME)
        self._at(min(waiting.due, waiting.expires), waiting)

    def wait_for_site(self, waiting: Spooled, now: float) -> None:
        """It is tried when its site is back. The site is taken to be down unless that was known."""
        self._enter(waiting, Phase.SITE)
        self._at(waiting.expires, waiting)
        site = self._site(waiting.site)
        if not site.down:
            self._fail(site, now)
        site.stalled.append((waiting.change, waiting))

    def hold(self, waiting: Spooled) -> None:
        """It is not tried until somebody says so, and does not expire."""
        self._enter(waiting, Phase.OPERATOR)

    def hurry(self, waiting: Spooled) -> None:
        """Its time is now."""
        self._take_turn(waiting)

    def remove(self, waiting: Spooled) -> None:
        """It is gone."""
        waiting.phase = Phase.NOTHING
        waiting.change += 1
        if self._all.pop(waiting.place, None) is not None:
            self.octets -= waiting.octets

    # --- trying -------------------------------------------------------------------------------------------------------

    def paused(self, now: float) -> list[str]:
        """The sites that are not tried yet, though there is a message that has not been one of their tries.

        One that has may itself be why they cannot be reached: however well they fare with others, it waits.
        """
        return [name for name, site in self._sites.items() if site.down and now < site.not_before and site.has_fresh()]

    def may_be_back(self, site_name: str) -> None:
        """The site fares well with others: it is tried now."""
        self._site(site_name).not_before = 0.0

    def take(self, now: float, has_room: Callable[[str, int], bool], most: int) -> tuple[list[Spooled], list[Spooled]]:
        """Whom to try next, and who has waited for too long. Each is nobody's until it is put back or removed; who is
        to be tried counts as taken ahead until it begins or is put back.

        has_room: whether a site can take any, asked only about sites that somebody waits for. most: of all.
        """
        expired = self._pass_time(now)
        taken: list[Spooled] = []
        for name, site in list(self._sites.items()):
            if not (site.turns or site.stalled):
                if site.is_idle():
                    del self._sites[name]
                continue
            allowed = min(site.allowance(now), most - len(taken))
            if allowed > 0 and not site.down and not has_room(name, 0):
                continue
            while allowed > 0 and site.ahead_octets < AHEAD_OCTETS and (waiting := site.next()) is not None:
                waiting.phase = Phase.ANSWER
                waiting.change += 1
                site.ahead += 1
                site.ahead_octets += waiting.octets
                allowed -= 1
                taken.append(waiting)
        return taken, expired

    def may_begin(self, site_name: str, now: float, has_room: Callable[[str, int], bool]) -> bool:
        """Whether one that was taken for this site may be tried now. has_room: whether it can take one more, beside so
        many of ours that are with it.
        """
        site = self._site(site_name)
        if site.down:
            return site.under_way == 0 and now >= site.not_before
        return site.under_way < site.pace.window and has_room(site_name, site.under_way)

    def is_stuck(self, site_name: str, now: float, has_room: Callable[[str, int], bool]) -> bool:
        """Whether nobody knows when those that were taken for this site may be tried."""
        site = self._site(site_name)
        if site.down:
            return site.under_way > 0 or now < site.not_before
        return not has_room(site_name, 0)

    def begins(self, site_name: str, waiting: Spooled) -> None:
        """One that was taken for this site is with it."""
        self.dropped(site_name, waiting)
        self._site(site_name).under_way += 1

    def put_back(self, site_name: str, waiting: Spooled) -> None:
        """One that was taken is not tried, and goes before all that are younger."""
        self.dropped(site_name, waiting)
        self._take_turn(waiting)

    def dropped(self, site_name: str, waiting: Spooled) -> None:
        """One that was taken is not tried, or is already."""
        site = self._site(site_name)
        site.ahead -= 1
        site.ahead_octets -= waiting.octets

    def reached(self, site_name: str, seconds: float) -> None:
        """The site answered after so long: it is up, and what waited for it has its turn."""
        site = self._site(site_name)
        site.under_way -= 1
        site.pace.answered(seconds)
        site.pause = 0.0
        site.down = False

    def not_reached(self, site_name: str, now: float) -> None:
        """The site could not be reached."""
        site = self._site(site_name)
        site.under_way -= 1
        self._fail(site, now)

    def not_tried(self, site_name: str) -> None:
        """An attempt came to nothing before the site was asked."""
        self._site(site_name).under_way -= 1

    # --- inside -------------------------------------------------------------------------------------------------------

    def _site(self, name: str) -> _Site:
        site = self._sites.get(name)
        if site is None:
            site = self._sites[name] = _Site()
        return site

    @staticmethod
    def _fail(site: _Site, now: float) -> None:
        site.down = True
        site.pace = SitePace()
        site.pause = min(2 * site.pause, MOST_PAUSE) or FIRST_PAUSE
        site.not_before = now + site.pause

    def _enter(self, waiting: Spooled, phase: Phase) -> None:
        waiting.phase = phase
        waiting.change += 1
        if waiting.place not in self._all:
            self._all[waiting.place] = waiting
            self._by_age.append(waiting)
            self.octets += waiting.octets

    def _at(self, time: float, waiting: Spooled) -> None:
        heappush(self._times, (time, next(self._serial), waiting.change, waiting))

    def _take_turn(self, waiting: Spooled) -> None:
        self._enter(waiting, Phase.TURN)
        self._at(waiting.expires, waiting)
        heappush(self._site(waiting.site).turns, (waiting.arrived, next(self._serial), waiting.change, waiting))

    def _pass_time(self, now: float) -> list[Spooled]:
        """Gives those whose time has come their turn; returns those that have expired."""
        expired = []
        while self._times and self._times[0][0] <= now:
            _, _, change, waiting = heappop(self._times)
            if waiting.change != change:
                continue
            if waiting.phase is Phase.TIME and waiting.due < waiting.expires:
                self._take_turn(waiting)
            elif now >= waiting.expires:
                waiting.phase = Phase.ANSWER
                waiting.change += 1
                expired.append(waiting)
            else:
                self._take_turn(waiting)
        return expired
