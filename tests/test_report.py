"""The report scanner: what counts as a report, which fields it has, and that no input makes it slow, big or wrong."""

from __future__ import annotations

import base64
import mmap
import quopri
import re
import tracemalloc
from pathlib import Path

import pytest
import reference
from fuzz.fuzz_report import one_input
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import UNREADABLE_REASONS, Report, scan_report

CORPUS = Path(__file__).parent / "corpus" / "reports"

GROUP = "Final-Recipient: rfc822; u@far.example\nAction: failed\nStatus: 5.1.1\n"
STATUS = f"Reporting-MTA: dns; mx.far.example\n\n{GROUP}"
FEEDBACK = "Feedback-Type: abuse\nVersion: 1\nUser-Agent: Loop/1.0\n"
ORIGINAL = "Content-Type: message/rfc822\n\nFrom: <s@near.example>\nSubject: hi\n\nbody\n"


def status_part(fields: str = STATUS) -> str:
    return f"Content-Type: message/delivery-status\n\n{fields}"


def feedback_part(fields: str = FEEDBACK) -> str:
    return f"Content-Type: message/feedback-report\n\n{fields}"


def message(*parts: str, kind: str = "multipart/report; report-type=delivery-status", boundary: str = "B") -> bytes:
    body = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f'Subject: x\nContent-Type: {kind}; boundary="{boundary}"\n\n{body}--{boundary}--\n'.encode()


def scanned(octets: bytes, *, dot_stuffed: bool = False, null_sender: bool = False, tolerant: bool = False) -> Report:
    report = scan_report(octets, dot_stuffed=dot_stuffed, null_sender=null_sender, tolerant=tolerant)
    assert report is not None
    return report


def result(report: Report | None) -> tuple:
    if report is None:
        return ()
    return report.kind, report.reason, report.per_message, report.per_recipient, report.feedback


def reason(octets: bytes) -> str | None:
    report = scan_report(octets)
    assert report is None or report.kind == "unreadable"
    return report and report.reason


# --- what is a report ---


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\n",
        b"Content-Type: text/plain\n\nhello\n",
        b"Content-Type: multipart/report",
        message(status_part(), kind="multipart/mixed"),
        message(status_part(), kind="multipart/reports"),
        message(status_part(), kind="x-multipart/report"),
        message("Content-Type: message/disposition-notification\n\nFinal-Recipient: rfc822; a@b\n",
                kind="multipart/report; report-type=disposition-notification"),
        b"Content-Type: text/plain\n" + message(status_part()),
    ],
)  # fmt: skip
def test_other_mail_is_no_report(octets: bytes) -> None:
    report = scan_report(octets)
    assert report is None or report.kind == "unreadable"


def test_without_a_report_type_the_part_decides() -> None:
    assert scanned(message(status_part(), kind="multipart/report")).kind == "dsn"
    assert scanned(message(feedback_part(), kind="multipart/report")).kind == "arf"


def test_with_both_parts_the_report_type_decides() -> None:
    both = (feedback_part(), status_part())
    assert scanned(message(*both, kind="multipart/report; report-type=delivery-status")).kind == "dsn"
    assert scanned(message(*both, kind="multipart/report; report-type=Feedback-Report")).kind == "arf"
    assert scanned(message(*both, kind="multipart/report")).kind == "arf"


def test_an_odd_report_type_is_no_obstacle_for_feedback() -> None:
    assert scanned(message(feedback_part(), kind="multipart/report; report-type=abuse")).kind == "arf"


RECEIPT = "multipart/report; report-type=disposition-notification"


@pytest.mark.parametrize(
    "kind", [RECEIPT, RECEIPT + " ", RECEIPT.title(), 'multipart/report; x=y; report-type="disposition-notification"']
)
def test_a_read_receipt_is_no_report_whatever_is_in_it(kind: str) -> None:
    receipt = message(feedback_part(), status_part(), kind=kind)
    for how in ({}, {"tolerant": True}, {"null_sender": True}, {"listed_sender": True}):
        assert scan_report(receipt, **how) is None
    wrapped = message(receipt.decode(), kind="multipart/mixed", boundary="C")
    assert scan_report(wrapped, null_sender=True) is None


