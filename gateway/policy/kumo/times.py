"""`kumo.time`: points in time and spans between them, to the nanosecond. Waiting (`sleep`) is not here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from gateway.policy.kumo.values import Objects, integer, number, string
from gateway.policy.options import BadOptions, duration, humantime

_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeDelta:
    """A span. nanoseconds: signed."""

    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds = nanoseconds

    def __str__(self) -> str:
        text = humantime(abs(self.nanoseconds) / _SECOND)
        return f"-{text}" if self.nanoseconds < 0 else text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimeDelta) and self.nanoseconds == other.nanoseconds

    def __hash__(self) -> int:
        return hash(self.nanoseconds)

    def __add__(self, other: object) -> TimeDelta:
        if isinstance(other, TimeDelta):
            return TimeDelta(self.nanoseconds + other.nanoseconds)
        raise ValueError("only a TimeDelta can be added to a TimeDelta")

    def __sub__(self, other: object) -> TimeDelta:
        if isinstance(other, TimeDelta):
            return TimeDelta(self.nanoseconds - other.nanoseconds)
        raise ValueError("only a TimeDelta can be subtracted from a TimeDelta")


DELTA_FIELDS: dict[str, Callable[[TimeDelta], Any]] = {
    "seconds": lambda delta: delta.nanoseconds / _SECOND,
    "nanoseconds": lambda delta: delta.nanoseconds,
    "milliseconds": lambda delta: int(delta.nanoseconds / 1_000_000),
    "microseconds": lambda delta: int(delta.nanoseconds / 1_000),
    "human": str,
}


class Time:
    """A point in time. nanoseconds: since 1970, UTC."""

    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds = nanoseconds

    @property
    def moment(self) -> datetime:
        """To the microsecond. Raises ValueError outside the years 1 to 9999."""
        try:
            return _EPOCH + timedelta(microseconds=self.nanoseconds // 1_000)
        except OverflowError:
            raise ValueError("the time is outside the years 1 to 9999") from None

    def __str__(self) -> str:
        return f"{self.moment:%Y-%m-%d %H:%M:%S}{_fraction(self.nanoseconds)} UTC"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Time) and self.nanoseconds == other.nanoseconds

    def __hash__(self) -> int:
        return hash(self.nanoseconds)

    def __add__(self, other: object) -> Time:
        if isinstance(other, TimeDelta):
            return Time(self.nanoseconds + other.nanoseconds)
        raise ValueError("only a TimeDelta can be added to a Time")

    def __sub__(self, other: object) -> Time | TimeDelta:
        if isinstance(other, Time):
            return TimeDelta(self.nanoseconds - other.nanoseconds)
        if isinstance(other, TimeDelta):
            return Time(self.nanoseconds - other.nanoseconds)
        raise ValueError("only a Time or a TimeDelta can be subtracted from a Time")


def rfc2822(moment: datetime) -> str:
    """With the names of RFC 5322 §3.3 whatever the locale is."""
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.weekday()]
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{day}, {moment.day} {months[moment.month - 1]} {moment:%Y %H:%M:%S} +0000"


def _rfc3339(point: Time) -> str:
    return f"{point.moment:%Y-%m-%dT%H:%M:%S}{_fraction(point.nanoseconds)}+00:00"


def _fraction(nanoseconds: int) -> str:
    """Of a second, with its dot: as many digits as are needed, of none, three, six or nine."""
    digits = f"{nanoseconds % _SECOND:09d}"
    needed = -(-len(digits.rstrip("0")) // 3) * 3
    return f".{digits[:needed]}" if needed else ""


TIME_FIELDS: dict[str, Callable[[Time], Any]] = {
    "year": lambda point: point.moment.year,
    "month": lambda point: point.moment.month,
    "day": lambda point: point.moment.day,
    "hour": lambda point: point.moment.hour,
    "minute": lambda point: point.moment.minute,
    "second": lambda point: point.moment.second,
    "unix_timestamp": lambda point: point.nanoseconds // _SECOND,
    "unix_timestamp_millis": lambda point: point.nanoseconds // 1_000_000,
    "rfc2822": lambda point: rfc2822(point.moment),
    "rfc3339": _rfc3339,
    "elapsed": lambda point: TimeDelta(time.time_ns() - point.nanoseconds),
}

# what KumoMTA's strftime has and Python's has not, or has otherwise; the rest is Python's
_SPECIFIER = re.compile(r"%(%|:z|\.[369]?f|[369]?f|[A-Za-z+])")
_EXPANDED = {
    "D": "%m/%d/%y", "F": "%Y-%m-%d", "R": "%H:%M", "T": "%H:%M:%S", "h": "%b", "c": "%a %b %e %H:%M:%S %Y",
    "v": "%e-%b-%Y", "x": "%m/%d/%y", "X": "%H:%M:%S", "r": "%I:%M:%S %p",
}  # fmt: skip
_PYTHONS = frozenset("aAbBdGHIjmMpSuUVwWyY")


def format_time(point: Time, layout: Any) -> str:
    """`time:format '%H:%M'`: strftime as KumoMTA's."""
    text = string(layout, "format")
    for name, meaning in _EXPANDED.items():
        text = re.sub(rf"(?<!%)((?:%%)*)%{name}", rf"\1{meaning}", text)
    return _SPECIFIER.sub(lambda found: _formatted(point, found.group(1)), text)


