"""What a policy makes of a transaction before it becomes messages: smtp_server_data, smtp_server_split_transaction.

Only where the policy has a handler for one of them. What happens to each message afterwards is transaction.py's.
"""

from __future__ import annotations

from gateway.config import BatchHandling
from gateway.delivery.routing import split
from gateway.later import Waits
from gateway.mail.message import Message
from gateway.policy import events
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Policy


def shaped(whole: Message, policy: Policy, conn: ConnMeta, handling: BatchHandling) -> Waits:
    """Lets the policy see and change the whole transaction. Returns which recipients make one message; none is an empty
    group, and there is one at least.

    whole: with all recipients, and no trace header yet.
    """
    if events.DATA in policy.handles:
        yield policy.data(whole, conn)
    groups = None
    if events.SPLIT_TRANSACTION in policy.handles:
        groups = yield policy.split_transaction(whole, conn)
    groups = groups or split(whole.recipients, handling)
    if len(groups) == 1:
        whole.recipients = groups[0].copy()
    return groups
