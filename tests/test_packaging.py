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
SOURCES = ("gateway", "bench", "deploy", "docs", "pyproject.toml", "setup.py", "MANIFEST.in", "LICENSE", "README.md",
           "CHANGELOG.md", "Makefile", "requirements.lock", "requirements-test.lock")  # fmt: skip


def run(*command: str, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the sdist of a clean copy of the tree, and with the wheel built from that sdist."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no telling what a clean tree is")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    compiler = out / "cc"  # whether it builds is what matters here, not how fast it is: the last -O counts
    compiler.write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    compiler.chmod(0o755)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree), cwd=out, CC=str(compiler))
    return out


@pytest.mark.timeout(900)
def test_the_wheel_built_from_the_sdist_works_away_from_the_tree(artefacts, tmp_path):
    (wheel,) = artefacts.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import gateway.policy.engine, gateway._fastpath as f, gateway.cli; print(f.__file__); gateway.cli.main()"
    told = run(sys.executable, "-P", "-c", code, "--version", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert told.splitlines()[0].startswith(str(tmp_path))
    assert __version__ in told
    made = "import gateway.cli; gateway.cli.main()"
    run(sys.executable, "-P", "-c", made, "init", "pilot", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (tmp_path / "pilot" / "grafana" / "overview.json").exists()


@pytest.mark.timeout(900)
def test_the_sdist_has_what_a_build_and_a_reader_need(artefacts):
    (sdist,) = artefacts.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"LICENSE", "README.md", "requirements.lock", "deploy/quickstart.lua", "gateway/policy/prelude.lua"}
    assert needed | {"gateway/_fastpath.pyx", "gateway/_fastpath.pyi", "gateway/fastpath/cidr.pxi"} <= names
    assert not [name for name in names if name.endswith((".so", ".c", ".pyc"))]


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
