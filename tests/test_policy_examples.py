"""The Lua examples of KumoMTA's page on make_listener_domain, straight from its text."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Disposition
from gateway.policy.engine import Policy
from gateway.policy.problems import PolicyProblems
from tests.policy_tools import ask, load

PAGE = (Path(__file__).parent / "policies" / "make_listener_domain.txt").read_text()
EXAMPLES = re.findall(r"^(?:local \w+ = \{\n(?:.*\n)*?\}\n\n)?kumo\.on\((?:.*\n)*?end\)$", PAGE, re.M)
RELAY_TO, AUTHENTICATED, BY_DOMAIN, OOB, ARF, RELAY_FROM = EXAMPLES

# Gives every example its own `kumo.on`, since a second handler for the event is an error, and asks them in turn.
COMBINING = """
local handlers = {}
local register = kumo.on
kumo.on = function(_, handler) handlers[#handlers + 1] = handler end
"""
COMBINED = """
register('get_listener_domain', function(...)
  for _, handler in ipairs(handlers) do
    local granted = handler(...)
    if granted then return granted end
  end
end)
"""


def grants(policy: Policy, domain: str, **meta: object) -> Any:
    return ask(policy, domain, **meta)


def test_the_page_has_six_examples() -> None:
    assert len(EXAMPLES) == 6


def test_relay_to_allows_mail_to_that_domain_only() -> None:
    policy = load(RELAY_TO)
    assert grants(policy, "example.com").relay_to is True
    assert grants(policy, "other.example") is None


def test_an_authenticated_session_may_relay_anywhere() -> None:
    policy = load(AUTHENTICATED)
    assert grants(policy, "any.example", authz_id="scott").relay_to is True
    assert grants(policy, "any.example") is None


def test_only_scott_may_relay_to_example_com() -> None:
    policy = load(BY_DOMAIN)
    assert grants(policy, "example.com", authz_id="scott").relay_to is True
    assert grants(policy, "example.com", authz_id="tiger") is None
    assert grants(policy, "other.example", authz_id="scott") is None


def test_without_authentication_indexing_the_map_by_nil_grants_nothing() -> None:
    assert grants(load(BY_DOMAIN), "example.com") is None


def test_log_oob_logs_bounces() -> None:
    found = grants(load(OOB), "bounce.example.com")
    assert (found.log_oob, found.log_arf, found.relay_to) == (Disposition.LOG, Disposition.IGNORE, False)


def test_log_arf_logs_complaints() -> None:
    found = grants(load(ARF), "fbl.example.com")
    assert (found.log_oob, found.log_arf, found.relay_to) == (Disposition.IGNORE, Disposition.LOG, False)


def test_relay_from_names_the_network_that_may_send() -> None:
    found = grants(load(RELAY_FROM), "send.example.com")
    assert ip_address("10.0.0.7").packed in found.relay_from
    assert ip_address("10.0.1.7").packed not in found.relay_from


def test_all_examples_work_in_one_file() -> None:
    policy = load("\n".join([COMBINING, *(f"do\n{example}\nend" for example in EXAMPLES), COMBINED]))
    assert grants(policy, "example.com").relay_to is True
    assert grants(policy, "any.example", authz_id="scott").relay_to is True
    assert grants(policy, "bounce.example.com").log_oob is Disposition.LOG
    assert grants(policy, "fbl.example.com").log_arf is Disposition.LOG
    assert list(grants(policy, "send.example.com").relay_from) == ["10.0.0.0/24"]
    assert grants(policy, "other.example") is None


def test_pasting_the_examples_one_after_the_other_is_refused_as_in_kumomta() -> None:
    with pytest.raises(PolicyProblems) as raised:
        load("\n".join(EXAMPLES))
    message = "get_listener_domain event already has a handler defined at policy.lua:1"
    assert [problem.message for problem in raised.value.problems] == [message] * 5