_OUR_OWN: dict[str, Callable[[Time], str]] = {
    "%": lambda _: "%",
    "e": lambda point: f"{point.moment.day:2}",
    "k": lambda point: f"{point.moment.hour:2}",
    "l": lambda point: f"{(point.moment.hour - 1) % 12 + 1:2}",
    "s": lambda point: str(point.nanoseconds // _SECOND),
    "z": lambda _: "+0000",
    ":z": lambda _: "+00:00",
    "Z": lambda _: "UTC",
    "+": _rfc3339,
    "C": lambda point: f"{point.moment.year // 100:02}",
    "g": lambda point: f"{point.moment:%G}"[2:],
    "n": lambda _: "\n",
    "t": lambda _: "\t",
    "P": lambda point: f"{point.moment:%p}".lower(),
}


def _formatted(point: Time, letter: str) -> str:
    if letter in _OUR_OWN:
        return _OUR_OWN[letter](point)
    if letter in _PYTHONS:
        return point.moment.strftime(f"%{letter}")
    if letter.endswith("f"):
        digits = int(letter.strip(".f") or 9)
        return ("." if letter.startswith(".") else "") + f"{point.nanoseconds % _SECOND:09d}"[:digits]
    raise ValueError(f"format: '%{letter}' is no part of a time")


# --- functions --------------------------------------------------------------------------------------------------------


def now() -> Time:
    """This moment."""
    return Time(time.time_ns())


def from_unix_timestamp(seconds: Any) -> Time:
    """Seconds since 1970, whole or not."""
    since = number(seconds, "from_unix_timestamp")
    if not abs(since) <= 1e13:  # that is no number, either
        raise ValueError("from_unix_timestamp: the time is outside the years 1 to 9999")
    return Time(since * _SECOND if isinstance(since, int) else round(since * _SECOND))


def with_ymd_hms(year: Any, month: Any, day: Any, hour: Any, minute: Any, second: Any) -> Time:
    """A date and time, UTC."""
    numbers = [integer(number, "with_ymd_hms") for number in (year, month, day, hour, minute, second)]
    try:
        return _point(datetime(*numbers, tzinfo=UTC))  # type: ignore[misc, arg-type]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"with_ymd_hms: {error}") from None


def parse_rfc2822(text: Any) -> Time:
    """A date as in a header field (RFC 5322 §3.3)."""
    written = string(text, "parse_rfc2822")
    try:
        moment = parsedate_to_datetime(written)
    except (ValueError, TypeError):
        raise ValueError(f"parse_rfc2822: '{written}' is no date") from None
    return _point(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def parse_rfc3339(text: Any) -> Time:
    """A date such as 2000-01-02T03:04:05Z."""
    written = string(text, "parse_rfc3339")
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", written)
    if found is None:
        raise ValueError(f"parse_rfc3339: '{written}' is no date")
    day, clock, fraction, zone = found.groups()
    try:
        whole = datetime.fromisoformat(f"{day}T{clock}{zone.upper().replace('Z', '+00:00')}")
    except ValueError as error:
        raise ValueError(f"parse_rfc3339: {error}") from None
    return Time(_point(whole).nanoseconds + int((fraction or "0").ljust(9, "0")))


def _point(moment: datetime) -> Time:
    since = moment - _EPOCH
    return Time((since.days * 86400 + since.seconds) * _SECOND + since.microseconds * 1_000)


def parse_duration(value: Any) -> TimeDelta:
    """A number of seconds, which may be negative, or a text such as "5 minutes"."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12:
        return TimeDelta(value * _SECOND if isinstance(value, int) else round(value * _SECOND))
    try:
        return TimeDelta(round(duration(value) * _SECOND))
    except (BadOptions, OverflowError) as error:
        raise ValueError(f"parse_duration: {error}") from None


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (now, from_unix_timestamp, with_ymd_hms, parse_rfc2822, parse_rfc3339, parse_duration)
}
OBJECTS: Objects = {Time: ({"format": format_time}, TIME_FIELDS), TimeDelta: ({}, DELTA_FIELDS)}
UNSTABLE = frozenset({"now"})
