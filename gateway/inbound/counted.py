"""Where a session counts what happens in it: the slots of its metrics. Values only."""

from __future__ import annotations

from gateway import _fastpath as fp
from gateway import metrics

_NAMES = (*fp.VERB_NAMES, "END-OF-DATA")
COMMANDS = [  # by verb, then by the reply's class, from 2xx on
    [
        metrics.COMMANDS.slots.get((name if name in metrics.VERBS else "other", f"{digit}xx"), metrics.NOWHERE)
        for digit in (2, 3, 4, 5)
    ]
    for name in _NAMES
]
DECIDED_BY_LUA, DECIDED_FROM_CACHE = (
    {outcome: slot for (outcome, source), slot in metrics.DECISIONS.slots.items() if source == wanted}
    for wanted in ("lua", "cache")
)
MESSAGE_DURATION = metrics.MESSAGE_DURATION.slot()
