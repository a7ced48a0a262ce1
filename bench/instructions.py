"""Instruction counts of the kernels, under `valgrind --tool=callgrind`, compared with a stored baseline.

Time on a shared machine is noise; the number of instructions is not. All kernels run in one process, each with two
numbers of rounds; the difference between the two counts is what the rounds cost, without anything around them.

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
from collections.abc import Sequence
from pathlib import Path

BASELINE = Path(__file__).parent / "instructions.json"
TOLERANCE = 0.05  # more than hashes and addresses change, less than a change worth knowing
ROUNDS = (100, 1100)
SEPARATOR = "getpgrp"  # callgrind writes its counts down, and starts again, before each call of this function

# name: (what is set up once, what a round does)
KERNELS: dict[str, tuple[str, str]] = {
    "cidr: look up one of 20,000 prefixes": (
        "from gateway._fastpath import CidrSet\n"
        "prefixes = CidrSet(f'{i % 200 + 20}.{i // 200 % 256}.0.0/24' for i in range(20000))\n"
        "peer = bytes((77, 12, 1, 9))",
        "peer in prefixes",
    ),
    "framing: a command": (
        "from gateway._fastpath import Framer\nframer = Framer(512)",
        "framer.feed(b'RCPT TO:<somebody@in.example>\\r\\n'); framer.next_verb(); framer.next_verb()",
    ),
    "framing: a body of 10 KiB": (
        "from gateway._fastpath import Framer\nframer = Framer(512)\nbody = (b'x' * 76 + b'\\r\\n') * 131 + b'.\\r\\n'",
        "framer.start_content(1 << 20, 4096); framer.feed(body); framer.next_content()",
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
    "decision: from the cache": (
        "from gateway import metrics\n"
        "from gateway._fastpath import CounterPage\n"
        "from gateway.policy.conn_meta import ConnMeta\n"
        "from gateway.policy.engine import Policy\n"
        "from gateway.policy.source import PolicySource\n"
        "text = (b\"kumo.on('get_listener_domain', function(domain) \"\n"
        '  b"return kumo.make_listener_domain { relay_to = true } end)")\n'
        "page = CounterPage(bytearray(metrics.page_size()))\n"
        "decide = Policy.load(PolicySource('bench.lua', {'bench.lua': text}), page=page).listener_domain\n"
        "meta = ConnMeta({'received_from': '192.0.2.7:40000'})",
        "decide('in.example', '192.0.2.1:25', meta)",
    ),
    "reception: a message of 1 KiB, relayed": (
        "from in_memory import Client\nmessage = Client().message",
        "message()",
    ),
    "reception: a message of 1 KiB, discarded by a handler": (
        "from in_memory import DISCARDING, Client\nmessage = Client(DISCARDING).message",
        "message()",
    ),
    "reception: a connection with a message, relayed": (
        "from in_memory import Client\nclient = Client(); client.leave()",
        "client.connect(); client.message(); client.leave()",
    ),
    "counters: bump": (
        "from gateway._fastpath import CounterPage\npage = CounterPage(bytearray(8192))\nadd = page.add",
        "add(40)",
    ),
}


_SCRIPT = """
import gc, os
def kernel(setup, action):
    names = {}
    exec(f"{setup}\\ndef work(rounds):\\n    for _ in range(rounds):\\n        {action}", names)
    work = names["work"]
    work(20)
    gc.collect(); gc.freeze(); gc.disable()
    for rounds in ROUNDS:
        os.getpgrp(); work(rounds)
    os.getpgrp()
for setup, action in KERNELS:
    kernel(setup, action)
"""


def measured(kernels: Sequence[str]) -> dict[str, int]:
    """Instructions of one round of each of these kernels.

    Raises RuntimeError when valgrind or a kernel fails.
    """
    script = f"KERNELS = {[KERNELS[kernel] for kernel in kernels]!r}\nROUNDS = {ROUNDS!r}\n{_SCRIPT}"
    # The gateway is importable from beside this package, in a checkout and in an install; in_memory.py from inside it.
    path = os.pathsep.join([str(BASELINE.parent.parent), *filter(None, sys.path), str(BASELINE.parent)])
    with tempfile.TemporaryDirectory() as directory:
        program, out = Path(directory, "kernels.py"), Path(directory, "out")
        program.write_text(script)
        tool = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={SEPARATOR}")
        done = subprocess.run(
            [*tool, sys.executable, "-S", program],
            env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        # For each kernel: what came before it, the fewer rounds, the more rounds.
        dumps = [out.with_name(f"out.{i + 1}") for i in range(3 * len(kernels))]
        if done.returncode or not all(dump.exists() for dump in dumps):
            raise RuntimeError(f"valgrind: {done.stderr[-2000:]}")
        counts = [_total(dump) for dump in dumps]
    rounds = ROUNDS[1] - ROUNDS[0]
    return {kernel: round((counts[3 * i + 2] - counts[3 * i + 1]) / rounds) for i, kernel in enumerate(kernels)}


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.M)
    return int(found[1]) if found else 0


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
    if reason := missing(arguments.update):
        print(f"SKIPPED: {reason}", file=sys.stderr)
        return 0
    baseline = stored()
    counts = measured([kernel for kernel in KERNELS if arguments.only in kernel])
    for kernel, count in counts.items():
        print(f"{kernel:<53} {count:>9,} instructions  {compared(count, baseline.get(kernel))}")
    if arguments.update:
        everyone = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
        kept = {kernel: count for kernel, count in baseline.items() if kernel in KERNELS}
        everyone[combination()] = kept | counts
        BASELINE.write_text(json.dumps(everyone, indent=1, sort_keys=True) + "\n")
        return 0
    return 1 if worse(counts, baseline) else 0


def missing(update: bool = False) -> str | None:
    """What keeps the counts from being compared here; None when nothing does."""
    if not shutil.which("valgrind"):
        return "valgrind is not installed (apt-get install valgrind): no instructions are counted"
    if not update and not stored():
        return f"no baseline of instruction counts for {combination()}; `bench instructions --update` stores one"
    return None


def stored() -> dict[str, int]:
    """The baseline for this interpreter: instructions by kernel."""
    counts: dict[str, int] = json.loads(BASELINE.read_text()).get(combination(), {}) if BASELINE.exists() else {}
    return counts


def worse(counts: dict[str, int], baseline: dict[str, int]) -> list[str]:
    """The kernels that cost more than their baseline allows, each with both counts."""
    return [
        f"{kernel}: {count:,} instructions, {before:,} before"
        for kernel, count in counts.items()
        if (before := baseline.get(kernel)) is not None and count > before * (1 + TOLERANCE)
    ]


def compared(count: int, before: int | None) -> str:
    """A count against its baseline, in words."""
    if before is None:
        return "(no baseline)"
    change = count / before - 1
    verdict = "WORSE" if change > TOLERANCE else "better: --update?" if change < -TOLERANCE else "as before"
    return f"{change:+.1%}  {verdict}"
