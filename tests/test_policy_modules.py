"""KumoMTA's modules as a policy uses them: values at the border, objects, maps, the files of the policy."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gateway.logs.reader import SegmentReader
from gateway.logs.segments import is_complete, list_segments
from gateway.policy import modules
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.lint import Lint
from tests.policy_tools import load, new_page

LISTENER = "kumo.on('init', function() kumo.start_esmtp_listener { listen = '127.0.0.1:0' } end)\n"


def said(tmp_path: Path, code: str, **files: str) -> str:
    """What a policy's top level puts into `result`, read back through a listener's meta."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    start = "local kumo = require 'kumo'\nlocal result\n"
    listener = "kumo.start_esmtp_listener { listen = '127.0.0.1:0', banner = kumo.encode.hex_encode(tostring(result)) }"
    end = f"\nkumo.on('init', function() {listener} end)\n"
    policy = load(start + code.replace("DIR", str(tmp_path)) + end)
    return bytes.fromhex(policy.config.listeners[0].overrides["banner"]).decode()


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("result = kumo.json_encode(kumo.string.split('a,b', ','))", '["a","b"]'),
        ("result = kumo.string.split('a,b', ',')[2]", "b"),
        ("result = require('kumo.string').trim ' x '", "x"),
        ("result = kumo.serde.json_encode { a = { 1, { b = {} } } }", '{"a":[1,{"b":{}}]}'),
        ('result = kumo.json_parse(\'{"a": null, "b": [1]}\').b[1]', "1"),
        ("result = kumo.serde.yaml_parse('a: [x, y]').a[2]", "y"),
        ("result = kumo.digest.sha1('hello').base64url_nopad", "qvTGHdzF6KLavt4PO0gs2a6pQ00"),
        ("result = kumo.digest.sha1 'hello'", "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"),
        ("result = #kumo.digest.sha1('\\xff').bytes", "20"),
        ("result = kumo.encode.hex_encode '\\xff\\0a'", "ff0061"),
        ("result = #kumo.encode.base64_decode 'gA=='", "1"),
        ("result = kumo.regex.compile('(\\\\d+)-(?<x>\\\\w)'):captures('a 12-b').x", "b"),
        ("result = kumo.regex.compile('(\\\\d+)-(?<x>\\\\w)'):captures('a 12-b')[0]", "12-b"),
        ("result = kumo.time.parse_rfc3339('2000-01-02T03:04:05Z'):format '%H:%M'", "03:04"),
        ("result = (kumo.time.parse_duration '1m' + kumo.time.parse_duration(5)).seconds", "65.0"),
        ("result = kumo.time.with_ymd_hms(2000,1,2,0,0,5) - kumo.time.with_ymd_hms(2000,1,2,0,0,0)", "5s"),
        ("result = kumo.time.parse_duration(60) == kumo.time.parse_duration '1m'", "true"),
        ("result = kumo.uuid.parse('69994630-3e27-11ef-91fc-cc28aa0a5c5a').simple", "699946303e2711ef91fccc28aa0a5c5a"),
        ("local m = kumo.domain_map.new { ['*.example.com'] = { x = 1 } } result = m['A.example.com'].x", "1"),
        ("local m = kumo.regex_set_map.new { bye = 'b', ['^4[.]2'] = 4 } result = m['goodbye'] .. m['4.2 x']", "b4"),
        ("local m = kumo.regex_set_map.new { b = 2, a = 1 } result = tostring(m['ab']) .. tostring(m['x'])", "1nil"),
        ("result = pcall(function() kumo.regex_set_map.new {}.a = 1 end)", "false"),
        (
            "local o = { name = 's', num_buckets = 2, bucket_size = '1m', initial_value = 2 }"
            "local s = kumo.counter_series.define(o) s:increment(3) s:delta(-1)"
            "result = s:sum() .. ' ' .. kumo.counter_series.define(o):sum_over '1s'",
            "4 4",
        ),
        (
            "local k = kumo.file_type.from_bytes 'MZ\\x90\\0' result = k.name .. k.extensions[1]",
            "Windows Executableexe",
        ),
        ("result = kumo.file_type.from_bytes('GIF89a').media_types[1]", "image/gif"),
        ("result = kumo.file_type.from_bytes('h\\xc3\\xa9, \\xe2\\x82').media_types[1]", "text/plain"),
        ("result = kumo.file_type.from_bytes('\\0\\1').media_types[1]", "application/octet-stream"),
        ("result = kumo.file_type.from_extension('PDF')[1].media_types[1]", "application/pdf"),
        ("result = kumo.file_type.from_media_type('image/png')[1].extensions[1]", "png"),
        ("result = #kumo.file_type.from_extension 'nonsense'", "0"),
        ("local t <close> = kumo.time.start_timer 'x' result = t:done() >= 0", "true"),
        ("local f = kumo.memoize(kumo.string.trim, { name = 'f', ttl = 60, capacity = 9 }) result = f ' x '", "x"),
        ("local function f() return kumo.traceback(1) end local t = f() result = t[1].what .. t[1].curr_line", "main3"),
        ("kumo.on('x', print) result = kumo.get_event_registrars('x')[1][1]:match ':%d+$'", ":3"),
        (
            "local m = kumo.make_message('a@b.example', 'c@d.example', 'Subject: x\\r\\n\\r\\nHi')"
            "result = m:recipient().email .. m:get_first_named_header_value 'Subject' .. #m:id()",
            "c@d.examplex32",
        ),
        ("local m = kumo.domain_map.new() m['a.b'] = 'v' result = m['a.b'] .. tostring(m['c'])", "vnil"),
        ("local m = kumo.cidr.make_map { ['10.0.0.0/8'] = 'lan' } result = m['[10.1.2.3]:25']", "lan"),
        ("result = kumo.toml_load('DIR/d.toml').a.b", "7"),
        ("result = kumo.serde.json_load('DIR/d.json').a", "8"),
        ("result = kumo.fs.uncached_glob('DIR/*.toml')[1]:match '[^/]+$'", "d.toml"),
        (
            "result = require('policy-extras.policy_utils').dumps { foo = { 'bar' } }",
            '{\n  ["foo"] = {\n    [1] = "bar"\n  }\n}',
        ),
    ],
)
def test_a_policy_calls_the_modules(tmp_path, code, result):
    assert said(tmp_path, code, **{"d.toml": "a.b = 7", "d.json": '{"a": 8 /* eight */}'}) == result


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("kumo.string.split(nil, ',')", "kumo.string.split: expected a string, got nil"),
        ("kumo.serde.json_parse '{'", "kumo.serde.json_parse: parsing string as json"),
        (
            "kumo.toml_load 'DIR/none.toml'",
            "kumo.serde.toml_load: reading file DIR/none.toml: No such file or directory",
        ),
        ("kumo.regex.compile '('", "kumo.regex.compile: missing )"),
        ("kumo.regex.compile('x'):replacen('x', {}, 'y')", "Regex:replacen: expected an integer, got a table"),
        ("kumo.cidr.make_map()['nonsense'] = 1", "nonsense"),
        ("kumo.regex.compile('x').find 'x'", "Regex:find: call it with a colon, on a Regex"),
        ("kumo.http.build_client({}).get 'http://x'", "HttpClient:get: call it with a colon, on a HttpClient"),
        ("kumo.mimepart.parse('').rebuild()", "MimePart:rebuild: call it with a colon, on a MimePart"),
        ("require('sqlite').open(':memory:'):execute()", "SqliteDatabase:execute: expected a string, got nil"),
        ("local _ = kumo.cidr.make_map()['nonsense']", "'nonsense' is not an IP address"),
        ("local _ = kumo.time.now() + 5", "only a TimeDelta can be added to a Time"),
        ("local _ = kumo + 5", "attempt to perform arithmetic on a table value"),
        ("kumo.time.now().year = 5", "cannot set 'year': the object is read-only"),
    ],
)
def test_a_mistake_is_a_lua_error_with_a_sentence(tmp_path, code, problem):
    caught = f"local ok, problem = pcall(function() {code} end)"
    text = said(tmp_path, f"{caught} result = tostring(ok) .. ' ' .. tostring(problem)")
    assert text.startswith("false ")
    assert problem.replace("DIR", str(tmp_path)) in text


