"""From answers to outcomes: what a transaction means for each of its recipients. Pure functions.

The rules, in the order in which they apply (gateway/smtp/client.py keeps to them when it decides on the content):
- MAIL refused: every recipient gets that answer.
- One RCPT deferred (4xx): nothing was sent to anyone, and everyone is TRANSIENT, so that the whole message can be tried
  again without reaching anybody twice.
- A RCPT refused (5xx): PERMANENT for that recipient, whatever becomes of the others.
- DATA or the content refused: that answer for all recipients that had been accepted.
- The upstream lost after the final dot, or a content in one chunk with the envelope, may have left: UNKNOWN for those
  that had not been refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from gateway.handover import Batch, RecipientOutcome, Status
from gateway.smtp import replies
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.client import END_OF_DATA, ClientSession
from gateway.smtp.client_values import Failure, Transaction
from gateway.smtp.replies import Reason, Reply
from gateway.smtp.response import Answer, Response, response_to

_DOT = END_OF_DATA.decode()
_DELIVERED = Status.DELIVERED  # CPython 3.11 takes its time to find a member in its enum
_FAILED_WITH = {
    Failure.TIMEOUT: replies.UPSTREAM_TIMEOUT,
    Failure.LOST: replies.UPSTREAM_LOST,
    Failure.PROTOCOL: replies.UPSTREAM_PROTOCOL,
}


def unsendable(batch: Batch, session: ClientSession) -> list[RecipientOutcome] | None:
    """The outcomes where the server has already said that it cannot take the message; else None."""
    if batch.smtputf8 and "SMTPUTF8" not in session.extensions:  # RFC 6531 §3.2
        return same_for_all(batch.recipients, Status.PERMANENT, replies.UPSTREAM_WITHOUT_SMTPUTF8)
    if 0 < session.size_limit < batch.content.size:  # RFC 1870 §6.1
        return same_for_all(batch.recipients, Status.PERMANENT, replies.UPSTREAM_TOO_BIG)
    return None


def same_for_all(recipients: Iterable[EnvelopeAddress], status: Status, reply: Reply) -> list[RecipientOutcome]:
    """The same outcome for everyone, in the gateway's own words."""
    response = Response.from_reply(reply)
    return [RecipientOutcome(recipient, status, response, reply.reason) for recipient in recipients]


def failure_reply(session: ClientSession) -> Reply:
    """What a failed connection means for the message it was meant to carry."""
    if session.transaction is None or session.failure is None:
        return replies.UPSTREAM_UNREACHABLE
    return _FAILED_WITH.get(session.failure, replies.UPSTREAM_UNREACHABLE)


def concluded(transaction: Transaction) -> list[RecipientOutcome]:
    """The outcomes of a transaction that got all its answers."""
    answers = transaction.answers
    recipients = transaction.recipients
    if answers[0][0] // 100 != 2:
        verdict = _refusal(answers[0], f"MAIL FROM:<{transaction.sender.email}>\r\n")
        return [RecipientOutcome(recipient, *verdict) for recipient in recipients]
    if transaction.deferred:
        return _deferred(transaction)
    sent = transaction.chunked or len(answers) == len(recipients) + 3
    return _with_verdict(transaction, _verdict(answers[-1], _last_command(transaction) if sent else "DATA\r\n"))


def unknown(transaction: Transaction) -> list[RecipientOutcome]:
    """The outcomes of a transaction whose upstream was lost when it may have had the whole message. RFC 1047."""
    reply = replies.OUTCOME_UNKNOWN
    response = Response(reply.code, reply.enhanced, reply.text, _last_command(transaction))
    return _with_verdict(transaction, (Status.UNKNOWN, response, reply.reason))


def _last_command(transaction: Transaction) -> str:
    """What the answer to the content is an answer to."""
    return f"BDAT {transaction.content.size} LAST\r\n" if transaction.chunked else _DOT


_Verdict: TypeAlias = "tuple[Status, Response, Reason | None]"


def _with_verdict(transaction: Transaction, verdict: _Verdict) -> list[RecipientOutcome]:
    """Their own answer for the refused recipients, the verdict for the others: no answer has come from a server that
    was lost with a chunk.
    """
    outcomes = []
    answers = transaction.answers
    for place, recipient in enumerate(transaction.recipients, 1):
        status, response, reason = verdict
        if place < len(answers) and answers[place][0] // 100 != 2:
            status, response, reason = _rcpt_refusal(recipient, answers[place])
        outcomes.append(RecipientOutcome(recipient, status, response, reason))
    return outcomes


def _deferred(transaction: Transaction) -> list[RecipientOutcome]:
    not_sent = Response.from_reply(replies.UPSTREAM_NOT_SENT)
    result = []
    for recipient, answer in zip(transaction.recipients, transaction.answers[1:], strict=False):  # the rest is DATA's
        response = not_sent
        if answer[0] // 100 == 4:
            response = _rcpt_refusal(recipient, answer)[1]
        elif answer[0] // 100 == 5:  # will be said again when the message is; until then it is no bounce
            refused = response_to(None, answer)
            own_words = f"{refused.code} {refused.enhanced} {refused.content}".replace("  ", " ")
            response = Response(not_sent.code, not_sent.enhanced, f"{not_sent.content} (this one was: {own_words})")
        result.append(RecipientOutcome(recipient, Status.TRANSIENT, response, Reason.UPSTREAM_DEFERRED))
    return result


def _rcpt_refusal(recipient: EnvelopeAddress, answer: Answer) -> _Verdict:
    return _refusal(answer, f"RCPT TO:<{recipient.email}>\r\n")


def _verdict(answer: Answer, command: str) -> _Verdict:
    if answer[0] // 100 == 2:
        return _DELIVERED, response_to(command, answer), None
    return _refusal(answer, command)


def _refusal(answer: Answer, command: str) -> _Verdict:
    response = response_to(command, answer)
    if answer[0] // 100 == 5:
        return Status.PERMANENT, response, Reason.UPSTREAM_REFUSED
    return Status.TRANSIENT, response, Reason.UPSTREAM_DEFERRED
