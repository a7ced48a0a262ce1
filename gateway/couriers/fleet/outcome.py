"""From answers to outcomes: what an exchange means for each of its recipients. Pure functions.

The rules, in the order in which they apply (gateway/smtp/client.py keeps to them when it decides on the content):
- MAIL refused: every recipient gets that answer.
- One RCPT deferred (4xx): nothing was sent to anyone, and everyone is TRANSIENT, so that the whole message can be tried
  again without reaching anybody twice; but for a batch that is divisible, where it is TRANSIENT for that recipient.
- A RCPT refused (5xx): PERMANENT for that recipient, whatever becomes of the others.
- A RCPT refused only because the transaction has too many: no outcome; it belongs into another transaction.
- DATA or the content refused: that answer for all recipients that had been accepted.
- The upstream lost after the final dot, or a content in one chunk with the envelope, may have left: UNKNOWN for those
  that had not been refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from gateway.handover import RecipientOutcome, Status
from gateway.smtp import replies
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.client import ClientSession
from gateway.smtp.client_values import Failure
from gateway.smtp.exchange import END_OF_DATA, Exchange
from gateway.smtp.replies import Reason, Reply
from gateway.smtp.response import Answer, Response, response_to

Outcomes: TypeAlias = "list[RecipientOutcome | None]"  # of an exchange's recipients; None: ask again elsewhere

_DOT = END_OF_DATA.decode()
_DELIVERED = Status.DELIVERED  # CPython 3.11 takes its time to find a member in its enum
_FAILED_WITH = {
    Failure.TIMEOUT: replies.UPSTREAM_TIMEOUT,
    Failure.LOST: replies.UPSTREAM_LOST,
    Failure.PROTOCOL: replies.UPSTREAM_PROTOCOL,
}


def same_for_all(recipients: Iterable[EnvelopeAddress], reply: Reply) -> list[RecipientOutcome]:
    """The same outcome for everyone, in the gateway's own words: PERMANENT or TRANSIENT by the reply's code."""
    status = Status.PERMANENT if reply.code // 100 == 5 else Status.TRANSIENT
    response = Response.from_reply(reply)
    return [RecipientOutcome(recipient, status, response, reply.reason) for recipient in recipients]


def failure_reply(session: ClientSession) -> Reply:
    """What a failed connection means for the message it was meant to carry."""
    if session.exchange is None or session.failure is None:
        return replies.UPSTREAM_UNREACHABLE
    return _FAILED_WITH.get(session.failure, replies.UPSTREAM_UNREACHABLE)


def concluded(exchange: Exchange) -> Outcomes:
    """The outcomes of an exchange that got all its answers."""
    mail = exchange.mail
    assert mail is not None
    code = mail[0]
    if code // 100 != 2:
        return _mail_refused(exchange, mail)
    if exchange.deferred and not exchange.divisible:
        return _deferred(exchange)
    if exchange.verdicts is not None:
        return _each_by_its_own(exchange, None)
    if exchange.verdict is not None:
        return _with_verdict(exchange, _verdict(exchange.verdict, _last_command(exchange)))
    if exchange.data is not None:
        return _with_verdict(exchange, _verdict(exchange.data, "DATA\r\n"))
    return _with_verdict(exchange, None)  # without PIPELINING nothing more was asked


def judged(exchange: Exchange) -> Outcomes | None:
    """The outcomes of an exchange that was cut short before its content was sent, where the answers that had come
    settle it for every recipient: no other server is asked to walk around them (RFC 5321 §4.2.1). Else None.
    """
    mail = exchange.mail
    if mail is not None and mail[0] // 100 != 2:
        return _mail_refused(exchange, mail)
    rcpts = exchange.rcpts
    if len(rcpts) < len(exchange.recipients) or any([answer[0] // 100 != 5 for answer in rcpts]):
        return None
    return _with_verdict(exchange, None)


def unknown(exchange: Exchange) -> Outcomes:
    """The outcomes of an exchange whose upstream was lost when it may have had the whole message. RFC 1047."""
    reply = replies.OUTCOME_UNKNOWN
    response = Response(reply.code, reply.enhanced, reply.text, _last_command(exchange))
    return _each_by_its_own(exchange, (Status.UNKNOWN, response, reply.reason))


def _each_by_its_own(exchange: Exchange, verdict: _Verdict | None) -> Outcomes:
    """In LMTP those who were accepted have an answer each (RFC 2033 §4.2); the verdict is for whom none has come."""
    outcomes = _with_verdict(exchange, verdict)
    accepted = [place for place, answer in enumerate(exchange.rcpts) if answer[0] // 100 == 2]
    for place, answer in zip(accepted, exchange.verdicts or (), strict=False):
        outcomes[place] = RecipientOutcome(exchange.recipients[place], *_verdict(answer, _DOT))
    return outcomes


def _last_command(exchange: Exchange) -> str:
    """What the answer to the content is an answer to."""
    return f"BDAT {exchange.content.size} LAST\r\n" if exchange.chunked or exchange.content.binary else _DOT


_Verdict: TypeAlias = "tuple[Status, Response, Reason | None]"


def _mail_refused(exchange: Exchange, mail: Answer) -> Outcomes:
    verdict = _refusal(mail, f"MAIL FROM:<{exchange.sender.email}>\r\n")
    return [RecipientOutcome(recipient, *verdict) for recipient in exchange.recipients]


def _with_verdict(exchange: Exchange, verdict: _Verdict | None) -> Outcomes:
    """Their own answer for the refused recipients, the verdict for the others: no answer has come from a server that
    was lost with a chunk.
    """
    outcomes: Outcomes = []
    rcpts = exchange.rcpts
    for place, recipient in enumerate(exchange.recipients):
        own = verdict
        if place < len(rcpts):
            code = rcpts[place][0]
            if code // 100 != 2:
                own = None if place in exchange.postponed else _rcpt_refusal(recipient, rcpts[place])
        if own is None:
            outcomes.append(None)
        else:
            status, response, reason = own
            outcomes.append(RecipientOutcome(recipient, status, response, reason))
    return outcomes


def _deferred(exchange: Exchange) -> Outcomes:
    not_sent = Response.from_reply(replies.UPSTREAM_NOT_SENT)
    result: Outcomes = []
    for recipient, answer in zip(exchange.recipients, exchange.rcpts, strict=True):
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
    code = answer[0]
    if code // 100 == 2:
        return _DELIVERED, response_to(command, answer), None
    return _refusal(answer, command)


def _refusal(answer: Answer, command: str) -> _Verdict:
    response = response_to(command, answer)
    if answer[0] // 100 == 5:
        return Status.PERMANENT, response, Reason.UPSTREAM_REFUSED
    return Status.TRANSIENT, response, Reason.UPSTREAM_DEFERRED
