"""From raw samples to figures: medians, spreads, ratios pair by pair, and the verdict on each target.

Reads the JSON that run.py writes. No text and no pictures here: those are report.py's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .histogram import Histogram
from .scenarios import TARGETS, Target

Sample = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """The median of some observations, with the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        return cls(median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Verdict:
    """What became of a target; `figure` is None when it was not measured."""

    target: Target
    figure: Spread | None

    @property
    def word(self) -> str:
        if self.figure is None:
            return "not measured"
        if self.figure.median <= self.target.aim:
            return "aim reached"
        return "bar met" if self.figure.median <= self.target.bar else "missed"


class Result:
    """One result file."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.scenarios: list[dict[str, Any]] = data["scenarios"]
        self._samples: dict[tuple[str, str], list[Sample]] = {}
        for sample in data["samples"]:
            self._samples.setdefault((sample["scenario"], sample["contender"]), []).append(sample)

    def samples(self, scenario: str, contender: str) -> list[Sample]:
        """The timed repetitions, in order."""
        return [s for s in self._samples.get((scenario, contender), []) if s["repetition"] is not None]

    def contenders(self, scenario: dict[str, Any]) -> list[str]:
        """The labels that were measured in a scenario, in its order."""
        labels = (contender["label"] for contender in scenario["contenders"])
        return [label for label in labels if self.samples(scenario["name"], label)]

    def spread(self, scenario: str, contender: str, metric: str) -> Spread | None:
        """Of a metric of the samples: `cpu_us`, `messages_per_second`, … or a percentile such as `p99.9`, in µs."""
        return Spread.of([value_of(sample, metric) for sample in self.samples(scenario, contender)])

    def pairs(self, scenario: str, one: str, other: str, compare: Callable[[Sample, Sample], float]) -> Spread | None:
        """What `compare` says of the samples that were taken in the same repetition."""
        others = {sample["repetition"]: sample for sample in self.samples(scenario, other)}
        mine = self.samples(scenario, one)
        return Spread.of([compare(s, others[s["repetition"]]) for s in mine if s["repetition"] in others])

    def ratio(self, scenario: str, one: str, other: str, metric: str = "cpu_us") -> Spread | None:
        return self.pairs(scenario, one, other, lambda a, b: value_of(a, metric) / (value_of(b, metric) or 1e-9))

    def syscalls(self, scenario: str, contender: str) -> dict[str, float]:
        """System calls per message by name, where they were counted."""
        counted = [s for s in self._samples.get((scenario, contender), []) if s["repetition"] is None]
        return counted[-1]["syscalls"] if counted else {}

    def latency(self, scenario: str, contender: str) -> Histogram:
        """The latencies of all repetitions together."""
        merged = Histogram()
        for sample in self.samples(scenario, contender):
            merged = merged.add(Histogram.from_json(sample["histogram"]))
        return merged

    def trouble(self) -> list[str]:
        """Every repetition in which a message was refused, lost, missing or altered."""
        return [
            f"{s['scenario']}, {s['contender']}, repetition {s['repetition'] + 1}: "
            + ", ".join(f"{count:,} {what}" for what, count in s["trouble"].items())
            for s in self.data["samples"]
            if s.get("trouble")
        ]

    def noise(self) -> Spread | None:
        """How long the same piece of work took before each repetition, relative to its median."""
        spins = [sample["spin_seconds"] for sample in self.data["samples"] if "spin_seconds" in sample]
        middle = median(spins) if spins else 0
        return Spread.of([spin / middle for spin in spins]) if middle else None

    def verdicts(self) -> list[Verdict]:
        return [Verdict(target, self._figure(target)) for target in TARGETS]

    def _figure(self, target: Target) -> Spread | None:
        if target.kind == "tail":
            values = self.samples(target.scenario, target.contender)
            return Spread.of([value_of(s, "p99.9") / (value_of(s, "p50") or 1e-9) for s in values])
        if target.kind == "difference":
            return self.pairs(
                target.scenario,
                target.contender,
                target.other,
                lambda a, b: value_of(a, target.metric) - value_of(b, target.metric),
            )
        return self.ratio(target.scenario, target.contender, target.other, target.metric)


def value_of(sample: Sample, metric: str) -> float:
    """A metric of one sample."""
    return float(sample["latency_us"][metric] if metric in sample["latency_us"] else sample[metric])
