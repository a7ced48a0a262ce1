"""What the supervisor owns and a program that takes its place inherits: listening sockets, counter pages, the arena,
the pipe that wakes it, the control socket. What is done with them is the supervisor's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.arena import Arena, parts_for
from gateway.quotas import Holder, Quotas
from gateway.service.control import Control
from gateway.service.listening import ListeningSockets, PassedSockets
from gateway.service.loading import LoadedPolicy
from gateway.service.pages import Pages
from gateway.service.plan import Process
from gateway.service.upgrade import Inheritance, InheritedProcess, UpgradeError, pickled


class Estate:
    """awake, wake: the two ends of the pipe."""

    def __init__(self, workers: int, inheritance: Inheritance | None = None) -> None:
        """inheritance: of the program before; its Trial has shown that this one understands it."""
        passed = PassedSockets.from_environment()
        self.smtp, self.http = ListeningSockets(workers, passed), ListeningSockets(1, passed)
        self.control: Control | None = None
        self._quotas: Quotas | None = None  # for looks only, once there was one
        # Two generations at most are alive at a time, each with an admin process and a shipper; and the supervisor.
        count = 2 * (workers + 2) + 1
        if inheritance is None:
            self.pages, self.arena = Pages(count), Arena(parts_for(workers))
            self.awake, self.wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            return
        self.pages = Pages.inherited(inheritance, count)
        self.arena = Arena.inherited(inheritance.arena, inheritance.arena_layout, parts_for(workers))
        self.awake, self.wake = inheritance.awake, inheritance.wake
        self.smtp.adopt(inheritance.sockets["smtp"])
        self.http.adopt(inheritance.sockets["http"])
        if inheritance.control:
            self.control = Control.inherited(*inheritance.control)

    def holders(self, peer: str) -> list[str]:
        """Who uses how much of what is limited, a line each. peer: as for Quotas.holders()."""
        if self._quotas is None:
            self._quotas = Quotas(self.arena, None)
        nobody = "nobody of that name or network" if peer else "nobody"
        return [_shown(holder) for holder in self._quotas.holders(peer)] or [f"{nobody} uses any limit"]

    def processes(self, inheritance: Inheritance) -> dict[Process, CounterPage]:
        """The children of the program before, with their pages."""
        found = {}
        for each in inheritance.processes:
            page = self.pages.of_inherited(each.page)
            found[Process(each.slot, each.generation, each.pid, each.started, page.heartbeat, ready=True)] = page
        return found

    def bequeath(
        self,
        policy: LoadedPolicy,
        page_of: Mapping[Process, CounterPage],
        *,
        generation: int,
        last_generation: int,
        asked_by: int | None,
    ) -> Inheritance:
        """What the next program gets: all of this, the policy in force, the children, and who waits for it.

        Raises UpgradeError.
        """
        if any(not self.pages.has(page) for page in page_of.values()):
            raise UpgradeError("processes of the version before are still in service; reload first")
        processes = [
            InheritedProcess(each.slot, each.generation, each.pid, each.started, self.pages.place_of(page))
            for each, page in page_of.items()
        ]
        return Inheritance(
            generation=generation,
            last_generation=last_generation,
            policy=pickled(policy),
            processes=processes,
            sockets={"smtp": self.smtp.bequeath(), "http": self.http.bequeath()},
            pages=self.pages.fd,
            page_size=metrics.page_size(),
            layout=metrics.layout_digest(),
            totals=metrics.totals(self.pages.all),
            arena=self.arena.fd,
            arena_layout=self.arena.layout,
            awake=self.awake,
            wake=self.wake,
            control=(self.control.listening.fileno(), self.control.path) if self.control else None,
            asked_by=asked_by,
        )


def _shown(holder: Holder) -> str:
    if not holder.seconds:
        return f"{holder.name}: {holder.most} now"
    return f"{holder.name}: {holder.left} of {holder.most} left, unused in {holder.seconds:.0f} s"
