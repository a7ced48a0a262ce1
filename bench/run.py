"""Runs scenarios: starts the contenders, sends them the load in turn, A B A B, and writes down all there is to know.

The result is one JSON file with raw samples; judging and drawing is report.py's work.
"""

import contextlib
import datetime
import fnmatch
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import measure
from .load import Plan, Target, allow_descriptors, prepared
from .mix import Mix, message_from_file, plain_mix
from .peers import PEERS, Knobs, Peer, PeerError
from .scenarios import SCENARIOS, Contender, Scenario
from .sink import SinkProcess

FORMAT = 1
DRAIN_SECONDS = 60.0  # for what a queueing peer still has to deliver
SETTLE_SECONDS = 0.3  # for what is written behind the last reply; it counts, for everybody
OPEN_SECONDS = {"rate": 3.0, "share": 2.0}  # of the open loop at least: a 99.9th percentile wants thousands of messages
_CORPUS = Path(__file__).parent.parent / "tests" / "corpus" / "reports" / "visible"


@dataclass(frozen=True)
class Settings:
    """How much to do: repetitions, seconds of load in each, messages at most; which scenarios and peers.

    growth: repetitions of the points of a growth curve, of which there are many. settle: seconds to wait before a
    repetition's cost is read. warm_up: whether a first, discarded repetition is as long as its peer needs.
    """

    repetitions: int = 5
    growth: int = 3
    seconds: float = 0.3
    settle: float = SETTLE_SECONDS
    warm_up: bool = True
    most_messages: int = 1_000_000
    quick: bool = True
    only: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    syscalls: bool = True

    def scenarios(self) -> list[Scenario]:
        """The chosen ones; `only` has names and patterns.

        Raises ValueError.
        """
        chosen = [s for s in SCENARIOS if (s.quick or not self.quick or self.only)]
        if self.only:
            chosen = [s for s in chosen if any(fnmatch.fnmatchcase(s.name, pattern) for pattern in self.only)]
        if not chosen:
            raise ValueError(f"no scenario is called {' or '.join(self.only)}; there are {_names()}")
        return [self._restricted(scenario) for scenario in chosen]

    def _restricted(self, scenario: Scenario) -> Scenario:
        chosen = (c for c in scenario.contenders if c.peer in (self.peers or PEERS))
        return replace(scenario, contenders=tuple(c for c in chosen if c.quick or not self.quick or self.peers))


SMOKE = Settings(
    repetitions=1,
    seconds=0.05,
    settle=0.0,
    warm_up=False,
    most_messages=60,
    only=("accept-1k", "relay-1k", "idle-latency"),
    peers=("direct", "smtp-sink", "gateway"),
    syscalls=False,
)
QUICK = Settings()
FULL = Settings(seconds=1.0, quick=False)


def _names() -> str:
    return ", ".join(scenario.name for scenario in SCENARIOS)


