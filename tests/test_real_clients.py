"""Clients that we did not write: smtplib, swaks, curl and smtp-source against a running gateway.

A test whose client is not installed is skipped and says so; tests/programs.txt says what each must be able to do.
"""

from __future__ import annotations

import base64
import email
import email.policy
import re
import smtplib
import subprocess
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, TO_UPSTREAMS, Gateway, wait_until
from tests.programs import program

FROM_HERE = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
PAGE = (Path(__file__).parent / "policies" / "make_listener_domain.txt").read_text()
_, AUTHENTICATED, BY_DOMAIN, *_ = re.findall(
    r"^(?:local \w+ = \{\n(?:.*\n)*?\}\n\n)?kumo\.on\((?:.*\n)*?end\)$", PAGE, re.M
)
PASSWORDS = """
local PASSWORDS = { scott = 'tiger', other = 'lion' }
kumo.on('smtp_server_auth_plain', function(authz, authc, password)
  return PASSWORDS[authc] == password
end)
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2, check=False)


def server(gateway: Gateway) -> str:
    return "{}:{}".format(*gateway.address)


# --- smtplib ----------------------------------------------------------------------------------------------------------


def test_smtplib_delivers_a_message_as_it_is(start):
    gateway = start(FROM_HERE + TO_MAILDIR, "--workers", "1")
    message = EmailMessage(email.policy.SMTP)
    message["Subject"], message["From"], message["To"] = "Grüße", "a@out.example", "b@far.example"
    message.set_content(".a dot\r\n..two\r\n" + "grün\r\n" * 100, cte="8bit")
    with gateway.smtp() as session:
        assert session.send_message(message) == {}
    (stored,) = gateway.mails()
    assert stored.endswith(message.as_bytes(policy=email.policy.SMTP))
    assert gateway.metric("sent_bytes_total") == len(stored)
    received = email.message_from_bytes(stored, policy=email.policy.default)
    assert received["Received"].startswith("from client.example (127.0.0.1)")
    assert "X-KumoRef" in received


def test_smtplib_sends_to_utf8_addresses(start):
    gateway = start(FROM_HERE + TO_MAILDIR, "--workers", "1")
    with gateway.smtp() as session:
        session.ehlo()
        session.sendmail("jürgen@bücher.example", ["ü@far.example"], "Subject: ü\r\n\r\n".encode(), ["SMTPUTF8"])
    wait_until(lambda: len(gateway.records()) == 2, "two records")
    assert {record["sender"] for record in gateway.records()} == {"jürgen@xn--bcher-kva.example"}


def test_smtplib_is_told_which_recipients_were_refused(start):
    gateway = start(INIT + TO_MAILDIR, "--workers", "1")
    with gateway.smtp() as session, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        session.sendmail("a@out.example", ["b@far.example", "c@far.example"], "Subject: x\r\n\r\n")
    assert [code for code, _ in refused.value.recipients.values()] == [550, 550]


# --- swaks, against the authenticated examples of the page on make_listener_domain ------------------------------------


def swaks(gateway: Gateway, recipient: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run(
        program("swaks"), "--server", server(gateway), "--helo", "client.example", "--from", "a@out.example",
        "--to", recipient, *options,
    )  # fmt: skip


AS_SCOTT = ("--tls", "--auth", "PLAIN", "--auth-user", "scott", "--auth-password", "tiger")
AS_OTHER = ("--tls", "--auth", "PLAIN", "--auth-user", "other", "--auth-password", "lion")
AS_NOBODY = ("--tls", "--auth", "PLAIN", "--auth-user", "scott", "--auth-password", "wrong")
SENT, RECIPIENT_REFUSED, AUTH_REFUSED = 0, 24, 28


def test_swaks_sends_a_message(start):
    gateway = start(FROM_HERE + TO_MAILDIR, "--workers", "1")
    sent = swaks(gateway, "b@far.example", "--pipeline", "--body", "hello")
    assert sent.returncode == SENT, sent.stdout + sent.stderr
    assert len(gateway.mails()) == 1


@pytest.mark.parametrize(
    ("policy", "recipient", "credentials", "result"),
    [
        (AUTHENTICATED, "b@anywhere.example", AS_SCOTT, SENT),
        (AUTHENTICATED, "b@anywhere.example", ("--tls",), RECIPIENT_REFUSED),
        (AUTHENTICATED, "b@anywhere.example", AS_NOBODY, AUTH_REFUSED),
        (BY_DOMAIN, "b@example.com", AS_SCOTT, SENT),
        (BY_DOMAIN, "b@example.com", AS_OTHER, RECIPIENT_REFUSED),
        (BY_DOMAIN, "b@elsewhere.example", AS_SCOTT, RECIPIENT_REFUSED),
    ],
    ids=["scott", "nobody", "wrong password", "scott to his domain", "other to it", "scott to elsewhere"],
)
def test_swaks_authenticates_for_the_pages_examples(start, policy, recipient, credentials, result):
    gateway = start(INIT + PASSWORDS + policy + TO_MAILDIR, "--workers", "1")
    sent = swaks(gateway, recipient, *credentials)
    assert sent.returncode == result, sent.stdout + sent.stderr
    assert len(gateway.mails()) == (1 if result == SENT else 0)
    wait_until(gateway.records, "records")
    assert gateway.stop() == 0
    told = gateway.diagnostics() + str(gateway.records())
    secrets = ["tiger", "lion", "wrong", *(base64.b64encode(s).decode() for s in (b"\0scott\0tiger", b"\0other\0lion"))]
    assert not [secret for secret in secrets if secret in told], "no credential reaches a log"
    if result == SENT:
        assert {record["type"] for record in gateway.records()} == {"Reception", "Delivery"}


def test_a_decision_for_one_session_grants_nothing_to_another(start):
    gateway = start(INIT + PASSWORDS + AUTHENTICATED + TO_MAILDIR, "--workers", "1")
    sessions = [gateway.smtp() for _ in range(4)]
    for session in sessions:
        session.starttls()
        session.ehlo()
        session.mail("a@out.example")
    sessions[1].rset()
    sessions[1].login("scott", "tiger")
    sessions[1].mail("a@out.example")
    for _ in range(3):
        codes = [session.rcpt("b@far.example")[0] for session in sessions]
        assert codes == [550, 250, 550, 550]
    assert gateway.metric('decisions_total{outcome="relay",source="cache"}') == 2
    assert gateway.metric('decisions_total{outcome="denied",source="cache"}') >= 8


# --- curl -------------------------------------------------------------------------------------------------------------


def test_curl_sends_a_message_under_tls(start, tmp_path):
    curl = program("curl")
    gateway = start(INIT + PASSWORDS + AUTHENTICATED + TO_MAILDIR, "--workers", "1")
    mail = tmp_path / "mail"
    mail.write_bytes(b"Subject: from curl\r\n\r\n.dot\r\n" * 50)
    sent = run(
        curl, "--silent", "--show-error", "--url", f"smtp://{server(gateway)}/client.example", "--ssl-reqd",
        "--insecure", "--user", "scott:tiger", "--mail-from", "a@out.example", "--mail-rcpt", "b@far.example",
        "--mail-rcpt", "c@far.example", "--upload-file", mail,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    assert [stored.endswith(mail.read_bytes()) for stored in gateway.mails()] == [True]


# --- smtp-source ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [("-c",), ("-d",), ("-r", "3", "-l", "30000")], ids=["one each", "kept", "three each"]
)
def test_smtp_sources_messages_arrive_exactly_once_and_all_counts_agree(start, sink, options):
    smtp_source = program("smtp-source")
    gateway = start(FROM_HERE + TO_UPSTREAMS, "--workers", "2", upstreams=[sink.address])
    sent = run(
        smtp_source, "-s", "8", "-m", "240", "-f", "a@out.example", "-t", "b@far.example", "-S", "many", *options,
        server(gateway),
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    arrived = [email.message_from_bytes(mail) for mail in sink.mails()]
    ids = {re.search(r" id ([0-9a-f]{32})\b", mail["Received"])[1] for mail in arrived}
    assert len(arrived) == len(ids) == 240

    def recorded(kind: str) -> list[str]:
        return [record["id"] for record in gateway.records() if record["type"] == kind]

    wait_until(lambda: len(recorded("Delivery")) >= 240, "240 deliveries recorded")
    assert sorted(recorded("Reception")) == sorted(recorded("Delivery")) == sorted(ids)
    assert gateway.metric('messages_total{disposition="relayed"}') == 240
    assert gateway.metric('commands_total{reply="2xx",verb="END-OF-DATA"}') == 240
    assert gateway.metric('upstream_replies_total{reply="2xx",stage="end_of_data"}') == 240
