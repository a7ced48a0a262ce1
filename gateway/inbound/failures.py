"""What goes wrong on the way to an answer: which reply it is, and what the record of the refusal says of it.

Nothing is sent, counted or recorded here.
"""

from __future__ import annotations

import logging

from gateway.delivery.transaction import TransactionRefused
from gateway.policy.engine import PolicyError, Rejected
from gateway.smtp import replies
from gateway.smtp.events import AuthRequested, Event
from gateway.smtp.replies import Reason, Reply

log = logging.getLogger(__name__)


def reply_to(error: Exception, event: Event) -> Reply:
    """What the client is told. event: what it waits for."""
    if isinstance(error, Rejected):
        return replies.make(error.code, error.text, Reason.POLICY_REJECT, closes=error.closes)
    if isinstance(error, PolicyError):
        return replies.POLICY_FAILED
    if isinstance(error, TransactionRefused):
        return error.reply
    # our own fault: the client may try again, the operator gets the traceback
    log.error("internal error in %s", type(event).__name__, exc_info=error)
    return replies.INTERNAL


def words_for(error: Exception, event: Event) -> dict[str, str] | None:
    """What is kept besides the reply: the rule that refuses, or what failed, and what must not stand there."""
    if isinstance(error, Rejected):
        words = {"rule": error.place}
    elif isinstance(error, PolicyError):
        words = {"error": str(error)}
    else:
        return None
    if isinstance(event, AuthRequested):
        words["secret"] = event.password
    return words
