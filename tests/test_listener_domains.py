"""`policy-extras.listener_domains`: what its files grant, how they are merged, and what is wrong with them, by line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import PackedNames
from gateway.config import Disposition, ListenerDomain
from gateway.policy import domain_files
from gateway.policy.domain_files import Group, Text
from gateway.policy.engine import Policy
from gateway.policy.problems import PolicyProblems
from tests.policy_tools import LISTENER, Clock, answered_from, ask, load, new_page

RELAYS, DROPS = ListenerDomain(relay_to=True), ListenerDomain(log_oob=Disposition.LOG_THEN_DROP)
SETUP = "kumo.on('get_listener_domain', require('policy-extras.listener_domains'):setup { %s })"


def loaded(tmp_path: Path, *sources: str, **files: str) -> Policy:
    """A policy whose sources are tables, and files by their name with _ for the dot."""
    names = {name: tmp_path / name.replace("_", ".") for name in files}
    for name, text in files.items():
        names[name].write_text(text)
    quoted = [f"'{names[source]}'" if source in names else source for source in sources]
    return load(SETUP % ", ".join(quoted))


def troubles(tmp_path: Path, *sources: str, **files: str) -> str:
    with pytest.raises(PolicyProblems) as bad:
        loaded(tmp_path, *sources, **files)
    return str(bad.value).replace(f"{tmp_path}/", "")


def test_the_exact_name_then_the_longest_wildcard_then_the_lone_one(tmp_path: Path) -> None:
    table = """{ ['a.example'] = { log_oob = 'LogThenDrop' }, ['*.example'] = { relay_to = true },
        ['*.b.example'] = { log_oob = 'LogThenDrop' }, ['B.example'] = {}, ['*'] = { relay_to = false } }"""
    policy = loaded(tmp_path, table)
    granted = {name: ask(policy, name) for name in ("a.example", "x.a.example", "x.b.example", "y.x.b.example")}
    assert granted == {"a.example": DROPS, "x.a.example": RELAYS, "x.b.example": DROPS, "y.x.b.example": DROPS}
    assert ask(policy, "b.example") == ask(policy, "example") == ask(policy, "") == ListenerDomain()


def test_without_a_lone_wildcard_strangers_and_the_null_sender_get_nothing(tmp_path: Path) -> None:
    policy = loaded(tmp_path, "{ ['*.example'] = { relay_to = true } }")
    assert [ask(policy, name) for name in ("example", "example.org", "")] == [None, None, None]


def test_names_are_compared_as_domains_are(tmp_path: Path) -> None:
    policy = loaded(tmp_path, "domains_toml", domains_toml='["BÜCHER.Example"]\nrelay_to = true\n')
    assert ask(policy, "xn--bcher-kva.example") == RELAYS


def test_a_listeners_own_section_decides_before_what_is_for_all(tmp_path: Path) -> None:
    table = """{ ['a.example'] = { log_oob = 'LogThenDrop' }, listener = {
        ['192.0.2.1:25'] = { ['a.example'] = { relay_to = true } },
        ['0.0.0.0:587'] = { ['*'] = { relay_to = true } }, ['[::]:587'] = { ['six.example'] = { relay_to = true } },
        ['*'] = { ['a.example'] = { relay_to = true }, ['b.example'] = { relay_to = true } } } }"""
    policy = loaded(tmp_path, table)
    assert ask(policy, "a.example", LISTENER) == RELAYS
    assert ask(policy, "a.example", "192.0.2.2:25") == DROPS  # it replaces the one in listener."*"
    assert ask(policy, "b.example", LISTENER) == RELAYS
    assert ask(policy, "c.example", "192.0.2.9:587") == RELAYS  # any address with that port
    assert ask(policy, "c.example", "[2001:db8::1]:587") is None
    assert ask(policy, "six.example", "[2001:db8::1]:587") == RELAYS


def test_later_files_stand_over_earlier_ones_key_by_key(tmp_path: Path) -> None:
    first = '# all of them\n["a.example"]\nrelay_to = true\nlog_arf = true\n["b.example"]\nrelay_to = true\n'
    second = '{ /* changed */ "a.example": {"log_arf": false, "log_oob": "LogThenDrop"} }'
    policy = loaded(tmp_path, "first_toml", "second_json", first_toml=first, second_json=second)
    assert ask(policy, "a.example") == ListenerDomain(relay_to=True, log_oob=Disposition.LOG_THEN_DROP)
    assert ask(policy, "b.example") == RELAYS


def test_a_listed_user_may_relay_from_where_he_is_and_nobody_else(tmp_path: Path) -> None:
    policy = loaded(tmp_path, "{ ['a.example'] = { relay_from = { '10.0.0.0/8' }, relay_from_authz = { 'ann' } } }")

    def relays_from(**meta: object) -> list[str]:
        granted = ask(policy, "a.example", **meta)
        assert isinstance(granted, ListenerDomain)
        return list(granted.relay_from)

    assert relays_from() == relays_from(authz_id="bob", received_from="198.51.100.7:99") == ["10.0.0.0/8"]
    assert relays_from(authz_id="ann", received_from="198.51.100.7:99") == ["198.51.100.7"]
    assert relays_from(authz_id="ann", received_from="[2001:db8::7]:99") == ["2001:db8::7"]


def test_a_handler_of_the_policys_own_may_ask_it_and_is_cached_by_what_it_looks_at(tmp_path: Path) -> None:
    policy = load("""
    local find = require('policy-extras.listener_domains'):setup {
      { ['a.example'] = { relay_to = true }, ['b.example'] = { relay_from_authz = { 'ann' } } } }
    kumo.on('get_listener_domain', function(domain, listener, conn_meta)
      local found = find(domain, listener, conn_meta)
      if found and found.relay_to then return kumo.make_listener_domain { log_oob = 'LogThenDrop' } end
      return found
    end)""")
    assert ask(policy, "a.example") == DROPS
    assert answered_from(policy, "a.example") == "cache"
    assert ask(policy, "b.example") == ListenerDomain()
    ann = {"authz_id": "ann", "received_from": "192.0.2.7:1"}
    assert ask(policy, "b.example", **ann) != ListenerDomain()


def test_what_is_written_into_an_inline_table_is_not_taken_out_of_it(tmp_path: Path) -> None:
    policy = load("""
    local domains = { listener = { ['192.0.2.1:25'] = { ['a.example'] = { relay_to = true } } } }
    kumo.on('get_listener_domain', require('policy-extras.listener_domains'):setup { domains })
    assert(domains.listener['192.0.2.1:25'])""")
    assert ask(policy, "a.example") == RELAYS


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "d_toml",
            '["a.example"]\nrelay_to = true\n\n["b.example"]\nlog_oob = "D"\n',
            "d.toml:5: 'b.example': log_oob",
        ),
        ("d_toml", '["a.example"]\n\nrelay_too = true\n', "d.toml:3: 'a.example': relay_too: unknown option; did you"),
        ("d_toml", '["a.example"]\nrelay_from = ["10.0.0.1/24"]\n', "d.toml:2: 'a.example': relay_from: 10.0.0.1/24"),
        ("d_toml", '["a.example"]\nrelay_to = yes\n', "d.toml:2: Invalid value"),
        ("d_toml", '["a.example"]\nrelay_to = true\n["a.example"]\n', "d.toml:3: Cannot declare"),
        ("d_toml", "[a.example]\nrelay_to = true\n", "d.toml:1: 'a': example: unknown option"),
        ("d_toml", 'x = 1\n["a.example"]\n', "d.toml:1: 'x': expected a table"),
        ("d_toml", "listener = 1\n", "d.toml:1: 'listener': expected a table of listeners"),
        ("d_toml", '[listener."1.2.3.4:25"."a.example"]\nfoo = 1\n', "d.toml:2: 'a.example': foo: unknown option"),
        ("d_json", '{\n "a.example": {"relay_to": true},\n "b.example": {\n  "foo": 1}}', "d.json:4: 'b.example': foo"),
        ("d_json", '{"a.example": {\n"relay_to": tru}}', "d.json:2: Expecting value"),
        ("d_json", "[1]", "d.json:1: expected a table of domains"),
        ("d_json", '{"a\\nb": {}}', "d.json:1: 'a\nb': this is no domain"),
        ("d_json", '{"\\ud800": {}}', "d.json:1: '\ud800': this is no domain"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_line(tmp_path: Path, name: str, text: str, problem: str) -> None:
    assert troubles(tmp_path, name, **{name: text}).startswith(problem)


def test_all_mistakes_of_a_file_are_named_and_a_missing_file_with_them(tmp_path: Path) -> None:
    text = "".join(f'["{name}.example"]\nfoo = 1\n' for name in "abc")
    said = troubles(tmp_path, "d_toml", "'gone.toml'", d_toml=text)
    assert [line.partition(": ")[0] for line in said.splitlines()] == [
        *("policy.lua:1", "d.toml:2", "d.toml:4", "d.toml:6"),
    ]
    assert "listener_domains:setup: reading file gone.toml: No such file or directory" in said


def test_a_mistake_in_a_table_of_the_policy_has_the_policys_line() -> None:
    with pytest.raises(PolicyProblems) as bad:
        load(SETUP % "\n{\n['a.example'] = { relay_to = true },\n['b.example'] = { relay_two = true } }")
    assert str(bad.value).startswith("policy.lua:4: 'b.example': relay_two: unknown option; did you mean 'relay_to'?")


def test_it_is_set_up_once() -> None:
    with pytest.raises(PolicyProblems, match=r"policy.lua:2: listener_domains module has already been configured"):
        load(SETUP % "{}" + "\nrequire('policy-extras.listener_domains'):setup {}")


# --- large files ------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        '["a.example"]', "['b.example'] # x", '[listener."1.2.3.4:25"."a.example"]', "[listener.x]", '["a.example".b]',
        "relay_to = true", "relay_from = [", '"10.0.0.0/8",', "]", 'c = """', '"""',
        "'d.example' = { relay_to = true }", "# comment", "", '["listener"]', "[[e]]", "a.b = 1",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=10).map("\n".join))
def test_a_file_in_pieces_says_what_it_says_as_a_whole(text: str) -> None:
    """No text is read otherwise for being cut at its tables."""
    assert _said(domain_files.read, text) == _said(_as_a_whole, text)


def _as_a_whole(text: Text) -> list[Group]:
    return domain_files.read_table(domain_files.parsed(text, domain_files.tomllib.loads), text)


def _said(read: Callable[[Text], list[Group]], text: str) -> object:
    found: dict[tuple[str, str], object] = {}
    try:
        for group in read(Text("x.toml", text)):
            found |= {(group.listener, domain): values for domain, values in group.domains.items()}
    except domain_files.Unreadable as bad:
        return str(bad)
    return found


def test_a_worker_gets_the_table_and_reads_no_file(tmp_path: Path) -> None:
    text = "".join(f'["d{number}.example"]\nrelay_to = true\n' for number in range(5_000))
    source = loaded(tmp_path, "d_toml", d_toml=text).source
    (tmp_path / "d.toml").unlink()
    handed_over = pickle.loads(pickle.dumps(source))
    policy = Policy.load(handed_over, page=new_page(), clock=Clock())
    assert ask(policy, "d4999.example") == RELAYS
    assert ask(policy, "d5000.example") is None
    assert [len(table) for table in handed_over.tables.values()] == [5_000]
    assert not [name for name in handed_over.files if name.endswith(".toml")]


@given(st.dictionaries(st.text("ab.", max_size=6), st.integers(0, 2**32 - 1), max_size=40), st.text("ab.", max_size=8))
def test_packed_names_are_a_dictionary(numbers: dict[str, int], name: str) -> None:
    packed = pickle.loads(pickle.dumps(PackedNames(numbers)))
    assert len(packed) == len(numbers)
    assert {known: packed.find(known) for known in numbers} == numbers
    assert packed.find(name) == numbers.get(name, -1)
    above = [name[place + 1 :] for place, octet in enumerate(name) if octet == "."] + [""]
    assert packed.find_above(name) == next((numbers[each] for each in above if each in numbers), -1)


def test_packed_names_are_texts_of_bounded_length() -> None:
    assert PackedNames({"ü" * 32_767: 1}).find("ü" * 32_767) == 1
    with pytest.raises(ValueError, match="too long"):
        PackedNames({"x" * 65_536: 1})
    with pytest.raises(UnicodeEncodeError):
        PackedNames({"\udcff": 1})
    with pytest.raises(OverflowError):
        PackedNames({"x": 2**32})
    assert PackedNames({"x": 1}).find("\udcff") == PackedNames({"x": 1}).find_above("\udcff.x") == -1
