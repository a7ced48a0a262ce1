"""A real gateway for tests: `relay-gateway run` with its supervisor, workers and admin process, on free ports.

A policy text finds these globals, so that it can be written without knowing where it runs: LISTEN and HTTP (addresses
to listen on), LOGS and MAILDIR (directories), UPSTREAMS (a list of "address:port").
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from gateway.logs.reader import DirectoryReader

PATIENCE = 30.0  # seconds until a test gives up
INIT = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = {} }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)
"""
TO_MAILDIR = """
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } }
end)
"""
TO_UPSTREAMS = """
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = UPSTREAMS } } }
end)
"""


def wait_until(holds: Callable[[], Any], what: str | Callable[[], str], patience: float = PATIENCE) -> Any:
    """The first true result of `holds`. what: what is waited for, or a function that tells it in the end."""
    deadline = time.monotonic() + patience
    while not (result := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still not: {what() if callable(what) else what}")
        time.sleep(0.01)
    return result


class Gateway:
    """One running gateway; its files are in `folder`."""

    def __init__(
        self, folder: Path, policy: str, *options: str, upstreams: Sequence[str] = (), under: Sequence[str] = ()
    ) -> None:
        """under: a command that runs the gateway's."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.upstreams = folder, list(upstreams)
        self.policy_file, self.announce_file, self.log_file = (folder / n for n in ("init.lua", "announce", "log"))
        self.logs, self.maildir = folder / "logs", folder / "maildir"
        self.write_policy(policy)
        self._reader = DirectoryReader(str(self.logs))
        self._records: list[dict[str, Any]] = []
        self._clients: list[smtplib.SMTP | socket.socket] = []
        command = [*under, sys.executable, "-m", "gateway", "run", "--policy", str(self.policy_file)]
        command += ["--announce", str(self.announce_file), *options]
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stderr=log, start_new_session=True)

    def write_policy(self, policy: str) -> None:
        """Puts another policy in place; SIGHUP makes the gateway read it."""
        upstreams = ", ".join(f"'{upstream}'" for upstream in self.upstreams)
        known = (
            f"LISTEN, HTTP, LOGS, MAILDIR = '127.0.0.1:0', '127.0.0.1:0', '{self.logs}', '{self.maildir}'; "
            f"UPSTREAMS = {{ {upstreams} }}; "
        )  # on the first line, so that messages name the lines of the test's text
        self.policy_file.write_text(known + policy)

    # -- where it is and how it is --------------------------------------------------------------------------------

    def announced(self, epoch: int = 1) -> dict[str, Any]:
        """What the gateway announces once a policy is in force. epoch: which one at least."""

        def read() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.log_file.read_text()
            text = json.loads(self.announce_file.read_text()) if self.announce_file.exists() else {"epoch": 0}
            return text if text["epoch"] >= epoch else None

        return wait_until(read, f"epoch {epoch} announced")

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens for SMTP."""
        host, _, port = self.announced()["smtp"][0].rpartition(":")
        return host, int(port)

    def smtp(self, source: str = "127.0.0.1") -> smtplib.SMTP:
        """A client, closed with the gateway if not before; any 127.x.y.z will do for its address."""
        client = smtplib.SMTP(*self.address, "client.example", PATIENCE, source_address=(source, 0))
        self._clients.append(client)
        return client

    def connect(self) -> socket.socket:
        """A connection to its SMTP port, as a socket; closed with the gateway if not before."""
        client = socket.create_connection(self.address, PATIENCE)
        self._clients.append(client)
        return client

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the admin process."""
        try:
            with urlopen(f"http://{self.announced()['http'][0]}{path}", timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """The value of one series, `name` without its prefix and with its labels."""
        found = re.search(rf"^relay_gateway_{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        assert found, name
        return float(found[1])

    def records(self) -> list[dict[str, Any]]:
        """All log records so far. What is logged last may take a moment to appear."""
        if self.logs.is_dir():
            self._records.extend(json.loads(line) for line in self._reader.lines())
        return self._records

    def mails(self) -> list[bytes]:
        """The messages in the Maildir."""
        return [path.read_bytes() for path in sorted(self.maildir.glob("new/*"))]

    def diagnostics(self) -> str:
        """What it wrote to standard error."""
        return self.log_file.read_text()

    # -- its processes --------------------------------------------------------------------------------------------

    def children(self) -> list[int]:
        """Process ids of the workers and the admin process."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def workers(self) -> list[int]:
        """Process ids of the workers: those that hold a socket listening on the SMTP port."""
        port = f"{self.address[1]:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port}") and row[3] == "0A"}
        return [pid for pid in self.children() if listening & _open_files(pid)]

    def reload(self, policy: str) -> None:
        """Puts another policy in place and says so."""
        self.write_policy(policy)
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """Ends it with SIGTERM; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Ends it and all that belongs to it, whatever its state."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.close()
        for client in self._clients:
            client.close()


def _open_files(pid: int) -> set[str]:
    try:
        return {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # it has just ended
        return set()


class Sink:
    """`relay-gateway sink`, storing what it gets in `maildir`."""

    def __init__(self, maildir: Path, address: str = "127.0.0.1:0") -> None:
        self.maildir = maildir
        self.address = address
        self.start()

    def start(self) -> None:
        """Runs it, after kill() again at the same address."""
        command = [sys.executable, "-m", "gateway", "sink", "--listen", self.address, "--quiet"]
        self.process = subprocess.Popen([*command, "--maildir", self.maildir], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().rpartition(" ")[2].strip()

    def mails(self) -> list[bytes]:
        """What it has taken."""
        return [path.read_bytes() for path in (self.maildir / "new").iterdir()]

    def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    """A sink that does not outlive the test."""
    running = Sink(tmp_path / "sink")
    yield running
    running.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """start(policy, *options, upstreams=…) starts a gateway that does not outlive the test."""
    gateways: list[Gateway] = []

    def begin(policy: str = INIT, *options: str, upstreams: Sequence[str] = (), under: Sequence[str] = ()) -> Gateway:
        folder = tmp_path / str(len(gateways))
        gateways.append(Gateway(folder, policy, *options, upstreams=upstreams, under=under))
        return gateways[-1]

    yield begin
    for gateway in gateways:
        gateway.kill()
