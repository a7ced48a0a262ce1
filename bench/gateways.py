"""A gateway of the bench's own, in a process, for parts that measure what it does while something else happens."""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from .load import Target
from .measure import usage

PATIENCE = 60.0


class Gateway:
    """A running one. target: where mail goes, of its first listener."""

    def __init__(self, folder: Path, policy: str, workers: int) -> None:
        """Starts it; policy: its text. Raises ValueError where it does not start."""
        (folder / "init.lua").write_text(policy)
        command = [sys.executable, "-m", "gateway", "run", "--policy", str(folder / "init.lua")]
        command += ["--workers", str(workers), "--announce", str(folder / "at")]
        with open(folder / "log", "wb") as log:
            self._process = subprocess.Popen(command, stderr=log)
        end = time.monotonic() + PATIENCE
        while not (folder / "at").exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise ValueError(f"the gateway does not start: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.05)
        at = json.loads((folder / "at").read_text())
        self.target = Target.parse(at["smtp"][0])
        self._http = at["http"][0] if at["http"] else ""

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)

    def metric(self, name: str) -> float:
        """A metric without labels, without its prefix."""
        with urlopen(f"http://{self._http}/metrics", timeout=PATIENCE) as page:
            found = re.search(rf"^relay_gateway_{name} (\S+)", page.read().decode(), re.MULTILINE)
        if found is None:
            raise ValueError(f"the gateway has no metric {name}")
        return float(found[1])

    def resident(self) -> int:
        """KiB of all workers, shared pages counted with each."""
        found = 0
        for pid in self._workers():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")
                found += int(fields[1].split()[0])
        return found

    def cpu(self) -> float:
        """Seconds of processor time of all workers, their threads included."""
        return usage(self._workers()).cpu

    def _workers(self) -> list[int]:
        found = []
        for pid in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
        return found


@contextlib.contextmanager
def running(policy: str, workers: int) -> Iterator[Gateway]:
    """A gateway for `with`. policy: its text; FOLDER in it is a directory of its own, on a disk and not in memory."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
        gateway = Gateway(Path(folder), policy.replace("FOLDER", folder), workers)
        try:
            yield gateway
        finally:
            gateway.stop()
