"""The source itself: linters, types, where each capability lives, and the size of files.

The tools are pinned in requirements-test.lock; their settings are in pyproject.toml.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sysconfig.get_path("scripts")
PACKAGE = sorted((ROOT / "gateway").rglob("*.py"))
MAX_LINES = 500  # no file may grow beyond it; 400 is what to aim at

# Which modules may import what, relative to gateway/. A package stands for all its modules.
IMPORTERS = {
    "lupa": {"policy/runtime.py"},
    "uvloop": {"service/worker.py", "sink.py"},
    "asyncio": {
        "net/streams.py", "net/tls_stream.py", "net/resolver.py", "service/worker.py", "service/window.py", "sink.py",
        "admin/operating.py", "admin/origin.py", "admin/server.py", "admin/streaming.py", "admin/watched.py",
        "couriers", "policy/background.py",
        "policy/outside", "ship.py", "service/shipping.py",
        "shipping/running.py", "shipping/shipper.py", "shipping/sinks",
    },
    "aiohttp": {
        "admin/operating.py", "admin/origin.py", "admin/server.py", "admin/streaming.py", "admin/watched.py",
        "policy/outside/http.py",
        "shipping/sinks/webhook.py",
    },
    "socket": {
        "admin", "net/streams.py", "net/resolver.py", "service",
        "policy/listener.py", "policy/prefixes.py", "logs/identity.py",  # for gethostname() alone
    },
    "ssl": {"send.py", "shipping/sinks", "net/tls.py", "net/tls_stream.py", "couriers"},
    "signal": {
        "admin/server.py", "sink.py", "service/worker.py", "service/supervisor.py", "service/child.py",
        "service/plan.py", "service/trial.py", "shipping/running.py", "service/shipping.py",
        "policy/outside/programs.py",
    },
    "time": {
        "admin/server.py",
        "admin/trace.py", "admin/processes.py", "admin/watched.py", "admin/status_command.py",
        "admin/locate.py",  # for a clock to lend to a policy that is read
        "sink.py", "service/worker.py", "service/supervisor.py", "service/diagnostics.py", "service/shipping.py",
        "couriers",
        "policy/engine.py",  # the default of a parameter
        "policy/kumo/times.py", "policy/kumo/uuids.py",  # what policies ask the clock for
        "policy/limits.py", "policy/outside/programs.py",
        "logs/writer.py", "logs/command.py", "shipping/shipper.py", "shipping/sinks",
        "why/asking.py", "why/diff_command.py",
    },
    "threading": {"policy/limits.py", "logs/writer.py", "couriers/spool/writer.py"},
    "sqlite3": {"couriers/spool", "policy/outside/sqlite.py"},
    "subprocess": {"policy/outside/programs.py"},
    "multiprocessing": set(),
    "zstandard": {"logs"},
}  # fmt: skip
CALLERS = {
    "os.fork": {"service/child.py"},
    "os._exit": {"service/child.py"},
    "os.kill": {"service/supervisor.py", "service/trial.py"},
    "os.waitpid": {"service/supervisor.py", "service/trial.py"},
    "os.system": set(),
    "os.execv": set(),
    "os.execve": {"service/upgrade.py"},
    "eval": set(),
    "exec": set(),
}
# Packages and top modules, each above all that it may import: nothing imports what imports it.
DOWNWARDS = (
    "__main__", "cli", "init", "send", "sink", "ship", "service", "why", "admin", "inbound", "delivery", "policy",
    "tracing", "couriers", "net", "shipping", "logs", "terminal", "reports", "metrics", "mail", "handover", "later",
    "decision", "smtp", "config", "shipments", "quotas", "rates", "arena", "_fastpath", "__init__",
)  # fmt: skip
PURE = {
    "smtp", "reports", "decision.py", "config.py", "rates.py", "mail/message.py", "mail/headers.py",
    "delivery/verdict.py", "delivery/routing.py", "mail/notification.py", "service/plan.py",
    "logs/records.py", "tracing", "shipments.py", "shipping/dispatch.py", "shipping/forms.py", "shipping/progress.py",
}  # fmt: skip
IMPURE = {"asyncio", "uvloop", "socket", "ssl", "time", "threading", "subprocess", "lupa", "select"}


def run_tool(*command: str) -> None:
    environment = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_finds_nothing():
    run_tool("ruff", "check", "--no-cache", ".")


def test_formatting_is_ruffs():
    run_tool("ruff", "format", "--no-cache", "--check", ".")


def test_types_hold_strictly():
    run_tool("mypy")


def test_cython_lint_finds_nothing():
    run_tool("cython-lint", "gateway", "bench")


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="NOT CHECKED: there Python makes up signatures of what Cython compiled"
)
@pytest.mark.parametrize("module", ["gateway._fastpath", "relay_gateway_bench._load", "relay_gateway_bench._sink"])
def test_stubs_say_what_the_compiled_modules_have(module, tmp_path):
    allowed = tmp_path / "allowed"  # what Cython adds to every module
    allowed.write_text(".*\\.__(reduce|setstate)_cython__\n.*\\.__(test|pyx_capi)__\n")
    run_tool(
        sys.executable, "-m", "mypy.stubtest", "--allowlist", str(allowed), "--ignore-unused-allowlist", module
    )  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "gateway").as_posix()


def within(name: str, places: set[str]) -> bool:
    return name in places or any(name.startswith(f"{place}/") for place in places)


@cache  # asked once for each capability
def imported_by(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def rooms() -> dict[str, set[str]]:
    """Which package or top module of the gateway imports which, or cimports it."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE:
        modules: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "gateway":
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gateway."):
                modules.add(node.module.split(".")[1])
        declared = path.with_suffix(".pxd")
        if declared.exists():
            modules.update(re.findall(r"^from gateway\.(\w+)[\w.]* cimport", declared.read_text(), re.MULTILINE))
        room = name_of(path).partition("/")[0].removesuffix(".py")
        found.setdefault(room, set()).update(modules - {room, "__version__"})
    return found


