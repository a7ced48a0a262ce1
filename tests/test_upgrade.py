"""The service without a refused connection: reloads, drains, upgrades from one installed version to another; with real
processes and clients.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, Gateway, wait_until

ROOT = Path(__file__).parent.parent
OPEN = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
CLOSED = INIT
DISCARDED = "kumo.on('smtp_server_message_received', function(msg) msg:set_meta('queue', 'null') end)"
UPGRADES = int(os.environ.get("UPGRADES", "0"))  # connections of the long form


def ask(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    """`relay-gateway WORDS` at the gateway's control socket."""
    command = [sys.executable, "-m", "gateway", *words, "--control", str(gateway.folder / "control")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def controlled(start: Callable[..., Gateway], policy: str, *options: str, **more: object) -> Gateway:
    """A gateway with a control socket in its folder."""
    return start(policy, "--control", "control", *options, **more)


class Connecting:
    """Clients that connect again and again, each for one message. quick: in few octets, pipelined."""

    def __init__(self, gateway: Gateway, clients: int = 4, quick: bool = False) -> None:
        self._quick = quick
        self.gateway, self.greeted, self.delivered = gateway, 0, 0
        self.refused: list[object] = []
        self._stop, self._changed = threading.Event(), threading.Condition()
        self._address = gateway.address
        self._threads = [threading.Thread(target=self._go_on) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _go_on(self) -> None:
        while not self._stop.is_set():
            self._once()
            with self._changed:
                self._changed.notify()

    def _once(self) -> None:
        if self._quick:
            self._once_quickly()
            return
        try:
            with smtplib.SMTP(*self._address, "client.example", PATIENCE) as session:
                self.greeted += 1
                session.sendmail("a@out.example", "b@far.example", "Subject: x\r\n\r\n")
                self.delivered += 1
        except (OSError, smtplib.SMTPException) as error:
            self.refused.append(error)

    def _once_quickly(self) -> None:
        """Without smtplib, which costs more than the gateway."""
        try:
            with socket.create_connection(self._address, PATIENCE) as client, client.makefile("rb") as replies:
                said = [replies.readline()]
                self.greeted += said[0].startswith(b"220")
                client.sendall(
                    b"HELO client.example\r\nMAIL FROM:<a@out.example>\r\nRCPT TO:<b@far.example>\r\nDATA\r\n"
                )
                said += [replies.readline() for _ in range(4)]
                client.sendall(b"Subject: x\r\n\r\n.\r\nQUIT\r\n")
                said += [replies.readline() for _ in range(2)]
        except OSError as error:
            self.refused.append(error)
            return
        if [reply[:3] for reply in said] == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]:
            self.delivered += 1
        else:
            self.refused.append(said)

    def more(self, count: int) -> None:
        """Waits until so many more messages have got through."""
        wanted = self.delivered + count
        with self._changed:
            assert self._changed.wait_for(lambda: self.delivered >= wanted or self.refused, PATIENCE)

    def finish(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture
def connecting() -> Iterator[Callable[..., Connecting]]:
    running: list[Connecting] = []

    def begin(gateway: Gateway, clients: int = 4, quick: bool = False) -> Connecting:
        running.append(Connecting(gateway, clients, quick))
        return running[-1]

    yield begin
    for each in running:
        each.finish()


# --- reload -----------------------------------------------------------------------------------------------------------


def test_no_connection_is_refused_while_policies_are_reloaded(start, connecting):
    gateway = controlled(start, OPEN + TO_MAILDIR, "--workers", "2")
    load = connecting(gateway)
    for epoch in range(2, 8):
        load.more(20)
        answer = ask(gateway, "reload")
        assert (answer.returncode, answer.stdout) == (0, f"policy epoch {epoch} in force, 2 workers ready\n")
    load.more(20)
    load.finish()
    assert load.refused == []
    assert len(gateway.mails()) >= load.delivered


def test_a_reload_that_fails_says_why(start):
    gateway = controlled(start, OPEN, "--workers", "1")
    gateway.announced()
    gateway.write_policy(OPEN.replace("hostname", "hostnaem"))
    answer = ask(gateway, "reload")
    assert answer.returncode == 1
    assert "init.lua:3: " in answer.stderr and "hostnaem" in answer.stderr
    gateway.write_policy(OPEN.replace("listen = LISTEN", "listen = '192.0.2.1:25'"))
    answer = ask(gateway, "reload")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "cannot listen on 192.0.2.1:25: Cannot assign requested address" in answer.stderr
    gateway.write_policy(OPEN)
    assert ask(gateway, "reload").returncode == 0


def test_who_asks_while_a_reload_is_under_way_gets_the_next_ones_answer(start):
    gateway = controlled(start, OPEN, "--workers", "1")
    gateway.announced()
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(gateway, "reload").stdout)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer.endswith("in force, 1 workers ready\n") for answer in answers)


