"""Under systemd: what it is told, the sockets it passes, the unit. No systemd runs here, but its tools do."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from gateway.service.listening import ListeningSockets, PassedSockets, UnusableAddress
from gateway.service.notify import Notifier
from tests.gateway_process import INIT, PATIENCE, wait_until
from tests.ports import free_port

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "deploy" / "relay-gateway.service"


class Manager:
    """The socket that systemd listens at for what services say."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        self.socket.bind(path)

    def said(self) -> list[str]:
        """The lines of the next message that is no sign of life."""
        while (lines := self.socket.recv(4096).decode().split("\n")) == ["WATCHDOG=1"]:
            pass
        return lines


@pytest.fixture
def manager(tmp_path, monkeypatch):
    running = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield running
    running.socket.close()


def test_it_says_when_it_is_ready_reloads_and_stops(start, manager):
    gateway = start(INIT, "--workers", "1")
    assert manager.said() == ["READY=1", "STATUS=policy epoch 1 in force, 1 workers ready"]
    gateway.process.send_signal(signal.SIGHUP)
    reloading, since, _ = manager.said()
    assert reloading == "RELOADING=1"
    assert since.startswith("MONOTONIC_USEC=") and since[15:].isdigit()
    assert manager.said() == ["READY=1", "STATUS=policy epoch 2 in force, 1 workers ready"]
    gateway.reload(INIT.replace("hostname", "hostnaem"))
    assert manager.said()[0] == "RELOADING=1"
    ready, status = manager.said()
    assert ready == "READY=1"
    assert status.startswith("STATUS=Reload failed: ") and "hostnaem" in status
    gateway.process.terminate()
    assert manager.said() == ["STOPPING=1", "STATUS=Draining"]


def test_it_feeds_the_watchdog(start, manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    start(INIT, "--workers", "1")
    heard = 0
    while heard < 3:
        heard += manager.socket.recv(4096) == b"WATCHDOG=1"


def test_an_abstract_address_and_another_process_watchdog():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(PATIENCE)
        listening.bind("")  # the kernel chooses an abstract name
        name = "@" + listening.getsockname()[1:].decode()
        notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
        notifier.alive(100.0)
        notifier.status("here")
        assert listening.recv(100) == b"STATUS=here"


def test_nobody_to_tell_is_no_error():
    Notifier({}).ready("x")
    Notifier({"NOTIFY_SOCKET": "/nowhere/notify"}).ready("x")


def test_processes_are_named_for_what_they_are(start):
    gateway = start(INIT, "--workers", "2")
    gateway.announced()
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in [gateway.process.pid, *gateway.children()]]
    names = [command.rstrip(b"\0").decode() for command in commands]
    assert names[0] == "relay-gateway: supervisor"
    assert sorted(names[1:]) == ["relay-gateway: admin", "relay-gateway: worker-0", "relay-gateway: worker-1"]


# --- sockets that are passed ------------------------------------------------------------------------------------------


def test_a_listener_takes_the_socket_that_is_bound_to_its_address_or_has_its_name():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        sockets = ListeningSockets(2, PassedSockets([("smtp", one), ("submission", two)]))
        by_address = f"127.0.0.1:{one.getsockname()[1]}"
        sockets.open([by_address, "fd:submission"])
        assert sockets.bound(["fd:submission"]) == [f"127.0.0.1:{two.getsockname()[1]}"]
        first, second = (sockets.of_slot([by_address], slot) for slot in (0, 1))
        assert first == second
        sockets.mute(0)  # the other slot's, too: it goes on listening
        socket.create_connection(one.getsockname(), PATIENCE).close()
        sockets.keep_only(())
        sockets.open([by_address])  # comes back with another reload
        assert sockets.of_slot([by_address], 0) == [one]


def test_a_name_that_was_not_passed_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket(socket.AF_UNIX) as other:
        sockets = ListeningSockets(1, PassedSockets([("smtp", one), ("unix", other)]))
        for name in ("fd:stmp", "fd:unix"):
            with pytest.raises(UnusableAddress, match="was passed by systemd; there are: smtp, unix"):
                sockets.open([name])


def test_what_is_passed_to_another_process_is_left_alone():
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
    with pytest.raises(OSError, match="named 'a'"):
        PassedSockets.from_environment(environment).take("fd:a")
    assert environment == {}


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="NOT CHECKED: no systemd-socket-activate")
def test_started_by_systemds_own_tool_it_serves_reloads_and_stops_on_the_passed_sockets(start):
    smtp, http = free_port(), free_port()
    passes = [f"--listen=127.0.0.1:{smtp}", f"--listen=127.0.0.1:{http}", "--fdname=smtp:http"]
    keeps = [f"--setenv={name}" for name in ("PATH", "PYTHONPATH") if name in os.environ]
    policy = INIT.replace("LISTEN,", "'fd:smtp',").replace("listen = HTTP", f"listen = '127.0.0.1:{http}'")
    gateway = start(policy, "--workers", "2", under=["systemd-socket-activate", *passes, *keeps])
    wait_until(lambda: "Listening on" in gateway.diagnostics(), "the tool listens")
    with socket.create_connection(("127.0.0.1", smtp), PATIENCE) as client:  # what makes the tool start it
        assert client.recv(3) == b"220"
    assert gateway.announced()["smtp"] == [f"127.0.0.1:{smtp}"]
    assert gateway.get("/readyz")[0] == 200
    gateway.process.send_signal(signal.SIGHUP)
    gateway.announced(epoch=2)
    with gateway.smtp() as session:
        assert session.noop()[0] == 250
    assert gateway.stop() == 0


# --- the unit ---------------------------------------------------------------------------------------------------------

needs_systemd_analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="NOT CHECKED: no systemd-analyze"
)


def analyze(*arguments: str) -> str:
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@needs_systemd_analyze
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path):
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/relay-gateway/bin/relay-gateway", "/bin/true"))
    assert analyze("verify", "--man=no", str(unit)) == ""


@needs_systemd_analyze
def test_the_units_exposure_is_low():
    overall = analyze("security", "--offline=true", str(UNIT)).strip().rpartition("for relay-gateway.service: ")[2]
    assert float(overall.split()[0]) <= 1.5
