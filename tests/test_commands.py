"""Arguments of SMTP commands (gateway/smtp/commands.py), and the compiled short cut for the usual ones."""

from __future__ import annotations

import base64
import re
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import read_parameters
from gateway.smtp import commands, replies
from gateway.smtp.commands import Refused, decode_plain, parse_ehlo, parse_mail, parse_rcpt

PATHS = [
    # the path as sent, and the address as it goes on
    (b"<a@example.com>", "a@example.com"),
    (b"<A.b@EXAMPLE.com>", "A.b@example.com"),
    (b" <a@example.com>", "a@example.com"),
    (b" \t <a@example.com>", "a@example.com"),
    (b"a@example.com", "a@example.com"),
    (b" a@example.com", "a@example.com"),
    (b"< a@example.com >", "a@example.com"),
    (b'<"a b"@example.com>', '"a b"@example.com'),
    (b'<"a>b"@example.com>', '"a>b"@example.com'),
    (b'<"a\\"b"@example.com>', '"a\\"b"@example.com'),
    (b'"a b"@example.com', '"a b"@example.com'),
    (b"<a@[192.0.2.1]>", "a@[192.0.2.1]"),
    (b"<a@[IPv6:2001:DB8::1]>", "a@[IPv6:2001:db8::1]"),
    (b"<@one.example:a@example.com>", "a@example.com"),
    (b"<@one.example,@two.example:a@example.com>", "a@example.com"),
    (b"<a@xn--bcher-kva.example>", "a@xn--bcher-kva.example"),
    (b"<" + b"v" * 200 + b"@example.com>", "v" * 200 + "@example.com"),
]
BAD_PATHS = [
    b"", b" ", b"<", b">", b"<a", b"<a@example.com", b"a@example.com>", b"<a@example.com>x", b"<<a@example.com>>",
    b"<a@>", b"<@example.com>", b"<a>", b"a", b"<a b@example.com>", b"<a@b@example.com>",
    b"<.a@example.com>", b"<a..b@example.com>", b"<a@example..com>", b"<a@-example.com>", b"<a@example.com.>",
    b'<"a@example.com>', b"<a@[192.0.2]>", b"<a@[IPv6:1]>", b"<a@exam\x00ple.com>", b"<a@example.com\r>",
    b"<\xff@example.com>", b"<a\n@example.com>",
]  # fmt: skip


@pytest.mark.parametrize(("path", "email"), PATHS)
@pytest.mark.parametrize("keyword", [b"FROM:", b"from:", b"From:"])
def test_mail_reads_a_reverse_path(keyword, path, email):
    assert parse_mail(keyword + path).sender.email == email


@pytest.mark.parametrize(("path", "email"), PATHS)
def test_rcpt_reads_a_forward_path(path, email):
    assert parse_rcpt(b"TO:" + path, smtputf8=False).recipient.email == email


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_malformed_reverse_path_is_refused_501_5_1_7(path):
    with pytest.raises(Refused) as refused:
        parse_mail(b"FROM:" + path)
    assert refused.value.reply is replies.SENDER_SYNTAX


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_malformed_forward_path_is_refused_501_5_1_3(path):
    with pytest.raises(Refused) as refused:
        parse_rcpt(b"TO:" + path, smtputf8=True)
    assert refused.value.reply is replies.RECIPIENT_SYNTAX


@pytest.mark.parametrize("argument", [b"", b"<a@example.com>", b"TO:<a@example.com>", b"FROM <a@example.com>", b"FROM"])
def test_mail_without_from_is_a_syntax_error(argument):
    with pytest.raises(Refused) as refused:
        parse_mail(argument)
    assert refused.value.reply is replies.SYNTAX


@pytest.mark.parametrize("path", [b"<>", b" <>", b"< >"])
def test_the_null_reverse_path_is_a_sender_and_no_recipient(path):
    assert parse_mail(b"FROM:" + path).sender.email == ""
    with pytest.raises(Refused) as refused:
        parse_rcpt(b"TO:" + path, smtputf8=False)
    assert refused.value.reply is replies.RECIPIENT_SYNTAX


def test_postmaster_is_a_recipient_and_no_sender():
    recipient = parse_rcpt(b"TO:<postMaster>", smtputf8=False).recipient
    assert (recipient.email, recipient.user, recipient.domain) == ("Postmaster", "postmaster", "")
    with pytest.raises(Refused) as refused:
        parse_mail(b"FROM:<Postmaster>")
    assert refused.value.reply is replies.SENDER_SYNTAX


