"""`relay-gateway check`, and the look at Lua text behind it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import check
from gateway.policy.check import examine
from gateway.policy.lua_text import Call, calls, tokens
from gateway.policy.options import UNKNOWN
from tests.policy_tools import source_of

QUICKSTART = Path(__file__).parent.parent / "deploy" / "quickstart.lua"


def only_call(text: str) -> Call:
    [call] = calls(text)
    return call


def warnings_of(text: str) -> list[str]:
    problems, warnings, _ = examine(source_of(text))
    assert problems == []
    return [str(warning) for warning in warnings]


# --- tokens and literals ----------------------------------------------------------------------------------


def test_comments_and_strings_hide_what_they_contain() -> None:
    text = """
        -- kumo.a {}
        --[[ kumo.b {} ]] --[==[ kumo.c {} ]] kumo.d {} ]==]
        x = "kumo.e {}" .. 'kumo.f {}' .. [[ kumo.g {} ]] .. [=[ ]] kumo.h {} ]=] .. "\\"kumo.i {}"
        kumo.j {}
    """
    call = only_call(text)
    assert (call.function, call.line) == ("j", 5)


@pytest.mark.parametrize(
    ("literal", "value"),
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
        ("{ a = function() local x = { 1, 2 } if x then return 1, 2 end end, b = 2 }", {"a": UNKNOWN, "b": 2}),
        ("{ [key] = 1, b = 2 }", {"b": 2}),
        ("-5", -5),
        ("-0x1F", -31),
        ("{ 'a' .. x, -x, -1.5, - 5 }", {1: UNKNOWN, 2: UNKNOWN, 3: -1.5, 4: -5}),
        ("variable", UNKNOWN),
    ],
)
def test_literal_arguments(literal: str, value: object) -> None:
    assert only_call(f"kumo.f({literal})").argument == value


@pytest.mark.parametrize(
    ("text", "functions"),
    [
        ("kumo.f 'x' kumo.g {} kumo.h() kumo.i(1)", ["f", "g", "h", "i"]),
        ("kumo.serde.json_load('x')", ["serde.json_load"]),
        ("x.kumo.f {} x:kumo {} kumo:f {}", []),
        ("if kumo.f then end; local g = kumo.g", []),
        ("kumo . f {}", ["f"]),
    ],
)
def test_calls_are_found(text: str, functions: list[str]) -> None:
    assert [call.function for call in calls(text)] == functions


def test_lines_of_options_are_known() -> None:
    call = only_call("kumo.f {\n a = 1,\n b = {\n  'x',\n  c = 2 },\n}")
    assert call.lines == {("a",): 2, ("b",): 3, ("b", 1): 4, ("b", "c"): 5}


@pytest.mark.parametrize(
    "escape, text",
    [
        (r"\n\065\x41\u{41}\z  \'", "\nAAA'"),
        (r"\u", "u"),
        (r"\x4", "x4"),
        (r"\u{}", "u{}"),
        ("\\\N{SUPERSCRIPT TWO}", "\N{SUPERSCRIPT TWO}"),
    ],
)
def test_escapes_are_read_and_broken_ones_stand_for_themselves(escape: str, text: str) -> None:
    assert tokens(f"'{escape}'")[0].value == text


@given(st.text(alphabet="kumo.f{}[]()='\"-\\ \n,;aend1", max_size=60) | st.text(max_size=60))
def test_any_text_can_be_looked_at(text: str) -> None:
    for call in calls(text):
        assert 1 <= call.line <= text.count("\n") + 1
    assert tokens(text)[-1].kind == "end"


# --- the command ------------------------------------------------------------------------------------------


def run(path: Path) -> int:
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    return check.run(parser.parse_args([str(path)]))


def test_the_quickstart_policy_is_good_and_without_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(QUICKSTART) == 0
    assert capsys.readouterr().out == (
        f"{QUICKSTART}: good; 127.0.0.1:2525; handlers: get_listener_domain, get_queue_config, init; "
        "mail for <Postmaster> is refused but from relay_hosts: nothing is granted for '' or a listener's hostname\n"
    )


@pytest.mark.parametrize(
    ("domain", "grant", "said"),
    [
        ("''", "relay_to = true", "is taken from anybody"),
        ("'gw.example'", "relay_to = true", "is taken from anybody"),
        ("'gw.example'", "log_oob = true", "is taken where it is a report"),
        ("'gw.example'", "", "is refused but from relay_hosts"),
        ("'another.example'", "relay_to = true", "is refused but from relay_hosts"),
    ],
)
def test_what_becomes_of_mail_for_postmaster_is_told(tmp_path, capsys, domain, grant, said) -> None:
    path = tmp_path / "policy.lua"
    path.write_text(
        "kumo.on('init', function() "
        "kumo.start_esmtp_listener { listen = '127.0.0.1:0', hostname = 'GW.example' } end)\n"
        f"kumo.on('get_listener_domain', function(domain) if domain == {domain} then "
        f"return kumo.make_listener_domain {{ {grant} }} end end)"
    )
    assert run(path) == 0
    assert f"; mail for <Postmaster> {said}" in capsys.readouterr().out


def test_a_bad_policy_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.lua"
    path.write_text("kumo.make_listener_domain { relay_too = true }")
    assert run(path) == 1
    assert capsys.readouterr().out == (
        f"{path}:1: kumo.make_listener_domain: relay_too: unknown option; did you mean 'relay_to'?\n"
        f"{path}: 1 problem; the gateway would not start with it\n"
    )


def test_a_missing_file_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere.lua") == 1
    assert "No such file" in capsys.readouterr().out


def test_an_unusable_certificate_is_told_with_its_line_beside_all_other_problems() -> None:
    text = """kumo.start_esmtp_listener {
        listen = '127.0.0.1:25',
        tls_certificate = '/nowhere/cert.pem',
        tls_private_key = '/nowhere/key.pem',
    }
    kumo.start_esmtp_listener { listen = '127.0.0.1:26', banner = 'a\\r\\n250 b', hostname = 'mail b\u00fccher' }
    """
    problems, _, _ = examine(source_of(text))
    assert [(problem.line, problem.message.partition(": ")[2].partition(",")[0]) for problem in problems] == [
        (3, "/nowhere/cert.pem"),
        (6, "banner: expected a text without control characters"),
        (6, "hostname: expected a host name in ASCII such as 'mx.example.com'"),
    ]


def test_a_certificate_that_the_policy_computes_is_looked_at_too() -> None:
    text = """name = '/nowhere/cert.pem'
    kumo.start_esmtp_listener { listen = '127.0.0.1:25', tls_certificate = name, tls_private_key = name }
    """
    (problem,), _, _ = examine(source_of(text))
    assert str(problem).startswith("policy.lua: listener 127.0.0.1:25: /nowhere/cert.pem, /nowhere/cert.pem: ")


def test_a_log_directory_that_cannot_be_made_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = f"""kumo.configure_local_logs {{
        log_dir = '{tmp_path}/new/logs',
        per_record = {{
            Bounce = {{ log_dir = '{tmp_path}/file/bounces' }},
        }},
    }}
    """
    (problem,), _, _ = examine(source_of(text))
    where = f"log_dir {tmp_path}/file/bounces"
    assert str(problem) == f"policy.lua:4: {where} cannot be written to: {tmp_path}/file is no directory"
    assert not (tmp_path / "new").exists()


def test_required_files_are_looked_at_too() -> None:
    source = source_of(
        "dofile 'more.lua'", more="kumo.on('init', function() end)\nfunction f() kumo.make_egress_path(5) end"
    )
    problems, _, _ = examine(source)
    assert [str(problem) for problem in problems] == [
        "more.lua:2: kumo.make_egress_path: expected a table, found the number 5"
    ]


# --- warnings ---------------------------------------------------------------------------------------------


def listener_domain(options: str, condition: str = "true") -> str:
    return (
        "kumo.on('get_listener_domain', function(domain, _, conn_meta)\n"
        f"if {condition} then return kumo.make_listener_domain {{ {options} }} end\nend)"
    )


def test_an_open_relay_is_warned_of() -> None:
    [warning] = warnings_of(listener_domain("relay_to = true"))
    assert warning.startswith("policy.lua:1: anybody may relay to any domain")


@pytest.mark.parametrize("option", ["log_oob", "log_arf"])
def test_reports_logged_for_any_domain_are_warned_of(option: str) -> None:
    [warning] = warnings_of(listener_domain(f"{option} = 'LogThenDrop'"))
    assert warning.startswith("policy.lua:1: anybody may have reports logged, whatever domain")


@pytest.mark.parametrize(
    "condition", ["domain == 'example.com'", "conn_meta:get_meta 'authz_id'", "domain:match 'com$'"]
)
def test_rules_for_known_domains_or_users_are_not_warned_of(condition: str) -> None:
    assert warnings_of(listener_domain("relay_to = true, log_oob = 'LogThenDrop'", condition)) == []


def test_true_is_explained() -> None:
    [warning] = warnings_of(listener_domain("log_arf = true", "domain == 'example.com'"))
    assert warning == (
        "policy.lua:2: log_arf = true logs a report and then relays it only where relaying is allowed anyway; "
        "'LogThenDrop' never relays a report, 'LogThenRelay' always does"
    )


def test_a_handler_that_fails_for_strangers_is_no_reason_to_warn() -> None:
    assert warnings_of("kumo.on('get_listener_domain', function() kumo.reject(550, 'no') end)") == []


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "kumo.on('http_server_validate_auth_basic', function() end)",
            "event 'http_server_validate_auth_basic' is never triggered; nothing is injected over HTTP",
        ),
        ("kumo.on('main', function() end)", "event 'main' is never triggered"),
        ("kumo.on('smtp_server_rcptto', function() end)", "event 'smtp_server_rcptto' is never triggered"),
        ("kumo.set_config_monitor_globs { '/etc/*.lua' }", "kumo.set_config_monitor_globs has no effect"),
        ("kumo.make_queue_config { max_age = '1d' }", "the queue has no protocol"),
    ],
)
def test_what_has_no_effect_is_warned_of(text: str, warning: str) -> None:
    [found] = warnings_of(text)
    assert warning in found


def test_events_of_ones_own_are_fine() -> None:
    assert warnings_of("kumo.on('my_filter', function() end)") == []
