"""Two kinds of picture as SVG text: bars with their spread, and lines over logarithmic or linear axes.

Nothing here knows what is drawn. A picture stands alone, in a page or as a file: it has its own background, in a light
and in a dark version that the reader's browser chooses. Colours are those of Okabe and Ito, which colour-blind readers
can tell apart; lines have marks of different shapes as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

WIDTH = 760
_LIGHT = {"ink": "#1f2933", "soft": "#5b6770", "faint": "#dde3e9", "paper": "#ffffff"}
_DARK = {"ink": "#e6e9ec", "soft": "#a9b4be", "faint": "#3a444d", "paper": "#15191d"}
_LINES_LIGHT = ("#0072b2", "#c04f00", "#007a5a", "#a5497f", "#8a6100", "#5b6770", "#2b86c0", "#7a5c46")
_LINES_DARK = ("#5cb3e8", "#ff8a3c", "#34c79b", "#e39ac4", "#f0b93a", "#a9b4be", "#8fd0f5", "#c9a58b")
_SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-3.5,-3.5h7v7h-7z",
    "M0,-4.5l4.5,8h-9z",
    "M0,-5l4.5,5l-4.5,5l-4.5,-5z",
)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bar:
    """A value with its smallest and largest observation, and how much of it is drawn strong, the rest being faint.

    A bar that matters is drawn in the strong colour. note: said behind the value.
    """

    label: str
    value: float
    low: float
    high: float
    front: float
    strong: bool = False
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """label: what, in which unit. log: logarithmic. ticks: (value, text) pairs; by default powers of ten or steps."""

    label: str
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()


def number(value: float) -> str:
    """A value with about three digits that count: 1,234 or 12.3 or 0.123."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def bars(title: str, subtitle: str, unit: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero, the values in figures at their ends, the spread as a thin line."""
    left, step, top = 150, 32, 64
    height = top + step * len(rows) + 14
    largest = max((row.high for row in rows), default=1) or 1
    scale = (WIDTH - left - 210) / largest
    parts = []
    for i, row in enumerate(rows):
        y = top + i * step
        middle = y + 11
        end, front = left + row.value * scale, left + row.front * scale
        colour = "f0" if row.strong else "f5"
        value = f"{number(row.value)} {unit}"
        at = max(end, left + row.high * scale) + 8
        parts += [
            _text(left - 10, middle + 5, row.label, anchor="end", bold=row.strong),
            f'<rect x="{left}" y="{y}" width="{max(end - left, 1):.1f}" height="22" class="{colour}" opacity=".5"/>',
            f'<rect x="{left}" y="{y}" width="{max(front - left, 1):.1f}" height="22" class="{colour}"/>',
            _line(left + row.low * scale, middle, left + row.high * scale, middle, "ink", 1.5),
            _text(at, middle + 5, value, bold=row.strong),
            _text(at + 8 * len(value) + 6, middle + 5, row.note, colour="soft"),
        ]
    return _svg(title, subtitle, height, parts)


def lines(
    title: str, subtitle: str, x: Axis, y: Axis, series: Mapping[str, Points], guides: Sequence[Points] = ()
) -> str:
    """One line with marks per series, named at the right edge; guides are thin dashed lines without marks."""
    left, right, top, height = 84, 150, 84, 400
    bottom = height - 54
    series = {label: points for label, points in series.items() if points}
    xs = [px for points in series.values() for px, _ in points]
    ys = [py for points in series.values() for _, py in points]
    to_x, x_ticks = _scale(x, xs, left, WIDTH - right)
    to_y, y_ticks = _scale(y, [*ys, *([] if y.log else [0.0])], bottom, top)
    parts = [_text((left + WIDTH - right) / 2, height - 14, x.label, anchor="middle", colour="soft")]
    parts.append(_text(16, top - 14, y.label, colour="soft"))
    for value, text in y_ticks:
        parts += [_line(left, to_y(value), WIDTH - right, to_y(value), "faint")]
        parts += [_text(left - 8, to_y(value) + 4, text, anchor="end")]
    for value, text in x_ticks:
        parts += [_line(to_x(value), bottom, to_x(value), bottom + 5, "soft")]
        parts += [_text(to_x(value), bottom + 20, text, anchor="middle")]
    parts += [_path(points, to_x, to_y, 'class="s5" stroke-width="1.2" stroke-dasharray="5 4"') for points in guides]
    named = _spread_out([to_y(points[-1][1]) for points in series.values()])
    for i, (label, points) in enumerate(series.items()):
        colour, shape = i % len(_LINES_LIGHT), _SHAPES[i % len(_SHAPES)]
        parts.append(_path(points, to_x, to_y, f'class="s{colour}" stroke-width="{3 if i == 0 else 2}"'))
        spots = ((to_x(px), to_y(py)) for px, py in points)
        parts += [f'<path d="{shape}" transform="translate({px:.1f},{py:.1f})" class="f{colour}"/>' for px, py in spots]
        parts.append(_text(WIDTH - right + 12, named[i] + 4, label, colour=f"f{colour}", bold=True))
    return _svg(title, subtitle, height, parts)


