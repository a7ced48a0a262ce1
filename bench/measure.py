"""What a server costs, seen from outside: CPU and memory of its process tree from /proc, system calls from strace.

Linux only. All counters are read before and after a run; nothing is sampled in between.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

# A line of strace's: the process, the call or what is left of one that was interrupted by another's, its result.
_RETURNED = re.compile(r"^\d+ +(?:<\.\.\. )?([a-z_0-9]+)(?:\(| resumed>).*\) += (-?\d+)", re.M)
_COPYING = {
    *("read", "readv", "pread64", "preadv", "recvfrom", "recvmsg"),
    *("write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg"),
}


@dataclass(frozen=True)
class ProcessUsage:
    """One process: seconds of its own, seconds of the children it has waited for, resident bytes."""

    user: float
    system: float
    exact: float  # own seconds to the nanosecond, as far as threads that have ended do not lack
    waited_user: float
    waited_system: float
    resident: int

    @property
    def own(self) -> float:
        return max(self.user + self.system, self.exact)


@dataclass(frozen=True)
class Usage:
    """A process tree at one moment."""

    processes: dict[int, ProcessUsage] = field(default_factory=dict)

    @property
    def user(self) -> float:
        return sum(p.user + p.waited_user for p in self.processes.values())

    @property
    def system(self) -> float:
        return sum(p.system + p.waited_system for p in self.processes.values())

    @property
    def cpu(self) -> float:
        """Seconds of CPU of the tree, including children that have ended and were waited for."""
        return sum(p.own + p.waited_user + p.waited_system for p in self.processes.values())

    @property
    def resident(self) -> int:
        return sum(p.resident for p in self.processes.values())


def usage(roots: Iterable[int]) -> Usage:
    """The process trees below `roots`, now."""
    parents: dict[int, int] = {}
    fields: dict[int, list[str]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                text = Path(entry.path, "stat").read_text()
                # The name in parentheses may hold anything, also spaces and parentheses (proc(5)).
                fields[int(entry.name)] = text.rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[int(entry.name)][1])
    wanted = set(roots) & set(fields)
    while grown := {pid for pid, parent in parents.items() if parent in wanted} - wanted:
        wanted |= grown
    return Usage({pid: _usage_of(pid, fields[pid]) for pid in sorted(wanted)})


def _usage_of(pid: int, stat: list[str]) -> ProcessUsage:
    ticks = [int(value) * _TICK for value in stat[11:15]]
    exact = 0.0
    with contextlib.suppress(OSError):
        for task in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                exact += int(Path(task.path, "schedstat").read_text().split()[0]) / 1e9
    return ProcessUsage(ticks[0], ticks[1], exact, ticks[2], ticks[3], int(stat[21]) * _PAGE)


def cost(before: Usage, after: Usage, messages: int) -> dict[str, Any]:
    """What happened between two moments, per message where that makes sense."""
    cpu = after.cpu - before.cpu
    ticks = (after.user - before.user) + (after.system - before.system)
    user_share = (after.user - before.user) / ticks if ticks > 0 else 0.0
    own = {
        pid: process.own - (before.processes[pid].own if pid in before.processes else 0.0)
        for pid, process in after.processes.items()
    }
    return {
        "cpu_us": 1e6 * cpu / max(1, messages),
        "user_us": 1e6 * cpu * user_share / max(1, messages),
        "system_us": 1e6 * cpu * (1 - user_share) / max(1, messages),
        "resident_bytes": after.resident,
        "processes": len(after.processes),
        # the shares of the processes that did anything worth mentioning, largest first
        "shares": sorted((round(s / cpu, 3) for s in own.values() if cpu > 0 and s > cpu / 100), reverse=True)[:16],
    }


def settled(roots: Iterable[int], seconds: float) -> Usage:
    """The trees' usage when the work of a run is done: records and files are written behind the last reply."""
    time.sleep(seconds)
    return usage(roots)


def spin() -> float:
    """Seconds of CPU for a fixed piece of work: how its values differ is the machine's own noise."""
    data = bytes(1 << 20)
    begun = time.process_time()
    for _ in range(24):
        hashlib.sha256(data)
    return time.process_time() - begun


def stolen() -> float:
    """Seconds the hypervisor gave to others while this machine wanted them."""
    return int(Path("/proc/stat").read_text().split()[8]) * _TICK


class SystemCalls:
    """Counts the system calls of process trees with strace, for `with`; slows them down, so never while timing.

    calls: how many of each name have returned. copied: the octets that reads and writes of all kinds have moved.
    """

    def __init__(self, roots: Iterable[int], directory: Path) -> None:
        self.roots, self.output = list(usage(roots).processes), directory / "strace"
        self.calls: Counter[str] = Counter()
        self.copied = 0

    @staticmethod
    def available() -> bool:
        return shutil.which("strace") is not None

    def __enter__(self) -> "SystemCalls":
        attach = [word for pid in self.roots for word in ("-p", str(pid))]
        self.process = subprocess.Popen(
            ["strace", "-f", "-q", "-s", "0", "-o", self.output, *attach],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not all(_traced(pid) for pid in self.roots):
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        if self.output.exists():
            self.calls, self.copied = returned_calls(self.output.read_text(errors="replace"))


def returned_calls(trace: str) -> tuple[Counter[str], int]:
    """What strace wrote: how many calls of each name have returned, and the octets they have read and written."""
    found = [(name, int(result)) for name, result in _RETURNED.findall(trace)]
    return Counter(name for name, _ in found), sum(max(0, n) for name, n in found if name in _COPYING)


def _traced(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
    return True  # it has ended


def machine() -> dict[str, Any]:
    """What was measured on: kernel, processor, memory, interpreter."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "kernel": platform.release(),
        "processor": processor[1] if processor else platform.machine(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory[1]) * 1024 if memory else None,
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
    }
