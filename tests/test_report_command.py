"""`relay-gateway report`: what people and programs see of reports in files."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.reports import sources

VISIBLE = Path(__file__).parent / "corpus" / "reports" / "visible"
CASES = VISIBLE.parent / "cases"
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


# --- where messages are ---

PLAIN = CASES / "plain-exim.eml"
COMPLAINT_CASE = CASES / "feedback-recipient-with-a-name.eml"
FROM_LINE = b"From MAILER-DAEMON Mon Nov  2 09:05:00 2026\n"


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[dict]:
    assert main(["report", "--json", *arguments]) == status
    return lines(capsys.readouterr().out)


def test_maildirs_and_directories_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cur/1:2,S", "new/2", "tmp/3", "new/.hidden"):
        path = tmp_path / "Maildir" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PLAIN.read_bytes())
    rows = rows_of(capsys, "--sender", "<>", str(tmp_path / "Maildir"))
    assert [Path(row["file"]).name for row in rows] == ["1:2,S", "2"]
    assert {row["class"] for row in rows} == {"dsn"}
    assert len(rows_of(capsys, str(tmp_path / "Maildir" / "new"))) == 1


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", ["box.mbox", "box", "-"])
def test_the_messages_of_an_mbox_are_read_one_by_one(
    name: str, ends: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"Hello,\n\nFrom here on it is text, at noon.\n"
    mbox = b"".join(FROM_LINE + each + b"\n" for each in (PLAIN.read_bytes(), text, COMPLAINT_CASE.read_bytes()))
    mbox = mbox.replace(b"\r\n", b"\n").replace(b"\n", ends)
    path = tmp_path / name
    path.write_bytes(mbox)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(mbox)))
    file = name if name == "-" else str(path)
    rows = rows_of(capsys, "--sender", "<>", file)
    assert [(row["file"], row["class"]) for row in rows] == [
        (f"{file}:1", "dsn"), (f"{file}:2", "other"), (f"{file}:3", "arf")
    ]  # fmt: skip


def test_a_file_of_one_message_may_begin_like_an_mbox(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.eml"
    path.write_bytes(FROM_LINE + PLAIN.read_bytes() + b"\n" + FROM_LINE + PLAIN.read_bytes())
    assert [row["file"] for row in rows_of(capsys, "--sender", "<>", str(path))] == [str(path)]


def test_an_unreadable_file_in_between_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(rows_of(capsys, str(PLAIN), "/nonexistent", str(PLAIN), status=1)) == 2


def test_directories_are_read_with_all_in_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mbox = FROM_LINE + PLAIN.read_bytes() + b"\n" + FROM_LINE + PLAIN.read_bytes()
    for name in ("Maildir/cur/1", "Maildir/.Sent/new/2", "Maildir/.Sent/cur/3", "Maildir/keywords/4", "sub/deep/5",
                 "sub/box", ".git/6"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mbox if name != "sub/deep/5" else PLAIN.read_bytes())
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    rows = rows_of(capsys, "--sender", "<>", str(tmp_path))
    assert [str(Path(row["file"]).relative_to(tmp_path)) for row in rows] == [
        "Maildir/cur/1", "Maildir/.Sent/cur/3", "Maildir/.Sent/new/2", "sub/box:1", "sub/box:2", "sub/deep/5",
    ]  # fmt: skip


def test_a_message_that_is_gone_does_not_stop_the_rest_of_its_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1", "2", "3"):
        (tmp_path / name).write_bytes(PLAIN.read_bytes())
    listed = list(sources.places(str(tmp_path)))
    monkeypatch.setattr(sources, "places", lambda name: iter(listed))
    (tmp_path / "2").unlink()
    assert main(["report", "--json", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert len(lines(shown.out)) == 2
    assert shown.err == f"relay-gateway report: {tmp_path / '2'}: No such file or directory\n"


@pytest.mark.parametrize("times", [1, 500])  # in one piece at the end, and before
def test_a_reader_that_has_seen_enough_is_no_error(
    times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(["report", *[str(PLAIN)] * times]) == 141
    assert capsys.readouterr().err == ""


# --- many ---


def test_many_messages_are_summed_up_by_kind_mailer_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(CASES), BOUNCE, __file__]
    assert main(["report", "--summary", "--sender", "<>", *names]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{len(list(CASES.iterdir())) + 2} messages\n")
    for pattern in (r"kind +\d+  dsn$", r"kind +3  dsn, inferred$", r"kind +\d+  arf$", r"mailer +\d+  Postfix$",
                    r"mailer +\d+  Exim$", r"reason +\d+  failed 5.1.1$", r"reason +\d+  abuse$"):  # fmt: skip
        assert re.search(rf"^  {pattern}", output, re.MULTILINE), pattern
    (sums,) = rows_of(capsys, "--summary", "--sender", "<>", *names)
    assert sums["messages"] == sum(sums["kind"].values())
    assert main(["report", "--sender", "<>", BOUNCE]) == 0
    assert " messages" not in capsys.readouterr().out


def test_progress_on_many_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "many.mbox"
    path.write_bytes((FROM_LINE + b"Subject: x\n\nhi\n\n") * 2100)
    assert main(["report", "--summary", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.err == "relay-gateway report: 1000 messages\nrelay-gateway report: 2000 messages\n"
    assert shown.out.startswith("2100 messages\n")


# --- why ---


def why(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> dict:
    (row,) = rows_of(capsys, "--why", *arguments, str(path))
    return row


@pytest.mark.parametrize("path", sorted(CASES.glob("*.eml")), ids=lambda path: path.stem)
def test_why_tells_from_which_octets_each_value_came(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = path.read_bytes()
    row = why(capsys, path, "--sender", json.loads(path.with_suffix(".json").read_text())["reverse_path"])
    assert row["why"]["how"]
    values = row["why"]["values"]
    told = row["dsn"]["per_recipient"] if row["dsn"] else [row["arf"]]
    assert len([value for value in values if value["of"] != "message"]) == sum(map(len, told))
    for value in values:
        if row["how"] in ("claimed", "x_failed_recipients", "junk") and value["name"] in ("action", "feedback-type"):
            assert "octets" not in value  # concluded
            continue
        (start, end), (first, _) = value["octets"], value["lines"]
        assert first == message[:start].count(b"\n") + 1
        if not value.get("decoded"):
            words = value["value"].split()
            assert any(word.encode() in message[start:end] for word in words), value


def test_why_points_at_the_original_for_the_recipient_of_a_claimed_bounce(capsys: pytest.CaptureFixture[str]) -> None:
    path = CASES / "report-without-status-part.eml"
    row = why(capsys, path, "--sender", "<>")
    (start, end) = next(value["octets"] for value in row["why"]["values"] if value["name"] == "final-recipient")
    message = path.read_bytes()
    assert message[:start].endswith(b"X-Apparently-To: ")
    assert message[start:end] == b"ana@rcpt.example.net"


def test_why_points_at_the_reason_of_each_recipient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = b"\nHi. This is the qmail-send program.\n\n"
    path = tmp_path / "x"
    path.write_bytes(head + b"".join(b"<%b@far.example>:\nNo such user.\n\n" % name for name in (b"u", b"v")))
    values = why(capsys, path, "--sender", "<>")["why"]["values"]
    assert [value["lines"][0] for value in values if value["name"] == "diagnostic-code"] == [5, 8]


def test_why_says_it_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--why", "--sender", "<>", str(CASES / "status-is-a-reply-code.eml")]) == 0
    output = capsys.readouterr().out
    assert "  how: a multipart/report with such a part\n" in output
    assert re.search(r"recipient 1, status: 550\n +line \d+, octets \d+-\d+\n", output)
    assert "taken: recipient 1: code 550 from status\n" in output
    assert "taken: recipient 1: enhanced code 5.2.1 from diagnostic-code\n" in output


@pytest.mark.parametrize(
    ("message", "sender", "said"),
    [
        (b"Subject: x\n\nhi\n", "<>", "its Content-Type is missing"),
        (b"Content-Type: text/html; charset=x\n\nhi\n", "<>", "its Content-Type is text/html"),
        (b"Content-Type: multipart/report; boundary=B\n\n--C\n", "<>", "no line delimits a part"),
        (MIXED, "a@b.example", r"its parts are message/delivery-status"),
        (MIXED, "a@b.example", r"from the null reverse-path \(--sender '<>'\) it would be one"),
        (MIXED, None, r"from the null reverse-path \(--sender '<>'\) it would be one"),
        (b"X-Failed-Recipients: nobody\n\nhi\n", "<>", "X-Failed-Recipients names no address"),
        (b"X-Failed-Recipients: a@b\nSubject: delayed\n\nhi\n", "<>", "claims success or delay"),
        (b"Subject: x\n\nHi. This is the qmail-send program.\n\nNobody.\n", "<>", "no paragraph names a recipient"),
    ],
)
def test_why_says_why_another_is_no_report(
    message: bytes, sender: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.eml"
    path.write_bytes(message)
    row = why(capsys, path, *(["--sender", sender] if sender is not None else []))
    assert row["class"] == "other"
    assert re.search(said, "\n".join(row["why"])), row["why"]
    assert main(["report", "--why", str(path)]) == 0


def test_whose_complaints_of_the_older_form_count_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    path = CASES / "complaint-without-feedback-part.eml"
    sender = ["--sender", "<staff@rcpt.example.net>"]
    assert why(capsys, path, *sender)["class"] == "arf"
    assert why(capsys, path, *sender, "--feedback-sender", "rcpt.example.net")["class"] == "arf"
    assert why(capsys, path, *sender, "--feedback-sender", "Staff@Rcpt.Example.Net")["class"] == "arf"
    other = why(capsys, path, *sender, "--feedback-sender", "other.example")
    assert other["class"] == "other"
    assert "from a sender in feedback_senders it would be one" in "\n".join(other["why"])
