"""KumoMTA's modules as plain functions: what their documentation shows, their corners, and what they refuse."""

from __future__ import annotations

import hashlib
import json
import re
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.kumo import (
    cidr_map,
    digest,
    domain_map,
    encode,
    files,
    regexes,
    serde,
    strings,
    times,
    uuids,
)
from gateway.policy.kumo.cidr_map import CidrMap
from gateway.policy.kumo.domain_map import DomainMap
from gateway.policy.kumo.secrets import key_bytes
from gateway.policy.kumo.times import Time, TimeDelta
from gateway.policy.kumo.values import binary, number_text, text_of


def fields_of(module: ModuleType, one: object) -> dict[str, Any]:
    """All that a policy can read of an object."""
    _, fields = module.OBJECTS[type(one)]
    return {name: get(one) for name, get in fields.items()}


# --- kumo.string ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        ("split", ("Mary had a lamb", " "), ["Mary", "had", "a", "lamb"]),
        ("split", ("ab", ""), ["", "a", "b", ""]),
        ("split", ("", ","), [""]),
        ("splitn", ("a b c d", 3, " "), ["a", "b", "c d"]),
        ("splitn", ("a b", 0, " "), []),
        ("splitn", ("abc", 2, ""), ["", "abc"]),
        ("rsplit", ("a b c", " "), ["c", "b", "a"]),
        ("rsplitn", ("Mary had a little lamb", 3, " "), ["lamb", "little", "Mary had a"]),
        ("rsplitn", ("abc", 2, ""), ["", "abc"]),
        ("split_whitespace", (" a\u2003b\tc ",), ["a", "b", "c"]),
        ("split_ascii_whitespace", (" a\u2003b\tc ",), ["a\u2003b", "c"]),
        ("replace", ("this is old", "old", "new"), "this is new"),
        ("replacen", ("foo foo 123 foo", "foo", "new", 2), "new new 123 foo"),
        ("trim", ("\n Hello\tworld\t\n",), "Hello\tworld"),
        ("trim_start", ("\n Hello\t\n",), "Hello\t\n"),
        ("trim_end", ("\n Hello\t\n",), "\n Hello"),
        ("trim", ("\x1fx\x1f",), "\x1fx\x1f"),
        ("starts_with", ("hello world", "hello"), True),
        ("ends_with", ("hello world", "hello"), False),
        ("wrap", ("hello",), "hello"),
        ("wrap", ("A" * 200, 75, 100), "A" * 100 + "\r\n\t" + "A" * 100),
        ("wrap", ("a  ",), "a"),
        ("psl_domain", ("www.example.co.uk",), "example.co.uk"),
        ("psl_suffix", ("www.example.co.uk",), "co.uk"),
        ("psl_domain", ("com",), None),
        ("split", (5, "."), ["5"]),
        ("eval_template", ("x.txt", "{{name}}!", {"name": "John"}), "John!"),
        ("eval_template", ("x", "{{m}} {{no}}", {"m": {"b": [1, True], "a": "x"}}), '{"a": "x", "b": [1, true]} '),
        ("eval_template", ("x.html", "{{name}}", {"name": "<b>"}), "&lt;b&gt;"),
    ],
)
def test_strings(function, arguments, result):
    assert strings.FUNCTIONS[function](*arguments) == result


def test_wrap_breaks_between_words():
    lines = strings.wrap("hello there " * 10, 75, 100).split("\r\n\t")
    assert lines == [" ".join(["hello there"] * 6), " ".join(["hello there"] * 4)]


@pytest.mark.parametrize("source", ["{{", "{{ ''.__class__.__mro__ }}", "{% for x in y %}", "{{ 1 // 0 }}"])
def test_a_template_that_fails_or_reaches_for_python_is_a_mistake_of_the_policys(source):
    with pytest.raises(ValueError, match="eval_template"):
        strings.eval_template("x", source, {})


