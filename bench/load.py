"""One run of load against one server: checks the target, runs the source with progress, tells the result.

The sending itself is in _load.pyx, or in secure.py when TLS or AUTH is asked for.
"""

import ipaddress
import os
import random
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._load import Load
from .histogram import Histogram
from .mix import Mix

CONNECT_SECONDS = 60.0  # for all connections together
STALL_SECONDS = 2.0  # without one more greeting: the others will not come until some work is done
Progress = Callable[[dict[str, Any]], None]


class TargetError(ValueError):
    """The target is not one to send load to."""


@dataclass(frozen=True)
class Target:
    """A server: a numeric address and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, mine: bool = False) -> "Target":
        """HOST:PORT, [IPv6]:PORT or a port on 127.0.0.1.

        Raises TargetError for anything but loopback, unless `mine` says that the target belongs to who
        asks.
        """
        host, _, port = text.rpartition(":")
        try:
            found = socket.getaddrinfo(host.strip("[]") or "127.0.0.1", int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            raise TargetError(f"{text}: expected HOST:PORT ({error})") from error
        addresses = {str(entry[4][0]) for entry in found}
        foreign = sorted(a for a in addresses if not ipaddress.ip_address(a.partition("%")[0]).is_loopback)
        if foreign and not mine:
            raise TargetError(
                f"{text}: {foreign[0]} is not a loopback address. Load like this is an attack on a server "
                "whose owner did not ask for it; if the target is yours, say so with --target-is-mine."
            )
        return cls(str(found[0][4][0]), int(port))

    def sockaddr(self) -> bytes:
        """struct sockaddr_in or sockaddr_in6."""
        port = struct.pack("!H", self.port)
        if ":" in self.host:
            packed = socket.inet_pton(socket.AF_INET6, self.host)
            return struct.pack("=H", socket.AF_INET6) + port + bytes(4) + packed + bytes(4)
        return struct.pack("=H", socket.AF_INET) + port + socket.inet_aton(self.host) + bytes(8)


@dataclass(frozen=True)
class Plan:
    """How to send.

    messages: the run ends when each has an outcome, or after `seconds`, whichever is first. rate: messages
    per second in the open loop, 0 for the closed loop. per_connection: messages per connection, 0 for no
    limit. tls: STARTTLS before the first message. auth: (user, password) for AUTH PLAIN.
    """

    messages: int = 10_000
    seconds: float = 60.0
    connections: int = 20
    rate: float = 0.0
    pipelining: bool = False
    per_connection: int = 0
    tls: bool = False
    auth: tuple[str, str] | None = None


def send(target: Target, mix: Mix, plan: Plan, progress: Progress | None = None) -> dict[str, Any]:
    """Run `plan` and return its result, fit for JSON. `progress` is called about four times a second."""
    with prepared(target, mix, plan) as load:
        load.connect()
        return load.run(progress)


class Run:
    """A run in two steps, so that connecting can be kept out of what is measured: connect(), then run()."""

    def __init__(self, target: Target, mix: Mix, plan: Plan) -> None:
        self.plan = plan
        self.id = random.SystemRandom().getrandbits(64)
        allow_descriptors(plan.connections + 64)
        self.load = Load(
            target.sockaddr(),
            connections=plan.connections,
            contents=mix.contents,
            order=mix.order,
            recipients=mix.recipients,
            messages=plan.messages,
            run=self.id,
            per_message=mix.per_message,
            rate=plan.rate,
            pipelining=plan.pipelining,
            per_connection=plan.per_connection,
        )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.load.close()

    def connect(self) -> int:
        """Open and greet the connections that are to be kept: all, or as many as the server takes without delay; how
        many it did not."""
        deadline = time.monotonic() + CONNECT_SECONDS
        greeted = -1
        while not self.load.open(STALL_SECONDS) and time.monotonic() < deadline and self.load.idle > greeted:
            greeted = self.load.idle
        return self.load.size - self.load.idle

    def run(self, progress: Progress | None = None) -> dict[str, Any]:
        """Send until done or out of time; the result."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        deadline = time.monotonic() + self.plan.seconds
        while not self.load.step(min(0.25, max(0.0, deadline - time.monotonic()))):
            if progress:
                progress(self.counts())
            if time.monotonic() >= deadline:
                break
        after = resource.getrusage(resource.RUSAGE_SELF)
        return self.result(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def counts(self) -> dict[str, Any]:
        load = self.load
        return {
            "sent": load.sent,
            "acked": load.acked,
            "refused": load.refused,
            "lost": load.lost,
            "unknown": load.unknown,
            "unfinished": load.sent - load.acked - load.refused - load.lost - load.unknown,
        }

    def result(self, cpu_seconds: float) -> dict[str, Any]:
        load = self.load
        latency = Histogram(load.latencies())
        return self.counts() | {
            "run": f"{self.id:016x}",
            "recipients_acked": load.recipients_acked,
            "seconds": load.seconds,
            "messages_per_second": load.acked / load.seconds if load.seconds else 0.0,
            "bytes_sent": load.bytes_sent,
            "connects": load.connects,
            "connect_failures": load.connect_failures,
            "error": os.strerror(load.last_errno) if load.last_errno else None,
            "refusals": {str(code): count for code, count in load.refusals().items()},
            "latency_us": latency.summary(),
            "histogram": latency.to_json(),
            "source_us_per_message": 1e6 * cpu_seconds / max(1, load.sent),
        }


def prepared(target: Target, mix: Mix, plan: Plan) -> Run:
    """The run that `plan` needs: compiled, or through Python's ssl for TLS and AUTH."""
    if plan.tls or plan.auth:
        from .secure import SecureRun

        return SecureRun(target, mix, plan)
    return Run(target, mix, plan)


def allow_descriptors(wanted: int) -> None:
    """Raise this process's limit of open files as far as `wanted` asks and the hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def show_progress(counts: dict[str, Any]) -> None:
    """One line on standard error, rewritten in place."""
    shown = "  ".join(f"{name} {counts[name]:,}" for name in ("sent", "acked", "refused", "lost", "unknown"))
    sys.stderr.write(f"\r{shown}\x1b[K")
    sys.stderr.flush()
