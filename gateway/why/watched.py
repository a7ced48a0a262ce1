"""A policy that notes what it is asked: which handler, what it looked at, what it answered, and where in its files.

The policy is the server's own; here it is only listened to. What the notes mean is the business of who reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.later import Later, answered
from gateway.policy import events
from gateway.policy.api import Api, Handler
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import MISSING, Evaluation, Known, RecentlyUsed
from gateway.policy.decisions import NODES
from gateway.policy.domain_table import DomainTable
from gateway.policy.engine import Identity, Policy
from gateway.policy.messages.handle import MessageHandle
from gateway.policy.objects import Made
from gateway.policy.runs import Run


class NotingApi(Api):
    """The `kumo` module that notes where in a policy's files it was called."""

    def _make(self, name: str, *arguments: object) -> Made:
        shared = super()._make(name, *arguments)
        made = Made(name, shared.options, shared.value)  # which knows where it was made
        made.made_at = self.lua.where()
        return made


class Asked:
    """One question to the policy's handlers.

    handlers: those that the event has. arguments: as the policy was asked. evaluation: what was read on the way, None
    where the answer came from the cache. answer: theirs, as the server gets it. made_at: file and line where what they
    returned was made, None where that is nothing of the kind. found: the table of domains, the domain and the listener
    that it was found by, where it stands in one.
    """

    def __init__(
        self,
        event: str,
        handlers: Sequence[Handler],
        arguments: tuple[object, ...],
        evaluation: Evaluation | None,
    ) -> None:
        self.event = event
        self.handlers = handlers
        self.arguments = arguments
        self.evaluation = evaluation
        self.answer: Later
        self.made_at: tuple[str, int] | None = None
        self.found: tuple[object, str, str] | None = None


class Notes:
    """What a policy was asked in one session. granted: the questions to get_listener_domain among them.

    identity: whom AUTH establishes without asking anybody, None to ask.
    """

    def __init__(self, identity: Identity | None = None) -> None:
        self.asked: list[Asked] = []
        self.granted: list[Asked] = []
        self.identity = identity


class WatchedPolicy(Policy):
    """A policy, and the `notes` of the session that it serves. Load it with the NotingApi."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.notes = Notes()
        self._places = RecentlyUsed(NODES)  # where; of what the cache may give again: by what was asked, and the answer

    def auth_plain(self, authz: str, authc: str, password: str, conn: ConnMeta) -> Later:
        """See Policy; whoever only supposes that a client authenticated knows no password."""
        identity = self.notes.identity
        return super().auth_plain(authz, authc, password, conn) if identity is None else answered(identity)

    def listener_domain(self, domain: str, listener: str, conn: ConnMeta) -> Later:
        """See Policy."""
        before = len(self.notes.asked)
        answer = super().listener_domain(domain, listener, conn)
        if type(answer) is not Known:
            self.notes.granted += self.notes.asked[before:]
            return answer
        handlers = self.handlers_of(events.LISTENER_DOMAIN)
        table = handlers[0].behind if handlers else None
        asked = Asked(events.LISTENER_DOMAIN, handlers, (domain, listener), None)
        asked.answer = answer
        if isinstance(table, DomainTable):  # which is asked in the place of the handler
            asked.evaluation = Evaluation(conn)
            table.entry(domain, listener, conn, asked.evaluation)
            asked.found = table, domain, listener
        else:
            made = self._places.get((domain, listener, id(answer.result())))
            asked.made_at, asked.found = (None, None) if made is MISSING else made
        self.notes.asked.append(asked)
        self.notes.granted.append(asked)
        return answer

    def _called(
        self,
        event: str,
        handlers: Sequence[Handler],
        arguments: tuple[object, ...],
        finish: Callable[[Any], Any] | None,
        evaluation: Evaluation | None,
        handle: MessageHandle | None = None,
        takes_all: bool = False,
    ) -> Run:
        if evaluation is None:
            evaluation = Evaluation(next((each for each in arguments if isinstance(each, ConnMeta)), None))
        asked = Asked(event, handlers, arguments, evaluation)
        self.notes.asked.append(asked)

        def finished(result: object) -> Any:
            value = None if finish is None else finish(result)
            if isinstance(result, Made):
                asked.made_at, asked.found = result.made_at, result.found
                self._places.replace((*arguments[:2], id(value)), (result.made_at, result.found))
            return value

        run = super()._called(event, handlers, arguments, finished, evaluation, handle, takes_all)
        asked.answer = run
        return run