@pytest.mark.parametrize("kind", [RECEIPT + "s", RECEIPT + '"', RECEIPT.replace(";", "; x=; x-", 1)])
def test_what_only_begins_like_a_read_receipt_is_none(kind: str) -> None:
    assert scanned(message(feedback_part(), kind=kind)).kind == "arf"


def test_multipart_mixed_counts_only_with_a_null_sender() -> None:
    mixed = message(status_part(), kind="multipart/mixed")
    assert scan_report(mixed) is None
    report = scanned(mixed, null_sender=True)
    assert (report.kind, report.mixed) == ("dsn", True)
    assert scan_report(message("\ntext", kind="multipart/mixed"), null_sender=True) is None


def test_a_complaint_in_multipart_mixed_counts_from_anybody_but_not_by_the_letter() -> None:
    mixed = message("\ntext", feedback_part(), kind="multipart/mixed")
    assert scan_report(mixed) is None
    for how in ({"tolerant": True}, {"null_sender": True}, {"listed_sender": True}):
        report = scan_report(mixed, **how)
        assert report is not None
        assert (report.kind, report.how, report.mixed) == ("arf", "mixed", False)


@pytest.mark.parametrize(
    ("expected", "octets"),
    [
        ("no_boundary", b"Content-Type: multipart/report; report-type=delivery-status\n\n--B\n"),
        ("no_boundary", b"Content-Type: multipart/report; boundary=\"\"\n\n--\n"),
        ("no_parts", b"Content-Type: multipart/report; boundary=B\n\n--C\n"),
        ("no_parts", b"Content-Type: multipart/report; boundary=B"),
        ("too_many_parts", message(*["\n"] * 20_000, status_part())),
        ("too_many_parts", message("--Bx\n" * 20_000, status_part())),
        ("no_report_part", message("\ntext\n")),
        ("no_report_part", message(status_part(), kind="multipart/report; report-type=feedback-report")),
        ("no_recipient", message(status_part("Reporting-MTA: dns; mx\n"))),
        ("no_recipient", message(status_part("Reporting-MTA: dns; mx\n\nFinal-Recipient:\nAction: failed\n"))),
        ("no_recipient", message(status_part("Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; a@b\n"))),
        ("no_feedback_type", message(feedback_part("Version: 1\n"), kind="multipart/report")),
        (None, b"Content-Type: multipart/report; report-type=disposition-notification\n\n"),
    ],
)  # fmt: skip
def test_an_unreadable_report_says_why(expected: str | None, octets: bytes) -> None:
    assert reason(octets) == expected
    assert expected is None or expected in UNREADABLE_REASONS


# --- Content-Type and parts ---


@pytest.mark.parametrize(
    "kind",
    [
        "Multipart/REPORT; Report-Type=Delivery-Status; BOUNDARY=B1",
        'multipart/report; report-type="delivery-status"; boundary="B1"',
        "multipart/report;boundary=B1;report-type=delivery-status",
        "multipart/report;; ; boundary=B1;",
        "multipart / report ; boundary = B1",
        '(a comment; boundary=X) multipart/report; boundary=(x)"B1"(y)',
        'multipart/report; x="; boundary=X"; boundary=B1',
        'multipart/report; boundary="B\\1"',
        "multipart/report;\n\tboundary=\n B1",
        "multipart/report; boundary=B1; boundary=X",
        "multipart/report; boundary*=us-ascii'en'%421",
        "multipart/report; boundary*0=B; boundary*1=1",
        "multipart/report; boundary*0=B; boundary*1=1; boundary*1=2; boundary*3=X; boundary*16=X; boundary*1000=X",
        "multipart/report; boundary*0=X; boundary=B1; boundary*=X",
        "multipart/report; boundary*1=1; boundary*0*=''%42",
        'multipart/report; boundary="B1 "',
    ],
)
def test_content_type_is_read_by_rfc_2045_and_2231(kind: str) -> None:
    octets = f"Content-Type: {kind}\n\n--B1\n{status_part()}\n--B1--\n".encode()
    assert scanned(octets).kind == "dsn"


