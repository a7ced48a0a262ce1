"""kumo.make_throttle: by the machine's clock, or a Redis server's that several share; require 'redis'."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.background import Background
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy
from gateway.policy.outside import throttles
from gateway.policy.outside.throttles import Rate, Throttles
from gateway.policy.problems import PolicyProblems
from gateway.smtp.address import parse_address
from tests.gateway_process import INIT, Gateway
from tests.outside import RealRedisServer, RedisServer, redis_server
from tests.policy_tools import Clock, load
from tests.programs import program

SENDER = parse_address("a@a.example")


@pytest.mark.parametrize(
    ("text", "interval", "burst", "local"),
    [
        ("10/s", 0.1, 10, False),
        ("10/second", 0.1, 10, False),
        ("local:50/minute", 1.2, 50, True),
        ("60/minute,max_burst=1", 1, 1, False),
        ("20/30minute", 90, 20, False),
        ("1,000/hr", 3.6, 1000, False),
        ("1_000/h", 3.6, 1000, False),
        ("10_000/d", 8.64, 10000, False),
        ("6/2m,max_burst=1_0", 20, 10, False),
    ],
)
def test_a_rate_is_read(text: str, interval: float, burst: int, local: bool) -> None:
    assert Rate.read(text) == Rate(pytest.approx(interval), burst, local)


@pytest.mark.parametrize(
    "text", ["", "10", "10/", "/s", "10/x", "-1/s", "0/s", "1/0s", "1/s,max_burst=0", "1/s,burst=2"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no rate such as|allows nothing"):
        Rate.read(text)


def test_so_many_come_at_once_and_then_one_by_one() -> None:
    some, rate = Throttles(), Rate.read("6/m")
    turns = [some.turn("a", rate, 0) for _ in range(7)]
    assert [turn.retry_after is None for turn in turns] == [True] * 6 + [False]
    assert [turn.remaining for turn in turns] == [5, 4, 3, 2, 1, 0, 0]
    assert (turns[0].reset_after, turns[6].reset_after, turns[6].retry_after) == (10, 60, 10)
    assert some.turn("a", rate, 9.9).retry_after == pytest.approx(0.1)
    assert some.turn("a", rate, 10).retry_after is None
    assert some.turn("b", rate, 10).remaining == 5


@given(
    gaps=st.lists(st.floats(0, 30), max_size=60),
    quantity=st.integers(1, 20),
    burst=st.integers(1, 20),
)
def test_no_window_has_more_than_the_rate_and_the_burst_allow(gaps: list[float], quantity: int, burst: int) -> None:
    rate, some, now, come = Rate(60 / quantity, burst, False), Throttles(), 0.0, []
    for gap in gaps:
        now += gap
        turn = some.turn("x", rate, now)
        if turn.retry_after is None:
            come.append(now)
        else:
            assert Throttles.turn(some, "x", rate, now + turn.retry_after).retry_after is None
            come.append(now + turn.retry_after)
            now += turn.retry_after
    for first in range(len(come)):
        for last in range(first, len(come)):
            assert last - first + 1 <= burst + (come[last] - come[first]) / rate.interval + 1e-3


def test_names_are_bounded_and_those_in_use_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttles, "MOST", 100)
    some, slow, quick = Throttles(), Rate.read("1/h"), Rate.read("1/s")
    some.turn("slow", slow, 0)
    for number in range(1000):
        some.turn(f"quick {number}", quick, number * 0.001)
    assert some.turn("slow", slow, 2).retry_after is not None


# --- in a policy ------------------------------------------------------------------------------------------------------


class Asking:
    """A policy whose handler for MAIL FROM puts something into `result`, each time it is asked."""

    def __init__(self, body: str, clock: Callable[[], float], start: str) -> None:
        self.background = Background(asyncio.new_event_loop())
        text = f"""
            {start}
            kumo.on('smtp_server_mail_from', function(sender, conn_meta)
              local result
              {body}
              conn_meta:set_meta('result', result)
            end)
        """
        self.policy: Policy = load(text, clock=clock, background=self.background)

    def __call__(self) -> Any:
        conn = ConnMeta({})
        self.policy.finish(self.policy.mail_from(SENDER, conn))
        return conn.values["result"]

    def close(self) -> None:
        self.background.loop.run_until_complete(self.background.close())
        self.background.loop.close()


@pytest.fixture
def handled() -> Iterator[Callable[..., Asking]]:
    asking: list[Asking] = []

    def make(body: str, clock: Callable[[], float], start: str = "") -> Asking:
        asking.append(Asking(body, clock, start))
        return asking[-1]

    yield make
    for one in asking:
        one.close()


def test_a_policy_is_told_how_it_stands(handled: Callable[..., Asking]) -> None:
    clock = Clock()
    ask = handled("result = kumo.make_throttle('for ' .. sender.email, '2/minute'):throttle()", clock)
    assert ask() == {"throttled": False, "limit": 2, "remaining": 1, "reset_after": 30}
    assert ask()["throttled"] is False
    assert ask() == {"throttled": True, "limit": 2, "remaining": 0, "reset_after": 60, "retry_after": 30}
    clock.now += 30
    assert ask()["throttled"] is False


def test_a_handler_sleeps_until_it_may_go_on(handled: Callable[..., Asking]) -> None:
    ask = handled("result = kumo.make_throttle('x', '20/s,max_burst=1'):sleep_if_throttled()", time.monotonic)
    assert not ask()
    assert any(ask() for _ in range(100))


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("kumo.make_throttle('x', 'often')", "kumo.make_throttle: 'often' is no rate such as '50/minute'"),
        ("kumo.make_throttle('x')", "kumo.make_throttle: expected a string, got nil"),
        ("kumo.make_throttle('x', '1/s'):delay_message_if_throttled()", "messages are not delayed by relay-gateway"),
        ("kumo.configure_redis_throttles {}", "kumo.configure_redis_throttles: 'node' is missing"),
        ("require('redis').open { node = 'x' }", "redis.open: node: expected the URL of one server"),
        (
            "require('redis').open { node = 'redis://h/', cluster = true }",
            "cluster: not supported yet",
        ),
        (
            "require('redis').open({ node = 'redis://127.0.0.1:1/' }):query('get', 'x')",
            "RedisConnection:query: GET: Error",
        ),
        ("require('redis').open({ node = 'redis://h/' }):query({})", "query: expected a string, got a table"),
    ],
)
def test_what_goes_wrong_is_a_lua_error(code: str, problem: str) -> None:
    with pytest.raises(PolicyProblems) as raised:
        load(code)
    assert problem in raised.value.problems[0].message


def test_without_the_extra_redis_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(PolicyProblems, match=r"pip install 'relay-gateway\[redis\]'"):
        load("require('redis').open { node = 'redis://127.0.0.1/' }")


# --- with a Redis server ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedisServer]:
    with RealRedisServer(program("redis-server"), tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.mark.parametrize("kind", ["server", "real_server"])
def test_a_policy_asks_redis(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(kind)
    text = f"""
        local conn = require('redis').open {{ node = '{server.url}' }}
        local result = {{
          conn:query('SET', 'k', '\\xff'), #conn:query('get', 'k'), tostring(conn:query('get', 'none')),
          conn:query('INCRBY', 'n', 2), conn:query('INCRBY', 'n', 3), conn:query('mget', 'n', 'n')[2],
          tostring(select(2, pcall(conn.query, conn, 'nonsense'))),
        }}
        kumo.on('init', function()
          local said = kumo.encode.hex_encode(kumo.json_encode(result))
          kumo.start_esmtp_listener {{ listen = '127.0.0.1:0', banner = said }}
        end)
    """
    found = json.loads(bytes.fromhex(load(text).config.listeners[0].overrides["banner"]))
    assert found[:6] == ["OK", 1, "nil", 2, 5, "5"]
    assert "NONSENSE: unknown command 'nonsense'" in found[6]


def test_redis_is_told_who_asks(real_server: RealRedisServer) -> None:
    text = f"""
        local redis = require 'redis'
        local conn = redis.open {{ node = '{real_server.url}' }}
        conn:query('ACL', 'SETUSER', 'one', 'on', '>secret', '~*', '+@all')
        local it = {{ node = '{real_server.url}', username = 'one', password = 'secret' }}
        assert(redis.open(it):query('ACL', 'WHOAMI') == 'one')
        it.password = 'wrong'
        local ok, problem = pcall(function() return redis.open(it):query('ACL', 'WHOAMI') end)
        assert(not ok and not tostring(problem):find 'wrong ')
    """
    load(text)


def test_redis_itself_runs_the_script_of_throttles(
    real_server: RealRedisServer, handled: Callable[..., Asking]
) -> None:
    # other options than these are none of KumoMTA's, which takes no notice of them
    start = f"kumo.configure_redis_throttles {{ node = '{real_server.url}', limits = {{ max = 1 }} }}"
    turn = "result = kumo.make_throttle('real', '2/day'):throttle()"
    one, other = (handled(turn, Clock(), start) for _ in range(2))
    assert [one()["throttled"], other()["throttled"], one()["throttled"]] == [False, False, True]
    assert one()["remaining"] == 0
    assert one()["retry_after"] > 43_000


def test_throttles_are_shared_through_redis(server: RedisServer, handled: Callable[..., Asking]) -> None:
    start = f"kumo.configure_redis_throttles {{ node = '{server.url}' }}"
    turn = "result = kumo.make_throttle(spec_name, spec):throttle()"
    one = handled(turn, Clock(), f"{start} spec_name, spec = 'shared', '2/minute'")
    other = handled(turn, Clock(), f"{start} spec_name, spec = 'shared', '2/minute'")
    assert [one()["throttled"], other()["throttled"], one()["throttled"]] == [False, False, True]
    assert one() == {"throttled": True, "limit": 2, "remaining": 0, "reset_after": 60, "retry_after": 30}
    server.now += 30
    assert other() == {"throttled": False, "limit": 2, "remaining": 0, "reset_after": 60}
    local = handled(turn, Clock(), f"{start} spec_name, spec = 'shared', 'local:2/minute'")
    assert local()["remaining"] == 1


def test_without_an_answer_the_worker_counts_by_itself(
    handled: Callable[..., Asking], caplog: pytest.LogCaptureFixture
) -> None:
    start = "kumo.configure_redis_throttles { node = 'redis://127.0.0.1:1/' }"
    ask = handled("result = kumo.make_throttle('x', '1/minute'):throttle().throttled", Clock(), start)
    assert [ask(), ask()] == [False, True]
    assert "shared throttles do not answer" in caplog.text


# --- at the wire ------------------------------------------------------------------------------------------------------


def test_a_throttled_session_waits_and_others_do_not(start: Any) -> None:
    gateway: Gateway = start(
        f"""{INIT}
        kumo.on('smtp_server_mail_from', function(sender)
          if not kumo.make_throttle('per ' .. sender.email, '1/h'):sleep_if_throttled() then return end
        end)
        kumo.on('smtp_server_rcpt_to', function(recipient)
          if kumo.make_throttle('rcpt', '2/h'):throttle().throttled then kumo.reject(451, '4.4.5 try again later') end
        end)
        kumo.on('get_listener_domain', function() return kumo.make_listener_domain {{ relay_to = true }} end)
        """,
        "--workers",
        "1",
    )
    with gateway.smtp() as client, gateway.connect() as throttled:
        client.ehlo()
        assert client.mail("a@a.example")[0] == 250
        throttled.sendall(b"EHLO b.example\r\nMAIL FROM:<a@a.example>\r\n")
        assert [client.rcpt(f"{n}@b.example")[0] for n in range(3)] == [250, 250, 451]
        with gateway.smtp() as other:
            other.ehlo()
            assert other.mail("b@b.example")[0] == 250
        throttled.setblocking(False)
        assert b"2.1.0" not in throttled.recv(4096)


@pytest.mark.parametrize("cause", ["timeout", "error"])
def test_all_workers_count_together_when_redis_does_not_answer(start: Any, cause: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if cause == "timeout" else 1
        gateway: Gateway = start(
            f"""{INIT}
            kumo.configure_redis_throttles {{ node = 'redis://127.0.0.1:{port}/', response_timeout = 0.05 }}
            kumo.on('smtp_server_mail_from', function()
              if kumo.make_throttle('all', '5/h'):throttle().throttled then kumo.reject(451, '4.4.5 later') end
            end)
            """,
            "--workers",
            "4",
        )
        answers = []
        for _ in range(12):
            with gateway.smtp() as client:
                client.ehlo()
                answers.append(client.mail("a@a.example")[0])
        assert answers == [250] * 5 + [451] * 7
        assert gateway.metric(f'throttle_fallbacks_total{{cause="{cause}"}}') == 12
