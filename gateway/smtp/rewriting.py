"""A session whose replies are shown to somebody before they are sent, who may word them otherwise.

It stands still for each of them: the reply is an event, ReplyMade, and release() sends it. What it means for the
session has happened by then, so that no other words change what was accepted and what was not.
"""

from __future__ import annotations

from gateway._fastpath import ContentStore
from gateway.smtp import states
from gateway.smtp.events import Event, Observer, ReplyMade
from gateway.smtp.replies import Reply
from gateway.smtp.session import ServerSession
from gateway.smtp.terms import Terms


class RewritingSession(ServerSession):
    """One session."""

    def __init__(self, terms: Terms, observer: Observer, store: ContentStore | None = None) -> None:
        ServerSession.__init__(self, terms, observer, store)
        self._made: list[ReplyMade] = []  # the first is being worded
        self._due: Event | None = None  # what happens when its reply is sent
        self._is_shown = False  # the first reply
        self._asks = True

    def next_event(self) -> Event | None:
        """As ServerSession has it; a reply that is made comes before everything else."""
        event = None
        if not self._made:
            if self._due is not None:
                event = self._due
                self._due = None
                self.awaiting = event
                return event
            event = ServerSession.next_event(self)
        if not self._made:
            return event
        if event is not None:
            self._due = event
        self.awaiting = self._made[0]
        if self._is_shown:
            return None
        self._is_shown = True
        return self.awaiting

    def release(self, reply: Reply) -> None:
        """Sends what has become of the reply that is being worded. It must not mean anything else."""
        made = self._made.pop(0)
        self._is_shown = False
        self._observer.released(made.verb, reply, made.argument, made.kept)
        self._out.append(reply.wire)
        if reply.closes:
            self._move(states.END)
        self.awaiting = self._made[0] if self._made else None

    def give_up(self) -> None:
        """Nobody words anything any more."""
        self._asks = False
        while self._made:
            self.release(self._made[0].reply)

    def is_over(self) -> bool:
        """Closed, with all replies said."""
        return self.closed and not self._made

    def _say(self, reply: Reply) -> None:
        if not self._asks or reply.code == 334:  # a challenge is data of a protocol, nothing that is said
            ServerSession._say(self, reply)
            return
        if reply.reason is not None and self.limits is not None:
            reply = self._weighed(reply)
        kept = self._observer.held(self._verb, reply, self._argument)
        self._made.append(ReplyMade(self._verb, reply, self._argument, kept))
        self.awaiting = self._made[0]
        if reply.closes:
            self._move(states.END)
