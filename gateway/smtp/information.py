"""NOOP, VRFY and HELP: what a client is told outside of any transaction. Octets in, replies out; no state."""

from __future__ import annotations

from gateway import _fastpath as fp
from gateway.smtp import replies
from gateway.smtp.commands import Refused, parse_text
from gateway.smtp.replies import Reply
from gateway.smtp.terms import Terms

_ANSWERS = {fp.NOOP: replies.NOOP_OK, fp.VRFY: replies.CANNOT_VERIFY, fp.HELP: replies.HELP}


def answer(verb: int, argument: bytes, terms: Terms) -> Reply:
    """What a command gets. Raises Refused."""
    if verb == fp.VRFY and terms.params.disable_vrfy:  # RFC 5321 §7.3
        raise Refused(replies.NOT_IMPLEMENTED)
    if not parse_text(argument) and verb == fp.VRFY:  # RFC 5321 §4.1.1.9: NOOP's is ignored
        raise Refused(replies.SYNTAX)
    return _ANSWERS[verb]
