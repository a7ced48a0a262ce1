"""The tracer of a worker: who looks on, and the last refusals."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from gateway.smtp.replies import Reply
from gateway.tracing import words
from gateway.tracing.onlooker import Onlooker
from gateway.tracing.wanted import Wanted
from gateway.tracing.witness import Session, Witness
from gateway.tracing.words import HIDDEN

log = logging.getLogger(__name__)

MOST_ONLOOKERS = 16
MOST_RECENT = 256 * 1024  # octets of the last refusals
_KEPT = 300  # characters of each text in them
# What the gateway itself knows of a connection, of the values in its metadata; all others are the policy's.
KNOWN = ("hostname", "ehlo_domain", "tls_protocol_version", "tls_cipher", "authn_id", "authz_id")


class TooMany(Exception):
    """Nobody else may look on."""


class Recent:
    """The last refusals, as lines; those before make room."""

    def __init__(self, most: int = MOST_RECENT) -> None:
        self._most = most
        self._lines: deque[bytes] = deque()
        self._octets = 0

    def add(self, line: bytes) -> None:
        """One more."""
        self._lines.append(line)
        self._octets += len(line)
        while self._octets > self._most:
            self._octets -= len(self._lines.popleft())

    def of(self, wanted: Wanted) -> Iterator[bytes]:
        """Those that somebody wants to see, the oldest first."""
        for line in self._lines:
            if wanted.has_refusal(orjson.loads(line)):
                yield line


class Tracer:
    """worker: its number. now_ns: nanoseconds since 1970. clock: seconds, the one that sessions began on. changed:
    called when others look on than before; it asks `witness` for every open session, and calls `all_are_watched` then.
    """

    def __init__(
        self,
        worker: int,
        now_ns: Callable[[], int],
        clock: Callable[[], float],
        changed: Callable[[bool], None] = lambda active: None,
    ) -> None:
        self.worker = worker
        self.now_ns = now_ns
        self.clock = clock
        self.recent = Recent()
        self._changed = changed
        self._onlookers: list[Onlooker] = []
        self._greeted = 0  # of them, how many know that they miss nothing from here on

    def look_on(self, wanted: Wanted, ready: Callable[[], None]) -> Onlooker:
        """Somebody looks on from now on. ready: see Onlooker. Raises TooMany."""
        if len(self._onlookers) >= MOST_ONLOOKERS:
            raise TooMany
        onlooker = Onlooker(self.worker, wanted, ready)
        self._onlookers.append(onlooker)
        self._changed(True)
        return onlooker

    def all_are_watched(self) -> None:
        """Whatever happens from here on in any session is told to everybody who wants to hear of it."""
        for onlooker in self._onlookers[self._greeted :]:
            onlooker.take(words.line_of({"event": "watching", "worker": self.worker}))
        self._greeted = len(self._onlookers)

    def leave(self, onlooker: Onlooker) -> None:
        """Somebody does not any more."""
        if onlooker in self._onlookers:
            self._greeted -= self._onlookers.index(onlooker) < self._greeted
            self._onlookers.remove(onlooker)
            self._changed(bool(self._onlookers))

    def witness(self, session: Session, before: Witness | None = None) -> Witness | None:
        """Who tells of a session now; None where nobody wants to hear of it. before: who did until now."""
        wanting = [each for each in self._onlookers if each.wanted.has_peer(session.peer)]
        witness = before if before is not None else Witness(self, session) if wanting else None
        return witness if witness is not None and witness.shown_to(wanting) else None

    def turned_away(self, session: Session, reply: Reply) -> None:
        """A connection was refused before it had a session."""
        witness = self.witness(session)
        if witness is not None:
            witness.connected()
            witness.replied(-1, reply, b"")
            witness.closed(False)

    def refused(
        self,
        reply: Reply,
        *,
        session_id: str,
        peer_address: str,
        ehlo: str,
        meta: Mapping[str, Any],
        hidden: frozenset[str],
        secret: str = "",
        **told: Any,
    ) -> None:
        """Something was refused: kept for who asks later. meta: of the connection; hidden: the names of what in it a
        client proved itself with. secret: what the policy may have put into its reply. told: what else is known.
        """
        try:
            known = {key: _kept(value) for key, value in told.items() if value is not None}
            event = {
                "event": "refused",
                "time": words.time_of(self.now_ns()),
                "worker": self.worker,
                "session": session_id,
                "peer": meta.get("received_from", peer_address),
                "peer_address": peer_address,
                "listener": meta.get("received_via"),
                "ehlo": ehlo or None,
                **words.reply_of(reply),
                **known,
                "known": known_of(meta, hidden),
            }
            if secret:
                texts = {"text": reply.text, "error": str(told.get("error", ""))}
                event |= {key: words.short(text.replace(secret, HIDDEN)) for key, text in texts.items() if text}
            self.recent.add(words.line_of(event))
        except Exception:
            log.exception("a refusal cannot be kept")


def _kept(value: Any) -> Any:
    return [_kept(each) for each in value] if isinstance(value, list) else words.short(value, _KEPT)


def known_of(meta: Mapping[str, Any], secret: frozenset[str]) -> dict[str, Any]:
    """What may be told of a connection's metadata: what the gateway knows, and what the policy put there."""
    without = ("received_from", "received_via", "reception_protocol")
    return {
        words.short(key, _KEPT): HIDDEN if key in secret else value if key in KNOWN else words.short(str(value), _KEPT)
        for key, value in list(meta.items())[: words.MOST_NAMED]
        if key not in without
    }
