"""`relay-gateway run` as a whole: the command, real workers, the admin process, signals."""

from __future__ import annotations

import os
import signal
import ssl
import tempfile
from pathlib import Path

import pytest

from gateway.net import tls
from tests.gateway_process import INIT, PATIENCE, Gateway, wait_until


def test_it_serves_counts_reloads_and_drains(start):
    gateway = start(INIT, "--workers", "2")
    with gateway.smtp() as client:
        assert client.ehlo()[0] == 250
        assert client.noop()[0] == 250
    assert gateway.get("/healthz") == (200, "OK\n")
    assert gateway.get("/readyz") == (200, f"OK\n{gateway.announced()['smtp'][0]}: ok\n")
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
    assert gateway.process.wait(PATIENCE) == 75
    assert "missing.lua: No such file or directory" in gateway.log_file.read_text()


def test_a_log_directory_that_cannot_be_used_is_told_at_the_start_with_its_line(start, tmp_path):
    (tmp_path / "file").write_text("no directory")
    gateway = start(INIT.replace("LOGS", f"'{tmp_path}/file/logs'"))
    assert gateway.process.wait(PATIENCE) == 75
    assert f"init.lua:5: log_dir {tmp_path}/file/logs cannot be written to: Not a directory" in gateway.diagnostics()


def test_a_key_that_cannot_be_used_is_told_at_the_start_with_its_line(start, tmp_path):
    for number, (certificate, code) in enumerate((("missing", 75), ("garbage", 78))):
        (tmp_path / "garbage").write_text("no certificate")
        keys = f"tls_certificate = '{tmp_path}/{certificate}', tls_private_key = '{tmp_path}/garbage', relay_hosts"
        gateway = start(INIT.replace("relay_hosts", keys))
        assert gateway.process.wait(PATIENCE) == code
        assert f"init.lua:3: kumo.start_esmtp_listener: {tmp_path}/{certificate}" in gateway.diagnostics(), number


@pytest.mark.skipif(os.getuid() != 0, reason="NOT CHECKED: giving up root needs root")
def test_a_key_that_only_root_can_read_is_told_at_the_start_of_an_ordinary_users_service():
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, open to other users
        folder = Path(name)
        folder.chmod(0o777)
        for file, pem in zip(("cert.pem", "key.pem"), tls._self_signed("gw.example"), strict=True):
            (folder / file).write_bytes(pem)
        (folder / "key.pem").chmod(0o600)
        keys = f"tls_certificate = '{folder}/cert.pem', tls_private_key = '{folder}/key.pem', relay_hosts"
        gateway = Gateway(folder, INIT.replace("relay_hosts", keys), "--workers", "1", "--user", "nobody")
        try:
            assert gateway.process.wait(PATIENCE) == 75
            assert f"{folder}/key.pem: Permission denied" in gateway.diagnostics()
        finally:
            gateway.kill()


def test_a_worker_that_is_started_again_has_the_certificate_that_was_found_good(start, tmp_path):
    certificate, key = tls._self_signed("gw.example")
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    keys = f"tls_certificate = '{tmp_path}/cert.pem', tls_private_key = '{tmp_path}/key.pem', relay_hosts"
    policy = INIT.replace("relay_hosts", keys)
    gateway = start(policy, "--workers", "1")
    gateway.announced()
    (tmp_path / "cert.pem").write_text("half of a new certifi")
    assert shown_certificate(gateway) == ssl.PEM_cert_to_DER_cert(certificate.decode())
    os.kill(gateway.workers()[0], signal.SIGKILL)
    assert shown_certificate(gateway) == ssl.PEM_cert_to_DER_cert(certificate.decode())
    gateway.reload(policy)
    wait_until(lambda: "reload failed" in gateway.diagnostics(), "the half certificate refused")
    renewed, key = tls._self_signed("gw.example")
    (tmp_path / "cert.pem").write_bytes(renewed)
    (tmp_path / "key.pem").write_bytes(key)
    gateway.reload(policy)
    gateway.announced(epoch=2)
    assert shown_certificate(gateway) == ssl.PEM_cert_to_DER_cert(renewed.decode())


def shown_certificate(gateway):
    with gateway.smtp() as client:
        client.starttls()
        return client.sock.getpeercert(binary_form=True)


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
