"""What `check` says of handlers that it calls as for a first message: what fails, and who would be asked."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from gateway.policy.check import report
from gateway.policy.problems import Severity
from tests.policy_tools import examine, source_of

INIT = "kumo.on('init', function() kumo.start_esmtp_listener { listen = '127.0.0.1:25', OPTIONS } end)\n"


def rehearsed(handlers: str, options: str = "relay_hosts = { '10.0.0.0/8' }") -> list[str]:
    problems, _, _ = examine(source_of(INIT.replace("OPTIONS", options) + handlers))
    return list(map(str, problems))


@pytest.mark.parametrize(
    "event",
    [
        "smtp_server_get_dynamic_parameters",
        "smtp_server_connection_accepted",
        "smtp_server_ehlo",
        "smtp_server_rewrite_response",
        "smtp_server_mail_from",
        "get_listener_domain",
        "smtp_server_rcpt_to",
        "smtp_server_data",
        "smtp_server_split_transaction",
        "smtp_server_message_received",
        "get_queue_config",
    ],
)
def test_a_handler_that_fails_is_a_problem(event: str) -> None:
    assert rehearsed(f"kumo.on('{event}', function(...)\nlocal t = {{ x = tonumber 'a' }} return t.x.y end)") == [
        f"policy.lua:3: attempt to index a nil value (field 'x'); so {event} fails for a first message"
    ]


FAILING = "kumo.on('smtp_server_message_received', function(msg) return msg:get_meta('none').y end)"


@pytest.mark.parametrize(
    ("options", "handlers"),
    [
        ("relay_hosts = {}, peer = { ['10.0.0.0/8'] = { relay_hosts = { '10.1.0.0/16' } } }", ""),
        ("relay_hosts = {}, peer = { ['10.1.0.0/16'] = { relay_hosts = { '10.0.0.0/8' } } }", ""),
        ("relay_hosts = {}, via = { ['127.0.0.1'] = { relay_hosts = { '10.0.0.0/8' } } }", ""),
        ("relay_hosts = { '192.0.2.0/24' }", ""),  # where the stranger is
        (
            "relay_hosts = {}",
            "kumo.on('smtp_server_get_dynamic_parameters', function() return { relay_hosts = { '10.0.0.1' } } end)",
        ),
        (
            "relay_hosts = {}",
            "kumo.on('get_listener_domain', function(domain) if domain == 'a.example' then "
            "return kumo.make_listener_domain { relay_from = { '10.0.0.0/8' } } end end)",
        ),
        (
            "relay_hosts = {}",
            "kumo.on('get_listener_domain', require('policy-extras.listener_domains'):setup { 'FILE' })",
        ),
    ],
)
def test_whoever_may_relay_somehow_sends_a_first_message(options: str, handlers: str, tmp_path: Path) -> None:
    file = tmp_path / "domains.toml"
    file.write_text("['*.far.example']\nrelay_to = true\n")
    [problem] = rehearsed(handlers.replace("FILE", str(file)) + "\n" + FAILING, options)
    assert (
        problem
        == "policy.lua:3: attempt to index a nil value; so smtp_server_message_received fails for a first message"
    )


def test_a_client_has_the_metadata_of_its_block() -> None:
    options = (
        "relay_hosts = {}, peer = { ['10.0.0.0/8'] = { relay_hosts = { '10.1.0.0/16' }, meta = { class = 'a' } } }"
    )
    text = "kumo.on('smtp_server_message_received', function(msg, conn) {} conn:get_meta('class'):lower() end)"
    assert rehearsed(text.replace("{}", ""), options) == []
    assert rehearsed(text.replace("{}", "if conn:get_meta 'class' == 'a' then return msg:get_meta('x').y end"), options)


def test_domains_are_asked_about_when_the_handlers_before_have_run() -> None:
    handlers = """
    kumo.on('smtp_server_connection_accepted', function(conn) conn:set_meta('a', 'A') end)
    kumo.on('smtp_server_mail_from', function(sender, conn) conn:set_meta('b', sender.domain) end)
    kumo.on('get_listener_domain', function(domain, _, conn)
      local key = conn:get_meta('a'):lower() .. conn:get_meta('b'):lower()
      if domain == 'a.example' then return kumo.make_listener_domain { relay_to = key ~= '' } end
    end)
    """
    assert rehearsed(handlers) == []


def test_a_filter_of_a_logger_is_rehearsed() -> None:
    logs = "kumo.configure_local_logs { log_dir = '/tmp', filter_event = 'mine' } "
    [problem] = rehearsed(logs + "kumo.on('mine', function(msg) return msg:get_meta('x').y end)")
    assert problem.endswith("so mine fails for a first message")


def test_a_wrong_result_is_a_problem_where_the_handler_is_registered() -> None:
    assert rehearsed("kumo.on('get_listener_domain', function() return 5 end)") == [
        "policy.lua:2: the handler returned a number, expected nil or the result of kumo.make_listener_domain; "
        "so get_listener_domain fails for a first message"
    ]


@pytest.mark.parametrize(
    ("handlers", "options"),
    [
        ("kumo.on('smtp_server_rcpt_to', function() error 'x' end)", "relay_hosts = {}"),  # nobody may come so far
        ("kumo.on('smtp_server_mail_from', function() kumo.reject(550, 'no') end)", ""),
        ("kumo.on('smtp_server_mail_from', function() kumo.dns.lookup_txt 'x.invalid' error 'x' end)", ""),
        ("kumo.on('smtp_server_auth_plain', function(_, name) return name == 'ann' end)", ""),
    ],
)
def test_what_no_first_message_meets_is_not_a_problem(handlers: str, options: str) -> None:
    assert rehearsed(handlers, options) == []


ASK = """
local function ask(url)
  local response = kumo.http.build_client({}):post(url):body('x'):send()
  return response:text()
