"""The server's side of a session in memory (gateway/smtp/session.py): any portions of bytes, the order of commands,
limits, DATA, STARTTLS and AUTH.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import _fastpath as fp
from gateway.config import LineEndings, ListenerParams
from gateway.smtp import replies
from gateway.smtp.commands import MailCommand, RcptCommand
from gateway.smtp.events import (
    AuthRequested,
    EhloRequested,
    MessageReceived,
    Observer,
    TlsRequested,
)
from gateway.smtp.replies import Reason, Reply
from gateway.smtp.session import NO_COMMAND, ServerSession
from gateway.smtp.states import END_OF_DATA, TABLE, State
from gateway.smtp.terms import Terms

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@client.example>\r\n"
RCPT = b"RCPT TO:<b@server.example>\r\n"
PLAIN = base64.b64encode(b"\0user\0secret")


def agree(event: Any) -> Reply:
    if isinstance(event, EhloRequested):
        return replies.ehlo("gw.example", event.name, event.extensions)
    if isinstance(event, MessageReceived):
        return replies.accepted(["0"])
    return {MailCommand: replies.MAIL_OK, RcptCommand: replies.RCPT_OK, AuthRequested: replies.AUTH_OK}[type(event)]


class Conversation(Observer):
    """A session with a client that sends what the test says and an other side that answers events with `answer`."""

    def __init__(
        self, *, answer: Callable[[Any], Reply] = agree, tls: bool = False, offer_auth: bool = False, **params: Any
    ) -> None:
        self.answer = answer
        self.events: list[Any] = []
        self.observed: list[tuple[int, Reply, bytes]] = []
        self.sent = b""
        self.secure = True  # STARTTLS is followed by a handshake
        self.session = ServerSession(
            Terms(ListenerParams(hostname="gw.example", **params), offer_auth=offer_auth),
            self,
        )
        if tls:
            self.session.tls_started()

    def replied(self, verb: int, reply: Reply, argument: bytes) -> None:
        self.observed.append((verb, reply, argument))

    def send(self, *portions: bytes) -> list[str]:
        """The first lines' codes of the replies to these portions, with their enhanced codes: "250 2.0.0"."""
        before = len(self.observed)
        for portion in portions:
            self.session.receive_data(portion)
            self.work()
        return [f"{reply.code} {reply.enhanced}".rstrip() for _, reply, _ in self.observed[before:]]

    def work(self) -> None:
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, TlsRequested):
                if not self.secure:
                    return
                self.sent += self.session.data_to_send()
                self.session.tls_started()
            else:
                self.session.reply(self.answer(event))
        self.sent += self.session.data_to_send()

    @property
    def messages(self) -> list[MessageReceived]:
        return [event for event in self.events if isinstance(event, MessageReceived)]


LEADS_TO = {
    State.CONNECTED: b"",
    State.READY: EHLO,
    State.MAIL: EHLO + MAIL,
    State.BARREN: EHLO + MAIL + b"RCPT TO:<nowhere>\r\n",
    State.RCPT: EHLO + MAIL + RCPT,
}


def to_state(state: State, **options: Any) -> Conversation:
    conversation = Conversation(**options)
    conversation.send(LEADS_TO[state])
    assert conversation.session.state == state
    return conversation


# --- any portions give the same replies -------------------------------------------------------------------------------


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


def at_each_crlf(data: bytes) -> list[bytes]:
    return [line + b"\r\n" for line in data.split(b"\r\n")[:-1]]


