"""What clients notice of an outage of the whole fleet, where the gateway has a spool: `bench outage`.

One load in the open loop all the time, which stops for nothing: while the fleet is up, away, back again with the
backlog draining beside new mail, and up again. Told are, for each of these, what clients were answered and how long
after it was due, and the processor time of the workers for each message; how long the backlog took; and whether all
that was answered 250 arrived. Load, gateway and fleet share this machine's processors: the fewer there are, the more of
what new mail waits beside the backlog is not the gateway's.
"""

import contextlib
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .gateways import Gateway, running
from .histogram import Histogram
from .load import Plan, Run
from .mix import plain_mix
from .sink import SinkProcess

LONGER = 2.0  # the bar: times the usual 99th percentile, while the backlog drains
LOOK = 0.1  # seconds between two looks at the spool
DRAINED_WITHIN = 20  # times as long as the outage at most

_POLICY = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:0', hostname = 'gw.example', relay_hosts = { '127.0.0.1' },
    max_messages_per_connection = 1000000000 }
  kumo.start_http_listener { listen = '127.0.0.1:0' }
  kumo.configure_local_logs { log_dir = 'FOLDER/logs', min_free_space = 0 }
  kumo.define_spool { name = 'data', path = 'FOLDER/spool', min_free_space = 0, min_free_inodes = 0 }
