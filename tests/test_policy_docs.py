"""docs/policy.md documents what the code has, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.policy import events, modules
from gateway.policy.api import FUNCTION_NAMES, MAKERS, WARNED, WITHOUT_EFFECT
from gateway.policy.fleet_schemas import FLEET, MEMBER
from gateway.policy.messages.header import TRANSFORMS
from gateway.policy.messages.table import FUNCTIONS as METHODS
from gateway.policy.messages.table import NOT_SUPPORTED as METHODS_NOT_SUPPORTED
from gateway.policy.messages.table import WITHOUT_EFFECT as METHODS_WITHOUT_EFFECT
from gateway.policy.model import of_this_gateway
from gateway.policy.options import Role, Schema, did_you_mean
from gateway.policy.outside import http, jsonl, mail_auth, redis
from gateway.policy.outside.resolver_options import RESOLVER, RESOLVER_OPTIONS
from gateway.policy.schemas import SCHEMAS

DOCS = (Path(__file__).parent.parent / "docs" / "policy.md").read_text()


# what the page calls objects of each class
HELD_AS = {
    "AsyncFile": "file",
    "CounterSeries": "series",
    "HttpClient": "client",
    "HttpRequest": "request",
    "HttpResponse": "response",
    "JsonlWriter": "writer",
    "RedisConnection": "conn",
    "SqliteDatabase": "db",
    "Throttle": "throttle",
    "Timer": "timer",
}


def section(title: str) -> str:
    """From a heading to the next one of the same or a higher level."""
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", DOCS, re.M | re.S)
    assert match is not None, title
    return match[2]


def rows(text: str) -> dict[str, str]:
    """First cell (its first quoted word) → the whole row."""
    return {match[1]: match[0] for match in re.finditer(r"^\| `([^`]+)`.*$", text, re.M)}


@pytest.mark.parametrize("function", SCHEMAS)
def test_every_option_is_documented_with_its_role(function: str) -> None:
    found = rows(section(f"`kumo.{function}`"))
    assert set(found) == set(SCHEMAS[function].options)
    for name, option in SCHEMAS[function].options.items():
        assert ("*accepted*" in found[name]) == (option.role is Role.ACCEPTED), name
        assert ("*refused*" in found[name]) == (option.role is Role.REFUSED), name


def test_every_option_of_a_fleet_and_of_its_members_is_documented() -> None:
    assert set(rows(section("`gateway.fleet`"))) == {*FLEET.options, *MEMBER.options}


def test_every_event_is_documented() -> None:
    text = section("Events")
    assert set(rows(text)) == set(events.SUPPORTED)
    named = set(re.findall(r"`([a-z_0-9]+\*?)`", text.partition("`domain` is normalised")[2]))
    assert {*events.NOT_SUPPORTED, *events.WITHOUT_EFFECT, *events.MULTIPLE} <= named
    assert f"{events.NOT_SUPPORTED_PREFIX}*" in named


def test_the_parameters_of_handlers_are_those_of_the_table() -> None:
    arguments = {name: row.split("|")[2] for name, row in rows(section("Events")).items()}
    assert {name: tuple(re.findall(r"\w+", cell)) for name, cell in arguments.items()} == events.PARAMETERS


def test_every_function_is_documented() -> None:
    named = set(re.findall(r"`kumo\.([a-z_]+)(?=[`(])", section("Other functions")))
    assert named | {*SCHEMAS} == {*FUNCTION_NAMES, *modules.TOP, "version"}
    assert {*MAKERS, *WITHOUT_EFFECT, *WARNED} <= named | {*SCHEMAS}


def test_every_function_of_a_module_is_documented() -> None:
    text = section("Modules")
    assert set(re.findall(r"^\| `kumo\.([a-z_]+\.\w+)\(", text, re.M)) == modules.names() - {*modules.TOP}
    assert {alias for alias in modules.ALIASES if f"`kumo.{alias}`" in text} == set(modules.ALIASES)
    for module, names in modules.UNSTABLE.items():
        assert all(re.search(rf"`kumo\.{module}\.{name}\(.*\*unstable\*", text) for name in names)


def test_every_function_and_method_that_asks_others_is_documented() -> None:
    for kind, (methods, _) in modules.OUTSIDE_OBJECTS.items():
        for name in methods:
            row = re.search(rf"`{HELD_AS[kind.__name__]}:{name}\([^`]*\)`[^\n]*", DOCS)
            assert row is not None, f"{kind.__name__}:{name}"
            assert ("*waits*" in row[0]) == (f"{kind.__name__}:{name}" in modules.WAITING), name
    both = {**modules.OUTSIDE, **modules.LIBRARIES}
    for name in (f"{module}.{name}" for module, functions in both.items() for name in functions):
        row = re.search(rf"^\| `(?:kumo\.)?{name}\(.*$", DOCS, re.M)
        assert row is not None and ("*waits*" in row[0]) == (name in modules.WAITING), name


@pytest.mark.parametrize(
    ("title", "schema"),
    [
        ("HTTP", http.BUILD_CLIENT),
        ("DNS", RESOLVER),
        ("DNS", RESOLVER_OPTIONS),
        ("Records of one's own", jsonl.NEW_WRITER),
        ("Throttles and Redis", redis.OPEN),
    ],
)
def test_options_of_modules_are_documented(title: str, schema: Schema) -> None:
    found = {name: row for row in rows(section(title)).values() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert set(schema.options) <= set(found)
    for name, option in schema.options.items():
        assert ("*accepted*" in found[name]) == (option.role is Role.ACCEPTED), name
        assert ("*refused*" in found[name]) == (option.role is Role.REFUSED), name


def test_every_method_is_documented() -> None:
    named = set(re.findall(r"`msg:([a-z_0-9]+)", section("Messages")))
    assert named == {*METHODS, *mail_auth.FUNCTIONS, *METHODS_NOT_SUPPORTED, *METHODS_WITHOUT_EFFECT}
    assert {*METHODS_NOT_SUPPORTED} <= named
    assert all(f"'{name}'" in section("Messages") for name in TRANSFORMS)


def test_every_method_and_field_of_an_object_is_documented() -> None:
    for kind in of_this_gateway().kinds.values():
        named = [*kind.methods, *(kind.fields or ())] if kind.name != "string" else []
        for name in named:  # "and the last four with `_nopad`", "each with `set_` in front"
            shown = name.removeprefix("set_") if kind.name == "HeaderMap" else name.removesuffix("_nopad")
            assert re.search(rf"[`:.]{shown}\b", DOCS), f"{kind.name}: {name}"


def test_unstable_functions_of_lua_are_documented() -> None:
    prelude = (Path(__file__).parent.parent / "gateway" / "policy" / "prelude.lua").read_text()
    for library, names in re.findall(r"^unstable\((os|math), (.*)\)$", prelude, re.M):
        for name in re.findall(r"'(\w+)'", names):
            assert f"`{library}.{name}`" in section("What is cached")


def test_suggestions_are_near() -> None:
    assert did_you_mean("relay_too", ["relay_to", "ttl"]) == "did you mean 'relay_to'?"
    assert did_you_mean("frobnicate", ["relay_to", "ttl"]) == ""
