"""The spool of a real gateway: what the fleet cannot take is taken, kept, and arrives; or its sender hears of it."""

from __future__ import annotations

import re
import smtplib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fleets import Fleets, gateway_before
from tests.gateway_process import INIT, Gateway, wait_until
from tests.upstream import Do, Mail, Upstream

SPOOL = """
kumo.define_spool { name = 'meta', path = SPOOL .. '-meta' }
kumo.define_spool { name = 'data', path = SPOOL, min_free_space = ROOM or 0, min_free_inodes = 0 }
"""
POLICY = (
    INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
    + SPOOL
    + """
kumo.on('get_queue_config', function(domain)
  local name = domain:match '(%w+)%.example$'
  return kumo.make_queue_config {
    protocol = { smtp = { mx_list = { FLEETS[name] } } },
    retry_interval = '1 second',
    max_age = name == 'late' and '2 seconds' or '1 hour',
    on_partial_refusal = name == 'quiet' and 'Record' or 'Dsn',
  }
end)
"""
)
MESSAGE = b"Subject: x\r\n\r\n.dot\r\n..dots\r\nend\r\n"


class Outage:
    """Fleets that can be away, and what they were given."""

    def __init__(self) -> None:
        self.fleets = Fleets()

    def add(self, name: str, answers: dict[str, Any] | None = None, *, away: bool = False) -> None:
        assert name not in self.fleets.upstreams
        self.fleets.add(name, answers or {})
        if away:
            self.fleets._run(self.upstream(name).stop())

    def upstream(self, name: str) -> Upstream:
        return self.fleets.upstreams[name]

    def back(self, name: str) -> None:
        async def begin() -> None:
            await self.upstream(name).__aenter__()

        self.fleets._run(begin())

    def mails(self, name: str) -> list[Mail]:
        return self.fleets.mails(name)

    def lua(self, folder: Path, room: str = "nil") -> str:
        return f"SPOOL = '{folder}/spool'; ROOM = {room} {self.fleets.lua()}"


@pytest.fixture(scope="module")
def outage() -> Iterator[Outage]:
    made = Outage()
    made.add("gone", away=True)
    made.add("late", away=True)
    made.add("some", {"RCPT <deferred@some.example>": [b"450 4.2.1 later\r\n", b"250 2.1.5 now\r\n"]})
    made.add("vanishes", {".": [Do.DROP, b"250 2.0.0 queued\r\n"]})
    made.add("wont", {".": [b"451 4.3.0 later\r\n", b"554 5.6.0 not such content\r\n"]})
    made.add("quiet", {".": [b"451 4.3.0 later\r\n", b"554 5.6.0 not such content\r\n"]})
    made.add("nobodys", {".": [b"451 4.3.0 later\r\n", b"554 5.6.0 not such content\r\n"]})
    made.add("never", {".": b"554 5.6.0 not such content\r\n"})
    made.add("partly", {"RCPT <no@partly.example>": b"550 5.1.1 no\r\n"})
    made.add("senders")
    made.add("awaysenders", away=True)
    try:
        yield made
    finally:
        made.fleets.close()