@pytest.mark.parametrize("boundary", ["=_x", "a/b", "a:b", "a?b", "a'()+_,-.", "0" * 200])
def test_odd_boundaries_need_no_quotes_where_the_meaning_is_plain(boundary: str) -> None:
    kind = boundary if "(" not in boundary else f'"{boundary}"'
    octets = f"Content-Type: multipart/report; boundary={kind}\n\n--{boundary}\n{status_part()}\n--{boundary}--\n"
    assert scanned(octets.encode()).kind == "dsn"


@pytest.mark.parametrize("delimiter", ["--B \t", "--B\r", "--B"])
def test_delimiter_lines_may_end_in_blanks(delimiter: str) -> None:
    octets = f"Content-Type: multipart/report; boundary=B\n\n{delimiter}\n{status_part()}"
    assert scanned(octets.encode()).kind == "dsn"


@pytest.mark.parametrize("line", ["--Bx", "--B x", " --B", "x--B", "--b", "-B", "--B--x", "--B\r\r", ">--B"])
def test_lookalikes_of_delimiter_lines_are_content(line: str) -> None:
    report = scanned(message(status_part(f"{STATUS}X-A: 1\n{line}\nX-B: 2\n")))
    assert report.per_recipient is not None
    assert "x-b" in report.per_recipient[0]


def test_what_stands_behind_the_close_delimiter_does_not_count() -> None:
    assert reason(message("\ntext") + f"--B\n{status_part()}\n--B--\n".encode()) == "no_report_part"


def test_the_first_part_of_a_kind_counts() -> None:
    second = status_part("Reporting-MTA: dns; second\n\n" + GROUP)
    report = scanned(message(status_part(), second, ORIGINAL, ORIGINAL))
    assert report.per_message == {"reporting-mta": "dns; mx.far.example"}


def test_only_direct_children_count() -> None:
    inner = message(status_part(), boundary="I").decode()
    assert reason(message(inner.partition("\n")[2])) == "no_report_part"


@pytest.mark.parametrize("encoding", ["base64", "Quoted-Printable (sic)"])
def test_encoded_parts_are_decoded(encoding: str) -> None:
    fields = STATUS + "X-Ä: ö\nX-Long: " + "word " * 30 + "end\n"
    octets = fields.encode()
    encoded = base64.encodebytes(octets) if encoding == "base64" else quopri.encodestring(octets)
    part = f"Content-Type: message/delivery-status\nContent-Transfer-Encoding: {encoding}\n\n{encoded.decode()}"
    assert result(scan_report(message(part))) == result(scan_report(message(status_part(fields))))


# --- fields ---


def test_values_are_unfolded_and_otherwise_as_they_are() -> None:
    report = scanned(message(status_part(STATUS + "Diagnostic-Code:\tsmtp;  <a>\n\t\n  =?x?q?y?=\t\n\tend \t\nX-E:\n")))
    assert report.per_recipient is not None
    assert report.per_recipient[0]["diagnostic-code"] == "smtp;  <a> =?x?q?y?= end"
    assert report.per_recipient[0]["x-e"] == ""


def test_of_repeated_fields_the_first_counts_in_bounces_and_all_in_complaints() -> None:
    report = scanned(message(status_part(STATUS + "X-A: 1\nx-a: 2\n")))
    assert report.per_recipient is not None
    assert report.per_recipient[0]["x-a"] == "1"
    report = scanned(message(feedback_part(FEEDBACK + "X-A: 1\nx-a: 2\n"), kind="multipart/report"))
    assert report.feedback is not None
    assert report.feedback["x-a"] == ["1", "2"]


