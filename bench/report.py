"""A result as a page: Markdown with pictures beside it, one HTML file with everything in it, the README's section."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .analysis import Result
from .figures import Table, calls, costs, growth, growth_in_words, growth_name, pictures, targets

BEGIN, END = "<!-- bench: begin -->\n", "<!-- bench: end -->\n"
TITLE = "What a message costs: relay-gateway beside its peers"
_PICTURES = {  # of scenarios
    "accept-1k": ("cost-accept-1k", "throughput-accept-1k"),
    "relay-1k": ("cost-relay-1k", "throughput-relay-1k"),
    "idle-latency": ("latency-idle-latency",),
    "half-load": ("latency-half-load",),
}


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it, in this order."""

    title: str
    pictures: Sequence[str] = ()
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()


def write_report(path: Path) -> list[Path]:
    """Write <name>.md, <name>.html and the pictures beside the result file `path`; what was written."""
    result = Result(json.loads(path.read_text()))
    drawn = dict(pictures(result))
    files = {path.with_name(f"{path.stem}-{name}.svg"): svg for name, svg in drawn.items()}
    sections = list(_sections(result, drawn))
    files[path.with_suffix(".md")] = _markdown(result, path.stem, sections)
    files[path.with_suffix(".html")] = _html(result, drawn, sections)
    for file, text in files.items():
        file.write_text(text)
    return list(files)


def write_readme(path: Path, readme: Path) -> None:
    """Put the main picture and the targets of the result file `path` between the marks in a README.

    Raises ValueError when it has no such marks.
    """
    result = Result(json.loads(path.read_text()))
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme}: no line {BEGIN.strip()} with {END.strip()} below it")
    results = path.resolve().relative_to(readme.resolve().parent).with_suffix("")
    machine = result.data["machine"]
    name = next((name for name, _ in pictures(result)), "")
    parts = [
        f"![{name}]({results}-{name}.svg)",
        f"Measured {result.data['begun'][:10]} at {result.data['commit']}: {machine['processor']}, "
        f"{machine['usable_cpus']} CPUs, Linux {machine['kernel']}. Ratios are medians of pairs from one run "
        f"(smallest–largest); [all tables and curves]({results}.md), [the method](bench/README.md).",
        _markdown_table(targets(result)),
    ]
    readme.write_text(before + begin + "\n\n".join(parts) + "\n" + end + after)


# ----------------------------------------------------------------------------------------------------------- contents


def _about(result: Result) -> list[str]:
    """Where, when and with what."""
    data, machine, noise = result.data, result.data["machine"], result.noise()
    settings = data["settings"]
    told = [
        f"{data['begun']}, commit {data['commit']}, relay-gateway {data['project']}; {data['seconds'] / 60:,.0f} "
        "minutes in all.",
        f"{machine['processor']}, {machine['usable_cpus']} CPUs, Linux {machine['kernel']}, "
        f"Python {machine['python']}, {machine['libc']}.",
        f"{settings['repetitions']} repetitions ({settings['growth']} for growth curves) of about "
        f"{settings['seconds']:g} s, interleaved, after a discarded one; figures are medians (smallest–largest), "
        "ratios are taken pair by pair.",
    ]
    if noise:
        told.append(
            f"Noise: the same piece of work took {noise.low:.0%} to {noise.high:.0%} of its median time before the "
            f"repetitions; {machine['stolen_seconds']:g} s were stolen by the hypervisor."
        )
    labels = dict.fromkeys(label for scenario in result.scenarios for label in result.contenders(scenario))
    firsts = [(label, first) for label in labels if (first := result.first_against_rest(label))]
    if firsts:
        shown = ", ".join(f"{label} {first.median:.2f}" for label, first in firsts)
        told.append(
            f"Warm-up: the first repetition's cost ÷ the median of the later ones, median of scenarios: {shown}."
        )
    return told + [f"{name}: {text}" for name, text in data["versions"].items() if name != text]


def _warnings(result: Result) -> list[str]:
    """What was not measured, or not well."""
    skipped = result.data["skipped"].items()
    warnings = [f"Skipped: {name}: {reason.strip().splitlines()[-1]}" for name, reason in skipped]
    return warnings + [f"Not all right: {text}" for text in result.trouble()]


