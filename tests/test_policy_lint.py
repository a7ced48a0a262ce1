"""What the text of a policy shows without running it, and that a problem is told once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Deployment, Destination, EgressPath, QueueConfig
from gateway.policy.delivery_side import HINT
from gateway.policy.findings import LuaFile
from gateway.policy.lint import Lint, options_of
from gateway.policy.model import of_this_gateway
from gateway.policy.options import UNKNOWN, Opaque
from gateway.policy.problems import NOT_YET, Severity
from tests.policy_tools import examine, source_of

MODEL = of_this_gateway()


def problems_of(text: str, **files: str) -> list[str]:
    problems, _, _ = examine(source_of(text, **files))
    return list(map(str, problems))


# --- text -------------------------------------------------------------------------------------------------


def literal(text: str) -> object:
    """What is known of the argument of a call."""
    lint = Lint(source_of(f"kumo.make_listener_domain({text})"), MODEL)
    [call] = lint.calls
    return options_of(call)[0]


def test_comments_and_strings_hide_what_they_contain() -> None:
    text = """
        -- kumo.a {}
        --[[ kumo.b {} ]] --[==[ kumo.c {} ]] kumo.d {} ]==]
        x = "kumo.e {}" .. 'kumo.f {}' .. [[ kumo.g {} ]] .. [=[ ]] kumo.h {} ]=] .. "\\"kumo.i {}"
        kumo.j {}
    """
    assert problems_of(text) == ["policy.lua:5: kumo.j: no such function"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'a\\n\\x41\\65\\u{e9}\\z   b'", "a\nAAéb"),
        ("[[\nlong\ntext]]", "long\ntext"),
        ("0x1F", 31),
        ("5", 5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("nil", None),
        ("{}", {}),
        ("{ 'a', 'b' }", {1: "a", 2: "b"}),
        ("{ a = 1; ['b c'] = 2, [3] = { d = false } }", {"a": 1, "b c": 2, 3: {"d": False}}),
        ("{ 1 + 1 }", {1: UNKNOWN}),
        ("{ a = f(1, { 2 }), b = 2 }", {"a": UNKNOWN, "b": 2}),
        ("{ a = function() end, b = 2 }", {"a": Opaque("function"), "b": 2}),
        ("{ [key] = 1, b = 2 }", UNKNOWN),
        ("{ 1, ... }", UNKNOWN),
        ("-5", -5),
        ("-0x1F", -31),
        ("{ 'a' .. x, -x, -1.5, - 5 }", {1: UNKNOWN, 2: UNKNOWN, 3: -1.5, 4: -5}),
        ("variable", UNKNOWN),
    ],
)
def test_literal_arguments(text: str, value: object) -> None:
    assert literal(text) == value


def test_names_stand_for_what_they_were_given_once() -> None:
    text = "local yes, no = 'yes', false; local t = { relay_to = yes }; local function f(x) return x end\n"
    assert problems_of(text + "kumo.make_listener_domain(f(t))") == [
        'policy.lua:1: kumo.make_listener_domain: relay_to: expected a boolean, found the string "yes"'
    ]


@pytest.mark.parametrize(
    "text",
    [
        "local x = 5; if os.getenv 'A' then x = true end kumo.make_listener_domain { relay_to = x }",
        "local t = { relay_too = 5 }; t.relay_too = nil kumo.make_listener_domain(t)",
        "local t = { relay_too = 5 }; table.remove(t) kumo.make_listener_domain(t)",
        "local t = { relay_too = 5 }; for k in pairs(t) do t[k] = nil end kumo.make_listener_domain(t)",
    ],
)
def test_names_and_tables_that_change_are_not_known(text: str) -> None:
    assert seen_in(text) == []


@given(st.text(alphabet="kumo.f{}[]()='\"-\\ \n,;aend1", max_size=60) | st.text(max_size=60))
def test_any_text_can_be_looked_at(text: str) -> None:
    for problem in Lint(source_of(text), MODEL).problems():
        assert 1 <= problem.line <= text.count("\n") + 1


@pytest.mark.parametrize("operator", ["..", "+", "or"])
def test_a_long_expression_can_be_looked_at(operator: str) -> None:
    assert seen_in("x = " + f" {operator} ".join(["'a'"] * 3000)) == []


# --- what can be reached ----------------------------------------------------------------------------------

RECEIVED = "kumo.on('smtp_server_message_received', function(msg, conn_meta)\n{}\nend)"


def seen_in(text: str, **files: str) -> list[str]:
    """What the text alone shows."""
    return sorted(map(str, Lint(source_of(text, **files), MODEL).problems()))


@pytest.mark.parametrize(
    "body",
    [
        "msg:no_such()",
        "local m = msg m:no_such()",
        "local function f(x) x:no_such() end f(msg)",
        "local function f(x) return function() x:no_such() end end f(msg)()",
        "local t = { check = function(x) x:no_such() end } t.check(msg)",
        "local t = {} function t.check(x) x:no_such() end t.check(msg)",
        "for _, f in ipairs { function() msg:no_such() end } do f() end",
        "table.sort({}, function() msg:no_such() end)",
        "local f f = function() msg:no_such() end f()",
        "function global_helper(x) x:no_such() end global_helper(msg)",
        "if msg:id() then msg:no_such() end",
        "local ok = os.getenv 'A' and msg:no_such()",
        "while os.getenv 'A' do msg:no_such() end",
        "repeat local x = msg:no_such() until x",
        "goto on ::on:: msg:no_such()",
        "do do msg:no_such() end end",
        "local m <const> = msg; (m):no_such()",
        "for _, f in next, { function() msg:no_such() end } do f() end",
        "(msg or msg):no_such()",
        "local f = os.getenv 'A' and function() msg:no_such() end f()",
        "repeat local m = msg until m:no_such()",
        "while false do end msg:no_such()",
        "local function f() msg:no_such() end f() f = print",
    ],
)
def test_a_method_that_is_nowhere_is_found_wherever_the_message_goes(body: str) -> None:
    [problem] = seen_in(RECEIVED.format(body))
    assert problem.partition("no_such")[2] == ": a message has no such method"
    assert "warning" not in problem


@pytest.mark.parametrize(
    "body",
    [
        "if false then msg:no_such() end",
        "if not kumo.reject then msg:no_such() end",
        "if kumo.no_such then kumo.no_such() end",
        "if kumo.no_such ~= nil then kumo.no_such() end",
        "if msg.no_such then msg:no_such() end",
        "return kumo.no_such and kumo.no_such()",
        "if kumo.reject then return end msg:no_such()",
        "kumo.reject(550, 'no') msg:no_such()",
        "error 'no' msg:no_such()",
        "while false do msg:no_such() end",
        "while false do local function f() msg:no_such() end end",
        "if false then local function f() msg:no_such() end end",
        "package.path = '/x/?.lua' local helper = require 'helper' helper.whatever(msg)",
        "msg = wrapped(msg) msg:no_such()",
        "_G['made'] = print made()",
        "load 'function made() end' () made()",
        "require(msg:id()) made()",
        "dofile(msg:id()) made()",
        "local t = {} t[msg:id()] = 1 t.no_such()",
        "local t = setmetatable({}, { __index = string }) t.no_such()",
        "local s = msg:id() s.x = 1",
        "string.no_such = 1 string.no_such()",
    ],
)
def test_nothing_is_said_of_what_cannot_be_reached_or_known(body: str) -> None:
    assert [one for one in seen_in(RECEIVED.format(body)) if "wrapped" not in one] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kumo.log_warning 'x'", "kumo.log_warning: no such function; did you mean 'log_warn'?"),
        ("local k = require 'kumo' k.log_warning 'x'", "kumo.log_warning: no such function; did you mean 'log_warn'?"),
        ("local f = kumo.log_warning f 'x'", "kumo.log_warning: no such function; did you mean 'log_warn'?"),
        ("require('kumo.string').splt('a', 'b')", "kumo.string.splt: no such function; did you mean 'split'?"),
        ("kumo.string.splt('a', 'b')", "kumo.string.splt: no such function; did you mean 'split'?"),
        ("('x'):trim()", "('x'):trim: a string has no such method"),
        ("require('sqlite').opn('x')", "sqlite.opn: no such function; did you mean 'open'?"),
        ("string.splt('a')", "string.splt: no such function"),
        ("helper()", "helper: no such function or variable"),
        ("helper.x()", "helper: no such function or variable"),
        (
            "kumo.regex.compile('x'):is_mach('y')",
            "kumo.regex.compile('x'):is_mach: a Regex has no such method; did you mean",
        ),
        ("local t = { one = print } t.on()", "t.on: the table has nothing of that name; did you mean 'one'?"),
        ("debug.traceback()", "debug: no such function or variable"),
        (
            "require 'policy-extras.policy_util'",
            "require 'policy-extras.policy_util': there is no policy-extras/policy_ut"
            "il.lua; did you mean 'policy_utils'?",
        ),
        ("require 'sqlite3'", "require 'sqlite3': there is no sqlite3.lua; did you mean 'sqlite'?"),
    ],
)
def test_what_there_is_not_is_named_with_what_may_have_been_meant(text: str, said: str) -> None:
    [problem] = seen_in(text)
    assert problem.removeprefix("policy.lua:1: ").startswith(said)


@pytest.mark.parametrize(
    ("event", "body", "said"),
    [
        (
            "smtp_server_mail_from",
            "function(from, meta) meta:set('a', 1) end",
            "meta:set: a conn_meta has no such method; did you mean 'set_meta'?",
        ),
        (
            "smtp_server_rcpt_to",
            "function(to) local x = to.domian:lower() end",
            "to.domian: an address has no such method",
        ),
        ("get_listener_domain", "function(domain) domain:no() end", "domain:no: a string has no such method"),
        (
            "smtp_server_message_received",
            "function(m) m:sender():x() end",
            "m:sender():x: an address has no such method",
        ),
    ],
)
def test_parameters_of_handlers_are_of_the_classes_that_the_event_gives(event: str, body: str, said: str) -> None:
    [problem] = seen_in(f"kumo.on('{event}', {body})")
    assert problem.startswith(f"policy.lua:1: {said}")


def test_what_another_handler_puts_into_a_table_may_be_there() -> None:
    later = "kumo.on('init', function() t.x = print end)"
    assert seen_in(f"local t = {{}} kumo.on('smtp_server_mail_from', function() t.x() end) {later}") == []


def test_a_long_chain_of_calls_is_shown_by_its_end() -> None:
    text = "local r = kumo.http.build_client({}):get 'http://x.example/'\nr:header('a', 'b')\n:header('c', 'd')"
    [problem] = seen_in(text + ":header('ee', 'f')\n:header('g', 'h')\n:header('i', 'j'):snd()")
    assert "\n" not in problem
    assert problem.endswith(":header('i', 'j'):snd: a HttpRequest has no such method; did you mean 'send'?")


def test_a_filter_receives_a_message() -> None:
    text = "kumo.configure_local_logs { log_dir = 'x', filter_event = 'mine' } kumo.on('mine', function(m) m:x() end)"
    assert seen_in(text) == ["policy.lua:1: m:x: a message has no such method"]


def test_a_field_that_is_nowhere_is_warned_of_where_it_resembles_one() -> None:
    assert seen_in("kumo.on('smtp_server_rcpt_to', function(to) if to.domian == 'x' then print(to.x) end end)") == [
        "policy.lua:1: warning: to.domian: an address has no such method or field; did you mean 'domain'?"
    ]


def test_a_helper_with_mistakes_that_nobody_calls_is_one_warning() -> None:
    text = "local function helper(m)\n kumo.no()\n kumo.neither()\n kumo.make_egress_path(5)\nend"
    assert seen_in(text) == [
        "policy.lua:1: warning: nothing calls this function; line 2 would be an error: kumo.no: no such function, "
        "and 2 more"
    ]


def test_a_helper_that_calls_itself_ends() -> None:
    text = "local function f(m, n) if n > 0 then return f(m, n - 1) end m:no_such() end f(('x'), 5)"
    assert len(seen_in(text)) == 1


def test_a_mistake_inside_pcall_is_a_warning() -> None:
    assert seen_in("pcall(function() kumo.no() end)") == ["policy.lua:1: warning: kumo.no: no such function"]
    assert seen_in("pcall(kumo.make_listener_domain, 5)") == [
        "policy.lua:1: warning: kumo.make_listener_domain: expected a table, found the number 5"
    ]


def test_functions_of_required_files_are_followed() -> None:
    text = "local h = require 'helper'\nkumo.on('smtp_server_message_received', function(m) h.mark(m) h.makr(m) end)"
    helper = "local M = {}\nfunction M.mark(m) m:no_such() end\nreturn M"
    assert seen_in(text, helper=helper) == [
        "helper.lua:2: m:no_such: a message has no such method",
        "policy.lua:2: h.makr: the table has nothing of that name; did you mean 'mark'?",
    ]


def test_what_a_policy_puts_in_for_a_function_is_not_known() -> None:
    assert seen_in("local on = kumo.on kumo.on = function(...) on(...) end kumo.on('get_queue_confi', 5)") == []


def test_what_only_kumomta_has_is_not_supported_rather_than_unknown() -> None:
    text = "kumo.generate_rfc3464_message() kumo.set_httpinject_recipient_rate_limit('1/s') kumo.kafka.build_producer{}"
    left = "; with --fleet HOST:PORT it is left to the fleet"
    assert seen_in(text) == [
        f"policy.lua:1: kumo.{name} is not supported yet by relay-gateway{hint}"
        for name, hint in (
            ("generate_rfc3464_message", left),
            ("kafka.build_producer", left),
            ("set_httpinject_recipient_rate_limit", left),
        )
    ]


def test_an_option_that_newer_kumomta_has_is_not_supported_rather_than_unknown() -> None:
    [problem] = seen_in("kumo.start_esmtp_listener { deferred_queue = true }")
    assert "deferred_queue: not supported yet by relay-gateway" in problem
    assert seen_in("kumo.start_esmtp_listener { deferred_queue = false }") == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("kumo.reject(250, 'x')", "kumo.reject: expected a code from 400 to 599, got 250"),
        ("kumo.reject('x', 'y')", "kumo.reject: expected a code from 400 to 599, got x"),
        ("kumo.reject(550)", "kumo.reject: expected a code and a text, got 1 arguments"),
        ("kumo.reject { code = 550 }", "kumo.reject: expected a code and a text, got 1 arguments"),
        ("kumo.disconnect(true, 'y')", "kumo.disconnect: expected a code from 400 to 599, got True"),
        ("kumo.on('init', print)", "kumo.on: a handler cannot be registered from within 'smtp_server_mail_from'; "),
        ("kumo.start_esmtp_listener {}", "kumo.start_esmtp_listener must be called in the init event"),
        ("kumo.memoize(print, { name = 'x' })", "kumo.memoize: 'capacity' is missing"),
    ],
)
def test_what_a_function_does_not_take_in_a_handler_is_an_error(body: str, said: str) -> None:
    text = f"kumo.on('smtp_server_mail_from', function(sender) if sender.user == 'x' then {body} end end)"
    [problem, *_] = seen_in(text)
    assert problem.startswith(f"policy.lua:1: {said}")


@pytest.mark.parametrize(
    "body",
    ["kumo.reject('550', 'x')", "kumo.reject(550.0, 'x')", "kumo.reject(5 * 110, 'x')", "kumo.reject(refusal())"],
)
def test_codes_and_texts_that_are_right_or_computed_are_no_problem(body: str) -> None:
    assert (
        seen_in(f"function refusal() return 550, 'x' end kumo.on('smtp_server_mail_from', function() {body} end)") == []
    )


def test_all_of_lua_is_understood() -> None:
    text = """#!/usr/bin/lua
    local a <const>, b <close>, c = 1 // 2, nil, 0x1p4 & ~1 | 2 ~ 3 << 1 >> 1
    goto done
    for i = 10, 1, -1 do if i % 2 == 0 then break end end
    for k, v in next, {}, nil do local _ = #tostring(k) ^ 2 end
    repeat local x <const> = [==[ ]] ]==] until not x or x ~= '\\z
        a\\u{48}'
    function a.b.c:d(...) local t = { ..., [1] = 2, n = select('#', ...); } return t end
    ::done::
    f'x' f"y" f[[z]] f{} (f or g)() ;
    return -2 ^ 2, a.b['c']:d 'x'.y
    """
    assert LuaFile(text.encode()).understood


@pytest.mark.parametrize(
    "text",
    [
        "function string:trim() return self end",
        "string.trim = function(text) return text end",
        "getmetatable('').__index.trim = print",
        "local s = string s['trim'] = print",
    ],
)
def test_strings_may_be_given_methods(text: str) -> None:
    assert (
        seen_in(f"{text} kumo.on('smtp_server_ehlo', function(name) return ('x'):trim(), name:lower():trim() end)")
        == []
    )


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        ("'smtp_server_data'", "a string and a nil"),
        ("'smtp_server_rcpt_to', 5", "a string and a number"),
        ("'smtp_server_ehlo', nil", "a string and a nil"),
        ("'smtp_server_ehlo', handler_that_nobody_wrote", "a string and a nil"),
        ("'smtp_server_ehlo', {}", "a string and a table"),
        ("function() end", "a function and a nil"),
    ],
)
def test_each_handler_that_is_none_is_an_error(arguments: str, got: str) -> None:
    said = f"kumo.on: expected a name and a function, got {got}"
    assert problems_of(f"kumo.on({arguments})\nkumo.on({arguments})") == [
        f"policy.lua:{line}: {said}" for line in (1, 2)
    ]


def test_a_parameter_that_gets_nothing_is_warned_of_and_an_error_where_it_is_used() -> None:
    said = "kumo.on: a handler of 'smtp_server_mail_from' gets nothing for 'more'; it is given sender, conn_meta"
    text = "kumo.on('smtp_server_mail_from', function(sender, conn, more) {} end)"
    [warning] = Lint(source_of(text.replace("{}", "")), MODEL).problems()
    assert (warning.severity, warning.text) == (Severity.WARNING, said)
    assert problems_of(text.replace("{}", "more:x()")) == [f"policy.lua:1: {said}"]
    assert (
        seen_in(text.replace("more", "_more").replace("{}", "") + text.replace("more", "...").replace("{}", "")) == []
    )


def test_options_that_are_left_out_are_warned_of_by_their_line() -> None:
    text = "local options = 1\nlocal c = kumo.http.build_client {\ntimout = '5s' }"
    problems, [warning], _ = examine(source_of(text))
    assert (problems, str(warning)) == (
        [],
        "policy.lua:3: warning: kumo.http.build_client: timout: unknown option, which does nothing; "
        "did you mean 'timeout'?",
    )
    assert examine(source_of("local c = kumo.http.build_client()"))[1] == []
    text = (
        "kumo.on('smtp_server_data', function(msg) if msg:id() == '' then msg:check_fix_conformance(1, 2, {}) end end)"
    )
    assert seen_in(text) == []
    [problem] = seen_in(text.replace("{}", "{ detect = true }"))
    assert problem == "policy.lua:1: msg:check_fix_conformance: detect: unknown option; did you mean 'detect_encoding'?"


def test_what_loading_says_of_several_options_at_once_is_told_one_by_one() -> None:
    text = "local m = kumo.memoize(print, { nam = 'x', ttl = 5, capacity = 5 })"
    assert problems_of(text) == [
        "policy.lua:1: kumo.memoize: 'name' is missing",
        "policy.lua:1: kumo.memoize: nam: unknown option; did you mean 'name'?",
    ]


def test_a_misspelt_event_is_an_error() -> None:
    assert problems_of("kumo.on('smtp_server_rcptto', function() end)") == [
        "policy.lua:1: kumo.on: event 'smtp_server_rcptto' is never triggered; did you mean 'smtp_server_rcpt_to'?"
    ]


def test_an_event_of_ones_own_may_resemble_another() -> None:
    text = "kumo.on('smtp_server_rcptto', function() end) kumo.on('init', function() "
    assert seen_in(text + "kumo.spawn_task { event_name = 'smtp_server_rcptto' } end)") == []


def test_a_module_that_is_missing_is_one_line() -> None:
    assert problems_of("local s = require 'policy-extras.shaping'") == [
        f"policy.lua:1: require 'policy-extras.shaping': it {NOT_YET}; {HINT}"
    ]
    [problem] = problems_of("local s = require 'policy-extras.shapings'")
    assert problem.startswith("policy.lua:1: require 'policy-extras.shapings': there is no policy-extras/shapings.lua")
    [problem] = problems_of("local s = require 'policy-extras.hornet'")
    assert "did you mean" not in problem
    [problem] = problems_of("local s = require 'my.helper'")
    assert problem.startswith("policy.lua:1: require 'my.helper': there is no my/helper.lua; looked for in ., /opt/")
    assert seen_in("kumo.on('get_listener_domain', function() return require('policy-extras.queue').x end)") == [
        f"policy.lua:1: require 'policy-extras.queue': it {NOT_YET}; {HINT}"
    ]
    text = "local t = require 'policy-extras.typing' package.path = 'x/?.lua' local ok, m = pcall(require, 'm')"
    assert seen_in(text + "kumo.on('get_listener_domain', function() return require 'my.helper' end)") == []


def test_what_is_handed_to_what_the_fleet_does_is_not_called_here() -> None:
    text = """
        local hooks = require 'policy-extras.log_hooks'
        local function send(message) kumo.no_such(message) end
        hooks:new { constructor = function() return { send = send, close = function() kumo.no_such() end } end }
        hooks.of { kumo.no_such() }
        kumo.inject_message(kumo.make_message('a@b.example', 'c@d.example', ''))"""
    source = source_of(text)
    source.deployment = Deployment(fleet=Destination(QueueConfig(), EgressPath()))
    found = {(problem.line, problem.severity) for problem in Lint(source, MODEL).problems()}
    assert found == {(3, Severity.WARNING), (5, Severity.ERROR)}


# --- one problem once -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "kumo.no_such()",
        "local x = kumo.no_such.y",
        "('x'):no_such()",
        "kumo.spawn_thread_pool()",
        "kumo.dkim.rsa_sha256_signer {}",
        "kumo.start_esmtp_listener { relay_hosts = { os.getenv 'NOWHERE' or '10.0.0.1/8', 'localhost' } }",
        "for _ = 1, 3 do kumo.make_listener_domain { relay_too = true } end",
        "kumo.on('log_disposition_x', function() end)",
        "kumo.on('get_listener_domain', function() nowhere() end)",
        "kumo.on('get_listener_domain', function() return kumo.make_listener_domain { relay_too = true } end)",
        "kumo.on('get_listener_domain', function(domain) return domain:no_such() end)",
        "kumo.on('get_listener_domain', function(domain) return nil .. domain end)",
    ],
)
def test_loading_reading_and_rehearsing_tell_a_problem_once(text: str) -> None:
    [problem] = problems_of(text)
    assert problem.startswith("policy.lua:1: ")


# --- objects ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("local d = kumo.make_listener_domain {} return d.relay_too and nil", None),
        (
            "local d = kumo.make_listener_domain {} local x = d.relay_too",
            "policy.lua:1: warning: d.relay_too: a listener domain has no such method or field;",
        ),
        ("local d = kumo.make_listener_domain {} local x = d.relay_to", None),
        (
            "local d = kumo.make_listener_domain {} d.relay_to = true",
            "policy.lua:1: cannot set 'relay_to': the object is",
        ),
        ("conn_meta.x_user = 'ann'", "policy.lua:1: cannot set 'x_user': the object is read-only"),
        (
            "local x = conn_meta:get_meta 'authz_ids'",
            "policy.lua:1: warning: conn_meta:get_meta: nothing sets 'authz_ids'; did you mean 'authz_id'?",
        ),
        ("conn_meta:set_meta('authz_ids', 1) local x = conn_meta:get_meta 'authz_ids'", None),
        ("local x = conn_meta:get_meta 'x_authz'", None),
    ],
)
def test_fields_and_keys_that_are_not_there_are_seen(code: str, problem: str | None) -> None:
    found = seen_in(f"kumo.on('get_listener_domain', function(domain, listener, conn_meta) {code} end)")
    assert len(found) == (problem is not None)
    assert not found or found[0].startswith(str(problem))