@pytest.mark.parametrize(
    ("reply", "taken_out"),
    [
        ("550 <x> at 192.0.2.1 [2001:db8::1] 2026-11-27T10:00:00Z", "550 <x> at {ipaddr} {ipaddr} {timestamp}"),
        ("go to https://x.example/?p=NoSuchUser 41be03b00d2f7-a12.80", "go to https://x.example/?p=NoSuchUser {hash}"),
        ("OK ids=69994630-3e27-11ef-91fc-cc28aa0a5c5a", "OK ids={uuid}"),
        ("aGVsbG8uCg== aGVsbG8K Requirements", "{base64} {base64} Requirements"),
        ("421 4.1.0 ::1 from 192.0.2.1:25, as (RFC5322) says", "421 4.1.0 {ipaddr} from 192.0.2.1:25, as RFC5322 says"),
        ("from 192.0.2.1:25 for some.body@a.example", "from {ipaddr} for {email}"),
        ("by [aGVsbG8uCg== IP: 192.0.2.1]. https://a.example/0", "by {base64} IP: {ipaddr} https://a.example/0"),
        ("due in 11s 999ms 990us, abc11s P23DT23H P1Y2Mx", "due in {duration}, abc11s {duration} P1Y2Mx"),
        ("duration 00:10:34", "duration 00:10:34"),
    ],
)
def test_what_differs_between_transactions_is_taken_out_of_a_reply(reply, taken_out):
    assert strings.normalize_smtp_response(reply) == taken_out


@pytest.mark.parametrize(
    ("name", "source", "result"),
    [
        ("x.html", "{{ name }}", "John &amp; &#34;Co&#34;"),
        ("x.json", "{{ name }}", '"John & \\"Co\\""'),
        ("x.yml.j2", "[{{ name }}, {{ list }}]", '["John & \\"Co\\"", [1,2]]'),
        ("x.txt", "{{ name }}", 'John & "Co"'),
        ("x", "{{ reply | normalize_smtp_response }}", "OK ids={uuid}"),
    ],
)
def test_a_template_escapes_what_its_name_says(name, source, result):
    context = {"name": 'John & "Co"', "list": [1, 2], "reply": "OK ids=69994630-3e27-11ef-91fc-cc28aa0a5c5a"}
    assert strings.eval_template(name, source, context) == result


def test_a_static_template_is_a_text():
    assert strings.eval_template("x", "{{ name }}", {}, "Static") == "{{ name }}"


@pytest.mark.parametrize("module", [strings, encode, regexes, serde, times, uuids, domain_map, cidr_map])
@pytest.mark.parametrize("argument", [None, True, {"a": 1}, object()])
def test_a_wrong_argument_is_a_sentence(module, argument):
    for name, function in module.FUNCTIONS.items():
        required = function.__code__.co_argcount - len(function.__defaults__ or ())
        if required == 0 or name in ("json_encode", "json_encode_pretty", "yaml_encode"):
            continue
        if isinstance(argument, dict) and (name.startswith("toml_encode") or name in ("new", "make_map")):
            continue
        with pytest.raises(ValueError, match=r".+"):
            function(*[argument] * required)


# --- kumo.encode, kumo.digest -----------------------------------------------------------------------------------------


@given(st.binary(max_size=40), st.sampled_from([*encode.FORMS, "hex"]))
def test_what_is_encoded_comes_back(octets, form):
    text = encode.FUNCTIONS[f"{form}_encode"](text_of(octets))
    assert text.isascii()
    assert binary(encode.FUNCTIONS[f"{form}_decode"](text)) == octets


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("base64_decode", "a"),
        ("base64_decode", "a$=="),
        ("base64_nopad_decode", "YQ=="),
        ("base32_decode", "1"),
        ("hex_decode", "abc"),
        ("base64_decode", "ä"),
    ],
)
def test_what_is_no_encoding_is_refused(function, text):
    with pytest.raises(ValueError, match=function):
        encode.FUNCTIONS[function](text)


def test_character_sets():
    assert binary(encode.charset_encode("iso-8859-1", "ä€")) == b"\xe4"
    assert encode.charset_decode("shift_jis", text_of("日".encode("shift_jis"))) == "日"
    with pytest.raises(ValueError, match="charset_encode"):
        encode.charset_encode("iso-8859-1", "€", False)
    for name in ("base64", "zip", "nonsense", "rot13", "\0"):
        with pytest.raises(ValueError, match="unknown character set"):
            encode.charset_decode(name, "x")


def test_digests_as_documented():
    found = fields_of(digest, digest.FUNCTIONS["sha1"]("hello"))
    assert found["hex"] == "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"
    assert found["base32hex"] == "LBQCC7ESONKA5MLURO7JMI1CR6NAIGQD"
    assert found["base64"] == "qvTGHdzF6KLavt4PO0gs2a6pQ00="
    assert found["base64url_nopad"] == "qvTGHdzF6KLavt4PO0gs2a6pQ00"
    assert binary(found["bytes"]) == hashlib.sha1(b"hello").digest()
    key = {"key_data": "your key"}
    assert (
        str(digest.FUNCTIONS["hmac_sha256"](key, "your message"))
        == "87fc1cec5c02f0991ae80f50e98eb2eb5213d07fc40417682a74448ac1deb07c"
    )
    assert str(digest.FUNCTIONS["crc32"]("123456789")) == "cbf43926"


