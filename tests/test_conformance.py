"""Checking and mending what does not conform, against Python's email as the reader."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.conformance import ENCODING, MAX_LINE, Nonconformance, fixed, problems_in

COMPLETE = b"From: a@b.example\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@b>\r\nMIME-Version: 1.0\r\n"
MISSING = (
    Nonconformance.MISSING_DATE_HEADER | Nonconformance.MISSING_MESSAGE_ID_HEADER | Nonconformance.MISSING_MIME_VERSION
)


def mended(content: bytes, wrong: Nonconformance, **options) -> bytes:
    return fixed(content, wrong, date=lambda: "Fri, 02 Jan 2026 00:00:00 +0000", message_id=lambda: "<2@b>", **options)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (COMPLETE + b"Subject: x\r\n\r\nbody\r\n", Nonconformance(0)),
        (b"Subject: x\r\n\r\nbody\r\n", MISSING),
        (COMPLETE + b"Subject\r\n\r\nbody\r\n", Nonconformance.MISSING_COLON_VALUE),
        (COMPLETE + b"no colon here\r\n\r\nbody\r\n", Nonconformance.MISSING_COLON_VALUE),
        (COMPLETE + b"Subject : x\r\n\r\nbody\r\n", Nonconformance.NAME_ENDS_WITH_SPACE),
        (COMPLETE + b"Subject: x\r\n\r\nbody\n", Nonconformance.NON_CANONICAL_LINE_ENDINGS),
        (COMPLETE + b"Subject: x\r\n\r\nbo\rdy\r\n", Nonconformance.NON_CANONICAL_LINE_ENDINGS),
        (COMPLETE + b"\r\n" + b"x" * (MAX_LINE + 1) + b"\r\n", Nonconformance.LINE_TOO_LONG),
        (COMPLETE + b"\r\n" + b"x" * MAX_LINE + b"\r\n", Nonconformance(0)),
        (COMPLETE + b"Subject:" + b" word" * 20 + b"\r\n\r\n", Nonconformance.LINE_TOO_LONG),
        (COMPLETE + "\r\nä\r\n".encode(), Nonconformance.NEEDS_TRANSFER_ENCODING),
        (COMPLETE + "Subject: ä\r\n\r\n".encode(), Nonconformance.NEEDS_TRANSFER_ENCODING),
        (COMPLETE.replace(b"1.0", b"2.0") + b"\r\n", Nonconformance.MISSING_MIME_VERSION),
        (COMPLETE.replace(b"1.0", b"1.0 (by hand)") + b"\r\n", Nonconformance(0)),
        (COMPLETE + b"Content-Type: nonsense\r\n\r\nx\r\n", Nonconformance.INVALID_MIME_HEADERS),
        (COMPLETE + b"Content-Transfer-Encoding: uue\r\n\r\nx\r\n", Nonconformance.INVALID_MIME_HEADERS),
        (b"", MISSING),
    ],
)
def test_problems_are_found_and_gone_once_mended(content, wrong):
    assert problems_in(content) == wrong
    if wrong:
        assert problems_in(mended(content, wrong)) & wrong & ~Nonconformance.INVALID_MIME_HEADERS == Nonconformance(0)


def test_missing_fields_leave_every_other_octet_as_it_is():
    content = b"Subject : x\r\nfolded:\r\n a\r\n\r\nb\xe4\r\n"
    assert mended(content, MISSING) == (
        b"Subject : x\r\nfolded:\r\n a\r\nDate: Fri, 02 Jan 2026 00:00:00 +0000\r\nMessage-ID: <2@b>\r\n"
        b"MIME-Version: 1.0\r\n\r\nb\xe4\r\n"
    )


def test_another_mime_version_is_replaced():
    assert mended(b"MIME-Version:\r\n 2.0\r\nA: b\r\n\r\nx", Nonconformance.MISSING_MIME_VERSION) == (
        b"A: b\r\nMIME-Version: 1.0\r\n\r\nx"
    )


def test_blanks_in_front_of_the_colon_go_and_lines_that_are_no_fields():
    wrong = Nonconformance.NAME_ENDS_WITH_SPACE | Nonconformance.MISSING_COLON_VALUE
    assert mended(b"Subject \t: x\r\nX-Empty\r\nno field at all\r\n\r\n y : z\r\n", wrong) == (
        b"Subject: x\r\nX-Empty: \r\n\r\n y : z\r\n"
    )


def test_every_part_of_a_multipart_is_encoded_and_reads_as_before():
    binary = bytes(range(256)) * 3
    content = (
        COMPLETE
        + "Subject: größer\r\nContent-Type: multipart/mixed; boundary=b\r\n".encode()
        + b"Content-Transfer-Encoding: 8bit\r\n\r\n"
        + "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nä long line ".encode()
        + b"x" * 200
        + b"\r\n--b\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n<p>\xe4</p>\r\n"
        + b"--b\r\nContent-Type: application/pdf\r\n\r\n"
        + binary.replace(b"\r", b"").replace(b"\n", b"")
        + b"\r\n--b--\r\n"
    )
    result = mended(content, ENCODING)
    assert problems_in(result) == Nonconformance(0)
    read = email.message_from_bytes(result, policy=email.policy.default)
    assert read["Subject"] == "größer"
    plain, html, pdf = read.iter_parts()
    assert plain.get_content().rstrip() == "ä long line " + "x" * 200
    assert html.get_content().rstrip() == "<p>ä</p>"
    assert pdf.get_content() == binary.replace(b"\r", b"").replace(b"\n", b"")


def test_the_character_set_of_text_that_does_not_say_is_guessed_only_where_asked():
    content = COMPLETE + b"\r\n\xe4\r\n"
    lossy = mended(content, Nonconformance.NEEDS_TRANSFER_ENCODING)
    guessed = mended(content, Nonconformance.NEEDS_TRANSFER_ENCODING, charsets=["iso-8859-1"])
    assert "\ufffd" in email.message_from_bytes(lossy, policy=email.policy.default).get_content()
    assert email.message_from_bytes(guessed, policy=email.policy.default).get_content() == "ä\r\n"


@given(st.binary(max_size=300), st.integers(0, 511))
def test_no_content_breaks_the_check_or_the_repair(content, bits):
    found = problems_in(content)
    result = mended(content, found & Nonconformance(bits))
    if found & ENCODING and bits == 511:
        assert result.isascii()


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=200), st.text("abü é=. \t", max_size=200)
)
def test_encoded_text_reads_as_before(subject, body):
    subject = " ".join(subject.split())
    content = COMPLETE + f"Subject: {subject}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n".encode()
    result = mended(content, problems_in(content) & ENCODING)
    read = email.message_from_bytes(result, policy=email.policy.default)
    assert read.get_content().rstrip("\r\n") == body.rstrip("\r\n")