@pytest.fixture(scope="module")
def gateway(outage: Outage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("spool")
    with gateway_before(outage.fleets, folder, outage.lua(folder) + POLICY) as running:
        yield running


def send(gateway: Gateway, *recipients: str, sender: str = "a@senders.example") -> Any:
    with smtplib.SMTP(*gateway.address, "client.example", 30) as client:
        return client.sendmail(sender, list(recipients), MESSAGE)


def content(mail: Mail) -> bytes:
    return mail.content[mail.content.index(b"Subject: x") :]


def kinds(gateway: Gateway, recipient: str) -> list[tuple[str, int]]:
    return [
        (record["type"], record["num_attempts"])
        for record in gateway.records()
        if recipient in (record["recipient"] if isinstance(record["recipient"], list) else [record["recipient"]])
    ]


def test_what_cannot_be_reached_is_taken_and_arrives_when_the_fleet_is_back(gateway, outage):
    before = gateway.metric('messages_total{disposition="spooled"}')
    for number in range(5):
        send(gateway, f"r{number}@gone.example")
    assert gateway.metric("spool_messages") >= 5
    assert gateway.metric('messages_total{disposition="spooled"}') == before + 5
    outage.back("gone")
    wait_until(lambda: len(outage.mails("gone")) == 5, "everything arrived")
    assert sorted(mail.recipients for mail in outage.mails("gone")) == [
        [f"r{number}@gone.example"] for number in range(5)
    ]
    assert {content(mail) for mail in outage.mails("gone")} == {b"Subject: x\r\n\r\n..dot\r\n...dots\r\nend\r\n"}
    wait_until(lambda: kinds(gateway, "r1@gone.example")[2:], "the Delivery is logged")
    kinds_of_one = kinds(gateway, "r1@gone.example")
    assert kinds_of_one[:2] == [("Reception", 0), ("TransientFailure", 0)]
    assert kinds_of_one[-1] == ("Delivery", len(kinds_of_one) - 2)
    wait_until(lambda: gateway.metric("spool_messages") == 0, "the spool is empty")
    assert gateway.metric("spool_bytes") == 0


def test_who_is_deferred_comes_later_and_the_others_get_it_at_once_and_once(gateway, outage):
    send(gateway, "taken@some.example", "deferred@some.example")
    assert [mail.recipients for mail in outage.mails("some")] == [["taken@some.example"]]
    wait_until(lambda: len(outage.mails("some")) > 1, "the other one gets it, too")
    assert [mail.recipients for mail in outage.mails("some")] == [["taken@some.example"], ["deferred@some.example"]]


def test_what_nobody_knows_is_tried_again(gateway, outage):
    send(gateway, "r@vanishes.example")
    wait_until(lambda: len(outage.mails("vanishes")) == 1, "it arrived")
    wait_until(lambda: ("Delivery", 1) in kinds(gateway, "r@vanishes.example"), "the Delivery is logged")
    assert ("TransientFailure", 0) in kinds(gateway, "r@vanishes.example")


def test_what_is_refused_for_good_is_refused_and_costs_no_write(gateway, outage):
    before = gateway.metric("spool_kept_total")
    with pytest.raises(smtplib.SMTPDataError) as refused:
        send(gateway, "r@never.example")
    assert refused.value.smtp_code == 554
    send(gateway, "r@senders.example")
    assert gateway.metric("spool_kept_total") == before


def notifications(outage: Outage, about: str, fleet: str = "senders") -> list[Mail]:
    return [mail for mail in outage.mails(fleet) if f"Final-Recipient: rfc822; {about}".encode() in mail.content]


def test_a_sender_is_notified_of_what_the_fleet_refused_later(gateway, outage):
    send(gateway, "r@wont.example")
    (mail,) = wait_until(lambda: notifications(outage, "r@wont.example"), "the sender is told")
    assert (mail.sender, mail.recipients) == ("", ["a@senders.example"])
    assert b"Diagnostic-Code: smtp; 554 5.6.0 not such content" in mail.content
    assert b"Original-Recipient: rfc822; r@wont.example" in mail.content
    wait_until(lambda: ("Bounce", 1) in kinds(gateway, "r@wont.example"), "the Bounce is logged")
    (bounce,) = [
        each for each in gateway.records() if (each["type"], each["recipient"]) == ("Bounce", "r@wont.example")
    ]
    assert bounce["notification"]["result"] == "spooled"


def test_nobody_is_notified_where_the_record_is_enough_or_nobody_sent_it(gateway, outage):
    send(gateway, "r@quiet.example")
    wait_until(lambda: ("Bounce", 1) in kinds(gateway, "r@quiet.example"), "the Bounce is logged")
    send(gateway, "r@nobodys.example", sender="")
    wait_until(lambda: ("Bounce", 1) in kinds(gateway, "r@nobodys.example"), "the Bounce is logged")
    results = {
        each["recipient"]: each["notification"]["result"] for each in gateway.records() if each["type"] == "Bounce"
    }
    assert results["r@quiet.example"] == "record"
    assert results["r@nobodys.example"] == "null_sender"
    assert notifications(outage, "r@quiet.example") == []


def test_what_is_not_taken_in_time_expires_and_its_sender_is_told(gateway, outage):
    send(gateway, "r@late.example")
    (mail,) = wait_until(lambda: notifications(outage, "r@late.example"), "the sender is told")
    assert b"Status: 5.4.7" in mail.content
    assert b"it was not taken" in mail.content
    expiration = wait_until(
        lambda: next((each for each in gateway.records() if each["type"] == "Expiration"), None), "it is logged"
    )
    assert expiration["response"]["code"] == 551
    assert expiration["notification"]["result"] == "spooled"
    assert gateway.metric('spool_redeliveries_total{result="expired"}') == 1


def test_a_notification_that_is_not_taken_waits_in_the_spool(gateway, outage):
    send(gateway, "yes@partly.example", "no@partly.example", sender="b@awaysenders.example")
    assert gateway.metric('notifications_total{result="spooled"}') == 1
    outage.back("awaysenders")
    wait_until(lambda: notifications(outage, "no@partly.example", "awaysenders"), "the sender is told")


def test_without_room_the_client_is_told_so_and_keeps_the_message(outage, tmp_path):
    outage.add("away", away=True)
    with gateway_before(outage.fleets, tmp_path, outage.lua(tmp_path, "'100%'") + POLICY) as gateway:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(gateway, "r@away.example")
        assert (refused.value.smtp_code, refused.value.smtp_error[:5]) == (452, b"4.3.1")
        send(gateway, "r@senders.example")
        assert gateway.metric("spool_failures_total") == 1
        assert "TransientFailure" not in {kind for kind, _ in kinds(gateway, "r@senders.example")}


def ordered(folder: Path, *words: str) -> str:
    """What `relay-gateway spool` says."""
    action, *options = words
    command = [sys.executable, "-m", "gateway", "spool", action, str(folder / "spool"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_an_operator_holds_retries_and_drops_messages_of_a_gateway_that_runs(outage, tmp_path):
    outage.add("parked", away=True)
    with gateway_before(outage.fleets, tmp_path, outage.lua(tmp_path) + POLICY) as gateway:
        for name in ("held", "dropped"):
            send(gateway, f"{name}@parked.example")
        assert ordered(tmp_path, "list").count("unreachable") == 2
        assert ordered(tmp_path, "hold", "--recipient", "held@parked.example") == "1 message held\n"
        assert ordered(tmp_path, "drop", "--recipient", "dropped@parked.example") == "1 message dropped\n"
        assert gateway.metric("spool_messages") == 1
        wait_until(lambda: "AdminBounce" in dict(kinds(gateway, "dropped@parked.example")), "it is logged")
        outage.back("parked")
        assert ordered(tmp_path, "retry", "--all") == "1 message to be tried now\n"
        wait_until(lambda: outage.mails("parked"), "it arrived")
        assert [mail.recipients for mail in outage.mails("parked")] == [["held@parked.example"]]


# --- processes that end -----------------------------------------------------------------------------------------------


class Restarted:
    """A gateway before one fleet, started again and again in the same place."""

    def __init__(self, start: Callable[..., Gateway], folder: Path) -> None:
        self.outage = Outage()
        self.outage.add("gone", away=True)
        self.folder = folder
        self.gateways: list[Gateway] = []
        self._start = start

    def start(self, workers: int = 1) -> Gateway:
        policy = self.outage.lua(self.folder) + POLICY
        gateway = self._start(policy, "--workers", str(workers))
        self.gateways.append(gateway)
        gateway.announced()
        return gateway

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "spool").glob("*.spool"))

    def arrived(self) -> set[str]:
        return {mail.recipients[0] for mail in self.outage.mails("gone")}


@pytest.fixture
def restarted(start: Callable[..., Gateway], tmp_path: Path) -> Iterator[Restarted]:
    made = Restarted(start, tmp_path)
    yield made
    for gateway in made.gateways:
        gateway.kill()  # before the fleet that it may be talking to
    made.outage.fleets.close()


def test_what_was_taken_survives_a_kill_and_fewer_workers(restarted):
    gateway = restarted.start(2)
    sent = {f"r{number}@gone.example" for number in range(40)}
    for recipient in sent:
        send(gateway, recipient)
    assert restarted.files() == ["0-0.spool", "1-0.spool"]
    gateway.kill()
    restarted.outage.back("gone")
    gateway = restarted.start(1)
    wait_until(lambda: restarted.arrived() == sent, lambda: f"{len(restarted.arrived())} arrived")
    assert len(restarted.outage.mails("gone")) == 40
    wait_until(lambda: restarted.files() == ["0-0.spool"], "what nobody needs is gone")
    assert gateway.stop() == 0


def test_a_reload_takes_the_spool_along(restarted):
    gateway = restarted.start()
    send(gateway, "before@gone.example")
    gateway.reload(restarted.outage.lua(restarted.folder) + POLICY)
    gateway.announced(2)
    send(gateway, "after@gone.example")
    restarted.outage.back("gone")
    both = {"before@gone.example", "after@gone.example"}
    wait_until(lambda: restarted.arrived() == both, lambda: f"{restarted.arrived()} {gateway.diagnostics()}")
    assert gateway.stop() == 0


def test_what_is_damaged_stays_is_counted_and_holds_up_nothing(restarted):
    gateway = restarted.start()
    for number in range(3):
        send(gateway, f"r{number}@gone.example")
    assert gateway.stop() == 0
    with closing(sqlite3.connect(restarted.folder / "spool" / "0-0.spool")) as database:
        (octets,) = database.execute("SELECT octets FROM contents ORDER BY place LIMIT 1 OFFSET 1").fetchone()
    changed = re.sub(b"Subject: x", b"Subject: y", octets)
    path = restarted.folder / "spool" / "0-0.spool"
    assert path.read_bytes().count(octets) == 1
    path.write_bytes(path.read_bytes().replace(octets, changed))
    restarted.outage.back("gone")
    gateway = restarted.start()
    wait_until(lambda: len(restarted.arrived()) == 2, "the others arrived")
    wait_until(lambda: gateway.metric("spool_damaged_total") == 1, "it is counted")
    wait_until(lambda: gateway.metric("spool_messages") == 1, "it stays")
    assert "is damaged" in gateway.diagnostics()


def test_a_file_that_is_none_holds_up_nothing(restarted):
    (restarted.folder / "spool").mkdir()
    (restarted.folder / "spool" / "0-0.spool").write_bytes(b"no database" * 1000)
    gateway = restarted.start()
    send(gateway, "r@gone.example")
    restarted.outage.back("gone")
    wait_until(restarted.arrived, "it arrived")
    assert list((restarted.folder / "spool").glob("0-0.spool.damaged-*"))


def test_with_a_fleet_on_the_command_line_the_spool_is_named_there_too(restarted, start):
    address = restarted.outage.fleets.addresses["gone"]
    policy = restarted.outage.lua(restarted.folder) + POLICY
    gateway = start(policy, "--workers", "1", "--fleet", address)
    restarted.gateways.append(gateway)
    with pytest.raises(smtplib.SMTPDataError):
        send(gateway, "r@gone.example")
    assert not (restarted.folder / "spool").exists()
    gateway.stop()
    (restarted.folder / "own.toml").write_text(f'fleet = ["{address}"]\nspool = "{restarted.folder}/own"\n')
    gateway = start(policy, "--workers", "1", "--gateway-config", str(restarted.folder / "own.toml"))
    restarted.gateways.append(gateway)
    send(gateway, "r@gone.example")
    assert (restarted.folder / "own" / "0-0.spool").exists()
