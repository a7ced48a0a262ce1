"""deploy/haproxy/haproxy.cfg with a real HAProxy and two gateways under load: one upgraded, restarted, killed."""

from __future__ import annotations

import csv
import re
import smtplib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.init import replaced
from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, Gateway, wait_until
from tests.haproxy import HAProxy
from tests.ports import free_port
from tests.programs import program

CONFIGURATION = Path(__file__).parent.parent / "deploy" / "haproxy" / "haproxy.cfg"
BEHIND = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.9.0.0/16' }, proxy_protocol_from = { '127.0.0.1' }")
CLIENTS = 4


class Front(HAProxy):
    """HAProxy as it is configured in deploy/, with these gateways; it looks at them ten times as often."""

    def __init__(self, folder: Path, gateways: dict[str, tuple[int, int]]) -> None:
        """gateways: their ports for SMTP and HTTP by the names in the file."""
        address, status = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
        edits = {"bind :25": f"bind 127.0.0.1:{address[1]}", "127.0.0.1:8404": f"127.0.0.1:{status[1]}"}
        text = replaced(
            CONFIGURATION.read_text(),
            {**edits, "maxconn 20000": "maxconn 100", "inter 1s": "inter 100ms", " port 8025": ""},
        )
        for name, (smtp, http) in gateways.items():
            text, times = re.subn(rf"server {name} [\d.]+:25", f"server {name} 127.0.0.1:{smtp} port {http}", text)
            assert times == 1
        super().__init__(folder, address, status, text)

    def up(self) -> set[str]:
        """The gateways that it sends new connections to."""
        lines = self.page("/;csv").removeprefix("# ").splitlines()
        rows = [row for row in csv.DictReader(lines) if row["pxname"] == "gateways"]
        return {row["svname"] for row in rows if row["status"].startswith("UP")} - {"BACKEND"}


class Load:
    """Clients that each send one message after the other, each over a connection of its own, until they are stopped.

    acknowledged: subjects that got their 250. cut: how often a connection ended under a client, which then sent its
    message again. faults: anything else: a connection that is refused, a reply that is none of 2xx.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.acknowledged: list[str] = []
        self.cut = 0
        self.faults: list[object] = []
        self._stop, self._changed = threading.Event(), threading.Condition()
        self._threads = [threading.Thread(target=self._go_on, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _go_on(self, number: int) -> None:
        message = 0
        while not self._stop.is_set():
            subject = f"{number}-{message}."
            message += self._sent(f"127.9.0.{number + 1}", subject)
            with self._changed:
                self._changed.notify()

    def _sent(self, source: str, subject: str) -> bool:
        try:
            with smtplib.SMTP(*self._address, "client.example", PATIENCE, source_address=(source, 0)) as session:
                session.sendmail("a@out.example", "b@far.example", f"Subject: {subject}\r\n\r\n")
                self.acknowledged.append(subject)
                return True
        except (smtplib.SMTPServerDisconnected, ConnectionResetError, BrokenPipeError):
            self.cut += 1
        except (OSError, smtplib.SMTPException) as error:
            self.faults.append(error)
        return False

    def more(self, count: int) -> None:
        """Waits until so many more messages have got through."""
        wanted = len(self.acknowledged) + count
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.acknowledged) >= wanted, PATIENCE), self.faults

    def finish(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture
def ports() -> dict[str, tuple[int, int]]:
    return {name: (free_port(), free_port()) for name in ("one", "two")}


@pytest.fixture
def front(tmp_path: Path, ports: dict[str, tuple[int, int]]) -> Iterator[Front]:
    program("haproxy")
    running = Front(tmp_path, ports)
    yield running
    running.stop()


@pytest.fixture
def begin(start: Callable[..., Gateway], ports: dict[str, tuple[int, int]]) -> Callable[[str], Gateway]:
    """begin(name) starts one of the gateways, at its ports."""

    def starting(name: str) -> Gateway:
        smtp, http = ports[name]
        policy = BEHIND.replace("= LISTEN", f"= '127.0.0.1:{smtp}'").replace("= HTTP", f"= '127.0.0.1:{http}'")
        return start(policy + TO_MAILDIR, "--workers", "1", "--drain-delay", "3", "--control", "control")

    return starting


@pytest.fixture
def load(front: Front) -> Iterator[Callable[[], Load]]:
    running: list[Load] = []

    def starting() -> Load:
        running.append(Load(front.address))
        return running[-1]

    yield starting
    for each in running:
        each.finish()


def test_one_is_upgraded_and_restarted_the_other_killed_and_no_client_is_refused_and_nothing_lost(
    front: Front, begin: Callable[[str], Gateway], load: Callable[[], Load]
) -> None:
    one, two = begin("one"), begin("two")
    wait_until(lambda: front.up() == {"one", "two"}, "both up")
    clients = load()
    clients.more(20)
    upgrade = [sys.executable, "-m", "gateway", "upgrade", "--control", str(one.folder / "control")]
    done = subprocess.run(upgrade, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    clients.more(20)
    one.process.terminate()
    wait_until(lambda: front.up() == {"two"}, "one drained")
    assert one.process.wait(PATIENCE) == 0
    clients.more(20)
    again = begin("one")
    wait_until(lambda: front.up() == {"one", "two"}, "one up again")
    clients.more(20)
    assert (clients.cut, clients.faults) == (0, [])
    two.kill()
    clients.more(40)
    wait_until(lambda: front.up() == {"one"}, "two known to be gone")
    clients.more(20)
    clients.finish()
    assert clients.faults == []
    mails = b"".join(mail for gateway in (one, two, again) for mail in gateway.mails()).decode()
    kept = set(re.findall(r"^Subject: (\S+)", mails, re.MULTILINE))
    assert set(clients.acknowledged) - kept == set()
    assert "from client.example (127.9.0." in mails
    assert "no PROXY header" not in one.diagnostics() + again.diagnostics()


def test_a_gateway_that_is_drained_gets_no_new_connection_and_keeps_those_it_has(
    front: Front, begin: Callable[[str], Gateway]
) -> None:
    one = begin("one")
    wait_until(lambda: front.up() == {"one"}, "up")
    with smtplib.SMTP(*front.address, "client.example", PATIENCE) as session:
        session.ehlo()
        begin("two")
        wait_until(lambda: front.up() == {"one", "two"}, "both up")
        drain = [sys.executable, "-m", "gateway", "drain", "--control", str(one.folder / "control")]
        subprocess.run(drain, capture_output=True, check=True)
        wait_until(lambda: front.up() == {"two"}, "drained")
        assert session.noop()[0] == 250
        subprocess.run([*drain, "--undo"], capture_output=True, check=True)
        wait_until(lambda: front.up() == {"one", "two"}, "up again")
