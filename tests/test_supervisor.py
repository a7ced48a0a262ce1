"""The supervisor with real processes and sockets; the workers are tests/fake_service.py's."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.service import privileges
from gateway.service.privileges import PrivilegeError
from gateway.service.supervisor import KILL_SLACK

HERE = Path(__file__).parent
PATIENCE = 20.0  # seconds; how long anything may take on a busy machine


def wait_until(holds: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (result := holds()):
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.01)
    return result


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Client:
    """A connection to a worker, with what the worker said about itself."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self.stream = self.socket.makefile("rb")
        self._about: dict[str, Any] | None = None

    @property
    def about(self) -> dict[str, Any]:
        """The worker's greeting; ConnectionError if the worker died between accepting and greeting."""
        if self._about is None:
            greeting = self.stream.readline()
            if not greeting:
                raise ConnectionAbortedError("no greeting")
            self._about = json.loads(greeting)
        return self._about

    def works(self) -> bool:
        self.socket.sendall(b"hello\n")
        return self.stream.readline() == b"echo\n"

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


class FakeService:
    def __init__(self, folder: Path, *, workers: int, drain_timeout: float, user: str = "", **policy: Any) -> None:
        self.policy_file, self.announce_file = folder / "policy.json", folder / "announce.json"
        self.log_file = folder / "log"
        self.policy: dict[str, Any] = {"listeners": ["127.0.0.1:0"]}
        self.clients: list[Client] = []
        self.set_policy(**policy)
        arguments = [self.policy_file, self.announce_file, workers, drain_timeout, *([user] if user else [])]
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "fake_service.py"), *map(str, arguments)], stderr=log, cwd=HERE.parent
            )

    def set_policy(self, **changes: Any) -> None:
        self.policy = {**self.policy, **changes}
        self.policy_file.write_text(json.dumps(self.policy))

    def announced(self, epoch: int = 1) -> dict[str, Any]:
        def read() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.log()
            if not self.announce_file.exists():
                return None
            text = json.loads(self.announce_file.read_text())
            return text if text["epoch"] >= epoch else None

        return wait_until(read, f"epoch {epoch} announced")

    def connect(self, address: str = "") -> Client:
        client = Client(address or self.announced()["smtp"][0])
        self.clients.append(client)
        return client

    def ask(self, address: str = "") -> dict[str, Any]:
        """What a new connection is told, closed again."""
        client = self.connect(address)
        about = client.about
        client.close()
        return about

    def reload(self, **changes: Any) -> None:
        self.set_policy(**changes)
        self.process.send_signal(signal.SIGHUP)

    def log(self) -> str:
        return self.log_file.read_text()

    def logged(self, text: str) -> None:
        wait_until(lambda: text in self.log(), f"{text!r} in the log")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., FakeService]]:
    services: list[FakeService] = []

    def begin(workers: int = 2, drain_timeout: float = 15.0, folder: Path | None = None, **options: Any) -> FakeService:
        if folder is None:
            folder = tmp_path / str(len(services))
            folder.mkdir()
        services.append(FakeService(folder, workers=workers, drain_timeout=drain_timeout, **options))
        return services[-1]

    yield begin
    for service in services:
        for client in service.clients:
            client.close()
        if service.process.poll() is None:
            service.process.kill()
        service.process.wait()


def test_every_worker_slot_serves_on_the_same_port(start):
    service = start(workers=2)
    assert {a["slot"] for a in iter_until(service.ask, lambda seen: {a["slot"] for a in seen} == {0, 1})} == {0, 1}
    assert service.ask()["parent"] == service.process.pid
    assert service.stop() == 0


def iter_until(ask: Callable[[], Any], enough: Callable[[list[Any]], bool]) -> list[Any]:
    seen: list[Any] = []
    wait_until(lambda: seen.append(ask()) or enough(seen), "enough answers")
    return seen


def test_a_worker_holds_no_sockets_but_its_own(start):
    service = start(workers=2, listeners=["127.0.0.1:0", "127.0.0.1:0"], http=["127.0.0.1:0"])
    announced = service.announced()
    assert len({*announced["smtp"], *announced["http"]}) == 3
    assert service.ask()["sockets"] == 3  # two listening, one client


def test_a_killed_worker_is_replaced_and_the_connection_queued_meanwhile_is_served(start):
    service = start(workers=1)
    first = service.ask()["pid"]
    os.kill(first, signal.SIGSTOP)  # nothing accepts
    queued = service.connect()
    os.kill(first, signal.SIGKILL)
    assert queued.about["pid"] != first
    assert queued.works()
    assert "SIGKILL" in service.log()
    said = rf"worker-0\[{queued.about['pid']}\] took the place of worker-0\[{first}\] after \d+\.\d s"
    wait_until(lambda: re.search(said, service.log()), "the replacement told")