def _sections(result: Result, drawn: dict[str, str]) -> Iterable[Section]:
    first = next(iter(drawn), None)
    yield Section("Targets", [first] if first else [], _warnings(result), [targets(result)])
    for scenario in result.scenarios:
        if result.contenders(scenario) and not scenario["series"]:
            shown = [name for name in _PICTURES.get(scenario["name"], ()) if name in drawn and name != first]
            tables = [table for table in (costs(result, scenario), calls(result, scenario)) if table]
            yield Section(f"{scenario['title']} ({scenario['name']})", shown, (), tables)
    for series in result.series():
        title = f"Growth: {series}"
        yield Section(title, [growth_name(series)], [growth_in_words(result, series)], [growth(result, series)])
    yield Section("Where and how", (), _about(result))


# -------------------------------------------------------------------------------------------------------------- pages


def _markdown(result: Result, stem: str, sections: Sequence[Section]) -> str:
    parts = [f"# {TITLE}", _about(result)[0], _about(result)[1], "The method is in bench/README.md."]
    for section in sections:
        parts += [f"## {section.title}", *(f"![{name}]({stem}-{name}.svg)" for name in section.pictures)]
        if section.text:
            parts.append("\n".join(f"- {line}" for line in section.text))
        parts += [_markdown_table(table) for table in section.tables]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in table]
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --soft: #5b6770; --faint: #dde3e9; --paper: #fff; --strong: #eaf3fa;
  --good: #00664b; --bad: #b03a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a9b4be; --faint: #3a444d; --paper: #15191d;
  --strong: #1d2b36; --good: #34c79b; --bad: #ff8a3c; } }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em;
  color: var(--ink); background: var(--paper); }
h2 { margin-top: 2em; border-top: 1px solid var(--faint); padding-top: 1em; font-size: 1.2em; }
p, li { color: var(--soft); max-width: 56em; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; font-size: .9em; }
th, td { padding: .3em .6em; border-bottom: 1px solid var(--faint); text-align: right; white-space: nowrap; }
th { vertical-align: bottom; color: var(--soft); font-weight: 600; white-space: normal; }
th:first-child, td:first-child, .words { text-align: left; }
tr.gateway td { background: var(--strong); font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
svg { max-width: 100%; height: auto; margin: .5em 0; display: block; }
div { overflow-x: auto; }
"""
_GOOD, _BAD = {"aim reached": "✔✔ aim reached", "bar met": "✔ bar met"}, {"missed": "✘ missed"}


def _html(result: Result, drawn: dict[str, str], sections: Sequence[Section]) -> str:
    body = [f"<h1>{escape(TITLE)}</h1><p>{escape(' '.join(_about(result)[:2]))}</p>"]
    for section in sections:
        body.append(f"<h2>{escape(section.title)}</h2>")
        body += [drawn[name] for name in section.pictures]
        if section.text:
            body.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in section.text) + "</ul>")
        body += [_html_table(table) for table in section.tables]
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f'<!doctype html><html lang="en">{meta}<title>{escape(TITLE)}</title><style>{_STYLE}</style>'
    return head + "\n".join(body) + "</html>\n"


def _html_table(table: Table) -> str:
    words = [any(", " in row[i] for row in table[1:]) for i in range(len(table[0]))]  # columns of words, not figures
    head = "".join(f"<th{' class=words' * words[i]}>{escape(cell)}</th>" for i, cell in enumerate(table[0]))
    rows = "".join(
        f"<tr{' class=gateway' if row[0].startswith('gateway') else ''}>"
        + "".join(_cell(cell, words[i]) for i, cell in enumerate(row))
        + "</tr>"
        for row in table[1:]
    )
    return f"<div><table><tr>{head}</tr>{rows}</table></div>"


def _cell(text: str, words: bool) -> str:
    kind = "good" if text in _GOOD else "bad" if text in _BAD else "words" if words else ""
    shown = escape((_GOOD | _BAD).get(text, text))
    return f'<td class="{kind}">{shown}</td>' if kind else f"<td>{shown}</td>"
