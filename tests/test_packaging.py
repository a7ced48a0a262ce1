"""What is shipped: an sdist that builds and installs without the work tree, and the commands that README promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from gateway import __version__
from gateway.cli import COMMANDS

ROOT = Path(__file__).parent.parent


def run(*command: str, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the tree."""
    clean = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no telling what a clean tree is")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            (clean / name).write_bytes((ROOT / name).read_bytes())
    return clean


def files(folder: Path, pattern: str = "*") -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern) if path.is_file()}


@pytest.mark.timeout(900)
def test_the_wheel_built_from_the_sdist_has_all_modules_and_works_away_from_the_tree(tree, tmp_path):
    built, installed = tmp_path / "dist", tmp_path / "installed"
    compiler = tmp_path / "cc"  # whether it builds is what matters here, not how fast it is: the last -O counts
    compiler.write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    compiler.chmod(0o755)
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(tree))
    run(*command, cwd=tmp_path, CC=str(compiler))
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert files(installed / "gateway", "*.py") == files(tree / "gateway", "*.py")
    code = "import gateway.policy.engine, gateway._fastpath as f, gateway.cli; print(f.__file__); gateway.cli.main()"
    told = run(sys.executable, "-P", "-c", code, "--version", cwd=tmp_path, PYTHONPATH=str(installed))
    assert told.splitlines()[0].startswith(str(installed))
    assert __version__ in told
    made = "import gateway.cli; gateway.cli.main()"
    run(sys.executable, "-P", "-c", made, "init", "pilot", cwd=tmp_path, PYTHONPATH=str(installed))
    assert (tmp_path / "pilot" / "grafana" / "overview.json").exists()


def test_the_sdist_is_the_tree_but_for_what_is_for_git_and_ci(tree, tmp_path):
    there = files(tree)
    code = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, str(tmp_path), cwd=tree, RELAY_GATEWAY_MODULES="none")
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert there - names == {".ci/run", ".editorconfig", ".gitattributes", ".gitignore"}
    assert {name for name in names - there if ".egg-info/" not in name} == {"PKG-INFO", "setup.cfg"}


def test_the_readme_names_only_commands_that_exist():
    text = (ROOT / "README.md").read_text()
    assert set(re.findall(r"relay-gateway ([a-z]+)\b", text)) - set(COMMANDS) - {"is", "command"} == set()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= targets


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command):
    told = run(sys.executable, "-m", "gateway", command, "--help", cwd=ROOT)
    assert told.startswith(f"usage: relay-gateway {command}")
    assert len(told.splitlines()) > 5