def test_term_lets_open_sessions_finish_and_refuses_new_ones(start):
    service = start(workers=1)
    client = service.connect()
    assert client.about["slot"] == 0
    service.process.send_signal(signal.SIGTERM)
    address = service.announced()["smtp"][0]
    wait_until(lambda: refused(address), "new connections refused")
    assert client.works()
    assert service.process.poll() is None
    client.close()
    assert service.process.wait(PATIENCE) == 0


def refused(address: str) -> bool:
    try:
        Client(address).close()
    except ConnectionError:
        return True
    return False


def test_a_session_that_outlasts_the_drain_is_killed_with_its_worker(start):
    service = start(workers=1, drain_timeout=0.5 - KILL_SLACK, worker="stubborn")
    pid = service.connect().about["pid"]
    assert service.stop() == 0
    assert not alive(pid)
    assert "SIGKILL" in service.log()


def test_a_second_signal_ends_the_patience(start):
    service = start(workers=1, drain_timeout=3600.0, worker="stubborn")
    service.connect().about["pid"]
    service.process.send_signal(signal.SIGINT)
    service.logged("stopping")
    assert service.stop(signal.SIGINT) == 0


def test_a_stuck_worker_leaves_a_traceback_and_is_replaced(start, monkeypatch):
    monkeypatch.setenv("HEARTBEAT_TIMEOUT", "1")
    service = start(workers=1, worker="stuck")

    def served_by() -> int | None:
        try:
            return service.ask()["pid"]
        except ConnectionError:  # accepted by one that was just about to be killed
            return None

    stuck = wait_until(served_by, "a worker")
    wait_until(lambda: served_by() not in (stuck, None), "another worker")
    service.logged("does not respond: SIGABRT")
    service.logged("Fatal Python error: Aborted")


def test_hup_brings_a_new_generation_up_before_the_old_one_drains(start):
    service = start(workers=2)
    address = service.announced()["smtp"][0]
    old = service.connect()
    assert old.about["epoch"] == 1
    service.reload(listeners=["127.0.0.1:0", "127.0.0.1:0"])
    announced = service.announced(epoch=2)
    assert announced["smtp"][0] == address
    assert {service.ask(each)["epoch"] for each in announced["smtp"] * 5} == {2}
    assert old.works()
    old.close()
    wait_until(lambda: not alive(old.about["pid"]), "the old worker has drained")
    assert service.stop() == 0


def test_a_listener_that_left_the_policy_is_closed(start):
    service = start(workers=1, listeners=["127.0.0.1:0", "127.0.0.1:0"])
    kept, dropped = service.announced()["smtp"]
    service.reload(listeners=["127.0.0.1:0"])
    assert service.announced(epoch=2)["smtp"] == [kept]
    assert refused(dropped)


def test_a_stuck_old_worker_is_killed_before_the_new_generation_is_announced(start, monkeypatch):
    monkeypatch.setenv("HEARTBEAT_TIMEOUT", "1")
    service = start(workers=1)
    old = service.ask()["pid"]
    os.kill(old, signal.SIGSTOP)
    queued = service.connect()
    service.reload()
    assert queued.about["epoch"] == 2  # the socket is the slot's
    service.announced(epoch=2)
    assert not alive(old)
    service.logged("did not end in time: SIGKILL")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"problems": ["init.lua:3: unknown key", "init.lua:9: not a CIDR"]}, "init.lua:9: not a CIDR"),
        ({"worker": "missing"}, "the process that loads the policy died"),
        ({"listeners": ["127.0.0.1:0", "192.0.2.1:25"]}, "cannot listen on 192.0.2.1:25"),
        ({"worker": "exit 1"}, "died before it was ready"),
        ({"worker": "exit 78"}, "died before it was ready"),
    ],
)
def test_a_reload_that_fails_changes_nothing(start, change, said):
    service = start(workers=2)
    before = iter_until(service.ask, lambda seen: {a["slot"] for a in seen} == {0, 1})
    service.reload(**change)
    service.logged("reload failed: the policy before stays in force")
    assert said in service.log()
    after = iter_until(service.ask, lambda seen: {a["slot"] for a in seen} == {0, 1})
    assert {a["pid"] for a in before} == {a["pid"] for a in after}
    service.policy = {"listeners": ["127.0.0.1:0"]}
    service.reload()
    service.announced(epoch=2)


def test_a_bad_policy_at_start_is_told_in_full_and_exits_78(start):
    service = start(problems=["init.lua:3: unknown key", "init.lua:9: not a CIDR"])
    assert service.process.wait(PATIENCE) == 78
    assert "init.lua:3: unknown key" in service.log()
    assert "init.lua:9: not a CIDR" in service.log()


@pytest.mark.parametrize(("behaviour", "code"), [("exit 78", 78), ("exit 1", 70)])
def test_workers_that_cannot_start_stop_the_service(start, behaviour, code):
    service = start(worker=behaviour)
    assert service.process.wait(PATIENCE) == code
    assert "giving up" in service.log()


def test_a_failing_fork_is_tried_again(start, monkeypatch):
    monkeypatch.setenv("FAILING_FORKS", "3")
    service = start(workers=2)
    assert service.ask()["epoch"] == 1
    assert "cannot start worker-0: [Errno 11] Resource temporarily unavailable" in service.log()


def test_an_address_in_use_stops_the_start_with_a_code_that_means_try_again(start):
    taken = start().announced()["smtp"][0]
    service = start(listeners=[taken])
    assert service.process.wait(PATIENCE) == 75
    assert f"cannot listen on {taken}: Address already in use" in service.log()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"listeners": ["192.0.2.1:25"]}, "cannot listen on 192.0.2.1:25: Cannot assign requested address"),
        ({"http": ["192.0.2.1:80"]}, "cannot listen on 192.0.2.1:80: Cannot assign requested address"),
        ({"worker": "missing"}, "the process that loads the policy died"),
        ({"problems": ["log_dir: no"], "may_pass": True}, "log_dir: no"),
    ],
)
def test_what_time_may_mend_stops_the_start_with_75(start, policy, said):
    service = start(**policy)
    assert service.process.wait(PATIENCE) == 75
    assert said in service.log()


def test_children_end_when_the_supervisor_is_killed(start):
    service = start(workers=2, http=["127.0.0.1:0"])
    pids = {a["pid"] for a in iter_until(service.ask, lambda seen: {a["slot"] for a in seen} == {0, 1})}
    service.process.kill()
    wait_until(lambda: not any(map(alive, pids)), "no worker left")


def test_ctrl_c_for_the_whole_group_is_a_drain(start):
    service = start(workers=1)
    client = service.connect()
    os.kill(client.about["pid"], signal.SIGINT)  # as the terminal sends it to everyone
    os.kill(client.about["pid"], signal.SIGHUP)
    service.process.send_signal(signal.SIGINT)
    service.logged("stopping")
    assert client.works()
    client.close()
    assert service.process.wait(PATIENCE) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="NOT CHECKED: giving up root needs root")
def test_a_privileged_port_is_bound_and_the_workers_are_an_ordinary_user(start):
    entry = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, open to other users
        folder = Path(name)
        folder.chmod(0o777)
        address = f"127.0.0.1:{free_privileged_port()}"
        service = start(workers=1, folder=folder, user="nobody", listeners=[address])
        users, groups, others = service.ask()["ids"]
        assert (users, groups) == ([entry.pw_uid] * 3, [entry.pw_gid] * 3)
        assert 0 not in others
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        assert re.search("^Uid:" + f"\t{entry.pw_uid}" * 4 + "$", status, re.MULTILINE)
        assert re.search(r"^CapPrm:\t0+$", status, re.MULTILINE)
        service.reload(listeners=[f"127.0.0.1:{free_privileged_port()}"])
        if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) > 0:
            service.logged("reload failed")
        assert service.stop() == 0


def free_privileged_port() -> int:
    for port in range(1023, 512, -1):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no privileged port is free")


@pytest.mark.skipif(os.getuid() != 0, reason="NOT CHECKED: giving up root needs root")
def test_after_drop_to_nothing_becomes_root_again():
    program = """
import os
from gateway.service import privileges
privileges.drop_to("nobody")
privileges.drop_to("nobody")  # again: nothing to do
for regain in (os.setuid, os.seteuid, os.setgid, os.setegid):
    try:
        regain(0)
    except PermissionError:
        continue
    raise SystemExit(f"{regain} worked")
try:
    privileges.drop_to("root")
except privileges.PrivilegeError as error:
    print(error)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=HERE.parent
    )
    assert answer.stdout == "only root can become 'root'\n"


def test_an_unknown_user_is_an_error():
    with pytest.raises(PrivilegeError, match="there is no user 'no-such-user'"):
        privileges.check("no-such-user")