TYPES = """
local typing, utils = require 'policy-extras.typing', require 'policy-extras.policy_utils'
local Layer = typing.enum('Layer', 'Above', 'Below')
local Point = typing.record('Point', { x = typing.number, y = typing.number })
local Example = typing.record('Example', { point = Point, layer = typing.option(Layer) })
local function refuses(f, value, pattern)
  local ok, problem = pcall(f, value)
  assert(not ok)
  utils.assert_matches(problem, pattern)
end
utils.assert_eq(Example { point = { x = 1, y = 4 }, layer = 'Above' }, { point = { y = 4, x = 1 }, layer = 'Above' })
utils.assert_eq(Example { point = Point { x = 123, y = 2.5 } }, { point = { y = 2.5, x = 123 } })
refuses(Point, { x = 123 }, "Point: missing value for field 'y' of type 'number'")
refuses(Point, { x = 123, y = true }, "Point: invalid value for field 'y'\\n.*Expected 'number', got 'boolean' true")
refuses(Point, { x = 1, y = 2, z = 3 }, "Point: unknown field 'z'")
refuses(Example, { point = { x = 1, y = 4 }, layer = 'Wrong' },
  "Example: invalid value for field 'layer'\\n.*Unexpected 'Layer' value 'Wrong', expected one of 'Above', 'Below'")
local Foo = typing.record('Foo', { ex = Example })
refuses(Foo, { ex = Point { x = 1, y = 4 } },
  "Foo: invalid value for field 'ex'\\n.*Expected value of type 'Example' but got type 'Point' with value")
local Map = typing.map(typing.string, Example)
refuses(Map, { [123] = {} }, "map<string,Example>: invalid key 123\\n.*Expected 'string', got 'number' 123")
refuses(function() Map({})[123] = 'boo' end, nil, "map<string,Example>: invalid key 123")
refuses(Map, { hello = 'wrong' },
  "invalid value for key 'hello'\\n.*Expected value of type 'Example' but got type 'string' 'wrong'")
refuses(function() return Point { x = 1, y = 2 }.z end, nil, "Point: attempt to read unknown field 'z'")
local Defaults =
  typing.record('Defaults', { a = typing.default(typing.boolean, true), b = typing.default(Layer, 'Above') })
utils.assert_eq(Defaults { a = false }, { a = false, b = 'Above' })
utils.assert_eq(Defaults {}, { a = true, b = 'Above' })
local List = typing.list(typing.string)
utils.assert_eq(List { 'hello', 'there' }, { 'hello', 'there' })
refuses(List, { 1 }, "list<string>: invalid value for idx 1\\n.*Expected 'string', got 'number' 1")
utils.assert_eq(#List { 'a', 'b' }, 2)
local Either = typing.variant(typing.number, List)
utils.assert_eq(Either(5), 5)
refuses(Either, true, "Failed to match any allowed variant")
local ok, problem = pcall(kumo.make_listener_domain, { log_arf = 'yes' })
utils.assert_matches(typing.extract_deserialize_error(problem), '^invalid value: string "yes"')
utils.assert_eq({ utils.split_ip_port '[::1]:25' }, { '::1', '25' })
assert(not utils.equals({ a = 1 }, { a = 1, b = 2 }) and utils.table_contains({ 1, 2 }, 2) and utils.table_is_empty {})
local merged = { a = { x = 1 } }
utils.recursive_merge_into({ a = { y = 2 } }, merged)
utils.assert_eq(merged, { a = { x = 1, y = 2 } })
result = 'all of it'
"""


