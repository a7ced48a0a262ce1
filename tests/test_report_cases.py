"""Each case of tests/corpus/reports/cases, sent to a running gateway and given to `relay-gateway report`."""

from __future__ import annotations

import json
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_process import Gateway, wait_until
from report_cases import Case, cases, differences

from gateway.cli import main

CASES = cases()
DOMAIN = "bounce.example"
LISTED = ", ".join(f"'{case.expected['listed_sender']}'" for case in CASES if case.listed)
POLICY = f"""
kumo.on('init', function()
  kumo.start_esmtp_listener {{
    listen = LISTEN, hostname = 'gw.example', relay_hosts = {{}},
    report_excerpt = true, feedback_senders = {{ {LISTED} }},
  }}
  kumo.start_http_listener {{ listen = HTTP }}
  kumo.configure_local_logs {{ log_dir = LOGS, min_free_space = 0 }}
end)
kumo.on('get_listener_domain', function(domain)
  if domain == '{DOMAIN}' then
    return kumo.make_listener_domain {{ log_oob = 'LogThenDrop', log_arf = 'LogThenDrop' }}
  end
end)
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("cases"), POLICY)
    yield running
    running.kill()


def sent(gateway: Gateway, sender: str, recipient: str, message: bytes) -> tuple[int, list[dict[str, Any]]]:
    """The code that answered the message, and its records of reports."""
    client = gateway.smtp()
    try:
        client.sendmail(sender, [recipient], message)
        code = 250
    except smtplib.SMTPDataError as refusal:
        code = refusal.smtp_code
    client.quit()

    def about_it() -> list[dict[str, Any]]:
        return [record for record in gateway.records() if recipient in (record["sender"], record["recipient"])]

    wait_until(about_it, f"records of {recipient}")
    return code, [record for record in about_it() if record["type"] in ("OOB", "Feedback")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_is_recorded_as_expected(gateway: Gateway, case: Case) -> None:
    code, records = sent(gateway, case.sender, f"{case.name}@{DOMAIN}", case.message)
    assert code == (550 if case.expected["kind"] == "other" else 250)
    assert differences(case.expected, records) == []
    for record in records:
        if record["type"] == "OOB":
            assert record["sender"] == f"{case.name}@{DOMAIN}"  # VERP: whatever else is known


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_command_says_the_same(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--json", "--sender", case.expected["reverse_path"], str(case.path)]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert row["class"] == case.expected["kind"]
    if "inferred" in case.expected:
        assert row.get("inferred", False) == case.expected["inferred"]
    if row["class"] == "dsn":
        assert [each["recipient"] for each in row["recipients"]] == (case.expected["recipients"] or [""])


def test_a_complaint_of_the_older_form_counts_from_listed_senders_only(gateway: Gateway) -> None:
    (case,) = [case for case in CASES if case.listed]
    for sender in ("someone@rcpt.example.net", "", "staff@sub.rcpt.example.net"):
        code, records = sent(gateway, sender, f"from-{sender.replace('@', '-')}@{DOMAIN}", case.message)
        assert (code, records) == (550, [])


def test_an_excerpt_stands_where_there_is_no_diagnostic(gateway: Gateway) -> None:
    by_name = {case.name: case for case in CASES}
    for name, shown in (("report-wrapped-in-mixed", True), ("status-is-a-reply-code", False),
                        ("feedback-recipient-with-a-name", True)):  # fmt: skip
        _, (record, *_) = sent(gateway, by_name[name].sender, f"excerpt-{name}@{DOMAIN}", by_name[name].message)
        assert ("excerpt" in record) == shown
        if shown:
            assert record["excerpt"] in ("Your letter to ana@rcpt.example.net was not delivered.", "An abuse report.")


def test_how_reports_were_recognised_is_counted(gateway: Gateway) -> None:
    case = Case(Path(CASES[0].path.parent, "plain-exim.eml"))
    before = gateway.metric('reports_recognised_total{how="x_failed_recipients"}')
    sent(gateway, "", f"counted@{DOMAIN}", case.message)
    assert gateway.metric('reports_recognised_total{how="x_failed_recipients"}') == before + 1
