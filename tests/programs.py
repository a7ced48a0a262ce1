"""Programs that are not ours: where they are, and a skip that says why where one is missing or cannot do what is asked.

programs.txt is the table; deploy/test-packages.sh installs from the same one. A program without a line is not used.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

TABLE = Path(__file__).with_name("programs.txt")
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/local/go/bin"}


class Program(NamedTuple):
    """proof: a shell command that succeeds where the program has the ability. packages: Debian's, by spaces; or go: and
    what `go install` takes.
    """

    proof: str
    ability: str
    packages: str


def table() -> dict[str, Program]:
    """The programs by name."""
    lines = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    return {name: Program(*rest) for name, *rest in rows}


@functools.cache
def why_not(name: str) -> str | None:
    """What keeps a program of the table from being used here; None when nothing does."""
    known = table()[name]
    if shutil.which(name, path=ENVIRONMENT["PATH"]) is None:
        place = known.packages if known.packages.startswith("go:") else f"Debian: {known.packages}"
        return f"NOT CHECKED: {name} is not installed ({place})"
    done = subprocess.run(known.proof, shell=True, env=ENVIRONMENT, capture_output=True, check=False)
    if done.returncode:
        return f"NOT CHECKED: {name} is here, but not with {known.ability}: `{known.proof}` fails ({known.packages})"
    return None


def program(name: str) -> str:
    """Where a program of the table is. Skips the test where it cannot be used."""
    if reason := why_not(name):
        pytest.skip(reason)
    return shutil.which(name, path=ENVIRONMENT["PATH"]) or name