# --- UTF-8 (RFC 6531) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["<jürgen@example.com>", "<a@bücher.example>", '<"ü"@example.com>', "ü@example.com"])
def test_a_utf8_address_needs_smtputf8(path):
    for parse in (
        lambda: parse_mail(b"FROM:" + path.encode()),
        lambda: parse_rcpt(b"TO:" + path.encode(), smtputf8=False),
    ):
        with pytest.raises(Refused) as refused:
            parse()
        assert refused.value.reply is replies.SMTPUTF8_REQUIRED


def test_with_smtputf8_addresses_are_read_and_domains_become_a_labels():
    assert parse_mail("FROM:<jürgen@Bücher.example> SMTPUTF8".encode()).sender.email == "jürgen@xn--bcher-kva.example"
    assert parse_rcpt("TO:<ü@Bücher.example>".encode(), smtputf8=True).recipient.email == "ü@xn--bcher-kva.example"


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "size", "eight_bit", "smtputf8"),
    [
        (b"", 0, False, False),
        (b" SIZE=1000", 1000, False, False),
        (b" size=0", 0, False, False),
        (b" SIZE=99999999999999999999", 99999999999999999999, False, False),
        (b" BODY=7BIT", 0, False, False),
        (b" BODY=8bitmime", 0, True, False),
        (b" SMTPUTF8", 0, False, True),
        (b"  SIZE=5   BODY=8BITMIME \t SMTPUTF8  ", 5, True, True),
    ],
)
@pytest.mark.parametrize("path", [b"<a@example.com>", b"<>", b"a@example.com", b'<"x y"@example.com>'])
def test_mail_parameters_are_read(path, parameters, size, eight_bit, smtputf8):
    command = parse_mail(b"FROM:" + path + parameters)
    assert (command.size, command.eight_bit, command.smtputf8) == (size, eight_bit, smtputf8)


@pytest.mark.parametrize(
    "parameters",
    [
        b"SIZE", b"SIZE=", b"SIZE=x", b"SIZE=-1", b"SIZE=1.5", b"SIZE=1=2", b"SIZE=" + b"9" * 21, b"SIZE=1 SIZE=1",
        b"SIZE=1 size=2", b"BODY", b"BODY=9BIT", b"SMTPUTF8=", b"SMTPUTF8=yes", b"=1", b"-X=1",
        b"S\xc3\xa4ZE=1", b"SIZE=1\x01",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [b"<a@example.com>", b"<>"])
def test_a_malformed_mail_parameter_is_refused_501(path, parameters):
    with pytest.raises(Refused) as refused:
        parse_mail(b"FROM:" + path + b" " + parameters)
    assert refused.value.reply is replies.PARAMETER_SYNTAX


@pytest.mark.parametrize(
    "parameter", [b"RET=FULL", b"ENVID=x", b"BDAT", b"X-UNHEARD=1", b"AUTH=<>", b"MT-PRIORITY=3", b"BODY=BINARYMIME"]
)
def test_an_unknown_mail_parameter_is_refused_555_by_name(parameter):
    with pytest.raises(Refused) as refused:
        parse_mail(b"FROM:<a@example.com> SIZE=1 " + parameter)
    reply = refused.value.reply
    assert (reply.code, reply.enhanced) == (555, "5.5.4")
    assert parameter.partition(b"=")[0].decode() in reply.text


@pytest.mark.parametrize("parameter", [b"NOTIFY=NEVER", b"ORCPT=rfc822;a@example.com", b"SIZE=1"])
def test_an_unknown_rcpt_parameter_is_refused_555(parameter):
    with pytest.raises(Refused) as refused:
        parse_rcpt(b"TO:<a@example.com> " + parameter, smtputf8=False)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (555, "5.5.4")


@pytest.mark.parametrize("value", [b"<>", b"e+3Dmc2@example.com"])
def test_the_auth_parameter_is_read_where_auth_is_offered_and_trusted_nowhere(value):
    command = parse_mail(b"FROM:<a@example.com> AUTH=" + value, auth_offered=True)
    assert command.sender.email == "a@example.com"
    with pytest.raises(Refused):
        parse_mail(b"FROM:<a@example.com> AUTH", auth_offered=True)


# --- EHLO -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        (b"Client.EXAMPLE", "client.example"),
        (b"[192.0.2.1]", "[192.0.2.1]"),
        (b"[IPv6:2001:DB8::1]", "[IPv6:2001:db8::1]"),
        (b"localhost", "localhost"),
        (b"DESKTOP_1", "desktop_1"),
        (b"_odd_.example", "_odd_.example"),
        (b"client.example.", "client.example."),
        ("bücher.example".encode(), "xn--bcher-kva.example"),
    ],
)
def test_ehlo_takes_what_real_clients_call_themselves(argument, name):
    assert parse_ehlo(argument) == name


