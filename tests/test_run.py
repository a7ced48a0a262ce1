"""`relay-gateway run` as a whole: the command, real workers, the admin process, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

POLICY = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:0', hostname = 'gw.example' }
  kumo.start_http_listener { listen = '127.0.0.1:0' }
end)
"""
PATIENCE = 30.0  # seconds


def wait_until(holds: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (result := holds()):
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.01)
    return result


class Gateway:
    def __init__(self, folder: Path, policy: str, *options: str) -> None:
        self.policy_file, self.announce_file, self.log_file = (folder / n for n in ("init.lua", "announce", "log"))
        self.policy_file.write_text(policy)
        command = [sys.executable, "-m", "gateway", "run", "--policy", str(self.policy_file)]
        command += ["--announce", str(self.announce_file), *options]
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def announced(self, epoch: int = 1) -> dict[str, Any]:
        def read() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.log_file.read_text()
            text = json.loads(self.announce_file.read_text()) if self.announce_file.exists() else {"epoch": 0}
            return text if text["epoch"] >= epoch else None

        return wait_until(read, f"epoch {epoch} announced")

    def smtp(self) -> smtplib.SMTP:
        host, _, port = self.announced()["smtp"][0].rpartition(":")
        return smtplib.SMTP(host, int(port), timeout=PATIENCE)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://{self.announced()['http'][0]}{path}", timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        found = re.search(rf"^relay_gateway_{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        assert found, name
        return float(found[1])

    def children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    gateways: list[Gateway] = []

    def begin(policy: str = POLICY, *options: str) -> Gateway:
        gateways.append(Gateway(tmp_path, policy, *options))
        return gateways[-1]

    yield begin
    for gateway in gateways:
        gateway.process.kill()
        gateway.process.wait()


def test_it_serves_counts_reloads_and_drains(start):
    gateway = start(POLICY, "--workers", "2")
    with gateway.smtp() as client:
        assert client.ehlo()[0] == 250
        assert client.noop()[0] == 250
    assert gateway.get("/healthz") == gateway.get("/readyz") == (200, "OK\n")
    wait_until(lambda: gateway.metric("connections_open") == 0, "the connection counted as closed")
    assert gateway.metric("connections_opened_total") == 1
    assert gateway.metric('commands_total{reply="2xx",verb="NOOP"}') == 1
    assert gateway.metric('workers{state="ready"}') == 2
    assert gateway.metric("policy_epoch") == 1

    gateway.process.send_signal(signal.SIGHUP)
    gateway.announced(epoch=2)
    wait_until(lambda: gateway.metric("policy_epoch") == 2, "the second epoch")
    assert gateway.metric('policy_reloads_total{result="ok"}') == 1
    assert gateway.metric("connections_opened_total") == 1

    session = gateway.smtp()
    session.ehlo()
    gateway.process.send_signal(signal.SIGTERM)
    assert session.getreply()[0] == 421
    session.close()
    assert gateway.process.wait(PATIENCE) == 0


def test_counters_do_not_go_down_when_a_worker_is_killed(start):
    gateway = start(POLICY, "--workers", "1")
    with gateway.smtp() as client:
        client.noop()
    wait_until(lambda: gateway.metric('commands_total{reply="2xx",verb="NOOP"}') == 1, "the command counted")
    for pid in gateway.children():  # the admin process too
        os.kill(pid, signal.SIGKILL)
    with gateway.smtp() as client:
        client.noop()
    wait_until(lambda: gateway.get("/readyz")[0] == 200, "ready again")
    wait_until(lambda: gateway.metric('commands_total{reply="2xx",verb="NOOP"}') == 2, "the second command counted")
    assert gateway.metric("worker_restarts_total") == 1


def test_a_bad_policy_is_told_in_full_and_exits_78(start):
    gateway = start("kumo.start_esmtp_listener { listne = '127.0.0.1:0' }\nkumo.start_http_listener { listen = 1 }\n")
    assert gateway.process.wait(PATIENCE) == 78
    log = gateway.log_file.read_text()
    assert "init.lua:1:" in log
    assert "init.lua:2:" in log


def test_a_missing_policy_is_told(start, tmp_path):
    gateway = start(POLICY, "--policy", str(tmp_path / "missing.lua"))
    assert gateway.process.wait(PATIENCE) == 78
    assert "missing.lua: No such file or directory" in gateway.log_file.read_text()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--workers", "0"), 2, "expected 1 to 1024"),
        (("--drain-timeout", "-1"), 2, "expected a number of seconds"),
        (("--user", "no-such-user"), 78, "there is no user 'no-such-user'"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(start, options, code, said):
    gateway = start(POLICY, *options)
    assert gateway.process.wait(PATIENCE) == code
    assert said in gateway.log_file.read_text()
