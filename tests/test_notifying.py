"""A 250 with a refused recipient, at the wire: the record is on disk, and the sender is told once, by the fleet."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from gateway.logs.reader import DirectoryReader
from tests.fleets import TO_FLEETS, Fleets, gateway_before
from tests.gateway_process import Gateway, wait_until
from tests.upstream import Do, Mail

POLICY = (
    """
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.0.0.0/8' },
    peer = { ['127.0.1.3'] = { batch_handling = 'BifurcateAlways' } },
  }
  kumo.start_http_listener { listen = HTTP }
  LOCAL_LOGS
end)
kumo.on('smtp_server_message_received', function(msg)
  local to = msg:get_first_named_header_value 'X-Instead'
  if to then msg:set_recipient { to, 'second@a.taken1.example' } end
end)
"""
    + TO_FLEETS
)
LOCAL_LOGS = "kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }"
WITHOUT_BOUNCES = LOCAL_LOGS.replace("}", ", per_record = { Bounce = { enable = false } } }")
TAKEN, REFUSED = "second@a.picky1.example", "first@a.picky1.example"
SERIES = re.compile(r'^relay_gateway_notifications_total\{result="(\w+)"\} (\S+)$', re.MULTILINE)
_numbers = count(1)


@pytest.fixture(scope="module")
def fleets() -> Iterator[Fleets]:
    running = Fleets()
    yield running
    running.close()


@pytest.fixture(scope="module")
def gateway(fleets: Fleets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    policy = POLICY.replace("LOCAL_LOGS", LOCAL_LOGS)
    with gateway_before(fleets, tmp_path_factory.mktemp("notifying"), policy) as running:
        yield running


@pytest.fixture
def begin(start: Callable[..., Gateway], fleets: Fleets) -> Callable[..., Gateway]:
    def run(logs: str = LOCAL_LOGS, policy: str = POLICY) -> Gateway:
        return start(fleets.lua() + policy.replace("LOCAL_LOGS", logs), "--workers", "1")

    return run


class Told:
    """A message, what its client was told, and what came of it."""

    def __init__(self, gateway: Gateway, fleets: Fleets) -> None:
        self.gateway, self._fleets = gateway, fleets
        self.number = next(_numbers)
        self._ids: list[str] = []
        self._counted = self._counts()

    def send(
        self, *recipients: str, sender: str, fields: tuple[str, ...] = (), client: str = "127.0.0.1"
    ) -> tuple[int, str]:
        session = self.gateway.smtp(client)
        session.ehlo()
        options = [] if sender.isascii() and "".join(recipients).isascii() else ["SMTPUTF8", "BODY=8BITMIME"]
        session.command_encoding = "utf-8" if options else "ascii"
        session.mail(sender, options)
        for recipient in recipients:
            code, text = session.rcpt(recipient)
            assert code == 250, text
        lines = [f"Subject: number {self.number}.", *fields, "", "hello", ""]
        code, text = session.data("\r\n".join(lines).encode())
        session.quit()
        self._ids = re.findall(r"[0-9a-f]{32}", text.decode())
        return code, text.decode()

    def notifications(self, fleet: str = "senders1") -> list[Mail]:
        subject = f"Subject: number {self.number}.\r\n".encode()
        return [mail for mail in self._fleets.mails(fleet) if mail.sender == "" and subject in mail.content]

    def bounces(self, how_many: int = 1) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            records = self.gateway.records()
            return [record for record in records if record["type"] == "Bounce" and record["id"] in self._ids]

        wait_until(lambda: len(found()) >= how_many, "bounced")
        return found()

    def counted(self) -> dict[str, int]:
        """The results since this began."""
        now = self._counts()
        return {result: now[result] - before for result, before in self._counted.items() if now[result] > before}

    def _counts(self) -> dict[str, int]:
        page = self.gateway.get("/metrics")[1]
        return {result: int(float(number)) for result, number in SERIES.findall(page)}


@pytest.fixture
def told(gateway: Gateway, fleets: Fleets) -> Told:
    return Told(gateway, fleets)


def test_the_sender_is_told_once_through_the_fleet_for_its_domain(told: Told):
    code, text = told.send(REFUSED, TAKEN, sender="ann@out.senders1.example")
    assert code == 250
    assert text.endswith("(1 of 2 recipients refused)")
    (mail,) = told.notifications()
    assert mail.recipients == ["ann@out.senders1.example"]
    message = email.message_from_bytes(mail.content, policy=email.policy.SMTP)
    assert message.get_content_type() == "multipart/report"
    assert b"Final-Recipient: rfc822; first@a.picky1.example\r\n" in mail.content
    assert b"Status: 5.1.1\r\n" in mail.content
    assert b"Remote-MTA: dns; [127.0.0.1]\r\n" in mail.content
    assert b"Diagnostic-Code: smtp; 550 5.1.1 no such mailbox\r\n" in mail.content
    assert b"second@" not in mail.content
    (bounce,) = told.bounces()
    assert bounce["recipient"] == REFUSED
    assert bounce["response"]["content"] == "no such mailbox"
    assert bounce["notification"] == {
        "result": "sent",
        "id": str(message["Message-ID"]).strip("<>").partition("@")[0],
        "response": "250 2.0.0 queued",
    }
    assert told.counted() == {"sent": 1}


def test_kill_9_right_after_the_250_leaves_the_bounce_record(begin: Callable[..., Gateway], fleets: Fleets):
    told = Told(begin(), fleets)
    session = told.gateway.smtp()
    session.sendmail("ann@senders1.example", [REFUSED, TAKEN], f"Subject: number {told.number}.\r\n\r\nhello\r\n")
    told.gateway.kill()
    assert len(told.notifications()) == 1
    reader = DirectoryReader(str(told.gateway.logs))
    types = [line.partition(b'"type":"')[2].partition(b'"')[0] for line in reader.lines()]
    reader.close()
    assert types == [b"Reception", b"Bounce", b"Delivery"]


def test_all_refused_recipients_of_a_transaction_are_in_one_notification(told: Told):
    recipients = (REFUSED, "first@b.picky2.example", "second@a.taken1.example", "first@c.refused1.example")
    code, text = told.send(*recipients, sender="ann@senders1.example", client="127.0.1.3")
    assert (code, text[-28:]) == (250, "(3 of 4 recipients refused)"[-28:]) or text.endswith(
        "(3 of 4 recipients refused)"
    )
    (mail,) = told.notifications()
    assert mail.content.count(b"Final-Recipient:") == 3
    assert b"Diagnostic-Code: smtp; 554 5.6.0 not such content\r\n" in mail.content
    assert {str(bounce["notification"]) for bounce in told.bounces(3)} == {str(told.bounces(3)[0]["notification"])}
    assert told.counted() == {"sent": 1}


def test_the_sender_reads_the_address_it_used(told: Told):
    code, _ = told.send("list@in.example", sender="ann@senders1.example", fields=(f"X-Instead: {REFUSED}",))
    assert code == 250
    (mail,) = told.notifications()
    assert (
        b"Original-Recipient: rfc822; list@in.example\r\nFinal-Recipient: rfc822; first@a.picky1.example"
        in mail.content
    )


def test_a_message_from_nobody_notifies_nobody(told: Told):
    assert told.send(REFUSED, TAKEN, sender="")[0] == 250
    assert [bounce["notification"] for bounce in told.bounces()] == [{"result": "null_sender"}]
    assert told.counted() == {"null_sender": 1}


@pytest.mark.parametrize(
    "recipients", [(REFUSED,), (REFUSED, "first@b.picky1.example"), (REFUSED, "x@a.deferred1.example")]
)
def test_whose_client_still_has_the_message_is_told_by_the_reply(told: Told, recipients):
    sender = f"number{told.number}@senders1.example"
    assert told.send(*recipients, sender=sender)[0] >= 400
    assert told.notifications() == []
    assert told.counted() == {}

    def own() -> set[str]:
        return {record["type"] for record in told.gateway.records() if record["sender"] == sender}

    wait_until(lambda: "Rejection" in own(), "rejected")
    assert "Bounce" not in own()


@pytest.mark.parametrize(
    ("fleet", "response"),
    [
        ("refused1", "554 5.6.0 not such content"),
        ("deferred1", "451 4.2.0 come back later"),
        ("gone1", "451 4.4.1 The next hop cannot be reached"),
        ("unknown1", "451 4.4.2 The next hop vanished before it confirmed the message"),
    ],
)
def test_a_notification_that_is_not_taken_is_named_and_counted_and_the_250_stays(told: Told, fleet, response):
    code, text = told.send(REFUSED, TAKEN, sender=f"ann@{fleet}.example")
    assert code == 250, text
    (bounce,) = told.bounces()
    notification = bounce["notification"]
    assert len(notification.pop("id")) == 32
    assert notification == {"result": "failed", "response": response}
    assert told.counted() == {"failed": 1}


def test_where_the_policy_has_no_fleet_for_the_senders_domain_the_one_that_refused_is_used(told: Told):
    assert told.send(REFUSED, TAKEN, sender="ann@nowhere.example")[0] == 250
    (mail,) = told.notifications("picky1")
    assert mail.recipients == ["ann@nowhere.example"]
    assert told.counted() == {"sent": 1}


def test_the_policy_may_leave_it_at_the_record(begin, fleets: Fleets):
    policy = POLICY.replace("{ FLEETS[name] } } } }", "{ FLEETS[name] } } }, on_partial_refusal = 'Record' }")
    told = Told(begin(policy=policy), fleets)
    assert told.send(REFUSED, TAKEN, sender="ann@senders1.example")[0] == 250
    assert [bounce["notification"] for bounce in told.bounces()] == [{"result": "record"}]
    assert told.notifications() == []
    assert told.counted() == {"record": 1}


@pytest.mark.parametrize(("sender", "code"), [("ann@senders1.example", 250), ("ann@refused1.example", 451), ("", 451)])
@pytest.mark.parametrize("logs", [WITHOUT_BOUNCES, ""])
def test_where_no_logger_takes_bounces_the_sender_has_to_know(begin, fleets: Fleets, logs, sender, code):
    told = Told(begin(logs), fleets)
    assert told.send(REFUSED, TAKEN, sender=sender)[0] == code


def test_an_international_sender_is_told_by_smtputf8(told: Told):
    assert told.send("first@ø.picky1.example", TAKEN, sender="ænn@senders1.example")[0] == 250
    (mail,) = told.notifications()
    assert mail.recipients == ["ænn@senders1.example"]
    assert "To: <ænn@senders1.example>\r\n".encode() in mail.content


def test_a_notification_that_takes_its_time_holds_the_250_back(begin, fleets: Fleets):
    slow = fleets.add("slow1", {".": [Do.STALL]})
    told = Told(begin(policy=POLICY.replace("peer =", "data_processing_timeout = '1 second', peer =")), fleets)
    assert told.send(REFUSED, TAKEN, sender="ann@slow1.example")[0] == 250
    (bounce,) = told.bounces()
    assert bounce["notification"]["result"] == "failed"
    assert "." in slow.commands


def test_a_client_that_is_gone_does_not_keep_the_sender_from_being_told(told: Told):
    session = told.gateway.smtp()
    session.ehlo()
    session.mail(f"number{told.number}@senders1.example")
    for recipient in (REFUSED, TAKEN):
        session.rcpt(recipient)
    assert session.docmd("DATA")[0] == 354
    session.send(f"Subject: number {told.number}.\r\n\r\nhello\r\n.\r\n")
    session.close()
    wait_until(told.notifications, "notified")
    assert told.counted() == {"sent": 1}