@pytest.mark.parametrize(
    "argument",
    [b"", b"two words", b"<script>", b"a\x00b", b"a\rb", b"\xff", b"[", b"[fish]", b"[300.1.1.1]", b"x" * 256, b"(x)"],
)
def test_ehlo_refuses_what_is_no_name(argument):
    with pytest.raises(Refused) as refused:
        parse_ehlo(argument)
    assert refused.value.reply is replies.EHLO_SYNTAX


# --- AUTH PLAIN -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decoded", "read"),
    [
        (b"\0user\0secret", ("user", "user", "secret")),
        (b"admin\0user\0secret", ("admin", "user", "secret")),
        ("\0jürgen\0pässwörd".encode(), ("jürgen", "jürgen", "pässwörd")),
    ],
)
def test_a_plain_response_is_three_strings(decoded, read):
    assert decode_plain(base64.b64encode(decoded)) == read


@pytest.mark.parametrize(
    "response",
    [
        b"", b"=", b"*", b"not base64", b"AHVzZXI", base64.b64encode(b"user\0secret"), base64.b64encode(b"\0a\0b\0c"),
        base64.b64encode(b"\0\0secret"), base64.b64encode(b"\0user\0"), base64.b64encode(b"\0\xff\0secret"),
    ],
)  # fmt: skip
def test_a_malformed_plain_response_is_refused_without_a_trace_of_it(response):
    with pytest.raises(Refused) as refused:
        decode_plain(response)
    assert refused.value.reply is replies.AUTH_SYNTAX
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


# --- the compiled short cut against the general way -------------------------------------------------------------------


def outcome(parse):
    try:
        command = parse()
    except Refused as refused:
        return refused.reply.wire
    if hasattr(command, "sender"):
        sender = command.sender
        return sender.local_part, sender.domain, sender.email, command.size, command.eight_bit, command.smtputf8
    recipient = command.recipient
    return recipient.local_part, recipient.domain, recipient.email


LOCAL_PARTS = st.text(alphabet="aZ0.-_+!#$%&'*/=?^`{|}~\"\\ @,:;<>()[]\x01\x7fé", max_size=6)
DOMAINS = st.one_of(
    st.text(alphabet="aZ9.-_@[]:é \x00", max_size=8),
    st.sampled_from(
        ["example.com", "EXAMPLE.com", "l" * 63, "l" * 64, "a." * 127 + "a", "a." * 128 + "a", "[192.0.2.1]"]
    ),
)
ARGUMENTS = st.one_of(
    st.builds(
        "{}{}<{}{}{}{}{}".format,
        st.sampled_from(["FROM:", "from:", "TO:", "to:", "FROM", "FORM:", ""]),
        st.sampled_from(["", " ", " \t"]),
        LOCAL_PARTS,
        st.sampled_from(["@", "@", "@", "", "@@"]),
        DOMAINS,
        st.sampled_from([">", ">", ">", "", ">>"]),
        st.sampled_from(["", " ", " SIZE=1", "SIZE=1", "\tBODY=8BITMIME", " SMTPUTF8 X=1", " SIZE", "\n", " é"]),
    ).map(str.encode),
    st.binary(max_size=40),
)


@given(ARGUMENTS)
def test_the_short_cut_for_mail_never_differs_from_the_general_way(argument):
    short = outcome(lambda: parse_mail(argument))
    with mock.patch.object(commands, "plain_from", lambda argument: None):
        assert outcome(lambda: parse_mail(argument)) == short


@given(ARGUMENTS, st.booleans())
def test_the_short_cut_for_rcpt_never_differs_from_the_general_way(argument, smtputf8):
    short = outcome(lambda: parse_rcpt(argument, smtputf8=smtputf8))
    with mock.patch.object(commands, "plain_to", lambda argument: None):
        assert outcome(lambda: parse_rcpt(argument, smtputf8=smtputf8)) == short


KEYWORD = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*\Z")
VALUE = re.compile(rb"[!-<>-~\x80-\xff]+\Z")


def parameters_of(text: bytes) -> list[tuple[str, bytes | None]] | None:
    """RFC 5321 §4.1.2's grammar, word by word."""
    found: list[tuple[str, bytes | None]] = []
    for word in filter(None, text.replace(b"\t", b" ").split(b" ")):
        keyword, equals, value = word.partition(b"=")
        if not KEYWORD.match(keyword) or (equals and not VALUE.match(value)):
            return None
        found.append((keyword.decode().upper(), value if equals else None))
    return found


PIECES = [b"SIZE", b"bOdy", b"x-1", b"=", b" ", b"\t", b"7", b"-", b"\xc3\xa9", b"\r", b"\0", b"~"]


@given(st.lists(st.sampled_from(PIECES)))
def test_parameters_are_read_by_the_grammar(pieces):
    assert read_parameters(b"".join(pieces)) == parameters_of(b"".join(pieces))
