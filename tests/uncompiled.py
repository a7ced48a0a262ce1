"""A copy of the tree in which nothing is compiled but the kernels, and pytest in it.

The modules beside a .pxd are written to run as they are; here they do. Mutants are tried in such a copy, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = ("gateway", "tests", "deploy", "docs", "bench")
FILES = ("pyproject.toml", "README.md", "Makefile")


def copy(to: Path) -> Path:
    """Makes the copy in the directory `to`, which is returned. What is not looked at is left out."""
    kernels = [path.name for path in (ROOT / "gateway").glob("_*.so")]

    def left_out(folder: str, names: list[str]) -> set[str]:
        compiled = {name for name in names if name.endswith((".so", ".c", ".pyc")) and name not in kernels}
        return compiled | ({"__pycache__", "results"} & set(names))

    for name in COPIED:
        shutil.copytree(ROOT / name, to / name, ignore=left_out)
    for name in FILES:
        shutil.copy(ROOT / name, to / name)
    return to


def pytest_in(tree: Path, tests: Sequence[str], *options: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Runs these test files of a copy. Raises subprocess.TimeoutExpired."""
    quiet = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:benchmark")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, *options, *(f"tests/{name}.py" for name in tests)],
        cwd=tree,
        env={**os.environ, "UNCOMPILED": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
