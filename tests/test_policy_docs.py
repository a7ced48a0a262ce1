"""docs/policy.md documents what the code has, and nothing else."""

from __future__ import annotations

import ast
import re
from enum import Enum
from pathlib import Path

import pytest

from gateway._fastpath import CidrSet
from gateway.config import (
    EgressPath,
    HttpListener,
    Limits,
    Listener,
    ListenerDomain,
    ListenerParams,
    LocalLogs,
    QueueConfig,
    SpoolSettings,
)
from gateway.policy import events, modules
from gateway.policy.api import FUNCTION_NAMES, MAKERS, WARNED, WITHOUT_EFFECT
from gateway.policy.fleet_schemas import FLEET, MEMBER
from gateway.policy.limits import DEFAULT_LIMITS
from gateway.policy.messages.header import TRANSFORMS
from gateway.policy.messages.table import FUNCTIONS as METHODS
from gateway.policy.messages.table import NOT_SUPPORTED as METHODS_NOT_SUPPORTED
from gateway.policy.messages.table import WITHOUT_EFFECT as METHODS_WITHOUT_EFFECT
from gateway.policy.model import of_this_gateway
from gateway.policy.options import Role, Schema, did_you_mean, duration
from gateway.policy.outside import http, jsonl, mail_auth, redis
from gateway.policy.outside.resolver_options import RESOLVER, RESOLVER_OPTIONS
from gateway.policy.schemas import SCHEMAS
from gateway.rates import Rate
from gateway.smtp.conduct import COMMAND_TIMEOUT, DATA_TIMEOUT, MINIMUM_DATA_RATE

DOCS = (Path(__file__).parent.parent / "docs" / "policy.md").read_text()


# what the page calls objects of each class
HELD_AS = {
    "AsyncFile": "file",
    "CounterSeries": "series",
    "HttpClient": "client",
    "HttpRequest": "request",
    "HttpResponse": "response",
    "JsonlWriter": "writer",
    "Program": "program",
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


# What an option is where it is not given: by the section of its table, values that have it as an attribute.
UNLESS_GIVEN = {
    "`kumo.make_listener_domain`": [ListenerDomain()],
    "`kumo.start_esmtp_listener`": [Listener(listen="127.0.0.1:2025"), ListenerParams(hostname="")],
    "What a client may do": [Limits()],
    "`kumo.start_http_listener`": [HttpListener()],
    "`kumo.configure_local_logs`": [LocalLogs(log_dir="")],
    "`kumo.define_spool`": [SpoolSettings(name="", path="")],
    "`kumo.set_handler_limits`": [DEFAULT_LIMITS],
    "`kumo.make_queue_config`": [QueueConfig()],
    "`kumo.make_egress_path`": [EgressPath()],
}
# Those that conduct.py has: what a listener says counts for its relay hosts, too, and this does not.
FOR_STRANGERS = {
    "command_timeout": COMMAND_TIMEOUT,
    "data_timeout": DATA_TIMEOUT,
    "minimum_data_rate": Rate(1 / MINIMUM_DATA_RATE, int(MINIMUM_DATA_RATE)),
}


def is_said(cell: str, value: object) -> bool:
    """Whether a cell of a table says that something has this value."""
    text = cell.strip().strip("`")
    if value is None or value == "":
        return text in ("none", "")
    if isinstance(value, Rate):
        return Rate.read(text.strip("'")) == value
    if isinstance(value, CidrSet):
        return CidrSet(tuple(re.findall(r"'([^']+)'", text))) == value
    if isinstance(value, Enum):
        return text == f"'{value.value}'"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return text in (str(value).lower(), "{}" if not value else "")
    if isinstance(value, float):
        return duration(text.strip("'").replace(" min", " minutes")) == value
    return bool(ast.literal_eval(text) == value)


@pytest.mark.parametrize("title", UNLESS_GIVEN)
def test_every_default_is_that_of_the_code(title: str) -> None:
    text = section(title)
    defaults = {name: row.split(" | ")[1] for name, row in rows(text).items() if "*accepted*" not in row}
    known = FOR_STRANGERS if "esmtp" in title else {}
    wrong = {}
    for name, cell in defaults.items():
        holders = [each for each in UNLESS_GIVEN[title] if hasattr(each, name)]
        in_words = (
            cell in ("required", "below") or "'s" in cell.strip("`'") or cell.startswith(("as ", "self-", "the "))
        )
        if holders and not in_words and not is_said(cell, known.get(name, getattr(holders[0], name))):
            wrong[name] = cell
    assert wrong == {}


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
