"""Where the parts of a message are, whatever its boundary and however many octets the scanner compares at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import compare_at_once, outline, scan_report

MOST = compare_at_once(32)

# Of mailers, and some that have no rare octet, one octet only, three of a kind, or more octets than are looked at.
BOUNDARIES = st.one_of(
    st.sampled_from(
        [b"----=_Part_4711_0815.1751364000", b"000000000000f1c2d305e8a1b2c3", b"===============7330845974216740156==",
         b"_000_DM6PR02MB4711ABCDEF_", b"Apple-Mail=_0C3B2A1F-8E5D-4C7B", b"tsOsTdHNUZQcU9Ye", b"B", b"--", b"aaa",
         b"_", b"a_b", b"x" * 70, b"y_" * 60, b"b" * 998, b"'()+_,-./:=?", b"\xe2\x82\xac_8"]
    ),
    st.text("ab_-=0.", min_size=1, max_size=40).map(str.encode),
)  # fmt: skip


@pytest.fixture(params=[octets for octets in (32, 16, 0) if octets <= MOST], ids=lambda octets: f"{octets} octets")
def at_once(request: pytest.FixtureRequest) -> Iterator[int]:
    assert compare_at_once(request.param) == request.param
    yield request.param
    compare_at_once(MOST)


@st.composite
def multiparts(draw: st.DrawFn) -> tuple[bytes, int, bytes]:
    """A message, where its body begins, its boundary."""
    boundary = draw(BOUNDARIES)
    pieces = st.one_of(
        st.sampled_from(
            [b"\n", b"\r\n", b"--", b"\n--", b"\r\n-", b" ", boundary, b"--" + boundary, b"\n--" + boundary,
             b"\r\n--" + boundary, b"\n--" + boundary + b"--", b"\n--" + boundary + b" \t\r\n",
             b"\n--" + boundary[:-1] + b"\n", b"\n--" + boundary + b"x\n", b"\n--" + boundary + b"\nX: y\n\n"]
        ),
        st.builds(
            lambda filling, times: filling * times,
            st.sampled_from([b"x", b"_", b"-", b"=", b"\n", b"a_", b"00", b"x" * 75 + b"\r\n"]),
            st.integers(1, 200),
        ),
    )  # fmt: skip
    header = b'Content-Type: multipart/mixed; boundary="%b"\n\n' % boundary
    return header + b"".join(draw(st.lists(pieces, max_size=25))), len(header), boundary


@given(multiparts())
def test_parts_are_where_lines_delimit_them(multipart: tuple[bytes, int, bytes]) -> None:
    message, body, boundary = multipart
    expected = reference.part_places(message, body, boundary)[:32]
    for octets in (32, 16, 0):
        compare_at_once(octets)
        assert [place[1:] for place in outline(message)[1:]] == expected
    compare_at_once(MOST)


@pytest.mark.parametrize("boundary", [b"----=_Part_1", b"AbCdEf", b"00000000"])
def test_a_part_is_found_wherever_it_begins(at_once: int, boundary: bytes) -> None:
    head = b"Content-Type: multipart/related; boundary=%b\n\n" % boundary
    fields = b"Final-Recipient: rfc822; u@far.example\nAction: failed\nFeedback-Type: abuse\n"
    names = (b"delivery-status", b"Global-DELIVERY-Status", b"FEEDback-rePORT")
    for filling, name in itertools.product(range(420), names):
        part = b"\n--%b\nContent-Type: message/%b\n\n%b" % (boundary, name, fields)
        message = head + b"x" * filling + part + b"y" * (filling % 7 * 40)
        report = scan_report(message, null_sender=True)
        assert report is not None and report.kind == ("arf" if name in names[2:] else "dsn")
        assert scan_report(message.replace(b"\n--", b"\n-+"), null_sender=True) is None


@pytest.mark.parametrize("text", [b"Hi. This is the qmail-send program", b"SGkuIFRoaXMgaXMgdGhlIHFtYWls"])
def test_a_text_in_qsbmf_is_found_wherever_it_begins(at_once: int, text: bytes) -> None:
    for filling in range(600):
        head = b"Content-Type: multipart/mixed; boundary=B\n\n" + b"H" * (filling % 3) + b"\n--B\n"
        message = head + b"X: " + b"H" * filling + b"\n" * 60 + text
        report = scan_report(message, null_sender=True)
        place = message.index(b"\n\n", len(head)) + 1 - message.index(b"\n\n") - 2
        assert (report is not None and report.candidate == "qsbmf") == (place < 512)
        assert scan_report(message.replace(b"\n\n", b"\nX: y\n\nB"), null_sender=True) is None


@pytest.mark.parametrize("times", range(40))
def test_a_part_is_found_behind_octets_that_are_not_as_rare_as_was_thought(at_once: int, times: int) -> None:
    filling = b"_x" * times + b"\n-_" + b"y" * times
    message = b"Content-Type: multipart/mixed; boundary=a_b\n\n" + b"--a_b\n\n%b\n--a_b\n\n_\n" % filling * 3
    places = reference.part_places(message, message.index(b"--"), b"a_b")
    assert len(places) == 6
    assert [place[1:] for place in outline(message)[1:]] == places


@pytest.mark.parametrize("boundary", [b"----=_Part_1", b"AbCdEf", b"00000000"])
def test_each_part_is_found_once(at_once: int, boundary: bytes) -> None:
    header = b"Content-Type: multipart/mixed; boundary=%b\n\n" % boundary
    for filling in range(160):
        part = b"\n--%b\n\n%b" % (boundary, b"x" * filling)
        message = header + part * 5 + b"y" * 300
        places = reference.part_places(message, len(header), boundary)
        assert len(places) == 5
        assert [place[1:] for place in outline(message)[1:]] == places


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_the_header_section_is_read_wherever_its_lines_begin(at_once: int, ends: bytes) -> None:
    body = b"--B%bContent-Type: message/feedback-report%b%bFeedback-Type: abuse" % (ends, ends, ends)
    for filling in range(300):
        header = b"From: %b%bCc: c%b" % (b"x" * filling, ends, ends)
        header += b"Content-Type: multipart/report;%b boundary=B%bSubject: s%b%b" % (ends, ends, ends, ends)
        report = scan_report(header + body)
        assert report is not None and report.kind == "arf"
        text = scan_report(
            b"A: " + b"x" * filling + ends + b"x-FAILED-recipients : u@b" + ends + ends, null_sender=True
        )
        assert text is not None and text.candidate == "x_failed_recipients"
        assert (
            scan_report(b"A: " + b"x" * filling + ends + ends + b"X-Failed-Recipients: u@b", null_sender=True) is None
        )