def test_octets_that_are_not_utf8_survive_as_surrogates() -> None:
    report = scanned(message(status_part(STATUS + "X-A: @\n")).replace(b"@\n", b"\xe4\xc3\xa4\x00\r.\n"))
    assert report.per_recipient is not None
    assert report.per_recipient[0]["x-a"].encode("utf-8", "surrogateescape") == b"\xe4\xc3\xa4\x00\r."


def test_lines_that_are_no_fields_are_skipped() -> None:
    octets = message(status_part("no field\n" + STATUS + "X A: 1\n: 2\n\x01: 3\n continued\nX-B \t: 4\n"))
    report = scanned(octets)
    assert report.per_recipient is not None
    assert set(report.per_recipient[0]) == {"final-recipient", "action", "status", "x-b"}


@pytest.mark.parametrize(
    ("fields", "per_message", "groups"),
    [
        (f"A: 1\n\n{GROUP}\n{GROUP}", {"a": "1"}, 2),
        (f"\n\nA: 1\n\n\n\n{GROUP}\n\n\n{GROUP}\n\n", {"a": "1"}, 2),
        (f"A: 1\n{GROUP}{GROUP}", {"a": "1"}, 2),
        (f"{GROUP}\n{GROUP}", {}, 2),
        (f"A: 1\n\nB: 2\n{GROUP}\nC: 3\n", {"a": "1"}, 1),
        (f"A: 1\nStatus: 5.0.0\n\n{GROUP}", {"a": "1", "status": "5.0.0"}, 1),
        (f"A: 1\n\nOriginal-Recipient: rfc822; x@y\n{GROUP}Original-Recipient: rfc822; z@y\n{GROUP}", {"a": "1"}, 2),
    ],
)
def test_groups_are_told_apart(fields: str, per_message: dict[str, str], groups: int) -> None:
    report = scanned(message(status_part(fields)))
    assert report.per_message == per_message
    assert report.per_recipient is not None
    assert len(report.per_recipient) == groups


def test_the_original_is_found_and_its_header_fields_read() -> None:
    octets = message(status_part(), ORIGINAL)
    report = scanned(octets)
    assert report.original is not None
    start, end = report.original
    assert octets[start:end] == b"From: <s@near.example>\nSubject: hi\n\nbody\n"
    assert report.original_fields(octets) == [("From", "<s@near.example>"), ("Subject", "hi")]
    with pytest.raises(ValueError, match="not the message"):
        report.original_fields(octets[: end - 1])


def test_encoded_header_sections_of_originals_are_decoded() -> None:
    encoded = base64.encodebytes(b"From: <s@near.example>\nX: 1\n").decode()
    part = f"Content-Type: text/rfc822-headers\nContent-Transfer-Encoding: base64\n\n{encoded}"
    octets = message(status_part(), part)
    assert scanned(octets).original_fields(octets) == [("From", "<s@near.example>"), ("X", "1")]


def test_any_buffer_can_be_scanned(tmp_path: Path) -> None:
    octets = message(status_part(), ORIGINAL)
    path = tmp_path / "message"
    path.write_bytes(octets)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for buffer in (octets, bytearray(octets), memoryview(octets), mapped):
            report = scanned(buffer)
            assert result(report) == result(scan_report(octets))
            assert report.original_fields(buffer)
    with pytest.raises(TypeError):
        scan_report("text")  # type: ignore[arg-type]


# --- against the standard library ---

GRAPHIC = "".join(map(chr, range(33, 127)))
NAMES = st.text(GRAPHIC.replace(":", "").lower(), min_size=1, max_size=12).map("x-{}".format)
WORDS = st.lists(st.text(GRAPHIC, min_size=1, max_size=20), min_size=1, max_size=8)
FIELDS = st.dictionaries(NAMES, WORDS, max_size=6)
BOUNDARIES = st.text("Bb0'+_,./:=?-", min_size=1, max_size=70)
FOLDS = st.sampled_from([" ", "\n ", "\n\t", "\n  "])


@st.composite
def blocks(draw: st.DrawFn, first: str = "") -> str:
    lines = [f"{name}: {draw(FOLDS).join(words)}\n" for name, words in draw(FIELDS).items()]
    return first + "".join(lines)


@st.composite
def reports(draw: st.DrawFn) -> bytes:
    status = [draw(blocks("Reporting-MTA: dns; mx\n")), *draw(st.lists(blocks(GROUP), min_size=1, max_size=4))]
    parts = [
        draw(st.sampled_from(["\nHello,\n", "Content-Type: text/plain\n\n--b\n--Bx\n", ""])),
        status_part("\n".join(status)),
        feedback_part(draw(blocks(FEEDBACK))),
        ORIGINAL,
    ]
    kind = "multipart/report" + draw(
        st.sampled_from(["", "; report-type=delivery-status", "; report-type=feedback-report"])
    )
    octets = message(*draw(st.permutations(parts)), kind=kind, boundary=draw(BOUNDARIES))
    return octets.replace(b"\n", b"\r\n") if draw(st.booleans()) else octets


@given(reports())
def test_generated_reports_read_as_stdlib_reads_them(octets: bytes) -> None:
    blocks, feedback = reference.report_fields(octets)
    report = scanned(octets)
    if report.kind == "arf":
        assert report.feedback is not None
        assert [(name, value) for name, values in report.feedback.items() for value in values] == feedback
    else:
        assert report.per_message == dict(blocks[0])
        assert report.per_recipient == [dict(block) for block in blocks[1:]]


@given(reports())
def test_line_ends_and_dot_stuffing_do_not_change_the_result(octets: bytes) -> None:
    crlf = re.sub(rb"\r?\n", b"\r\n", octets)
    stuffed = re.sub(rb"(?m)^\.", b"..", crlf)
    expected = result(scan_report(octets))
    assert result(scan_report(crlf)) == expected
    assert result(scan_report(stuffed, dot_stuffed=True)) == expected


PIECES = st.sampled_from(
    [b"--B", b"--B--", b"--", b"\r\n", b"\n", b"\n\n", b"\r", b" ", b"\t", b":", b";", b"=", b'"', b"(", b")", b"\\",
     b"%42", b"'", b"*0*=", b"Content-Type: multipart/report; boundary=B\n\n", b"Content-Type: ", b".", b"=0", b"QQ=",
     b"message/delivery-status", b"message/feedback-report", b"Content-Transfer-Encoding: base64", b"quoted-printable",
     b"\xff\x00", GROUP.encode(), FEEDBACK.encode(), ORIGINAL.encode(), b"X-Failed-Recipients: u@far.example\n",
     b"Hi. This is the program\n\n", b"<u@far.example>:\n", b"550 5.1.1 no", b"; report-type=delivery-status",
     b"--- copy\n", b"X-HmXmrOriginalRecipient: u@far.example\n", b"text/html", b"; charset=utf-8", b"<br>&amp;"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=60).map(b"".join), st.booleans(), st.booleans())
def test_no_bytes_break_the_scanner(octets: bytes, dot_stuffed: bool, null_sender: bool) -> None:
    one_input(memoryview(octets))
    for start in (b"", b"Content-Type: multipart/report; boundary=B\n\n--B\nContent-Type: message/delivery-status\n"):
        report = scan_report(start + octets, dot_stuffed=dot_stuffed, null_sender=null_sender)
        if report is not None:
            assert (report.reason is None) == (report.kind != "unreadable")
            report.original_fields(start + octets)


# --- hostile input: were any of these quadratic, it would outlast the test's time limit ---

MANY = 400_000


