"""What a report shows: tables as rows of text, pictures as SVG, growth in words. Their order is report.py's work."""

from collections.abc import Iterable
from math import log10
from typing import Any

from .analysis import Curve, Result, Spread
from .plots import Axis, Bar, Points, bars, lines, number
from .scenarios import EXPLANATIONS

Table = list[list[str]]
SMALLER = "less is better; the thin line spans all repetitions"
_NINES = (0, 50, 90, 99, 99.9, 99.99)
_COLUMNS = "CPU µs/message|user|kernel|÷ {baseline}|messages/s|p50 µs|p99 µs|p99.9 µs|RSS MiB|shares"


# ------------------------------------------------------------------------------------------------------------- tables


def targets(result: Result) -> Table:
    """The targets and what became of them."""
    rows = [["gateway", "measured", "bar", "aim", ""]]
    for verdict in result.verdicts():
        target, figure = verdict.target, verdict.figure
        shown = f"{spread_text(figure)} {target.unit}".strip() if figure else "–"
        limits = [f"{number(limit)} {target.unit}".strip() for limit in (target.bar, target.aim)]
        rows.append([target.title, shown, *limits, verdict.word])
    return rows


def spread_text(spread: Spread | None) -> str:
    """Median, smallest and largest."""
    if spread is None:
        return "–"
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def costs(result: Result, scenario: dict[str, Any]) -> Table:
    """One scenario: a row per contender."""
    name, baseline = scenario["name"], scenario["baseline"]
    rows = [["", *_COLUMNS.format(baseline=baseline).split("|")]]
    for label in result.contenders(scenario):
        samples = result.samples(name, label)
        spreads = {
            metric: result.spread(name, label, metric)
            for metric in ("user_us", "system_us", "messages_per_second", "p50", "p99", "p99.9", "resident_bytes")
        }
        medians = {metric: spread.median if spread else 0.0 for metric, spread in spreads.items()}
        shares = samples[-1]["shares"]
        rows.append(
            [
                label,
                spread_text(result.spread(name, label, "cpu_us")),
                number(medians["user_us"]),
                number(medians["system_us"]),
                spread_text(result.ratio(name, label, baseline)),
                f"{medians['messages_per_second']:,.0f}",
                *(f"{medians[metric]:,.0f}" for metric in ("p50", "p99", "p99.9")),
                f"{medians['resident_bytes'] / 2**20:,.0f}",
                " ".join(f"{share:.0%}" for share in shares[:4]) + (" …" if len(shares) > 4 else ""),
            ]
        )
    return rows


def calls(result: Result, scenario: dict[str, Any]) -> Table:
    """System calls per message, where they were counted: all, the octets they moved, the commonest by name."""
    rows = [["", "system calls/message", "octets copied", "commonest"]]
    for label in result.contenders(scenario):
        counted, copied = result.syscalls(scenario["name"], label)
        if counted:
            common = sorted(counted.items(), key=lambda item: -item[1])[:6]
            names = ", ".join(f"{name} {number(n)}" for name, n in common)
            rows.append([label, number(sum(counted.values())), f"{copied:.2f} ×" if copied else "–", names])
    return rows if len(rows) > 1 else []


def growth(result: Result, series: str) -> Table:
    """A growth curve: a row per point."""
    ours, theirs = (dict(result.curve(series, label)) for label in ("gateway", "smtp-sink"))
    rows = [[series, "gateway, CPU µs/message", "smtp-sink, CPU µs/message"]]
    return rows + [[f"{x:,.0f}", number(y), number(theirs[x]) if x in theirs else "–"] for x, y in ours.items()]


def growth_in_words(result: Result, series: str) -> str:
    """How the gateway's cost grows: a straight line or better, or not, and why."""
    curve = Curve.of(result.curve(series, "gateway"))
    (first, low), (last, high) = curve.points[0], curve.points[-1]
    change = f"from {number(low)} µs at {first:,.0f} to {number(high)} µs at {last:,.0f}, {number(curve.growth)} ×"
    line = f"{number(curve.start)} µs + {number(curve.slope * 1000)} ns for each"
    if curve.word in ("flat", "falling"):
        return f"{curve.word.capitalize()}: {change}."
    if curve.word == "straight":
        text = f"A straight line: {line}, no point further off than {curve.error:.0%}; {change}."
    elif curve.word == "below":
        text = f"Better than a straight line: {change}, and one more costs less the more there are."
    else:
        text = f"Worse than a straight line: {change}; the line that fits best is {line}, {curve.error:.0%} off."
    if len(curve.points) < 3:
        text = f"Two points, which say nothing about the shape: {change}."
    return f"{text} {EXPLANATIONS.get(series, '')}".strip()


# ----------------------------------------------------------------------------------------------------------- pictures


