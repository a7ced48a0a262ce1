"""What a member that accepts connections and never greets costs those beside it: `bench silent`.

Two gateways before the same sound member: for one it is the whole fleet, the other has a silent member beside it. Both
get the same load in the closed loop, in turns, so that the machine's drift meets both; told are the throughput beside
the silent one, as a share of the sound one's alone, and the longest that a message took.
"""

import socket
import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from .gateways import Gateway, running
from .load import Plan, send
from .mix import plain_mix
from .sink import SinkProcess

KEPT = 0.9  # the bar: of the throughput
LONGEST = 10.0  # seconds that a client may wait: the connect_timeout below

_POLICY = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:0', hostname = 'gw.example', relay_hosts = { '127.0.0.1' } }
  kumo.start_http_listener { listen = '127.0.0.1:0' }
  kumo.configure_local_logs { log_dir = 'FOLDER/logs', min_free_space = 0 }
end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { MEMBERS } } } }
end)
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { enable_tls = 'Disabled', connect_timeout = '10s' }
end)
"""


@dataclass(frozen=True)
class Measure:
    """How to measure. rounds: of both. seconds: of load in each. clients: connections of the load."""

    rounds: int = 20
    seconds: float = 1.5
    octets: int = 1024
    clients: int = 20
    workers: int = 1


def measured(measure: Measure) -> dict[str, Any]:
    """All rounds; `holds` where the median share is KEPT at least, and nobody was refused or waited for LONGEST."""
    with ExitStack() as stack:
        sink = stack.enter_context(SinkProcess())
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        sound = f"'{sink.host}:{sink.port}'"
        both = f"'127.0.0.1:{silent.getsockname()[1]}', {sound}"
        alone, beside = [
            stack.enter_context(running(_POLICY.replace("MEMBERS", members), measure.workers))
            for members in (sound, both)
        ]
        _sent(alone, measure)  # warm
        rounds = [{"alone": _sent(alone, measure), "beside": _sent(beside, measure)} for _ in range(measure.rounds)]
    return {"measure": vars(measure)} | _compared(rounds) | {"rounds": rounds}


def _compared(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    share = statistics.median([each["beside"]["per_second"] / each["alone"]["per_second"] for each in rounds])
    longest = max(each["beside"]["max_ms"] for each in rounds) / 1000
    refused = sum(each["beside"]["refused"] for each in rounds)
    holds = share >= KEPT and not refused and longest <= LONGEST
    return {"share": round(share, 3), "longest_seconds": round(longest, 2), "refused": refused, "holds": holds}


def _sent(gateway: Gateway, measure: Measure) -> dict[str, Any]:
    plan = Plan(messages=1 << 30, seconds=measure.seconds, connections=measure.clients)
    result = send(gateway.target, plain_mix(measure.octets), plan)
    return {
        "per_second": round(result["messages_per_second"]),
        "p99_ms": round(result["latency_us"]["p99"] / 1000, 2),
        "max_ms": round(result["latency_us"]["max"] / 1000, 1),
        "refused": result["refused"] + result["lost"] + result["unknown"],
    }


def table(result: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        "| round | alone, a second | p99, ms | worst, ms | beside a silent one | p99, ms | worst, ms |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for number, each in enumerate(result["rounds"], 1):
        shown = [f"{part['per_second']} | {part['p99_ms']} | {part['max_ms']}" for part in each.values()]
        lines.append(f"| {number} | {' | '.join(shown)} |")
    lines += [
        "",
        f"{result['share']:.1%} of the throughput, {result['refused']} refused, none waited longer than "
        f"{result['longest_seconds']} s: {'holds' if result['holds'] else 'misses'}",
    ]
    return "\n".join(lines)
