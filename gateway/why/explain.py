"""An explanation as a value that JSON can hold: the reply, its reason and rule, what was asked, and what would have to
differ. docs/why.md lists the keys. Putting it into words is prose.py's business.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.config import Destination
from gateway.handover import Batch
from gateway.later import Waits
from gateway.logs.encoding import Record
from gateway.policy import events
from gateway.policy.problems import PolicyError, Rejected
from gateway.smtp.replies import Reply
from gateway.tracing.words import destination_of
from gateway.why.conversation import Account, Desk, Question, Recipient, Step
from gateway.why.differ import Proposal, proposals
from gateway.why.limits import limits_of
from gateway.why.rules import Rules
from gateway.why.shown import shown_arguments, shown_reads, shown_result
from gateway.why.watched import Asked

Explanation = dict[str, Any]

_KEPT = (events.LISTENER_DOMAIN, events.QUEUE_CONFIG, events.EGRESS_PATH)  # whose answers are, for others and later


def explain(desk: Desk, question: Question) -> Waits:
    """The steps towards an Explanation."""
    session: Account = yield from desk.ask(question)
    rules = Rules(desk.policy)
    listed = desk.policy.config.listeners[question.listener]
    decisive, limits = session.decisive, limits_of(desk, session)
    explanation: Explanation = {
        "policy": desk.policy.source.path,
        "answered_by": "relay-gateway explain",
        "epoch": None,
        "question": _question(question, listed.listen),
        "accepted": session.accepted,
        "outcome": outcome_of(session),
        "reply": _reply(decisive.reply),
        "reason": _reason(decisive.reply),
        "stage": decisive.stage,
        "rule": rules.of_session(session),
        "limits": limits,
        "recipients": [_recipient(recipient, rules, session) for recipient in session.recipients],
        "events": [_event(asked) for asked in session.notes.asked if asked.handlers],
        "dialogue": [_step(step) for step in session.steps],
        "destinations": [_destination(batch, destination) for batch, destination in session.taken],
        "records": [_record(record, directories) for record, directories in session.kept],
    }
    found, complete = yield from proposals(desk, session)
    explanation["differ"] = [_proposal(proposal) for proposal in found]
    explanation["complete"] = complete
    return explanation


def _question(question: Question, listen: str) -> dict[str, Any]:
    return {
        "from": question.sender,
        "to": list(question.recipients),
        "peer": _with_port(*question.peer),
        "listener": listen,
        "local": _with_port(*question.local),
        "auth": question.auth,
        "tls": question.tls or question.auth is not None,
        "ehlo": question.ehlo,
        "meta": dict(question.meta),
        "message": question.message_name,
    }


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def outcome_of(session: Account) -> str:
    """What becomes of the message, or of that part of it that is taken."""
    if session.steps[-1].command != "(message)" or session.steps[-1].reply.code >= 400:
        return "refused"
    if session.taken:
        return "relayed"
    reported = any(record.type in ("OOB", "Feedback") for record, _ in session.kept)
    return "report_logged" if reported else "discarded"


def _reply(reply: Reply) -> dict[str, Any]:
    return {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text}


def _reason(reply: Reply) -> str | None:
    return None if reply.reason is None else str(reply.reason)


def _recipient(recipient: Recipient, rules: Rules, session: Account) -> dict[str, Any]:
    reply = recipient.step.reply
    rule = rules.of_recipient(session, recipient)
    return {"to": recipient.address, "reply": _reply(reply), "reason": _reason(reply), "rule": rule}


def _step(step: Step) -> dict[str, Any]:
    return {"command": step.command, "stage": step.stage, "reply": _reply(step.reply)}


def _event(asked: Asked) -> dict[str, Any]:
    result, error = None, None
    if not asked.answer.done:
        error = "it still waits"
    else:
        try:
            result = shown_result(asked.answer.result())
        except Rejected as rejected:
            error = f"kumo.reject or kumo.disconnect: {rejected}"
        except PolicyError as failure:
            error = str(failure)
    first, evaluation = asked.handlers[0], asked.evaluation
    event = {
        "event": asked.event,
        "file": first.file,
        "line": first.line,
        "arguments": shown_arguments(asked.arguments),
        "read": {} if evaluation is None else shown_reads(evaluation),
        "cached": evaluation is None,
        "cacheable": asked.event in _KEPT and (evaluation is None or bool(evaluation.stable)),
        "result": result,
    }
    if asked.made_at is not None:
        event["made_at"] = {"file": asked.made_at[0], "line": asked.made_at[1]}
    return event if error is None else {**event, "error": error}


def _destination(batch: Batch, destination: Destination) -> dict[str, Any]:
    return {"to": [recipient.email for recipient in batch.recipients], **destination_of(destination)}


def _record(record: Record, directories: list[str]) -> dict[str, Any]:
    fields = orjson.loads(record.line())
    return {"type": record.type, "log_dirs": directories, "recipient": fields["recipient"], "queue": fields["queue"]}


def _proposal(proposal: Proposal) -> dict[str, Any]:
    first, *others = ({"what": each.what, "from": each.before, "to": each.after} for each in proposal.changes)
    return {**first, **({"and": others} if others else {}), "reply": _reply(proposal.reply)}
