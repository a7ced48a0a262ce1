"""Policies in the manner of those that fleets run (tests/policies/fleet), at the gateway: with --fleet each is good,
names what it leaves to the fleet, and serves; without, it is refused where it has a delivery side.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gateway_process import Gateway, Sink, wait_until

from gateway.policy.delivery_side import HINT
from gateway.policy.source import PolicySource
from tests.policy_cases import PolicyCase, answers, cases_in, checked, differences
from tests.policy_tools import examine

CASES = cases_in(Path(__file__).parent / "policies" / "fleet")
DEPLOYED = ("--listen", "127.0.0.1:0")


def at_home(case: PolicyCase, folder: Path) -> PolicyCase:
    """The case with its files where a test may have them, and its metrics on a port of their own."""
    moved = {
        "/opt/kumomta/etc/policy": str(folder),
        "/opt/kumomta/etc": str(folder),
        "/var/log/kumomta": str(folder / "logs"),
        "127.0.0.1:8000": "127.0.0.1:0",
    }

    def put(text: str) -> str:
        for place, ours in moved.items():
            text = text.replace(place, ours)
        return text

    return replace(case, text=put(case.text), files={name: put(text) for name, text in case.files.items()})


def test_there_are_a_dozen() -> None:
    assert len(CASES) >= 12


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_good_and_serves_at_the_gateway_of_a_fleet(case: PolicyCase, tmp_path: Path, sink: Sink) -> None:
    policy = at_home(case, tmp_path).put(tmp_path, 0)
    fleet = ("--fleet", sink.address, *DEPLOYED)
    status, said = checked(policy, *fleet)
    assert not differences(case, status, said)
    for name in case.expected["left"]:
        assert said.count(f": {name}: left to the fleet") == 1, (name, said)

    gateway = Gateway(tmp_path, policy.read_text(), "--workers", "1", *fleet)
    try:
        for one in case.expected["replies"]:
            assert answers(gateway, one), gateway.diagnostics()
        accepted = sum(one["reply"].startswith("DATA 250") for one in case.expected["replies"])
        mails = wait_until(lambda: len(found := sink.mails()) >= accepted and found, "mail at the fleet")
        assert len(mails) == accepted == case.expected.get("relayed", accepted)
        for text in case.expected.get("contains", ()):
            assert text.encode() in b"".join(mails)
        diagnostics = gateway.diagnostics()
        assert "Traceback" not in diagnostics
        for name in case.expected["left"]:
            assert diagnostics.count(f": {name}: left to the fleet") == 1
    finally:
        gateway.kill()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_without_a_fleet_it_is_told_to_name_one(case: PolicyCase, tmp_path: Path) -> None:
    policy = at_home(case, tmp_path).put(tmp_path, 0)
    errors, _, _ = examine(PolicySource.read(str(policy)))
    assert [error for error in errors if error.hint.endswith(HINT)]
