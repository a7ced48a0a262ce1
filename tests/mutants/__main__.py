"""python -m tests.mutants [--short] [MODULE …]: tries the mutants of these modules, and names the survivors.

Two processes share the work of a module. Each collects the module's tests once, in a copy of the tree; for every mutant
it forks a child that swaps the code and runs the tests until one fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants import runner
from tests.uncompiled import copy

# Which fast tests hold which module.
CONTRACT = {
    "gateway/delivery/verdict": ("test_verdict",),
    "gateway/delivery/routing": ("test_routing",),
    "gateway/decision": ("test_decision",),
}
MODULES = CONTRACT | {
    "gateway/couriers/fleet/outcome": ("test_fleet_outcome",),
    "gateway/couriers/fleet/job": ("test_job", "test_fleet_outcome", "test_relay_facts"),
    "gateway/service/plan": ("test_plan",),
    "gateway/smtp/states": ("test_states",),
}
EQUIVALENT = Path(__file__).with_name("equivalent.txt")


def explained() -> set[tuple[str, str]]:
    """The mutants that change nothing anybody could notice, by module: each line of the table has its reason below."""
    lines = [line for line in EQUIVALENT.read_text().splitlines() if line and not line.startswith(("#", "    "))]
    return {(module, name) for module, _, name in (line.partition(" ") for line in lines)}


def tried(tree: Path, module: str, jobs: int) -> tuple[int, list[str]]:
    """How many mutants a module has, and the names of those that survive, explained or not."""
    results = [tree / f"survivors-{job}" for job in range(jobs)]
    for result in results:
        result.unlink(missing_ok=True)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.runner", module, f"{job}/{jobs}", result, *MODULES[module]],
            cwd=tree,
            env={**os.environ, "UNCOMPILED": "1"},
        )
        for job, result in enumerate(results)
    ]
    if any([process.wait() for process in processes]):
        raise SystemExit(f"mutants: the tests of {module} fail as it is")
    lines = [line for result in results for line in result.read_text().splitlines()]
    return sum(line.startswith(runner.KILLED) for line in lines), [
        line for line in lines if not line.startswith(runner.KILLED)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the contract's modules alone")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("modules", nargs="*", metavar="MODULE", default=None)
    arguments = parser.parse_args()
    known = explained()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copy(Path(folder))
        for module in arguments.modules or (CONTRACT if arguments.short else MODULES):
            began = time.monotonic()
            killed, survivors = tried(tree, module, arguments.jobs)
            unexplained = [name for name in survivors if (module, name) not in known]
            stale = [name for where, name in known if where == module and name not in survivors]
            for name in unexplained:
                print(f"SURVIVED {module} {name}")
            for name in stale:
                print(f"KILLED, though equivalent.txt has it: {module} {name}")
            failures += len(unexplained) + len(stale)
            print(
                f"{module}: {killed + len(survivors)} mutants, {killed} killed, {len(survivors)} survive, "
                f"{len(unexplained)} of them unexplained ({time.monotonic() - began:.0f} s)",
                flush=True,
            )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
