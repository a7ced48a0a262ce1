"""What the supervisor hands to a worker: plain values and inherited sockets, no behaviour."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socket import socket
from typing import TYPE_CHECKING

from gateway._fastpath import CounterPage
from gateway.arena import Arena

if TYPE_CHECKING:
    from gateway.config import Listener
    from gateway.metrics.families import ProcessState
    from gateway.net.tls import KeyFiles, ServerContexts
    from gateway.policy.source import PolicySource

EX_SOFTWARE = 70  # <sysexits.h>: a process ended by an error of its own
EX_TEMPFAIL = 75  # <sysexits.h>: something around the service is not as it must be; starting it again may help
EX_CONFIG = 78  # <sysexits.h>: only an edit helps


@dataclass(frozen=True, slots=True)
class ContentLimits:
    """What the contents of a worker's messages may take. memory: octets. directory: for the files of what is more."""

    memory: int
    directory: str


DEFAULT_CONTENT_LIMITS = ContentLimits(256 << 20, os.environ.get("TMPDIR") or "/var/tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """A worker's share of the service.

    The worker enters ProcessState.READY once it accepts connections, and from then on writes its heartbeat into `page`
    every few seconds at least. On SIGTERM it stops accepting and enters ProcessState.DRAINING: no connection may be
    accepted after that. It drains for at most `drain_timeout` seconds, and exits 0 then.
    """

    slot: int  # 0 to the number of workers − 1
    listeners: Sequence[tuple[Listener, socket]]  # bound and listening; this slot's own SO_REUSEPORT sockets
    max_connections: Sequence[int]  # how many this worker may have open at each listener
    places: Sequence[int]  # of each listener among those that are counted apart
    source: PolicySource  # the policy's text as the supervisor validated it
    keys: KeyFiles  # certificates and keys as they were found good
    contexts: ServerContexts  # made of them, the same for all workers
    epoch: int  # the policy's number
    page: CounterPage
    enter: Callable[[ProcessState], None]  # tells the supervisor
    drain_timeout: float
    content: ContentLimits
    content_files: int  # how many contents may have one
    arena: Arena  # what it shares with all others
