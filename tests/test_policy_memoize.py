"""kumo.memoize: a function's results, kept for a time, found once for all who ask."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy, PolicyError, PolicyProblems, Rejected
from gateway.smtp.address import parse_address
from tests.policy_tools import Clock, PassingTime, answered_from, ask, load, said

SENDER = parse_address("a@example.com")
OPTIONS = "{ name = 'test', ttl = '10s', capacity = 4 }"


class Memoized:
    """A policy that memoizes a function of (a, b) whose body is given, and calls it."""

    def __init__(self, body: str, options: str = OPTIONS) -> None:
        self.clock = Clock()
        self.time = PassingTime(self.clock)
        text = f"""
            calls = 0
            local f = kumo.memoize(function(a, b) calls = calls + 1
              {body}
            end, {options})
            kumo.on('smtp_server_mail_from', function(_, conn_meta)
              local value = f(conn_meta:get_meta 'a', conn_meta:get_meta 'b')
              conn_meta:set_meta('value', type(value) == 'table' and value.x or value)
              conn_meta:set_meta('calls', calls)
            end)
        """
        self.policy: Policy = load(text, clock=self.clock, background=self.time)

    def ask(self, **meta: object) -> Any:
        conn = ConnMeta(dict(meta))
        return self.policy.mail_from(SENDER, conn), conn.values

    def value(self, **meta: object) -> tuple[object, object]:
        """What the function gives, and how often it was called so far."""
        answer, values = self.ask(**meta)
        answer.result()
        return values["value"], values["calls"]


def test_a_result_is_kept_for_its_time() -> None:
    memoized = Memoized("return a")
    assert [memoized.value(a="x") for _ in range(3)] == [("x", 1)] * 3
    memoized.time.pass_time(10)
    assert memoized.value(a="x") == ("x", 2)


def test_other_arguments_have_results_of_their_own() -> None:
    memoized = Memoized("return tostring(a) .. tostring(b)")
    assert memoized.value(a="x") == ("xnil", 1)
    assert memoized.value(a="x", b="y") == ("xy", 2)
    assert memoized.value(a={"k": [1]}, b="y")[1] == 3
    assert memoized.value(a={"k": [1]}, b="y")[1] == 3


@pytest.mark.parametrize("nothing", ["return nil", "return", ""])
def test_nothing_is_a_result_too(nothing: str) -> None:
    memoized = Memoized(nothing)
    assert [memoized.value() for _ in range(2)] == [(None, 1)] * 2


def test_a_table_is_shown_and_what_is_written_goes_nowhere() -> None:
    memoized = Memoized("return { x = 1, inner = { 1, 2 } }")
    policy = load(f"""
        local f = kumo.memoize(function() return {{ x = 1, inner = {{ 1, 2 }} }} end, {OPTIONS})
        kumo.on('smtp_server_mail_from', function()
          local first = f()
          first.x = 5
          first.inner[1] = 7
          assert(first.x == 5)
          local second, seen = f(), 0
          assert(second.x == 1 and second.inner[1] == 1 and #second.inner == 2)
          for key in pairs(second) do seen = seen + 1 end
          assert(seen == 2)
        end)
    """)
    policy.mail_from(SENDER, ConnMeta({})).result()
    assert memoized.value() == (1, 1)


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("kumo.json_encode(t.list)", "[1,2,3]"),
        ("kumo.json_parse(kumo.json_encode(t)).grant", {"relay_to": True, "relay_from": ["10.0.0.0/8"]}),
        ("kumo.make_listener_domain(t.grant).relay_to", True),
        ("kumo.make_listener_domain { relay_from = t.grant.relay_from }.relay_from[1]", "10.0.0.0/8"),
        ("kumo.string.eval_template('x', '{{ list }}', t)", "[1, 2, 3]"),
        ("(function() t.grant.x = 5 return #kumo.json_encode(t.grant) end)()", 45),
        ("(function() t.list = 5 return kumo.json_parse(kumo.json_encode(t)).list end)()", 5),
        ("{ g(t), g(t.list), g { 1, 2, 3 } }", [7, 3, 3]),
    ],
)
def test_a_table_that_is_shown_is_whole_wherever_it_goes(code: str, result: Any) -> None:
    made = "{ grant = { relay_to = true, relay_from = { '10.0.0.0/8' } }, list = { 1, 2, 3 } }"
    assert (
        said(f"""
            local f = kumo.memoize(function() return {made} end, {OPTIONS})
            local g = kumo.memoize(function(x) return x.grant and 7 or #x end, {OPTIONS.replace("'test'", "'other'")})
            f()
            local t = f()
            result = {code}
        """)
        == result
    )


def test_what_has_a_type_is_whole_there_too() -> None:
    assert said(f"""
        local typing = require 'policy-extras.typing'
        local Grant = typing.record('Grant', {{ relay_from = typing.list(typing.string), relay_to = typing.boolean }})
        local grant = Grant {{ relay_from = {{ '10.0.0.0/8' }}, relay_to = true }}
        local f = kumo.memoize(function() return grant end, {OPTIONS})
        local one, other = kumo.make_listener_domain(grant), kumo.make_listener_domain(f())
        result = {{ one.relay_to, one.relay_from[1], other.relay_to, other.relay_from[1] }}
    """) == [True, "10.0.0.0/8", True, "10.0.0.0/8"]


def test_several_results_are_one_list() -> None:
    policy = load(f"""
        local f = kumo.memoize(function() return 1, 2 end, {OPTIONS})
        kumo.on('smtp_server_mail_from', function() local both = f() assert(#both == 2 and both[2] == 2) end)
    """)
    policy.mail_from(SENDER, ConnMeta({})).result()


def test_the_least_used_are_forgotten_beyond_the_capacity() -> None:
    memoized = Memoized("return a")
    for number in range(100):
        memoized.value(a=number)
        memoized.value(a="busy")
    assert memoized.value(a="busy")[1] == 101
    assert memoized.value(a=0)[1] == 102


def test_a_herd_finds_a_value_once() -> None:
    memoized = Memoized("kumo.sleep(1) return a")
    asked = [memoized.ask(a="x") for _ in range(100)]
    memoized.time.pass_time(1)
    assert [(values["value"], values["calls"]) for _, values in asked] == [("x", 1)] * 100
    assert memoized.time.waiting == 0


def test_when_the_one_who_finds_it_leaves_another_goes_on() -> None:
    memoized = Memoized("kumo.sleep(1) return a")
    first, second = memoized.ask(a="x"), memoized.ask(a="x")
    memoized.time.pass_time(0.5)
    first[0].cancel()
    memoized.time.pass_time(1)
    assert second[1] == {"a": "x", "value": "x", "calls": 2}


def test_an_error_is_kept_for_a_minute() -> None:
    memoized = Memoized("error 'broken'")
    for _ in range(2):
        with pytest.raises(PolicyError, match="broken"):
            memoized.value()
    memoized.time.pass_time(60)
    with pytest.raises(PolicyError, match="broken"):
        memoized.value()


def test_a_verdict_is_no_result() -> None:
    memoized = Memoized("if calls == 1 then kumo.reject(550, 'no') end return calls")
    with pytest.raises(Rejected):
        memoized.value()
    assert memoized.value() == (2, 2)


def test_who_waits_too_long_for_another_gets_an_error_or_finds_it() -> None:
    memoized = Memoized("kumo.sleep(20) return a", "{ name = 't', ttl = 60, capacity = 4, populate_timeout = '5s' }")
    asked = [memoized.ask(a="x") for _ in range(2)]
    memoized.time.pass_time(5)
    with pytest.raises(PolicyError, match=r"kumo.memoize: t: the value is not there after 5 seconds"):
        asked[1][0].result()
    memoized.time.pass_time(15)
    assert asked[0][1]["value"] == "x"


def test_a_stale_value_is_given_while_it_is_found_anew() -> None:
    options = "{ name = 't', ttl = '10s', capacity = 4, allow_stale_reads = true }"
    memoized = Memoized("if calls > 1 then kumo.sleep(1) end return calls", options)
    assert memoized.value() == (1, 1)
    memoized.time.pass_time(11)
    assert memoized.value()[0] == 1
    assert memoized.value()[0] == 1
    memoized.time.pass_time(1)
    assert memoized.value() == (2, 2)


def test_a_decision_lasts_as_long_as_what_it_stands_on() -> None:
    clock = Clock()
    policy = load(
        f"""
        local asked = 0
        local granted = kumo.memoize(function(domain)
          asked = asked + 1
          return asked % 2 == 1 and os.time() > 0
        end, {OPTIONS})
        kumo.on('get_listener_domain', function(domain, listener, conn_meta)
          if granted(domain) then
            return kumo.make_listener_domain {{ relay_to = conn_meta:get_meta 'a' == 1 }}
          end
          conn_meta:get_meta 'b'
        end)
        """,
        clock=clock,
    )
    assert [answered_from(policy, a=1) for _ in range(3)] == ["lua", "cache", "cache"]
    assert ask(policy, a=1).relay_to  # type: ignore[attr-defined]
    clock.now += 11
    assert ask(policy, a=1) is None  # reads something else now, and that is no contradiction
    assert [answered_from(policy, a=1) for _ in range(2)] == ["cache", "cache"]
    assert answered_from(policy, b=2) == "lua"
    clock.now += 11
    assert ask(policy, a=1).relay_to  # type: ignore[attr-defined]
    assert answered_from(policy, a=1) == "cache"


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("kumo.memoize(5, {})", "kumo.memoize: expected a function and a table, got a number"),
        ("kumo.memoize(print, { name = 'x', ttl = 1 })", "'capacity' is missing"),
        ("kumo.memoize(print, { name = 'x', ttl = 1, capacity = 1, tll = 5 })", "unknown option"),
    ],
)
def test_wrong_options_are_found_while_loading(call: str, problem: str) -> None:
    with pytest.raises(PolicyProblems, match=problem):
        load(call)


def test_what_cannot_be_a_key_or_a_value_is_an_error() -> None:
    memoized = Memoized("return function() end")
    with pytest.raises(PolicyError, match="cannot keep a function"):
        memoized.value()
    policy = load(f"""
        local f = kumo.memoize(function() end, {OPTIONS})
        kumo.on('smtp_server_mail_from', function() f(print) end)
    """)
    with pytest.raises(PolicyError, match=r"kumo.memoize: an argument is"):
        policy.mail_from(SENDER, ConnMeta({})).result()