def at(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


COMMANDS = st.sampled_from(
    [
        EHLO, MAIL, RCPT, b"HELO x\r\n", b"DATA\r\n", b"RSET\r\n", b"NOOP\r\n", b"VRFY a\r\n", b"HELP\r\n", b"QUIT\r\n",
        b"rcpt to: c@server.example  \r\n", b"RCPT TO:<>\r\n", b"MAIL FROM:<> SIZE=100\r\n", b"MAIL FROM:<a@b> X=1\r\n",
        b"\r\n", b"\n\r\n", b"FOO\r\n", b"EXPN x\r\n", b"MAIL\r\n", b"NOOP " + b"x" * 2000 + b"\r\n",
        b"x" * 20_000 + b"\r\n", b"a\x00b\r\n", b"\xff\xfe\r\n", b"AUTH PLAIN\r\n", b"DATA x\r\n",
        EHLO + MAIL + RCPT + b"DATA\r\n", MAIL + RCPT + b"DATA\r\n.\r\n", b".\r\n",
        b"Subject: x\r\n\r\n..dots\r\n.\r\n", b"lone\rCR\r\n.\r\n", b"lone\nLF\r\n.\r\n", b"y" * 1000 + b"\r\n.\r\n",
    ]
)  # fmt: skip
DIALOGUES = st.lists(COMMANDS, min_size=1, max_size=14).map(b"".join)


def trace(portions: Iterable[bytes]) -> tuple[bytes, list[tuple[int, str]], list[bytes]]:
    conversation = Conversation()
    conversation.send(EHLO)
    conversation.send(*portions)
    bodies = [b"".join(message.content.pieces()) for message in conversation.messages]
    return conversation.sent, [(verb, reply.text) for verb, reply, _ in conversation.observed], bodies


@given(DIALOGUES, st.data())
def test_any_portions_of_the_same_bytes_give_the_same_replies(dialogue, data):
    whole = trace([dialogue])
    assert trace(byte_by_byte(dialogue)) == whole
    assert trace(at_each_crlf(dialogue)) == whole
    cuts = data.draw(st.lists(st.integers(0, len(dialogue)), max_size=8))
    assert trace(at(dialogue, cuts)) == whole


@given(DIALOGUES)
def test_answers_that_take_time_keep_the_replies_in_order(dialogue):
    late = Conversation()
    late.send(EHLO)
    late.session.receive_data(dialogue)
    while (event := late.session.next_event()) is not None:
        assert late.session.next_event() is None, "the session stands still until it is answered"
        assert late.session.awaiting is event
        late.session.receive_data(b"")
        assert late.session.next_event() is None
        late.session.reply(agree(event))
    late.sent += late.session.data_to_send()
    assert late.sent == trace([dialogue])[0]


def test_a_hundred_messages_in_one_packet_get_their_replies_in_order():
    one = MAIL + RCPT + b"DATA\r\nSubject: x\r\n\r\ntext\r\n.\r\n"
    conversation = Conversation()
    assert conversation.send(EHLO + one * 100 + b"QUIT\r\n") == [
        "250",
        *(["250 2.1.0", "250 2.1.5", "354", "250 2.0.0"] * 100),
        "221 2.0.0",
    ]


@given(DIALOGUES)
def test_every_reply_has_its_enhanced_code(dialogue):
    conversation = Conversation()
    conversation.send(EHLO, dialogue)
    for _, reply, _ in conversation.observed:
        assert has_the_right_enhanced_code(reply), reply


def has_the_right_enhanced_code(reply: Reply) -> bool:
    """RFC 2034 §4: in all 2xx, 4xx and 5xx but the greeting and the replies to EHLO and HELO."""
    if reply.code // 100 == 3 or (reply.code in (220, 250) and not reply.enhanced):
        return reply.enhanced == ""
    return reply.enhanced.partition(".")[0] == str(reply.code)[0] and reply.enhanced.count(".") == 2


@pytest.mark.parametrize("reply", [value for value in vars(replies).values() if isinstance(value, Reply)], ids=repr)
def test_every_constant_reply_is_well_formed(reply):
    assert has_the_right_enhanced_code(reply)
    assert (reply.reason is None) == (reply.code < 400)
    assert all(len(line) <= 510 for line in reply.wire.split(b"\r\n"))  # RFC 5321 §4.5.3.1.5
    assert reply.wire.isascii()


# --- the order of commands --------------------------------------------------------------------------------------------

# RFC 5321 §4.1.4. What a command gets in each state, and the first letter of the state that it leads to where that is
# another: X is CLOSED.
ORDER = """
              CONNECTED    READY        MAIL         BARREN       RCPT
EHLO x        250        R 250          250        R 250        R 250        R
HELO x        250        R 250          250        R 250        R 250        R
EHLO          501 5.5.4    501 5.5.4    501 5.5.4    501 5.5.4    501 5.5.4
HELO          501 5.5.4    501 5.5.4    501 5.5.4    501 5.5.4    501 5.5.4
MAIL FROM:<>  503 5.5.1    250 2.1.0  M 503 5.5.1    503 5.5.1    503 5.5.1
MAIL FROM:<x> 503 5.5.1    501 5.1.7    503 5.5.1    503 5.5.1    503 5.5.1
RCPT TO:<a@b> 503 5.5.1    503 5.5.1    250 2.1.5  T 250 2.1.5  T 250 2.1.5
RCPT TO:<a>   503 5.5.1    503 5.5.1    501 5.1.3  B 501 5.1.3    501 5.1.3
DATA          503 5.5.1    503 5.5.1    503 5.5.1    554 5.5.1    354        D
RSET          250 2.0.0    250 2.0.0    250 2.0.0  R 250 2.0.0  R 250 2.0.0  R
NOOP          250 2.0.0    250 2.0.0    250 2.0.0    250 2.0.0    250 2.0.0
NOOP any text 250 2.0.0    250 2.0.0    250 2.0.0    250 2.0.0    250 2.0.0
VRFY a        252 2.1.5    252 2.1.5    252 2.1.5    252 2.1.5    252 2.1.5
VRFY          501 5.5.4    501 5.5.4    501 5.5.4    501 5.5.4    501 5.5.4
HELP          214 2.0.0    214 2.0.0    214 2.0.0    214 2.0.0    214 2.0.0
HELP MAIL     214 2.0.0    214 2.0.0    214 2.0.0    214 2.0.0    214 2.0.0
QUIT          221 2.0.0  X 221 2.0.0  X 221 2.0.0  X 221 2.0.0  X 221 2.0.0  X
QUIT now      501 5.5.4    501 5.5.4    501 5.5.4    501 5.5.4    501 5.5.4
RSET x        501 5.5.4    501 5.5.4    501 5.5.4    501 5.5.4    501 5.5.4
DATA x        503 5.5.1    503 5.5.1    503 5.5.1    554 5.5.1    501 5.5.4
STARTTLS      503 5.5.1    220 2.0.0  S 503 5.5.1    503 5.5.1    503 5.5.1
STARTTLS x    503 5.5.1    501 5.5.4    503 5.5.1    503 5.5.1    503 5.5.1
AUTH PLAIN    503 5.5.1    538 5.7.11   503 5.5.1    503 5.5.1    503 5.5.1
EXPN a        502 5.5.1    502 5.5.1    502 5.5.1    502 5.5.1    502 5.5.1
ETRN x.org    502 5.5.1    502 5.5.1    502 5.5.1    502 5.5.1    502 5.5.1
BDAT 0 LAST   503 5.5.1    503 5.5.1    503 5.5.1    554 5.5.1
BDAT 0        503 5.5.1    503 5.5.1    503 5.5.1    554 5.5.1    250 2.0.0  C
XCLIENT a=b   550 5.7.0    550 5.7.0    503 5.5.1    503 5.5.1    503 5.5.1
LHLO x        500 5.5.1    500 5.5.1    500 5.5.1    500 5.5.1    500 5.5.1
GET / HTTP/1  554 5.5.1  X 554 5.5.1  X 554 5.5.1  X 554 5.5.1  X 554 5.5.1  X
"""
LETTERS = dict(zip("KRMBTDASXC", State, strict=True))
ROWS = [
    (line[:13].strip(), state, line[14 + 13 * state :][:10].strip(), LETTERS.get(line[25 + 13 * state :][:1], state))
    for line in ORDER.strip("\n").splitlines()[1:]
    for state in LEADS_TO
    if line[14 + 13 * state :]  # the last chunk in RCPT is a message, and tests/test_chunking.py's
]


@pytest.mark.parametrize(("command", "state", "code", "leads_to"), ROWS)
def test_the_order_of_commands(command, state, code, leads_to):
    conversation = to_state(state, offer_auth=True)
    conversation.secure = False
    assert conversation.send(command.encode() + b"\r\n") == [code]
    assert conversation.session.state == leads_to
    assert conversation.session.closed == (leads_to is State.CLOSED)
    transaction = leads_to in (State.MAIL, State.BARREN, State.RCPT, State.CONTENT, State.CHUNKS)
    assert (conversation.session.mail is not None) == transaction
    assert len(conversation.session.recipients) == (leads_to in (State.RCPT, State.CONTENT, State.CHUNKS)) + (
        command == "RCPT TO:<a@b>" and state is State.RCPT
    )


LINES = (
    b"EHLO client.example",
    b"HELO client.example",
    b"MAIL FROM:<a@b.example> SIZE=10 BODY=8BITMIME",
    b'MAIL FROM:<"a b"@b.example>',
    b"RCPT TO:<c@d.example>",
    b"NOOP some text",
    b"HELP MAIL",
    b"VRFY somebody",
    b"RSET",
    b"QUIT",
    b"STARTTLS",
    b"DATA",
    b"AUTH PLAIN AGEAYg==",
)


@pytest.mark.parametrize("octet", [*range(9), *range(11, 32), 127])
def test_a_control_octet_is_no_part_of_any_command_and_separates_nothing(octet):
    for line in LINES:
        verb = line.split(b" ")[0]
        state = {b"MAIL": State.READY, b"RCPT": State.MAIL, b"DATA": State.RCPT}.get(verb, State.READY)
        for place in range(1, len(line) + 1):
            changed = line[:place] + bytes([octet]) + line[place:]
            conversation = authenticating() if verb == b"AUTH" else to_state(state)
            assert conversation.send(changed + b"\r\n")[0][:2] == "50", changed


# Why it is out of order: what a client, or the one who reads its log, can do about it.
WHY = [
    (State.CONNECTED, b"MAIL FROM:<>", replies.EHLO_FIRST),
    (State.CONNECTED, b"RCPT TO:<a@b>", replies.EHLO_FIRST),
    (State.CONNECTED, b"DATA", replies.EHLO_FIRST),
    (State.CONNECTED, b"STARTTLS", replies.EHLO_FIRST),
    (State.CONNECTED, b"AUTH PLAIN", replies.EHLO_FIRST),
    (State.READY, b"RCPT TO:<a@b>", replies.MAIL_FIRST),
    (State.READY, b"DATA", replies.MAIL_FIRST),
    (State.MAIL, b"DATA", replies.RCPT_FIRST),
    (State.BARREN, b"DATA", replies.NO_RECIPIENTS),
    *((state, b"MAIL FROM:<>", replies.NESTED_MAIL) for state in (State.MAIL, State.BARREN, State.RCPT)),
    *((state, b"STARTTLS", replies.BAD_SEQUENCE) for state in (State.MAIL, State.BARREN, State.RCPT)),
    *((state, b"AUTH PLAIN", replies.BAD_SEQUENCE) for state in (State.MAIL, State.BARREN, State.RCPT)),
    *((state, b"XCLIENT a=b", replies.XCLIENT_DENIED) for state in (State.CONNECTED, State.READY)),
    *((state, b"XCLIENT a=b", replies.BAD_SEQUENCE) for state in (State.MAIL, State.BARREN, State.RCPT)),
    *(
        (state, line, reply)
        for state in LEADS_TO
        for line, reply in (
            (b"EXPN a", replies.NOT_IMPLEMENTED),
            (b"etrn x.example", replies.NOT_IMPLEMENTED),
            (b"TURN", replies.NOT_IMPLEMENTED),
            (b"ETRNS x", replies.UNKNOWN_COMMAND),
            (b"GET / HTTP/1.1", replies.OTHER_PROTOCOL),
            (b"FOO", replies.UNKNOWN_COMMAND),
            (b"x" * 20_000, replies.LINE_TOO_LONG),
            (b"Auth PLAIN " + b"x" * 20_000, replies.AUTH_TOO_LONG),
            (b"AUTHORS " + b"x" * 20_000, replies.LINE_TOO_LONG),
        )
    ),
]


@pytest.mark.parametrize(("state", "line", "reply"), WHY)
def test_what_is_out_of_order_is_told_why(state, line, reply):
    conversation = to_state(state)
    conversation.send(line + b"\r\n")
    assert conversation.observed[-1][1] is reply


def test_every_entry_of_the_table_is_a_row_of_these_tests():
    verbs = {command.partition(" ")[0] for command, _, _, _ in ROWS} | {"UNKNOWN", "LINE_TOO_LONG"}
    assert {fp.VERB_NAMES[verb] for row in TABLE.values() for verb in row if verb < END_OF_DATA} == verbs - {
        "ETRN",
        "LHLO",
        "GET",
    }


def test_what_ends_a_content_ends_the_transaction():
    conversation = to_state(State.RCPT)
    conversation.send(b"DATA\r\n")
    assert conversation.session.state == State.CONTENT
    conversation.send(b"x\r\n.\r\n")
    assert (conversation.session.state, conversation.session.mail) == (State.READY, None)


def test_an_auth_exchange_leads_back_whatever_comes_of_it():
    for line in (b"*", b"AGEAYg==", b"?", b"x" * 20_000):
        conversation = authenticating()
        assert conversation.send(b"AUTH PLAIN\r\n") == ["334"]
        assert conversation.session.state == State.AUTH
        conversation.send(line + b"\r\n")
        assert conversation.session.state == State.READY


@pytest.mark.parametrize("state", [*LEADS_TO, State.CONTENT, State.AUTH, State.TLS, State.CLOSED])
def test_a_session_can_be_ended_in_every_state(state):
    conversation = Conversation(tls=state is State.AUTH, offer_auth=True)
    conversation.secure = False
    last = {
        State.CONTENT: b"DATA\r\n",
        State.AUTH: b"AUTH PLAIN\r\n",
        State.TLS: b"STARTTLS\r\n",
        State.CLOSED: b"QUIT\r\n",
    }
    leads_to = LEADS_TO.get(state) or LEADS_TO[State.RCPT if state is State.CONTENT else State.READY]
    conversation.send(b"" if state is State.CONNECTED else leads_to + last.get(state, b""))
    assert conversation.session.state == state
    conversation.session.close(replies.closing("gw.example", "bye", Reason.SHUTTING_DOWN))
    assert (conversation.session.state, conversation.session.closed) == (State.CLOSED, True)


@pytest.mark.parametrize("command", [b"EHLO again\r\n", b"HELO again\r\n", b"RSET\r\n"])
def test_ehlo_and_rset_end_the_transaction(command):
    conversation = to_state(State.RCPT)
    conversation.send(command)
    assert conversation.session.mail is None
    assert conversation.session.recipients == []
    assert conversation.send(RCPT) == ["503 5.5.1"]


def test_commands_are_known_in_any_case_and_with_blanks_behind():
    conversation = Conversation()
    sent = b"eHlO x \r\nmAiL FrOm:<a@b> \r\nrcpt\tTO:<c@d>\t\r\ndata \r\n.\r\nquit  \r\n"
    assert conversation.send(sent) == ["250", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0", "221 2.0.0"]


def test_data_after_only_refused_recipients_is_554():
    conversation = Conversation(
        answer=lambda event: replies.relay_denied("x:1") if isinstance(event, RcptCommand) else agree(event)
    )
    assert conversation.send(EHLO, MAIL, RCPT, b"DATA\r\n")[-2:] == ["550 5.7.1", "554 5.5.1"]


def test_a_refused_event_changes_nothing():
    refuse = replies.make(450, "later", Reason.POLICY_REJECT)
    conversation = Conversation(answer=lambda event: refuse)
    conversation.send(EHLO)
    assert conversation.session.state == State.CONNECTED
    conversation.answer = agree
    conversation.send(EHLO)
    conversation.answer = lambda event: refuse
    conversation.send(MAIL)
    assert conversation.session.state == State.READY


def test_nothing_is_read_after_quit():
    conversation = Conversation()
    assert conversation.send(EHLO + b"QUIT\r\n" + MAIL) == ["250", "221 2.0.0"]
    assert conversation.session.closed
    assert conversation.session.quit


def test_a_421_ends_the_session():
    conversation = Conversation(answer=lambda event: replies.make(421, "4.3.2 go away", Reason.POLICY_REJECT))
    assert conversation.send(EHLO + MAIL) == ["421 4.3.2"]
    assert conversation.session.closed


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [b"NOOP ", b"MAIL FROM:", b"x", b"EHLO "])
@pytest.mark.parametrize("length", [1000, 5000, 12_290, 100_000])
def test_an_over_long_command_line_is_refused_and_the_session_goes_on(command, length):
    conversation = to_state(State.READY)
    assert conversation.send(command.ljust(length, b"x") + b"\r\n", b"NOOP\r\n") == ["500 5.5.2", "250 2.0.0"]


def test_a_command_line_of_the_limits_length_is_read():
    conversation = to_state(State.READY)
    assert conversation.send(b"NOOP ".ljust(998, b"x") + b"\r\n") == ["250 2.0.0"]


def test_an_announced_size_over_the_limit_is_refused_before_the_data():
    conversation = to_state(State.READY, max_message_size=1000)
    assert conversation.send(b"MAIL FROM:<a@b> SIZE=1001\r\n", b"MAIL FROM:<a@b> SIZE=1000\r\n") == [
        "552 5.3.4",
        "250 2.1.0",
    ]


def test_the_recipient_limit_is_per_message():
    conversation = to_state(State.READY, max_recipients_per_message=2)
    assert conversation.send(MAIL, RCPT * 3) == ["250 2.1.0", "250 2.1.5", "250 2.1.5", "452 4.5.3"]
    assert conversation.send(b"DATA\r\n.\r\n", MAIL, RCPT)[-1] == "250 2.1.5"
    assert len(conversation.messages[0].recipients) == 2


def test_the_message_limit_ends_the_session():
    conversation = to_state(State.READY, max_messages_per_connection=1)
    conversation.send(MAIL + RCPT + b"DATA\r\n.\r\n")
    assert conversation.send(MAIL) == ["421 4.5.3"]
    assert conversation.session.closed


# --- DATA -------------------------------------------------------------------------------------------------------------


def deliver(content: bytes, **params: Any) -> tuple[str, Conversation]:
    """The reply to a content, which is sent with the commands that follow it; these must then work."""
    conversation = to_state(State.RCPT, **params)
    answers = conversation.send(b"DATA\r\n" + content + b"\r\n.\r\n" if content else b"DATA\r\n.\r\n", MAIL, RCPT)
    assert answers[0] == "354"
    assert answers[2:] == ["250 2.1.0", "250 2.1.5"], "the next transaction works"
    return answers[1], conversation


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Subject: x\r\n\r\ntext",
        b"..",
        b"..\r\n...\r\n..x",
        b"\x00\xff",
        b"x" * 998,
        b"a\r\n\r\n\r\nb",
        b".x",
        b"MAIL FROM:<a@b>\r\nQUIT",
    ],
)
def test_a_content_ends_at_crlf_dot_crlf_and_is_kept_as_it_came(content):
    answer, conversation = deliver(content)
    assert answer == "250 2.0.0"
    (message,) = conversation.messages
    assert b"".join(message.content.pieces()) == (content + b"\r\n" if content else b"")
    assert message.mail.sender.email == "a@client.example"
    assert [recipient.email for recipient in message.recipients] == ["b@server.example"]


