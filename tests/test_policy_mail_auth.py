"""dkim_verify, arc_verify and add_authentication_results, with messages that are signed here."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.authentication import canonical_body, results_field, signature_names, verify_arc, verify_dkim
from gateway.mail.message import Message
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.problems import PolicyError, PolicyProblems
from gateway.smtp.address import parse_address
from tests.policy_tools import load

MAIL = b"From: a@x.example\r\nTo: b@y.example\r\nSubject: hello\r\n\r\nHello,  you \r\n\r\n"


@lru_cache
def key() -> tuple[bytes, str]:
    """A private key, and what the DNS says of it."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem, f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"


def signed(mail: bytes = MAIL, selector: bytes = b"s1", **options: Any) -> bytes:
    return dkim.sign(mail, selector, b"x.example", key()[0], include_headers=[b"from", b"subject"], **options) + mail


def sealed(mail: bytes = MAIL) -> bytes:
    mail = b"Authentication-Results: gw.example; none\r\n" + mail
    return b"".join(dkim.arc_sign(mail, b"s1", b"x.example", key()[0], b"gw.example", timestamp="1700000000")) + mail


def run(body: str, content: bytes) -> Message:
    """The message after a handler with this body; the DNS has a key for s1 at x.example."""
    chunks = "', '".join([key()[1][start : start + 200] for start in range(0, len(key()[1]), 200)])
    records = '" "'.join(chunks.split("', '"))
    policy = load(
        "kumo.dns.configure_resolver { Test = { zones = { [[\n$ORIGIN x.example.\n"
        f's1._domainkey 300 IN TXT "{records}"\ngone._domainkey 300 IN TXT "v=DKIM1; p="\n]] }} }} }}\n'
        f"kumo.on('smtp_server_message_received', function(msg)\n{body}\nend)"
    )
    message = Message("0" * 32, parse_address("a@x.example"), [parse_address("b@y.example")], data=content)
    policy.finish(policy.message_received(message, ConnMeta()))
    return message


def results_of(content: bytes) -> list[dict[str, Any]]:
    return run("msg:set_meta('result', msg:dkim_verify())", content).meta["result"] or []  # type: ignore[no-any-return]


@pytest.mark.parametrize("canonicalize", [(b"relaxed", b"relaxed"), (b"simple", b"simple"), (b"relaxed", b"simple")])
def test_a_good_signature_passes(canonicalize: tuple[bytes, bytes]) -> None:
    [result] = results_of(signed(canonicalize=canonicalize))
    assert (result["method"], result["result"], result.get("reason")) == ("dkim", "pass", None)
    assert result["props"]["header.d"] == "x.example" and result["props"]["header.i"] == "@x.example"
    assert result["props"]["header.s"] == "s1" and result["props"]["header.a"] == "rsa-sha256"
    assert len(result["props"]["header.b"]) == 8


@pytest.mark.parametrize(
    ("content", "result", "reason"),
    [
        (lambda: signed().replace(b"Hello,", b"Hallo,"), "fail", "the body was changed"),
        (lambda: signed().replace(b"hello", b"hallo"), "fail", "the signature does not verify"),
        (lambda: signed(selector=b"none"), "permerror", "there is no key for the signature"),
        (lambda: signed(selector=b"gone"), "permerror", ""),
        (lambda: b"DKIM-Signature: v=1; a=rsa-sha256\r\n" + MAIL, "permerror", "missing"),
        (lambda: b"DKIM-Signature: nonsense\r\n" + MAIL, "permerror", "malformed"),
        (lambda: b"DKIM-Signature: b=" + b"A" * 9000 + b"\r\n" + MAIL, "permerror", "the signature is malformed"),
    ],
)
def test_a_bad_signature_says_why(content: Any, result: str, reason: str) -> None:
    [found] = results_of(content())
    assert found["result"] == result
    assert reason == "malformed" or reason in found["reason"]


def test_without_a_signature_there_is_no_result() -> None:
    assert results_of(MAIL) == []


def test_several_signatures_have_a_result_each_up_to_ten() -> None:
    two = signed(signed(selector=b"none"))
    assert [one["result"] for one in results_of(two)] == ["pass", "permerror"]
    many = signed()
    for _ in range(11):
        many = dkim.sign(MAIL, b"s1", b"x.example", key()[0]) + many
    assert len(results_of(many)) == 10


def test_a_dns_that_does_not_answer_is_a_passing_error() -> None:
    [result] = run(
        "msg:set_meta('result', msg:dkim_verify 'nobody')", signed()
    ).meta["result"]  # fmt: skip
    assert result["result"] == "temperror" and "resolver nobody is not defined" in result["reason"]


LINES = st.lists(st.sampled_from([b"", b" ", b"a", b"a  b", b"\t c \t", b"x" * 50, b"\r", b"\ry"]), max_size=30)


