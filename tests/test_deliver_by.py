"""DELIVERBY (RFC 2852) and MT-PRIORITY (RFC 6710) at the wire: what is taken, passed on, kept, sent back and told."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator

import pytest

from gateway.smtp.capabilities import (
    DELIVER_BY,
    DSN,
    PRIORITY,
    UNKNOWN,
    Abilities,
    announced,
    offered,
    taken_by_all,
    with_fleet,
)
from gateway.smtp.requests import DeliverBy, Requests, from_values, read_by, read_priority
from tests.fleets import Fleets, gateway_before
from tests.gateway_process import INIT, Gateway, wait_until
from tests.upstream import EXTENSIONS, ehlo

KNOWS, PLAIN = ehlo(*EXTENSIONS, "DSN", "DELIVERBY 3", "MT-PRIORITY"), ehlo(*EXTENSIONS, "DSN")
POLICY = (
    INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.0/9' }")
    + """
kumo.define_spool { name = 'data', path = LOGS .. '-spool', min_free_space = 0, min_free_inodes = 0 }
kumo.on('smtp_server_ehlo', function(domain, conn, extensions)
  if not extensions then return end
  for _, keyword in ipairs { 'DSN', 'DELIVERBY 5', 'MT-PRIORITY' } do table.insert(extensions, keyword) end
  return extensions
end)
kumo.on('get_listener_domain', function() return kumo.make_listener_domain { relay_to = true } end)
kumo.on('smtp_server_auth_plain', function() return true end)
kumo.on('get_queue_config', function(domain)
  local name = domain:match '(%w+)%.example$'
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { FLEETS[name] } } }, retry_interval = '1 second' }
end)
"""
)
SENDER = "ann@senders.example"
LATER = b"451 4.3.0 later\r\n"
TAKEN = b"250 2.0.0 now\r\n"


@pytest.fixture(scope="module")
def fleets() -> Iterator[Fleets]:
    running = Fleets()
    running.add("knows", {"EHLO": KNOWS})
    running.add("plain", {"EHLO": PLAIN})
    running.add("waits", {"EHLO": KNOWS, ".": [LATER, LATER, TAKEN]})
    running.add("never", {"EHLO": KNOWS, ".": LATER})
    running.add("senders", {"EHLO": KNOWS})
    running.add("others", {"EHLO": ehlo(*EXTENSIONS, "MT-PRIORITY STANAG4406")})
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def gateway(fleets: Fleets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_before(fleets, tmp_path_factory.mktemp("deliverby"), POLICY) as running:
        yield running


def send(gateway: Gateway, recipients: dict[str, str], mail: str, sender: str = SENDER) -> tuple[int, bytes]:
    """recipients: the parameters of RCPT by address. Returns what was said to the content."""
    with smtplib.SMTP(*gateway.address, "client.example", 30) as client:
        client.ehlo()
        assert client.docmd(f"MAIL FROM:<{sender}> {mail}")[0] == 250
        for recipient, parameters in recipients.items():
            assert client.docmd(f"RCPT TO:<{recipient}> {parameters}")[0] == 250
        return client.data(b"Subject: x\r\n\r\nx\r\n")


@pytest.mark.parametrize("value", [b"0", b"9", b"-9", b"1", b"-1"])
def test_a_priority(value: bytes):
    assert read_priority(value) == int(value)


@pytest.mark.parametrize("value", [None, b"", b"-0", b"00", b"10", b"-10", b"+1", b"1 ", b"a", b"1\n"])
def test_no_priority(value: bytes | None):
    with pytest.raises(ValueError):
        read_priority(value)


@pytest.mark.parametrize(
    ("value", "by"),
    [
        (b"1;R", DeliverBy(1, True, False)),
        (b"999999999;rt", DeliverBy(999_999_999, True, True)),
        (b"+5;N", DeliverBy(5, False, False)),
        (b"-999999999;nT", DeliverBy(-999_999_999, False, True)),
        (b"0;N", DeliverBy(0, False, False)),
    ],
)
def test_a_time(value: bytes, by: DeliverBy):
    assert read_by(value) == by


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"5",
        b"5;",
        b"5;T",
        b"5;RN",
        b"5;RTT",
        b"5;R;T",
        b";R",
        b"1000000000;R",
        b"0;R",
        b"-1;R",
        b"+0;RT",
        b"5 ;R",
    ],
)
def test_no_time(value: bytes | None):
    with pytest.raises(ValueError):
        read_by(value)


def test_time_passes():
    asked = Requests()
    asked.by, asked.since, asked.priority = DeliverBy(10, False, True), 1000.0, -3
    assert asked.at(1004.9).mail_parameters(DELIVER_BY) == " BY=6;NT"
    assert asked.at(1011.0).mail_parameters(DELIVER_BY | PRIORITY) == " MT-PRIORITY=-3 BY=-1;NT"
    assert asked.at(999.0).mail_parameters(DELIVER_BY) == " BY=10;NT"
    assert asked.at(1004.0).at(1008.0).mail_parameters(DELIVER_BY) == " BY=2;NT"
    assert asked.mail_parameters(DSN) == ""
    kept = from_values(asked.as_values())
    assert kept is not None and vars(kept) == vars(asked)


def test_a_priority_is_offered_where_it_means_the_same_to_all_of_a_fleet():
    def offers(*parameters: str) -> tuple[str, ...]:
        members = [announced({"MT-PRIORITY": parameter}, verified=False) for parameter in parameters]
        assert all(member.capabilities & PRIORITY for member in members)
        return with_fleet((), taken_by_all(members), frozenset())

    assert offers("", "mixer") == ("MT-PRIORITY",)
    assert offers("STANAG4406", "stanag4406") == ("MT-PRIORITY STANAG4406",)
    assert offers("NSEP") == ("MT-PRIORITY NSEP",)
    assert offers("", "NSEP") == offers("OURS") == offers("OURS", "OURS") == ()
    assert offered(("MT-PRIORITY NSEP",)).capabilities & PRIORITY


def test_of_a_fleet_the_longest_minimum_is_offered():
    two = [Abilities(DELIVER_BY | PRIORITY, 0, 3), Abilities(DELIVER_BY, 0, 0), Abilities(DELIVER_BY, 0, 8)]
    assert with_fleet((), taken_by_all(two), frozenset()) == ("DELIVERBY 8",)
    assert with_fleet((), taken_by_all(two[1:2]), frozenset()) == ("DELIVERBY",)
    assert with_fleet((), taken_by_all([*two, None]), frozenset()) == with_fleet((), UNKNOWN, frozenset()) == ()


def test_what_is_malformed_or_too_little_is_refused_and_ends_nothing(gateway: Gateway):
    with gateway.smtp() as client:
        client.ehlo("client.example")
        for parameter in ("BY=5", "BY=0;R", "BY", "MT-PRIORITY=10", "BY=9;R BY=9;R"):
            assert client.docmd(f"MAIL FROM:<a@b.example> {parameter}") == (501, b"5.5.4 Malformed parameter")
        assert client.docmd("MAIL FROM:<a@b.example> BY=4;R")[:2] == (
            555,
            b"5.5.4 BY= leaves less time than DELIVERBY asks for",
        )
        assert client.docmd("MAIL FROM:<a@b.example> BY=4;N")[0] == 250


def test_both_are_passed_on_to_who_knows_them(fleets: Fleets, gateway: Gateway):
    assert send(gateway, {"a@knows.example": ""}, "by=600;r mt-priority=-9", "on@senders.example")[0] == 250
    assert fleets.mails("knows")[-1].content.partition(b";")[0].endswith(b" for <a@knows.example> PRIORITY -9")
    (mail,) = fleets.mail_commands("knows", "on@senders.example")
    assert re.search(r" MT-PRIORITY=-9 BY=(600|5[0-9]{2});R\Z", mail)
    assert send(gateway, {"a@plain.example": ""}, "MT-PRIORITY=3", "off@senders.example")[0] == 250
    assert "PRIORITY" not in fleets.mail_commands("plain", "off@senders.example")[0]
    assert send(gateway, {"a@others.example": ""}, "MT-PRIORITY=3", "else@senders.example")[0] == 250
    assert fleets.mail_commands("others", "else@senders.example")[0].endswith(" MT-PRIORITY=3")  # RFC 6710 §4.2
    assert not fleets.told("a@plain.example") and not fleets.told("a@knows.example")


def test_only_who_is_trusted_goes_before_others(fleets: Fleets, gateway: Gateway):
    """RFC 6710 §4.1: relay hosts, and who has authenticated. Anybody may let others go first."""
    with gateway.smtp("127.200.0.1") as client:
        said = []
        for trusted in (False, True):
            if trusted:
                client.starttls()
                client.login("ann", "secret")
            client.ehlo()
            for priority in ("9", "0", "-3"):
                said.append(client.docmd(f"MAIL FROM:<p{trusted:d}@senders.example> MT-PRIORITY={priority}"))
                client.rcpt("a@knows.example")
                client.data(b"Subject: x\r\n\r\nx\r\n")
    ordinary = (250, b"2.1.0 Sender OK")
    assert said == [(250, b"2.3.6 0 is the priority of this message"), *[ordinary] * 5]
    for sender, priorities in (("p0", ["0", "0", "-3"]), ("p1", ["9", "0", "-3"])):
        commands = fleets.mail_commands("knows", f"{sender}@senders.example")
        assert [command.rpartition(" MT-PRIORITY=")[2] for command in commands] == priorities
    assert fleets.mails("knows")[-1].content.partition(b";")[0].endswith(b" PRIORITY -3")


def test_what_is_to_come_back_goes_to_nobody_who_would_not_send_it_back(fleets: Fleets, gateway: Gateway):
    answer = send(gateway, {"a@plain.example": ""}, "BY=600;R", "back@senders.example")
    assert answer == (554, b"5.3.3 The next hop does not offer DELIVERBY")
    assert not fleets.mail_commands("plain", "back@senders.example")


def test_a_sender_hears_where_its_time_is_lost_and_where_it_asks_for_a_trace(fleets: Fleets, gateway: Gateway):
    recipients = {f"{who}@plain.example": notify for who, notify in (("n", ""), ("x", "NOTIFY=NEVER"))}
    assert send(gateway, recipients, "BY=600;N MT-PRIORITY=5")[0] == 250
    (mail,) = fleets.told("n@plain.example")
    assert b"Action: relayed\r\nStatus: 2.1.9\r\n" in mail.content
    assert b"\r\nDeliver-By-Date: " in mail.content
    assert not fleets.told("x@plain.example")
    assert "MT-PRIORITY=5" in fleets.mail_commands("senders", "")[-1]  # as the message
    assert send(gateway, {"t@knows.example": ""}, "BY=600;NT")[0] == 250
    (mail,) = fleets.told("t@knows.example")
    assert b"Action: relayed\r\nStatus: 2.0.0\r\n" in mail.content


def test_what_waits_too_long_is_told_once_and_tried_on(fleets: Fleets, gateway: Gateway):
    sender = "late@senders.example"
    assert send(gateway, {"w@waits.example": "", "d@waits.example": "NOTIFY=SUCCESS"}, "BY=1;N", sender)[0] == 250
    wait_until(lambda: len(fleets.mail_commands("waits", sender)) == 3, "tried again")
    wait_until(lambda: fleets.told("w@waits.example"), "told")
    (mail,) = fleets.told("w@waits.example")
    assert b"Action: delayed\r\nStatus: 4.4.7\r\n" in mail.content
    assert not fleets.told("d@waits.example")
    left = [int(each.partition("BY=")[2].partition(";")[0]) for each in fleets.mail_commands("waits", sender)]
    assert left[0] >= left[1] >= left[2] and left[1] <= 0


def test_what_is_to_come_back_comes_back_in_time(fleets: Fleets, gateway: Gateway):
    assert send(gateway, {"r@never.example": ""}, "BY=5;R", "r@senders.example")[0] == 250
    wait_until(lambda: fleets.told("r@never.example"), "told")
    (mail,) = fleets.told("r@never.example")
    assert b"Action: failed\r\nStatus: 5.4.7\r\n" in mail.content