end
cached = kumo.memoize(ask, { name = 'a', ttl = '1h', capacity = 10 })
kumo.on('smtp_server_message_received', function(msg)
  CALL
end)
"""
URL = "http://user:secret@127.0.0.1:5566/dkim?token=secret"
ASKED = "policy.lua:LINE: note: asks WHOM, which check does not"
UNPREPARED = f"{ASKED}; without an answer smtp_server_message_received fails"


def notes_on(call: str) -> list[str]:
    """What is told of a policy whose last handler does that, and is good."""
    found, summary = report(source_of(INIT.replace("OPTIONS", "") + ASK.replace("CALL", call)))
    assert summary.startswith("good; ")
    assert {one.severity for one in found} <= {Severity.NOTE}
    return list(map(str, found))


@pytest.mark.parametrize(
    ("call", "told"),
    [(f"ask '{URL}'", UNPREPARED), (f"cached '{URL}'", UNPREPARED), (f"pcall(ask, '{URL}')", ASKED)],
)
def test_a_service_that_a_handler_asks_is_named_where_it_asks(call: str, told: str) -> None:
    assert notes_on(call) == [told.replace("LINE", "4").replace("WHOM", "POST http://127.0.0.1:5566/dkim")]


@pytest.mark.parametrize(
    ("call", "whom"),
    [
        ("kumo.dns.rbl_lookup('192.0.2.1', 'zen.example')", "the DNS"),
        ("kumo.dns.lookup_txt 'example.com'", "the DNS"),
        ("require('sqlite').open('/nowhere/x.db'):execute 'select 1'", "the database /nowhere/x.db"),
        ("kumo.secrets.load { vault_mount = 'm', vault_path = 'p' }", "the vault at http://127.0.0.1:8200"),
    ],
)
def test_whoever_is_asked_is_named(call: str, whom: str) -> None:
    assert notes_on(call) == [UNPREPARED.replace("LINE", "9").replace("WHOM", whom)]


def test_a_handler_that_minds_no_missing_answer_is_prepared() -> None:
    told = ASKED.replace("LINE", "9").replace("WHOM", "the DNS")
    assert notes_on("kumo.spf.check_msg(msg) msg:dkim_verify()") == [told]


def test_everybody_whom_a_handler_asks_is_named() -> None:
    call = f"pcall(ask, '{URL}') kumo.dns.lookup_ptr '192.0.2.1'\nrequire('sqlite').open('u'):execute 'select 1'"
    assert [re.sub("; .*", "", note) for note in notes_on(call)] == [
        ASKED.replace("LINE", line).replace("WHOM", whom)
        for line, whom in (("4", "POST http://127.0.0.1:5566/dkim"), ("9", "the DNS"), ("10", "the database u"))
    ]


def test_what_fails_with_one_answer_alone_is_told_and_no_problem() -> None:
    empty = f"local found = kumo.json_parse(ask '{URL}')\nmsg:set_meta('x', found.tenant.id)"
    why = "smtp_server_message_received fails for a first message, where there is an empty answer from POST"
    assert any(why in note for note in notes_on(empty))
    none = f"local ok, text = pcall(ask, '{URL}')\nif not ok then text = nil .. 'x' end"
    assert any(why.replace("an empty", "no") in note for note in notes_on(none))


def test_what_fails_whatever_is_answered_is_a_problem() -> None:
    always = ASK.replace("CALL", f"pcall(ask, '{URL}')\nlocal t = {{ x = tonumber 'a' }} t.x()")
    [problem] = rehearsed(always)
    assert problem.startswith("policy.lua:10: attempt to call a nil value (field 'x')")


def test_redis_is_named_without_its_password() -> None:
    pytest.importorskip("redis")
    told = UNPREPARED.replace("LINE", "9").replace("WHOM", "Redis at 127.0.0.1:6379")
    assert notes_on("require('redis').open { node = 'redis://:secret@127.0.0.1:6379/' }:query('GET', 'x')") == [told]


@pytest.mark.parametrize(
    ("handlers", "problem"),
    [
        (
            "kumo.on('get_listener_domain', function(domain)\n"
            "if domain == 'mine.example' then return kumo.make_listener_domain { relay_to = true } end end)\n"
            "kumo.on('smtp_server_message_received', function(msg) error 'x' end)",
            "policy.lua:4: x; so smtp_server_message_received fails for a first message",
        ),
        (
            "kumo.on('get_listener_domain', function(domain) if domain == 'mine.example' then error 'x' end end)",
            "policy.lua:2: x; so get_listener_domain fails for a first message",
        ),
        (
            "local users = { ann = 'tiger' }\n"
            "kumo.on('smtp_server_auth_plain', function(_, user, password) return users[user] == password end)\n"
            "kumo.on('smtp_server_mail_from', function(_, conn_meta)"
            " if conn_meta:get_meta 'authz_id' then error 'x' end end)",
            "policy.lua:4: x; so smtp_server_mail_from fails for a first message",
        ),
        (
            "kumo.on('smtp_server_auth_plain', function() error 'x' end)",
            "policy.lua:2: x; so smtp_server_auth_plain fails for a first message",
        ),
    ],
)
def test_whom_the_policy_itself_names_is_tried(handlers: str, problem: str) -> None:
    assert rehearsed(handlers, "relay_hosts = {}") == [problem]


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (
            "local sender = msg:sender().user:match '.+':lower()",
            "attempt to index a nil value; so EVENT fails for a message from <>",
        ),
        (
            "local to = msg:recipient().domain:lower()",
            "warning: attempt to index a nil value (field 'domain'); so EVENT fails for a message to two recipients",
        ),
    ],
)
def test_bounces_and_messages_to_several_are_tried(code: str, problem: str) -> None:
    event = "smtp_server_message_received"
    together = INIT.replace("OPTIONS", "batch_handling = 'Together'")
    found, _ = report(source_of(together + f"kumo.on('{event}', function(msg)\n{code} end)"))
    assert list(map(str, found)) == [f"policy.lua:3: {problem.replace('EVENT', event)}"]


def test_a_policy_that_asks_for_the_recipient_gets_a_message_for_each() -> None:
    code = "kumo.on('smtp_server_message_received', function(msg)\nlocal to = msg:recipient().domain:lower() end)"
    assert rehearsed(code) == []


def test_what_handlers_print_in_a_rehearsal_is_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    assert rehearsed("print 'loading'\nkumo.on('smtp_server_ehlo', function(domain) print(domain) end)") == []
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == "loading\n"


def test_what_the_gateway_has_not_is_found_behind_an_answer_that_does_not_come() -> None:
    [problem] = rehearsed(ASK.replace("CALL", f"local key = ask '{URL}' kumo.no_such_thing(key)"))
    assert problem == "policy.lua:9: kumo.no_such_thing: no such function"


def test_time_passes_at_once_in_a_rehearsal() -> None:
    [problem] = rehearsed("kumo.on('smtp_server_mail_from', function()\nkumo.sleep(60)\nerror 'x' end)")
    assert problem == "policy.lua:4: x; so smtp_server_mail_from fails for a first message"


def test_a_relay_host_and_a_stranger_are_both_tried() -> None:
    peer = "conn_meta:get_meta 'received_from'"
    met = f"kumo.on('smtp_server_mail_from', function(_, conn_meta) if {peer}:find '^PEER' then error 'x' end end)"
    for address in ("10.0.0.1", "192.0.2.1"):
        assert len(rehearsed(met.replace("PEER", address))) == 1
    assert rehearsed(met.replace("PEER", "127.0.0.1")) == []


def test_a_rehearsal_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert len(rehearsed("kumo.on('smtp_server_mail_from', function() error 'x' end)")) == 1
    assert caplog.records == []


def test_a_handler_that_never_ends_is_a_problem() -> None:
    limits = "kumo.set_handler_limits { processor_time = '100ms' } "
    [problem] = rehearsed(limits + "kumo.on('smtp_server_mail_from', function() while true do end end)")
    assert "it takes too much processor time" in problem


@pytest.mark.parametrize(
    ("call", "file", "line"),
    [
        ("local found = kumo.toml_load '/nowhere.toml'", "policy.lua", 3),
        ("dofile '/nowhere.lua'", "policy.lua", 3),
        ("local one = 1\nkumo.secrets.load { event_name = 'nobody' }", "policy.lua", 4),
        ("local helper = require 'helper'", "./helper.lua", 2),
    ],
)
def test_what_fails_inside_of_a_function_of_ours_is_told_where_the_policy_calls_it(
    call: str, file: str, line: int
) -> None:
    files = {"./helper": "\nkumo.toml_load '/nowhere.toml'"}
    [error], _, _ = examine(source_of(f"local kumo = require 'kumo'\n\n{call}", **files))
    assert (error.file, error.line) == (file, line), error
    assert "prelude" not in str(error)
