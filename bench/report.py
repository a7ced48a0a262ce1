"""A result as a page: Markdown with pictures beside it, and one HTML file with everything in it."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .analysis import Result, Spread
from .plots import Axis, Bar, bars, lines, number

_NINES = (0, 50, 90, 99, 99.9, 99.99)
Table = list[list[str]]


def write_report(path: Path) -> list[Path]:
    """Write <name>.md, <name>.html and the pictures beside the result file `path`; what was written."""
    result = Result(json.loads(path.read_text()))
    pictures = {name: svg for name, svg in _pictures(result) if svg}
    files = {path.with_name(f"{path.stem}-{name}.svg"): svg for name, svg in pictures.items()}
    files[path.with_suffix(".md")] = _markdown(result, path.stem, pictures)
    files[path.with_suffix(".html")] = _html(result, pictures)
    for file, text in files.items():
        file.write_text(text)
    return list(files)


# ------------------------------------------------------------------------------------------------------------ figures


def _summary(result: Result) -> Table:
    """The targets and what became of them."""
    rows = [["", "measured", "bar", "aim", ""]]
    for verdict in result.verdicts():
        target, figure = verdict.target, verdict.figure
        shown = f"{_spread(figure)} {target.unit}".strip() if figure else "–"
        limits = [_limit(target.bar, target.unit), _limit(target.aim, target.unit)]
        rows.append([target.title, shown, *limits, verdict.word])
    return rows


def _limit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".strip()


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def _costs(result: Result, scenario: dict[str, Any]) -> Table:
    """One scenario: a row per contender."""
    name, baseline = scenario["name"], scenario["baseline"]
    head = "CPU µs/message|user|system|÷ baseline|messages/s|p50 µs|p99 µs|p99.9 µs|RSS MiB|shares"
    rows = [["", *head.replace("baseline", baseline).split("|")]]
    for label in result.contenders(scenario):
        spreads = {
            metric: result.spread(name, label, metric)
            for metric in ("user_us", "system_us", "messages_per_second", "p50", "p99", "p99.9", "resident_bytes")
        }
        medians = {metric: spread.median if spread else 0.0 for metric, spread in spreads.items()}
        shares = result.samples(name, label)[-1]["shares"]
        rows.append(
            [
                label,
                _spread(result.spread(name, label, "cpu_us")),
                number(medians["user_us"]),
                number(medians["system_us"]),
                _spread(result.ratio(name, label, baseline)),
                f"{medians['messages_per_second']:,.0f}",
                *(f"{medians[metric]:,.0f}" for metric in ("p50", "p99", "p99.9")),
                f"{medians['resident_bytes'] / 2**20:,.0f}",
                " ".join(f"{share:.0%}" for share in shares[:4]) + (" …" if len(shares) > 4 else ""),
            ]
        )
    return rows


def _calls(result: Result, scenario: dict[str, Any]) -> Table:
    """System calls per message, where they were counted: all, and the commonest by name."""
    rows = [["", "system calls/message", "commonest"]]
    for label in result.contenders(scenario):
        if calls := result.syscalls(scenario["name"], label):
            common = sorted(calls.items(), key=lambda item: -item[1])[:6]
            rows.append([label, number(sum(calls.values())), ", ".join(f"{name} {number(n)}" for name, n in common)])
    return rows if len(rows) > 1 else []


def _about(result: Result) -> list[str]:
    """Where, when and with what."""
    data, machine, noise = result.data, result.data["machine"], result.noise()
    settings = data["settings"]
    lines = [
        f"{data['begun']}, commit {data['commit']}, relay-gateway {data['project']}; {data['seconds']:,.0f} s in all.",
        f"{machine['processor']}, {machine['usable_cpus']} CPUs, Linux {machine['kernel']}, "
        f"Python {machine['python']}, {machine['libc']}.",
        f"{settings['repetitions']} repetitions of about {settings['seconds']:g} s, interleaved; "
        "figures are medians (smallest–largest), ratios are taken pair by pair.",
    ]
    if noise:
        lines.append(
            f"Noise: the same piece of work took {noise.low:.0%} to {noise.high:.0%} of its median time before the "
            f"repetitions; {machine['stolen_seconds']:g} s were stolen by the hypervisor."
        )
    lines += [f"{name}: {text}" for name, text in data["versions"].items() if name != text]
    lines += [f"Skipped: {name}: {reason.strip().splitlines()[-1]}" for name, reason in data["skipped"].items()]
    lines += [f"Not all right: {text}" for text in result.trouble()]
    return lines


# ----------------------------------------------------------------------------------------------------------- pictures


def _pictures(result: Result) -> Iterable[tuple[str, str]]:
    by_name = {scenario["name"]: scenario for scenario in result.scenarios}
    for name in ("accept-1k", "relay-1k"):
        if name in by_name:
            what = by_name[name]["title"]
            yield f"cost-{name}", _bars(result, by_name[name], "cpu_us", "µs", f"CPU per message: {what}")
            rate = "messages_per_second"
            yield f"throughput-{name}", _bars(result, by_name[name], rate, "/s", f"messages per second: {what}")
    for name in ("idle-latency", "half-load"):
        if name in by_name:
            yield f"latency-{name}", _latency(result, by_name[name])
    for series in dict.fromkeys(s["series"] for s in result.scenarios if s["series"]):
        yield f"growth-{series.split()[0].lower()}", _growth(result, series)


def _bars(result: Result, scenario: dict[str, Any], metric: str, unit: str, title: str) -> str:
    rows = []
    for label in result.contenders(scenario):
        spread = result.spread(scenario["name"], label, metric)
        if spread:
            rows.append(Bar(label, spread.median, spread.low, spread.high, strong=label.startswith("gateway")))
    return bars(title, unit, rows) if rows else ""


def _latency(result: Result, scenario: dict[str, Any]) -> str:
    """Latency against percentile, the axis stretched towards 100 %: each nine takes the same room."""
    series = {}
    for label in result.contenders(scenario):
        histogram = result.latency(scenario["name"], label)
        shown = [p for p in _NINES if histogram.total * (100 - p) >= 100]
        series[label] = [(1 / (1 - p / 100), histogram.percentile(p)) for p in shown]
    if not any(series.values()):
        return ""
    most = max(len(points) for points in series.values())
    ticks = tuple((1 / (1 - p / 100), f"{p:g} %") for p in _NINES[:most])
    axis = Axis("percentile of messages", log=True, ticks=ticks)
    return lines(f"latency: {scenario['title']}", axis, Axis("µs", log=True), _gateway_first(series))


def _growth(result: Result, series: str) -> str:
    """CPU per message against what grows, beside what does not change."""
    points: dict[str, list[tuple[float, float]]] = {}
    scenarios = sorted((s for s in result.scenarios if s["series"] == series), key=lambda s: int(s["x"]))
    for scenario in scenarios:
        for label in result.contenders(scenario):
            spread = result.spread(scenario["name"], label, "cpu_us")
            if spread:
                points.setdefault(label, []).append((scenario["x"], spread.median))
    if not any(len(line) > 1 for line in points.values()):
        return ""
    title = scenarios[0]["title"]
    steep = series.startswith("KiB")
    return lines(f"CPU per message: {title}", Axis(series, log=True), Axis("µs", log=steep), _gateway_first(points))


def _gateway_first(series: dict[str, Any]) -> dict[str, Any]:
    """The same series, ordered so that the gateway has the same, the first colour in every picture."""
    return dict(sorted(series.items(), key=lambda item: not item[0].startswith("gateway")))


# -------------------------------------------------------------------------------------------------------------- pages


def _sections(result: Result) -> Iterable[tuple[str, list[Table]]]:
    for scenario in result.scenarios:
        if result.contenders(scenario):
            tables = [_costs(result, scenario), _calls(result, scenario)]
            yield f"{scenario['title']} ({scenario['name']})", [table for table in tables if table]


def _markdown(result: Result, stem: str, pictures: dict[str, str]) -> str:
    about = "\n".join(f"- {line}" for line in _about(result))
    parts = ["# Bench", about, "## Targets", _markdown_table(_summary(result))]
    parts += [f"![{name}]({stem}-{name}.svg)" for name in pictures]
    for title, tables in _sections(result):
        parts += [f"## {title}", *(_markdown_table(table) for table in tables)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Sequence[Sequence[str]]) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in table]
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #22272e; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .7em; border-bottom: 1px solid #d8dde3; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; margin: 1em 0; display: block; }
div { overflow-x: auto; }
"""


def _html(result: Result, pictures: dict[str, str]) -> str:
    about = "".join(f"<li>{escape(line)}</li>" for line in _about(result))
    body = [f"<h1>Bench</h1><ul>{about}</ul><h2>Targets</h2>", _html_table(_summary(result)), *pictures.values()]
    for title, tables in _sections(result):
        body += [f"<h2>{escape(title)}</h2>", *(_html_table(table) for table in tables)]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Bench</title><style>{_STYLE}</style>'
    return head + "\n".join(body) + "</html>\n"


def _html_table(table: Table) -> str:
    rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table[1:]]
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table[0])
    return f"<div><table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table></div>"