# What lenient servers take for an end of data: none of it is one (SMTP smuggling).
SMUGGLING = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\n.\r",
    b"\r\n\x00.\r\n",
    b"\r\r\n.\r\r\n",
]


@pytest.mark.parametrize("marker", SMUGGLING)
@pytest.mark.parametrize("line_endings", LineEndings)
def test_nothing_else_ends_the_data(marker, line_endings):
    content = b"one" + marker + b"MAIL FROM:<evil@x>\r\nRCPT TO:<b@x>\r\nDATA\r\ntwo"
    _, conversation = deliver(content, invalid_line_endings=line_endings)
    mails = [event.sender.email for event in conversation.events if isinstance(event, MailCommand)]
    assert mails == ["a@client.example", "a@client.example"]
    assert [b"".join(message.content.pieces()) for message in conversation.messages] in ([], [content + b"\r\n"])


@pytest.mark.parametrize("content", [b"a\rb", b"a\nb", b"\n", b"a\r", b"a\r\r\nb"])
@pytest.mark.parametrize(
    ("line_endings", "answer"),
    [(LineEndings.DENY, "552 5.6.0"), (LineEndings.ALLOW, "250 2.0.0"), (LineEndings.FIX, "250 2.0.0")],
)
def test_lone_crs_and_lfs_are_handled_as_the_listener_says(content, line_endings, answer):
    assert deliver(content, invalid_line_endings=line_endings)[0] == answer


