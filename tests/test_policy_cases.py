"""Each case of tests/corpus/policies: what `check` says of it, and how a gateway that runs it answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_process import Gateway

from tests.policy_cases import PolicyCase, answers, cases_in, checked, differences
from tests.ports import free_port

CASES = cases_in(Path(__file__).parent / "corpus" / "policies")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_check_and_service_treat_it_as_expected(case: PolicyCase, tmp_path: Path) -> None:
    port = free_port()
    policy = case.put(tmp_path, port)
    assert not differences(case, *checked(policy))
    if "replies" not in case.expected:
        return
    gateway = Gateway(tmp_path, policy.read_text(), "--workers", "1")
    try:
        for one in case.expected["replies"]:
            assert answers(gateway, one), gateway.diagnostics()
    finally:
        gateway.kill()
