"""What asking the policy costs: decisions, cached and not, and the parameters of a connection."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import Listener
from gateway.mail.message import Message
from gateway.policy.api import Api
from gateway.policy.background import Background
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import Known
from gateway.policy.engine import Policy
from gateway.policy.handlers import Handlers
from gateway.policy.listener import TermsTable
from gateway.policy.source import PolicySource
from gateway.smtp.address import parse_address

TEXT = """
kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  if domain == 'time.example' then return os.time() == 0 end
  if domain == 'plain.example' then return kumo.make_listener_domain { relay_to = true } end
  if conn_meta:get_meta 'authz_id' then return kumo.make_listener_domain { relay_to = true } end
end)
kumo.on('smtp_server_mail_from', function() end)
kumo.on('smtp_server_message_received', function(msg)
  msg:set_meta('tenant', msg:get_first_named_header_value 'X-Tenant')
end)
"""
LISTENER = "192.0.2.1:25"
CONTENT = b"Received: x\r\nSubject: x\r\nX-Tenant: t\r\n\r\n" + b"text\r\n" * 170


@pytest.fixture(scope="module")
def policy() -> Policy:
    page = CounterPage(bytearray(metrics.page_size()))
    return Policy.load(PolicySource("bench.lua", {"bench.lua": TEXT.encode()}), page=page)


CONN = ConnMeta({"authz_id": "scott", "received_from": "192.0.2.7:40000"})


@pytest.mark.parametrize("domain", ["plain.example", "other.example"], ids=["nothing-read", "one-key-read"])
def test_cached_decision(benchmark: Any, policy: Policy, domain: str) -> None:
    """Aim: 0.4 µs; at most 1 µs."""
    policy.listener_domain(domain, LISTENER, CONN)
    benchmark(policy.listener_domain, domain, LISTENER, CONN)
    assert isinstance(policy.listener_domain(domain, LISTENER, CONN), Known)


def test_uncached_decision(benchmark: Any, policy: Policy) -> None:
    domains = iter(range(10**9))

    def decide() -> None:
        policy.listener_domain(f"{next(domains)}.example", LISTENER, CONN)

    benchmark(decide)


def test_empty_handler(benchmark: Any, policy: Policy) -> None:
    benchmark(policy.mail_from, parse_address("a@example.com"), CONN)


def test_limits_of_a_call(benchmark: Any) -> None:
    """What the limits add to each call of a handler that keeps to them, with the call of this function: at most 0.5 µs.

    Besides, Lua's allocator compares two numbers.
    """
    page = CounterPage(bytearray(metrics.page_size()))
    source = PolicySource("bench.lua", {"bench.lua": TEXT.encode()})
    limits = Handlers(source, page, time.monotonic, Background(), Api).lua.limits

    def limit() -> None:
        limits.begin(1 << 26, 0)
        limits.end()

    benchmark(limit)


def test_message_handler(benchmark: Any, policy: Policy) -> None:
    def receive() -> None:
        message = Message("0" * 32, parse_address("a@example.com"), [parse_address("b@example.com")], data=CONTENT)
        policy.message_received(message, CONN)

    benchmark(receive)


@pytest.mark.parametrize("blocks", [0, 1000])
def test_parameters_of_a_connection(benchmark: Any, blocks: int) -> None:
    """At most 2 µs."""
    peer = {f"10.{number >> 8}.{number & 255}.0/24": {"banner": "x"} for number in range(blocks)}
    table = TermsTable(Listener(listen="127.0.0.1:25", peer=peer), offer_auth=False)
    benchmark(table.terms_for, "10.0.7.7", "127.0.0.1")


def test_loading(benchmark: Any) -> None:
    page = CounterPage(bytearray(metrics.page_size()))
    benchmark(lambda: Policy.load(PolicySource("bench.lua", {"bench.lua": TEXT.encode()}), page=page))
