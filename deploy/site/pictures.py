"""Takes the pictures of the status page in docs/pictures: `python deploy/site/pictures.py`, with Chromium.

A gateway in front of two sinks gets a message that is relayed and one that is refused, while the page is looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
SIZES = {"status.png": "1200,1400", "status-phone.png": "400,1250"}
PATIENCE = 60.0
POLICY = """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:0', hostname = 'mx.example.com', relay_hosts = { '127.0.0.1' } }
  kumo.start_http_listener { listen = '127.0.0.1:0' }
  kumo.configure_local_logs { log_dir = 'log', min_free_space = 0 }
end)
kumo.on('smtp_server_mail_from', function(from)
  if from.domain == 'refused.example' then kumo.reject(550, '5.7.1 no mail from there') end
end)
"""


def until(holds: Callable[[], Any], what: str) -> None:
    """Waits."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"still not: {what}")
        time.sleep(0.2)


def picture(folder: Path, address: str, name: str, size: str) -> None:
    """Of a page, WIDTH,HEIGHT points of it, with Chromium; `folder` for what it keeps."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--timeout=8000")
    options += (f"--user-data-dir={folder}/chromium", f"--window-size={size}")
    command = ["chromium", *options, f"--screenshot={PICTURES / name}", address]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def main() -> None:
    """Writes the pictures."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(*words: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "gateway", *words]
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        said = [start("sink", "--listen", "127.0.0.1:0", "--quiet").stdout for _ in range(2)]
        fleet = ",".join(lines.readline().split()[-1] for lines in said if lines)
        (folder / "init.lua").write_text(POLICY)
        start("run", "--policy", "init.lua", "--fleet", fleet, "--workers", "2", "--announce", "at")
        until((folder / "at").exists, "ready")
        at = json.loads((folder / "at").read_text())
        page = f"http://{at['http'][0]}/"

        def follows() -> Any:
            with urlopen(f"{page}status") as answer:
                return json.load(answer)["following"]

        until(lambda: follows()["on"], "the page follows what happens")
        for sender in ("a@refused.example", "news@customer.example"):
            words = ("send", at["smtp"][0], "--from", sender, "--to", "you@example.com", "--quiet")
            subprocess.run([sys.executable, "-m", "gateway", *words], cwd=folder, check=False, capture_output=True)
        until(lambda: any(way.get("records") for way in follows()["ways"]), "records")
        for name, size in SIZES.items():
            picture(folder, page, name, size)


if __name__ == "__main__":
    main()