def test_an_oversize_content_is_swallowed_and_refused():
    answer, conversation = deliver(b"x" * 90 + b"\r\n" + b"y" * 90, max_message_size=100)
    assert answer == "552 5.3.4"
    assert conversation.messages == []


def test_dots_of_stuffing_do_not_count_towards_the_size():
    assert deliver(b"..23456\r\n..23456", max_message_size=16)[0] == "250 2.0.0"
    assert deliver(b"..234567\r\n..23456", max_message_size=16)[0] == "552 5.3.4"


def test_a_long_body_line_is_refused():
    answer, conversation = deliver(b"short\r\n" + b"x" * 999)
    assert answer == "500 5.2.3"
    assert conversation.messages == []
    assert deliver(b"." + b"." * 998)[0] == "250 2.0.0"  # the first dot is no content


def test_a_refused_message_ends_its_transaction_with_4xx_too():
    conversation = Conversation(
        answer=lambda event: replies.UPSTREAM_LOST if isinstance(event, MessageReceived) else agree(event)
    )
    conversation.send(EHLO + MAIL + RCPT + b"DATA\r\n.\r\n")
    assert conversation.session.state == State.READY
    assert conversation.send(MAIL) == ["250 2.1.0"]


# --- STARTTLS ---------------------------------------------------------------------------------------------------------