@given(LINES, st.booleans(), st.integers(1, 40))
def test_a_body_in_pieces_is_the_body_that_dkimpy_hashes(lines: list[bytes], relaxed: bool, piece: int) -> None:
    body = b"".join(line + b"\r\n" for line in lines)
    rule = dkim.canonicalization.Relaxed if relaxed else dkim.canonicalization.Simple
    with patch("gateway.mail.authentication._PIECE", piece):
        assert b"".join(canonical_body(body, relaxed)) == rule.canonicalize_body(body)


def test_a_signature_may_cover_the_beginning_of_a_body() -> None:
    content = dkim.sign(MAIL, b"s1", b"x.example", key()[0], include_headers=[b"from"], length=True)
    [result] = results_of(content + MAIL + b"added by a list\r\n")
    assert result["result"] == "pass"


def test_a_signature_with_ed25519_passes() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    raw = serialization.Encoding.Raw
    seed = private.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    public = private.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
    options = {"signature_algorithm": b"ed25519-sha256", "include_headers": [b"from"]}
    content = dkim.sign(MAIL, b"e", b"x.example", base64.b64encode(seed), **options) + MAIL
    answer = f"v=DKIM1; k=ed25519; p={base64.b64encode(public).decode()}"
    [result] = verify_dkim(content, {"e._domainkey.x.example": answer})
    assert result["result"] == "pass" and result["props"]["header.a"] == "ed25519-sha256"


# --- ARC ------------------------------------------------------------------------------------------------------------


def arc(content: bytes) -> dict[str, Any]:
    return run("msg:set_meta('result', msg:arc_verify())", content).meta["result"]  # type: ignore[no-any-return]


def test_the_states_of_a_chain() -> None:
    assert arc(MAIL)["result"] == "none"
    assert arc(sealed())["result"] == "pass"
    changed = arc(sealed().replace(b"Hello,", b"Hallo,"))
    assert changed["result"] == "fail" and changed["method"] == "arc" and "did not validate" in changed["reason"]
    assert arc(b"ARC-Seal: i=1; nonsense\r\n" + MAIL)["result"] == "fail"


def test_a_chain_without_keys_fails() -> None:
    content = sealed()
    assert verify_arc(content, {})["result"] == "fail"
    assert signature_names(content)["arc"] == ["s1._domainkey.x.example"]


# --- Authentication-Results -----------------------------------------------------------------------------------------


def test_results_become_a_field() -> None:
    message = run(
        "local results = msg:dkim_verify()\n"
        "table.insert(results, { method = 'spf', result = 'softfail', reason = 'not \"us\"',\n"
        "props = { ['smtp.mailfrom'] = 'a@x.example' } })\n"
        "msg:add_authentication_results('gw.example', results)",
        signed(),
    )
    value = message.first_header("Authentication-Results")
    assert value is not None
    assert value.startswith("gw.example; dkim=pass header.")
    assert "header.d=x.example" in value and "; spf=softfail" in value and "smtp.mailfrom=a@x.example" in value
    assert message.data().startswith(b"Authentication-Results: gw.example;\r\n\tdkim=pass ")


def test_no_results_are_none() -> None:
    message = run("msg:add_authentication_results('gw.example', msg:dkim_verify())", MAIL)
    assert message.first_header("Authentication-Results") == "gw.example; none"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("'gw.example', { { method = 'dkim' } }", "'result' is missing"),
        ("'gw.example', { { method = 'dkim', result = 'pass', props = { d = 'x' } } }", "has no type"),
        ("'gw.example', { { method = 'dkim', result = 'pass\\r\\nX: y' } }", "control character"),
        ("'gw example', {}", "is no authserv-id"),
        ("'gw.example', 'pass'", "expected a list"),
    ],
)
def test_what_is_no_result_is_an_error(arguments: str, error: str) -> None:
    with pytest.raises(PolicyError, match=error):
        run(f"msg:add_authentication_results({arguments})", MAIL)


def test_a_property_may_be_empty_such_as_the_null_sender() -> None:
    result = {"method": "auth", "result": "none", "props": {"smtp.mailfrom": ""}}
    assert results_field("gw", [result]) == b'Authentication-Results: gw;\r\n\tauth=none smtp.mailfrom=""\r\n'


def test_a_reason_cannot_leave_its_quotes() -> None:
    [line, rest] = results_field("gw", [{"method": "x", "result": "fail", "reason": 'a" b=c', "props": {}}]).split(
        b"\t"
    )
    assert line == b"Authentication-Results: gw;\r\n" and rest == b'x=fail reason="a\\" b=c"\r\n'


# --- policy-extras.mail_auth ------------------------------------------------------------------------------------------

