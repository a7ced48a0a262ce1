"""The documentation against the code, both ways: names, files, commands, policies, replies and RFCs.

docs/policy.md, docs/metrics.md and docs/log-records.md are compared with the code where their subjects are tested.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from gateway import cli
from gateway.policy.source import PolicySource
from gateway.service.context import EX_CONFIG, EX_SOFTWARE, EX_TEMPFAIL
from gateway.service.supervisor import KILL_SLACK
from gateway.smtp import replies
from gateway.smtp.replies import Reason, Reply
from tests.policy_tools import examine

ROOT = Path(__file__).parent.parent
PAGES = [path for folder in (".", "docs", "deploy", "bench") for path in sorted((ROOT / folder).glob("*.md"))]
SOURCES = [
    path
    for path in sorted((ROOT / "gateway").rglob("*"))
    if path.suffix in (".py", ".pyx", ".pyi", ".pxi", ".lua")
]  # fmt: skip
PATH = re.compile(r"(?<![\w./:-])(?:gateway|docs|tests|deploy|bench)/[\w./-]*\w")
MODULE = re.compile(r"(?<![\w./-])(?:[\w-]+/)*[\w-]+\.(?:py|pyx|pyi|pxi|pxd)\b(?!\.)")
LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")
PATHS_OF_A_TABLE_ROW = re.compile(r"`(gateway/[^`]+)`")


def page(name: str) -> str:
    return (ROOT / name).read_text()


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def first_column(text: str) -> list[str]:
    """What stands in backticks in the first cell of table rows."""
    return [name for cell in re.findall(r"^\| (.*?) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)]


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_every_relative_link_leads_to_a_file(path):
    links = [link for link in LINK.findall(path.read_text()) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_every_file_that_is_named_exists(path):
    named = set(PATH.findall(path.read_text())) - {"bench/results"}  # made by `make bench`
    assert [name for name in sorted(named) if not (ROOT / name).exists() and not list(ROOT.glob(f"{name}.*"))] == []


def test_the_module_table_is_the_package():
    named = PATHS_OF_A_TABLE_ROW.findall(page("docs/architecture.md").partition("## Modules")[2])
    files = [name for name in named if not name.endswith("/") and "." in name]
    assert sorted(files) == sorted(relative(path) for path in SOURCES)


def test_file_names_in_the_sources_exist():
    named = {name for path in SOURCES for name in re.findall(r"docs/[\w-]+\.md|deploy/[\w.-]+\w", path.read_text())}
    assert [name for name in named if not (ROOT / name).exists()] == []
    modules = {(path, name) for path in SOURCES for name in MODULE.findall(path.read_text())}
    known = {path.name for path in SOURCES} | {path.name for path in (ROOT / "gateway").rglob("*.pxd")}
    places = (ROOT, ROOT / "gateway")
    assert [
        (relative(path), name)
        for path, name in modules
        if not any((place / name).exists() for place in (*places, path.parent)) and name not in known
    ] == []


def test_the_readme_leads_to_every_page():
    linked = {link for link in LINK.findall(page("README.md")) if link.endswith(".md")}
    assert {relative(path) for path in PAGES} - {"README.md"} <= linked


# --- commands ---------------------------------------------------------------------------------------------------------


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(command, exit_on_error=False)
    cli._implementation(cli.COMMANDS[command][0]).add_arguments(parser)
    return parser


def options_of(command: str) -> set[str]:
    actions = parser_of(command)._actions
    return {option for action in actions for option in action.option_strings} - {"-h", "--help"}


def test_the_readme_names_every_command_and_every_option_but_those_of_run_and_bench():
    rows = dict(re.findall(r"^\| `relay-gateway (\w+)` \| (.*) \|$", page("README.md"), re.MULTILINE))
    assert rows.keys() == cli.COMMANDS.keys()
    for command in rows.keys() - {"run", "bench"}:
        assert set(re.findall(r"`(--?[\w-]+)`", rows[command])) == options_of(command)


def command_lines() -> list[str]:
    """The calls of relay-gateway in shell blocks of all pages without comments and pipes, and of the runbooks."""
    lines = []
    for path in PAGES:
        for line in re.findall(r"^ {4}(?:\.venv/bin/)?relay-gateway (.*)$", path.read_text(), re.MULTILINE):
            lines.append(re.split(r" +#| \| ", line)[0])
    return lines + sorted(set(re.findall(r"`relay-gateway ([a-z]+ [^`]+)`", page("docs/runbooks.md"))))


@pytest.mark.parametrize("line", command_lines())
def test_every_call_of_relay_gateway_in_a_page_is_a_valid_one(line):
    command, *arguments = shlex.split(line)
    if command.startswith("--"):
        assert command in ("--help", "--version")
        return
    parser_of(command).parse_args(arguments)


def test_the_quickstart_commands_go_where_the_quickstart_policy_listens():
    quickstart = page("deploy/quickstart.lua")
    addresses = set(re.findall(r"127\.0\.0\.1:\d+", page("README.md")))
    assert {"127.0.0.1:2525", "127.0.0.1:8025"} <= addresses
    assert all(address in quickstart for address in addresses - {"127.0.0.1:2526"})  # the sink's


@pytest.mark.parametrize("target", re.findall(r"`?make ([a-z]+)\b", page("README.md")))
def test_every_make_target_in_the_readme_exists(target):
    assert re.search(rf"^{target}:", page("Makefile"), re.MULTILINE)


# --- policies ---------------------------------------------------------------------------------------------------------

LUA_BLOCKS = [
    pytest.param(block, id=f"{relative(path)}-{number}")
    for path in PAGES
    for number, block in enumerate(re.findall(r"^```lua\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE), 1)
]


@pytest.mark.parametrize("block", LUA_BLOCKS)
def test_every_policy_in_a_page_is_good(block, tmp_path):
    policy = tmp_path / "policy.lua"
    policy.write_text(block)
    problems, warnings, _ = examine(PolicySource.read(str(policy)))
    problems = [problem for problem in problems if "No such file" not in problem.message]  # a page's certificates
    assert (problems, warnings) == ([], [])


def test_the_readme_shows_the_policy_that_the_quickstart_runs():
    shown = re.search(r"^```lua\n(.*?)^```", page("README.md"), re.DOTALL | re.MULTILINE)
    assert shown
    assert lua_code(shown[1]) == lua_code(page("deploy/quickstart.lua"))


def lua_code(text: str) -> list[str]:
    """Lines without comments and blanks; no string in these policies contains a double dash."""
    lines = [line.partition("--")[0].rstrip() for line in text.splitlines()]
    return [line for line in lines if line]


# --- replies ----------------------------------------------------------------------------------------------------------


def reason_rows() -> dict[str, str]:
    return dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", page("docs/reasons.md"), re.MULTILINE))


def test_every_reason_is_explained_and_every_explained_reason_exists():
    assert reason_rows().keys() == set(Reason)


def test_every_reason_names_the_replies_it_comes_with():
    constants = [reply for reply in vars(replies).values() if isinstance(reply, Reply) and reply.reason]
    rows = reason_rows()
    assert [r for r in constants if f"`{r.code} {r.enhanced}`" not in rows[r.reason]] == []


# --- RFCs -------------------------------------------------------------------------------------------------------------


def rfc_rows() -> dict[str, str]:
    return dict(re.findall(r"^\| (\d{3,4}) \|(.*)\|$", page("docs/standards.md"), re.MULTILINE))


def rfcs_in(text: str) -> set[str]:
    """The numbers behind "RFC": also the further ones of "RFC 5321, 1870 (SIZE), 2920"."""
    found = set()
    for run in re.findall(r"RFC (\d{3,4}(?:(?: \([A-Z0-9]+\))?,? (?:and )?\d{4}\b)*)", text):
        found.update(re.findall(r"\b\d{3,4}\b", run))
    return found


def test_every_rfc_in_the_sources_is_in_the_table_and_back():
    referred = set().union(*(rfcs_in(path.read_text()) for path in SOURCES))
    rows = rfc_rows()
    implemented = {number for number, row in rows.items() if "| no |" not in row}
    assert referred - rows.keys() == set()
    assert implemented - referred == set()


def test_every_module_named_for_an_rfc_refers_to_it():
    wrong = []
    for number, row in rfc_rows().items():
        for name in re.findall(r"`([\w/.]+\.(?:py|pxi|pyx))`", row):
            if number not in rfcs_in((ROOT / "gateway" / name).read_text()):
                wrong.append((number, name))
    assert wrong == []


# --- operations, security ---------------------------------------------------------------------------------------------


def test_the_operations_page_lists_every_option_exit_code_and_path():
    from gateway.admin import server as admin

    names = first_column(page("docs/operations.md"))
    assert {name for name in names if name.startswith("--")} == options_of("run")
    assert {name for name in names if name.startswith("/")} >= set(admin.ENDPOINTS)
    assert {name for name in names if name.isdigit()} == {"0", "2", str(EX_SOFTWARE), str(EX_TEMPFAIL), str(EX_CONFIG)}


def test_the_systemd_unit_starts_a_valid_command_and_does_not_repeat_a_bad_configuration():
    unit = dict(re.findall(r"^(\w+)=(.*)$", page("deploy/relay-gateway.service"), re.MULTILINE))
    for line in (unit["ExecStart"], unit["ExecStartPre"]):
        program, command, *arguments = shlex.split(line)
        assert program.endswith("/relay-gateway")
        parser_of(command).parse_args([each for each in arguments if not each.startswith("$")])
    assert unit["RestartPreventExitStatus"] == str(EX_CONFIG)
    assert int(unit["TimeoutStopSec"]) > parser_of("run").get_default("drain_timeout") + KILL_SLACK


@pytest.mark.parametrize(
    ("value", "constant"), re.findall(r"\| ([\d.]+) \| `([\w.]+\.[A-Z_]+)` \|", page("docs/operations.md"))
)
def test_every_fixed_limit_has_the_value_that_the_page_says(value, constant):
    module, _, name = constant.rpartition(".")
    assert getattr(importlib.import_module(f"gateway.{module}"), name) == float(value)


def test_every_test_that_a_page_names_exists():
    named = {name for path in PAGES for name in re.findall(r"`(test_\w+)`", path.read_text())}
    trees = [ast.parse(path.read_text()) for path in (ROOT / "tests").glob("test_*.py")]
    defined = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert named - defined == set()
    assert named
