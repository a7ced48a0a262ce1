"""What the forms have in common: recipient groups, as RFC 3464 §2.3 has them, of what a text says."""

from gateway.reports.replies import QuotedReply, first_reply

MAX_RECIPIENTS = 1000  # that are read out of a text
MAX_REASON = 1000  # characters of a text that stand for a diagnostic

Group = dict[str, str]


def recipient_group(address: str | None, reply: QuotedReply | None, words: str = "") -> Group:
    """A failed recipient: the reply that tells why becomes its diagnostic, or `words` where it has no code."""
    group = {"final-recipient": f"rfc822; {address}"} if address else {}
    group["action"] = "failed"
    if reply is not None and reply.enhanced:
        group["status"] = reply.enhanced
    if reply is not None and reply.code is not None:
        group["diagnostic-code"] = f"smtp; {_written(reply)}"
    elif words:
        group["diagnostic-code"] = f"smtp; {words}"
    return group


def group_of_text(address: str | None, text: str) -> Group:
    """A failed recipient, and all that a text says of it."""
    return recipient_group(address, first_reply(text), " ".join(text.split())[:MAX_REASON])


def _written(reply: QuotedReply) -> str:
    enhanced = "" if not reply.enhanced or reply.enhanced in reply.text else f"{reply.enhanced} "
    return f"{reply.code} {enhanced}{reply.text}".strip()