end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { retry_interval = '2s', protocol = { smtp = { mx_list = { 'FLEET' } } } }
end)
kumo.on('get_egress_path_config', function() return kumo.make_egress_path { enable_tls = 'Disabled' } end)
"""


@dataclass(frozen=True)
class Measure:
    """How to measure. rate: messages a second. octets: of each. usual, away: seconds for which the fleet is up before
    and after, and away. clients: connections that the load keeps.
    """

    rate: float = 2000.0
    octets: int = 10_240
    usual: float = 15.0
    away: float = 60.0
    clients: int = 20
    workers: int = 1


@dataclass
class _Mark:
    """What had happened by a moment. latencies: by bucket. spooled: messages in the spool."""

    at: float
    counts: dict[str, Any]
    latencies: dict[int, int]
    cpu: float
    spooled: int = 0


@dataclass
class _Outage:
    """The fleet's part of it, in a thread beside the load; the load's end is this one's."""

    measure: Measure
    gateway: Gateway
    load: Run
    fleet: SinkProcess
    marks: list[_Mark] = field(default_factory=list)
    series: list[_Mark] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    drained: float | None = None

    def take_place(self) -> None:
        measure, address = self.measure, f"{self.fleet.host}:{self.fleet.port}"
        self._for(measure.usual / 3)  # it is warm then
        self._mark()
        self._for(measure.usual)
        self._mark()
        self.seen.append(self.fleet.stop())
        self._for(measure.away)
        self._mark()
        self.fleet = SinkProcess("--listen", address)
        began = time.monotonic()
        while self._spooled() and time.monotonic() < began + DRAINED_WITHIN * measure.away:
            self._for(LOOK)
        self.drained = None if self._spooled() else time.monotonic() - began
        self._mark()
        self._for(measure.usual)
        self._mark()

    def end(self) -> None:
        """The load is over: what came last arrives."""
        while self.drained and self._spooled():
            time.sleep(LOOK)
        self.seen.append(self.fleet.stop())

    def stop(self) -> None:
        """Whatever has happened, there is no fleet any more."""
        self.fleet.stop()

    def _for(self, seconds: float) -> None:
        """Lets it go on for so long, with an entry of the series each second."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not self.series or time.monotonic() >= self.series[-1].at + 1.0:
                self.series.append(self._now())
                self.series[-1].spooled = self._spooled()
            time.sleep(min(left, LOOK))

    def _spooled(self) -> int:
        return int(self.gateway.metric("spool_messages"))

    def _mark(self) -> None:
        self.marks.append(self._now())

    def _now(self) -> _Mark:
        return _Mark(time.monotonic(), self.load.counts(), self.load.load.latencies(), self.gateway.cpu())


def _between(before: _Mark, after: _Mark) -> dict[str, Any]:
    """What happened from one moment to the other."""
    counted = {name: count - before.counts[name] for name, count in after.counts.items() if name != "unfinished"}
    latencies = Histogram({n: count - before.latencies.get(n, 0) for n, count in after.latencies.items()})
    seconds = after.at - before.at
    return counted | {
        "seconds": round(seconds, 1),
        "per_second": round(counted["acked"] / seconds),
        "p50_ms": round(latencies.percentile(50) / 1000, 2),
        "p99_ms": round(latencies.percentile(99) / 1000, 2),
        "max_ms": round(latencies.percentile(100) / 1000, 1),
        "cpu_us": round(1e6 * (after.cpu - before.cpu) / max(1, counted["acked"])),
    }


def measured(measure: Measure) -> dict[str, Any]:
    """All of it; `holds` where nobody was answered anything but 250, all of that arrived, and new mail's 99th
    percentile stayed within LONGER times its usual while the backlog drained.
    """
    plan = Plan(messages=1 << 30, connections=measure.clients, rate=measure.rate)
    with SinkProcess() as fleet, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(running(_POLICY.replace("FLEET", f"{fleet.host}:{fleet.port}"), measure.workers))
        with Run(gateway.target, plain_mix(measure.octets), plan) as load:
            load.connect()
            outage = _Outage(measure, gateway, load, fleet)
            stack.callback(outage.stop)
            with ThreadPoolExecutor(1) as thread:
                over = thread.submit(outage.take_place)
                while not over.done():
                    load.load.step(LOOK)
                over.result()
            outage.end()
            result = load.result(0.0)
    return _told(measure, outage, result)


def _told(measure: Measure, outage: _Outage, result: dict[str, Any]) -> dict[str, Any]:
    marks = outage.marks
    names = ("usual", "away", "back", "after")
    seconds = list(zip(outage.series, outage.series[1:], strict=False))
    parts = {}
    for name, begin, end in zip(names, marks, marks[1:], strict=False):
        p99s = [_between(*each)["p99_ms"] for each in seconds if begin.at <= each[0].at and each[1].at <= end.at]
        parts[name] = _between(begin, end) | {"typical_p99_ms": round(statistics.median(p99s or [0.0]), 2)}
    arrived = [seen["runs"].get(result["run"], {}) for seen in outage.seen]
    unique = sum(each.get("unique", 0) for each in arrived)
    times = parts["back"]["p99_ms"] / max(parts["usual"]["p99_ms"], 0.001)
    refused = result["refused"] + result["lost"] + result["unknown"]
    holds = times <= LONGER and not refused and unique >= result["acked"] and outage.drained is not None
    return {
        "measure": vars(measure),
        "acked": result["acked"],
        "refused": refused,
        "arrived": unique,
        "twice": sum(each.get("messages", 0) for each in arrived) - unique,
        "drained_seconds": outage.drained and round(outage.drained, 1),
        "p99_times": round(times, 2),
        "spool_us": parts["away"]["cpu_us"] - parts["usual"]["cpu_us"],
        "holds": holds,
        "parts": parts,
        "series": [_between(before, after) | {"spooled": after.spooled} for before, after in seconds],
    }


def table(result: dict[str, Any]) -> str:
    """As Markdown. "of a second" is the median of the 99th percentiles of single seconds, which says more where others
    use the machine as well.
    """
    lines = [
        "| the fleet is | seconds | 250 | 4xx, lost | a second | p50, ms | p99, ms | of a second | worst | CPU, µs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, part in result["parts"].items():
        refused = part["refused"] + part["lost"] + part["unknown"]
        told = [part[name] for name in ("p50_ms", "p99_ms", "typical_p99_ms", "max_ms", "cpu_us")]
        lines.append(
            f"| {name} | {part['seconds']} | {part['acked']} | {refused} | {part['per_second']} | "
            f"{' | '.join(map(str, told))} |"
        )
    lines += [
        "",
        f"{result['acked']} answered 250, {result['arrived']} arrived, {result['twice']} of them twice; the backlog "
        f"took {result['drained_seconds']} s, new mail's p99 {result['p99_times']} times its usual meanwhile: "
        f"{'holds' if result['holds'] else 'misses'}",
    ]
    return "\n".join(lines)
