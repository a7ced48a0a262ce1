"""The trial of a new program before it takes over: does it understand what it would inherit, is the policy good, does a
worker become ready? Nothing listens, and no client is served.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

from gateway.arena import Arena, parts_for
from gateway.metrics.families import ProcessState
from gateway.net.tls import ServerContexts
from gateway.service import child
from gateway.service.context import EX_SOFTWARE, ContentLimits, WorkerContext
from gateway.service.loading import BadPolicy, Load, LoadedPolicy
from gateway.service.pages import Pages
from gateway.service.upgrade import Examination

PATIENCE = 60.0  # seconds until the worker must be ready


def run(
    examination: Examination, load: Load, run_worker: Callable[[WorkerContext], int], content: ContentLimits
) -> int:
    """Says through the examination what is wrong; returns the exit code."""
    problems = examination.problems_of_inheritance()
    if not problems:
        policy = load()
        problems = list(policy.problems) if isinstance(policy, BadPolicy) else _try_worker(policy, run_worker, content)
    examination.tell(problems)
    return EX_SOFTWARE if problems else 0


def _try_worker(policy: LoadedPolicy, run_worker: Callable[[WorkerContext], int], content: ContentLimits) -> list[str]:
    """What is wrong with a worker that has no listeners."""
    page = Pages(1).own
    waiting, ready = os.pipe()

    def enter(state: ProcessState) -> None:
        if state is ProcessState.READY:
            os.write(ready, b"!")

    def work() -> int:
        context = WorkerContext(
            slot=0,
            listeners=[],
            max_connections=[],
            places=[],
            source=policy.source,
            keys=policy.keys,
            contexts=ServerContexts(policy.config.listeners, policy.keys, now=0.0, ahead=0),
            epoch=0,
            page=page,
            enter=enter,
            drain_timeout=0.0,
            content=content,
            content_files=1,
            arena=Arena(parts_for(1)),
        )
        return run_worker(context)

    pid = child.start(work, "trial-worker")
    os.close(ready)
    poll = select.poll()
    poll.register(waiting, select.POLLIN)
    became_ready = bool(poll.poll(PATIENCE * 1000)) and os.read(waiting, 1) == b"!"
    os.kill(pid, signal.SIGTERM if became_ready else signal.SIGKILL)
    os.waitpid(pid, 0)
    return [] if became_ready else ["a worker of the new program does not become ready; its diagnostics are above"]
