"""What is shipped: an sdist that builds and installs without the work tree, and the commands that README promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from sysconfig import get_platform

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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of a clean tree."""
    folder = tmp_path_factory.mktemp("sdist")
    code = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, str(folder), cwd=tree, RELAY_GATEWAY_MODULES="none")
    (made,) = folder.glob("*.tar.gz")
    return made


def give_compiled(unpacked: Path) -> None:
    """Puts there what the tree's own set-up compiled from the same sources: compiling twice proves nothing more."""
    platform = f"lib.{get_platform()}-{sys.implementation.cache_tag}"
    for built in [*ROOT.glob("gateway/**/*.so"), *ROOT.glob("bench/*.so")]:
        name = built.relative_to(ROOT)
        package = Path("relay_gateway_bench", *name.parts[1:]) if name.parts[0] == "bench" else name
        source = name.with_name(f"{name.name.partition('.')[0]}.c")
        for there, file in (source, ROOT / source), (Path("build", platform, package), built):
            (unpacked / there).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / there).write_bytes(file.read_bytes())


@pytest.mark.timeout(900)
def test_the_wheel_built_from_the_sdist_has_all_modules_and_works_away_from_the_tree(tree, sdist, tmp_path):
    built, installed = tmp_path / "dist", tmp_path / "installed"
    run("tar", "-xzf", str(sdist), cwd=tmp_path)
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    give_compiled(unpacked)
    command = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(built), str(unpacked))
    told = run(*command, cwd=tmp_path)
    assert "Cythonizing" not in told
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert files(installed / "gateway", "*.py") == files(tree / "gateway", "*.py")
    compiled = {name.partition(".")[0] for name in files(installed, "*.so")}
    kernels = {"gateway/_fastpath", "gateway/_shared", "relay_gateway_bench/_load", "relay_gateway_bench/_sink"}
    assert compiled == kernels | {f"gateway/{name.removesuffix('.pxd')}" for name in files(tree / "gateway", "*.pxd")}
    code = "import gateway.policy.engine, gateway._fastpath as f, gateway.cli; print(f.__file__); gateway.cli.main()"
    told = run(sys.executable, "-P", "-c", code, "--version", cwd=tmp_path, PYTHONPATH=str(installed))
    assert told.splitlines()[0].startswith(str(installed))
    assert __version__ in told
    made = "import gateway.cli; gateway.cli.main()"
    run(sys.executable, "-P", "-c", made, "init", "pilot", cwd=tmp_path, PYTHONPATH=str(installed))
    assert (tmp_path / "pilot" / "grafana" / "overview.json").exists()


def test_the_sdist_is_the_tree_but_for_what_is_for_git_and_ci(tree, sdist):
    there = {name for name in files(tree) if ".egg-info/" not in name}  # made with it
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