@pytest.mark.parametrize("name", digest.HASHES)
def test_several_arguments_are_one_text_and_tables_are_json(name):
    together = digest.FUNCTIONS[name]("a", {"b": 1}, "c")
    assert str(together) == str(digest.FUNCTIONS[name]('a{"b":1}c'))


def test_a_key_comes_from_a_file(tmp_path):
    (tmp_path / "key").write_bytes(b"\xffk")
    assert key_bytes(str(tmp_path / "key"), "load") == b"\xffk"
    with pytest.raises(ValueError, match="reading file"):
        key_bytes(str(tmp_path / "none"), "load")


# --- kumo.serde -------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_comes_back(value):
    if "\ud800" <= max((c for c in json.dumps(value, ensure_ascii=False)), default="") <= "\udfff":
        return
    assert serde.json_parse(serde.json_encode(value)) == value
    assert serde.json_parse(serde.json_encode_pretty(value)) == value


def test_comments_in_json_are_blanks_and_strings_are_left_alone():
    text = '{ /* one\n two */ "a": "// no /* comment */ # here", // rest\n "b": [1, # two\n 2] }'
    assert serde.json_parse(text) == {"a": "// no /* comment */ # here", "b": [1, 2]}
    with pytest.raises(ValueError, match="line 3"):
        serde.json_parse("/* one\n two */\n x")


def test_pretty_json_has_sorted_keys():
    assert serde.json_encode_pretty({"b": 1, "a": [True]}) == '{\n  "a": [\n    true\n  ],\n  "b": 1\n}'


@pytest.mark.parametrize("text", ["", "{", "NaN", "[1,]", "[" * 100_000])
def test_bad_json_is_a_sentence(text):
    with pytest.raises(ValueError, match="parsing string as json"):
        serde.json_parse(text)


def test_toml_and_yaml():
    toml = serde.toml_parse('a = 1979-05-27T07:32:00Z\n["*.example.com"]\nrelay_to = true\nlist = [1, 2]\n')
    assert toml == {"a": "1979-05-27T07:32:00+00:00", "*.example.com": {"relay_to": True, "list": [1, 2]}}
    assert serde.toml_parse(serde.toml_encode_pretty_compact(toml)) == toml
    assert serde.yaml_parse(serde.yaml_encode(toml)) == toml
    assert serde.yaml_parse("a: [1, x]\nb: 2020-01-01\n") == {"a": [1, "x"], "b": "2020-01-01"}
    for text in ("!!python/object/apply:os.system ['true']", "a: [", "a: b: c"):
        with pytest.raises(ValueError, match="parsing string as yaml"):
            serde.yaml_parse(text)


def test_what_toml_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="expected a table with names"):
        serde.toml_encode([1])
    assert serde.toml_encode({"a": {"b": None, "c": 1}}) == "[a]\nc = 1\n"


def test_a_file_is_named_in_its_errors(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(ValueError, match=rf"reading file {re.escape(str(path))}: No such file"):
        serde.json_load(str(path))
    path.write_text("{")
    with pytest.raises(ValueError, match=rf"parsing {re.escape(str(path))} as json"):
        serde.json_load(str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="as yaml"):
        serde.yaml_load(str(path))


# --- kumo.uuid, kumo.time ---------------------------------------------------------------------------------------------


def test_uuids():
    one = uuids.parse("{69994630-3e27-11ef-91fc-cc28aa0a5c5a}")
    fields = fields_of(uuids, one)
    assert str(one) == fields["hyphenated"] == "69994630-3e27-11ef-91fc-cc28aa0a5c5a"
    assert fields["simple"] == "699946303e2711ef91fccc28aa0a5c5a"
    assert fields["urn"] == "urn:uuid:69994630-3e27-11ef-91fc-cc28aa0a5c5a"
    assert binary(fields["bytes"]).hex() == fields["simple"]
    with pytest.raises(ValueError, match="is no UUID"):
        uuids.parse("x")


@pytest.mark.parametrize(("name", "version"), [("new_v1", 1), ("new_v4", 4), ("new_v6", 6), ("new_v7", 7)])
def test_new_uuids_have_their_version_and_variant(name, version):
    made = [uuids.FUNCTIONS[name]() for _ in range(100)]
    assert len(set(map(str, made))) == 100
    assert {one.value.version or int(str(one)[14]) for one in made} == {version}
    assert {one.value.variant for one in made} == {"specified in RFC 4122"}
    if version in (6, 7):
        stamps = [str(one)[: 18 if version == 6 else 13] for one in made]
        assert stamps == sorted(stamps)


def test_times_as_documented():
    point = times.with_ymd_hms(2000, 1, 2, 3, 4, 5)
    fields = fields_of(times, point)
    assert str(point) == "2000-01-02 03:04:05 UTC"
    assert (fields["unix_timestamp"], fields["unix_timestamp_millis"]) == (946782245, 946782245000)
    assert (fields["rfc2822"], fields["rfc3339"]) == ("Sun, 2 Jan 2000 03:04:05 +0000", "2000-01-02T03:04:05+00:00")
    assert point == times.parse_rfc2822("Sun, 2 Jan 2000 03:04:05 +0000") == times.parse_rfc3339("2000-01-02T03:04:05Z")
    assert times.parse_rfc3339("2000-01-02T04:04:05.25+01:00") == point + times.parse_duration(0.25)
    assert point - times.from_unix_timestamp(946782240) == times.parse_duration("5 seconds")
    assert str(times.from_unix_timestamp(1)) == "1970-01-01 00:00:01 UTC"
    assert str(times.from_unix_timestamp(0.5)) == "1970-01-01 00:00:00.500 UTC"
    assert str(times.parse_duration("5 minutes")) == "5m"
    assert str(times.parse_duration(-90)) == "-1m 30s"
    assert fields_of(times, TimeDelta(1_500_000_000)) == {
        "seconds": 1.5, "nanoseconds": 1_500_000_000, "milliseconds": 1500, "microseconds": 1_500_000,
        "human": "1s 500ms",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("%H:%M:%S", "03:04:05"),
        ("%F %T", "2000-01-02 03:04:05"),
        ("%%F %e", "%F  2"),
        ("%s%.3f|%6f|%f", "946782245.123|123456|123456789"),
        ("%:z %z %Z", "+00:00 +0000 UTC"),
        ("%+", "2000-01-02T03:04:05.123456789+00:00"),
        ("%j %U %V %G %u", "002 01 52 1999 7"),
    ],
)
def test_strftime(layout, text):
    point = Time(946782245_123456789)
    assert times.format_time(point, layout) == text


@given(st.integers(-(2**55), 2**57))
def test_a_time_survives_rfc3339(nanoseconds):
    point = Time(nanoseconds)
    assert times.parse_rfc3339(fields_of(times, point)["rfc3339"]) == point


