"""What the supervisor does next, as a pure function of the time and of what runs: no process is touched here.

`plan` says what to do; the supervisor does it and notes it in the `Process`es; deaths come back through `bury`.
A *generation* is all processes of one policy. A new generation replaces the old one only when all of it is ready;
if one of its processes dies before that, the whole generation is given up and the old one stays. It is announced when
nothing of another generation accepts connections any more: what connects from then on meets the new policy. No wait is
endless, because a process whose event loop runs stops accepting when told, and one whose event loop does not is killed.

A service that is to stop is *unready* for a while before its ports close, so that a load balancer sends nobody there.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from enum import Enum, auto

from gateway.service.context import EX_CONFIG, EX_SOFTWARE

ADMIN, SHIPPER = -1, -2  # the slots of the admin process and of the one that ships records; workers have 0, 1, …

HEARTBEAT_TIMEOUT = 30.0  # seconds without a heartbeat until SIGABRT
READY_TIMEOUT = 60.0  # seconds from a process's start until it must be ready, or gets SIGABRT
ABORT_GRACE = 5.0  # seconds from SIGABRT (which writes a traceback) to SIGKILL
YOUNG = 5.0  # seconds; a process that dies younger is started again with a growing delay
BACKOFF_FIRST, BACKOFF_MOST = 0.1, 30.0  # seconds
MUTE_FROM = 1.0  # seconds of delay from which a slot's sockets stop listening, so that clients go elsewhere
TICK = 1.0  # seconds between looks at the heartbeats


@dataclass(slots=True, eq=False)
class Process:
    """A child that runs. Times are CLOCK_MONOTONIC seconds; None is "not yet"."""

    slot: int
    generation: int
    pid: int
    started: float
    heartbeat: float
    ready: bool = False
    accepting: bool = True  # until it says that it accepts no more connections
    told: float | None = None  # when it was sent SIGTERM
    aborted: float | None = None
    killed: bool = False


@dataclass(slots=True)
class Slot:
    """A place for one process of the current generation, and how its last ones fared."""

    number: int
    failures: int = 0  # young deaths in a row
    retry_at: float = 0.0
    given_up: bool = False
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Spawn:
    slot: Slot


@dataclass(frozen=True, slots=True)
class Mute:
    """Stop listening for a slot that will be empty for a while."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Send:
    process: Process
    signal: signal.Signals


@dataclass(frozen=True, slots=True)
class Commit:
    """The current generation is ready: there is no way back."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Nothing but the current generation accepts connections: its policy is in force."""


@dataclass(frozen=True, slots=True)
class Close:
    """Listen no more: the service stops."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The service cannot go on."""

    code: int
    why: str


@dataclass(frozen=True, slots=True)
class Exit:
    code: int


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


Action = Spawn | Mute | Send | Commit | Announce | Close | Stop | Exit | Wait


class Death(Enum):
    """What the end of a process means."""

    EXPECTED = auto()  # it was told to end
    OUTLIVED = auto()  # of an old generation, which is not replaced
    REPLACED = auto()  # a new process follows at once or after the slot's delay
    GIVEN_UP = auto()  # EX_CONFIG: none follows
    ROLLED_BACK = auto()  # it takes its whole, not yet ready generation with it: see Service.roll_back


@dataclass(slots=True)
class Service:
    """Everything `plan` looks at."""

    kill_after: float  # seconds from SIGTERM to SIGKILL
    drain_delay: float = 0.0  # seconds for which the service is unready before its ports close
    generation: int = 0  # the current one; 0 before the first
    committed: int = 0  # the last generation that was ready as a whole
    announced: int = 0  # the last generation that was the only one to accept connections
    previous: int = 0  # what to go back to while the current generation is not yet ready
    slots: dict[int, Slot] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    unready_since: float | None = None  # since when load balancers are told to go elsewhere
    closing_at: float | None = None  # when the ports close, once the service is to stop
    closed: bool = False  # they have
    exit_code: int = 0
    awake_since: float = 0.0  # when the supervisor last found that it had itself been stopped for a while

    def begin(self, generation: int, workers: int, *, admin: bool, shipper: bool = False) -> None:
        """Make `generation` the current one, with fresh slots; what is current now stays until it is ready."""
        self.previous, self.generation = self.generation, generation
        self._fill_slots(workers, admin, shipper)

    def adopt(self, generation: int, workers: int, *, admin: bool, shipper: bool = False) -> None:
        """Go on with a generation in force whose processes another program has started; `processes` has them."""
        self.generation = self.committed = self.announced = generation
        self._fill_slots(workers, admin, shipper)

    def commit(self) -> None:
        """The current generation is ready as a whole; there is no way back."""
        self.committed, self.previous = self.generation, 0

    def announce(self) -> None:
        """The current generation is the only one that accepts connections."""
        self.announced = self.generation

    def roll_back(self, workers: int, *, admin: bool, shipper: bool = False) -> None:
        """Make the generation before the current one the current one again."""
        self.generation, self.previous = self.previous, 0
        self._fill_slots(workers, admin, shipper)

    def _fill_slots(self, workers: int, admin: bool, shipper: bool) -> None:
        others = [number for number, wanted in ((SHIPPER, shipper), (ADMIN, admin)) if wanted]
        self.slots = {number: Slot(number) for number in (*others, *range(workers))}

    def hide(self, now: float) -> None:
        """Be unready from now on, while clients are still served."""
        if self.unready_since is None:
            self.unready_since = now

    def show(self) -> None:
        """Be ready again; too late once the service is to stop."""
        if self.closing_at is None:
            self.unready_since = None

    def stop(self, now: float, code: int = 0) -> None:
        """Begin to stop: unready at once, ports closed after the delay; the second call ends all patience."""
        if self.closing_at is not None:
            self.closing_at, self.kill_after = now, 0.0
            return
        was_seen = self.announced and not code
        self.hide(now)
        assert self.unready_since is not None
        self.closing_at = max(now, self.unready_since + self.drain_delay) if was_seen else now
        self.exit_code = code

    def stopping(self, now: float) -> bool:
        """True once processes are to end."""
        return self.closing_at is not None and now >= self.closing_at

    @property
    def draining(self) -> bool:
        """True while processes of another generation than the current one are alive."""
        return any(process.generation != self.generation for process in self.processes)

    def bury(self, process: Process, now: float, code: int, jitter: float) -> Death:
        """Take note that `process` ended with exit code `code` (negative: by that signal).

        jitter: 0 to 1, spreads the delays of slots that fail together.
        """
        self.processes.remove(process)
        if process.told is not None or self.stopping(now):
            return Death.EXPECTED
        if process.generation != self.generation:
            return Death.OUTLIVED
        if not process.ready and self.previous:
            return Death.ROLLED_BACK
        slot = self.slots[process.slot]
        if code == EX_CONFIG:
            slot.given_up = True
            return Death.GIVEN_UP
        young = now - process.started < YOUNG
        slot.failures = slot.failures + 1 if young else 0
        slot.retry_at = now + _delay(slot.failures, jitter)
        return Death.REPLACED


