"""The parent of all processes: it owns the listening sockets and the counter pages, starts workers and the admin
process, watches, replaces, reloads, upgrades and drains them.

It handles no client's bytes, runs no Lua, has no event loop and no thread. What to do when is gateway/service/plan.py's
decision; signals, children and the control socket only wake the loop here, which then looks at the whole state.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.admin.context import AdminContext
from gateway.metrics.families import ProcessState
from gateway.service import descriptors, plan, privileges, upgrade
from gateway.service.announcement import announce, first_steps
from gateway.service.context import EX_CONFIG, EX_TEMPFAIL, WorkerContext
from gateway.service.control import Client, Control, ControlError
from gateway.service.estate import Estate
from gateway.service.fleet import FleetDesk
from gateway.service.listening import UnusableAddress
from gateway.service.loading import BadPolicy, Load, LoadedPolicy, Loading
from gateway.service.notify import Notifier
from gateway.service.plan import Process, Service, Slot
from gateway.service.staff import Settings, Staff, besides, http_addresses, name_of, smtp_addresses
from gateway.service.upgrade import Inheritance, Trial, UpgradeError
from gateway.service.watching import Watch, WatchedFiles

log = logging.getLogger(__name__)

KILL_SLACK = 12.0  # seconds that a draining process gets beyond its own deadline, to write its last log records
ASLEEP = 5.0  # seconds; a longer pause of the supervisor says nothing about its children's heartbeats
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)


class Supervisor:
    """One service, from start to exit; or from the upgrade that made this program its own."""

    def __init__(
        self,
        settings: Settings,
        load: Load,
        run_worker: Callable[[WorkerContext], int],
        run_admin: Callable[[AdminContext], int],
        inheritance: Inheritance | None = None,
    ) -> None:
        self._settings, self._load = settings, load
        self._service = Service(settings.drain_timeout + KILL_SLACK, settings.drain_delay)
        self._policies: dict[int, LoadedPolicy] = {}  # by generation: the one in force and the one to come
        self._last_generation = 0
        self._estate = Estate(settings.workers, inheritance)
        self._smtp, self._http, self._pages = self._estate.smtp, self._estate.http, self._estate.pages
        self._own_page = self._pages.own
        self._staff = Staff(settings, run_worker, run_admin, self._estate)
        self._notifier = Notifier()
        self._fleet = FleetDesk(self._estate.arena)
        self._loading: Loading | None = None
        self._trial: Trial | None = None
        self._watch = Watch(WatchedFiles(), time.monotonic)
        self._reload_wanted, self._upgrade_wanted = True, False
        self._asking: dict[str, list[Client]] = {"reload": [], "upgrade": []}  # who waits for the next one …
        self._waiting: list[Client] = []  # … and for what is under way
        self._page_of: dict[Process, CounterPage] = {}
        self._died: dict[int, tuple[int, float]] = {}  # by slot: the process id and time of what is being replaced
        if inheritance is not None:
            self._adopt(inheritance)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        gc.freeze()  # the children share what exists now; a collection of theirs must not touch, and so copy, it
        now = time.monotonic()
        metrics.claim(self._own_page, worker=-1, generation=0, now=now)
        self._own_page.pid, self._own_page.state = os.getpid(), ProcessState.READY
        self._service.awake_since = now
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)  # what matters is the byte that set_wakeup_fd gets
        signal.set_wakeup_fd(self._estate.wake, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # they are blocked while one program follows another
        try:
            if self._settings.control and not self._estate.control:
                self._estate.control = Control.open(self._settings.control)
        except ControlError as error:
            log.critical("%s", error)
            return EX_TEMPFAIL
        while True:
            now = time.monotonic()
            self._observe(now)
            self._begin_what_is_wanted(now)
            for action in plan.plan(now, self._service):
                match action:
                    case plan.Exit(code):
                        self._end()
                        return code
                    case plan.Wait(seconds):
                        self._wait(seconds)
                    case _:
                        self._do(action, now)

    def _wait(self, seconds: float) -> None:
        self._notifier.alive(time.monotonic())
        poll = select.poll()  # select itself knows no descriptor above 1023
        awaited = [self._estate.awake, *(each.fd for each in (self._loading, self._trial) if each)]
        for fd in awaited + (self._estate.control.fds() if self._estate.control else []):
            poll.register(fd, select.POLLIN)
        readable = {fd for fd, _ in poll.poll(max(0.0, seconds * 1000))}
        now = time.monotonic()
        if self._estate.awake in readable:
            self._answer(set(os.read(self._estate.awake, 4096)), now)
        if self._loading and self._loading.fd in readable:
            self._receive_policy(now)
        if self._trial and self._trial.fd in readable:
            self._receive_trial(now)
        if self._estate.control:
            for client, request in self._estate.control.requests():
                self._serve(client, request, now)

    def _observe(self, now: float) -> None:
        """Bring what `plan` looks at up to date."""
        if now - self._own_page.heartbeat > ASLEEP:
            self._service.awake_since = now
        self._own_page.heartbeat = now
        self._staff.renew_keys(now)
        for process, page in self._page_of.items():
            process.heartbeat = page.heartbeat
            if not process.ready and page.state != ProcessState.STARTING:
                process.ready = True
                self._tell_of_replacement(process, now)
            process.accepting &= page.state != ProcessState.DRAINING
        self._own_page.state = ProcessState.READY if self._service.unready_since is None else ProcessState.DRAINING

    def _tell_of_replacement(self, process: Process, now: float) -> None:
        if process.generation == self._service.generation and process.slot in self._died:
            pid, died = self._died.pop(process.slot)
            name = name_of(process.slot)
            log.warning("%s[%d] took the place of %s[%d] after %.1f s", name, process.pid, name, pid, now - died)

    def _answer(self, signals: set[int], now: float) -> None:
        if signal.SIGTERM in signals or signal.SIGINT in signals:
            log.info("stopping")
            self._notifier.stopping()
            self._service.stop(now)
        if signal.SIGHUP in signals:
            log.info("reload requested")
            self._reload_wanted = True
        if signal.SIGUSR2 in signals:
            log.info("upgrade requested")
            self._upgrade_wanted = True
        if signal.SIGCHLD in signals:
            self._reap(now)

    def _serve(self, client: Client, request: dict[str, Any], now: float) -> None:
        """Do what somebody asks for at the control socket."""
        match request.get("ask"):
            case "reload" | "upgrade" as what:
                log.info("%s requested", what)
                self._asking[what].append(client)
                self._reload_wanted |= what == "reload"
                self._upgrade_wanted |= what == "upgrade"
            case "drain":
                log.info("not ready from now on, as asked")
                self._service.hide(now)
                client.answer(True, ["/readyz says 503; clients are still served"])
            case "undrain":
                self._service.show()
                back = self._service.unready_since is None
                client.answer(back, ["ready again" if back else "the service is about to stop"])
            case "limits":
                client.answer(True, self._estate.holders(str(request.get("peer", ""))))
            case "fleet":
                client.answer(*self._fleet.answer(request, now))
            case other:
                client.answer(False, [f"nobody knows how to {other!r} here"])

    def _end(self) -> None:
        self._abandon_load()
        self._abandon_trial()
        for client in [*self._waiting, *self._asking["reload"], *self._asking["upgrade"]]:
            client.answer(False, ["the service stops"])
        if self._estate.control:
            self._estate.control.close()
        log.info("stopped")

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
                if slot.number >= 0:
                    log.warning("%s: not listening until it starts again", name_of(slot.number))
                    self._smtp.mute(slot.number)
            case plan.Send(process, number):
                self._send(process, number, now)
            case plan.Commit():
                self._service.commit()
                self._close_unused()
            case plan.Announce():
                self._announce()
            case plan.Close():
                self._service.closed = True
                self._smtp.keep_only(())
                self._http.keep_only(())
            case plan.Stop(code, why):
                log.critical("giving up: %s", why)
                self._service.stop(now, code)

    def _spawn(self, slot: Slot, now: float) -> None:
        generation = self._service.generation
        policy = self._policies[generation]
        page = self._pages.free()
        metrics.claim(page, worker=slot.number, generation=generation, now=now)
        try:
            pid = self._staff.start(slot.number, generation, policy, page, now)
        except OSError as error:  # the machine has no process or memory to spare
            log.error("cannot start %s: %s", name_of(slot.number), error)
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
                log.error("%s[%d] does not respond: SIGABRT", name_of(process.slot), process.pid)
            case signal.SIGKILL:
                process.killed = True
                log.error("%s[%d] did not end in time: SIGKILL", name_of(process.slot), process.pid)
        os.kill(process.pid, number)  # it exists, perhaps as a zombie, until it is reaped

    def _bury(self, process: Process, code: int, now: float) -> None:
        metrics.release(self._page_of.pop(process))
        death = self._service.bury(process, now, code, random.random())
        if death is plan.Death.EXPECTED:
            return
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        log.error("%s[%d] died after %.1f s: %s", name_of(process.slot), process.pid, now - process.started, how)
        if death is plan.Death.REPLACED:
            self._died.setdefault(process.slot, (process.pid, now))
            if process.slot >= 0:
                self._own_page.add(metrics.WORKER_RESTARTS.slot())
                self._own_page.set(metrics.WORKER_LAST_RESTART.slot(), int(time.time()))
        elif death is plan.Death.GIVEN_UP:
            log.error("%s: not started again, the configuration is at fault", name_of(process.slot))
        elif death is plan.Death.ROLLED_BACK:
            before = self._policies[self._service.previous]
            self._service.roll_back(self._settings.workers, **besides(before))
            self._reload_failed(["a process of the new policy died before it was ready"])
            self._close_unused()

    # --- generations --------------------------------------------------------------------------------------------------

    def _begin_what_is_wanted(self, now: float) -> None:
        if self._loading and now >= self._loading.deadline:
            self._abandon_load()
            self._reload_failed(["the policy takes too long to load"])
        if self._trial and now >= self._trial.deadline:
            self._abandon_trial()
            self._upgrade_failed(["the new program takes too long to start"])
        if self._loading or self._trial or self._service.draining or self._service.closing_at is not None:
            return  # one thing after the other: at most two generations are alive
        if changed := self._watch.changed():
            log.info("reload: %s changed", changed[0] if len(changed) == 1 else f"{len(changed)} files")
            self._reload_wanted = True
        if self._reload_wanted:
            self._begin_reload(now)
        elif self._upgrade_wanted and self._service.generation == self._service.announced:
            self._begin_upgrade(now)

    def _begin_reload(self, now: float) -> None:
        self._reload_wanted = False
        self._waiting += self._asking["reload"]
        self._asking["reload"] = []
        if self._service.generation:
            self._notifier.reloading(now)
        try:
            self._loading = Loading(self._load, now, before=self._staff.enter_loader)
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
        if self._service.closing_at is not None:
            return
        if isinstance(result, BadPolicy):
            return self._reload_failed(result.problems, EX_TEMPFAIL if result.may_pass else EX_CONFIG)
        if result.config.listeners and self._staff.for_clients < descriptors.LEAST:
            few = f"{self._staff.limit} file descriptors are too few for a worker; raise LimitNOFILE, or ulimit -n"
            return self._reload_failed([few])
        try:
            self._smtp.open(smtp_addresses(result))
            self._http.open(http_addresses(result))
            if self._settings.user:
                privileges.drop_to(self._settings.user)
        except (UnusableAddress, privileges.PrivilegeError) as error:
            self._reload_failed([str(error)], EX_TEMPFAIL if isinstance(error, UnusableAddress) else EX_CONFIG)
            return self._close_unused()
        self._last_generation += 1
        self._policies[self._last_generation] = result
        self._watch = Watch(result.watched, time.monotonic)
        self._service.begin(self._last_generation, self._settings.workers, **besides(result))
        if not result.config.listeners:
            log.warning("no mail is accepted: the policy calls no kumo.start_esmtp_listener")
        self._staff.warn_of_shares(result)
        for address in self._smtp.bound(smtp_addresses(result)) + self._http.bound(http_addresses(result)):
            log.info("listening on %s", address)

    def _announce(self) -> None:
        first = not self._service.announced
        self._service.announce()
        self._own_page.set(metrics.POLICY_EPOCH.slot(), self._service.generation)
        self._own_page.set(metrics.POLICY_LAST_LOAD.slot(), int(time.time()))
        if not first:
            self._own_page.add(metrics.POLICY_RELOADS.slot("ok"))
        status = f"policy epoch {self._service.generation} in force, {self._settings.workers} workers ready"
        log.info("%s", status)
        self._notifier.ready(status)
        self._conclude(True, [status])
        policy = self._policies[self._service.generation]
        smtp, http = self._smtp.bound(smtp_addresses(policy)), self._http.bound(http_addresses(policy))
        if first and sys.stderr.isatty():
            for line in first_steps(sys.argv[0], smtp=smtp, http=http):
                log.info("%s", line)
        if self._settings.announce:
            announce(self._settings.announce, epoch=self._service.generation, smtp=smtp, http=http)

    def _reload_failed(self, problems: Sequence[str], code: int = EX_TEMPFAIL) -> None:
        """code: what the service ends with where there is no policy before."""
        for problem in problems:
            log.error("%s", problem)
        if self._service.generation:
            self._own_page.add(metrics.POLICY_RELOADS.slot("failed"))
            self._own_page.set(metrics.POLICY_LAST_FAILURE.slot(), int(time.time()))
            log.error("reload failed: the policy before stays in force")
            self._notifier.ready(f"Reload failed: {problems[0]}")
        else:
            self._service.stop(time.monotonic(), code)
        self._conclude(False, list(problems))

    def _conclude(self, ok: bool, said: list[str]) -> None:
        """Tell who waited for the reload or the upgrade."""
        for client in self._waiting:
            client.answer(ok, said)
        self._waiting.clear()

    def _close_unused(self) -> None:
        """Forget all policies but the current one, and their sockets."""
        self._policies = {n: p for n, p in self._policies.items() if n == self._service.generation}
        current = self._policies.get(self._service.generation)
        self._smtp.keep_only(smtp_addresses(current) if current else ())
        self._http.keep_only(http_addresses(current) if current else ())

    # --- upgrades -----------------------------------------------------------------------------------------------------

    def _adopt(self, inheritance: Inheritance) -> None:
        """Go on where the program before stopped."""
        policy = inheritance.loaded_policy()
        self._policies[inheritance.generation] = policy
        self._watch = Watch(policy.watched, time.monotonic)
        self._last_generation = inheritance.last_generation
        self._page_of = self._estate.processes(inheritance)
        self._service.processes += self._page_of
        self._service.adopt(inheritance.generation, self._settings.workers, **besides(policy))
        if inheritance.asked_by is not None:
            self._waiting.append(Client.inherited(inheritance.asked_by))

    def _begin_upgrade(self, now: float) -> None:
        self._upgrade_wanted = False
        self._waiting += self._asking["upgrade"]
        self._asking["upgrade"] = []
        try:
            self._trial = Trial(self._inheritance(), now)
        except (OSError, UpgradeError) as error:
            self._upgrade_failed([str(error)])

    def _receive_trial(self, now: float) -> None:
        assert self._trial
        problems = self._trial.receive()
        if problems is None:
            return
        self._trial = None
        if self._service.closing_at is not None:
            return
        if problems:
            return self._upgrade_failed(problems)
        log.info("the new program takes over")
        self._notifier.reloading(now)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the new program can answer them
        try:
            upgrade.replace_program(self._inheritance())
        except UpgradeError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            self._upgrade_failed([str(error)])

    def _inheritance(self) -> Inheritance:
        """What the new program gets. Raises UpgradeError."""
        waiting = [client for client in self._waiting if not client.done]
        return self._estate.bequeath(
            self._policies[self._service.generation],
            self._page_of,
            generation=self._service.generation,
            last_generation=self._last_generation,
            asked_by=waiting[0].connection.fileno() if waiting else None,
        )

    def _upgrade_failed(self, problems: Sequence[str]) -> None:
        for problem in problems:
            log.error("%s", problem)
        log.error("upgrade failed: the running version stays")
        self._notifier.ready(f"Upgrade failed: {problems[0]}")
        self._conclude(False, list(problems))

    def _abandon_trial(self) -> None:
        if self._trial:
            with suppress(ProcessLookupError):
                os.kill(self._trial.pid, signal.SIGKILL)
            self._trial.close()
            self._trial = None
