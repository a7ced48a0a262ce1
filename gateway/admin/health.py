"""Health, as the counter pages of all processes show it: is the service alive, and would a new connection be served.

Pure functions of pages and time, but for a look into /proc. HTTP is server.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize
from typing import Any

from gateway._fastpath import CounterPage
from gateway.metrics.families import ProcessState
from gateway.metrics.readiness import SERVED, published

STALE = 15.0  # seconds without a heartbeat after which a process counts as stuck


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether new connections are served. problem: what concerns all listeners, or None. listeners: by address,
    SERVED, or why no worker would serve a client there.
    """

    problem: str | None
    listeners: Mapping[str, str]

    @property
    def ready(self) -> bool:
        return self.problem is None and all(answer == SERVED for answer in self.listeners.values())

    def of(self, listener: str) -> Readiness:
        """The same about one listener."""
        return Readiness(self.problem, {listener: self.listeners[listener]})

    def as_json(self) -> dict[str, Any]:
        return {"ready": self.ready, "problem": self.problem, "listeners": self.listeners}

    def __str__(self) -> str:
        """A line that sums up, and one for each listener."""
        summary = self.problem or ("OK" if self.ready else "not every listener takes connections")
        return "".join(f"{line}\n" for line in [summary, *(f"{k}: {v}" for k, v in self.listeners.items())])


def liveness_problem(pages: Sequence[CounterPage], now: float) -> str | None:
    """Why the service is not alive; None if it is. now: CLOCK_MONOTONIC seconds."""
    if not _is_fresh(pages[0], now):
        return "the supervisor does not respond"
    if not any(_is_fresh(page, now) for page in _workers(pages)):
        return "no worker responds"
    return None


def readiness(pages: Sequence[CounterPage], generation: int, listeners: Sequence[str], now: float) -> Readiness:
    """Whether a new connection would be served.

    A listener is ready while one worker at least would take a client on there. generation: whose listeners these are;
    a younger one that is ready has taken them over.
    """
    problem = liveness_problem(pages, now)
    workers = [page for page in _workers(pages) if _is_fresh(page, now)]
    ready = [page for page in workers if page.state == ProcessState.READY]
    if problem is None and pages[0].state == ProcessState.DRAINING:
        problem = "shutting down"
    if problem is None and not ready:
        draining = any(page.state == ProcessState.DRAINING for page in workers)
        problem = "shutting down" if draining else "no worker is ready yet"
    return Readiness(problem, {address: _answer(ready, generation, n, problem) for n, address in enumerate(listeners)})


def _answer(ready: Sequence[CounterPage], generation: int, listener: int, problem: str | None) -> str:
    """What a new connection to one listener would meet."""
    if problem is not None:
        return problem
    answers = {published(page, listener) if page.generation == generation else SERVED for page in ready}
    return SERVED if SERVED in answers else ", ".join(sorted(answers))


def _workers(pages: Sequence[CounterPage]) -> list[CounterPage]:
    return [page for page in pages if page.pid and page.worker >= 0]


def _is_fresh(page: CounterPage, now: float) -> bool:
    return now - page.heartbeat < STALE


def resident_memory(pid: int) -> int:
    """Octets of a process's memory that are resident; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * getpagesize()
    except (OSError, IndexError):
        return 0
