"""/metrics beside Prometheus' own tools, and what a running gateway tells of its listeners, processes and policy."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, Gateway, wait_until
from tests.programs import program

SECOND = "kumo.start_esmtp_listener { listen = LISTEN, max_connections = 2 }"
TWO_LISTENERS = INIT.replace("kumo.start_http_listener", f"{SECOND} kumo.start_http_listener")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("prometheus"), TWO_LISTENERS + TO_MAILDIR, "--workers", "1")
    yield running
    running.kill()


def by_listener(gateway: Gateway, name: str) -> list[float]:
    first, second = gateway.announced()["smtp"]
    return [gateway.metric(f'listener_connections_{name}{{listener="{each}"}}') for each in (first, second)]


def test_promtool_finds_nothing_wrong_with_names_and_types(gateway):
    text = gateway.get("/metrics")[1]
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_connections_are_counted_at_their_listener_and_go_on_being_after_a_reload(gateway):
    before = by_listener(gateway, "opened_total")
    with gateway.connect(), gateway.connect():
        wait_until(lambda: by_listener(gateway, "open") == [2, 0], "two are open at the first")
    wait_until(lambda: by_listener(gateway, "open") == [0, 0], "none is open")
    assert by_listener(gateway, "opened_total") == [before[0] + 2, before[1]]
    limits = by_listener(gateway, "limit")
    assert limits[0] > limits[1] in (1, 2)  # fewer descriptors are shared out in proportion
    epoch = gateway.announced()["epoch"]
    gateway.reload(TWO_LISTENERS + TO_MAILDIR)
    gateway.announced(epoch=epoch + 1)
    assert by_listener(gateway, "opened_total") == [before[0] + 2, before[1]]
    wait_until(lambda: by_listener(gateway, "limit") == limits, "the old worker's part has gone")


def test_messages_are_counted_at_the_listener_that_they_came_to(gateway):
    def counted() -> list[float]:
        return [gateway.metric(f'listener_messages_total{{listener="{each}"}}') for each in gateway.announced()["smtp"]]

    before = counted()
    host, _, port = gateway.announced()["smtp"][1].rpartition(":")
    with smtplib.SMTP(host, int(port), "client.example", PATIENCE) as client:
        client.sendmail("a@sender.example", "b@far.example", "Subject: one\n\n")
        client.sendmail("a@sender.example", "b@far.example", "Subject: two\n\n")
    wait_until(lambda: counted() == [before[0], before[1] + 2], "two messages at the second")


def test_the_policy_is_told_by_its_file_and_a_hash_of_its_text(gateway):
    def told() -> tuple[str, ...]:
        found = re.search(r'policy_info\{file="(.*)",hash="(\w+)"\} 1.0', gateway.get("/metrics")[1])
        assert found
        return found.groups()

    file, first = told()
    assert file == str(gateway.policy_file)
    epoch = gateway.announced()["epoch"]
    text = gateway.policy_file.read_text()
    gateway.reload(TWO_LISTENERS + TO_MAILDIR + f"-- a text of epoch {epoch + 1}")
    gateway.announced(epoch=epoch + 1)
    wait_until(lambda: told()[1] != first, "another hash")
    assert gateway.metric("policy_last_load_timestamp_seconds") > time.time() - 60
    gateway.policy_file.write_text(text)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.announced(epoch=epoch + 2)
    wait_until(lambda: told()[1] == first, "the hash of the text before")


def test_a_worker_that_died_and_a_reload_that_failed_have_their_time(gateway):
    assert gateway.metric("policy_last_failure_timestamp_seconds") == 0
    gateway.reload("what?")
    wait_until(lambda: gateway.metric("policy_last_failure_timestamp_seconds") > time.time() - 60, "a failure")
    assert gateway.metric("worker_last_restart_timestamp_seconds") == 0
    (worker,) = wait_until(gateway.workers, "a worker")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: gateway.metric("worker_last_restart_timestamp_seconds") > time.time() - 60, "a restart")
    gateway.write_policy(TWO_LISTENERS + TO_MAILDIR)


def test_processes_are_told_as_all_exporters_do(gateway):
    def process(name: str) -> float:
        found = re.search(rf"^process_{name} (\S+)$", gateway.get("/metrics")[1], re.MULTILINE)
        assert found, name
        return float(found[1])

    used = process("cpu_seconds_total")
    assert used > 0
    wait_until(lambda: process("cpu_seconds_total") > used, "processor time passes")
    assert process("virtual_memory_bytes") > process("resident_memory_bytes") > 20e6
    assert 5 < process("open_fds") < process("max_fds")
    assert time.time() - 600 < process("start_time_seconds") <= time.time() + 1
    assert gateway.metric("memory_limit_bytes") > 100e6
    assert gateway.metric("log_backlog_limit_records") == 128_000
    worker = wait_until(gateway.workers, "a worker") and 'worker="0"'
    is_open, limit = (gateway.metric(f"worker_descriptors_{name}{{{worker}}}") for name in ("open", "limit"))
    assert 5 < is_open < limit
