"""Instruction counts of the kernels, under `valgrind --tool=callgrind`, compared with a stored baseline.

Time on a shared machine is noise; the number of instructions is not. Each kernel runs in two processes, with different
numbers of rounds; the difference between the two counts is what the rounds cost, without the interpreter's start.

    python -m relay_gateway_bench instructions             compare with instructions.json
    python -m relay_gateway_bench instructions --update    measure again and store

Counts depend on the interpreter and the compiler: without a baseline for this combination nothing is compared, and
that is said.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BASELINE = Path(__file__).parent / "instructions.json"
TOLERANCE = 0.05  # more than the start of the interpreter varies, less than a change worth knowing
ROUNDS = (200, 2200)

# name: (what is set up once, what a round does)
KERNELS: dict[str, tuple[str, str]] = {
    "cidr: look up one of 100,000 prefixes": (
        "from gateway._fastpath import CidrSet\n"
        "prefixes = CidrSet(f'{i % 200 + 20}.{i // 200 % 256}.{i // 51200}.0/24' for i in range(100000))\n"
        "peer = bytes((77, 12, 1, 9))",
        "peer in prefixes",
    ),
    "framing: a command": (
        "from gateway._fastpath import Framer\nframer = Framer(512)",
        "framer.feed(b'RCPT TO:<somebody@in.example>\\r\\n'); framer.next_command(); framer.next_command()",
    ),
    "framing: a body of 10 KiB": (
        "from gateway._fastpath import Framer\nframer = Framer(512)\nbody = (b'x' * 76 + b'\\r\\n') * 131 + b'.\\r\\n'",
        "framer.start_body(1 << 20, 4096); framer.feed(body); framer.next_body()",
    ),
    "dots: unstuff 10 KiB without any": (
        "from gateway._fastpath import unstuff\nbody = (b'x' * 76 + b'\\r\\n') * 131",
        "unstuff(body)",
    ),
    "report: dismiss a plain message of 10 KiB": (
        "from gateway._fastpath import scan_report\n"
        "message = b'From: a@b.example\\r\\nContent-Type: text/plain\\r\\n\\r\\n' + (b'x' * 76 + b'\\r\\n') * 131",
        "scan_report(message)",
    ),
    "report: read a bounce": (
        "from gateway._fastpath import scan_report\n"
        "message = (b'Content-Type: multipart/report; report-type=delivery-status; boundary=b\\r\\n\\r\\n'\n"
        "  b'--b\\r\\n\\r\\nNo such user.\\r\\n--b\\r\\nContent-Type: message/delivery-status\\r\\n\\r\\n'\n"
        "  b'Reporting-MTA: dns; mx.example\\r\\n\\r\\nFinal-Recipient: rfc822; a@b.example\\r\\n'\n"
        "  b'Action: failed\\r\\nStatus: 5.1.1\\r\\nDiagnostic-Code: smtp; 550 5.1.1 unknown\\r\\n\\r\\n--b--\\r\\n')",
        "scan_report(message)",
    ),
    "counters: bump": (
        "from gateway._fastpath import CounterPage\npage = CounterPage(bytearray(8192))\nadd = page.add",
        "add(40)",
    ),
}


def measured(kernel: str) -> int:
    """Instructions of one round of a kernel."""
    low, high = (_count(kernel, rounds) for rounds in ROUNDS)
    return round((high - low) / (ROUNDS[1] - ROUNDS[0]))


def _count(kernel: str, rounds: int) -> int:
    setup, action = KERNELS[kernel]
    script = f"{setup}\ndef work():\n    for _ in range({rounds}):\n        {action}\nwork()\n"
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                f"--callgrind-out-file={directory}/out",
                sys.executable,
                "-S",
                "-c",
                script,
            ],
            env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd=BASELINE.parent.parent,  # where the gateway is importable, in a checkout and in an install
            capture_output=True,
            text=True,
            check=False,
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"{kernel}: {done.stderr[-2000:]}")
    return int(found[1])


def combination() -> str:
    """What the counts depend on, besides the source."""
    compiler = re.sub(r"[^\w.]+", "-", platform.python_compiler())
    return f"{platform.python_implementation()}-{platform.python_version()}-{compiler}-{platform.machine()}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--update", action="store_true", help="store what is measured as the new baseline")
    parser.add_argument("--only", default="", metavar="TEXT", help="kernels whose names contain this")
    parser.set_defaults(bench_run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and compare, or store; 1 when a kernel costs more instructions than its baseline allows."""
    if not shutil.which("valgrind"):
        print(
            "SKIPPED: valgrind is not installed (apt-get install valgrind): no instructions are counted",
            file=sys.stderr,
        )
        return 0
    stored = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    baseline = stored.setdefault(combination(), {})
    worse = 0
    for kernel in KERNELS:
        if arguments.only not in kernel:
            continue
        count = measured(kernel)
        before = baseline.get(kernel)
        print(f"{kernel:<45} {count:>9,} instructions  {_compared(count, before)}", flush=True)
        worse += before is not None and count > before * (1 + TOLERANCE)
        if arguments.update:
            baseline[kernel] = count
    if arguments.update:
        BASELINE.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    elif not baseline:
        print(f"SKIPPED: no baseline for {combination()}; --update stores one", file=sys.stderr)
    return 1 if worse and not arguments.update else 0


def _compared(count: int, before: int | None) -> str:
    if before is None:
        return "(no baseline)"
    change = count / before - 1
    verdict = "WORSE" if change > TOLERANCE else "better: --update?" if change < -TOLERANCE else "as before"
    return f"{change:+.1%}  {verdict}"
