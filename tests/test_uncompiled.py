"""The modules beside a .pxd behave the same uncompiled: their tests pass where only the kernels are compiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.uncompiled import copy, pytest_in

# What can be told without sockets and processes, and in a few seconds; all of the suite passes.
SANS_IO = (
    "test_address", "test_client", "test_commands", "test_decision", "test_later", "test_listener_domains",
    "test_logs_records", "test_message",
    "test_notification", "test_outbox", "test_plan", "test_policy_cache", "test_policy_listener", "test_policy_message",
    "test_policy_options", "test_reception", "test_relay_facts", "test_replies", "test_report_kinds",
    "test_report_values", "test_routing", "test_session", "test_trace", "test_verdict",
)  # fmt: skip


@pytest.mark.timeout(300)
def test_protocol_cores_pass_their_tests_uncompiled(tmp_path: Path) -> None:
    tree = copy(tmp_path)
    compiled = {path.relative_to(tree).as_posix().partition(".")[0] for path in tree.rglob("*.so")}
    assert compiled == {"gateway/_fastpath", "gateway/_shared"}, "the kernels, and what Cython needs for them"
    told = pytest_in(tree, SANS_IO, "-x", timeout=280)
    assert told.returncode == 0, told.stdout + told.stderr