@pytest.mark.parametrize("text", ["x", "2000-13-01T00:00:00Z", "2000-01-01", "2000-01-01T00:00:00"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="parse_rfc"):
        times.parse_rfc3339(text)


# --- kumo.regex -------------------------------------------------------------------------------------------------------


def test_regexes_as_documented():
    one = regexes.compile(r"'(?<title>[^']+)'\s+\((?<year>\d{4})\)")
    found = regexes.captures(one, "Not my favorite movie: 'Citizen Kane' (1941).")
    assert found == {0: "'Citizen Kane' (1941)", 1: "Citizen Kane", 2: "1941", "title": "Citizen Kane", "year": "1941"}
    assert regexes.captures(one, "none") is None
    assert regexes.find_all(regexes.compile("o+"), "food foooo") == ["oo", "oooo"]
    assert regexes.find(regexes.compile("o+"), "x") is None
    assert (
        regexes.replace_all(regexes.compile(r"(\w+)@(?<d>\w+)"), "a@b c@d", "$d at ${1} $$ $9") == "b at a $  d at c $ "
    )
    assert regexes.replace(regexes.compile("o"), "foo", "0") == "f0o"
    assert regexes.replacen(regexes.compile("o"), "fooo", 2, "0") == "f00o"
    assert regexes.split(regexes.compile(r"[ ,]+"), "a, b c") == ["a", "b", "c"]
    assert regexes.is_match(regexes.compile(r"(?i)(?<!x)abc"), "yABC") is True
    assert regexes.is_match(regexes.compile(regexes.escape("a.b[c]")), "a.b[c]")


def test_a_bad_pattern_is_a_sentence():
    with pytest.raises(ValueError, match="compile"):
        regexes.compile("(")


def test_a_search_that_backtracks_for_ever_ends(monkeypatch):
    monkeypatch.setattr(regexes, "TIMEOUT", 0.05)
    with pytest.raises(ValueError, match="takes more than"):
        regexes.is_match(regexes.compile(r"^(?:(a|b|ab)*c)+$(?<=x)|(x+x+)+y"), "x" * 5000)


# --- maps -------------------------------------------------------------------------------------------------------------


def test_a_domain_map_prefers_the_exact_name_then_the_longest_suffix():
    found = domain_map.new({"*.example.com": "below", "a.b.example.com": "exact", "*.b.example.com": "b", "*": "all"})
    assert [found.get(name) for name in ("x.example.com", "a.b.example.com", "x.b.example.com", "b.example.com")] == [
        "below", "exact", "b", "below",
    ]  # fmt: skip
    assert found.get("example.com") == "all"
    assert found.get("X.EXAMPLE.com") == "below"
    assert found.get("") == "all"
    found["*"] = None
    assert found.get("example.com") is None
    assert found.get("") is None


def test_domains_are_compared_as_a_labels():
    found = DomainMap([("bücher.example", 1), ("*.BÜCHER.example", 2)])
    assert found.get("xn--bcher-kva.example") == 1
    assert found.get("x.xn--bcher-kva.example") == 2


LABELS = st.lists(st.sampled_from("ab*"), min_size=1, max_size=4).map(".".join)


@given(st.dictionaries(LABELS, st.integers(1)), st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join))
def test_a_domain_map_finds_what_a_slow_search_finds(entries, name):
    wanted = entries.get(name)
    parts = name.split(".")
    for cut in range(1, len(parts) + 1):
        if wanted is None:
            wanted = entries.get(".".join(["*", *parts[cut:]]))
    assert DomainMap(entries.items()).get(name) == wanted


def test_a_cidr_map_takes_the_longest_prefix_in_any_order():
    for keys in (("10.0.0.0/8", "10.1.0.0/16"), ("10.1.0.0/16", "10.0.0.0/8")):
        found = CidrMap((key, key) for key in keys)
        assert found.get("10.1.2.3") == "10.1.0.0/16"
        assert found.get("[10.2.0.1]:25") == "10.0.0.0/8"
        assert found.get("192.0.2.1:25") is None
    found = cidr_map.make_map({"::1": "six", "any": "rest"})
    assert [found.get(key) for key in ("[::1]:25", "::1", "192.0.2.1", "::ffff:192.0.2.1")] == [
        "six",
        "six",
        "rest",
        "rest",
    ]
    found["any"] = None
    assert found.get("192.0.2.1") is None


@pytest.mark.parametrize("key", ["10.0.0.1/8", "example.com", "", "10.0.0.0/33"])
def test_a_bad_key_of_a_cidr_map_is_a_sentence(key):
    with pytest.raises(ValueError, match=r".+"):
        cidr_map.make_map({key: 1})
    with pytest.raises(ValueError, match="is not an IP address"):
        CidrMap().get(key)


# --- kumo.fs ----------------------------------------------------------------------------------------------------------


def test_looking_at_files(tmp_path):
    (tmp_path / "b.conf").write_text("12345")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.conf").symlink_to("../b.conf")
    assert files.read_dir(str(tmp_path)) == [str(tmp_path / "b.conf"), str(tmp_path / "sub")]
    assert files.uncached_glob("**/*.conf", str(tmp_path)) == ["b.conf", "sub/a.conf"]
    assert files.uncached_glob(f"{tmp_path}/*.conf") == [str(tmp_path / "b.conf")]
    found = files.metadata_for_path(str(tmp_path / "sub" / "a.conf"))
    assert (found["is_file"], found["is_symlink"], found["len"]) == (True, False, 5)
    assert files.symlink_metadata_for_path(str(tmp_path / "sub" / "a.conf"))["is_symlink"] is True
    assert isinstance(found["mtime"], Time)
    for function in (files.read_dir, files.metadata_for_path):
        with pytest.raises(ValueError, match="No such file"):
            function(str(tmp_path / "none"))


@pytest.mark.parametrize(("number", "text"), [(5, "5"), (5.0, "5.0"), (1e100, "1e+100"), (0.1, "0.1"), (-0.5, "-0.5")])
def test_a_number_is_written_as_lua_writes_it(number, text):
    assert number_text(number) == text
