"""`relay-gateway report`: what people and programs see of reports in files."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from gateway.cli import main

VISIBLE = Path(__file__).parent / "corpus" / "reports" / "visible"
BOUNCE = str(VISIBLE / "sisimai-bsd-lhost-postfix-62.eml")
COMPLAINT = str(VISIBLE / "kumo-rfc5965-2.eml")
MIXED = (
    b"Content-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: message/delivery-status\n\n"
    b"Final-Recipient: x; u\xe4\nAction: failed\n"
)


def lines(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_json_is_one_object_per_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--json", BOUNCE, COMPLAINT, __file__]) == 0
    bounce, complaint, other = lines(capsys.readouterr().out)
    assert [row["class"] for row in (bounce, complaint, other)] == ["dsn", "arf", "other"]
    assert (bounce["file"], bounce["original_recipient"]) == (BOUNCE, "nyaan@libsisimai.org")
    assert complaint["arf"]["feedback-type"] == ["abuse"]
    assert other["dsn"] is None


def test_the_summary_names_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", BOUNCE, COMPLAINT, __file__]) == 0
    output = capsys.readouterr().out
    assert "postfix-62.eml: delivery status report\n" in output
    assert "    final-recipient: rfc822; nyaan@libsisimai.org\n" in output
    assert "rfc5965-2.eml: feedback report\n" in output
    assert "    feedback-type: abuse\n" in output
    assert "test_report_command.py: not a report\n" in output


@pytest.mark.parametrize(
    ("sender", "found"), [([], "other"), (["--sender", "<>"], "dsn"), (["--sender", "a@b"], "other")]
)
def test_the_sender_decides_about_mixed_bounces(
    sender: list[str], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mixed.eml"
    path.write_bytes(MIXED)
    assert main(["report", "--json", *sender, str(path)]) == 0
    (row,) = lines(capsys.readouterr().out)
    assert row["class"] == found
    assert row.get("mixed", False) == (found == "dsn")
    assert main(["report", *sender, str(path)]) == 0


def test_standard_input_is_read_without_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    octets = b"Content-Type: multipart/report; boundary=B\n\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(octets)))
    assert main(["report"]) == 0
    assert capsys.readouterr().out == "-: claims to be a report, unreadable: no_parts\n"


def test_a_missing_file_is_named_and_the_others_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--json", "missing.eml", BOUNCE]) == 1
    output = capsys.readouterr()
    assert "missing.eml: No such file" in output.err
    assert len(lines(output.out)) == 1
