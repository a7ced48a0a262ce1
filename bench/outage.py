"""python bench/outage.py: a gateway with a spool while its fleet is up, away, and back again.

The same load all the time: what clients are answered and how long they wait for it, what a message costs the worker,
and how long the backlog takes to drain while new mail comes in. All on loopback, one worker.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

POLICY = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:0', hostname = 'gw.example', relay_hosts = { '127.0.0.1' } }
  kumo.start_http_listener { listen = '127.0.0.1:0' }
  kumo.configure_local_logs { log_dir = '%(folder)s/logs', min_free_space = 0 }
  %(spool)s
end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { '%(fleet)s' } } } }
end)
kumo.on('get_egress_path_config', function() return kumo.make_egress_path { enable_tls = 'Disabled' } end)
"""
SPOOL = "kumo.define_spool { name = 'data', path = '%(folder)s/spool', min_free_space = 0, min_free_inodes = 0 }"
TICKS = os.sysconf("SC_CLK_TCK")


class Gateway:
    """One worker; messages, worker: how many are in its spool, and its processor seconds."""

    def __init__(self, folder: Path, fleet: str, spool: bool) -> None:
        self.folder = folder
        folder.mkdir()
        names = {"folder": folder, "fleet": fleet}
        (folder / "init.lua").write_text(POLICY % {**names, "spool": SPOOL % names if spool else ""})
        command = [sys.executable, "-m", "gateway", "run", "--policy", str(folder / "init.lua"), "--workers", "1"]
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen([*command, "--announce", str(folder / "at")], stderr=log)
        while not (folder / "at").exists():
            time.sleep(0.05)
        at = json.loads((folder / "at").read_text())
        self.smtp, self.http = at["smtp"][0], at["http"][0]

    def messages(self) -> int:
        with urlopen(f"http://{self.http}/metrics", timeout=10) as page:
            found = re.search(r"^relay_gateway_spool_messages (\S+)", page.read().decode(), re.MULTILINE)
        assert found
        return int(float(found[1]))

    def worker(self) -> float:
        """Processor seconds of the worker, threads included."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        used = 0.0
        for pid in children:
            if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                used += (int(fields[11]) + int(fields[12])) / TICKS
        return used


@contextlib.contextmanager
def fleet(address: str) -> Iterator[str]:
    """A sink; its address."""
    command = [sys.executable, "-m", "gateway", "bench", "sink", "--listen", address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout is not None
        host, port = json.loads(sink.stdout.readline())["listening"]
        try:
            yield f"{host}:{port}"
        finally:
            sink.kill()


def load(gateway: Gateway, args: argparse.Namespace, what: str) -> dict[str, Any]:
    """Sends for so long, and prints a line."""
    command = [sys.executable, "-m", "gateway", "bench", "load", gateway.smtp, "-q", "--json", "-", "-n", "100000000"]
    command += [
        *(["--rate", str(args.rate)] if args.rate else []),
        "--seconds",
        str(args.seconds),
        "--size",
        str(args.octets),
        "-c",
        "20",
    ]
    before = gateway.worker()
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
    result: dict[str, Any] = json.loads(told[told.index(b"{") :])
    used = (gateway.worker() - before) / max(1, result["acked"]) * 1e6
    latency = result["latency_us"]
    print(
        f"{what:28s} {result['acked']:8d} x 250 {result['refused']:6d} x 4xx {result['lost']:4d} lost "
        f"{result['messages_per_second']:8.0f}/s  {used:6.0f} µs  {gateway.messages()} in the spool\n"
        f"    {json.dumps(latency)}",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--octets", default="10KiB")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="outage-", dir="/var/tmp"))
    try:
        with fleet("127.0.0.1:0") as address:
            plain = Gateway(folder / "plain", address, spool=False)
            gateway = Gateway(folder / "spool", address, spool=True)
            load(plain, args, "relayed, without a spool")
            load(gateway, args, "relayed, with a spool")
        load(gateway, args, "the fleet is away")
        with fleet(address):
            began = time.monotonic()
            load(gateway, args, "the fleet is back")
            while gateway.messages():
                time.sleep(0.1)
            print(f"the spool was empty {time.monotonic() - began:.1f} s after the fleet was back")
        for each in (plain, gateway):
            each.process.terminate()
            each.process.wait()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
