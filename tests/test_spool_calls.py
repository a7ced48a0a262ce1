"""The spool's file when the process ends in the middle of any system call on it, and when any of them fails.

strace does both to a small process (tests/spool_steps.py). FAULTS=all (`make faults`) walks over every single call.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.couriers.spool.store import opened
from tests.programs import program
from tests.spool_steps import AT_A_TIME, MESSAGES, content_of

CALLS = ("pwrite64", "fdatasync", "ftruncate", "unlink")  # all by which SQLite changes something on the disk
SOME = 7  # of the many there are of one kind
ALL = os.environ.get("FAULTS") == "all"
Steps = dict[str, set[int]]


def traced(path: Path, *options: str) -> tuple[int, Steps, str]:
    """Runs the process on a file; its exit code, the numbers by step, and strace's lines."""
    command = [program("strace"), "-f", "-qq", "-o", str(path.with_suffix(".trace")), *options]
    command += [sys.executable, "-m", "tests.spool_steps", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    steps: Steps = {}
    for step, number in re.findall(r"(\w+) (\d+)", run.stdout):
        steps.setdefault(step, set()).add(int(number))
    return run.returncode, steps, path.with_suffix(".trace").read_text()


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How many calls of each kind the thread of the store makes when nothing happens."""
    path = tmp_path_factory.mktemp("spool") / "0-0.spool"
    code, steps, trace = traced(path, "-e", f"trace={','.join(CALLS)}")
    assert (code, len(steps["kept"]), len(steps["delivered"])) == (0, MESSAGES, MESSAGES // 2)
    return {call: len(re.findall(rf"\b{call}\(", trace)) for call in CALLS}


def places(many: int) -> list[int]:
    """Which of so many calls: all, or some from the first to the last."""
    if ALL or many <= SOME:
        return list(range(1, many + 1))
    return sorted({1 + place * (many - 1) // (SOME - 1) for place in range(SOME)})


def in_the_file(path: Path) -> dict[int, bytes]:
    """The messages found after a start, by number."""
    store, rows, aside = opened(str(path))
    with closing(store):
        assert aside is None
        assert store.is_sound()
        found = {}
        for row in rows:
            whole = store.row(row.number)
            assert whole is not None
            found[json.loads(whole.envelope)["number"]] = store.content(row.number)
        assert len(found) == len(rows)
    return found


def accounted_for(path: Path, steps: Steps) -> int:
    """Each message that was said to be kept is delivered or in the file; returns how many are both."""
    found = in_the_file(path)
    delivered = steps.get("delivered", set())
    assert steps.get("kept", set()) <= delivered | set(found)
    assert all(content == content_of(number) for number, content in found.items())
    return len(delivered & set(found))


@pytest.mark.timeout(1800 if ALL else 120)
@pytest.mark.parametrize("call", CALLS)
def test_killed_in_any_call_nothing_that_was_kept_is_lost(call: str, calls, tmp_path: Path) -> None:
    assert calls[call]
    for place in places(calls[call]):
        path = tmp_path / f"{place}.spool"
        _, steps, trace = traced(path, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={place}")
        assert "killed by SIGKILL" in trace
        assert accounted_for(path, steps) <= 1, "more than was being forgotten"
        # and those who were not answered yet are at most those of one transaction
        assert len(set(in_the_file(path)) - steps.get("kept", set())) <= AT_A_TIME


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("pwrite64", "ENOSPC", "full"),
        ("pwrite64", "EROFS", "failed"),
        ("pwrite64", "EIO", "failed"),
        ("fdatasync", "EIO", "failed"),
        ("fdatasync", "ENOSPC", "failed"),  # SQLite says what it was about
    ],
)
@pytest.mark.parametrize("when", ["{place}", "{place}+"])
def test_what_the_disk_refuses_is_not_kept_and_nothing_else_is_lost(
    call: str, error: str, said: str, when: str, calls, tmp_path: Path
) -> None:
    place = calls[call] // 3
    path = tmp_path / "0-0.spool"
    fault = f"inject={call}:error={error}:when={when.format(place=place)}"
    _, steps, _ = traced(path, "-e", f"trace={call}", "-e", fault)
    refused = steps.get("full", set()) | steps.get("failed", set())
    assert steps["kept"] | refused == set(range(MESSAGES))
    assert not steps["kept"] & refused
    assert steps["kept"], "what came before it"
    if when.endswith("+"):
        assert said in steps
    accounted_for(path, steps)


def test_a_slow_disk_only_takes_its_time(tmp_path: Path) -> None:
    path = tmp_path / "0-0.spool"
    code, steps, _ = traced(path, "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=30000")
    assert (code, len(steps["kept"])) == (0, MESSAGES)
    assert accounted_for(path, steps) == 0
