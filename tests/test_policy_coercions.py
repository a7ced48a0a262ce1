"""Numbers stand for strings, and strings that are numbers for numbers, wherever a policy may hand one over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa.lua54 import LuaRuntime

from gateway.policy.background import Background
from gateway.policy.handlers import Handlers
from gateway.policy.kumo.values import number_in
from gateway.policy.runtime import LuaState, Unsupported
from gateway.policy.source import PolicySource
from tests.policy_tools import new_page, said

# What takes its time, or starts something; what takes a function.
NOT_CALLED = {"kumo.sleep", "kumo.time.sleep", "os.execute", "io.popen", "kumo.on"}
# How to come by an object of each class.
MADE = {
    "AsyncFile": "kumo.fs.open('x', 'w')",
    "BinaryResult": "kumo.digest.sha1 'x'",
    "CounterSeries": "kumo.counter_series.define { name = 'x', num_buckets = 2, bucket_size = '1s' }",
    "HeaderField": "kumo.mimepart.parse('a: b\\r\\n\\r\\n').headers:iter()()",
    "HeaderMap": "kumo.mimepart.parse('a: b\\r\\n\\r\\n').headers",
    "HttpClient": "kumo.http.build_client {}",
    "HttpRequest": "kumo.http.build_client({}):get 'http://127.0.0.1/'",
    "HttpResponse": "nil",
    "JsonlWriter": "kumo.jsonl.new_writer { log_dir = 'log', max_file_size = 5 }",
    "MimePart": "kumo.mimepart.new_text_plain 'x'",
    "PartBuilder": "kumo.mimepart.builder()",
    "Program": "nil",
    "RedisConnection": "nil",
    "Regex": "kumo.regex.compile '5'",
    "SqliteDatabase": "(require 'sqlite').open ':memory:'",
    "Throttle": "nil",
    "Time": "kumo.time.from_unix_timestamp(0)",
    "TimeDelta": "kumo.time.parse_duration(5)",
    "Timer": "kumo.time.start_timer 'x'",
    "Uuid": "kumo.uuid.new_v4()",
    "message": "kumo.make_message('a@a.example', 'b@b.example', 'A: b\\r\\n\\r\\n')",
}
# Errors that say that the other type was expected. (A duration is a number, or a text with its unit.)
OTHER_TYPE = re.compile(
    r"expected an? (?:string|text|name|number|integer|code)\b(?! of seconds or).* (?:got|found) (?:a|the) [ns]"
)


def outcome(lua: LuaState, call: str) -> str:
    """'' or the error of a call."""
    code = f"local ok, problem = pcall(function() {call} end) R = ok and '' or tostring(problem)"
    lua.call(lua.load("x", code.encode()))
    return str(lua._lua.globals().R)


def calls() -> list[str]:
    """Every function and method, as it is called."""
    host = Handlers(PolicySource("", {"": b""}), new_page(), lambda: 0.0, Background()).host
    found = [f"kumo.{name}" for name, one in host.functions.items() if not isinstance(one, Unsupported)]
    for module, functions in host.modules.items():
        prefix = module if module.startswith("kumo.") else f"(require '{module}')"
        found += [f"{prefix}.{name}" for name, one in functions.items() if not isinstance(one, Unsupported)]
    for exposed in host.exposed.values():
        if exposed.name in MADE and MADE[exposed.name] != "nil":
            found += [f"({MADE[exposed.name]}):{name}" for name in exposed.methods]
        elif exposed.methods:
            assert exposed.name in (*MADE, "conn_meta"), exposed.name
    return [one for one in found if one not in NOT_CALLED and "os'" not in one and "io'" not in one]


def test_every_function_and_method_takes_the_other_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lua = Handlers(PolicySource("", {"": b""}), new_page(), lambda: 0.0, Background()).lua
    names = calls()
    assert len(names) > 250
    refused = []
    for name in names:
        for arguments in ("5, 5, 5, 5, 5, 5", "'5', '5', '5', '5', '5', '5'", "1.5", "'1.5'"):
            problem = outcome(lua, f"return {name}({arguments})")
            if OTHER_TYPE.search(problem) and not ("1.5" in arguments and "integer" in problem):
                refused.append((f"{name}({arguments})", problem))
    assert refused == []


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("kumo.time.from_unix_timestamp('5').unix_timestamp", 5),
        ("kumo.time.from_unix_timestamp(' 0x10 ').unix_timestamp", 16),
        ("kumo.time.from_unix_timestamp('1e1').unix_timestamp", 10),
        ("kumo.domain_map.new({ ['5'] = 'x' })[5]", "x"),
        ("kumo.regex_set_map.new({ ['5'] = 'x' })[5]", "x"),
        ("kumo.domain_map.new({ ['5'] = 'x' })[{}]", None),
        ("kumo.string.splitn('a,b,c', '2', ',')", ["a", "b,c"]),
        ("kumo.string.split(525, 2)", ["5", "5"]),
        ("kumo.encode.charset_encode('ascii', 'aé', 0)", "a"),
    ],
)
def test_the_value_is_that_of_the_other_type(code: str, result: Any) -> None:
    assert said(f"result = {code}") == result


def test_a_map_is_written_under_a_number() -> None:
    assert said("local map = kumo.domain_map.new() map[5] = 'x' result = map['5']") == "x"


LUA = LuaRuntime()
READ = LUA.eval("tonumber")


@given(st.from_regex(r"[ \t]?[-+]?(0[xX])?[0-9a-f]{0,20}\.?[0-9]{0,3}([eEpP][-+]?[0-9]{0,3})?_?[ \n]?", fullmatch=True))
def test_a_text_is_the_number_that_it_is_in_lua(text: str) -> None:
    expected, found = READ(text), number_in(text)
    assert (found, type(found)) == (expected, type(expected))