class Runner:
    """Runs scenarios one after the other and gathers their samples."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.samples: list[dict[str, Any]] = []
        self.versions: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.rates: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Run all; the result, fit for JSON."""
        begun, stolen = time.time(), measure.stolen()
        allow_descriptors(1 << 16)  # servers inherit it
        for scenario in self.settings.scenarios():
            if scenario.contenders:
                minutes, seconds = divmod(int(time.time() - begun), 60)
                _say(f"── {minutes}:{seconds:02} {scenario.name}: {scenario.title}")
                self._scenario(scenario)
        return {
            "format": FORMAT,
            "begun": datetime.datetime.fromtimestamp(begun, datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - begun, 1),
            "commit": commit(),
            "project": project_version(),
            "machine": measure.machine() | {"stolen_seconds": round(measure.stolen() - stolen, 2)},
            "settings": asdict(self.settings),
            "scenarios": [asdict(scenario) for scenario in self.settings.scenarios()],
            "versions": self.versions,
            "skipped": self.skipped,
            "samples": self.samples,
        }

    def _scenario(self, scenario: Scenario) -> None:
        mix = _mix_of(scenario)
        if mix is None:
            self._skip(scenario.name, f"no messages in {_CORPUS}")
            return
        with contextlib.ExitStack() as stack:
            sink = stack.enter_context(SinkProcess())
            running = [
                (contender, peer)
                for contender in scenario.contenders
                if (peer := self._started(contender, scenario, sink, stack)) is not None
            ]
            plans = {c.label: plan for c, peer in running if (plan := self._calibrated(scenario, c, peer, sink, mix))}
            for repetition in range(self.settings.growth if scenario.series else self.settings.repetitions):
                for contender, peer in running:
                    if contender.label in plans:
                        sample = run_once(peer, sink, mix, plans[contender.label], self.settings.settle)
                        self._keep(scenario, contender, repetition, sample)
            if scenario.syscalls and self.settings.syscalls and measure.SystemCalls.available():
                for contender, peer in running:
                    if contender.label in plans:
                        self._count_calls(scenario, contender, peer, sink, mix)

    def _started(
        self, contender: Contender, scenario: Scenario, sink: SinkProcess, stack: contextlib.ExitStack
    ) -> Peer | None:
        knobs = Knobs(
            upstream=sink.port if contender.relays else 0,
            workers=contender.workers,
            logs=contender.logs,
            tls=scenario.tls,
            policy=contender.policy,
        )
        peer = PEERS[contender.peer](knobs)
        if reason := peer.missing():
            self._skip(contender.peer, reason)
            return None
        try:
            stack.enter_context(peer)
        except PeerError as error:
            self._skip(f"{contender.label} in {scenario.name}", str(error))
            return None
        self.versions[contender.peer] = peer.version()
        return peer

    def _calibrated(
        self, scenario: Scenario, contender: Contender, peer: Peer, sink: SinkProcess, mix: Mix
    ) -> Plan | None:
        """The plan whose repetitions take about the time wanted, found out by warming the contender up."""
        plan = Plan(
            seconds=20 + 10 * self.settings.seconds,
            connections=scenario.connections,
            per_connection=scenario.per_connection,
            pipelining=scenario.pipelining,
            tls=scenario.tls,
        )
        rate = 0.0
        for length in (0.0, *self._warm_ups(peer)):  # the first ones pay for caches, pools, processes, compilers
            plan = replace(plan, messages=self._messages(scenario, rate * length))
            begun = time.monotonic()
            warm = run_once(peer, sink, mix, plan)
            rate = warm["acked"] / (time.monotonic() - begun if peer.queues else max(warm["seconds"], 1e-6))
            if not warm["acked"]:
                what = f"{contender.label} in {scenario.name}"
                self._skip(what, f"takes no message: {warm['error']} {warm['refusals']}")
                return None
        seconds = self.settings.seconds
        if open_rate := scenario.rate or scenario.share * rate:
            seconds = max(seconds, OPEN_SECONDS["rate" if scenario.rate else "share"])
        return replace(plan, messages=self._messages(scenario, (open_rate or rate) * seconds), rate=open_rate)

    def _warm_ups(self, peer: Peer) -> tuple[float, ...]:
        """Seconds of the discarded runs behind the very first: a short one to learn the rate, one of full length."""
        short = min(0.3, self.settings.seconds)
        return (short, max(peer.warm_up, self.settings.seconds)) if self.settings.warm_up else (short,)

    def _messages(self, scenario: Scenario, wanted: float) -> int:
        least = max(20, 2 * scenario.connections)
        return max(least, min(int(wanted), self.settings.most_messages))

    def _count_calls(self, scenario: Scenario, contender: Contender, peer: Peer, sink: SinkProcess, mix: Mix) -> None:
        plan = Plan(messages=400, connections=scenario.connections, per_connection=scenario.per_connection)
        with measure.SystemCalls(peer.pids(), peer.home) as counted:
            result = run_once(peer, sink, mix, plan)
        calls = {name: round(count / max(1, result["acked"]), 3) for name, count in counted.calls.items()}
        copied = round(counted.copied / result["bytes_sent"], 2) if result["bytes_sent"] else None
        sample = {"syscalls": {name: n for name, n in calls.items() if n >= 0.01}, "copied": copied}
        self.samples.append({"scenario": scenario.name, "contender": contender.label, "repetition": None} | sample)
        _say(f"   {contender.label:<22} {sum(calls.values()):8.1f} system calls per message")

    def _keep(self, scenario: Scenario, contender: Contender, repetition: int, sample: dict[str, Any]) -> None:
        head = {"scenario": scenario.name, "contender": contender.label, "repetition": repetition}
        self.samples.append(head | sample)
        wrong = "" if sample["intact"] else f"  NOT ALL RIGHT: {sample['trouble']}"
        _say(
            f"   {contender.label:<22} {sample['cpu_us']:8.1f} µs CPU  {sample['messages_per_second']:9,.0f}/s  "
            f"median {sample['latency_us']['p50']:9,.0f} µs{wrong}"
        )

    def _skip(self, what: str, reason: str) -> None:
        if what not in self.skipped:
            self.skipped[what] = reason
            _say(f"   SKIPPED {what}: {reason}")


