"""A supervisor over make-believe workers, run as a program by test_supervisor.py.

    python fake_service.py POLICY.json ANNOUNCE WORKERS DRAIN_TIMEOUT [USER]

The "policy" is JSON: {"listeners": [ADDRESS…], "http": […], "worker": BEHAVIOUR, "problems": [TEXT…]}. A worker greets
each client with one line of JSON about itself, then answers each line with "echo", and keeps the connection until the
client leaves. Behaviours: "serve"; "stubborn" (ignores SIGTERM); "stuck" (no heartbeat); "exit N" (before ready);
"missing" (the policy's process dies). The environment's FAILING_FORKS says how many attempts to start a worker fail,
HEARTBEAT_TIMEOUT after how many seconds a worker counts as stuck.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gateway.admin.context import AdminContext
from gateway.metrics.families import ProcessState
from gateway.service import child, diagnostics, plan
from gateway.service.context import WorkerContext
from gateway.service.loading import BadPolicy, LoadedPolicy
from gateway.service.staff import Settings
from gateway.service.supervisor import Supervisor

plan.HEARTBEAT_TIMEOUT = float(os.environ.get("HEARTBEAT_TIMEOUT", "30"))
plan.ABORT_GRACE, plan.TICK = 0.5, 0.1


@dataclass(frozen=True)
class FakeListener:
    listen: str
    max_connections: int = 100
    overrides: ClassVar[dict[str, Any]] = {}
    peer: ClassVar[dict[str, Any]] = {}
    via: ClassVar[dict[str, Any]] = {}


@dataclass(frozen=True)
class FakeConfig:
    listeners: tuple[FakeListener, ...]
    http_listeners: tuple[FakeListener, ...]


def load() -> LoadedPolicy | BadPolicy:
    text = Path(sys.argv[1]).read_text()
    policy = json.loads(text)
    if "problems" in policy:
        return BadPolicy(tuple(policy["problems"]), policy.get("may_pass", False))
    if policy.get("worker") == "missing":
        os._exit(3)
    listeners = tuple(map(FakeListener, policy["listeners"]))
    return LoadedPolicy(FakeConfig(listeners, tuple(map(FakeListener, policy.get("http", ())))), text)


def run_worker(context: WorkerContext) -> int:
    behaviour = json.loads(context.source).get("worker", "serve")
    if behaviour.startswith("exit"):
        return int(behaviour.split()[1])
    return Worker(context, behaviour).run()


class Worker:
    def __init__(self, context: WorkerContext, behaviour: str) -> None:
        self.context, self.behaviour = context, behaviour
        self.selector = selectors.DefaultSelector()
        self.told = self.draining = False
        for _, listener in context.listeners:
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.clients: list[socket.socket] = []

    def run(self) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if self.behaviour == "stubborn" else self.note_signal)
        self.context.enter(ProcessState.READY)
        while not self.draining or self.clients:
            if self.behaviour != "stuck":
                self.context.page.heartbeat = time.monotonic()
            for key, _ in self.selector.select(0.05):
                key.data(key.fileobj)
            if self.told and not self.draining:
                self.drain()
        return 0

    def note_signal(self, *_: object) -> None:
        self.told = True

    def drain(self) -> None:
        self.draining = True
        for _, listener in self.context.listeners:
            self.selector.unregister(listener)
            listener.close()
        self.context.enter(ProcessState.DRAINING)

    def accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except BlockingIOError:  # the other generation's worker was faster
            return
        self.clients.append(client)
        about = {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "slot": self.context.slot,
            "epoch": self.context.epoch,
            "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
            "sockets": sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in fds()),
        }
        self.selector.register(client, selectors.EVENT_READ, self.answer)
        self.say(client, json.dumps(about).encode())

    def answer(self, client: socket.socket) -> None:
        try:
            asked = client.recv(4096)
        except ConnectionError:  # it left without reading what it was told
            asked = b""
        if asked:
            self.say(client, b"echo")
        else:
            self.selector.unregister(client)
            self.clients.remove(client)
            client.close()

    @staticmethod
    def say(client: socket.socket, line: bytes) -> None:
        with suppress(ConnectionError):  # answer() notices
            client.sendall(line + b"\n")


def fds() -> list[int]:
    return [fd for fd in range(3, 256) if os.path.exists(f"/proc/self/fd/{fd}")]


def run_admin(context: AdminContext) -> int:
    context.enter(ProcessState.READY)
    while True:
        context.page.heartbeat = time.monotonic()
        time.sleep(0.05)


def fail_first_forks(left: int) -> None:
    real_start = child.start

    def start(run: Callable[[], int], name: str) -> int:
        nonlocal left
        if left and name.startswith("worker"):
            left -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real_start(run, name)

    child.start = start


if __name__ == "__main__":
    fail_first_forks(int(os.environ.get("FAILING_FORKS", "0")))
    diagnostics.configure("supervisor")
    _, _, announce, workers, drain_timeout, *user = sys.argv
    settings = Settings(
        workers=int(workers), drain_timeout=float(drain_timeout), announce=announce, user=user[0] if user else None
    )
    sys.exit(Supervisor(settings, load, run_worker, run_admin).run())
