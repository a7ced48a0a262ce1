"""From raw samples to figures: medians, spreads, ratios pair by pair, and the verdict on each target.

Reads the JSON that run.py writes. No text and no pictures here: those are report.py's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
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


@dataclass(frozen=True)
class Curve:
    """How cost grows with something: its points, and the straight line that fits them best relative to their size."""

    points: tuple[tuple[float, float], ...]
    start: float
    slope: float

    @classmethod
    def of(cls, points: Sequence[tuple[float, float]]) -> "Curve":
        """The line start + slope · x with the least sum of squared relative errors, both coefficients at least 0."""
        ones, xs = [1 / y for _, y in points], [x / y for x, y in points]  # start · ones + slope · xs ≈ 1
        aa, bb, ab = sum(a * a for a in ones), sum(b * b for b in xs), sum(a * b for a, b in zip(ones, xs, strict=True))
        a, b, determinant = sum(ones), sum(xs), aa * bb - ab * ab
        start, slope = (
            ((a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant) if determinant else (a / aa, 0)
        )
        if slope < 0:
            start, slope = a / aa, 0.0
        elif start < 0:
            start, slope = 0.0, b / bb
        return cls(tuple(points), start, slope)

    @property
    def growth(self) -> float:
        """Cost at the last point in times of that at the first."""
        return self.points[-1][1] / self.points[0][1]

    @property
    def error(self) -> float:
        """The largest distance of a point from the line, as a share of the point's cost."""
        return max(abs(self.start + self.slope * x - y) / y for x, y in self.points)

    @property
    def word(self) -> str:
        """flat (within 15 % from end to end), falling, straight (points within 15 % of the line), below (cost of one
        more falls), or above a straight line.
        """
        if self.growth <= 1.15:
            return "flat" if self.growth >= 1 / 1.15 else "falling"
        if self.error <= 0.15:
            return "straight"
        slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairwise(self.points)]
        return "below" if slopes[-1] <= 1.15 * max(slopes[:-1], default=slopes[-1]) else "above"


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

    def syscalls(self, scenario: str, contender: str) -> tuple[dict[str, float], float | None]:
        """Where they were counted: system calls per message by name, and the octets they moved per octet sent."""
        counted = [s for s in self._samples.get((scenario, contender), []) if s["repetition"] is None]
        return (counted[-1]["syscalls"], counted[-1].get("copied")) if counted else ({}, None)

    def latency(self, scenario: str, contender: str) -> Histogram:
        """The latencies of all repetitions together."""
        merged = Histogram()
        for sample in self.samples(scenario, contender):
            merged = merged.add(Histogram.from_json(sample["histogram"]))
        return merged

    def curve(self, series: str, contender: str) -> list[tuple[float, float]]:
        """Median CPU per message of a contender against what grows in a series."""
        scenarios = sorted((s for s in self.scenarios if s["series"] == series), key=lambda s: int(s["x"]))
        spreads = ((s["x"], self.spread(s["name"], contender, "cpu_us")) for s in scenarios)
        return [(x, spread.median) for x, spread in spreads if spread]

    def series(self) -> list[str]:
        """What grows, in the curves with more than one point."""
        names = dict.fromkeys(s["series"] for s in self.scenarios if s["series"])
        return [name for name in names if len(self.curve(name, "gateway")) > 1]

    def first_against_rest(self, contender: str) -> Spread | None:
        """The cost of the first repetition ÷ the median of the others, over all scenarios: 1 when all is warm."""
        ratios = []
        for (_, label), samples in self._samples.items():
            costs = [sample["cpu_us"] for sample in samples if sample["repetition"] is not None]
            if label == contender and len(costs) > 2:
                ratios.append(costs[0] / (median(costs[1:]) or 1e-9))
        return Spread.of(ratios)

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
