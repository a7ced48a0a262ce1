"""Real and hostile messages (tests/corpus/reports) get the result their corpus expects, however they arrive."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway._fastpath import scan_report
from gateway.reports import command

CORPUS = Path(__file__).parent / "corpus" / "reports"
CORPORA = ("visible", "adversarial")

_spec = importlib.util.spec_from_file_location("compare", CORPUS / "compare.py")
assert _spec and _spec.loader
compare = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(compare)


def with_crlf(message: bytes) -> bytes:
    return re.sub(rb"(?<!\r)\n", b"\r\n", message)


def with_lf(message: bytes) -> bytes:
    return message.replace(b"\r\n", b"\n")


def folded(message: bytes) -> bytes:
    """Every field folded at every single blank of its first line; what looks like one in a body does not matter."""

    def fold(field: re.Match[bytes]) -> bytes:
        return re.sub(rb"(?<=[^ \t])[ \t](?=[^ \t\r\n])", b"\r\n ", field[0])

    return re.sub(rb"(?m)^(?!--)[!-9;-~]+:.*$", fold, message)


def stuffed(message: bytes) -> bytes:
    return re.sub(rb"(\A|\r\n)\.", rb"\1..", with_crlf(message))


def expected_rows(corpus: str) -> list[dict]:
    with (CORPUS / corpus / "expected.jsonl").open(encoding="ascii") as rows:
        return [json.loads(row) for row in rows]


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("change", [bytes, with_crlf, with_lf, folded, stuffed], ids=lambda change: change.__name__)
def test_corpus_messages_read_as_expected(corpus: str, change: Callable[[bytes], bytes]) -> None:
    wrong = {}
    for row in expected_rows(corpus):
        message = change((CORPUS / corpus / row["file"]).read_bytes())
        report = scan_report(message, dot_stuffed=change is stuffed)
        if differences := compare.differences(row, command.row(row["file"], message, report)):
            wrong[row["file"]] = differences
    assert wrong == {}


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_cut_of_a_corpus_message_is_read_without_error(corpus: str) -> None:
    for row in expected_rows(corpus)[::7]:
        message = (CORPUS / corpus / row["file"]).read_bytes()[:4000]
        for end in range(0, len(message), 13):
            cut = message[:end]
            if report := scan_report(cut, null_sender=True):
                report.original_fields(cut)
