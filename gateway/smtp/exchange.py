"""Exchange: one mail transaction with a server as the client sees it, what is asked and what was answered to each.

Values and their reading only: gateway/smtp/client.py conducts it, gateway/couriers/fleet/outcome.py works out what it
means for each recipient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway._fastpath import Content, content_of
from gateway.smtp.address import EnvelopeAddress
from gateway.smtp.client_values import Stage
from gateway.smtp.requests import Requests
from gateway.smtp.response import Answer

# Octets of content that are sent before it is known whether the recipient will be refused. What is sent in vain then
# takes the network about as long as the round trip that it saves otherwise: 64 KiB are half a millisecond at 1 Gbit/s.
MOST_UNASKED = 65_536

END_OF_DATA = b".\r\n"
_NOTHING = content_of(b"")
_MAIL, _RCPT, _DATA, _END_OF_DATA = Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END_OF_DATA


class Exchange:
    """MAIL, a RCPT for each recipient, DATA and the content; or BDAT in the place of the last two.

    recipients: at least one. smtputf8: the message needs SMTPUTF8 (RFC 6531). divisible: the content goes to those who
    are accepted though others are deferred.
    requests: what its client has asked for besides, None for nothing; left_out: what the
    server would have to know to pass all of that on, and does not.
    verdicts: in LMTP, the answers to the final dot so far, of those who were accepted; None in SMTP.
    mail, data, verdict: the answers to MAIL, to DATA, and to the final dot or BDAT; None while there is none. rcpts:
    the answers to RCPT so far, in the recipients' order. They stay when the connection ends: what was answered counts.
    accepted: recipients answered with 2xx. deferred: some were answered with 4xx. postponed: the places of those that
    were too many, behind an accepted one: they belong into another transaction (RFC 5321 §4.5.3.1.10). chunked: the
    content goes with the envelope, in one BDAT. content_sent: the end of the content may be on its way, to a server
    that may take it.
    """

    def __init__(
        self,
        sender: EnvelopeAddress,
        recipients: Sequence[EnvelopeAddress],
        content: Content,
        smtputf8: bool = False,
        divisible: bool = False,
        requests: Requests | None = None,
    ) -> None:
        self.sender = sender
        self.recipients = recipients
        self.content = content
        self.smtputf8 = smtputf8
        self.divisible = divisible
        self.requests = requests
        self.left_out = 0
        self.mail: Answer | None = None
        self.rcpts: list[Answer] = []
        self.data: Answer | None = None
        self.verdict: Answer | None = None
        self.verdicts: list[Answer] | None = None
        self.accepted = 0
        self.deferred = False
        self.postponed: tuple[int, ...] = ()
        self.chunked = False
        self.content_sent = False

    def mail_parameters(self, capabilities: int) -> str:
        """What is passed on of its client's requests with MAIL. capabilities: of the server."""
        if self.requests is None:
            return ""
        self.left_out = self.requests.wanted() & ~capabilities
        return self.requests.mail_parameters(capabilities)

    def rcpt_commands(self, capabilities: int) -> list[str]:
        """RCPT for each recipient."""
        if self.requests is None:
            return [f"RCPT TO:<{recipient.email}>\r\n" for recipient in self.recipients]
        return [
            f"RCPT TO:<{recipient.email}>{self.requests.rcpt_parameters(recipient, capabilities)}\r\n"
            for recipient in self.recipients
        ]

    def due(self) -> Stage:
        """What the next answer will be an answer to."""
        if self.mail is None:
            return _MAIL
        if len(self.rcpts) < len(self.recipients):
            return _RCPT
        return _END_OF_DATA if self.chunked or self.content.binary or self.data is not None else _DATA

    def taken(self) -> bool:
        """True when the server took the content."""
        if self.verdict is None or not self.content_sent:
            return False
        code = self.verdict[0]
        return code // 100 == 2

    def last_code(self) -> int:
        """The code of the last answer that there is; 0 before the first."""
        answers = [self.mail, *self.rcpts, self.data, self.verdict]
        return next((answer[0] for answer in reversed(answers) if answer is not None), 0)

    def let_go(self) -> None:
        """It is over and judged: the content is not kept for a connection that waits for the next one."""
        self.content = _NOTHING

    def content_may_follow(self) -> bool:
        """True when the answers to MAIL and RCPT do not speak against sending the content."""
        if self.mail is None or self.accepted == 0 or (self.deferred and not self.divisible):
            return False
        code = self.mail[0]
        return code // 100 == 2

    def fits_one_chunk(self) -> bool:
        """True when the content may go out as one BDAT together with MAIL and RCPT: RFC 3030, RFC 2920.

        Only to a single recipient: with more, the answer to one has to be able to hold the content back from all.
        BDAT knows no dot-stuffing (RFC 3030 §2), so only where there is none.
        """
        content = self.content
        return len(self.recipients) == 1 and not content.stuffed and not content.binary and content.size <= MOST_UNASKED


def in_pieces(content: Content) -> Iterator[tuple[bytes, bool]]:
    """A large content as it is sent, and whether that was its end: after DATA the final dot, else its last octets."""
    if not content.binary:
        for piece in content.pieces():
            yield piece, False
        yield END_OF_DATA, True
        return
    ahead = b""
    for piece in content.plain_pieces():
        if ahead:
            yield ahead, False
        ahead = piece
    yield ahead, True