def pictures(result: Result) -> Iterable[tuple[str, str]]:
    """(name, SVG) of everything there is data for; the first is the main one."""
    by_name = {scenario["name"]: scenario for scenario in result.scenarios}
    for name in ("relay-1k", "accept-1k"):
        if name in by_name and result.contenders(by_name[name]):
            yield f"cost-{name}", _cost_bars(result, by_name[name])
            yield f"throughput-{name}", _rate_bars(result, by_name[name])
    for name in ("idle-latency", "half-load"):
        if name in by_name and any(result.latency(name, label).total for label in result.contenders(by_name[name])):
            yield f"latency-{name}", _latency(result, by_name[name])
    for series in result.series():
        yield growth_name(series), _growth(result, series)


def growth_name(series: str) -> str:
    """The name of the picture of a growth curve."""
    return f"growth-{series.split(maxsplit=1)[0].lower()}"


def _cost_bars(result: Result, scenario: dict[str, Any]) -> str:
    ours = result.spread(scenario["name"], "gateway", "cpu_us")
    rows = []
    for label in result.contenders(scenario):
        spread, user = (result.spread(scenario["name"], label, metric) for metric in ("cpu_us", "user_us"))
        if spread and user:
            ratio = spread.median / ours.median if ours and ours.median else 0
            note = f"{number(ratio)} × gateway" if ratio and label != "gateway" else ""
            strong = label.startswith("gateway")
            rows.append(Bar(label, spread.median, spread.low, spread.high, user.median, strong, note))
    rows.sort(key=lambda row: row.value)
    title = f"CPU time per message: {scenario['title']}"
    return bars(title, f"whole server, strong: user, faint: kernel; {SMALLER}", "µs", rows)


def _rate_bars(result: Result, scenario: dict[str, Any]) -> str:
    rows = []
    for label in result.contenders(scenario):
        if spread := result.spread(scenario["name"], label, "messages_per_second"):
            strong = label.startswith("gateway")
            rows.append(Bar(label, spread.median, spread.low, spread.high, spread.median, strong))
    rows.sort(key=lambda row: -row.value)
    title = f"Messages per second: {scenario['title']}"
    return bars(title, "more is better; source, server and sink share this machine's processors", "/s", rows)


def _latency(result: Result, scenario: dict[str, Any]) -> str:
    """Latency against percentile, the axis stretched towards 100 %: each nine takes the same room."""
    series = {}
    for label in result.contenders(scenario):
        histogram = result.latency(scenario["name"], label)
        shown = [p for p in _NINES if histogram.total * (100 - p) >= 100]
        series[label] = [(1 / (1 - p / 100), histogram.percentile(p)) for p in shown]
    most = max(len(points) for points in series.values())
    ticks = tuple((1 / (1 - p / 100), f"{p:g} %" if p else "min") for p in _NINES[:most])
    axis = Axis("share of the messages that were answered faster", log=True, ticks=ticks)
    subtitle = "from when a message was due to its 250, stalls included; lower is better"
    title = f"Latency: {scenario['title']}"
    return lines(title, subtitle, axis, Axis("µs", log=True), _gateway_first(series))


def _growth(result: Result, series: str) -> str:
    """CPU per message against what grows, beside what does not change."""
    labels = dict.fromkeys(
        label for s in result.scenarios if s["series"] == series for label in result.contenders(s)
    )  # ordered, each once
    points = {label: result.curve(series, label) for label in labels}
    title = next(s["title"] for s in result.scenarios if s["series"] == series)
    costs = [y for curve in points.values() for _, y in curve]
    steep = max(costs) > 10 * min(costs)
    curve = Curve.of(points["gateway"])
    guide = [(x, curve.start + curve.slope * x) for x in _between(curve.points[0][0], curve.points[-1][0])]
    level = curve.word in ("flat", "falling")  # no line with a slope says anything about these
    how = f"the gateway's is {curve.word}" if level else "dashed: the straight line that fits the gateway best"
    return lines(
        f"CPU time per message: {title}",
        f"{how}; lower is better",
        Axis(f"{series} (logarithmic)", log=True),
        Axis("µs per message" + (" (logarithmic)" if steep else ""), log=steep),
        _gateway_first(points),
        [] if level else [guide],
    )


def _between(low: float, high: float, steps: int = 40) -> list[float]:
    """Values from `low` to `high` in equal factors."""
    return [float(low * 10 ** (log10(high / low) * i / steps)) for i in range(steps + 1)]


def _gateway_first(series: dict[str, Any]) -> dict[str, Points]:
    """The same series, ordered so that the gateway has the same, the first colour in every picture."""
    return dict(sorted(series.items(), key=lambda item: not item[0].startswith("gateway")))
