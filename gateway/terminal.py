"""Text for a terminal: nothing that strangers wrote can do more there than be read; amounts, and bars for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉"
_UNITS = ("", "k", "M", "G", "T", "P")


def printable(text: str) -> str:
    """Without control characters; line ends become a bar between blanks."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(letter: str) -> str:
    return " | " if letter == "\n" else letter.encode("unicode_escape").decode()


def short(value: float) -> str:
    """An amount in at most five letters: 0.25, 17, 1.2k, 38M."""
    size = abs(value)
    if size < 1000:
        return f"{value:.0f}" if size >= 100 or value == int(value) else f"{value:.3g}"
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, value, unit = size / 1000, value / 1000, unit + 1
    return f"{value:.0f}{_UNITS[unit]}" if size >= 9.95 else f"{value:.1f}{_UNITS[unit]}"


def amount(value: float | str) -> str:
    """A number as `short` has it; a word as it is."""
    return value if isinstance(value, str) else short(value)


def bar(value: float, most: float, width: int) -> str:
    """A bar of `width` letters at `most`, to an eighth of a letter; what is more than nothing shows."""
    if value <= 0 or most <= 0:
        return ""
    eighths = max(1, min(width * 8, round(value / most * width * 8)))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def table(rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> Iterator[str]:
    """Rows of cells in columns, two blanks between them; `right`: the columns that stand at their right edge."""
    made = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*made, strict=True)] if made else []
    for row in made:
        cells = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
