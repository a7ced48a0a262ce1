"""What EHLO offers: the listener's own, what its fleet takes, and nothing that is withheld; at the wire."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator

import pytest

from gateway.config import ListenerParams
from gateway.smtp.capabilities import (
    BINARY,
    CHUNKS,
    DSN,
    EIGHT_BIT,
    REQUIRE_TLS,
    UNKNOWN,
    UTF8,
    Abilities,
    offered,
    taken_by_all,
    with_fleet,
)
from gateway.smtp.terms import Terms
from tests.fleets import Fleets
from tests.gateway_process import INIT, Gateway, wait_until
from tests.upstream import EXTENSIONS, Do, Upstream, ehlo

OWN = EIGHT_BIT | UTF8 | CHUNKS
LINES = ("PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING")
CLIENTS = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.0/8' }")


def test_an_offer_follows_each_thing_that_it_depends_on():
    terms, fleet = Terms(ListenerParams(hostname="gw.example")), Abilities(OWN | REQUIRE_TLS)
    assert "REQUIRETLS" not in terms.offered(LINES, fleet, False)
    assert "REQUIRETLS" in terms.offered(LINES, fleet, True)
    assert "REQUIRETLS" not in terms.offered(LINES, fleet, False)
    assert terms.offered(LINES[:1], fleet, False) == LINES[:1]
    assert "CHUNKING" in terms.offered(LINES, fleet, False)
    assert "CHUNKING" not in terms.offered(LINES, Abilities(EIGHT_BIT | UTF8), False)
    assert terms.read(LINES).size == 1000
    assert terms.read(LINES[:1]) == offered(LINES[:1])
    assert terms.read(None) is UNKNOWN


@pytest.mark.parametrize(
    ("members", "taken"),
    [
        ([], UNKNOWN),
        ([None], UNKNOWN),
        ([Abilities(OWN | DSN), None], UNKNOWN),
        ([Abilities(OWN | DSN, 500)], Abilities(OWN | DSN, 500)),
        ([Abilities(OWN | DSN, 500), Abilities(OWN | DSN, 700)], Abilities(OWN | DSN, 700)),  # the other one takes it
        ([Abilities(OWN | DSN, 500), Abilities(OWN)], Abilities(OWN)),
        ([Abilities(OWN, 500), None], Abilities(OWN)),
        ([Abilities(OWN), Abilities(UTF8)], Abilities(UTF8 | CHUNKS)),
        ([Abilities(EIGHT_BIT), None], Abilities(EIGHT_BIT | CHUNKS)),  # chunks are made into DATA
    ],
)
def test_what_a_fleet_takes(members: list[Abilities | None], taken: Abilities):
    assert taken_by_all(members) == taken


@pytest.mark.parametrize(
    ("taken", "withheld", "lines"),
    [
        (UNKNOWN, (), LINES),
        (Abilities(OWN | DSN, 2000), (), (*LINES, "DSN")),
        (Abilities(OWN, 999), (), ("PIPELINING", "SIZE 999", *LINES[2:])),
        (Abilities(CHUNKS), (), ("PIPELINING", "SIZE 1000", "ENHANCEDSTATUSCODES", "CHUNKING")),
        (Abilities(OWN | DSN | BINARY), ("DSN", "SIZE", "CHUNKING"), ("PIPELINING", *LINES[2:5])),
        (Abilities(OWN | BINARY), (), (*LINES, "BINARYMIME")),
    ],
)
def test_what_is_offered_of_it(taken: Abilities, withheld: tuple[str, ...], lines: tuple[str, ...]):
    assert with_fleet(LINES, taken, frozenset(withheld)) == lines


def test_a_session_is_held_to_what_it_was_offered():
    assert offered(("size 12", "8bitmime", "X-OTHER")) == Abilities(EIGHT_BIT, 12)
    assert offered(("SIZE", "DSN")) == Abilities(DSN)
    assert offered(None) == UNKNOWN


def greeted(gateway: Gateway) -> smtplib.SMTP:
    client = gateway.smtp()
    client.ehlo("client.example")
    return client


def extensions(gateway: Gateway) -> dict[str, str]:
    with greeted(gateway) as client:
        return client.esmtp_features


def said(gateway: Gateway, command: str) -> tuple[int, bytes]:
    with greeted(gateway) as client:
        return client.docmd(command)


def relay(gateway: Gateway) -> None:
    with gateway.smtp() as client:
        client.sendmail("ann@senders.example", ["x@anywhere.example"], b"Subject: x\r\n\r\nx\r\n")


@pytest.fixture(scope="module")
def fleets() -> Iterator[Fleets]:
    running = Fleets()
    try:
        yield running
    finally:
        running.close()


def announce(fleets: Fleets, member: Upstream, *names: str) -> None:
    """From now on, and on new connections."""

    async def drop() -> None:
        member.answers["EHLO"] = ehlo(*names)
        member.drop_all(Do.DROP)

    fleets._run(drop())


def test_what_the_members_lack_is_not_offered_until_they_have_it(fleets: Fleets, start: Callable[..., Gateway]):
    member = fleets.add("announces", {"EHLO": ehlo(*EXTENSIONS)})
    running = start(CLIENTS, "--workers", "1", "--fleet", f"127.0.0.1:{member.port}")

    def becomes(**expected: str | None) -> Callable[[], bool]:
        def holds() -> bool:
            found = extensions(running)
            if all(found.get(name.lstrip("_")) == value for name, value in expected.items()):
                return True
            relay(running)
            return False

        return holds

    wait_until(becomes(size="20000000", _8bitmime="", smtputf8=""), "asked")
    assert said(running, "MAIL FROM:<a@b.example> SIZE=20000001") == (552, b"5.3.4 message too big")
    assert said(running, "MAIL FROM:<a@b.example> SIZE=20000000")[0] == 250
    announce(fleets, member, "SIZE 0")
    wait_until(becomes(size="20971520", _8bitmime=None, smtputf8=None, chunking=""), "withdrawn")
    assert said(running, "MAIL FROM:<a@b.example> BODY=8BITMIME") == (555, b"5.5.4 Parameter BODY is not supported")
    assert said(running, "MAIL FROM:<a@b.example> SMTPUTF8") == (555, b"5.5.4 Parameter SMTPUTF8 is not supported")
    announce(fleets, member, "8BITMIME", "SMTPUTF8")
    wait_until(becomes(size="20971520", _8bitmime="", smtputf8=""), "offered again")


WITHHOLDS = CLIENTS.replace("hostname =", "withhold_extensions = { 'CHUNKING', 'starttls', 'SMTPUTF8' }, hostname =")


def test_a_listener_that_withholds_auth_or_starttls_does_neither():
    params = ListenerParams(hostname="gw.example", withhold_extensions=frozenset({"AUTH", "STARTTLS"}))
    terms = Terms(params, offer_tls=True, offer_auth=True)
    assert not terms.offer_tls and not terms.offer_auth
    assert not {"STARTTLS", "AUTH PLAIN LOGIN"} & {*terms.extensions, *terms.extensions_under_tls}


def test_what_a_listener_withholds_is_neither_offered_nor_done(start: Callable[..., Gateway]):
    running = start(WITHHOLDS, "--workers", "1")
    assert {"8bitmime", "size", "limits"} <= extensions(running).keys()
    assert not {"chunking", "starttls", "smtputf8"} & extensions(running).keys()
    assert said(running, "STARTTLS")[0] == 454
    with greeted(running) as client:
        assert client.docmd("MAIL FROM:<a@b.example> SMTPUTF8")[0] == 555
        assert client.docmd("MAIL FROM:<a@b.example>")[0] == 250
        assert client.docmd("RCPT TO:<a@b.example>")[0] == 250
        client.send(b"BDAT 6 LAST\r\nRSET\r\nNOOP\r\n")  # its octets are no commands
        assert [client.getreply()[0] for _ in range(2)] == [502, 250]
        assert client.docmd("RSET")[0] == 250
