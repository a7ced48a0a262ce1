"""Draws deploy/grafana's dashboards in docs/pictures: `python deploy/site/dashboards.py`, with Prometheus and Chromium.

Three minutes of a gateway with a spool before two sinks, of which one is away in the second of them, and both for a
while: mail, bounces, complaints, clients that are refused. The panels are drawn from the dashboards' own queries, as
Prometheus answers them; Grafana is not needed.
"""

from __future__ import annotations

import json
import re
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from pictures import picture, until  # type: ignore[import-not-found]  # beside this file
from relay_gateway_bench.plots import Axis, lines

ROOT = Path(__file__).parents[2]
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
SECONDS, STEP = 180, 5
MEMBER_AWAY, BOTH_AWAY = (60, 120), (90, 105)  # seconds from the beginning
UNITS = {"s": "seconds", "ops": "a second", "percentunit": "share of 1", "Bps": "octets a second", "bytes": "octets"}
POLICY = """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = '127.0.0.1:0', hostname = 'mx.example.com', relay_hosts = { '127.0.0.1' },
    limits = { trusted = true, connection_rate = '1500/1m' },
  }
  kumo.start_http_listener { listen = '127.0.0.1:0' }
  kumo.configure_local_logs { log_dir = 'log', min_free_space = 0, max_segment_duration = '5s' }
  kumo.define_spool { name = 'data', path = 'spool' }
  kumo.define_spool { name = 'meta', path = 'spool' }
  require('gateway').ship { name = 'archive', sink = { files = { directory = 'copy' } } }
end)
kumo.on('get_listener_domain', function(domain)
  if domain == 'bounces.example' then return kumo.make_listener_domain { log_oob = true, log_arf = true } end
end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { FLEET } } }, retry_interval = '5s' }
end)
kumo.on('smtp_server_mail_from', function(from)
  if from.domain == 'refused.example' then kumo.reject(550, '5.7.1 no mail from there') end
end)
"""
LETTER = (
    "From: news@customer.example\nTo: you@example.com\nSubject: news\n\n"
    + "All is well, and so on and so forth.\n" * 200
)
BOUNCE, COMPLAINT = (
    (ROOT / "tests/corpus/reports/visible" / f"kumo-rfc{name}.eml").read_bytes() for name in ("3464-3", "5965-1")
)
SENT: list[tuple[str, str, str | bytes]] = [
    *[("news@customer.example", "you@example.com", LETTER)] * 12,
    ("", "customer@bounces.example", BOUNCE),
    ("news@customer.example", "you@elsewhere.example", LETTER),
    ("abuse@provider.example", "customer@bounces.example", COMPLAINT),
    ("news@refused.example", "you@example.com", LETTER),
]


def client(address: tuple[str, int], stop: threading.Event, pause: float) -> None:
    """Sends one after the other, eight in a connection."""
    number = 0
    while not stop.is_set():
        with suppress(OSError, smtplib.SMTPException), smtplib.SMTP(*address, timeout=30) as session:
            for _ in range(8):
                sender, recipient, letter = SENT[number % len(SENT)]
                number += 1
                stop.wait(pause)
                with suppress(smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused):
                    session.sendmail(sender, recipient, letter)


class Prometheus:
    """A real one at `address`, which scrapes `target` every second."""

    def __init__(self, folder: Path, address: str, target: str) -> None:
        job = {"job_name": "relay-gateway", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
        (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
        self.command = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address={address}"]
        self._address = address

    def between(self, expression: str, start: float) -> list[dict[str, Any]]:
        """What it answers for the whole time."""
        for variable, value in (("$__rate_interval", "10s"), ("$job", ".*"), ("$instance", ".*")):
            expression = expression.replace(variable, value)
        asked = urlencode({"query": expression, "start": start, "end": start + SECONDS, "step": STEP})
        with urlopen(f"http://{self._address}/api/v1/query_range?{asked}") as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found


def panel(described: dict[str, Any], prometheus: Prometheus, start: float) -> str:
    """One panel, as SVG."""
    series: dict[str, list[tuple[float, float]]] = {}
    for target in described["targets"]:
        for found in prometheus.between(target["expr"], start):
            labels = found["metric"]
            name = re.sub(r"{{(\w+)}}", lambda match, labels=labels: labels.get(match[1], ""), target["legendFormat"])
            points = [(at - start, float(value)) for at, value in found["values"] if value != "NaN"]
            series[name.strip() or "all"] = points
    unit = described["fieldConfig"]["defaults"]["unit"]
    seen = {name: points for name, points in series.items() if any(value for _, value in points)}
    minutes = Axis("minutes", ticks=tuple((60.0 * minute, str(minute)) for minute in range(SECONDS // 60 + 1)))
    return lines(described["title"], UNITS.get(unit, ""), minutes, Axis(""), seen or series)


def page(dashboard: dict[str, Any], prometheus: Prometheus, start: float) -> str:
    """One dashboard, two panels beside each other, as HTML."""
    panels = "".join(panel(each, prometheus, start) for each in dashboard["panels"])
    grid = "body{margin:8px;display:grid;grid-template-columns:1fr 1fr;gap:8px;background:#dde3e9}"
    style = f"{grid}svg{{width:100%;height:auto}}"
    return f"<!doctype html><meta charset=utf-8><style>{style}</style>{panels}"


def main() -> None:
    """Runs it all, and writes the pictures."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(*words: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        def sink(address: str) -> subprocess.Popen[str]:
            return start(sys.executable, "-m", "gateway", "sink", "--listen", address, "--quiet")

        def free() -> str:
            with socket.create_server(("127.0.0.1", 0)) as server:
                return "{}:{}".format(*server.getsockname())

        members = [free(), free()]
        sinks = [sink(member) for member in members]
        fleet = ", ".join(f"'{member}'" for member in members)
        (folder / "init.lua").write_text(POLICY.replace("FLEET", fleet))
        start(sys.executable, "-m", "gateway", "run", "--policy", "init.lua", "--workers", "2", "--announce", "at")
        until((folder / "at").exists, "ready")
        at = json.loads((folder / "at").read_text())
        host, _, port = at["smtp"][0].rpartition(":")
        prometheus = Prometheus(folder, free(), at["http"][0])
        start(*prometheus.command)
        time.sleep(10)  # a rate needs a past
        began = time.time()
        stop = threading.Event()
        stack.callback(stop.set)
        for _ in range(6):
            threading.Thread(target=client, args=((host, int(port)), stop, 0.02)).start()
        away: list[tuple[float, Callable[[], Any]]] = []
        for member, (leaves, returns) in enumerate((MEMBER_AWAY, BOTH_AWAY)):
            away += [(leaves, sinks[member].kill), (returns, lambda member=member: sink(members[member]))]
        for when, act in sorted(away, key=lambda each: each[0]):
            time.sleep(max(0, began + when - time.time()))
            act()
        time.sleep(max(0, began + SECONDS - time.time()))
        stop.set()
        for path in DASHBOARDS:
            dashboard = json.loads(path.read_text())
            shown = folder / f"{path.stem}.html"
            shown.write_text(page(dashboard, prometheus, began))
            rows = (len(dashboard["panels"]) + 1) // 2
            picture(folder, shown.as_uri(), f"dashboard-{path.stem}.png", f"1100,{rows * 291 + 10}")


if __name__ == "__main__":
    main()