@cache  # asked once for each function
def used_by(path: Path) -> set[str]:
    """The names, and the attributes of names, that a module mentions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Name):
            found.add(node.id)
    return found


@pytest.mark.parametrize("capability", IMPORTERS)
def test_a_capability_is_imported_only_where_it_belongs(capability):
    importers = {name_of(path) for path in PACKAGE if capability in imported_by(path)}
    assert {name for name in importers if not within(name, IMPORTERS[capability])} == set()


@pytest.mark.parametrize("function", CALLERS)
def test_a_dangerous_function_is_used_only_where_it_belongs(function):
    users = {name_of(path) for path in PACKAGE if function in used_by(path)}
    assert users - CALLERS[function] == set()


@pytest.mark.parametrize("path", [path for path in PACKAGE if within(name_of(path), PURE)], ids=name_of)
def test_protocol_and_values_do_no_io(path):
    assert imported_by(path) & IMPURE == set()


def test_imports_go_downwards_only():
    wrong = {
        (room, imported)
        for room, modules in rooms().items()
        for imported in modules
        if DOWNWARDS.index(imported) <= DOWNWARDS.index(room)
    }
    assert wrong == set()


def test_no_two_classes_have_one_name():
    names = Counter(
        name
        for path in (ROOT / "gateway").rglob("*")
        if path.suffix in (".py", ".pyx", ".pxi")
        for name in re.findall(r"^(?:cdef )?class (\w+)", path.read_text(), re.MULTILINE)
    )
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_a_module_opens_with_its_charter(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", sorted((ROOT / "gateway").rglob("*.p[yx][xi]")), ids=name_of)
def test_a_fragment_opens_with_its_charter(path):
    assert path.read_text().startswith(("#", '"""'))


@pytest.mark.parametrize(
    "path",
    [path for path in (ROOT / "gateway").rglob("*") if path.suffix in (".py", ".pyx", ".pxi", ".lua")],
    ids=name_of,
)
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES
