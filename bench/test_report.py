"""What looking for reports costs: `python -m pytest bench/test_report.py`.

Bars: a letter of 10 KiB that is no report 0.2 µs; a real bounce (recognised, all its fields as Python objects)
3 µs on average over the corpus, and 40 times faster than stdlib `email` at the same job in the same run.
What a letter costs: the call and its header section of 600 octets are a third of that. From anybody, the first 4 KiB
of a multipart/mixed are searched for the name of a kind of report; from `<>`, where a status part may be anywhere, all
of a multipart is, and its first half KiB for QSBMF. That is 105 ns for 10 KiB whatever the parts: one letter in front
of a dash, which two loads for 32 octets find. Looking at the parts instead takes 45 to 90 ns, 20 ns for each part, and
that again for each multipart inside. A read receipt is told by its type.
Hostile messages are to cost what ordinary ones do per octet: beside each stands what that is in the corpus, and in a
report of the same size, most of which is original and costs next to nothing.
"""

from __future__ import annotations

import email
import json
import statistics
import time
from pathlib import Path

import pytest

from gateway._fastpath import scan_received, scan_report
from gateway.reports import rfc3464
from gateway.reports.formats import find_report
from gateway.reports.original import quoted_fields

CORPUS = Path(__file__).parent.parent / "tests" / "corpus" / "reports"

HEADER = (
    b"Return-Path: <a@near.example>\r\n"
    b"Received: from x.example (x.example [192.0.2.1])\r\n\tby y.example with ESMTP id 1;\r\n"
    b"\tTue, 1 Jul 2025 10:00:00 +0000\r\n"
    b"DKIM-Signature: v=1; a=rsa-sha256; d=near.example; s=s1;\r\n h=from:to:subject;\r\n bh=" + b"a" * 43 + b"=;\r\n"
    b" b=" + b"b" * 70 + b"\r\n"
    b"From: A <a@near.example>\r\nTo: b@far.example\r\nSubject: hello there\r\nDate: Tue, 1 Jul 2025 10:00:00 +0000\r\n"
    b"Message-ID: <x@near.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=B\r\n\r\n"
)
STATUS = (
    b"\r\n--B\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx\r\n\r\n"
    b"Final-Recipient: rfc822; u@far.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
)
REPORT = b"Content-Type: multipart/report; report-type=delivery-status; boundary=B\r\n\r\n"


def corpus(wanted: str) -> list[bytes]:
    with (CORPUS / "visible" / "expected.jsonl").open(encoding="ascii") as rows:
        return [
            (CORPUS / "visible" / row["file"]).read_bytes() for row in map(json.loads, rows) if row["class"] == wanted
        ]


BOUNCES = corpus("dsn")


def scan_all() -> None:
    for message in BOUNCES:
        scan_report(message)


def stdlib(message: bytes) -> tuple[list[dict[str, str]], bool] | None:
    """What `scan_report` finds, found with the standard library."""
    parsed = email.message_from_bytes(message)
    if parsed.get_content_type() != "multipart/report" or not parsed.is_multipart():
        return None
    blocks: list[dict[str, str]] = []
    original = False
    for part in parsed.get_payload():
        kind = part.get_content_type()
        if kind in ("message/delivery-status", "message/global-delivery-status") and not blocks:
            blocks = [
                {name.lower(): " ".join(str(value).split()) for name, value in block.items()}
                for block in part.get_payload()
            ]
        elif kind in ("message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"):
            original = True
    return blocks, original


def stdlib_all() -> None:
    for message in BOUNCES:
        stdlib(message)


def per_bounce(benchmark) -> None:
    benchmark.extra_info["us_per_bounce"] = round(benchmark.stats.stats.median / len(BOUNCES) * 1e6, 2)


@pytest.mark.parametrize("size", [10 << 10, 10 << 20], ids=["10KiB", "10MiB"])
def test_no_report(benchmark, size):
    message = HEADER + b"x" * 76 + b"\r\n"
    message += (b"x" * 76 + b"\r\n") * (size // 78)
    assert benchmark(scan_report, message) is None


BOUNDARY = b"----=_Part_4711_0815.1751364000"
TEXT = b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
HTML = b"Content-Type: text/html; charset=utf-8\r\n\r\n"
IMAGE = b"Content-Type: image/png; name=x.png\r\nContent-Transfer-Encoding: base64\r\n\r\n"
PROSE = b"Hello Bob, thank you for the well-known things, we met - as you know - on Monday and so on\r\n"
MARKUP = b'<p style="font-size:12px; margin-left: 3em">text and more</p><!-- c --><br>\r\n'
BASE64 = b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0\r\n"


def multipart(kind: bytes, *parts: bytes) -> bytes:
    header = HEADER.replace(b"alternative; boundary=B", kind + b'; boundary="' + BOUNDARY + b'"')
    return header + b"".join(b"--%b\r\n%b\r\n" % (BOUNDARY, part) for part in parts) + b"--%b--\r\n" % BOUNDARY


def inner(kind: bytes, *parts: bytes) -> bytes:
    boundary = b"----=_Part_4712_0816.1751364001"
    header = b'Content-Type: multipart/%b;\r\n\tboundary="%b"\r\n\r\n' % (kind, boundary)
    return header + b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts) + b"--%b--\r\n" % boundary


LETTERS = {  # of 10 KiB
    "text": HEADER.replace(b"multipart/alternative; boundary=B", b"text/plain") + PROSE * 110,
    "mixed": multipart(b"mixed", TEXT + PROSE * 12, IMAGE + BASE64 * 110),
    "alternative": multipart(b"alternative", TEXT + PROSE * 30, HTML + MARKUP * 90),
    "related": multipart(b"related", HTML + MARKUP * 40, IMAGE + BASE64 * 80),
    "nested": multipart(b"mixed", inner(b"alternative", TEXT + PROSE * 12, HTML + MARKUP * 30), IMAGE + BASE64 * 80),
    "digest": multipart(b"digest", *[b"\r\nFrom: a@near.example\r\nSubject: post\r\n\r\n" + PROSE * 10] * 10),
    "receipt": multipart(
        b"report; report-type=disposition-notification",
        TEXT + PROSE * 8,
        b"Content-Type: message/disposition-notification\r\n\r\nFinal-Recipient: rfc822; u@far.example\r\n",
        b"Content-Type: message/rfc822\r\n\r\nFrom: a@near.example\r\n\r\n" + PROSE * 95,
    ),
    "short lines": HEADER.replace(b"alternative", b"mixed") + b"--B\r\n\r\nHello\r\n--B\r\n\r\n" + b"x\r\n" * 3000,
}


@pytest.mark.parametrize("null_sender", [False, True], ids=["from anybody", "from nobody"])
@pytest.mark.parametrize("name", LETTERS)
def test_no_report_as_the_gateway_looks(benchmark, name, null_sender):
    """With a known reverse-path also what only nearly is a report counts: more is looked at."""
    letters = [LETTERS[name]] * 1000

    def look() -> None:
        for letter in letters:
            scan_received(letter, null_sender, False)

    assert scan_received(letters[0], null_sender, False) is None
    benchmark.pedantic(look, rounds=300)
    benchmark.extra_info["us_per_letter"] = round(benchmark.stats.stats.min / len(letters) * 1e6, 3)


def test_bounces_of_the_corpus(benchmark):
    benchmark(scan_all)
    per_bounce(benchmark)


def test_bounces_of_the_corpus_as_the_gateway_reads_them(benchmark):
    benchmark(lambda: [find_report(message, null_sender=True) for message in BOUNCES])
    per_bounce(benchmark)


