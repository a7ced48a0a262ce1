"""The client's side of SMTP in memory: dialogues whole, byte by byte and at random splits, and any replies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import Content, content_of
from gateway.config import EgressPath, UpstreamTls
from gateway.couriers.fleet import outcome
from gateway.handover import RecipientOutcome, Status
from gateway.smtp.address import NULL_SENDER, parse_address
from gateway.smtp.client import ClientSession
from gateway.smtp.client_values import ClientState, Event, Failure, Stage
from gateway.smtp.exchange import MOST_UNASKED, Exchange
from gateway.smtp.response import MAX_REPLY, ReplyReader, Response, response_to

GREETING = b"220 up.example ESMTP\r\n"
EHLO = b"250-up.example\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
CHUNKING_EHLO = b"250-up.example\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n"
PLAIN_EHLO = b"250 up.example\r\n"
MAIL_OK = b"250 2.1.0 ok\r\n"
RCPT_OK = b"250 2.1.5 ok\r\n"
GO_AHEAD = b"354 go ahead\r\n"
QUEUED = b"250 2.0.0 queued as 1\r\n"
MAIL_ALONE = b"MAIL FROM:<a@x.example> SIZE=21\r\n"
NO_TLS = EgressPath(enable_tls=UpstreamTls.DISABLED, enable_chunking=True)
CONTENT = content_of(b"Subject: x\r\n\r\nhello\r\n")
EIGHT_BIT = content_of(b"Subject: \xe4\r\n\r\nhello\r\n")


def exchange(*recipients: str, sender: str = "a@x.example", content: Content = CONTENT, **options: bool) -> Exchange:
    addresses = [parse_address(recipient) for recipient in recipients or ("b@y.example",)]
    return Exchange(parse_address(sender), addresses, content, **options)


def heard(exchange: Exchange) -> tuple[object, ...]:
    return exchange.mail, exchange.rcpts, exchange.data, exchange.verdict


class Dialogue:
    """A session fed in pieces: what it said and what it reported."""

    def __init__(self, path: EgressPath = NO_TLS) -> None:
        self.session = ClientSession(path, "gw.example")
        self.events: list[Event] = []

    def feed(self, data: bytes, splits: Iterable[int] = ()) -> bytes:
        """Feed in pieces; returns everything that the session said."""
        said = b""
        start = 0
        for end in [*sorted(splits), len(data)]:
            event = self.session.receive_data(data[start:end]) if end > start else None
            start = end
            said += b"".join(self.session.data_to_send())
            if event is not None:
                self.events.append(event)
        return said

    def begin(self, started: Exchange) -> bytes:
        self.session.begin(started)
        return b"".join(self.session.data_to_send())


def ready(ehlo: bytes = EHLO, path: EgressPath = NO_TLS, taken: int = 1) -> Dialogue:
    """A session that may begin. taken: messages that went by DATA before, where CHUNKING is offered."""
    dialogue = Dialogue(path)
    dialogue.feed(GREETING)
    dialogue.feed(ehlo)
    assert dialogue.events == [Event.READY]
    for _ in range(taken if ehlo is CHUNKING_EHLO else 0):
        assert dialogue.begin(exchange()).endswith((b"\r\nDATA\r\n", MAIL_ALONE))
        for answer in (MAIL_OK, RCPT_OK, GO_AHEAD, QUEUED):
            dialogue.feed(answer)
        assert dialogue.session.state is ClientState.READY
    dialogue.events.clear()
    return dialogue


# --- replies ----------------------------------------------------------------------------------------------------------

REPLY_TEXT = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20)
ONE_REPLY = st.builds(
    lambda code, lines, newline: b"".join(
        f"{code}{' ' if n == len(lines) else '-'}{line}".encode() + newline for n, line in enumerate(lines, 1)
    ),
    st.integers(200, 599),
    st.lists(REPLY_TEXT, min_size=1, max_size=4),
    st.sampled_from([b"\r\n", b"\n"]),
)


@given(st.lists(ONE_REPLY, max_size=5), st.data())
def test_replies_come_out_whole_however_they_are_split(stream: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(stream)
    splits = data.draw(st.lists(st.integers(0, len(octets))))
    reader = ReplyReader()
    found = []
    start = 0
    for end in [*sorted(splits), len(octets)]:
        found += reader.read(octets[start:end])
        assert reader.malformed is None
        start = end
    assert found == [(int(reply[:3]), reply) for reply in stream]
    assert reader.pending == b""


@given(st.binary(max_size=60) | st.text("2345-0 \r\n", max_size=60).map(str.encode), st.integers(0, 60))
def test_whatever_bytes_come_every_answer_is_a_reply(octets: bytes, split: int) -> None:
    reader = ReplyReader()
    for code, reply in [*reader.read(octets[:split]), *reader.read(octets[split:])]:
        assert 200 <= code <= 599
        assert reply.endswith(b"\n")
        assert {line[:3] for line in reply.split(b"\n")[:-1]} == {b"%d" % code}
    assert octets.endswith(reader.pending)


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"\r\n",
        b"25\r\n",
        b"250ok\r\n",
        b"2500 ok\r\n",
        b"150 ok\r\n",
        b"650 ok\r\n",
        b" 250 ok\r\n",
        b"250-one\r\n550 two\r\n",
        b"250-one\r\n250two\r\n",
        b"\xff50 ok\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_what_is_no_reply_is_malformed_also_byte_by_byte(octets: bytes) -> None:
    for size in (len(octets), 1):
        reader = ReplyReader()
        for start in range(0, len(octets), size):
            assert reader.malformed is None
            assert reader.read(octets[start : start + size]) == []
        assert reader.malformed


@pytest.mark.parametrize("line", [b"250-more\r\n", b"x"])
def test_a_reply_without_end_is_given_up_in_bounded_memory(line: bytes) -> None:
    reader = ReplyReader()
    while not reader.malformed:
        assert len(reader.pending) <= MAX_REPLY
        assert reader.read(line) == []


@pytest.mark.parametrize(
    ("octets", "enhanced", "content"),
    [
        (b"550 5.1.1 no such user\r\n", "5.1.1", "no such user"),
        (b"550 no such user\n", "", "no such user"),
        (b"550\r\n", "", ""),
        (b"550-5.7.1 first\r\n550-5.7.1 second\r\n550 5.7.1 third\r\n", "5.7.1", "first\nsecond\nthird"),
        (b"550 4.2.2 contradicts itself\r\n", "", "contradicts itself"),
        (b"550 5.1.1 caf\xe9\r\n", "5.1.1", "caf\ufffd"),
    ],
)
def test_response_has_code_enhanced_code_and_text(octets: bytes, enhanced: str, content: str) -> None:
    assert response_to("DATA\r\n", (550, octets)) == Response(550, enhanced, content, "DATA\r\n")


# --- the handshake ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("splits", [(), range(1, 200)])
def test_handshake_says_ehlo_and_learns_the_extensions(splits: Iterable[int]) -> None:
    dialogue = Dialogue()
    assert dialogue.feed(GREETING, [n for n in splits if n < len(GREETING)]) == b"EHLO gw.example\r\n"
    assert dialogue.feed(EHLO, [n for n in splits if n < len(EHLO)]) == b""
    assert dialogue.events == [Event.READY]
    assert dialogue.session.extensions == {"PIPELINING": "", "SIZE": "1000", "8BITMIME": "", "SMTPUTF8": ""}
    assert dialogue.session.size_limit == 1000
    assert dialogue.session.answered == [(Stage.GREETING, 220), (Stage.EHLO, 250)]


def test_the_path_names_the_ehlo_domain() -> None:
    dialogue = Dialogue(EgressPath(ehlo_domain="out.example"))
    assert dialogue.feed(GREETING) == b"EHLO out.example\r\n"


@pytest.mark.parametrize("parameter", ["", " 0", " many", " " + "9" * 30])
def test_size_without_a_usable_number_is_no_limit(parameter: str) -> None:
    dialogue = ready(f"250-up.example\r\n250 SIZE{parameter}\r\n".encode())
    assert dialogue.session.size_limit == 0


def test_helo_follows_where_ehlo_is_not_known() -> None:
    dialogue = Dialogue()
    dialogue.feed(GREETING)
    assert dialogue.feed(b"502 5.5.1 what?\r\n") == b"HELO gw.example\r\n"
    dialogue.feed(b"250 up.example\r\n")
    assert dialogue.events == [Event.READY]
    assert dialogue.begin(exchange()) == b"MAIL FROM:<a@x.example>\r\n"


@pytest.mark.parametrize("greeting", [b"554 no\r\n", b"421 busy\r\n", b"250 odd\r\n"])
def test_an_unwelcoming_greeting_fails_the_connection(greeting: bytes) -> None:
    dialogue = Dialogue()
    assert dialogue.feed(greeting) == b""
    assert dialogue.events == [Event.FAILED]
    assert dialogue.session.failure is Failure.GREETING
    assert dialogue.session.failed_at is Stage.GREETING


def test_a_refused_ehlo_and_helo_fail_the_connection() -> None:
    for answers in ([b"421 busy\r\n"], [b"500 what?\r\n", b"550 go away\r\n"], [b"354 odd\r\n"]):
        dialogue = Dialogue()
        dialogue.feed(GREETING)
        for answer in answers:
            dialogue.feed(answer)
        assert dialogue.events == [Event.FAILED]
        assert dialogue.session.failure is Failure.GREETING


@pytest.mark.parametrize("data", [GREETING + b"250 early\r\n", GREETING + EHLO, GREETING * 2])
def test_more_than_a_greeting_before_ehlo_is_not_trusted(data: bytes) -> None:
    dialogue = Dialogue()
    dialogue.feed(data)
    dialogue.feed(EHLO)
    assert dialogue.events == [Event.FAILED]


# --- TLS --------------------------------------------------------------------------------------------------------------

STARTTLS_EHLO = b"250-up.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
USING_TLS = [mode for mode in UpstreamTls if mode is not UpstreamTls.DISABLED]


@pytest.mark.parametrize("mode", USING_TLS)
def test_starttls_is_used_when_offered_and_everything_learned_before_is_forgotten(mode: UpstreamTls) -> None:
    dialogue = Dialogue(EgressPath(enable_tls=mode))
    dialogue.feed(GREETING)
    assert dialogue.feed(STARTTLS_EHLO) == b"STARTTLS\r\n"
    assert dialogue.feed(b"220 2.0.0 go\r\n") == b""
    assert dialogue.events == [Event.START_TLS]
    dialogue.session.tls_started()
    assert dialogue.session.data_to_send() == [b"EHLO gw.example\r\n"]
    dialogue.feed(b"250-up.example\r\n250 STARTTLS\r\n")
    assert dialogue.events == [Event.START_TLS, Event.READY]
    assert "PIPELINING" not in dialogue.session.extensions


@pytest.mark.parametrize("mode", USING_TLS)
@pytest.mark.parametrize("answer", [b"454 4.7.0 not now\r\n", b"502 5.5.1 no\r\n"])
def test_there_is_no_way_back_to_clear_text_after_starttls_was_offered(mode: UpstreamTls, answer: bytes) -> None:
    dialogue = Dialogue(EgressPath(enable_tls=mode))
    dialogue.feed(GREETING)
    dialogue.feed(STARTTLS_EHLO)
    assert dialogue.feed(answer) == b""
    assert dialogue.events == [Event.FAILED]
    assert dialogue.session.failure is Failure.TLS


@pytest.mark.parametrize("mode", list(UpstreamTls))
def test_a_server_without_starttls_will_do_unless_tls_is_required(mode: UpstreamTls) -> None:
    required = mode in (UpstreamTls.REQUIRED, UpstreamTls.REQUIRED_INSECURE)
    dialogue = Dialogue(EgressPath(enable_tls=mode))
    dialogue.feed(GREETING)
    dialogue.feed(EHLO)
    assert dialogue.events == [Event.FAILED if required else Event.READY]


def test_bytes_in_clear_behind_the_answer_to_starttls_fail_the_connection() -> None:
    dialogue = Dialogue(EgressPath(enable_tls=UpstreamTls.REQUIRED))
    dialogue.feed(GREETING)
    dialogue.feed(STARTTLS_EHLO)
    dialogue.feed(b"220 2.0.0 go\r\n250 injected\r\n")
    assert dialogue.events == [Event.FAILED]


# --- transactions -----------------------------------------------------------------------------------------------------


def test_envelope_and_data_go_out_at_once_with_pipelining() -> None:
    dialogue = ready()
    said = dialogue.begin(exchange("b@y.example", "c@z.example"))
    assert said == (b"MAIL FROM:<a@x.example> SIZE=21\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@z.example>\r\nDATA\r\n")


@pytest.mark.parametrize("path", [NO_TLS, EgressPath(enable_tls=UpstreamTls.DISABLED, enable_pipelining=False)])
def test_one_command_at_a_time_without_pipelining(path: EgressPath) -> None:
    dialogue = ready(EHLO if not path.enable_pipelining else PLAIN_EHLO, path)
    size = b" SIZE=21" if not path.enable_pipelining else b""
    assert dialogue.begin(exchange("b@y.example", "c@z.example")) == b"MAIL FROM:<a@x.example>" + size + b"\r\n"
    assert dialogue.feed(MAIL_OK) == b"RCPT TO:<b@y.example>\r\n"
    assert dialogue.feed(RCPT_OK) == b"RCPT TO:<c@z.example>\r\n"
    assert dialogue.feed(RCPT_OK) == b"DATA\r\n"
    assert dialogue.feed(GO_AHEAD) == CONTENT.joined() + b".\r\n"
    dialogue.feed(QUEUED)
    assert dialogue.events == [Event.CONCLUDED]
    assert dialogue.session.state is ClientState.READY


def test_the_content_is_passed_through_without_a_copy() -> None:
    dialogue = ready()
    dialogue.begin(exchange())
    dialogue.session.receive_data(MAIL_OK + RCPT_OK + GO_AHEAD)
    output = dialogue.session.data_to_send()
    assert [id(chunk) for chunk in output[:-1]] == [id(chunk) for chunk in CONTENT.pieces()]
    assert output[-1] == b".\r\n"


def test_the_next_transaction_starts_with_mail_at_once_after_success() -> None:
    dialogue = ready()
    for _ in range(3):
        assert dialogue.begin(exchange()).startswith(b"MAIL FROM")
        dialogue.feed(MAIL_OK + RCPT_OK + GO_AHEAD)
        assert dialogue.feed(QUEUED) == b""
    assert dialogue.events == [Event.CONCLUDED] * 3


def test_mail_parameters_follow_what_the_server_offers() -> None:
    started = exchange(content=EIGHT_BIT, smtputf8=True)
    assert ready().begin(started).startswith(b"MAIL FROM:<a@x.example> SIZE=21 BODY=8BITMIME SMTPUTF8\r\n")
    assert ready().begin(exchange()).startswith(b"MAIL FROM:<a@x.example> SIZE=21\r\n")
    assert ready(PLAIN_EHLO).begin(exchange()) == b"MAIL FROM:<a@x.example>\r\n"


def test_null_sender_and_utf8_addresses_on_the_wire() -> None:
    assert ready(PLAIN_EHLO).begin(Exchange(NULL_SENDER, [], CONTENT)) == b"MAIL FROM:<>\r\n"
    said = ready().begin(exchange("ü@y.example", sender="ä@x.example", smtputf8=True))
    assert "RCPT TO:<ü@y.example>\r\n".encode() in said


def run(answers: bytes, *recipients: str, ehlo: bytes = EHLO, **options: bool) -> tuple[Dialogue, Exchange, bytes]:
    """A transaction against all those answers, given one at a time; returns what was said after MAIL."""
    dialogue = ready(ehlo)
    started = exchange(*recipients, **options)
    dialogue.begin(started)
    said = b""
    for answer in answers.splitlines(keepends=True):
        said += dialogue.feed(answer)
    return dialogue, started, said


def outcomes(started: Exchange) -> list[RecipientOutcome]:
    """Of an exchange that leaves nobody for another transaction."""
    return [settled for settled in outcome.concluded(started) if settled is not None]


def statuses(started: Exchange) -> list[tuple[str, int]]:
    return [(settled.status.name, settled.response.code) for settled in outcomes(started)]


BOTH = ("b@y.example", "c@z.example")


@pytest.mark.parametrize("ehlo", [EHLO, PLAIN_EHLO])
class TestRefusals:
    """The same rules with and without pipelining; without it, commands that make no sense any more are not sent."""

    def test_refused_mail_is_the_answer_for_everyone(self, ehlo: bytes) -> None:
        later = b"503 no mail\r\n" * 3 if ehlo is EHLO else b""
        dialogue, started, said = run(b"550 5.7.1 not you\r\n" + later, *BOTH, ehlo=ehlo)
        assert dialogue.events == [Event.CONCLUDED]
        assert said == b"RSET\r\n"
        assert statuses(started) == [("PERMANENT", 550)] * 2
        assert outcomes(started)[0].response.command is not None
        assert dialogue.session.state is ClientState.RESET
        dialogue.feed(b"250 2.0.0 reset\r\n")
        assert dialogue.events == [Event.CONCLUDED, Event.READY]

    def test_all_recipients_refused_means_no_content(self, ehlo: bytes) -> None:
        later = b"554 5.5.1 no recipients\r\n" if ehlo is EHLO else b""
        dialogue, started, said = run(MAIL_OK + b"550 5.1.1 no\r\n551 5.1.6 gone\r\n" + later, *BOTH, ehlo=ehlo)
        assert said.endswith(b"RSET\r\n")
        assert b"Subject" not in said
        assert statuses(started) == [("PERMANENT", 550), ("PERMANENT", 551)]
        assert dialogue.session.state is ClientState.RESET

    def test_some_refused_for_good_and_the_rest_is_delivered(self, ehlo: bytes) -> None:
        dialogue, started, said = run(MAIL_OK + b"550 5.1.1 no\r\n" + RCPT_OK + GO_AHEAD + QUEUED, *BOTH, ehlo=ehlo)
        assert said.endswith(b"hello\r\n.\r\n")
        assert statuses(started) == [("PERMANENT", 550), ("DELIVERED", 250)]
        assert outcomes(started)[0].response == Response(550, "5.1.1", "no", "RCPT TO:<b@y.example>\r\n")
        assert dialogue.session.state is ClientState.READY

    @pytest.mark.parametrize("other", [RCPT_OK, b"550 5.1.1 no\r\n", b"452 4.2.2 full\r\n"])
    def test_one_deferred_recipient_means_that_nobody_gets_it(self, ehlo: bytes, other: bytes) -> None:
        later = b"554 5.5.1 refused\r\n" if ehlo is EHLO else b""
        dialogue, started, said = run(MAIL_OK + b"450 4.2.1 later\r\n" + other + later, *BOTH, ehlo=ehlo)
        assert b"Subject" not in said
        assert said.endswith(b"RSET\r\n")
        assert [status for status, _ in statuses(started)] == ["TRANSIENT"] * 2
        assert all(code // 100 == 4 for _, code in statuses(started))
        assert dialogue.session.state is ClientState.RESET

    def test_a_divisible_batch_goes_to_those_who_are_accepted(self, ehlo: bytes) -> None:
        answers = MAIL_OK + b"450 4.2.1 later\r\n" + RCPT_OK + GO_AHEAD + QUEUED
        _, started, said = run(answers, *BOTH, ehlo=ehlo, divisible=True)
        assert said.endswith(b"hello\r\n.\r\n")
        assert statuses(started) == [("TRANSIENT", 450), ("DELIVERED", 250)]

    def test_a_divisible_batch_of_which_nobody_is_accepted_goes_to_nobody(self, ehlo: bytes) -> None:
        later = b"554 5.5.1 refused\r\n" if ehlo is EHLO else b""
        answers = MAIL_OK + b"450 4.2.1 later\r\n" + b"550 5.1.1 no\r\n" + later
        _, started, said = run(answers, *BOTH, ehlo=ehlo, divisible=True)
        assert b"Subject" not in said
        assert statuses(started) == [("TRANSIENT", 450), ("PERMANENT", 550)]

    def test_refused_data_is_the_answer_for_the_accepted(self, ehlo: bytes) -> None:
        answers = MAIL_OK + RCPT_OK + b"550 5.1.1 no\r\n" + b"451 4.3.0 disk\r\n"
        _, started, said = run(answers, *BOTH, ehlo=ehlo)
        assert said.endswith(b"RSET\r\n")
        assert statuses(started) == [("TRANSIENT", 451), ("PERMANENT", 550)]
        assert outcomes(started)[0].response.command == "DATA\r\n"

    @pytest.mark.parametrize(
        ("answer", "status"), [(b"554 5.6.0 spam\r\n", "PERMANENT"), (b"452 full\r\n", "TRANSIENT")]
    )
    def test_refused_content_is_the_answer_for_the_accepted(self, ehlo: bytes, answer: bytes, status: str) -> None:
        dialogue, started, _ = run(MAIL_OK + RCPT_OK + b"550 no\r\n" + GO_AHEAD + answer, *BOTH, ehlo=ehlo)
        assert statuses(started)[0][0] == status
        assert statuses(started)[1] == ("PERMANENT", 550)
        assert outcomes(started)[0].response.command == ".\r\n"
        assert dialogue.session.state is ClientState.RESET

    @pytest.mark.parametrize("code", [421])
    def test_421_to_mail_is_the_servers_leave_and_no_verdict(self, ehlo: bytes, code: int) -> None:
        dialogue, started, _ = run(b"421 4.3.2 bye\r\n", ehlo=ehlo)
        assert dialogue.events == [Event.FAILED]
        assert dialogue.session.failure is Failure.LOST
        assert not started.content_sent

    def test_421_to_the_content_is_the_servers_leave_and_leaves_the_outcome_unknown(self, ehlo: bytes) -> None:
        dialogue, started, _ = run(MAIL_OK + RCPT_OK + GO_AHEAD + b"421 4.3.2 bye\r\n", ehlo=ehlo)
        assert dialogue.events == [Event.FAILED]
        assert dialogue.session.failure is Failure.LOST
        assert started.content_sent
        assert started.verdict is None

    @pytest.mark.parametrize("surplus", [b"250 more\r\n", b"2", b"garbage\r\n"])
    @pytest.mark.parametrize("answers", [b"550 no\r\n", MAIL_OK + b"550 no\r\n", MAIL_OK + RCPT_OK + b"554 no\r\n"])
    def test_a_surplus_behind_a_refused_envelope_fails_the_connection(
        self, ehlo: bytes, answers: bytes, surplus: bytes
    ) -> None:
        missing = 3 - answers.count(b"\n") if ehlo is EHLO else 0
        *first, last = (answers + b"503 no\r\n" * missing).splitlines(keepends=True)
        dialogue, started, _ = run(b"".join(first), ehlo=ehlo)
        dialogue.feed(last + surplus)
        assert dialogue.events == [Event.FAILED]
        assert dialogue.session.failure is Failure.PROTOCOL
        assert not started.content_sent

    @pytest.mark.parametrize("answers", [b"550 no\r\n", MAIL_OK + b"550 no\r\n", MAIL_OK + RCPT_OK + b"554 no\r\n"])
    def test_a_server_may_leave_behind_a_refusal_which_stands(self, ehlo: bytes, answers: bytes) -> None:
        missing = 3 - answers.count(b"\n") if ehlo is EHLO else 0
        *first, last = (answers + b"503 no\r\n" * missing).splitlines(keepends=True)
        dialogue, started, _ = run(b"".join(first), ehlo=ehlo)
        assert dialogue.feed(last + b"421 4.7.0 too many errors\r\n") == b""
        assert dialogue.events == [Event.CONCLUDED]
        assert statuses(started) == [("PERMANENT", int(answers.splitlines()[-1][:3]))]
        assert dialogue.session.state is ClientState.CLOSED

    @pytest.mark.parametrize(
        "words", [b"452 4.5.3 Too many recipients\r\n", b"552 too many recipients\r\n", b"452 5.5.3 enough\r\n"]
    )
    def test_recipients_that_are_too_many_belong_into_another_transaction(self, ehlo: bytes, words: bytes) -> None:
        _, started, said = run(MAIL_OK + RCPT_OK + words + GO_AHEAD + QUEUED, *BOTH, ehlo=ehlo)
        assert b"Subject" in said
        first, second = outcome.concluded(started)
        assert first is not None
        assert first.status is Status.DELIVERED
        assert second is None

    @pytest.mark.parametrize(
        "words", [b"452 4.3.1 disk full\r\n", b"452 4.3.1 too many messages\r\n", b"451 4.5.3 x\r\n"]
    )
    def test_other_words_to_a_recipient_are_about_it(self, ehlo: bytes, words: bytes) -> None:
        later = b"554 no\r\n" if ehlo is EHLO else b""
        _, started, said = run(MAIL_OK + RCPT_OK + words + later, *BOTH, ehlo=ehlo)
        assert b"Subject" not in said
        assert [status for status, _ in statuses(started)] == ["TRANSIENT"] * 2

    def test_the_first_recipient_cannot_be_too_many(self, ehlo: bytes) -> None:
        later = b"554 no\r\n" if ehlo is EHLO else b""
        _, started, _ = run(MAIL_OK + b"452 4.5.3 too many\r\n" * 2 + later, *BOTH, ehlo=ehlo)
        assert statuses(started) == [("TRANSIENT", 452)] * 2


def test_a_deferred_recipient_says_what_the_upstream_said_and_the_others_why_they_were_not_sent() -> None:
    _, started, _ = run(MAIL_OK + b"450 4.2.1 later\r\n" + b"550 5.1.1 who?\r\n" + b"554 no\r\n", *BOTH)
    deferred, refused = outcomes(started)
    assert deferred.response == Response(450, "4.2.1", "later", "RCPT TO:<b@y.example>\r\n")
    assert refused.response.code == 451
    assert "550 5.1.1 who?" in refused.response.content


@pytest.mark.parametrize("rcpt", [b"550 5.1.1 no\r\n", b"450 4.2.1 later\r\n"])
def test_data_accepted_although_nothing_may_be_sent_ends_the_connection(rcpt: bytes) -> None:
    dialogue, started, said = run(MAIL_OK + rcpt + GO_AHEAD)
    assert said == b""
    assert dialogue.events == [Event.CONCLUDED]
    assert dialogue.session.state is ClientState.CLOSED
    assert not started.content_sent


@pytest.mark.parametrize(
    "answers",
    [
        b"354 odd\r\n",
        MAIL_OK + b"354 odd\r\n",
        MAIL_OK + RCPT_OK + b"250 odd\r\n",
        b"garbage\r\n",
        MAIL_OK + b"250-never\r\n550 ending\r\n",
    ],
)
def test_an_answer_that_makes_no_sense_fails_the_connection_before_the_content(answers: bytes) -> None:
    dialogue, started, said = run(answers)
    assert dialogue.events == [Event.FAILED]
    assert dialogue.session.failure is Failure.PROTOCOL
    assert not started.content_sent
    assert said == b""


@pytest.mark.parametrize("said, failure", [(b"421 4.3.2 bye\r\n", Failure.LOST), (MAIL_OK, Failure.PROTOCOL)])
def test_what_comes_before_the_envelope_was_taken_is_no_answer_to_it(said: bytes, failure: Failure) -> None:
    dialogue = ready()
    dialogue.session.begin(exchange())
    assert dialogue.session.receive_data(said) is Event.FAILED
    assert dialogue.session.failure is failure
    assert dialogue.session.data_to_send() == []


def test_praise_before_the_content_was_taken_leaves_it_unsent() -> None:
    dialogue = ready()
    started = exchange()
    dialogue.begin(started)
    assert dialogue.session.receive_data(MAIL_OK + RCPT_OK + GO_AHEAD) is None
    assert dialogue.session.receive_data(QUEUED) is Event.FAILED
    assert not started.content_sent
    assert dialogue.session.data_to_send() == []


def test_praise_before_the_content_was_sent_is_not_believed() -> None:
    dialogue = ready()
    started = exchange()
    dialogue.begin(started)
    assert dialogue.feed(MAIL_OK + RCPT_OK + GO_AHEAD + QUEUED) == b""
    assert dialogue.events == [Event.FAILED]
    assert not started.content_sent


@pytest.mark.parametrize("answer", [b"354 what?\r\n", b"garbage\r\n", b"150 what?\r\n"])
def test_no_valid_answer_to_the_content_leaves_the_outcome_unknown(answer: bytes) -> None:
    dialogue, started, _ = run(MAIL_OK + RCPT_OK + b"550 no\r\n" + GO_AHEAD + answer, *BOTH)
    assert dialogue.events == [Event.FAILED]
    assert started.content_sent
    assert [settled.status for settled in outcome.unknown(started)] == [Status.UNKNOWN, Status.PERMANENT]


@pytest.mark.parametrize("extra", [b"250 more\r\n", b"2", b"421 bye\r\n"])
@pytest.mark.parametrize("verdict", [QUEUED, b"550 no\r\n"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_connection_that_says_more_than_the_verdict_leaves_the_outcome_unknown(
    extra: bytes, verdict: bytes, chunked: bool
) -> None:
    dialogue = ready(CHUNKING_EHLO if chunked else EHLO)
    started = exchange()
    dialogue.begin(started)
    dialogue.feed(MAIL_OK + RCPT_OK + (b"" if chunked else GO_AHEAD))
    assert dialogue.feed(verdict + extra) == b""
    assert dialogue.session.state is ClientState.CLOSED
    if verdict is not QUEUED and extra.startswith(b"421"):  # it leaves behind a refusal, which stands
        assert statuses(started) == [("PERMANENT", 550)]
        return
    assert dialogue.events == [Event.FAILED]
    assert dialogue.session.failed_at is Stage.END_OF_DATA
    assert started.content_sent
    assert started.verdict is None


@pytest.mark.parametrize(
    ("words", "failure"), [(b"421 4.3.2 bye\r\n", Failure.LOST), (b"250 hi\r\n", Failure.PROTOCOL)]
)
def test_words_nobody_asked_for_end_an_idle_connection(words: bytes, failure: Failure) -> None:
    dialogue = ready()
    dialogue.feed(words)
    assert dialogue.events == [Event.FAILED]
    assert dialogue.session.failure is failure


def test_a_refused_rset_ends_the_connection() -> None:
    dialogue, _, _ = run(MAIL_OK + RCPT_OK + b"451 no\r\n")
    dialogue.feed(b"500 what?\r\n")
    assert dialogue.events == [Event.CONCLUDED, Event.FAILED]


def test_quit_is_answered_and_over() -> None:
    dialogue = ready()
    dialogue.session.quit()
    assert dialogue.session.data_to_send() == [b"QUIT\r\n"]
    assert dialogue.session.timeout == 5.0
    dialogue.feed(b"221 bye\r\n")
    assert dialogue.events == [Event.BYE]
    assert dialogue.session.receive_data(b"anything") is None


def test_a_transaction_cannot_begin_inside_another() -> None:
    dialogue = ready()
    dialogue.begin(exchange())
    with pytest.raises(RuntimeError, match="ENVELOPE"):
        dialogue.session.begin(exchange())


def test_each_stage_has_its_timeout() -> None:
    path = EgressPath(
        banner_timeout=1,
        ehlo_timeout=2,
        mail_from_timeout=3,
        rcpt_to_timeout=4,
        data_timeout=5,
        data_dot_timeout=6,
        idle_timeout=7,
        enable_tls=UpstreamTls.DISABLED,
    )
    dialogue = Dialogue(path)
    timeouts = [dialogue.session.timeout]
    for answer in (GREETING, EHLO):
        dialogue.feed(answer)
        timeouts.append(dialogue.session.timeout)
    dialogue.begin(exchange())
    timeouts.append(dialogue.session.timeout)
    for answer in (MAIL_OK, RCPT_OK, GO_AHEAD, QUEUED):
        dialogue.feed(answer)
        timeouts.append(dialogue.session.timeout)
    assert timeouts == [1, 2, 7, 3, 4, 5, 6, 7]


# --- content in one chunk with the envelope ---------------------------------------------------------------------------

FLIGHT = b"MAIL FROM:<a@x.example> SIZE=21\r\nRCPT TO:<b@y.example>\r\nBDAT 21 LAST\r\n" + CONTENT.joined()
IN_VAIN = b"503 5.5.1 no recipients\r\n"


def test_a_content_for_one_recipient_goes_out_with_the_envelope_without_a_copy() -> None:
    dialogue = ready(CHUNKING_EHLO)
    started = exchange()
    dialogue.session.begin(started)
    output = dialogue.session.data_to_send()
    assert b"".join(output) == FLIGHT
    assert [id(chunk) for chunk in output[1:]] == [id(chunk) for chunk in CONTENT.pieces()]
    assert dialogue.feed(MAIL_OK + RCPT_OK + QUEUED) == b""
    assert dialogue.events == [Event.CONCLUDED]
    assert statuses(started) == [("DELIVERED", 250)]
    assert outcomes(started)[0].response.command == "BDAT 21 LAST\r\n"
    assert dialogue.begin(exchange()) == FLIGHT


NO_CHUNKING = EgressPath(enable_tls=UpstreamTls.DISABLED)
NO_PIPELINING = replace(NO_TLS, enable_pipelining=False)


@pytest.mark.parametrize("path", [NO_CHUNKING, NO_PIPELINING])
def test_chunking_is_used_only_where_the_path_wants_it(path: EgressPath) -> None:
    assert b"BDAT" not in ready(CHUNKING_EHLO, path).begin(exchange())


def test_whose_answers_tell_nothing_gets_no_chunk() -> None:
    assert b"BDAT" not in ready(CHUNKING_EHLO.replace(b"250-ENHANCEDSTATUSCODES\r\n", b"")).begin(exchange())


@pytest.mark.parametrize(
    ("rcpt", "verdict"), [(b"250 ok\r\n", QUEUED), (RCPT_OK, b"250 ok\r\n"), (RCPT_OK, RCPT_OK), (b"550 no\r\n", b"")]
)
def test_whose_answers_to_data_could_not_be_told_apart_gets_no_chunk(rcpt: bytes, verdict: bytes) -> None:
    dialogue = ready(CHUNKING_EHLO, taken=0)
    assert dialogue.begin(exchange()).endswith(b"DATA\r\n")
    for answer in [MAIL_OK, rcpt, GO_AHEAD, verdict] if verdict else [MAIL_OK, rcpt, b"503 no\r\n", b"250 reset\r\n"]:
        dialogue.feed(answer)
    assert dialogue.begin(exchange()).endswith(b"DATA\r\n")


@pytest.mark.parametrize("stage", range(4))
def test_who_says_something_too_many_by_habit_is_found_out_before_the_first_chunk(stage: int) -> None:
    dialogue = ready(CHUNKING_EHLO, taken=0)
    started = exchange()
    dialogue.begin(started)
    answers = [MAIL_OK, RCPT_OK, GO_AHEAD, QUEUED]
    answers[stage] += b"250 2.0.0 too many\r\n"
    for answer in answers:
        dialogue.feed(answer)
    assert dialogue.events == [Event.FAILED]
    assert started.content_sent is (stage == 3)
    assert not started.taken()


@pytest.mark.parametrize("surplus", [b"250 ok\r\n", b"250 2.0.0 ok\r\n", MAIL_OK])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("mail", [MAIL_OK, b"250 ok\r\n"])
def test_no_surplus_that_crosses_a_chunk_makes_an_answer_to_something_else_a_success(
    surplus: bytes, number: int, mail: bytes
) -> None:
    dialogue = ready(CHUNKING_EHLO)
    started = exchange()
    dialogue.begin(started)
    for answer in [surplus] * number + [mail, RCPT_OK, b"451 4.3.0 not taken\r\n"]:
        dialogue.feed(answer)
    assert dialogue.events == [Event.FAILED]
    assert dialogue.session.out_of_step
    assert [settled.status for settled in outcome.unknown(started)] == [Status.UNKNOWN]


@pytest.mark.parametrize(
    ("rcpt", "verdict"), [(b"250 ok\r\n", QUEUED), (RCPT_OK, b"250 ok\r\n"), (RCPT_OK, RCPT_OK), (MAIL_OK, RCPT_OK)]
)
def test_a_success_of_a_chunk_is_one_that_cannot_be_anothers(rcpt: bytes, verdict: bytes) -> None:
    dialogue, started, _ = run(MAIL_OK + rcpt + verdict, ehlo=CHUNKING_EHLO)
    assert dialogue.events == [Event.FAILED]
    assert started.content_sent
    assert not started.taken()


@pytest.mark.parametrize(
    ("content", "recipients"),
    [
        (CONTENT.joined(), BOTH),
        (b"Subject: x\r\n\r\n..dot\r\n", BOTH[:1]),
        (b"x" * (MOST_UNASKED - 1) + b"\r\n", BOTH[:1]),
    ],
    ids=["several recipients", "a stuffed dot", "a large content"],
)
def test_what_does_not_fit_one_chunk_goes_by_data(content: bytes, recipients: tuple[str, ...]) -> None:
    dialogue = ready(CHUNKING_EHLO)
    addresses = [parse_address(recipient) for recipient in recipients]
    started = Exchange(parse_address("a@x.example"), addresses, content_of(content))
    assert dialogue.begin(started).endswith(b"DATA\r\n")
    dialogue.feed(MAIL_OK + RCPT_OK * len(recipients))
    assert dialogue.feed(GO_AHEAD) == content + b".\r\n"
    dialogue.feed(QUEUED)
    assert {status for status, _ in statuses(started)} == {"DELIVERED"}


def test_the_largest_content_that_fits_one_chunk_is_sent_unasked() -> None:
    content = b"x" * (MOST_UNASKED - 2) + b"\r\n"
    started = Exchange(parse_address("a@x.example"), [parse_address("b@y.example")], content_of(content))
    assert ready(CHUNKING_EHLO).begin(started).endswith(b"\r\nBDAT 65536 LAST\r\n" + content)


@pytest.mark.parametrize("last", [IN_VAIN, QUEUED])
@pytest.mark.parametrize(
    ("envelope", "expected", "command"),
    [
        (b"550 5.7.1 no\r\n" + IN_VAIN, ("PERMANENT", 550), "MAIL FROM:<a@x.example>\r\n"),
        (b"451 4.7.1 later\r\n" + IN_VAIN, ("TRANSIENT", 451), "MAIL FROM:<a@x.example>\r\n"),
        (b"550 5.7.1 no\r\n" + RCPT_OK, ("PERMANENT", 550), "MAIL FROM:<a@x.example>\r\n"),
        (MAIL_OK + b"550 5.1.1 no\r\n", ("PERMANENT", 550), "RCPT TO:<b@y.example>\r\n"),
        (MAIL_OK + b"450 4.2.1 later\r\n", ("TRANSIENT", 450), "RCPT TO:<b@y.example>\r\n"),
    ],
)
def test_a_refused_envelope_is_the_verdict_whatever_is_said_to_the_chunk_and_the_connection_ends(
    envelope: bytes, expected: tuple[str, int], command: str, last: bytes
) -> None:
    dialogue, started, said = run(envelope + last, ehlo=CHUNKING_EHLO)
    assert dialogue.events == [Event.CONCLUDED]
    assert statuses(started) == [expected]
    assert outcomes(started)[0].response.command == command
    assert not started.content_sent
    assert said == b""
    assert dialogue.session.state is ClientState.CLOSED


@pytest.mark.parametrize("code", [452, 552, 554])
def test_a_refused_chunk_is_the_verdict_and_the_connection_ends(code: int) -> None:
    dialogue, started, _ = run(MAIL_OK + RCPT_OK + b"%d no\r\n" % code, ehlo=CHUNKING_EHLO)
    assert dialogue.events == [Event.CONCLUDED]
    assert [found for _, found in statuses(started)] == [code]
    assert outcomes(started)[0].response.command == "BDAT 21 LAST\r\n"
    assert dialogue.session.state is ClientState.CLOSED


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504])
def test_a_server_that_does_not_know_bdat_has_taken_nothing(code: int) -> None:
    answers = MAIL_OK + RCPT_OK + b"%d 5.5.1 what?\r\n" % code + b"500 Subject: what?\r\n"
    for pieces in ([answers], answers.splitlines(keepends=True)):
        dialogue = ready(CHUNKING_EHLO)
        started = exchange()
        dialogue.begin(started)
        for piece in pieces:
            dialogue.feed(piece)
        assert dialogue.events == [Event.FAILED]
        assert dialogue.session.failure is Failure.PROTOCOL
        assert dialogue.session.bdat_unknown
        assert not started.content_sent


@pytest.mark.parametrize("answers", [b"", MAIL_OK, MAIL_OK + RCPT_OK, MAIL_OK + RCPT_OK + b"25"])
@pytest.mark.parametrize("words", [b"garbage\r\n", b"354 what?\r\n", None])
def test_once_the_chunk_was_sent_only_a_refusal_says_that_it_was_not_taken(answers: bytes, words: bytes | None) -> None:
    dialogue = ready(CHUNKING_EHLO)
    started = exchange()
    dialogue.begin(started)
    dialogue.feed(answers)
    if words is None:
        dialogue.session.fail(Failure.LOST, "closed")
    else:
        dialogue.feed(words)
    assert dialogue.session.state is ClientState.CLOSED
    assert started.content_sent
    (settled,) = outcome.unknown(started)
    assert settled.status is Status.UNKNOWN
    assert settled.response.command == "BDAT 21 LAST\r\n"


@pytest.mark.parametrize("answers", [b"550 5.7.1 no\r\n", MAIL_OK + b"450 4.2.1 later\r\n", b"421 4.3.2 bye\r\n"])
def test_after_a_refusal_a_lost_connection_leaves_nothing_unknown(answers: bytes) -> None:
    dialogue = ready(CHUNKING_EHLO)
    started = exchange()
    dialogue.begin(started)
    dialogue.feed(answers)
    dialogue.session.fail(Failure.LOST, "closed")
    assert not started.content_sent


@pytest.mark.parametrize("said", [b"421 4.4.2 idle\r\n", MAIL_OK, None])
def test_a_chunk_that_was_never_written_is_not_sent(said: bytes | None) -> None:
    dialogue = ready(CHUNKING_EHLO)
    started = exchange()
    dialogue.session.begin(started)
    if said is None:
        dialogue.session.fail(Failure.LOST, "closed")
    else:
        assert dialogue.session.receive_data(said) is Event.FAILED
    assert not started.content_sent
    assert dialogue.session.data_to_send() == []


def test_the_chunk_has_the_timeout_of_the_final_dot() -> None:
    path = replace(NO_TLS, mail_from_timeout=3, rcpt_to_timeout=4, data_dot_timeout=6)
    for refusal in (b"", b"550 no\r\n"):
        dialogue = ready(CHUNKING_EHLO, path)
        dialogue.begin(exchange())
        timeouts = [dialogue.session.timeout]
        for answer in (refusal or MAIL_OK, refusal or RCPT_OK):
            dialogue.feed(answer)
            timeouts.append(dialogue.session.timeout)
        assert timeouts == [3, 4, 6]
        assert dialogue.session.stage is Stage.END_OF_DATA


# --- any dialogue -----------------------------------------------------------------------------------------------------

CODES = st.sampled_from([250, 250, 250, 251, 354, 421, 450, 452, 550, 552])
ANSWER = st.builds(
    lambda code, lines: b"".join(b"%d-x\r\n" % code for _ in range(lines)) + b"%d 2.0.0 x\r\n" % code,
    CODES,
    st.integers(0, 2),
)


@given(st.lists(ANSWER, min_size=4, max_size=4), ANSWER, st.booleans(), st.data())
def test_any_split_gives_the_same_and_content_goes_out_by_the_rule(
    envelope: list[bytes], verdict: bytes, pipelining: bool, data: st.DataObject
) -> None:
    results = []
    for whole in (True, False):
        dialogue = ready(EHLO if pipelining else PLAIN_EHLO)
        started = exchange(*BOTH)
        dialogue.begin(started)
        said = b""
        for answer in [b"".join(envelope)] if pipelining else envelope:
            splits = () if whole else data.draw(st.lists(st.integers(0, len(answer))))
            if not dialogue.events:
                said += dialogue.feed(answer, splits)
        if started.content_sent:
            said += dialogue.feed(verdict, () if whole else range(len(verdict)))
        results.append((dialogue.events, heard(started), started.content_sent, said, dialogue.session.state))
    assert results[0] == results[1]
    mail, first, second, go_ahead = (int(answer[:3]) // 100 for answer in envelope)
    codes = [int(answer[:3]) for answer in envelope]
    by_the_rule = mail == 2 and 2 in (first, second) and 4 not in (first, second) and 3 not in (first, second)
    assert results[0][2] == (by_the_rule and go_ahead == 3 and 421 not in codes)


@given(st.lists(ANSWER, min_size=3, max_size=3), st.data())
def test_any_answers_to_a_flight_mean_the_same_at_any_split_and_only_2xx_throughout_is_delivery(
    answers: list[bytes], data: st.DataObject
) -> None:
    answers[1] = answers[1].replace(b" 2.0.0 ", b" 2.1.5 ")
    octets = b"".join(answers)
    results = []
    for splits in ([], data.draw(st.lists(st.integers(0, len(octets))))):
        dialogue = ready(CHUNKING_EHLO)
        started = exchange()
        dialogue.begin(started)
        assert dialogue.feed(octets, splits) == b""
        results.append((dialogue.events, heard(started), started.content_sent, dialogue.session.state))
    assert results[0] == results[1]
    mail, rcpt, last = (int(answer[:3]) // 100 for answer in answers)
    (event,) = dialogue.events
    if event is Event.CONCLUDED:
        (settled,) = outcomes(started)
        assert (settled.status is Status.DELIVERED) == ((mail, rcpt, last) == (2, 2, 2))
        assert (dialogue.session.state is ClientState.READY) == ((mail, rcpt, last) == (2, 2, 2))
    else:  # nobody else may be asked unless a refusal says that this server cannot have taken it
        assert started.content_sent == (mail == 3 or (mail == 2 and rcpt in (2, 3)))
