"""Handlers that wait: their session stands still, and nothing else does."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from gateway.later import Later
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import Evaluation
from gateway.policy.decisions import Decisions
from gateway.policy.engine import Policy, PolicyError, Rejected
from gateway.smtp.address import parse_address
from tests.gateway_process import INIT, Gateway, wait_until
from tests.policy_tools import LISTENER, Clock, PassingTime, load, new_page

SENDER = parse_address("a@example.com")


class Waiting:
    """A policy whose time passes when a test says so."""

    def __init__(self, text: str, **options: Any) -> None:
        self.clock = Clock()
        self.time = PassingTime(self.clock)
        self.page = new_page()
        self.policy: Policy = load(text, clock=self.clock, background=self.time, page=self.page, **options)
        self.conn = ConnMeta({})

    def mail_from(self) -> Later:
        return self.policy.mail_from(SENDER, self.conn)


def mail_from(body: str) -> Waiting:
    return Waiting(f"kumo.on('smtp_server_mail_from', function(sender, conn_meta)\n{body}\nend)")


def test_a_handler_waits_and_goes_on_where_it_stood() -> None:
    waiting = mail_from("local n = 1; kumo.sleep(2); n = n + 1; kumo.sleep '0.5'; kumo.reject(550, 'n is ' .. n)")
    answer = waiting.mail_from()
    waiting.time.pass_time(2.4)
    assert not answer.done
    waiting.time.pass_time(0.1)
    with pytest.raises(Rejected, match="550 n is 2"):
        answer.result()


@pytest.mark.parametrize(
    "body",
    [
        "pcall(wait)",
        "pcall(pcall, pcall, wait)",
        "xpcall(wait, print)",
        "setmetatable({}, { __index = wait }).x = nil; local _ = setmetatable({}, { __index = wait }).x",
        "local _ = setmetatable({}, { __add = wait }) + 1",
        "for _ in wait do break end",
        "load('wait()')()",
        "coroutine.wrap(wait)()",
        "coroutine.wrap(function() coroutine.wrap(function() pcall(wait) end)() end)()",
        "assert(coroutine.wrap(function() wait() coroutine.yield(5) end)() == 5)",
        "coroutine.resume(coroutine.create(wait))",
        "do local _ <close> = setmetatable({}, { __close = wait }) end",
    ],
)
def test_waiting_works_wherever_lua_can_yield(body: str) -> None:
    waiting = mail_from(f"""
        local waited = false
        function wait() kumo.sleep(1); waited = true end
        {body}
        conn_meta:set_meta('waited', waited)
    """)
    answer = waiting.mail_from()
    assert not answer.done
    waiting.time.pass_time(1)
    answer.result()
    assert waiting.conn.values == {"waited": True}


@pytest.mark.parametrize(
    "body",
    [
        "table.sort({ 1, 2 }, function(a, b) kumo.sleep(1) return a < b end)",
        "string.gsub('x', 'x', function() kumo.sleep(1) end)",
        "tostring(setmetatable({}, { __tostring = function() kumo.sleep(1) return '' end }))",
        "package.preload.waits = function() kumo.sleep(1) end; require 'waits'",
    ],
)
def test_where_lua_cannot_yield_waiting_is_an_error_that_says_so(body: str) -> None:
    waiting = mail_from(body)
    with pytest.raises(PolicyError, match=r"kumo.sleep cannot wait here: inside table.sort, "):
        waiting.mail_from().result()
    assert waiting.time.waiting == 0


def test_errors_after_a_wait_have_their_place() -> None:
    waiting = mail_from("kumo.sleep(1)\nlocal nothing\nreturn nothing.field")
    answer = waiting.mail_from()
    waiting.time.pass_time(1)
    with pytest.raises(PolicyError, match=r"policy.lua:4: attempt to index a nil value"):
        answer.result()


def test_an_error_of_the_gateway_names_the_line_in_a_coroutine_too() -> None:
    waiting = mail_from("coroutine.wrap(function()\nkumo.sleep(1)\nkumo.sleep 'x' end)()")
    answer = waiting.mail_from()
    waiting.time.pass_time(1)
    with pytest.raises(PolicyError, match=r"policy.lua:4: kumo.sleep: expected a number of seconds, got x"):
        answer.result()


def test_a_handler_is_no_coroutine_of_the_policys() -> None:
    waiting = mail_from("""
        assert(select(2, coroutine.running()))
        assert(not coroutine.isyieldable())
        local ok, problem = pcall(coroutine.yield)
        assert(not ok and problem:find 'attempt to yield from outside a coroutine')
        local co = coroutine.create(function(a) local b = coroutine.yield(a + 1) return b * 2 end)
        assert(select(2, coroutine.resume(co, 1)) == 2)
        assert(select(2, coroutine.resume(co, 5)) == 10)
        assert(coroutine.status(co) == 'dead')
        local ok, problem = pcall(coroutine.wrap(function() error('x', 0) end))
        assert(not ok and problem == 'x')
    """)
    waiting.mail_from().result()


def test_many_wait_at_once_and_each_has_its_own_state() -> None:
    waiting = mail_from("local name = conn_meta:get_meta 'name'; kumo.sleep(1); conn_meta:set_meta('seen', name)")
    conns = [ConnMeta({"name": number}) for number in range(100)]
    answers = [waiting.policy.mail_from(SENDER, conn) for conn in conns]
    assert not any(answer.done for answer in answers)
    waiting.time.pass_time(1)
    assert [conn.values["seen"] for conn in conns] == list(range(100))
    assert waiting.time.waiting == 0


def test_a_handler_that_nobody_waits_for_ends_and_cannot_catch_that() -> None:
    waiting = mail_from("""
        local closing <close> = setmetatable({}, { __close = function() closed = true end })
        while true do pcall(kumo.sleep, 1); pcall(error) end
    """)
    answer = waiting.mail_from()
    answer.cancel()
    assert waiting.time.waiting == 0
    waiting.time.pass_time(5)
    again = mail_from("kumo.reject(550, tostring(closed))")
    assert again.mail_from().failed


def test_a_handler_waits_for_30_seconds_at_most_all_in_all() -> None:
    waiting = mail_from("while true do pcall(kumo.sleep, 7) end")
    answer = waiting.mail_from()
    waiting.time.pass_time(29.9)
    assert not answer.done
    waiting.time.pass_time(0.1)
    with pytest.raises(PolicyError, match="it waited for more than 30 seconds"):
        answer.result()
    assert waiting.time.waiting == 0


def test_a_policy_may_wait_while_it_is_loaded() -> None:
    policy = load("kumo.sleep(0.001); kumo.on('init', function() kumo.sleep(0.001) end)")
    assert policy.handles == {"init"}


def test_a_spawned_task_runs_apart_and_its_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    waiting = Waiting("""
        kumo.on('task', function(args) kumo.sleep(1); seen = args.n; if args.n == 2 then error 'task failed' end end)
        kumo.on('smtp_server_mail_from', function(_, conn_meta)
          kumo.spawn_task { event_name = 'task', args = { n = (seen or 0) + 1 } }
          conn_meta:set_meta('seen', seen)
        end)
    """)
    for _ in range(3):
        answer = waiting.mail_from()
        assert answer.done
        waiting.time.pass_time(1)
    assert waiting.conn.values["seen"] == 2
    assert "task: policy.lua:2: task failed" in caplog.text


# --- get_listener_domain: a herd asks once ----------------------------------------------------------------


class Handler:
    """In the place of get_listener_domain: answers when a test says so; reads `user` unless told otherwise."""

    def __init__(self, stable: bool = True) -> None:
        self.calls: list[tuple[Later, Evaluation]] = []
        self.stable = stable
        self.decisions = Decisions(self.evaluate, new_page(), 1000, Clock())  # type: ignore[arg-type]

    def evaluate(self, evaluation: Evaluation, domain: str, listener: str, conn: ConnMeta) -> Later:
        evaluation.read(conn, "user", conn.values.get("user"))
        evaluation.stable = self.stable
        later = Later()
        self.calls.append((later, evaluation))
        return later

    def ask(self, domain: str = "example.com", **meta: object) -> Later:
        return self.decisions.listener_domain(domain, LISTENER, ConnMeta(meta))


def test_a_herd_asks_once() -> None:
    handler = Handler()
    answers = [handler.ask() for _ in range(1000)]
    assert len(handler.calls) == 1
    handler.calls[0][0].settle("granted")
    assert {answer.result() for answer in answers} == {"granted"}
    assert handler.ask().result() == "granted"
    assert len(handler.calls) == 1


def test_an_error_is_shared_and_not_kept() -> None:
    handler = Handler()
    answers = [handler.ask() for _ in range(3)]
    handler.calls[0][0].fail(PolicyError("no"))
    assert all(answer.failed for answer in answers)
    assert not handler.ask().done
    assert len(handler.calls) == 2


def test_who_reads_otherwise_asks_again_at_once_and_together() -> None:
    handler = Handler()
    answers = [handler.ask(user=user) for user in "abcabcabc"]
    handler.calls[0][0].settle("for a")
    assert [answer.done for answer in answers] == [True, False, False] * 3
    assert len(handler.calls) == 3  # one for b and one for c
    handler.calls[1][0].settle("for b")
    handler.calls[2][0].settle("for c")
    assert [answer.result() for answer in answers] == ["for a", "for b", "for c"] * 3


def test_what_is_good_for_one_only_is_not_shared() -> None:
    handler = Handler(stable=False)
    answers = [handler.ask() for _ in range(3)]
    handler.calls[0][0].settle(1)
    assert [answer.done for answer in answers] == [True, False, False]
    assert len(handler.calls) == 3
    for _ in range(2):
        assert not handler.ask().done  # from now on nobody waits for somebody else
    assert len(handler.calls) == 5


def test_a_handler_goes_on_while_anybody_waits_for_it() -> None:
    handler = Handler()
    first, second = handler.ask(), handler.ask()
    first.cancel()
    handler.calls[0][0].settle("granted")
    assert second.result() == "granted"


def test_when_nobody_waits_any_more_the_handler_ends() -> None:
    waiting = Waiting("kumo.on('get_listener_domain', function() kumo.sleep(1) end)")
    answers = [waiting.policy.listener_domain("example.com", LISTENER, ConnMeta({})) for _ in range(3)]
    for answer in answers:
        answer.cancel()
    assert waiting.time.waiting == 0


# --- at the wire ------------------------------------------------------------------------------------------

TO_NULL = "kumo.on('smtp_server_message_received', function(msg) msg:set_meta('queue', 'null') end)\n"
RELAYS = "kumo.on('get_listener_domain', function() return kumo.make_listener_domain { relay_to = true } end)\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Any:
    policy = f"""{INIT}{RELAYS}
        local function slow(name, text)
          kumo.on(name, function(first)
            if tostring(first):find 'slow' then kumo.sleep(0.05) end
            if tostring(first):find 'stuck' then kumo.sleep(20) end
            if tostring(first):find 'refused' then kumo.sleep(0.05) kumo.reject(550, text) end
          end)
        end
        slow('smtp_server_ehlo', 'ehlo')
        slow('smtp_server_mail_from', 'mail')
        slow('smtp_server_rcpt_to', 'rcpt')
        kumo.on('smtp_server_connection_accepted', function(conn_meta) kumo.sleep(0.05) end)
        kumo.on('smtp_server_message_received', function(msg)
          kumo.sleep(0.05)
          msg:set_meta('queue', 'null')
          msg:set_meta('x_waited', true)
        end)
    """
    running = Gateway(tmp_path_factory.mktemp("async"), policy, "--workers", "1")
    yield running
    running.stop()


def replies(sock: socket.socket, count: int) -> list[str]:
    with sock.makefile("rb") as lines:
        found: list[str] = []
        while len(found) < count:
            line = lines.readline().decode()
            assert line, found
            if line[3] == " ":
                found.append(line.rstrip())
        return found


def test_pipelined_commands_wait_their_turn_while_handlers_wait(gateway: Gateway) -> None:
    with gateway.connect() as sock:
        sock.sendall(
            b"EHLO slow.example\r\nMAIL FROM:<slow@a.example>\r\nRCPT TO:<slow@b.example>\r\n"
            b"RCPT TO:<refused@b.example>\r\nRCPT TO:<quick@b.example>\r\nDATA\r\n"
        )  # before the greeting, which waits, too
        found = replies(sock, 7)
        assert [reply[:3] for reply in found] == ["220", "250", "250", "250", "550", "250", "354"]
        sock.sendall(b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
        assert [reply[:3] for reply in replies(sock, 2)] == ["250", "221"]
        assert sock.recv(1) == b""


def test_a_client_that_closes_its_side_gets_the_replies_that_wait(gateway: Gateway) -> None:
    with gateway.connect() as sock:
        sock.sendall(b"EHLO slow.example\r\nMAIL FROM:<slow@a.example>\r\nQUIT\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert [reply[:3] for reply in replies(sock, 4)] == ["220", "250", "250", "221"]


def test_a_client_that_is_gone_leaves_nothing_behind(gateway: Gateway) -> None:
    with gateway.connect() as sock:
        sock.sendall(b"EHLO a.example\r\nMAIL FROM:<stuck@a.example>\r\n")
        assert [reply[:3] for reply in replies(sock, 2)] == ["220", "250"]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST: not only its side
    wait_until(lambda: gateway.metric("connections_open") == 0, "the connection is gone")


def test_others_are_served_while_many_wait(gateway: Gateway) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            sock = stack.enter_context(gateway.connect())
            sock.sendall(b"EHLO a.example\r\nMAIL FROM:<stuck@a.example>\r\n")
        client = stack.enter_context(gateway.smtp())
        client.sendmail("a@a.example", ["b@b.example"], b"Subject: x\r\n\r\nx\r\n")


def test_a_drain_waits_for_what_handlers_wait_for(tmp_path: Path) -> None:
    policy = f"""{INIT}{RELAYS}{TO_NULL}
        kumo.on('smtp_server_rcpt_to', function() kumo.sleep(0.5) end)
    """
    running = Gateway(tmp_path, policy, "--workers", "1")
    try:
        with running.connect() as sock:
            sock.sendall(b"EHLO a.example\r\nMAIL FROM:<a@a.example>\r\n")
            assert len(replies(sock, 3)) == 3
            sock.sendall(b"RCPT TO:<b@b.example>\r\nDATA\r\n")
            running.process.terminate()
            assert [reply[:3] for reply in replies(sock, 2)] == ["250", "354"]
            sock.sendall(b"Subject: x\r\n\r\nx\r\n.\r\n")
            assert [reply[:3] for reply in replies(sock, 2)] == ["250", "421"]
    finally:
        running.stop()


def test_the_end_of_a_worker_is_told_to_the_policy_which_may_wait(tmp_path: Path) -> None:
    policy = (
        INIT
        + """
        kumo.on('shutdown_logging', function()
          kumo.sleep(0.05)
          local file = io.open(LOGS .. '/../farewell', 'a')
          file:write 'bye\\n'
          file:close()
          error 'this keeps nobody'
        end)
    """
    )
    running = Gateway(tmp_path, policy, "--workers", "2")
    running.announced()
    running.stop()
    assert (tmp_path / "farewell").read_text() == "bye\n" * 2