def test_what_comes_in_clear_behind_starttls_is_never_executed():
    conversation = to_state(State.READY)
    assert conversation.send(b"STARTTLS\r\n" + MAIL + RCPT) == ["503 5.5.1"]
    assert conversation.session.closed
    assert not [event for event in conversation.events if isinstance(event, MailCommand | TlsRequested)]


@pytest.mark.parametrize("sent", [b"", EHLO + b"STARTTLS\r\n"], ids=["from the first octet on", "after STARTTLS"])
def test_under_tls_a_session_begins_with_ehlo(sent):
    conversation = Conversation()
    conversation.secure = False
    conversation.send(sent)
    conversation.session.tls_started()
    assert conversation.session.state == State.CONNECTED
    assert conversation.send(MAIL, EHLO, MAIL) == ["503 5.5.1", "250", "250 2.1.0"]


def test_tls_forgets_everything_said_before():
    conversation = to_state(State.READY, offer_auth=True)
    assert conversation.send(b"STARTTLS\r\n") == ["220 2.0.0"]
    assert conversation.session.ehlo_name == ""
    assert conversation.send(MAIL) == ["503 5.5.1"]
    conversation.send(EHLO)
    offered = [event.extensions for event in conversation.events if isinstance(event, EhloRequested)]
    assert "STARTTLS" in offered[0]
    assert "AUTH PLAIN LOGIN" not in offered[0]
    assert "STARTTLS" not in offered[1]
    assert "AUTH PLAIN LOGIN" in offered[1]
    assert conversation.send(b"STARTTLS\r\n") == ["503 5.5.1"]


