"""What the supervisor hands to the admin process: plain values and inherited sockets, no behaviour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from socket import socket
from typing import TYPE_CHECKING, Any

from gateway._fastpath import CounterPage

if TYPE_CHECKING:
    from gateway.admin.processes import PolicyName
    from gateway.config import HttpListener
    from gateway.couriers.fleet.table import MemberTable
    from gateway.metrics.families import ProcessState


@dataclass(frozen=True, slots=True)
class Means:
    """What it takes to change something. token_file: its content, white space around it aside, is the operator's token.

    ask: the supervisor, as at its control socket; takes its time, raises OSError. spool: the directory of the policy's
    spool, None without one.
    """

    token_file: str
    ask: Callable[[Mapping[str, Any]], tuple[bool, list[str]]]
    spool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminContext:
    """What the admin process serves and looks at. States and SIGTERM as for a worker."""

    listeners: Sequence[tuple[HttpListener, socket]]
    hostnames: Sequence[str]  # what the policy's SMTP listeners call themselves
    smtp: Sequence[str]  # the addresses of the policy's SMTP listeners, as bound
    page: CounterPage  # its own, for the heartbeat
    pages: Sequence[CounterPage]  # every process's; the first one is the supervisor's
    enter: Callable[[ProcessState], None]
    members: MemberTable  # of the fleet, as the workers know them
    names: Callable[[], Sequence[str]]  # of the listeners that are counted apart, by place
    shipments: Callable[[], Sequence[str]] = tuple  # likewise, of the shipments
    policy: Callable[[], PolicyName]  # takes the time to read all that was loaded
    operator: Means | None = None  # what it takes to change something
    log_dirs: Callable[[], Sequence[str]]  # of the policy
    explain_refusal: Callable[[Mapping[str, Any]], str]  # an event of /trace/recent → why; ValueError
    explain: Callable[[bytes], bytes]  # an inquiry of `explain` → the answer, in time. ValueError for one that is none
