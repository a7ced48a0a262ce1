"""The members of a running service: `relay-gateway fleet`, draining one, and their series in /metrics."""

from __future__ import annotations

import smtplib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.couriers.fleet.health import Health, MemberState
from gateway.couriers.fleet.survey import families, lines, survey
from gateway.couriers.fleet.table import SIZE, MemberTable
from tests.fleets import Fleets
from tests.gateway_process import INIT, TO_UPSTREAMS, Gateway, wait_until
from tests.upstream import Answer, Do, ehlo

OPEN = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


def ask(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "fleet", *words, "--control", str(gateway.folder / "control")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def row(gateway: Gateway, member: str) -> list[str]:
    """A member's line of the table, by words."""
    said = ask(gateway).stdout.splitlines()
    return next((line.split() for line in said if line.startswith(f"{member} ")), [])


@contextmanager
def running(folder: Path, fleets: Fleets, *names: str) -> Iterator[Gateway]:
    """A gateway of two workers in front of one fleet."""
    upstreams = [fleets.addresses[name] for name in names]
    gateway = Gateway(folder, OPEN + TO_UPSTREAMS, "--workers", "2", "--control", "control", upstreams=upstreams)
    try:
        gateway.announced()
        yield gateway
    finally:
        gateway.kill()


@pytest.fixture(scope="module")
def fleets() -> Iterator[Fleets]:
    fleets = Fleets()
    yield fleets
    fleets.close()


def test_members_are_shown_drained_and_counted(fleets: Fleets, tmp_path: Path) -> None:
    names = one, two = fleets.addresses["taken1"], fleets.addresses["taken2"]
    with running(tmp_path, fleets, "taken1", "taken2") as gateway:
        assert ask(gateway).stdout == "no mail has been relayed to a fleet yet\n"

        def deliver() -> None:
            with gateway.smtp() as client:
                client.sendmail("a@x.example", ["b@y.example"], MESSAGE)

        def both_served() -> bool:
            deliver()
            return all(row(gateway, name)[1:2] == ["up"] for name in names)

        wait_until(both_served, "both members up")
        refused = ask(gateway, "drain", "nobody")
        assert refused.returncode == 1
        assert f"known are: {', '.join(sorted(names))}" in refused.stderr
        assert ask(gateway, "drain", one).returncode == 0
        assert row(gateway, one)[1] == "drained"
        wait_until(lambda: gateway.metric(f'upstream_member_state{{member="{one}",state="drained"}}') == 1, "drained")

        def left_alone() -> bool:
            before = len(fleets.mails("taken1"))
            for _ in range(6):
                deliver()
            return len(fleets.mails("taken1")) == before

        wait_until(left_alone, "both workers know")
        before = len(fleets.mails("taken1"))
        assert ask(gateway, "undrain", one).returncode == 0

        def served_again() -> bool:
            deliver()
            return len(fleets.mails("taken1")) > before

        wait_until(served_again, "the member gets mail again")
        taken = len(fleets.mails("taken1")) + len(fleets.mails("taken2"))

        def counted() -> bool:
            series = (f'upstream_member_transactions_total{{member="{name}",result="delivered"}}' for name in names)
            return sum(map(gateway.metric, series)) == taken

        wait_until(counted, "every transaction counted")
        assert two in ask(gateway, "show").stdout


FLEET = """
local gateway = require 'gateway'
kumo.on('get_queue_config', function()
  local first, last = table.unpack(UPSTREAMS)
  local members = { { host = last, group = 2, weight = 7, zone = 'far' }, first }
  return kumo.make_queue_config { protocol = gateway.fleet { members = members } }
end)
"""


def test_a_fleet_of_the_gateways_own_is_served_and_shown_on_its_terms(fleets: Fleets, tmp_path: Path) -> None:
    names = first, last = fleets.addresses["senders1"], fleets.addresses["picky1"]
    gateway = Gateway(tmp_path, OPEN + FLEET, "--workers", "1", "--control", "control", upstreams=names)
    try:
        with gateway.smtp() as client:
            for _ in range(4):
                client.sendmail("a@x.example", ["b@y.example"], MESSAGE)
        assert (len(fleets.mails("senders1")), len(fleets.mails("picky1"))) == (4, 0)
        assert row(gateway, first)[1:5] == ["1", "-", "1", "up"]
        assert row(gateway, last)[1:5] == ["2", "far", "7", "unknown"]
    finally:
        gateway.kill()


TOLD = """
local gateway = require 'gateway'
kumo.on('get_queue_config', function()
  return kumo.make_queue_config {
    protocol = gateway.fleet {
      members = UPSTREAMS,
      client_address = 'xforward',
      path = {
        smtp_auth_plain_username = 'gw',
        smtp_auth_plain_password = { key_data = 'hush-hush' },
        allow_smtp_auth_plain_without_tls = true,
      },
    },
  }
end)
"""


def test_members_are_told_who_we_and_our_clients_are_and_nobody_else_the_password(
    fleets: Fleets, tmp_path: Path
) -> None:
    offered = ehlo("PIPELINING", "AUTH PLAIN", "XFORWARD ADDR HELO")
    answers: dict[str, Answer | list[Answer]] = {"EHLO": offered, "AUTH": b"235 ok\r\n", "XFORWARD": b"250 ok\r\n"}
    member = fleets.add("told", answers)
    upstreams = [fleets.addresses["told"]]
    gateway = Gateway(tmp_path, OPEN + TOLD, "--workers", "1", "--control", "control", upstreams=upstreams)
    try:
        with gateway.smtp() as client:
            client.sendmail("a@x.example", ["b@y.example"], MESSAGE)
            assert "XFORWARD ADDR=127.0.0.1 HELO=client.example" in member.commands
            member.answers["AUTH"] = b"535 5.7.8 who is AGd3AGh1c2gtaHVzaA==\r\n"
            member.answers["MAIL"] = Do.DROP  # so that a new connection is opened
            with pytest.raises(smtplib.SMTPResponseException) as refused:
                client.sendmail("a@x.example", ["b@y.example"], MESSAGE)
        wait_until(lambda: "AUTH PLAIN: '535" in gateway.diagnostics(), "the refusal is logged")
        shown = gateway.diagnostics(), str(gateway.records()), gateway.get("/metrics")[1], str(refused.value)
        shown += (ask(gateway).stdout, gateway.get("/trace/recent")[1])
        assert not [text for text in shown if "hush" in text or "AGd3AGh1c2gtaHVzaA" in text]
    finally:
        gateway.kill()


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_a_survey_adds_up_what_all_rows_say() -> None:
    memory = memoryview(bytearray(SIZE))
    tables = [MemberTable(memory, row) for row in (1, 2)]
    one, two = (table.enter("10.0.0.1", 25, "mta1") for table in tables)
    one.connect(2, 100.0)
    two.connect(3, 50.0)  # was killed
    one.count((3, 1, 0, 0, 0), 0.5, {"connect": 1})
    two.count((1, 0, 0, 2, 1), 0.5, {"mail": 2, "connect": 1})
    one.publish(Health(MemberState.UP, 10.0))
    two.publish(Health(MemberState.DOWN, 20.0, 3, 15.0, 30.0, 0))
    (member,) = survey(MemberTable(memory), 100.0)
    assert (member.name, member.state, member.connections) == ("mta1", "down", 2)
    assert (member.results, member.seconds) == ([4, 1, 0, 2, 1], 1.0)
    shown = "mta1 down 85 s 2 0 4 1 0 2 1 0.250 connect:2 mail:2"
    assert " ".join(lines([member], 100.0)[1].split()) == shown


def test_a_drained_member_is_shown_as_such_and_members_of_one_name_are_one_series() -> None:
    table = MemberTable(memoryview(bytearray(SIZE)), 1)
    table.enter("10.0.0.1", 25, "mta").drain(True)
    table.enter("10.0.0.2", 25, "mta")
    states = {
        tuple(sample.labels.values()): sample.value for sample in next(iter(families(survey(table, 1.0)))).samples
    }
    assert states["mta", "drained"] == states["mta", "unknown"] == 1
    assert states["mta", "up"] == 0