@pytest.mark.parametrize(
    "octets",
    [
        message(status_part(), *["\nx"] * MANY),
        message(status_part(), *[""] * MANY),
        message(*["\nx" * 40] * 19_000, status_part()),
        message(status_part(STATUS + "--Bx\n" * MANY)),
        message(status_part(STATUS + "--" * MANY)),
        message(status_part(), boundary="-" * 900).replace(b"\n\n", b"\n\n" + b"-" * 901 * 999 + b"\n", 1),
        message(*[f"Content-Type: multipart/mixed; boundary=B{n}\n\n--B{n}\n" for n in range(5000)], status_part()),
        b"X: " + b"x" * 9 * MANY + b"\n" + message(status_part()),
        b"X:\n" + b" x\n" * MANY + message(status_part()),
        b"x" * 9 * MANY + message(status_part()),
        b"Y: 1\n" * MANY + message(status_part()),
        message(status_part(STATUS + "X:" + "\n y" * MANY + "\n")),
        message(status_part("x" * 9 * MANY + "\n" + STATUS)),
        message(status_part("\n" * 9 * MANY + STATUS)),
    ],
    ids=["parts", "empty parts", "parts before", "lookalikes", "dashes", "dash boundary", "levels", "long header",
         "folded header", "no colon", "headers", "folded field", "long line", "empty lines"],
)  # fmt: skip
def test_hostile_messages_are_read_in_linear_time(octets: bytes) -> None:
    assert scanned(octets).kind == "dsn"


def test_hostile_levels_from_the_null_reverse_path_are_read_in_linear_time() -> None:
    levels = [f"Content-Type: multipart/mixed; boundary=B{n}\n\n--B{n}\n" for n in range(5000)]
    assert scan_report(message(*levels, "x\n" * MANY, kind="multipart/mixed"), null_sender=True) is None


@pytest.mark.parametrize("filler", ["(", "((", '"', "\\", ";", "; boundary*0=X", "; x=(", ";;=", "\n ", "a"])
def test_hostile_content_types_are_read_in_linear_time(filler: str) -> None:
    octets = f"Content-Type: multipart/report{filler * MANY}; boundary=B\n\n--B\n{status_part()}".encode()
    report = scan_report(octets)
    assert report is None or report.kind == "unreadable"


def test_what_is_kept_of_hostile_counts_is_bounded() -> None:
    groups = scanned(message(status_part(STATUS + f"\n{GROUP}" * 20_000)))
    fields = scanned(message(status_part(STATUS + "".join(f"X-{n}: 1\n" for n in range(150_000)))))
    repeated = scanned(message(feedback_part(FEEDBACK + "X: 1\n" * 150_000), kind="multipart/report"))
    assert groups.truncated and fields.truncated and repeated.truncated
    assert groups.per_recipient is not None and len(groups.per_recipient) == 10_000
    assert fields.per_recipient is not None and len(fields.per_recipient[0]) <= 100_000
    assert repeated.feedback is not None and len(repeated.feedback["x"]) <= 100_000


def test_what_is_kept_of_encoded_groups_is_bounded() -> None:
    many = base64.encodebytes(f"\n{GROUP}".encode() * 20_000).decode()
    report = scanned(message(status_part(f"Reporting-MTA: dns; mx\n\n{many}")), tolerant=True)
    assert report.truncated and report.per_recipient is not None
    assert len(report.per_recipient) == 10_000


def test_parts_that_are_not_looked_at_are_told_of() -> None:
    report = scanned(message(status_part(), *["\nx"] * 20_000))
    assert (report.kind, report.truncated) == ("dsn", True)
    assert not scanned(message(status_part(), ORIGINAL, *["\nx"] * 20_000)).truncated  # nothing more is wanted


def test_a_message_that_is_no_multipart_is_dismissed_without_allocating() -> None:
    octets = b"Content-Type: text/plain\n\n" + b"x\n" * MANY
    tracemalloc.start()
    try:
        scan_report(octets)
        assert tracemalloc.get_traced_memory()[1] < 1000
    finally:
        tracemalloc.stop()


def test_what_once_went_wrong_and_the_corpora_satisfy_the_fuzzer() -> None:
    for path in CORPUS.glob("*/*.eml"):
        one_input(memoryview(path.read_bytes()))
