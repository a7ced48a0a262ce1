"""Two kinds of picture as SVG text: bars with their spread, and lines over logarithmic or linear axes.

Nothing here knows what is drawn. A picture stands alone (its own background and fonts), in a page or as a file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH = 720
_INK, _FAINT, _PAPER = "#22272e", "#d8dde3", "#ffffff"
_PALETTE = ("#0b6bcb", "#d1495b", "#2e8b57", "#8a63b8", "#c77f1a", "#5b6770", "#2a9db5", "#9c6644")
_EMPHASIS = "#0b6bcb"
_OTHERS = "#9aa7b4"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bar:
    """A value with its smallest and largest observation; a bar that matters is drawn in the strong colour."""

    label: str
    value: float
    low: float
    high: float
    strong: bool = False


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


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero, the values in figures at their ends, the spread as a thin line."""
    left, step, top = 190, 30, 46
    height = top + step * len(rows) + 16
    largest = max((row.high for row in rows), default=1) or 1
    scale = (WIDTH - left - 110) / largest
    parts = []
    for i, row in enumerate(rows):
        y = top + i * step
        middle = y + 10
        end = left + row.value * scale
        colour = _EMPHASIS if row.strong else _OTHERS
        parts += [
            _text(left - 10, middle + 4, row.label, anchor="end", bold=row.strong),
            f'<rect x="{left}" y="{y}" width="{max(end - left, 1):.1f}" height="20" rx="2" fill="{colour}"/>',
            _line(left + row.low * scale, middle, left + row.high * scale, middle, _INK, 1.5),
            _text(max(end, left + row.high * scale) + 8, middle + 4, f"{number(row.value)} {unit}", bold=row.strong),
        ]
    return _svg(title, height, parts)


def lines(title: str, x: Axis, y: Axis, series: Mapping[str, Points]) -> str:
    """One line with dots per series, named at the right edge."""
    left, right, top, height = 84, 150, 46, 340
    bottom = height - 50
    series = {label: points for label, points in series.items() if points}
    xs = [px for points in series.values() for px, _ in points]
    ys = [py for points in series.values() for _, py in points]
    to_x, x_ticks = _scale(x, xs, left, WIDTH - right)
    to_y, y_ticks = _scale(y, [*ys, *([] if y.log else [0.0])], bottom, top)
    parts = [_text((left + WIDTH - right) / 2, height - 12, x.label, anchor="middle"), _text(12, 40, y.label)]
    for value, text in y_ticks:
        parts += [_line(left, to_y(value), WIDTH - right, to_y(value), _FAINT)]
        parts += [_text(left - 8, to_y(value) + 4, text, anchor="end")]
    for value, text in x_ticks:
        parts += [_line(to_x(value), bottom, to_x(value), bottom + 5, _INK)]
        parts += [_text(to_x(value), bottom + 19, text, anchor="middle")]
    taken: list[float] = []
    for i, (label, points) in enumerate(series.items()):
        colour = _PALETTE[i % len(_PALETTE)]
        path = " ".join(f"{to_x(px):.1f},{to_y(py):.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{to_x(px):.1f}" cy="{to_y(py):.1f}" r="3" fill="{colour}"/>' for px, py in points]
        name_y = to_y(points[-1][1]) + 4
        while any(abs(name_y - other) < 15 for other in taken):
            name_y += 5
        taken.append(name_y)
        parts.append(_text(WIDTH - right + 10, name_y, label, colour=colour, bold=True))
    return _svg(title, height, parts)


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
        ticks = [10.0**i for i in range(round(log10(low)), round(log10(high)) + 1)]
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


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="{escape(title)}">'
    )
    paper = f'<rect width="{WIDTH}" height="{height}" fill="{_PAPER}"/>'
    heading = f'<text x="12" y="22" font-size="15" font-weight="600" fill="{_INK}">{escape(title)}</text>'
    return "\n".join([head, paper, heading, *parts, "</svg>"]) + "\n"
