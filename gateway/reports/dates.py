"""Dates as mailers write them in reports, read tolerantly: RFC 5322 §3.3 and §4.3, asctime, and RFC 3339.

A wrong or missing weekday does not matter, nor do comments, two-digit years and obsolete zones.
"""

import re
from datetime import UTC, datetime, timedelta

from gateway.reports.fields import without_comments

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")  # RFC 5322 §3.3

# Hours east of UTC: RFC 5322 §4.3, and common abbreviations that mean one thing only. Any other one counts as UTC,
# as §4.3 has it for unknown zones.
_ZONES = {
    **{"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7},
    **{"akst": -9, "akdt": -8, "hst": -10, "nst": -3.5, "ndt": -2.5},
    **{"wet": 0, "west": 1, "cet": 1, "cest": 2, "met": 1, "mest": 2, "eet": 2, "eest": 3, "msk": 3, "sast": 2},
    **{"pkt": 5, "wib": 7, "hkt": 8, "awst": 8, "jst": 9, "kst": 9},
    **{"acst": 9.5, "acdt": 10.5, "aest": 10, "aedt": 11, "nzst": 12, "nzdt": 13},
}

_TIME = r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2})(?:[.,]\d+)?)?"
_ZONE = r"(?:\s*(?:(?:GMT|UTC?)?(?P<sign>[+-])(?P<zh>\d{2}):?(?P<zm>\d{2})|(?P<zone>[A-Za-z]{1,5})))?"
_RFC5322 = re.compile(
    rf"(?:[A-Za-z]+\.?\s*,?\s*)?(?P<day>\d{{1,2}})[\s-]+(?P<month>[A-Za-z]{{3}})[a-z]*\.?[\s-]+(?P<year>\d{{2,4}}),?"
    rf"\s+{_TIME}{_ZONE}\b",
    re.ASCII,
)
_ASCTIME = re.compile(
    rf"[A-Za-z]+\s+(?P<month>[A-Za-z]{{3}})\s+(?P<day>\d{{1,2}})\s+{_TIME}\s+(?:(?P<zone>[A-Z]{{2,5}})\s+)?"
    rf"(?P<year>\d{{4}})(?:\s+(?P<sign>[+-])(?P<zh>\d{{2}})(?P<zm>\d{{2}}))?\b",
    re.ASCII,
)
_RFC3339 = re.compile(rf"(?P<year>\d{{4}})-(?P<month>\d{{2}})-(?P<day>\d{{2}})(?:[Tt]|\s+){_TIME}{_ZONE}\b", re.ASCII)
MAX_DATE = 200


def parse_date(text: str) -> datetime | None:
    """The moment that `text` names, in UTC; None if it names none. A date without zone counts as UTC."""
    text = without_comments(text[:MAX_DATE]).strip()
    for form in (_RFC5322, _RFC3339, _ASCTIME):
        if match := form.match(text):
            try:
                return _moment(match.groupdict())
            except (ValueError, OverflowError):
                return None
    return None


def _moment(parts: dict[str, str | None]) -> datetime:
    month = (parts["month"] or "").lower()
    local = datetime(
        _year(parts["year"] or ""),
        int(month) if month.isdigit() else _MONTHS.index(month) + 1,
        int(parts["day"] or 0),
        int(parts["hour"] or 0),
        int(parts["minute"] or 0),
        tzinfo=UTC,
    )
    second = int(parts["second"] or 0)
    if second > 60:  # 60 is a leap second
        raise ValueError("no such second")
    if sign := parts["sign"]:
        offset = int(parts["zh"] or 0) * 3600 + int(parts["zm"] or 0) * 60
        offset = -offset if sign == "-" else offset
    else:
        offset = int(_ZONES.get((parts["zone"] or "").lower(), 0) * 3600)
    return local + timedelta(seconds=second - offset)


def _year(text: str) -> int:
    # RFC 5322 §4.3: two digits 00-49 are 20xx, 50-99 are 19xx, as are three digits.
    year = int(text)
    if len(text) == 4:
        return year
    return year + 2000 if len(text) == 2 and year < 50 else year + 1900


def rfc3339(moment: datetime) -> str:
    """`moment`, which is in UTC, as RFC 3339 has it."""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
