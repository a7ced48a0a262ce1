"""What a good client loses while others flood the server: `bench floods`.

A gateway of its own, of which the good client is a relay host and the floods are strangers, with the limits that a
listener has by default. The good client sends at a fixed rate, alone and beside each flood; told are the share of its
throughput that it keeps and how much longer its 99th percentile becomes. Floods take processor time of this machine,
too: the fewer processors, the more of the loss is theirs and not the server's.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from .flooding import FLOODS, Flooder
from .gateways import PATIENCE, Gateway, running
from .load import Target

KEPT, LONGER = 0.9, 3.0  # the bars: of the throughput; times the 99th percentile

_POLICY = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:0', hostname = 'gw.example', relay_hosts = { '127.0.0.1' },
    max_connections = 20000 }
  kumo.start_http_listener { listen = '127.0.0.1:0' }
  kumo.configure_local_logs { log_dir = 'FOLDER/logs', min_free_space = 0 }
end)
kumo.on('smtp_server_auth_plain', function() return false end)
kumo.on('smtp_server_message_received', function(msg) msg:set_meta('queue', 'null') end)
"""


@dataclass(frozen=True)
class Measure:
    """How to measure. only: names of floods; all without. sessions: no larger crowds, 0 for as large as each is.
    rate: messages a second. seconds: for each figure.
    """

    only: tuple[str, ...] = ()
    sessions: int = 0
    rate: float = 200.0
    seconds: float = 10.0
    workers: int = 1


def _good(target: Target, measure: Measure) -> dict[str, Any]:
    """The good client's throughput and its 99th percentile, in milliseconds."""
    command = [sys.executable, "-m", "gateway", "bench", "load", f"{target.host}:{target.port}", "-q", "--json", "-"]
    command += ["-n", str(int(measure.rate * measure.seconds)), "--rate", str(measure.rate), "-c", "10"]
    command += ["--seconds", str(measure.seconds + 5)]
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
    result = json.loads(told[told.index(b"{") :])
    return {
        "per_second": round(result["messages_per_second"], 1),
        "p50_ms": round(result["latency_us"]["p50"] / 1000, 2),
        "p99_ms": round(result["latency_us"]["p99"] / 1000, 2),
        "refused": result["refused"] + result["lost"],
    }


def measured(measure: Measure) -> dict[str, Any]:
    """Each flood, beside the good client alone directly before it. Raises ValueError for a name that is no flood."""
    unknown = set(measure.only) - FLOODS.keys()
    if unknown:
        raise ValueError(f"no flood is called {', '.join(sorted(unknown))}; there are {', '.join(FLOODS)}")
    floods = {}
    for name in measure.only or FLOODS:
        with running(_POLICY, measure.workers) as gateway:
            _good(gateway.target, measure)  # warm
            alone = _good(gateway.target, measure)
            floods[name] = _beside(name, gateway, measure) | {"alone": alone}
        floods[name] |= _ratios(floods[name])
    holds = all(flood["holds"] for flood in floods.values())
    measure_of = {"rate": measure.rate, "seconds": measure.seconds, "workers": measure.workers}
    return measure_of | {"holds": holds, "floods": floods}


def _beside(name: str, gateway: Gateway, measure: Measure) -> dict[str, Any]:
    number = FLOODS[name][1]
    if measure.sessions and number > 1:
        number = min(number, measure.sessions)
    before = gateway.resident()
    flooder = Flooder(name, gateway.target, number, measure.seconds + 10 * PATIENCE)
    try:
        flooder.ready()
        grown = gateway.resident() - before
        beside = _good(gateway.target, measure)
    finally:
        did = flooder.end()
    crowd = {"kib_per_session": round(grown / number, 1)} if name in ("idle", "idle-tls") else {}
    return {"sessions": number, "did": did, "beside": beside} | crowd


def _ratios(flood: dict[str, Any]) -> dict[str, Any]:
    alone, beside = flood["alone"], flood["beside"]
    kept = beside["per_second"] / max(alone["per_second"], 0.001)
    longer = beside["p99_ms"] / max(alone["p99_ms"], 0.001)
    holds = kept >= KEPT and longer <= LONGER
    return {"throughput_kept": round(kept, 3), "p99_times": round(longer, 2), "holds": holds}


def table(result: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        "| flood | what it did | throughput kept | p99 alone, ms | p99 beside, ms | times | KiB a session | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, flood in result["floods"].items():
        did = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in flood["did"].items())
        kept, times = f"{flood['throughput_kept']:.0%}", flood["p99_times"]
        p99 = f"{flood['alone']['p99_ms']} | {flood['beside']['p99_ms']}"
        holds = "holds" if flood["holds"] else "**misses**"
        lines.append(f"| {name} | {did} | {kept} | {p99} | {times} | {flood.get('kib_per_session', '')} | {holds} |")
    return "\n".join(lines)
