"""What `make run` and `make test` say before and while they set up, on machines that lack something.

The machine is a directory of programs that is the whole PATH: nothing is installed, nothing is compiled.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("sh", "sed", "sleep", "make", "touch", "id")
OLD = """#!/bin/sh
case "$1" in -V) echo Python 3.9.2 ;; *) exit 1 ;; esac
"""
# Answers what set-up asks of an interpreter; LACKS names the module that cannot be imported, HEADERS where Python.h is.
NEW = """#!/bin/sh
case "$*" in
-V) echo Python 3.12.1 ;;
*"import venv"*) test -z "$LACKS_VENV" ;;
*"'CC'"*) echo gcc -pthread ;;
*"'include'"*) echo "$HEADERS" ;;
"-m venv"*) sleep "$SLOWLY"; exit 1 ;;
esac
"""
COMPILER = "#!/bin/sh\ntest -z $LACKS_LIBC\n"


class Machine:
    """bin: what is installed. headers: where Python.h is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin, self.headers = folder / "bin", folder / "include"
        for made in (self.bin, self.headers):
            made.mkdir(parents=True)
        (self.headers / "Python.h").touch()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or "/nowhere")
        self.program("python3", NEW)
        self.program("gcc", COMPILER)

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def set_up(self, *command: str, **environment: str) -> list[str]:
        """The lines of a set-up that fails."""
        known = {"PATH": str(self.bin), "HEADERS": str(self.headers), "VENV": str(self.folder / "venv"), "SLOWLY": "0"}
        command = command or ("sh", "deploy/set-up.sh", "run")
        ended = subprocess.run(
            command, cwd=ROOT, env=known | environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode != 0
        return (ended.stdout + ended.stderr).splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("target", ["run", "test", "lint", "bench"])
def test_a_python_that_is_too_old_is_named_at_once_whatever_is_made(machine: Machine, target: str) -> None:
    machine.program("python3", OLD)
    first, *others = machine.set_up("make", target, f"VENV={machine.folder}/venv")
    assert first == "set-up: needs Python 3.11 or later; python3 is Python 3.9.2 (PYTHON=... names another)"
    assert all(line.startswith("make") for line in others)
    assert not (machine.folder / "venv").exists()


def test_a_python_that_is_not_there_is_named(machine: Machine) -> None:
    (said,) = machine.set_up(PYTHON="python3.13")
    assert said == "set-up: needs Python 3.11 or later; there is no python3.13 here (PYTHON=... names another)"


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("venv", "set-up: needs Python's venv; on Debian: apt-get install python3-venv"),
        ("gcc", "set-up: needs a C compiler (gcc); on Debian: apt-get install gcc"),
        ("libc", "set-up: needs the C library's headers; on Debian: apt-get install libc6-dev"),
        ("headers", "set-up: needs Python's headers (.*/include/Python.h); on Debian: apt-get install python3-dev"),
        (
            "venv gcc headers",
            "set-up: needs Python's venv, a C compiler (gcc), Python's headers (.*/include/Python.h); on Debian: "
            "apt-get install python3-venv gcc python3-dev",
        ),
    ],
)
def test_one_line_says_all_that_the_machine_lacks(machine: Machine, lacks: str, said: str) -> None:
    environment = {f"LACKS_{lack.upper()}": "1" for lack in lacks.split()}
    if "gcc" in lacks:
        (machine.bin / "gcc").unlink()
    if "headers" in lacks:
        (machine.headers / "Python.h").unlink()
    (line,) = machine.set_up(**environment)
    assert re.fullmatch(re.escape(said).replace(re.escape(".*"), ".*"), line)


def test_a_step_that_takes_long_says_that_it_is_at_work_and_one_that_fails_that_it_did(machine: Machine) -> None:
    what = f"a virtual environment in {machine.folder}/venv, with Python 3.12.1"
    said = machine.set_up(SLOWLY="2.5", TICK="1")
    assert said == [f"set-up: {what}", f"set-up: {what}: 1 s", f"set-up: {what}: 2 s", f"set-up: failed: {what}"]


def test_the_interpreter_of_these_tests_passes_the_look_at_the_machine(machine: Machine) -> None:
    """What is asked of the fakes is asked of a real one too; the virtual environment is what fails here."""
    (machine.folder / "venv").touch()
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}
    said = machine.set_up(**environment)
    assert said[0].startswith(f"set-up: a virtual environment in {machine.folder}/venv, with Python 3.")


def test_the_service_runs_with_the_versions_that_are_tested() -> None:
    run, tested = (
        set(re.findall(r"^([\w.-]+==[^ ;]+)", (ROOT / name).read_text(), re.M))
        for name in ("requirements.lock", "requirements-test.lock")
    )
    assert run < tested
