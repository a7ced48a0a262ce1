"""What `make faults` has found, as a file beside the other results and as a table of docs/delivery.md.

Each run of a test notes what it has measured; `python -m tests.fault_report` adds these up, and writes both.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "delivery.md"
RESULT = ROOT / "bench" / "results" / "faults.json"
NOTES = ROOT / "build" / "faults"
RUNS = 27  # that `make faults` makes
SHOWN = "docs/delivery.md is not what bench/results/faults.json has: python -m tests.fault_report writes it"
_BEGIN, _END = "<!-- measured: make faults -->\n", "<!-- /measured -->\n"


def note(name: str, what: dict[str, Any]) -> None:
    """Keep what a run has measured."""
    NOTES.mkdir(parents=True, exist_ok=True)
    (NOTES / f"{name}.json").write_text(json.dumps(what))


def stored() -> dict[str, Any]:
    """The result that is committed; {} for none."""
    return json.loads(RESULT.read_text()) if RESULT.exists() else {}


def distribution(seconds: list[float]) -> list[float]:
    """How many, the median, the 99th percentile, the worst."""
    ordered = sorted(seconds)
    return [len(ordered), ordered[len(ordered) // 2], ordered[(len(ordered) * 99 + 99) // 100 - 1], ordered[-1]]


def collected() -> dict[str, Any]:
    """All notes, added up."""
    ways = {path.stem: json.loads(path.read_text()) for path in sorted(NOTES.glob("*.json"))}
    lost: dict[str, list[float]] = {}
    for way in ways.values():
        for cell, seconds in way.pop("lost").items():
            for key in {cell, by_doing(cell)}:
                lost.setdefault(key, []).extend(seconds)
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} processors, Linux {platform.release()}, Python {platform.python_version()}",
        "runs": ways,
        "lost": {cell: distribution(seconds) for cell, seconds in sorted(lost.items()) if seconds},
    }


def by_doing(cell: str) -> str:
    """The sum over all stages."""
    heading, stage, doing = cell.split("|")
    return f"{heading}|*|{doing or stage}"


def shown(result: dict[str, Any]) -> str:
    """The part of the page that tells it."""
    runs = list(result["runs"].values())

    def total(key: str) -> int:
        return sum(run[key] for run in runs)

    lines = [
        f"On {result['at']}, {result['machine']}:",
        f"{total('messages'):,} messages in {len(runs)} of the {RUNS} runs, each accounted for. "
        f"{total('unknown'):,} times an outcome was unknown; {total('arrived_again'):,} messages arrived once more,",
        "each of them one of those. Seconds that clients lost, against the median of a sound fleet in the same run:",
        "",
        "| what happens | alone: messages | median | 99 % | worst | beside others: messages | median | 99 % | worst |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    doings = dict.fromkeys(cell.split("|")[2] for cell in result["lost"] if "|*|" in cell)
    for doing in doings:
        columns = [_columns(result["lost"].get(f"{heading}|*|{doing}")) for heading in ("Alone", "Beside")]
        lines.append(f"| {doing} | {columns[0]} | {columns[1]} |")
    return "\n".join(lines) + "\n"


def _columns(found: list[float] | None) -> str:
    if found is None:
        return "– | – | – | –"
    return f"{found[0]:,} | " + " | ".join(f"{seconds:.2f}" for seconds in found[1:])


def main() -> int:
    if not NOTES.exists():
        print("nothing was measured: make faults", file=sys.stderr)
        return 1
    result = collected()
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    page = DOCS.read_text()
    measured = re.compile(f"(?<={re.escape(_BEGIN)}).*(?={re.escape(_END)})", re.DOTALL)
    DOCS.write_text(measured.sub(lambda _: f"\n{shown(result)}\n", page))
    return 0


if __name__ == "__main__":
    sys.exit(main())