ZONES = """
kumo.dns.define_resolver('zone', { Test = { zones = { [[
$ORIGIN x.example.
@ 60 IN TXT "v=spf1 ip4:192.0.2.7 -all"
_dmarc 60 IN TXT "v=DMARC1; p=reject; sp=quarantine; aspf=s"
s1._domainkey 60 IN TXT KEY
evil 60 IN TXT "v=spf1 -all exp=why.evil.x.example"
why.evil 60 IN TXT "say \\009 %{i}"
]], [[
$ORIGIN 2.0.192.in-addr.arpa.
7 60 IN PTR mail.x.example.
8 60 IN PTR borked.x.example.
]], [[
$ORIGIN mail.x.example.
@ 60 IN A 192.0.2.7
]] } } })
"""


def checked(mail: bytes, sender: str, peer: str = "192.0.2.7", options: str = "") -> str:
    """Authentication-Results as mail_auth.check adds it, on one line."""
    said = key()[1]
    strings = " ".join(f'"{said[start : start + 200]}"' for start in range(0, len(said), 200))
    policy = load(
        ZONES.replace("KEY", strings)
        + f"""
        local mail_auth = require 'policy-extras.mail_auth'
        kumo.on('smtp_server_message_received', function(msg)
          local found = mail_auth.check(msg, {{ resolver = 'zone', {options} }})
          if #found.auth_results ~= 6 then kumo.reject(550, 'not all of them') end
        end)"""
    )
    message = Message("0" * 32, parse_address(sender), [parse_address("b@y.example")], data=mail)
    message.meta |= {"received_from": f"{peer}:99", "hostname": "gw.example", "ehlo_domain": "mail.x.example"}
    policy.finish(policy.message_received(message, ConnMeta({})))
    return " ".join(str(message.first_header("Authentication-Results")).split())


def test_all_checks_of_a_message_make_one_field() -> None:
    found = checked(signed(), "a@x.example")
    assert found.startswith("gw.example; dkim=pass")
    for part in (
        "spf=pass reason=\"matched 'ip4:192.0.2.7' directive\"",
        "smtp.helo=mail.x.example",
        'iprev=pass reason="ip 192.0.2.7 <-> mail.x.example." smtp.remote-ip=192.0.2.7',
        "auth=none smtp.mailfrom=a@x.example",
        "dmarc=pass reason=Success",
        "header.from=x.example",
        "policy.p=reject",
        "policy.sp=quarantine",
        "arc=none",
    ):
        assert part in found, part


@pytest.mark.parametrize(
    ("mail", "sender", "peer", "parts"),
    [
        (MAIL, "a@x.example", "192.0.2.7", ['dkim=none reason="message was not signed"', "dmarc=pass"]),
        (MAIL, "a@x.example", "192.0.2.8", [
            "spf=fail", "iprev=fail reason=\"name borked.x.example. has no A/AAAA\"",
            'dmarc=fail reason="No aligned DKIM or SPF"', "policy.published-domain-policy=reject",
        ]),
        (MAIL, "a@evil.x.example", "192.0.2.9", [
            'spf=fail reason="say ? 192.0.2.9"', 'iprev=permerror reason="ip 192.0.2.9 has no PTR"', "dmarc=fail",
        ]),
        (MAIL.replace(b"a@x.example", b"a@sub.x.example"), "a@x.example", "192.0.2.7", [  # aspf=s
            "dmarc=fail", "policy.published-domain-policy=quarantine",
        ]),
        (signed(MAIL.replace(b"a@x.example", b"a@sub.x.example")), "a@y.example", "192.0.2.7", ["dmarc=pass"]),
        (MAIL.replace(b"a@x.example", b"a@y.example"), "a@x.example", "192.0.2.7", [
            'dmarc=none reason="no DMARC records found for y.example" header.from=y.example',
        ]),
        (MAIL.replace(b"a@x.example", b"nobody"), "a@x.example", "192.0.2.7", ["dmarc=none"]),
    ],
)  # fmt: skip
def test_a_message_is_from_whom_it_says_or_not(mail: bytes, sender: str, peer: str, parts: list[str]) -> None:
    found = checked(mail, sender, peer)
    for part in parts:
        assert part in found, found


def test_what_is_switched_off_is_not_checked_and_options_are_looked_at() -> None:
    with pytest.raises(PolicyProblems):
        load("require('policy-extras.mail_auth').check(nil, { dkmi = true })")
    policy = load("""
        local mail_auth = require 'policy-extras.mail_auth'
        kumo.on('smtp_server_message_received', function(msg)
          local found = mail_auth.check(msg, { dkim = false, spf = false, iprev = false, arc = false })
          assert(#found.auth_results == 1 and found.smtp_auth.result == 'pass' and found.dmarc == nil)
        end)""")
    message = Message("0" * 32, parse_address("a@x.example"), [parse_address("b@y.example")], data=MAIL)
    message.meta["authn_id"] = "scott"
    policy.finish(policy.message_received(message, ConnMeta({})))
    found = str(message.first_header("Authentication-Results"))
    assert found.startswith("localhost; auth=pass") and "smtp.auth=scott" in found and found.count(";") == 1
