"""No change to the contract's code goes unnoticed: the short form of `make mutants`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(600)
def test_every_mutant_of_the_contract_is_noticed() -> None:
    command = [sys.executable, "-m", "tests.mutants", "--short"]
    root = Path(__file__).parent.parent
    told = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("mutants, ") == 3