def _delay(failures: int, jitter: float) -> float:
    """Seconds to wait after so many young deaths in a row: none after the first, then doubling."""
    if failures < 2:
        return 0.0
    return min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(failures - 2, 20)) * (0.5 + jitter / 2)


def plan(now: float, service: Service) -> list[Action]:
    """What is to be done now. The last action is Wait or Exit."""
    actions: list[Action] = [Send(*due) for due in _overdue(now, service)]
    if service.stopping(now):
        if not service.closed:
            actions.append(Close())
        workers = [process for process in service.processes if process.slot >= 0]
        last = workers or service.processes  # what the workers do in the end is shown and shipped by the others
        actions += [Send(process, signal.SIGTERM) for process in last if process.told is None]
        if not service.processes:
            return [*actions, Exit(service.exit_code)]
    elif service.generation:
        hopeless = _hopeless(service)
        if hopeless and service.closing_at is None:
            return [*actions, hopeless, Wait(0.0)]
        actions += _fill(now, service)
        actions += _replace(service)
    return [*actions, Wait(_until_next(now, service))]


def _overdue(now: float, service: Service) -> list[tuple[Process, signal.Signals]]:
    """Processes that outlived their patience: drain deadline, heartbeat, abort."""
    due = []
    for process in service.processes:
        if process.killed:
            continue
        alive_at = max(process.heartbeat, service.awake_since)
        if process.told is not None and now >= process.told + service.kill_after:
            due.append((process, signal.SIGKILL))
        elif process.aborted is not None:
            if now >= process.aborted + ABORT_GRACE:
                due.append((process, signal.SIGKILL))
        elif now >= alive_at + HEARTBEAT_TIMEOUT or (not process.ready and now >= process.started + READY_TIMEOUT):
            due.append((process, signal.SIGABRT))
    return due


def _hopeless(service: Service) -> Stop | None:
    """Why starting workers again is pointless, if it is."""
    workers = [slot for slot in service.slots.values() if slot.number >= 0]
    if all(slot.given_up for slot in workers):
        return Stop(EX_CONFIG, "no worker can start with this configuration")
    if service.committed or any(process.ready and process.slot >= 0 for process in service.processes):
        return None
    if all(slot.failures or slot.given_up for slot in workers):
        return Stop(EX_SOFTWARE, "every worker died within seconds of its start")
    return None


def _fill(now: float, service: Service) -> list[Action]:
    """Processes for the empty slots of the current generation."""
    actions: list[Action] = []
    taken = {process.slot for process in service.processes if process.generation == service.generation}
    for slot in service.slots.values():
        if slot.number in taken:
            continue
        if not slot.given_up and now >= slot.retry_at:
            actions.append(Spawn(slot))
        elif not slot.muted and (slot.given_up or slot.retry_at - now >= MUTE_FROM):
            actions.append(Mute(slot))
    return actions


def _replace(service: Service) -> list[Action]:
    """Ends what the current generation replaces, once all of it is ready; at once, what was rolled back."""
    ready = {p.slot for p in service.processes if p.generation == service.generation and p.ready}
    committed = service.committed == service.generation
    due = not committed and ready == service.slots.keys()
    actions: list[Action] = [Commit()] if due else []
    others = [process for process in service.processes if process.generation != service.generation]
    for process in others:
        if process.told is None and (committed or due or process.generation > service.generation):
            actions.append(Send(process, signal.SIGTERM))
    if (committed or due) and service.announced != service.generation and not any(p.accepting for p in others):
        actions.append(Announce())
    return actions


def _until_next(now: float, service: Service) -> float:
    """Seconds until something may be due. Children and signals interrupt the wait."""
    moments = [now + TICK]
    for process in service.processes:
        if process.told is not None and not process.killed:
            moments.append(process.told + service.kill_after)
    taken = {process.slot for process in service.processes if process.generation == service.generation}
    if service.closing_at is not None and not service.closed:
        moments.append(service.closing_at)
    if not service.stopping(now):
        moments += [s.retry_at for s in service.slots.values() if s.number not in taken and not s.given_up]
    return max(0.0, min(moments) - now)