def run_once(peer: Peer, sink: SinkProcess, mix: Mix, plan: Plan, settle: float = 0.0) -> dict[str, Any]:
    """One repetition: send, wait until all has arrived and `settle` seconds more, and say what it took."""
    spin = measure.spin()
    with prepared(Target("127.0.0.1", peer.port), mix, plan) as load:
        missing = load.connect()
        before = measure.usage(peer.pids())
        result = load.run()
        arrived = _arrived(sink, result) if peer.knobs.upstream and peer.relays else None
        after = measure.settled(peer.pids(), settle)
    trouble = {"connections not opened": missing} if missing else {}
    trouble |= {name: result[name] for name in ("refused", "lost", "unknown", "unfinished") if result[name]}
    if arrived is not None:
        trouble |= {"missing": result["acked"] - arrived["unique"]} if arrived["unique"] < result["acked"] else {}
        trouble |= {"corrupt": arrived["corrupt"]} if arrived["corrupt"] else {}
    del result["run"]
    if not plan.rate:
        del result["histogram"]  # the percentiles of an overloaded server are enough
    return result | measure.cost(before, after, result["acked"]) | {
        "spin_seconds": round(spin, 6),
        "connections": plan.connections,
        "rate": plan.rate,
        "intact": not trouble,
        "trouble": trouble,
    }  # fmt: skip


def _arrived(sink: SinkProcess, result: dict[str, Any]) -> dict[str, int]:
    """What the sink got of a run, as soon as it is all of it."""
    deadline = time.monotonic() + DRAIN_SECONDS
    seen = sink.run(result["run"])
    while seen["recipients"] < result["recipients_acked"] and time.monotonic() < deadline:
        time.sleep(0.02)
        seen = sink.run(result["run"])
    return seen


def _mix_of(scenario: Scenario) -> Mix | None:
    if not scenario.corpus:
        return plain_mix(scenario.size, recipients=scenario.recipients, domains=scenario.domains)
    if not _CORPUS.is_dir():
        return None
    expected = map(json.loads, (_CORPUS / "expected.jsonl").read_text().splitlines())
    files = [_CORPUS / entry["file"] for entry in expected if entry["class"] != "other"]
    contents = [(b"", message_from_file(file.read_bytes())) for file in files]
    return replace(plain_mix(1024), contents=contents, order=list(range(len(contents))))


def write(result: dict[str, Any], directory: Path) -> Path:
    """Write a result to <directory>/<date>-<commit>.json."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{result['begun'][:10]}-{result['commit']}.json"
    path.write_text(json.dumps(result, separators=(",", ":")) + "\n")
    return path


def commit() -> str:
    """The short name of the commit this runs from, marked when files were changed; `installed` outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        name = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True, stderr=subprocess.DEVNULL)
        changed = subprocess.check_output([*git, "status", "--porcelain", "--untracked-files=no"], text=True)
        return name.strip() + ("-changed" if changed else "")
    return "installed"


def project_version() -> str:
    try:
        return version("relay-gateway")
    except PackageNotFoundError:
        return "unknown"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