def test_without_a_certificate_starttls_is_454():
    session = ServerSession(Terms(ListenerParams(hostname="gw.example"), offer_tls=False), Observer())
    session.receive_data(EHLO)
    event = session.next_event()
    assert isinstance(event, EhloRequested)
    assert event.extensions is not None
    assert "STARTTLS" not in event.extensions
    session.reply(agree(event))
    session.receive_data(b"STARTTLS\r\n")
    assert session.next_event() is None
    assert b"454 4.7.0" in session.data_to_send()


# --- AUTH -------------------------------------------------------------------------------------------------------------


def authenticating(**options: Any) -> Conversation:
    conversation = Conversation(tls=True, offer_auth=True, **options)
    conversation.send(EHLO)
    return conversation


@pytest.mark.parametrize("portions", [[b"AUTH PLAIN " + PLAIN], [b"auth plain", PLAIN], [b"AUTH PLAIN  " + PLAIN]])
def test_auth_plain_with_and_without_an_initial_response(portions):
    conversation = authenticating()
    answers = conversation.send(*(portion + b"\r\n" for portion in portions))
    assert answers[-1] == "235 2.7.0"
    event = conversation.events[-1]
    assert (event.authorization, event.authentication, event.password) == ("user", "user", "secret")
    assert conversation.session.authenticated
    assert conversation.send(b"AUTH PLAIN\r\n") == ["503 5.5.1"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"AUTH", "501 5.5.4"),
        (b"AUTH CRAM-MD5", "504 5.5.4"),
        (b"AUTH CRAM-MD5 x", "504 5.5.4"),
        (b"AUTH PLAIN not-base64", "501 5.5.2"),
        (b"AUTH PLAIN =", "501 5.5.2"),
        (b"AUTH PLAIN " + PLAIN + b" x", "501 5.5.2"),
    ],
)
def test_an_auth_that_cannot_be_is_refused(line, code):
    conversation = authenticating()
    assert conversation.send(line + b"\r\n", b"NOOP\r\n") == [code, "250 2.0.0"]