def test_the_control_socket_is_the_owners_alone_and_survives_nonsense(start):
    gateway = controlled(start, OPEN, "--workers", "1")
    gateway.announced()
    path = gateway.folder / "control"
    assert path.stat().st_mode & 0o777 == 0o600
    for nonsense in (b"what?\n", b"[]\n", b'{"ask": "x"}\n', b"x" * 10_000):
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(ConnectionResetError):
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(nonsense)
            assert b'"ok": false' in client.recv(4096)
    many = [socket.socket(socket.AF_UNIX) for _ in range(40)]  # who connect and say nothing
    for client in many:
        client.connect(str(path))
    assert ask(gateway, "reload").returncode == 0
    for client in many:
        client.close()
    assert gateway.stop() == 0
    assert not path.exists()


def test_a_second_service_does_not_take_the_control_socket_and_a_killed_ones_is_replaced(start):
    first = controlled(start, OPEN, "--workers", "1")
    first.announced()
    path = str(first.folder / "control")
    second = start(OPEN, "--control", path)
    assert second.process.wait(PATIENCE) == 75
    assert f"cannot listen on {path}: Address already in use" in second.diagnostics()
    first.kill()
    third = start(OPEN, "--control", path)
    third.announced()


def test_asking_where_nobody_listens_says_so(tmp_path):
    command = [sys.executable, "-m", "gateway", "reload", "--control", str(tmp_path / "nothing")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"cannot ask the service at {tmp_path}/nothing: there is none; ")
    assert "run --control PATH" in answer.stderr


# --- drain ------------------------------------------------------------------------------------------------------------


def test_drain_makes_it_not_ready_while_clients_are_served(start):
    gateway = controlled(start, OPEN, "--workers", "1")
    gateway.announced()
    assert ask(gateway, "drain").returncode == 0
    wait_until(lambda: gateway.get("/readyz")[0] == 503, "not ready")
    with gateway.smtp() as client:
        assert client.noop()[0] == 250
    assert ask(gateway, "drain", "--undo").stdout == "ready again\n"
    wait_until(lambda: gateway.get("/readyz")[0] == 200, "ready")


def test_when_it_stops_readiness_falls_before_the_port_closes(start):
    gateway = start(OPEN, "--workers", "1", "--drain-delay", "3600")
    wait_until(lambda: gateway.get("/readyz")[0] == 200, "ready")
    gateway.process.terminate()
    wait_until(lambda: gateway.get("/readyz")[1].startswith("shutting down"), "not ready")
    os.kill(gateway.workers()[0], signal.SIGKILL)  # who dies meanwhile is still replaced
    with gateway.smtp() as client:
        assert client.noop()[0] == 250
    gateway.process.terminate()  # the second one
    assert gateway.process.wait(PATIENCE) == 0


def test_after_the_delay_the_port_closes(start):
    gateway = start(OPEN, "--workers", "1", "--drain-delay", "0.2")
    gateway.announced()
    assert gateway.stop() == 0


# --- upgrade ----------------------------------------------------------------------------------------------------------


class Installation:
    """Versions of the gateway beside each other, and a link to the one that is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.current = folder, folder / "current"
        folder.mkdir()

    def add(self, version: str, **edits: tuple[str, str]) -> None:
        """Another version. edits: by module, what is replaced in its text by what."""
        package = self._folder / version / "gateway"
        ignored = shutil.ignore_patterns("__pycache__", "*.c", "*.pyx", "*.pxi")
        shutil.copytree(ROOT / "gateway", package, ignore=ignored, copy_function=os.link)
        edits["__init__"] = edits.get("__init__", (_version_line(), f'__version__ = "{version}"'))
        for module, (old, new) in edits.items():
            path = package / (module.replace("__init__", "/__init__").replace(".", "/").lstrip("/") + ".py")
            text = path.read_text()
            assert old in text
            path.unlink()
            path.write_text(text.replace(old, new))

    def install(self, version: str) -> None:
        link = self._folder / "new"
        link.symlink_to(self._folder / version)
        link.replace(self.current)


def _version_line() -> str:
    return next(line for line in (ROOT / "gateway/__init__.py").read_text().splitlines() if "__version__ =" in line)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "versions")


@pytest.fixture
def installed(start, installation, monkeypatch) -> Callable[..., Gateway]:
    """Starts the installed version."""

    def begin(policy: str, *options: str) -> Gateway:
        monkeypatch.setenv("PYTHONPATH", str(installation.current))
        gateway = controlled(start, policy, *options)
        monkeypatch.delenv("PYTHONPATH")
        return gateway

    return begin


def version_of(gateway: Gateway) -> str:
    try:
        page = gateway.get("/metrics")[1]
    except (ConnectionError, http.client.HTTPException):  # it becomes another version just now
        return ""
    return page.partition('build_info{python="')[2].partition('version="')[2].partition('"')[0]


def test_no_connection_is_refused_while_versions_follow_each_other(installed, installation, connecting):
    for version in ("1", "2", "3"):
        installation.add(version)
    installation.install("1")
    gateway = installed(OPEN + TO_MAILDIR, "--workers", "2")
    assert version_of(gateway) == "1"
    pid = gateway.process.pid
    load = connecting(gateway)
    for version in ("2", "3", "1", "2"):
        load.more(20)
        installation.install(version)
        answer = ask(gateway, "upgrade")
        assert (answer.returncode, answer.stderr) == (0, ""), gateway.diagnostics()
        assert version_of(gateway) == version
    load.more(20)
    load.finish()
    assert load.refused == []
    assert len(gateway.mails()) >= load.delivered
    assert gateway.process.pid == pid and gateway.process.poll() is None
    assert gateway.metric('messages_total{disposition="relayed"}') >= load.delivered
    assert gateway.stop() == 0


@pytest.mark.skipif(UPGRADES == 0, reason="takes minutes: make upgrades")
@pytest.mark.timeout(3600)
def test_tens_of_thousands_of_connections_pass_seven_upgrades_and_none_is_refused(installed, installation, connecting):
    for version in ("1", "2"):
        installation.add(version)
    installation.install("1")
    gateway = installed(OPEN + DISCARDED, "--workers", "2")
    load = connecting(gateway, clients=8, quick=True)
    for number in range(1, 8):
        while load.delivered < UPGRADES * number // 8:
            load.more(100)
            assert load.refused == []
        installation.install(version := "12"[number % 2])
        answer = ask(gateway, "upgrade")
        assert (answer.returncode, answer.stderr) == (0, ""), gateway.diagnostics()
        assert version_of(gateway) == version
    while load.delivered < UPGRADES:
        load.more(100)
    load.finish()
    assert load.refused == []
    assert gateway.metric('messages_total{disposition="discarded"}') == load.delivered
    assert gateway.stop() == 0
    print(f"\n{load.delivered} connections through 7 upgrades, {len(load.refused)} refused")


def test_usr2_upgrades_too_and_a_transaction_under_way_is_finished(installed, installation):
    installation.add("1")
    installation.add("2")
    installation.install("1")
    gateway = installed(OPEN + TO_MAILDIR, "--workers", "1")
    session = gateway.smtp()
    session.ehlo()
    session.mail("a@out.example")
    session.rcpt("b@far.example")
    assert session.docmd("DATA")[0] == 354
    installation.install("2")
    gateway.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: version_of(gateway) == "2", "the new version")
    session.send("Subject: under way\r\n\r\n.\r\n")
    assert session.getreply()[0] == 250
    assert session.getreply()[0] == 421
    gateway.announced(epoch=2)


@pytest.mark.parametrize(
    ("module", "edit", "said"),
    [
        ("service.worker", ("import asyncio\n", "import asyncio_of_the_future\n"), "does not start"),
        ("service.worker", ("        gc.collect()\n", "        raise OSError\n"), "does not become ready"),
        ("service.upgrade", ("FORMAT = 1 ", "FORMAT = 2 "), "its format is 1, this program's 2"),
        ("service.run", ("def load(args", "def unload(args"), "does not start"),
    ],
)
def test_a_version_that_cannot_start_does_not_take_over(installed, installation, module, edit, said):
    installation.add("1")
    installation.add("2", **{module: edit})
    installation.install("1")
    gateway = installed(OPEN, "--workers", "1")
    gateway.announced()
    before = gateway.workers()
    installation.install("2")
    answer = ask(gateway, "upgrade")
    assert answer.returncode == 1
    assert said in answer.stderr
    assert "upgrade failed: the running version stays" in gateway.diagnostics()
    assert version_of(gateway) == "1"
    assert gateway.workers() == before
    installation.add("3")
    installation.install("3")
    assert ask(gateway, "upgrade").returncode == 0
    assert version_of(gateway) == "3"


def test_a_policy_that_the_new_version_refuses_keeps_the_old_version(installed, installation):
    installation.add("1")
    installation.install("1")
    gateway = installed(OPEN, "--workers", "1")
    gateway.announced()
    gateway.write_policy(OPEN.replace("hostname", "hostnaem"))
    answer = ask(gateway, "upgrade")
    assert answer.returncode == 1
    assert "hostnaem" in answer.stderr
    assert gateway.get("/readyz")[0] == 200


def test_counters_go_on_in_a_version_that_counts_other_things(installed, installation):
    installation.add("1")
    more = 'WORKER_RESTARTS = Counter(LAYOUT, "worker_restarts_total"'
    new = f'MORE = Counter(LAYOUT, "more_total", "More")\n{more}'
    installation.add("2", **{"metrics.__init__": (more, new)})
    installation.install("1")
    gateway = installed(OPEN + TO_MAILDIR, "--workers", "1")
    with gateway.smtp() as session:
        session.sendmail("a@out.example", "b@far.example", "Subject: x\r\n\r\n")
    wait_until(lambda: gateway.metric("connections_open") == 0, "the connection counted as closed")
    installation.install("2")
    assert ask(gateway, "upgrade").returncode == 0
    assert gateway.metric("more_total") == 0
    assert gateway.metric('messages_total{disposition="relayed"}') == 1
    assert gateway.metric("message_duration_seconds_count") == 1
    with gateway.smtp() as session:
        session.sendmail("a@out.example", "b@far.example", "Subject: x\r\n\r\n")
    assert gateway.metric('messages_total{disposition="relayed"}') == 2
    wait_until(lambda: len(gateway.children()) == 2, "the old processes are gone")
    assert ask(gateway, "upgrade").returncode == 0
