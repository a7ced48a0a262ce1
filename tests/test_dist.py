"""What `make dist` built, installed as an operator would: each wheel with its Python into a new environment, where no
compiler is, and a first message through what `relay-gateway init` wrote. For `make dist-test`: it takes a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.gateway_process import PATIENCE, wait_until

ROOT = Path(__file__).parent.parent
WHEELS = sorted((ROOT / "dist").glob("*.whl")) if os.environ.get("DIST") else []
NO_COMPILER = {"PATH": "/nowhere", "CC": "/nowhere/cc"}


def python_of(wheel: Path) -> str:
    """The interpreter that deploy/dist.sh built it with."""
    pythons = dict(line.split() for line in (ROOT / "build/dist/pythons").read_text().splitlines())
    return pythons[wheel.name.split("-")[2]]


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name)
def test_a_wheel_installs_without_a_compiler_and_takes_a_first_message(wheel: Path, tmp_path: Path) -> None:
    assert "manylinux" in wheel.name
    run(python_of(wheel), "-m", "venv", tmp_path / "venv")
    tool = tmp_path / "venv" / "bin" / "relay-gateway"
    run(tmp_path / "venv/bin/python", "-m", "pip", "install", "--no-cache-dir", wheel, **NO_COMPILER)
    folder = tmp_path / "pilot"
    assert f"{tool} check {folder}/init.lua" in run(tool, "init", folder)
    policy = folder / "init.lua"
    run(tool, "check", "--strict", policy)
    policy.write_text(policy.read_text().replace("'127.0.0.1:8025'", "'127.0.0.1:0'"))
    command = [tool, "run", "--policy", policy, "--listen", "127.0.0.1:0", "--announce", folder / "announced"]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stderr=log) as service:
        try:
            wait_until(lambda: (folder / "announced").exists() or service.poll() is not None, "announced")
            assert service.poll() is None, (folder / "log").read_text()
            address = json.loads((folder / "announced").read_text())["smtp"][0]
            assert "250 2.0.0 OK" in run(tool, "send", address, "--to", "you@example.com")
        finally:
            service.terminate()
        assert service.wait(PATIENCE) == 0
    assert len(list((folder / "var/maildir/new").iterdir())) == 1
    assert "Reception" in run(tool, "logs", folder / "var/log")