@pytest.mark.parametrize(
    ("line", "code"), [(b"*", "501 5.7.0"), (b"", "501 5.5.2"), (b"?", "501 5.5.2"), (b"x" * 12_289, "500 5.5.6")]
)
def test_an_auth_exchange_can_end_badly_and_the_session_goes_on(line, code):
    conversation = authenticating()
    assert conversation.send(b"AUTH PLAIN\r\n", line + b"\r\n", b"NOOP\r\n") == ["334", code, "250 2.0.0"]


@pytest.mark.parametrize("mechanism", [b"AUTH PLAIN ", b"AUTH PLAIN\r\n"])
@pytest.mark.parametrize("portion", [1000, 100_000])
def test_a_response_may_have_as_many_octets_as_the_rfc_says_wherever_it_comes(mechanism, portion):
    """RFC 4954 §4: 12,288 are enough for everybody, and what is longer is 500 5.5.6."""
    password = b"p" * 9213
    response = base64.b64encode(b"\0u\0" + password)
    assert len(response) == 12_288
    for stream, answer in ((mechanism + response, "235 2.7.0"), (mechanism + response + b"x" * 40, "500 5.5.6")):
        conversation = authenticating()
        whole = stream + b"\r\nNOOP\r\n"
        portions = [whole[at : at + portion] for at in range(0, len(whole), portion)]
        assert conversation.send(*portions)[-2:] == [answer, "250 2.0.0"]
        assert [event.password for event in conversation.events[1:]] == [password.decode()] * (answer < "300")


