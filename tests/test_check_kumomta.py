"""`check --kumomta`: what a policy that is also KumoMTA's may not say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.policy.check import report
from gateway.policy.kumomta import refused
from gateway.policy.model import of_this_gateway
from gateway.policy.schemas import SCHEMAS
from gateway.policy.source import PolicySource
from tests.policy_tools import source_of
from tests.test_docs import LUA_BLOCKS

ROOT = Path(__file__).parent.parent
MODEL = of_this_gateway()
HANDLER = "kumo.on('smtp_server_message_received', function(msg) {} end)"


def warnings_of(text: str) -> list[str]:
    return [str(problem).removeprefix("policy.lua:1: warning: ") for problem in refused(source_of(text), MODEL)]


def warnings_in_init(text: str) -> list[str]:
    return warnings_of(f"kumo.on('init', function() {text} end)" if "_listener {" in text else text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kumo.set_handler_limits { wait = '5s' }", "kumo.set_handler_limits: KumoMTA has nothing of that name"),
        ("kumo.start_esmtp_listener { relay_hosts = {} }", "kumo.start_esmtp_listener: relay_hosts: KumoMTA takes {}"),
        (
            "kumo.start_esmtp_listener { trace_headers = { include_meta_names = {} } }",
            "kumo.start_esmtp_listener: trace_headers.include_meta_names: KumoMTA takes {} for a map",
        ),
        (
            "kumo.start_esmtp_listener { peer = { ['10.0.0.0/8'] = { relay_hosts = { '10/8', '::1' } } } }",
            "kumo.start_esmtp_listener: peer['10.0.0.0/8'].relay_hosts: KumoMTA refuses the short form 10/8",
        ),
        ("kumo.make_listener_domain { relay_from = { '192.168/16' } }", "kumo.make_listener_domain: relay_from: KumoM"),
        (
            "kumo.start_http_listener { trusted_hosts = { '10/8' } }",
            "kumo.start_http_listener: trusted_hosts: KumoMTA r",
        ),
        (
            "kumo.start_esmtp_listener { report_excerpt = true }",
            "kumo.start_esmtp_listener: report_excerpt: Kumo",
        ),
        ("kumo.make_egress_path { enable_chunking = true }", "kumo.make_egress_path: enable_chunking: KumoMTA has no"),
        (
            "kumo.start_esmtp_listener { batch_handling = 'Together' }",
            "kumo.start_esmtp_listener: batch_handling: K",
        ),
        ("require 'gateway'", "require 'gateway': KumoMTA has no such module"),
        (
            "kumo.start_esmtp_listener { listen = 'fd:smtp' }",
            "kumo.start_esmtp_listener: listen: KumoMTA takes no",
        ),
        (
            HANDLER.format("msg:set_sender(msg:sender())"),
            "msg:set_sender: KumoMTA takes no address",
        ),
    ],
)
def test_what_kumomta_would_refuse_is_warned_of(text: str, said: str) -> None:
    [warning] = warnings_in_init(text)
    assert warning.startswith(said)


def test_a_listener_outside_of_init_is_one_each_time_that_kumomta_loads_the_policy() -> None:
    [warning] = warnings_of("kumo.start_http_listener { listen = '127.0.0.1:8000', trusted_hosts = { '10.1.0.0/16' } }")
    assert warning.startswith("kumo.start_http_listener: KumoMTA does this each time it loads the policy, and fails")


@pytest.mark.parametrize(
    "text",
    [
        "if kumo.set_handler_limits then kumo.set_handler_limits { wait = '5s' } end",
        "if kumo.set_handler_limits then kumo.start_esmtp_listener { relay_hosts = {} } end",
        "local f = kumo.set_handler_limits if f ~= nil then f { wait = '5s' } end",
        "if kumo.gateway then require('gateway').fleet { members = { 'mta1' } } end",
        "local function nobody() kumo.set_handler_limits {} end",
        "kumo.start_esmtp_listener { relay_hosts = { '10.0.0.0/8', '192.0.2.1', 'any', '2001:db8::/32' }, peer = {} }",
        "kumo.make_listener_domain { relay_from = {} }",
        "kumo.start_esmtp_listener { relay_hosts = os.getenv 'HOSTS' }",
        "kumo.make_listener_domain { relay_from = { os.getenv 'HOST' } }",
        HANDLER.format("msg:set_sender(msg:sender().email) msg:set_recipient { 'a@b.example' }"),
    ],
)
def test_what_kumomta_takes_or_never_reaches_is_not(text: str) -> None:
    assert warnings_in_init(text) == []


def test_only_who_asks_for_it_is_told() -> None:
    text = "kumo.start_esmtp_listener { listen = '127.0.0.1:25', relay_hosts = {} }"
    assert report(source_of(text))[0] == []
    [_, warning] = report(source_of(text), kumomta=True)[0]
    assert str(warning).startswith("policy.lua:1: warning: kumo.start_esmtp_listener: relay_hosts: KumoMTA takes {}")


@pytest.mark.parametrize("text", LUA_BLOCKS)
def test_the_pages_show_nothing_that_kumomta_refuses(text: str) -> None:
    # A page may leave out the init event around what it shows.
    assert [one for one in warnings_of(text) if "each time it loads the policy" not in one] == []


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("*.lua")), ids=lambda path: path.stem)
def test_what_is_shipped_is_nothing_that_kumomta_refuses(path: Path) -> None:
    assert refused(PolicySource.read(str(path)), MODEL) == []


def test_options_of_our_own_are_those_that_the_reference_calls_so() -> None:
    reference = (ROOT / "docs" / "policy.md").read_text()
    called_so = set(re.findall(r"^\| `(\w+)` \|.*not KumoMTA's", reference, re.MULTILINE))
    assert called_so == {name for schema in SCHEMAS.values() for name, one in schema.options.items() if one.ours}