def test_bounces_of_the_corpus_up_to_their_records(benchmark):
    def records():
        for message in BOUNCES:
            report = scan_report(message)
            rfc3464.out_of_band(report, quoted_fields(report, message))

    benchmark(records)
    per_bounce(benchmark)


def test_bounces_of_the_corpus_with_stdlib_email(benchmark):
    benchmark.pedantic(stdlib_all, rounds=5)
    per_bounce(benchmark)


def test_bounces_of_the_corpus_with_flufl_bounce(benchmark):
    bounce = pytest.importorskip("flufl.bounce")
    parsed = [email.message_from_bytes(message) for message in BOUNCES]  # its input; not counted
    benchmark.pedantic(lambda: [bounce.all_failures(message) for message in parsed], rounds=3)
    per_bounce(benchmark)


def seconds(job) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def test_at_least_40_times_faster_than_stdlib_email(benchmark):
    def pair() -> float:
        ours = min(seconds(scan_all) for _ in range(5))
        return seconds(stdlib_all) / ours

    ratio = benchmark.pedantic(lambda: statistics.median(pair() for _ in range(9)), rounds=1)
    benchmark.extra_info["times_faster"] = round(ratio, 1)
    assert ratio >= 40


# --- hostile messages beside ordinary ones ---


def filled(start: bytes, unit: bytes, end: bytes, size: int) -> bytes:
    return start + unit * ((size - len(start) - len(end)) // len(unit)) + end


def ordinary(size: int) -> bytes:
    original = b"--B\r\nContent-Type: message/rfc822\r\n\r\nFrom: a@near.example\r\n\r\n"
    return filled(REPORT + STATUS + original, b"x" * 76 + b"\r\n", b"--B--\r\n", size)


HOSTILE = {
    "parts before": (REPORT, b"--B\r\nContent-Type: text/plain\r\n\r\nx\r\n", STATUS),
    "parts behind": (REPORT + STATUS, b"--B\r\nContent-Type: text/plain\r\n\r\nx\r\n", b""),
    "empty parts": (REPORT, b"--B\r\n", STATUS),
    "lookalikes": (REPORT + STATUS + b"\r\n--B\r\n\r\n", b"--Bx\r\n", b""),
    "dashes": (REPORT + STATUS + b"\r\n--B\r\n\r\n", b"\r\n-", b""),
    "levels": (REPORT, b"--B\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n", STATUS),
    "long header line": (b"X: ", b"x", b"\r\n" + REPORT + STATUS),
    "folded header": (b"X:", b"\r\n x", b"\r\n" + REPORT + STATUS),
    "headers": (b"", b"X: y\r\n", REPORT + STATUS),
    "parameters": (REPORT[:-4], b";a=b", b"\r\n\r\n" + STATUS),
    "folded field": (REPORT + STATUS[:-2] + b"X:", b"\r\n x", b"\r\n"),
}


@pytest.mark.parametrize("size", [64 << 10, 1 << 20], ids=["64KiB", "1MiB"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages(benchmark, name, size):
    """Per octet, beside the corpus's reports and beside one report of the same size, in turns."""
    message = filled(*HOSTILE[name], size)
    fair = ordinary(size)
    octets = sum(map(len, BOUNCES))

    def costs() -> tuple[float, float]:
        hostile = min(seconds(lambda: scan_report(message)) for _ in range(9)) / len(message)
        like = min(seconds(lambda: scan_report(fair)) for _ in range(9)) / len(fair)
        return hostile / like, hostile / (seconds(scan_all) / octets)

    pairs = [costs() for _ in range(9)]
    benchmark.extra_info["times_an_ordinary_one_of_its_size"] = round(statistics.median(a for a, _ in pairs), 2)
    benchmark.extra_info["times_the_corpus"] = round(statistics.median(b for _, b in pairs), 2)
    assert benchmark(scan_report, message) is not None
    benchmark.extra_info["ns_per_octet"] = round(benchmark.stats.stats.median / len(message) * 1e9, 3)
