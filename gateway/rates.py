"""Rates in KumoMTA's words: so many in so much time, `100/1h`. Values only; who counts is elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PERIODS = {
    **dict.fromkeys(("day", "d"), 86400),
    **dict.fromkeys(("hour", "hr", "h"), 3600),
    **dict.fromkeys(("minute", "min", "m"), 60),
    **dict.fromkeys(("second", "seconds", "sec", "s"), 1),
}
_SPEC = re.compile(r"(local:)?([\d,_]+)/(\d*)([a-z]+)(?:,max_burst=([\d,_]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """interval: seconds from one to the next in the long run. burst: so many may come at once. local: never shared."""

    interval: float
    burst: int
    local: bool = False

    @classmethod
    def read(cls, text: str) -> Rate:
        """[local:]quantity/period[,max_burst=burst]. Raises ValueError."""
        match = _SPEC.fullmatch(text.strip())
        if match is None or match[4] not in _PERIODS:
            raise ValueError(f"'{text}' is no rate such as '50/minute' or 'local:1,000/30min,max_burst=10'")
        quantity, burst = (int(re.sub("[,_]", "", number or "") or 0) for number in (match[2], match[5]))
        period = int(match[3] or 1) * _PERIODS[match[4]]
        if quantity < 1 or period < 1 or (match[5] and burst < 1):
            raise ValueError(f"'{text}' allows nothing")
        return cls(period / quantity, burst or quantity, match[1] is not None)