def test_types_that_check_and_helpers_behave_as_kumomtas(tmp_path):
    assert said(tmp_path, TYPES) == "all of it"


def test_check_knows_the_functions_of_modules(tmp_path):
    policy = load(f"local kumo = require 'kumo'\n{LISTENER}function unused() kumo.string.spilt('a') end\n")
    (problem,) = Lint(policy.source).problems()
    assert "kumo.string.spilt: no such function" in str(problem)
    assert "'split'" in str(problem)


def test_a_file_read_while_loading_is_part_of_the_policy(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps({"banner": "checked"}))
    code = (
        f"local kumo = require 'kumo'\nlocal banner = kumo.json_load('{tmp_path}/d.json').banner\n"
        "kumo.on('init', function() kumo.start_esmtp_listener { listen = '127.0.0.1:0', banner = banner } end)\n"
    )
    policy = load(code)
    (tmp_path / "d.json").write_text("{}")
    again = type(policy).load(policy.source, page=new_page())
    assert again.config.listeners[0].overrides["banner"] == "checked"


def test_a_policy_writes_records_of_its_own(tmp_path):
    """While it is loaded, and in a handler, in threads; a `<close>` variable completes its segment."""
    code = f"""
    local kumo = require 'kumo'
    local options = {{ log_dir = '{tmp_path}/own', suffix = '.zst', max_file_size = 20 }}
    do
      local writer <close> = kumo.jsonl.new_writer(options)
      writer:write_record {{ at = 'start' }}
    end
    kumo.on('smtp_server_connection_accepted', function()
      local writer <close> = kumo.jsonl.new_writer(options)
      writer:write_line '{{"number":1}}'
      writer:write_line '{{"number":2}}'
      writer:write_line '{{"number":3}}'
    end)
    """
    policy = load(code)
    policy.finish(policy.connection_accepted(ConnMeta({})))
    segments = map(SegmentReader, list_segments(str(tmp_path / "own")))
    read = [line for segment in segments for line in segment.lines() if is_complete(os.stat(segment.path))]
    assert read == [b'{"at":"start"}', b'{"number":1}', b'{"number":2}', b'{"number":3}']


def test_every_function_has_its_line_of_documentation():
    for module, functions in modules.MODULES.items():
        for name, function in functions.items():
            assert function.__doc__, f"{module}.{name}"