def _spread_out(wanted: Sequence[float], room: float = 16) -> list[float]:
    """Places near those wanted, and at least `room` apart."""
    placed = list(wanted)
    order = sorted(range(len(placed)), key=lambda i: placed[i])
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + room)
    return placed


class _Mapping:
    """From a value to a coordinate."""

    def __init__(self, log: bool, low: float, high: float, start: float, end: float) -> None:
        self.log, self.low, self.high, self.start, self.end = log, low, high, start, end

    def __call__(self, value: float) -> float:
        if self.log:
            share = (log10(max(value, 1e-12)) - log10(self.low)) / (log10(self.high) - log10(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> tuple[_Mapping, list[tuple[float, str]]]:
    if axis.log:
        positive = [value for value in values if value > 0] or [1.0]
        low, high = 10.0 ** floor(log10(min(positive))), 10.0 ** ceil(log10(max(positive)))
        high = high if high > low else low * 10
        decades = range(round(log10(low)), round(log10(high)) + 1)
        steps = (1, 2, 5) if len(decades) <= 3 else (1,)
        ticks = [10.0**i * step for i in decades for step in steps if 10.0**i * step <= high]
    else:
        low, largest = min(values, default=0.0), max(values, default=1.0) or 1.0
        unit = 10.0 ** floor(log10(largest))
        step = next(unit * m for m in (0.2, 0.5, 1, 2) if largest / (unit * m) <= 6)
        high = step * ceil(largest / step)
        ticks = [i * step for i in range(ceil(low / step), round(high / step) + 1)]
    if axis.ticks:
        low, high = axis.ticks[0][0], axis.ticks[-1][0]
    mapping = _Mapping(axis.log, low, high, start, end)
    return mapping, list(axis.ticks) or [(tick, f"{tick:,.10g}") for tick in ticks]


def _path(points: Points, to_x: _Mapping, to_y: _Mapping, how: str) -> str:
    path = " ".join(f"{to_x(px):.1f},{to_y(py):.1f}" for px, py in points)
    return f'<polyline points="{path}" fill="none" {how}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "ink", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{colour}"{weight}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{colour}-line" stroke-width="{width}"/>'
    )


def _colours(names: Mapping[str, str], series: Sequence[str]) -> str:
    rules = [f".{name} {{ fill: {colour} }} .{name}-line {{ stroke: {colour} }}" for name, colour in names.items()]
    rules += [f".f{i} {{ fill: {colour} }} .s{i} {{ stroke: {colour} }}" for i, colour in enumerate(series)]
    return " ".join(rules)


_STYLE = (
    f"<style>{_colours(_LIGHT, _LINES_LIGHT)} "
    f"@media (prefers-color-scheme: dark) {{ {_colours(_DARK, _LINES_DARK)} }}</style>"
)


def _svg(title: str, subtitle: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, \'DejaVu Sans\', sans-serif" font-size="13" role="img" aria-label="{escape(title)}">'
    )
    paper = f'<rect width="{WIDTH}" height="{height}" rx="6" class="paper"/>'
    heading = f'<text x="16" y="26" font-size="16" font-weight="600" class="ink">{escape(title)}</text>'
    return "\n".join([head, _STYLE, paper, heading, _text(16, 46, subtitle, colour="soft"), *parts, "</svg>"]) + "\n"
