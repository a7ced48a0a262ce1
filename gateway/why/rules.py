"""Which rule decided: the line of the policy, and the entry in it, that an answer rests on."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway._fastpath import CidrSet
from gateway.config import ListenerDomain
from gateway.decision import Ground, grants_anybody, ground, sender_matters
from gateway.inbound.allowance import BY_QUOTA
from gateway.policy import events
from gateway.policy.domain_files import Parameters, Text
from gateway.policy.domain_table import DomainTable
from gateway.policy.listener import Block
from gateway.policy.problems import PolicyError, Rejected
from gateway.smtp.address import parse_address, parse_mailbox
from gateway.smtp.replies import Reason
from gateway.tracing.words import because
from gateway.why.conversation import Account, Recipient, Step
from gateway.why.watched import Asked, WatchedPolicy

Rule = dict[str, Any]

# Reasons that a listener's parameter stands behind.
PARAMETERS = {
    Reason.MESSAGE_TOO_BIG: "max_message_size",
    Reason.BODY_LINE_TOO_LONG: "line_length_hard_limit",
    Reason.LINE_TOO_LONG: "line_length_hard_limit",
    Reason.LINE_ENDINGS: "invalid_line_endings",
    Reason.TOO_MANY_RECIPIENTS: "max_recipients_per_message",
    Reason.MESSAGE_LIMIT: "max_messages_per_connection",
}


def prefix_of(prefixes: CidrSet, packed: bytes) -> str | None:
    """The entry of a list that covers an address, the longest where several do; None where none does."""
    covering = [prefix for prefix in prefixes if packed in CidrSet((prefix,))]
    return max(covering, key=lambda prefix: int(prefix.partition("/")[2] or 999), default=None)


class Rules:
    """Finds the rules of one policy."""

    def __init__(self, policy: WatchedPolicy) -> None:
        self._policy = policy

    def of_recipient(self, session: Account, recipient: Recipient) -> Rule | None:
        """What the answer to a RCPT rests on; None where that is the command alone, which is wrong."""
        reason = recipient.step.reply.reason
        if reason is None or reason is Reason.RELAY_DENIED:
            return self._of_decision(session, recipient)
        if reason is Reason.MIXED_RECIPIENTS:
            return {**self._of_decision(session, recipient), "text": "it is not handled like the recipients before it"}
        return self._of_refusal(session, recipient.step)

    def of_session(self, session: Account) -> Rule | None:
        """What the decisive reply rests on."""
        step = session.decisive
        for recipient in session.recipients:
            if recipient.step is step:
                return self.of_recipient(session, recipient)
        if step.reply.reason is None or step.reply.reason is Reason.NOT_A_REPORT:
            taken = [recipient for recipient in session.recipients if recipient.accepted]
            return self.of_recipient(session, taken[0]) if taken else None
        return self._of_refusal(session, step)

    # -- refusals of other kinds --------------------------------------------------------------------------------------

    def _of_refusal(self, session: Account, step: Step) -> Rule | None:
        reason = step.reply.reason
        if reason in (Reason.POLICY_REJECT, Reason.POLICY_ERROR):
            return self._of_handler(step)
        if reason is Reason.NO_DESTINATION:
            return self._of_handlers(events.QUEUE_CONFIG, "no queue has a protocol that says where its mail goes")
        if reason is Reason.AUTH_FAILED or (reason is Reason.UNKNOWN_COMMAND and step.stage == "auth"):
            return self._of_handlers(events.AUTH_PLAIN, "it does not let this client authenticate")
        if reason in BY_QUOTA:
            return self._of_limit(session, BY_QUOTA[reason])
        if reason in PARAMETERS:
            name = PARAMETERS[reason]
            value = getattr(session.params, name)
            return self._of_listener(session, name, str(getattr(value, "value", value)))
        return None

    def _of_limit(self, session: Account, name: str) -> Rule:
        number = session.question.listener
        place = self._policy.declared_at("start_esmtp_listener", number)
        listen = self._policy.config.listeners[number].listen
        return _rule("limits", self._line_of(place, name), value=name, listener=listen, text="it is used up now")

    def _of_handler(self, step: Step) -> Rule | None:
        """The handler that gave a verdict or failed."""
        for asked in reversed(step.asked):
            if asked.answer.failed:
                try:
                    asked.answer.result()
                except Rejected as rejected:
                    return _rule("verdict", _split(rejected.place) or _handler(asked), event=asked.event)
                except PolicyError as error:
                    place = self._place_in(str(error)) or _handler(asked)
                    return _rule("error", place, event=asked.event, text=str(error))
        return None

    def _place_in(self, text: str) -> tuple[str, int] | None:
        """The first file and line that an error of Lua names; of a long path Lua tells the end alone."""
        found = re.search(r"([^\s:]+):(\d+): ", text)
        if found is None:
            return None
        ends_in = found[1].removeprefix("...")
        return next((path for path in self._policy.source.files if path.endswith(ends_in)), found[1]), int(found[2])

    def _of_handlers(self, event: str, text: str) -> Rule:
        handlers = self._policy.handlers_of(event)
        if not handlers:
            return _rule(event, (self._policy.source.path, 0), event=event, text=f"the policy has no {event}")
        return _rule(event, (handlers[0].file, handlers[0].line), event=event, text=text)

    def _of_listener(self, session: Account, name: str, value: str, **more: object) -> Rule:
        number = session.question.listener
        listen = self._policy.config.listeners[number].listen
        for asked in session.notes.asked:
            computed = asked.event == events.DYNAMIC_PARAMETERS and not asked.answer.failed and asked.answer.result()
            if isinstance(computed, Block) and getattr(session.declared, name) != getattr(session.params, name):
                return _rule(name, _handler(asked), value=value, listener=listen, event=asked.event, **more)
        place = self._policy.declared_at("start_esmtp_listener", number)
        return _rule(name, self._line_of(place, value), value=value, listener=listen, **more)

    def _line_of(self, place: tuple[str, int], value: str) -> tuple[str, int]:
        """The line of a declaration that spells a value out, as far as that can be seen."""
        file, line = place
        text = (self._policy.source.files.get(file) or b"").decode("utf-8", "replace").splitlines()
        for number in range(line, min(len(text), line + 200) + 1):
            if number > line and re.search(r"\bkumo\.", text[number - 1]):
                break
            if re.search(rf"(?<![\w./:]){re.escape(value)}(?![\w./:])", text[number - 1]):
                return file, number
        return place

    # -- the decision -------------------------------------------------------------------------------------------------

    def _of_decision(self, session: Account, recipient: Recipient) -> Rule:
        peer = session.endpoints.peer
        relay_host = peer in session.params.relay_hosts
        to, of_sender = _looked_up(recipient, relay_host)
        granted, granted_to_sender = _result(to), _result(of_sender)
        match ground(relay_host, peer, granted, granted_to_sender):
            case Ground.RELAY_HOSTS:
                cidr = prefix_of(session.params.relay_hosts, peer)
                return self._of_listener(session, "relay_hosts", str(cidr), cidr=cidr)
            case Ground.RELAY_TO:
                return self._granted_by("relay_to", to, value=True)
            case Ground.RELAY_FROM:
                assert granted_to_sender is not None
                cidr = prefix_of(granted_to_sender.relay_from, peer)
                return self._granted_by("relay_from", of_sender, value=cidr, cidr=cidr)
            case Ground.REPORTS:
                assert granted is not None
                kinds = {name: getattr(granted, name).value for name in ("log_oob", "log_arf")}
                kinds = {name: value for name, value in kinds.items() if value != "Ignore"}
                return self._granted_by(" and ".join(kinds), to, value=", ".join(kinds.values()))
        return self._nothing(session, recipient, to, of_sender)

    def _granted_by(self, what: str, asked: Asked | None, **more: object) -> Rule:
        assert asked is not None
        domain = str(asked.arguments[0])
        table, *names = asked.found or (None,)
        if isinstance(table, DomainTable) and (named := table.name_of(*map(str, names))) is not None:
            place = self._place_in_files(table, *named) or _handler(asked)
            return _rule(what, place, domain=domain, event=asked.event, entry=named[1], **more)
        return _rule(what, asked.made_at or _handler(asked), domain=domain, event=asked.event, **more)

    def _place_in_files(self, table: DomainTable, listener: str, name: str) -> tuple[str, int] | None:
        """Where an entry of listener domains stands: the last of its files that names it, or the policy's own."""
        texts = {}
        for file in reversed(table.files):
            with suppress(OSError, UnicodeDecodeError):  # it is away since
                texts[file] = Path(file).read_text()
        own = ((file, text or b"") for file, text in self._policy.source.files.items())
        texts |= {file: text.decode("utf-8", "replace") for file, text in own}
        for file, text in texts.items():
            if name in text:
                return file, Text(file, text).line_of(Parameters(listener, name))
        return None

    def _nothing(self, session: Account, recipient: Recipient, to: Asked | None, of_sender: Asked | None) -> Rule:
        """Nobody granted anything: where that could have been done."""
        address, sender = parse_mailbox(recipient.address), parse_address(session.question.sender)
        text = because(Ground.NOTHING, address, _result(to), sender, _result(of_sender))
        for asked in (to, of_sender):
            if _result(asked) is not None:  # something is granted there, but not this
                return self._granted_by("nothing", asked, text=text)
        handlers = self._policy.handlers_of(events.LISTENER_DOMAIN)
        if handlers:
            return _rule("nothing", (handlers[0].file, handlers[0].line), text=text)
        place = self._policy.declared_at("start_esmtp_listener", session.question.listener)
        return _rule("nothing", place, text=f"{text}; the policy has no get_listener_domain")


def _looked_up(recipient: Recipient, relay_host: bool) -> tuple[Asked | None, Asked | None]:
    """The questions about the recipient's and the sender's domain, of those that a RCPT led to."""
    granted = recipient.granted.copy()
    to = granted.pop(0) if granted else None
    if granted and to is not None and to.arguments[0] == "" and not grants_anybody(_result(to)):
        to = granted.pop(0)  # <Postmaster> is the listener's
    of_sender = granted.pop(0) if granted and sender_matters(relay_host, _result(to)) else None
    return to, of_sender


def _result(asked: Asked | None) -> ListenerDomain | None:
    granted: ListenerDomain | None = None if asked is None or asked.answer.failed else asked.answer.result()
    return granted


def _handler(asked: Asked) -> tuple[str, int]:
    return (asked.handlers[0].file, asked.handlers[0].line) if asked.handlers else ("?", 0)


def _split(place: str) -> tuple[str, int] | None:
    """FILE:LINE as two."""
    file, _, line = place.rpartition(":")
    return (file, int(line)) if line.isdigit() and file != "?" else None


def _rule(what: str, place: tuple[str, int], **more: object) -> Rule:
    return {"what": what, "file": place[0], "line": place[1], **more}
