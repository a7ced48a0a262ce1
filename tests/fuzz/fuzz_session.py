"""What a client says in its session, contents by DATA and BDAT included: no octets make it fail, each command has one
reply, in order, and how the octets are cut into portions makes no difference to replies or contents.

A target of `make fuzz`; the tests run it on a few inputs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

from gateway.config import LineEndings, ListenerParams
from gateway.smtp import replies
from gateway.smtp.conduct import SessionLimits
from gateway.smtp.events import EhloRequested, MessageReceived, Observer, TlsRequested
from gateway.smtp.replies import MAIL_OK, RCPT_OK, Reply
from gateway.smtp.session import ServerSession
from gateway.smtp.terms import Terms

ALLOWING = Terms(
    ListenerParams(
        hostname="gw.example",
        max_message_size=300,
        max_recipients_per_message=2,
        line_length_hard_limit=512,
        invalid_line_endings=LineEndings.ALLOW,
    ),
    offer_auth=True,
)
DENYING = Terms(ListenerParams(hostname="gw.example", max_message_size=300, line_length_hard_limit=512))
LIMITS = SessionLimits(errors=6, invalid_recipients=3, idle_commands=12, auth_failures=2)
WORDS = (
    *(b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n", b"DATA\r\n", b"\r\n.\r\n"),
    *(b"BDAT 3\r\n", b"BDAT 10 LAST\r\n", b"BDAT 0 LAST\r\n", b"BDAT x\r\n", b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n"),
    *(b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n", b"BDAT 5\r\n", b"BDAT 4 LAST\r\n", b"BDAT 0\r\n"),
    *(b"\n.\n", b"\r.\r", b"\r\n..", b"\0", b"STARTTLS\r\n", b"AUTH PLAIN\r\n", b"x" * 600, b"VRFY a\r\n", b"\r\n"),
)


class _Counting(Observer):
    def __init__(self) -> None:
        self.said: list[tuple[int, int]] = []

    def replied(self, verb: int, reply: Reply, argument: bytes) -> None:
        self.said.append((verb, reply.code))


def _answer(event: Any) -> Reply:
    if isinstance(event, EhloRequested):
        if event.extensions is not None:  # as where the whole fleet takes it
            event.extensions = (*event.extensions, "BINARYMIME")
        return replies.ehlo("gw.example", event.name, event.extensions)
    if isinstance(event, MessageReceived):
        return replies.accepted(["1"])
    return RCPT_OK if hasattr(event, "recipient") else MAIL_OK if hasattr(event, "sender") else replies.AUTH_FAILED


def outcome(terms: Terms, parts: Iterable[bytes]) -> tuple[Any, ...]:
    """All replies, as bytes and as an observer gets them, and the contents."""
    observer, contents = _Counting(), []
    session = ServerSession(terms, observer)
    session.limit(LIMITS)
    session.greet(terms.greeting)
    sent = session.data_to_send()
    for part in parts:
        session.receive_data(part)
        while True:
            session.allow(-1)
            event = session.next_event()
            if isinstance(event, TlsRequested):
                session.tls_started()
            elif event is not None:
                if isinstance(event, MessageReceived):
                    found = event.content
                    plain = b"".join(found.plain_pieces())
                    contents.append((b"".join(found.pieces()), found.size, found.unsafe, found.binary, plain))
                session.reply(_answer(event))
            elif session.penalty:  # it stands still, and goes on
                session.penalty = 0.0
            else:
                break
        sent += session.data_to_send()
        assert session.closed or session.buffered() <= len(part) + 13_000
    return sent, observer.said, contents


def check(terms: Terms, octets: bytes, cuts: Iterable[int]) -> None:
    """One dialogue, whole, cut at these places, and octet by octet."""
    places = [0, *sorted(cuts), len(octets)]
    cut = [octets[start:end] for start, end in itertools.pairwise(places) if start < end]
    whole = outcome(terms, [octets])
    sent, said, contents = whole
    codes = [int(code) for code in re.findall(rb"^(\d{3}) ", sent, re.MULTILINE)]
    assert codes == [code for _, code in said]
    for text, *_ in contents:
        assert b"\r\n.\r\n" not in b"\r\n" + text
    if b"STARTTLS" not in octets:  # whose answer depends on what has come behind it
        assert outcome(terms, cut) == whole
        assert outcome(terms, [octets[place : place + 1] for place in range(len(octets))]) == whole


def check_binary(terms: Terms, body: bytes, sizes: Iterable[int], cuts: Iterable[int]) -> None:
    """Octets that are no lines, in chunks of these sizes, arrive as they are, and two contents are two."""
    chunks, at = [], 0
    for size in sizes:
        chunks.append(b"BDAT %d\r\n" % len(body[at : at + size]) + body[at : at + size])
        at += size
    chunks.append(b"BDAT %d LAST\r\n" % len(body[at:]) + body[at:])
    transaction = b"MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<c@d>\r\n" + b"".join(chunks)
    said = b"EHLO x\r\n" + 2 * transaction
    sent, _, contents = outcome(terms, [said])
    assert [(each[1], each[3], each[4]) for each in contents] == [(len(body), True, body)] * 2, (sent, contents)
    assert outcome(terms, [said[start:end] for start, end in itertools.pairwise([0, *sorted(cuts), len(said)])]) == (
        outcome(terms, [said])
    )


def one_input(data: memoryview) -> None:
    """The first octet chooses the terms, whether there is a transaction, and whether it is a binary one, whose content
    the others are; two where it is cut; then octets below 128 stand for words, the others for themselves."""
    octets = bytes(data)
    if len(octets) < 4:
        return
    if octets[0] & 4:
        sizes = octets[1] % 16, octets[2] % 16
        check_binary(DENYING if octets[0] & 1 else ALLOWING, octets[3:250], sizes, [octets[1] % 30, octets[2]])
        return
    begin = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" if octets[0] & 2 else b""
    said = begin + b"".join(WORDS[octet % len(WORDS)] if octet < 128 else bytes((octet - 128,)) for octet in octets[3:])
    check(DENYING if octets[0] & 1 else ALLOWING, said, [octets[1] % len(said), octets[2] * 7 % len(said)])
