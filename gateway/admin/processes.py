"""What the system says of the service's processes, as metrics: processor time, memory, descriptors; what the policy is.

Reads /proc, and the members' table in the arena.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from gateway._fastpath import CounterPage
from gateway.admin.health import resident_memory
from gateway.couriers.fleet.survey import families, survey
from gateway.couriers.fleet.table import MemberTable
from gateway.metrics import LAYOUT, Surroundings

POLICY = (LAYOUT.prefix + "policy", "The policy in force: its file, and a hash of all that it loaded", ("file", "hash"))
MEMORY_LIMIT = (LAYOUT.prefix + "memory_limit_bytes", "Memory that the service may take: its cgroup's limit, or all")
_PROCESS = "process_"
_CPU = "cpu_seconds_total", "Processor time of all processes, those that ended included"
_RESIDENT = "resident_memory_bytes", "Resident memory of all processes"
_VIRTUAL = "virtual_memory_bytes", "Virtual memory of all processes"
_OPEN = "open_fds", "File descriptors open in the process that has the most"
_MOST = "max_fds", "File descriptors that this process may open"
_START = "start_time_seconds", "When the service started, in seconds since 1970"
_HERTZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class PolicyName:
    """file: as the operator wrote it. hash: of the text of all files that were read."""

    file: str = ""
    hash: str = ""


class System(Surroundings):
    """The surroundings of real processes.

    pages: of all processes, the first one the supervisor's. names: of the listeners, by place. members: of the fleet.
    shipments: their names, by place.
    """

    def __init__(
        self,
        pages: Sequence[CounterPage],
        names: Callable[[], Sequence[str]],
        policy: PolicyName,
        members: MemberTable | None = None,
        shipments: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._pages, self._names, self._policy, self._members = pages, names, policy, members or MemberTable()
        self._shipments = shipments

    def listeners(self) -> Sequence[str]:
        return self._names()

    def shipments(self) -> Sequence[str]:
        return self._shipments()

    def memory(self, pid: int) -> int:
        return resident_memory(pid)

    def descriptors(self, pid: int) -> tuple[int, int]:
        try:
            return open_descriptors(pid), resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
        except OSError:  # it has just ended, or is not ours to ask
            return 0, 0

    def others(self) -> Iterator[Metric]:
        name, help_text, _ = POLICY
        yield InfoMetricFamily(name, help_text, value={"file": self._policy.file, "hash": self._policy.hash})
        yield GaugeMetricFamily(*MEMORY_LIMIT, value=memory_limit())
        yield from families(survey(self._members, time.monotonic()))
        living = [page.pid for page in self._pages if page.pid]
        stats = [stat for pid in living if (stat := Stat.of(pid)) is not None]
        yield _family(CounterMetricFamily, _CPU, sum(stat.processor_time for stat in stats))
        yield _family(GaugeMetricFamily, _RESIDENT, sum(map(resident_memory, living)))
        yield _family(GaugeMetricFamily, _VIRTUAL, sum(stat.virtual for stat in stats))
        most, limit = max(map(self.descriptors, living), default=(0, 0))
        yield _family(GaugeMetricFamily, _OPEN, most)
        yield _family(GaugeMetricFamily, _MOST, limit)
        yield _family(GaugeMetricFamily, _START, min((stat.started for stat in stats), default=0.0))


def _family(kind: Callable[..., Metric], named: tuple[str, str], value: float) -> Metric:
    name, help_text = named
    return kind(_PROCESS + name, help_text, value=value)


@dataclass(frozen=True, slots=True)
class Stat:
    """/proc/PID/stat. processor_time: seconds, of its children that were waited for, too. virtual: octets. started:
    seconds since 1970.
    """

    processor_time: float
    virtual: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Stat | None:
        """None where it has ended."""
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        ticks = sum(map(int, words[11:15]))  # utime, stime, cutime, cstime: proc(5), from the third on
        return cls(ticks / _HERTZ, int(words[20]), boot_time() + int(words[19]) / _HERTZ)


def boot_time() -> float:
    """Seconds since 1970."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def open_descriptors(pid: int) -> int:
    """How many a process has open. Raises OSError."""
    folder = f"/proc/{pid}/fd"
    return os.stat(folder).st_size or len(os.listdir(folder))  # Linux before 6.2 does not tell the size


def memory_limit(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Octets: the least of the limits of the cgroups that this process is in, and of what the machine has."""
    limits = [os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()]
    try:
        folder = cgroups / next(line[3:] for line in own.read_text().split("\n") if line.startswith("0::")).strip("/")
    except (OSError, StopIteration):  # none, or of the first version
        return limits[0]
    for each in (folder, *folder.parents):
        if each == cgroups.parent:
            break
        try:
            limits.append(int((each / "memory.max").read_text()))
        except (OSError, ValueError):  # the root has none; "max"
            continue
    return min(limits)
