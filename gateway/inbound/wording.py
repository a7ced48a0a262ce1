"""What becomes of a reply that the policy may word otherwise: smtp_server_rewrite_response.

Only words, and which refusal a refusal is. What a reply means to the client is settled when it is made.
"""

from __future__ import annotations

import logging

from gateway.inbound.refusals import shown_command
from gateway.later import Waits
from gateway.logs.records import redacted
from gateway.policy import events
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy, PolicyError, Rejected
from gateway.smtp import replies
from gateway.smtp.events import ReplyMade
from gateway.smtp.rewriting import RewritingSession

log = logging.getLogger(__name__)


def release(made: ReplyMade, session: RewritingSession, policy: Policy, conn: ConnMeta) -> Waits:
    """Sends the reply as the policy words it."""
    session.release((yield from worded(made, policy, conn)))


def worded(made: ReplyMade, policy: Policy, conn: ConnMeta) -> Waits:
    """Asks the policy. Returns the reply to send: the one that was made, where the handler fails or wants another
    meaning. Raises nothing.
    """
    reply = made.reply
    command = redacted(shown_command(made.verb, made.argument))
    try:
        code, text = yield policy.rewrite_response(reply.code, replies.spoken(reply), command, conn)
        if code is not None or text is not None:
            return replies.reworded(reply, code, text)
    except ValueError as error:
        policy.cannot(events.REWRITE_RESPONSE, str(error))
    except Rejected:
        policy.cannot(events.REWRITE_RESPONSE, "kumo.reject has no effect there")
    except PolicyError:
        pass  # that is told already
    except Exception:
        log.exception("internal error in the wording of a reply")
    return reply
