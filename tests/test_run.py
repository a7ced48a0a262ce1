"""`relay-gateway run` as a whole: the command, real workers, the admin process, signals."""

from __future__ import annotations

import os
import signal

import pytest

from tests.gateway_process import INIT, PATIENCE, wait_until


def test_it_serves_counts_reloads_and_drains(start):
    gateway = start(INIT, "--workers", "2")
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
    gateway = start(INIT, "--workers", "1")
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
    gateway = start(INIT, "--policy", str(tmp_path / "missing.lua"))
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
    gateway = start(INIT, *options)
    assert gateway.process.wait(PATIENCE) == code
    assert said in gateway.log_file.read_text()
