"""File descriptors: how they are divided between clients and what serves them."""

from __future__ import annotations

import resource
import smtplib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.service import descriptors
from tests.gateway_process import INIT, PATIENCE, wait_until


def test_the_limit_is_raised_as_far_as_it_may_go(start):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gateway = start(INIT, "--workers", "1", under=["prlimit", f"--nofile=256:{hard}"])
    (worker,) = wait_until(gateway.workers, "a worker")
    assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (hard, hard)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_no_process_writes_a_core(start):
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    gateway = start(INIT, "--workers", "1", under=["prlimit", f"--core={hard}:{hard}"])
    gateway.announced()
    for process in (gateway.process.pid, *gateway.children()):
        assert resource.prlimit(process, resource.RLIMIT_CORE) == (0, 0)


def test_listeners_get_what_they_ask_for_where_there_is_enough():
    assert descriptors.shares([100, 7, 1], 2, 1000) == [50, 4, 1]
    assert descriptors.shares([100, 7, 1], 2, 55) == [50, 4, 1]
    assert descriptors.shares([], 2, 0) == []


def test_what_is_too_little_is_divided_in_proportion():
    assert descriptors.shares([2000, 1000], 1, 300) == [200, 100]
    assert descriptors.shares([100_000, 1], 1, 300) == [299, 1]


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=8), st.integers(1, 64), st.integers(64, 100_000))
def test_clients_never_get_more_than_there_is_nor_a_listener_more_than_it_asks_for(wanted, workers, available):
    shares = descriptors.shares(wanted, workers, available)
    assert all(1 <= share <= -(-most // workers) for share, most in zip(shares, wanted, strict=True))
    assert sum(shares) <= available + len(wanted)  # one each, at least


def test_some_are_kept_for_the_process_and_its_fleet():
    assert descriptors.for_clients(65536) == 65536 - 64 - 8192 - 8192
    assert descriptors.for_clients(64) == 0


def test_max_connections_is_lowered_to_what_is_there_and_said(start):
    gateway = start(INIT, "--workers", "2", under=["prlimit", "--nofile=200:200"])
    gateway.announced()
    share = descriptors.for_clients(200)
    assert f"127.0.0.1:0: at most {2 * share} connections instead of max_connections = 32768" in gateway.diagnostics()
    with pytest.raises(smtplib.SMTPConnectError) as refused:
        for _ in range(2 * share + 1):
            gateway.smtp()
    assert refused.value.smtp_code == 421


def test_a_start_with_too_few_says_so(start):
    gateway = start(INIT, "--workers", "1", under=["prlimit", "--nofile=64:64"])
    assert gateway.process.wait(PATIENCE) == 75
    assert "64 file descriptors are too few for a worker; raise LimitNOFILE" in gateway.diagnostics()


def test_running_out_is_counted_told_once_and_shown_until_it_is_over(start):
    gateway = start(INIT, "--workers", "1")
    (worker,) = wait_until(gateway.workers, "a worker")
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (8, limits[1]))
    waiting = gateway.connect()
    wait_until(lambda: gateway.metric("accept_failures_total") >= 2, "it tried again")
    listener = gateway.announced()["smtp"][0]
    wait_until(lambda: f"{listener}: no_descriptors" in gateway.get("/readyz")[1], "the reason shown")
    assert gateway.get("/readyz")[0] == 503
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    assert waiting.recv(3) == b"220"
    waiting.close()
    wait_until(lambda: gateway.get("/readyz")[0] == 200, "ready again")
    assert gateway.diagnostics().count("cannot accept connections") == 1
    assert gateway.diagnostics().count("connections are accepted again") == 1