def test_auth_is_not_known_where_no_policy_handles_it():
    conversation = Conversation(tls=True)
    conversation.send(EHLO)
    assert conversation.send(b"AUTH PLAIN " + PLAIN + b"\r\n") == ["502 5.5.1"]


@pytest.mark.parametrize("state", [State.CONNECTED, State.READY, State.MAIL, State.RCPT])
@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("accept", [True, False])
def test_no_observer_ever_sees_a_credential(state, tls, accept):
    conversation = Conversation(
        tls=tls,
        offer_auth=True,
        answer=lambda event: replies.AUTH_FAILED if not accept and isinstance(event, AuthRequested) else agree(event),
    )
    conversation.send(LEADS_TO[state])
    secrets = [PLAIN, PLAIN.lower(), b"secret", PLAIN[:10]]
    conversation.send(b"AUTH PLAIN " + PLAIN + b"\r\n", b"AUTH PLAIN\r\n" + PLAIN + b"\r\n", b"AUTH " + PLAIN + b"\r\n")
    conversation.send(b"AUHT PLAIN " + PLAIN + b"\r\n", PLAIN + b"\r\n")
    shown = b"\n".join(argument for _, _, argument in conversation.observed) + repr(conversation.events).encode()
    assert not [secret for secret in secrets if secret in shown]


def test_the_repr_of_an_auth_event_shows_nothing():
    event = AuthRequested("me", "me", "hunter2")
    assert "hunter2" not in repr(event)
    assert "hunter2" not in str(event)


# --- outside of commands ----------------------------------------------------------------------------------------------


def test_replies_to_no_command_are_observed_as_such():
    conversation = Conversation()
    conversation.session.greet(replies.greeting("gw.example", "hello"))
    conversation.session.close(replies.closing("gw.example", "idle too long", Reason.IDLE_TIMEOUT, "4.4.2"))
    assert [verb for verb, _, _ in conversation.observed] == [NO_COMMAND, NO_COMMAND]
    assert conversation.session.data_to_send() == b"220 gw.example hello\r\n421 4.4.2 gw.example idle too long\r\n"


def test_the_reply_to_the_final_dot_is_observed_as_such():
    conversation = to_state(State.RCPT)
    conversation.send(b"DATA\r\n.\r\n")
    assert [verb for verb, _, _ in conversation.observed[-2:]] == [fp.DATA, END_OF_DATA]


@pytest.mark.parametrize(
    ("sent", "idle"),
    [
        (b"", True), (EHLO, True), (EHLO + b"NOO", False), (EHLO + MAIL, False),
        (EHLO + MAIL + RCPT + b"DATA\r\n", False), (EHLO + MAIL + RCPT + b"DATA\r\n.\r\n", True),
    ],
)  # fmt: skip
def test_a_session_is_idle_when_nothing_is_under_way(sent, idle):
    conversation = Conversation()
    conversation.send(sent)
    assert conversation.session.is_idle() is idle


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({}, "LIMITS MAILMAX=10000 RCPTMAX=1024"),
        ({"max_recipients_per_message": 7, "max_messages_per_connection": 1_000_000}, "LIMITS RCPTMAX=7"),
        ({"max_recipients_per_message": 10**6, "max_messages_per_connection": 10**7}, None),
    ],
)
def test_ehlo_tells_how_much_a_session_may_have(params: dict[str, Any], line: str | None):
    conversation = Conversation(**params)
    conversation.send(b"EHLO x\r\n")
    (event,) = conversation.events
    assert [offered for offered in event.extensions if offered.startswith("LIMITS")] == ([] if line is None else [line])


def test_vrfy_may_be_refused_as_expn_is():
    assert Conversation(disable_vrfy=True).send(b"VRFY a\r\nVRFY\r\nEXPN a\r\nNOOP\r\n") == [
        *(3 * ["502 5.5.1"]),
        "250 2.0.0",
    ]
