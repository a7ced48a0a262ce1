"""AUTH as exchanges of lines; and the short form of the fuzzing of what comes before a client is known."""

from __future__ import annotations

import base64

import pytest

from gateway.config import ListenerParams
from gateway.smtp.events import AuthRequested, EhloRequested, ExternalRequested, Observer
from gateway.smtp.replies import AUTH_OK, RESET_OK, Reply
from gateway.smtp.session import ServerSession
from gateway.smtp.terms import Terms
from tests.fuzz import fuzz_arrival

SCOTT, TIGER = base64.b64encode(b"scott"), base64.b64encode(b"tiger")


class Talk(Observer):
    """A session under TLS whose client has shown these identities in its certificate."""

    def __init__(self, *identities: str, offer_auth: bool = True) -> None:
        self.session = ServerSession(Terms(ListenerParams(hostname="gw.example"), offer_auth=offer_auth), self)
        self.session.tls_started()
        self.session.identities = identities
        self.seen: list[bytes] = []
        self.claimed: list[tuple[str, ...]] = []
        self.offered: tuple[str, ...] = ()

    def replied(self, verb: int, reply: Reply, argument: bytes) -> None:
        self.seen.append(argument)

    def says(self, *lines: bytes) -> list[str]:
        self.session.receive_data(b"".join(line + b"\r\n" for line in lines))
        while (event := self.session.next_event()) is not None:
            if isinstance(event, AuthRequested):
                self.claimed.append((event.authorization, event.authentication, event.password))
            elif isinstance(event, ExternalRequested):
                self.claimed.append((event.identity,))
            if isinstance(event, EhloRequested):
                self.offered = event.extensions
            self.session.reply(RESET_OK if isinstance(event, EhloRequested) else AUTH_OK)
        return self.session.data_to_send().decode().splitlines()[-len(lines) :]


@pytest.mark.parametrize(
    ("lines", "replies"),
    [
        ([b"AUTH LOGIN", SCOTT, TIGER], ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235"]),
        ([b"auth login " + SCOTT, TIGER], ["334 UGFzc3dvcmQ6", "235"]),
    ],
)
def test_login_asks_for_what_the_command_did_not_bring(lines, replies):
    talk = Talk()
    said = talk.says(b"EHLO x", *lines)[1:]
    assert [line[: len(reply)] for line, reply in zip(said, replies, strict=True)] == replies
    assert talk.claimed == [("scott", "scott", "tiger")]
    assert not {SCOTT, TIGER, b"scott", b"tiger"} & set(talk.seen)


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        ([b"AUTH LOGIN", b"*"], "501 5.7.0"),
        ([b"AUTH LOGIN", SCOTT, b"*"], "501 5.7.0"),
        ([b"AUTH LOGIN ="], "501 5.5.2"),
        ([b"AUTH LOGIN", b"="], "501 5.5.2"),
        ([b"AUTH LOGIN", b""], "501 5.5.2"),
        ([b"AUTH LOGIN", SCOTT, b""], "501 5.5.2"),
        ([b"AUTH LOGIN", b"no base64!"], "501 5.5.2"),
        ([b"AUTH LOGIN", base64.b64encode(b"a\0b")], "501 5.5.2"),
        ([b"AUTH LOGIN", SCOTT, b"x" * 13_000], "500 5.5.6"),
        ([b"AUTH EXTERNAL ="], "504 5.5.4"),
        ([b"AUTH CRAM-MD5"], "504 5.5.4"),
        ([b"AUTH"], "501 5.5.4"),
    ],
)
def test_an_exchange_that_goes_wrong_ends_and_the_session_goes_on(lines, last):
    talk = Talk()
    assert talk.says(b"EHLO x", *lines)[-1].startswith(last)
    assert talk.says(b"NOOP")[-1].startswith("250 ")
    assert talk.claimed == []


@pytest.mark.parametrize(
    ("lines", "identity"),
    [
        ([b"AUTH EXTERNAL ="], "mx.example"),
        ([b"AUTH EXTERNAL", b""], "mx.example"),
        ([b"AUTH EXTERNAL " + base64.b64encode(b"other.example")], "other.example"),
        ([b"AUTH EXTERNAL", base64.b64encode(b"other.example")], "other.example"),
    ],
)
def test_external_is_for_what_the_certificate_says(lines, identity):
    for offer_auth in (True, False):
        talk = Talk("mx.example", "other.example", offer_auth=offer_auth)
        assert talk.says(b"EHLO x", *lines)[-1].startswith("235 ")
        assert talk.offered[-1] == ("AUTH PLAIN LOGIN EXTERNAL" if offer_auth else "AUTH EXTERNAL")
        assert talk.claimed == [(identity,)]


def test_external_for_another_name_is_refused_and_without_a_handler_there_is_nothing_else():
    talk = Talk("mx.example", offer_auth=False)
    assert talk.says(b"EHLO x", b"AUTH EXTERNAL " + SCOTT)[-1].startswith("535 5.7.8 ")
    assert talk.says(b"AUTH PLAIN")[-1].startswith("504 5.5.4 ")
    assert Talk(offer_auth=False).says(b"EHLO x", b"AUTH EXTERNAL =")[-1].startswith("502 5.5.1 ")


@pytest.mark.parametrize("check", fuzz_arrival.CHECKS)
def test_no_octets_make_a_reader_fail_otherwise_than_it_says(check):
    for seed in range(300):
        fuzz_arrival.seeded(check, seed)
