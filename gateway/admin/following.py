"""The ways of the last messages, for those who look at the status page: what a trace tells of them, as long as somebody
looks and there is not much of it. While the gateway is busy nothing is followed, so that looking costs mail nothing.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.admin.display import line_of

LOOKING = 300.0  # seconds for which messages are followed after somebody has looked
BUSY = 10.0  # connections and messages a second above which nothing is followed
MOST_SESSIONS = 8
MOST_EVENTS = 60  # of one session

_ABOUT_MESSAGES = ("command", "decision", "message", "handing_over", "handed_over", "refused")


class Ways:
    """The sessions that were told of, the last ones. No sockets and no clocks."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, list[Mapping[str, Any]]] = OrderedDict()
        self._watched: set[int] = set()  # workers that have said so

    def watched(self, workers: Iterable[int]) -> bool:
        """Whether each of these workers tells what happens."""
        return self._watched.issuperset(workers)

    def stopped(self) -> None:
        """Nobody tells any more."""
        self._watched.clear()

    def take(self, lines: bytes) -> None:
        """What a worker tells, lines of JSON."""
        for line in lines.splitlines():
            event = json.loads(line)
            session = event.get("session")
            if session is None:
                self._note(event)
                continue
            events = self._sessions.setdefault(session, [])
            self._sessions.move_to_end(session)
            if len(events) < MOST_EVENTS:
                events.append(event)
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)

    def _note(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "watching":
            self._watched.add(event["worker"])
        elif event.get("event") == "gone":
            self._watched.discard(event["worker"])

    def told(self) -> list[dict[str, Any]]:
        """The latest first: the session, its client, the ids of its messages, a line for each thing that happened."""
        return [
            {
                "session": session,
                "peer": events[0].get("peer", ""),
                "ids": [event["id"] for event in events if event.get("event") == "message" and "id" in event],
                "lines": [_line_of(event) for event in events],
            }
            for session, events in reversed(self._sessions.items())
            if any(event.get("event") in _ABOUT_MESSAGES for event in events)
        ]


def _line_of(event: Mapping[str, Any]) -> str:
    """Without what all lines of the session say."""
    return line_of({**event, "session": "", "peer": ""}).replace("   ", "  ", 1)
