"""The parent of all processes: it owns the listening sockets and the counter pages, starts workers and the admin
process, watches, replaces, reloads and drains them.

It handles no client's bytes, runs no Lua, has no event loop and no thread. What to do when is gateway/service/plan.py's
decision; signals and children only wake the loop here, which then looks at the whole state.
"""

from __future__ import annotations

import gc
import json
import logging
import mmap
import os
import random
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.metrics.families import State
from gateway.service import child, descriptors, plan, privileges
from gateway.service.context import EX_CONFIG, EX_TEMPFAIL, AdminContext, WorkerContext
from gateway.service.listening import AddressError, ListeningSockets
from gateway.service.loading import BadPolicy, Load, LoadedPolicy, Loading
from gateway.service.plan import ADMIN, Process, Service, Slot

log = logging.getLogger(__name__)

KILL_SLACK = 12.0  # seconds that a draining process gets beyond its own deadline, to write its last log records
ASLEEP = 5.0  # seconds; a longer pause of the supervisor says nothing about its children's heartbeats
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says. drain_timeout: seconds. announce: a file, or a file descriptor's number."""

    workers: int
    user: str | None = None
    drain_timeout: float = 30.0
    announce: str | None = None


class Supervisor:
    """One service, from start to exit."""

    def __init__(
        self,
        settings: Settings,
        load: Load,
        run_worker: Callable[[WorkerContext], int],
        run_admin: Callable[[AdminContext], int],
    ) -> None:
        self._settings, self._load = settings, load
        self._run_worker, self._run_admin = run_worker, run_admin
        self._service = Service(settings.drain_timeout + KILL_SLACK)
        self._policies: dict[int, LoadedPolicy] = {}  # by generation: the one in force and the one to come
        self._last_generation = 0
        self._smtp = ListeningSockets(settings.workers)
        self._http = ListeningSockets(1)
        self._loading: Loading | None = None
        self._reload_wanted = True
        # Two generations at most are alive at a time, each with an admin process; and the supervisor itself.
        size, count = metrics.page_size(), 2 * (settings.workers + 1) + 1
        memory = memoryview(mmap.mmap(-1, size * count))
        self._pages = [CounterPage(memory[size * i : size * (i + 1)]) for i in range(count)]
        self._page_of: dict[Process, CounterPage] = {}
        self._died: dict[int, tuple[int, float]] = {}  # by slot: the process id and time of what is being replaced
        self._descriptors = descriptors.raise_limit()
        self._for_clients = descriptors.for_clients(self._descriptors)
        self._awake, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        gc.freeze()  # the children share what exists now; a collection of theirs must not touch, and so copy, it
        now = time.monotonic()
        metrics.claim(self._own_page, worker=-1, generation=0, now=now)
        self._own_page.pid, self._own_page.state = os.getpid(), State.READY
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)  # what matters is the byte that set_wakeup_fd gets
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        while True:
            now = time.monotonic()
            self._observe(now)
            self._load_if_wanted(now)
            for action in plan.plan(now, self._service):
                match action:
                    case plan.Exit(code):
                        self._abandon_load()
                        log.info("stopped")
                        return code
                    case plan.Wait(seconds):
                        self._wait(seconds)
                    case _:
                        self._do(action, now)

    def _wait(self, seconds: float) -> None:
        poll = select.poll()  # select itself knows no descriptor above 1023
        for fd in (self._awake, *([self._loading.fd] if self._loading else [])):
            poll.register(fd, select.POLLIN)
        readable = {fd for fd, _ in poll.poll(max(0.0, seconds * 1000))}
        now = time.monotonic()
        if self._awake in readable:
            self._answer(set(os.read(self._awake, 4096)), now)
        if self._loading and self._loading.fd in readable:
            self._receive_policy(now)

    def _observe(self, now: float) -> None:
        """Bring what `plan` looks at up to date."""
        if now - self._own_page.heartbeat > ASLEEP:
            self._service.awake_since = now
        self._own_page.heartbeat = now
        for process, page in self._page_of.items():
            process.heartbeat = page.heartbeat
            if not process.ready and page.state != State.STARTING:
                process.ready = True
                self._tell_of_replacement(process, now)
            process.accepting &= page.state != State.DRAINING

    def _tell_of_replacement(self, process: Process, now: float) -> None:
        if process.generation == self._service.generation and process.slot in self._died:
            pid, died = self._died.pop(process.slot)
            name = _name(process.slot)
            log.warning("%s[%d] took the place of %s[%d] after %.1f s", name, process.pid, name, pid, now - died)

    def _answer(self, signals: set[int], now: float) -> None:
        if signal.SIGTERM in signals or signal.SIGINT in signals:
            log.info("stopping")
            self._service.stop(now)
            self._smtp.keep_only(())
            self._http.keep_only(())
        if signal.SIGHUP in signals:
            log.info("reload requested")
            self._reload_wanted = True
        if signal.SIGCHLD in signals:
            self._reap(now)

    def _reap(self, now: float) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)  # any: as a container's process 1 there may be orphans
                if not pid:
                    return
                process = next((p for p in self._page_of if p.pid == pid), None)
                if process:
                    self._bury(process, os.waitstatus_to_exitcode(status), now)

    # --- what plan wants ----------------------------------------------------------------------------------------------

    def _do(self, action: plan.Action, now: float) -> None:
        match action:
            case plan.Spawn(slot):
                self._spawn(slot, now)
            case plan.Mute(slot):
                slot.muted = True
                if slot.number != ADMIN:
                    log.warning("%s: not listening until it starts again", _name(slot.number))
                    self._smtp.mute(slot.number)
            case plan.Send(process, number):
                self._send(process, number, now)
            case plan.Commit():
                self._service.commit()
                self._close_unused()
            case plan.Announce():
                self._announce()
            case plan.Stop(code, why):
                log.critical("giving up: %s", why)
                self._service.stop(now, code)

    def _spawn(self, slot: Slot, now: float) -> None:
        generation = self._service.generation
        policy = self._policies[generation]
        page = next(page for page in self._pages if not page.pid)
        metrics.claim(page, worker=slot.number, generation=generation, now=now)
        try:
            if slot.number == ADMIN:
                pid = child.start(lambda: self._admin(policy, page), _name(ADMIN))
            else:
                self._smtp.listen(slot.number)
                pid = child.start(lambda: self._worker(policy, generation, slot.number, page), _name(slot.number))
        except OSError as error:  # the machine has no process or memory to spare
            log.error("cannot start %s: %s", _name(slot.number), error)
            slot.retry_at = now + plan.TICK
            return
        slot.muted = False
        page.pid = pid
        process = Process(slot.number, generation, pid, started=now, heartbeat=now)
        self._service.processes.append(process)
        self._page_of[process] = page

    def _send(self, process: Process, number: signal.Signals, now: float) -> None:
        match number:
            case signal.SIGTERM:
                process.told = now
            case signal.SIGABRT:
                process.aborted = now
                log.error("%s[%d] does not respond: SIGABRT", _name(process.slot), process.pid)
            case signal.SIGKILL:
                process.killed = True
                log.error("%s[%d] did not end in time: SIGKILL", _name(process.slot), process.pid)
        os.kill(process.pid, number)  # it exists, perhaps as a zombie, until it is reaped

    def _bury(self, process: Process, code: int, now: float) -> None:
        metrics.release(self._page_of.pop(process))
        death = self._service.bury(process, now, code, random.random())
        if death is plan.Death.EXPECTED:
            return
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        log.error("%s[%d] died after %.1f s: %s", _name(process.slot), process.pid, now - process.started, how)
        if death is plan.Death.REPLACED:
            self._died.setdefault(process.slot, (process.pid, now))
            if process.slot != ADMIN:
                self._own_page.add(metrics.WORKER_RESTARTS.slot())
        elif death is plan.Death.GIVEN_UP:
            log.error("%s: not started again, the configuration is at fault", _name(process.slot))
        elif death is plan.Death.ROLLED_BACK:
            before = self._policies[self._service.previous]
            self._service.roll_back(self._settings.workers, admin=bool(before.config.http_listeners))
            self._reload_failed(["a process of the new policy died before it was ready"])
            self._close_unused()

    # --- generations --------------------------------------------------------------------------------------------------

    def _load_if_wanted(self, now: float) -> None:
        if self._loading and now >= self._loading.deadline:
            self._abandon_load()
            self._reload_failed(["the policy takes too long to load"])
        if self._loading or self._service.draining or self._service.stopping_since is not None:
            return  # a reload waits for the one before: at most two generations are alive
        if self._reload_wanted:
            self._reload_wanted = False
            try:
                self._loading = Loading(self._load, now, before=self._enter_loader)
            except OSError as error:
                self._reload_failed([f"cannot start a process to load the policy: {error}"])

    def _abandon_load(self) -> None:
        if self._loading:
            with suppress(ProcessLookupError):  # it may have ended, and been reaped, just now
                os.kill(self._loading.pid, signal.SIGKILL)
            self._loading.close()
            self._loading = None

    def _receive_policy(self, now: float) -> None:
        assert self._loading
        result = self._loading.receive()
        if result is None:
            return
        self._loading = None
        if self._service.stopping_since is not None:
            return
        if isinstance(result, BadPolicy):
            return self._reload_failed(result.problems, EX_TEMPFAIL if result.may_pass else EX_CONFIG)
        if result.config.listeners and self._for_clients < descriptors.LEAST:
            few = f"{self._descriptors} file descriptors are too few for a worker; raise LimitNOFILE, or ulimit -n"
            return self._reload_failed([few])
        try:
            self._smtp.open(_smtp_addresses(result))
            self._http.open(_http_addresses(result))
            if self._settings.user:
                privileges.drop_to(self._settings.user)
        except (AddressError, privileges.PrivilegeError) as error:
            self._reload_failed([str(error)], EX_TEMPFAIL if isinstance(error, AddressError) else EX_CONFIG)
            return self._close_unused()
        self._last_generation += 1
        self._policies[self._last_generation] = result
        self._service.begin(self._last_generation, self._settings.workers, admin=bool(result.config.http_listeners))
        if not result.config.listeners:
            log.warning("no mail is accepted: the policy calls no kumo.start_esmtp_listener")
        self._warn_of_shares(result)
        for address in self._smtp.bound(_smtp_addresses(result)) + self._http.bound(_http_addresses(result)):
            log.info("listening on %s", address)

    def _shares(self, policy: LoadedPolicy) -> list[int]:
        wanted = [listener.max_connections for listener in policy.config.listeners]
        return descriptors.shares(wanted, self._settings.workers, self._for_clients)

    def _warn_of_shares(self, policy: LoadedPolicy) -> None:
        """Say which listeners get fewer connections than their policy allows."""
        workers = self._settings.workers
        for listener, share in zip(policy.config.listeners, self._shares(policy), strict=True):
            if share * workers < listener.max_connections:
                log.warning(
                    "%s: at most %d connections instead of max_connections = %d: a worker may open %d files "
                    "(LimitNOFILE, ulimit -n), %d of them for clients",
                    *(listener.listen, share * workers, listener.max_connections, self._descriptors, self._for_clients),
                )

    def _announce(self) -> None:
        first = not self._service.announced
        self._service.announce()
        self._own_page.set(metrics.POLICY_EPOCH.slot(), self._service.generation)
        if not first:
            self._own_page.add(metrics.POLICY_RELOADS.slot("ok"))
        log.info("policy epoch %d in force, %d workers ready", self._service.generation, self._settings.workers)
        if self._settings.announce:
            try:
                self._write_announcement(self._settings.announce, self._policies[self._service.generation])
            except OSError as error:
                log.error("cannot announce to %s: %s", self._settings.announce, error)

    def _reload_failed(self, problems: Sequence[str], code: int = EX_TEMPFAIL) -> None:
        """code: what the service ends with where there is no policy before."""
        for problem in problems:
            log.error("%s", problem)
        if self._service.generation:
            self._own_page.add(metrics.POLICY_RELOADS.slot("failed"))
            log.error("reload failed: the policy before stays in force")
        else:
            self._service.stop(time.monotonic(), code)

    def _close_unused(self) -> None:
        """Forget all policies but the current one, and their sockets."""
        self._policies = {n: p for n, p in self._policies.items() if n == self._service.generation}
        current = self._policies.get(self._service.generation)
        self._smtp.keep_only(_smtp_addresses(current) if current else ())
        self._http.keep_only(_http_addresses(current) if current else ())

    def _write_announcement(self, target: str, policy: LoadedPolicy) -> None:
        """Say on which addresses the service is ready: one line of JSON, for programs that start it."""
        text = json.dumps(
            {
                "pid": os.getpid(),
                "epoch": self._service.generation,
                "smtp": self._smtp.bound(_smtp_addresses(policy)),
                "http": self._http.bound(_http_addresses(policy)),
            }
        )
        if target.isdigit():
            os.write(int(target), text.encode() + b"\n")
        else:
            partial = Path(target + ".new")
            partial.write_text(text + "\n")
            partial.replace(target)

    # --- in the children ----------------------------------------------------------------------------------------------

    def _enter_loader(self) -> None:
        self._smtp.close_others(())
        self._http.close_others(())
        if self._settings.user:
            privileges.drop_to(self._settings.user)

    def _worker(self, policy: LoadedPolicy, epoch: int, slot: int, page: CounterPage) -> int:
        sockets = self._smtp.of_slot(_smtp_addresses(policy), slot)
        self._smtp.close_others(sockets)
        self._http.close_others(())
        context = WorkerContext(
            slot=slot,
            listeners=list(zip(policy.config.listeners, sockets, strict=True)),
            max_connections=self._shares(policy),
            source=policy.source,
            keys=policy.keys,
            epoch=epoch,
            page=page,
            enter=lambda state: self._enter(state, page),
            drain_timeout=self._settings.drain_timeout,
        )
        return self._run_worker(context)

    def _admin(self, policy: LoadedPolicy, page: CounterPage) -> int:
        addresses = self._smtp.bound(_smtp_addresses(policy))
        sockets = self._http.of_slot(_http_addresses(policy), 0)
        self._http.close_others(sockets)
        self._smtp.close_others(())
        context = AdminContext(
            listeners=list(zip(policy.config.http_listeners, sockets, strict=True)),
            smtp=addresses,
            page=page,
            pages=self._pages,
            enter=lambda state: self._enter(state, page),
        )
        return self._run_admin(context)

    def _enter(self, state: State, page: CounterPage) -> None:
        page.state = state
        with suppress(BlockingIOError):  # then it will look anyway
            os.write(self._wake, b"\0")  # no signal has this number

    @property
    def _own_page(self) -> CounterPage:
        return self._pages[0]


def _smtp_addresses(policy: LoadedPolicy) -> list[str]:
    return [listener.listen for listener in policy.config.listeners]


def _http_addresses(policy: LoadedPolicy) -> list[str]:
    return [listener.listen for listener in policy.config.http_listeners]


def _name(slot: int) -> str:
    return "admin" if slot == ADMIN else f"worker-{slot}"
