"""What a server's session asks of its surroundings: the events that ServerSession.next_event() returns; and who sees
what it answers.

Plain values, and no state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway import _fastpath as fp
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.commands import MailCommand, RcptCommand
from gateway.smtp.replies import Reply
from gateway.smtp.xclient import XclientRequested


class GreetingRequested:
    """The client is connected; what greets it is still being asked."""


class EhloRequested:
    """EHLO (or HELO): `extensions` is what is offered, a line each, and may be changed before the answer; None for
    HELO.
    """

    def __init__(self, name: str, extensions: tuple[str, ...] | None) -> None:
        self.name = name
        self.extensions = extensions


class AuthRequested:
    """AUTH with complete credentials. Its repr shows none of them."""

    def __init__(self, authorization: str, authentication: str, password: str) -> None:
        self.authorization = authorization
        self.authentication = authentication
        self.password = password


class ExternalRequested(NamedTuple):
    """AUTH EXTERNAL (RFC 4422 appendix A): the client has shown who it is in the handshake already."""

    identity: str


class TlsRequested:
    """STARTTLS was answered with 220: send what is due, start TLS, then call tls_started()."""


class MessageReceived:
    """A complete message that broke no rule of the session. The transaction is over whatever the answer."""

    def __init__(self, mail: MailCommand, recipients: list[EnvelopeAddress], content: fp.Content) -> None:
        self.mail = mail
        self.recipients = recipients
        self.content = content


class ReplyMade:
    """A reply that somebody may word otherwise before it is sent. verb, argument: as an Observer gets them. kept: what
    the Observer wants to have with it then.
    """

    def __init__(self, verb: int, reply: Reply, argument: bytes, kept: Any) -> None:
        self.verb = verb
        self.reply = reply
        self.argument = argument
        self.kept = kept


class Observer:
    """Sees every reply before it is sent. This one does nothing with it."""

    def replied(self, verb: int, reply: Reply, argument: bytes) -> None:
        """verb: an index into VERB_NAMES, NO_COMMAND or END_OF_DATA. argument: the command's, without any AUTH data."""

    def held(self, verb: int, reply: Reply, argument: bytes) -> Any:
        """The reply is made, but sent later, and may have other words then. Returns what released() needs to know."""

    def released(self, verb: int, reply: Reply, argument: bytes, kept: Any) -> None:
        """A reply that was held is sent. kept: what held() returned."""


# A MAIL or RCPT with an acceptable path and parameters is its own event.
Event = (
    GreetingRequested
    | EhloRequested
    | AuthRequested
    | TlsRequested
    | MailCommand
    | RcptCommand
    | MessageReceived
    | ReplyMade
    | XclientRequested
    | ExternalRequested
)
