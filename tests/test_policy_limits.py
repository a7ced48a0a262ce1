"""Limits of handlers: nothing that a policy does keeps its worker busy or its memory for ever."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway import metrics
from gateway.policy import runtime
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy, PolicyError
from gateway.policy.limits import HandlerLimits
from gateway.smtp.address import parse_address
from tests.gateway_process import INIT, Gateway
from tests.policy_tools import Clock, PassingTime, load, new_page

SENDER = parse_address("a@example.com")
GENEROUS = 10.0  # seconds in which a limit of 0.2 has to take effect, however busy the machine is


def mail_from(body: str, **options: Any) -> Policy:
    return load(
        f"""
        kumo.set_handler_limits {{ processor_time = 0.2, memory = 16 * 1024 * 1024 }}
        kumo.on('smtp_server_mail_from', function(sender, conn_meta)
          {body}
        end)
        kumo.on('smtp_server_rcpt_to', function(recipient, conn_meta) conn_meta:set_meta('alive', true) end)
    """,
        **options,
    )


def error_of(policy: Policy) -> str:
    began = time.process_time()
    with pytest.raises(PolicyError) as raised:
        policy.mail_from(SENDER, ConnMeta({})).result()
    assert time.process_time() - began < GENEROUS
    conn = ConnMeta({})
    policy.rcpt_to(SENDER, conn).result()
    assert conn.values == {"alive": True}
    return str(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local function f() pcall(f) while true do end end f()",
        "xpcall(function() while true do end end, function() while true do end end)",
        "coroutine.wrap(function() while true do end end)()",
        "coroutine.resume(coroutine.create(function() pcall(function() while true do end end) end)) while true do end",
        "local co co = coroutine.wrap(function() while true do coroutine.yield(1) end end) while true do co() end",
        "while true do coroutine.resume(coroutine.create(function() pcall(error) end)) end",
        "while true do local _ <close> = setmetatable({}, { __close = function() while true do end end }) end",
        "repeat until conn_meta:get_meta 'never'",
        "table.sort({ 1, 2, 3 }, function() while true do end end)",
        "string.gsub('x', 'x', function() while true do end end)",
        "while true do pcall(load 'return setmetatable({}, { __index = error }).x') end",
        "load('while true do end')()",
        "error(setmetatable({}, { __tostring = function() while true do end end }))" ,
    ],
)  # fmt: skip
def test_a_handler_that_computes_for_too_long_ends(body: str) -> None:
    found = error_of(mail_from(body))
    assert "it takes too much processor time" in found or "__tostring" in body or "memory" in found, found


@pytest.mark.parametrize(
    "body",
    [
        "local s = ('x'):rep(1 << 30)",
        "pcall(function() local s = ('x'):rep(1 << 30) end) conn_meta:set_meta('caught', true)",
        "local t = {} while true do t[#t + 1] = {} end",
        "local t = {} while true do pcall(function() t[#t + 1] = ('x'):rep(1000) .. #t end) end",
        "local s = 'x' while true do s = s .. s end",
        "coroutine.wrap(function() local t = {} while true do t[#t + 1] = {} end end)()",
        "local t = {} for i = 1, 1e9 do t[i] = coroutine.create(print) end",
        "local s = table.concat({ ('x'):rep(1 << 23), ('x'):rep(1 << 23), ('x'):rep(1 << 23) })",
        "string.format(('%s'):rep(10), table.unpack({ ('x'):rep(1 << 22), ('x'):rep(1 << 22), ('x'):rep(1 << 22), "
        "('x'):rep(1 << 22), ('x'):rep(1 << 22), 1, 2, 3, 4, 5 }))",
    ],
)
def test_a_handler_that_takes_too_much_memory_ends(body: str) -> None:
    policy = mail_from(body)
    assert "it needs more than 16 MiB of memory" in error_of(policy)
    assert "memory" in error_of(policy)


@pytest.mark.parametrize("use", ["conn_meta:set_meta('x', t)", "kumo.json_encode(t)", "kumo.json_encode { { t } }"])
def test_a_table_that_contains_itself_twice_has_too_many_values(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "MOST_VALUES", 10_000)
    assert "does it contain itself?" in error_of(mail_from(f"local t = {{}} t.a, t.b = t, t {use}"))


def test_so_has_one_that_a_handler_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "MOST_VALUES", 10_000)
    policy = load("kumo.on('smtp_server_get_dynamic_parameters', function() local t = {} t.a, t.b = t, t return t end)")
    with pytest.raises(PolicyError, match="does it contain itself"):
        policy.dynamic_parameters("127.0.0.1:25", ConnMeta({})).result()


@pytest.mark.parametrize("table", ["{ kumo.reject }", "{ 1, kumo.reject, 2 }", "{ a = { kumo.json_encode }, b = 1 }"])
def test_functions_of_the_gateway_in_a_table_are_functions(table: str) -> None:
    for _ in range(2):  # the first once kept a lock
        assert "cannot encode an object" in error_of(mail_from(f"kumo.json_encode({table})"))


def test_what_is_given_back_on_the_way_does_not_count() -> None:
    policy = mail_from("for i = 1, 60 do local s = ('x'):rep(1 << 20) .. i end")
    policy.mail_from(SENDER, ConnMeta({})).result()


def test_a_state_that_keeps_what_was_taken_is_replaced() -> None:
    page = new_page()
    policy = mail_from("kept = kept or {} while true do kept[#kept + 1] = {} end", page=page)
    assert "16 MiB" in error_of(policy)
    assert page.get(metrics.LUA_STATES_REPLACED.slot()) == 1
    assert "16 MiB" in error_of(policy)


def test_what_waits_in_a_state_that_is_replaced_ends_well() -> None:
    clock = Clock()
    passing = PassingTime(clock)
    policy = load(
        """
        kumo.set_handler_limits { memory = 4 * 1024 * 1024 }
        kumo.on('smtp_server_mail_from', function(_, conn_meta)
          kumo.sleep(1)
          conn_meta:set_meta('seen', conn_meta:auth_info().identities)
        end)
        kumo.on('smtp_server_rcpt_to', function() kept = kept or {} while true do kept[#kept + 1] = {} end end)
        """,
        clock=clock,
        background=passing,
    )
    conn = ConnMeta({})
    answer = policy.mail_from(SENDER, conn)
    assert policy.rcpt_to(SENDER, ConnMeta({})).failed
    passing.pass_time(1)
    answer.result()
    assert "seen" in conn.values


@pytest.mark.parametrize("body", ["local _ = sender.domain", "memoized(n)"])
def test_objects_of_calls_that_are_over_take_no_memory(body: str) -> None:
    policy = load(f"""
        local n = 0
        local memoized = kumo.memoize(function() return n end, {{ name = 'm', ttl = '1h', capacity = 100 }})
        kumo.on('smtp_server_mail_from', function(sender, conn_meta)
          n = n + 1
          {body}
          conn_meta:set_meta('used', collectgarbage 'count')
        end)
    """)
    most = 0.0
    for _ in range(30_000):
        conn = ConnMeta({})
        policy.mail_from(parse_address("a@a.example"), conn).result()
        most = max(most, conn.values["used"])
    assert most < 700  # KiB; without care 3,000 and growing


def test_processor_time_counts_over_waits() -> None:
    clock = Clock()
    passing = PassingTime(clock)
    body = "while true do for i = 1, 1e4 do conn_meta:get_meta 'x' end kumo.sleep(0.1) end"

    class Slow(Clock):
        def __call__(self) -> float:
            clock.now += 0.05  # as if what runs between two looks at the clock took so long
            return clock.now

    policy = mail_from(body, clock=Slow(), background=passing)
    answer = policy.mail_from(SENDER, ConnMeta({}))
    for _ in range(20):
        passing.pass_time(0.1)
    with pytest.raises(PolicyError, match="processor time"):
        answer.result()


@pytest.mark.parametrize(
    ("table", "limits"),
    [
        ("{}", HandlerLimits()),
        ("{ processor_time = '2 s', wait = '1m' }", HandlerLimits(processor_time=2.0, wait=60.0)),
        ("{ memory = 1048576 }", HandlerLimits(memory=1 << 20)),
    ],
)
def test_limits_can_be_set(table: str, limits: HandlerLimits) -> None:
    policy = load(f"kumo.on('init', function() kumo.set_handler_limits {table} end)")
    assert policy.limits == limits


def test_the_command_is_answered_and_the_session_goes_on(tmp_path: Any) -> None:
    policy = f"""{INIT}
        kumo.set_handler_limits {{ processor_time = 0.2 }}
        kumo.on('smtp_server_mail_from', function(sender)
          if sender.user == 'loop' then while true do pcall(function() while true do end end) end end
          if sender.user == 'rep' then return ('x'):rep(1 << 30) end
          if sender.user == 'table' then local t = {{}} while true do t[#t + 1] = {{}} end end
          if sender.user == 'kept' then kept = {{}} while true do kept[#kept + 1] = {{}} end end
        end)
    """
    gateway = Gateway(tmp_path, policy, "--workers", "1")
    try:
        client = gateway.smtp()
        client.ehlo()
        for user in ("loop", "rep", "table", "kept", "loop", "kept"):
            assert client.mail(f"{user}@a.example")[0] == 451
        assert client.mail("a@a.example")[0] == 250
        client.quit()
        assert gateway.metric("lua_states_replaced_total") == 2
        assert gateway.metric("worker_restarts_total") == 0
    finally:
        gateway.stop()
