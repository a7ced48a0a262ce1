"""The methods of messages about when they are to be delivered. That is the business of the fleet, whose policy
schedules them: here what they say is checked, and nothing else comes of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.mail.message import Message
from gateway.policy.kumo.values import string
from gateway.policy.options import Option, Schema, mismatch, refusal

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WINDOW = ("dow", "tz", "start", "end")


def _moment(value: object) -> str:
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d", value):
        try:
            if datetime.fromisoformat(value).tzinfo is not None:
                return value
        except ValueError:
            pass
    raise mismatch("a date and time such as '2026-03-01T17:00:00-08:00'", value)


def _days(value: object) -> str:
    if isinstance(value, str) and value:
        given = [word.strip().lower() for word in value.split(",")]
        if all(any(word in (day, day[:3]) for day in _DAYS) for word in given):
            return value
    raise mismatch("days such as 'Mon,Wed'", value)


def _zone(value: object) -> str:
    try:
        ZoneInfo(str(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise mismatch("a time zone such as 'America/Phoenix'", value) from None
    return str(value)


def _time(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d", value):
        return value
    raise mismatch("a time of day such as '09:00:00'", value)


SCHEDULE = Schema(
    {
        "first_attempt": Option(_moment),
        "expires": Option(_moment),
        "dow": Option(_days),
        "tz": Option(_zone),
        "start": Option(_time),
        "end": Option(_time),
    }
)


def _schedule(table: Any) -> dict[str, Any]:
    schedule: dict[str, Any] = SCHEDULE({} if table == [] else table)
    given = [name for name in _WINDOW if name in schedule]
    if given and len(given) < len(_WINDOW):
        raise refusal("dow, tz, start and end belong together")
    return schedule


def set_scheduling(message: Message, schedule: Any) -> dict[str, Any] | None:
    """Checked, and returned; left to the fleet."""
    return None if schedule is None else _schedule(schedule)


def import_scheduling_header(message: Message, name: Any, remove: Any) -> dict[str, Any] | None:
    """The schedule in a field, checked; nil where there is no such field, which stays for the fleet to read."""
    value = message.first_header(string(name, "import_scheduling_header"))
    if value is None:
        return None
    try:
        return _schedule(json.loads(value))
    except json.JSONDecodeError as error:
        raise ValueError(f"import_scheduling_header: the field {name} is no JSON: {error}") from None


def set_due(message: Message, due: Any) -> None:
    """Checked; left to the fleet."""
    if due is not None:
        _moment(due)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (set_scheduling, import_scheduling_header, set_due)
}
