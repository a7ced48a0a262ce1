"""Messages: content, added fields, headers, queue names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import Content, Framer, stuff, unstuff
from gateway.mail import headers
from gateway.mail.message import Message, parse_queue_name
from gateway.policy.kumo.values import binary
from gateway.smtp.address import NULL_SENDER, POSTMASTER, parse_address

ID = "0" * 32


def received_content(data: bytes) -> Content:
    """What the session makes of a content on the wire (already stuffed, ending in CRLF)."""
    framer = Framer(1000)
    framer.start_content(10_000_000, 998)
    framer.feed(data + b".\r\n")
    content = framer.next_content()
    assert content is not None
    return content


def received(content: bytes, **options: Any) -> Message:
    return Message(ID, NULL_SENDER, [], received_content(stuff(content)), **options)


def on_the_wire(message: Message) -> bytes:
    return b"".join(message.wire().pieces())


LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"text", b"a: b", b" folded", "ü".encode(), b"To: x@y"]))
CONTENT = LINES.map(lambda lines: b"".join(line + b"\r\n" for line in lines))
HEADERS = st.lists(
    st.sampled_from([b"X-A: 1\r\n", b"Received: from x\r\n  by y\r\n", "X-Ü: ü\r\n".encode()]), max_size=3
)


@given(CONTENT, HEADERS)
def test_content_size_and_wire_agree_whatever_is_prepended(content: bytes, prepended: list[bytes]) -> None:
    message = received(content)
    for header in prepended:
        message.prepend(header)
    expected = b"".join(reversed(prepended)) + content
    assert message.data() == expected
    assert message.size == len(expected)
    assert unstuff(on_the_wire(message)) == expected
    assert message.wire().has_8bit == (not expected.isascii())


@given(st.binary(max_size=60) | st.text(alphabet="\r\n.a \0", max_size=20).map(str.encode))
def test_an_edited_content_cannot_end_the_data_early(data: bytes) -> None:
    message = received(b"x\r\n")
    message.set_data(data)
    wire = on_the_wire(message)
    assert wire.count(b"\r") == wire.count(b"\n") == wire.count(b"\r\n")
    assert not wire.startswith(b".\r\n") and b"\r\n.\r\n" not in wire
    assert message.data() == unstuff(wire)
    assert message.size == len(message.data())


@given(CONTENT)
def test_an_edited_content_is_the_content(data: bytes) -> None:
    message = received(b"old\r\n")
    message.prepend(b"X: old\r\n")
    message.set_data(data)
    assert message.data() == data


def test_an_untouched_body_is_not_copied() -> None:
    content = received_content(b"Subject: x\r\n\r\n" + b"text\r\n" * 1000)
    message = Message(ID, NULL_SENDER, [], content)
    message.prepend(b"Received: x\r\n")
    assert message.first_header("subject") == "x"
    assert all(one is other for one, other in zip(message.wire().pieces()[1:], content.pieces(), strict=True))


@pytest.mark.parametrize("fix", [True, False])
def test_an_unsafe_body_is_repaired(fix: bool) -> None:
    message = Message(ID, NULL_SENDER, [], received_content(b"a\n.\r\nb\rc\r\n"), fix_line_endings=fix)
    wire = on_the_wire(message)
    assert b"\n.\r\n" not in wire
    assert (b"b\rc" in wire) == (not fix)
    assert message.size == len(unstuff(wire))


@pytest.mark.parametrize("header", [b"", b".x\r\n", b"X: y", b"X: y\n"])
def test_only_whole_fields_can_be_prepended(header: bytes) -> None:
    with pytest.raises(ValueError, match="not a header field"):
        received(b"x\r\n").prepend(header)


# --- header -----------------------------------------------------------------------------------------------

MAIL = (
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n of today\r\n"
    b"X-Twice: one\r\nno field at all\r\nx-twice : two\r\n"
    b"Raw: gr\xc3\xbc\xc3\x9fe\r\nBroken: =?nowhere?b?xx?=\r\n"
    b"\r\nSubject: of the body\r\n"
)


def test_headers_are_found_in_any_case_unfolded_and_decoded() -> None:
    message = received(MAIL)
    assert message.first_header("SUBJECT") == "Grüße of today"
    assert message.all_headers("X-Twice") == ["one", "two"]
    assert message.first_header("raw") == "grüße"
    assert message.first_header("broken") == "=?nowhere?b?xx?="
    assert message.first_header("absent") is None
    assert message.all_headers("subject") == ["Grüße of today"]


def test_headers_keep_their_spelling_and_order() -> None:
    names = [name for name, _ in received(MAIL).headers()]
    assert names == ["Subject", "X-Twice", "no field at all", "x-twice", "Raw", "Broken"]


def test_prepended_fields_are_headers_too() -> None:
    message = received(MAIL)
    assert message.first_header("subject") == "Grüße of today"
    message.prepend(b"Subject: first\r\n")
    assert message.first_header("subject") == "first"


def test_the_header_block_of_a_message_without_body_is_all_of_it() -> None:
    assert received(b"A: b\r\n").header_block() == b"A: b\r\n"
    assert received(b"\r\nA: b\r\n").header_block() == b""
    assert received(b"").header_block() == b""


def test_the_header_block_is_found_across_chunks() -> None:
    field = b"A: " + b"b" * 900 + b"\r\n"
    stream = field * 12 + b"\r\nC: d\r\n.\r\n"
    framer = Framer(1000)
    framer.start_content(10_000_000, 998)
    for start in range(0, len(stream), 5000):
        framer.feed(stream[start : start + 5000])
        content = framer.next_content()
    assert content is not None and len(content.pieces()) > 2
    assert Message(ID, NULL_SENDER, [], content).header_block() == field * 12


def test_dots_in_the_header_are_unstuffed() -> None:
    assert received(b"A: b\r\n.c: d\r\n\r\n").header_block() == b"A: b\r\n.c: d\r\n"


@given(st.binary(max_size=80) | st.text(alphabet="A:b \t\r\n", max_size=30).map(str.encode))
def test_fields_joined_are_the_block(block: bytes) -> None:
    fields = headers.parse(block)
    assert b"".join(field.raw for field in fields) == block
    for field in fields:
        assert isinstance(field.value, str)


@pytest.mark.parametrize(
    ("name", "value", "encode", "expected"),
    [
        ("X-A", "b", False, b"X-A: b\r\n"),
        ("X-A", "b\r\n", False, b"X-A: b\r\n"),
        ("X-A", "b\r\n c", False, b"X-A: b\r\n c\r\n"),
        ("X-A", "grüße", False, "X-A: grüße\r\n".encode()),
        ("X-A", "grüße", True, b"X-A: =?UTF-8?q?gr=C3=BC=C3=9Fe?=\r\n"),
    ],
)
def test_writing_a_field(name: str, value: str, encode: bool, expected: bytes) -> None:
    assert headers.field(name, value, encode=encode) == expected


def test_an_encoded_field_is_folded_and_reads_back() -> None:
    for text in ("word " * 40 + "end", "größer = _wörter? " * 20 + "Ende"):
        field = headers.field("X-Long", text, encode=True)
        assert all(len(line) <= 76 for line in field.split(b"\r\n"))
        assert headers.decoded(field.partition(b":")[2]) == text


def test_what_is_no_utf8_is_what_it_was() -> None:
    octets = bytes(one for one in range(1, 256) if one not in b"\r\n")
    assert binary(headers.decoded(b" " + octets + b"\r\n ")) == octets
    assert headers.decoded(b" caf\xe9  a\r\n\tb") == "caf\udce9  a b"


@pytest.mark.parametrize(
    ("name", "value"), [("X A", "b"), ("", "b"), ("X:", "b"), ("X", "b\r\nInjected: c"), ("X", "b\nc"), ("X", "b\rc")]
)
def test_nothing_breaks_out_of_a_field(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="header field"):
        headers.field(name, value)


# --- queue names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({}, "example.com"),
        ({"tenant": "t"}, "t@example.com"),
        ({"campaign": "c"}, "c:@example.com"),
        ({"campaign": "c", "tenant": "t"}, "c:t@example.com"),
        ({"campaign": "c", "tenant": "t", "routing_domain": "r"}, "c:t@example.com!r"),
        ({"routing_domain": "[10.0.0.1]:25"}, "example.com![10.0.0.1]:25"),
        ({"queue": "null", "tenant": "t"}, "null"),
    ],
)
def test_queue_names(meta: dict[str, Any], name: str) -> None:
    recipients = [parse_address("a@example.com"), parse_address("b@other.example")]
    assert Message(ID, NULL_SENDER, recipients, data=b"", meta=meta).queue_name() == name


def test_another_recipient_has_a_queue_of_its_own() -> None:
    recipients = [parse_address("a@example.com"), parse_address("b@other.example")]
    message = Message(ID, NULL_SENDER, recipients, data=b"")
    assert message.queue_name(recipients[1]) == "other.example"


def test_postmaster_has_an_empty_domain() -> None:
    assert Message(ID, NULL_SENDER, [POSTMASTER], data=b"").queue_name() == ""


@pytest.mark.parametrize("key", ["queue", "tenant", "campaign", "routing_domain"])
def test_queue_metadata_must_be_strings(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        Message(ID, NULL_SENDER, [], data=b"", meta={key: 1}).queue_name()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("example.com", (None, None, "example.com", None)),
        ("t@example.com", (None, "t", "example.com", None)),
        ("c:@example.com", ("c", None, "example.com", None)),
        ("c:t@example.com!r", ("c", "t", "example.com", "r")),
        ("example.com![::1]:25", (None, None, "example.com", "[::1]:25")),
    ],
)
def test_queue_names_are_read_back(name: str, parts: tuple[str | None, ...]) -> None:
    assert parse_queue_name(name) == parts
