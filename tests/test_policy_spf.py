"""kumo.spf: RFC 7208's own examples and bounds, macros, explanations; and what a policy gets at the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import dns.rdataclass
import dns.rdatatype
import pytest

from gateway.policy.outside import spf
from gateway.policy.outside.resolvers import NameAnswer
from gateway.policy.outside.spf import SpfCheck, SpfVerdict
from tests.gateway_process import INIT, TO_MAILDIR, Gateway

# RFC 7208, appendix A
ZONE: dict[tuple[str, str], list[str]] = {
    ("example.com", "A"): ["192.0.2.10", "192.0.2.11"],
    ("amy.example.com", "A"): ["192.0.2.65"],
    ("bob.example.com", "A"): ["192.0.2.66"],
    ("mail-a.example.com", "A"): ["192.0.2.129"],
    ("mail-b.example.com", "A"): ["192.0.2.130"],
    ("mail-c.example.org", "A"): ["192.0.2.140"],
    ("example.com", "MX"): ["10 mail-a.example.com.", "20 mail-b.example.com."],
    ("example.org", "MX"): ["10 mail-c.example.org."],
    ("10.2.0.192.in-addr.arpa", "PTR"): ["example.com."],
    ("65.2.0.192.in-addr.arpa", "PTR"): ["amy.example.com."],
    ("140.2.0.192.in-addr.arpa", "PTR"): ["mail-c.example.org."],
    ("4.2.0.192.in-addr.arpa", "PTR"): ["bob.example.com."],
    ("six.example", "AAAA"): ["2001:db8::1"],
    ("10.2.0.192.in-addr._spf.example.com", "A"): ["127.0.0.2"],
    ("why.example.com", "TXT"): ['"%{i} is not one of %% %{d}\'s%_hosts"'],
    ("twice.example", "TXT"): ['"v=spf1 -all"', '"v=spf1 +all"'],
    ("no.example", "TXT"): ['"v=spf10 -all"'],
    ("loop.example", "TXT"): ['"v=spf1 include:loop.example -all"'],
    ("pass.example", "TXT"): ['"v=spf1 +all"'],
    ("soft.example", "TXT"): ['"v=spf1 ~all"'],
}


def _strings(text: str) -> str:
    """A text as a zone has it, in strings of 255 octets at most."""
    return " ".join(f'"{text[start : start + 255]}"' for start in range(0, len(text), 255))


def verdict(record: str, address: str = "192.0.2.10", *, domain: str = "example.com", sender: str = "") -> SpfVerdict:
    """What a record says of an address."""
    zone = {**ZONE, ("example.com", "TXT"): [_strings(record), '"something else"']}

    async def ask(name: str, kind: str) -> NameAnswer:
        if name == "broken.example":
            raise ValueError("broken.example: SERVFAIL")
        texts = zone.get((name.lower(), kind), [])
        kind_of = dns.rdatatype.from_text(kind)
        records = tuple(dns.rdata.from_text(dns.rdataclass.IN, kind_of, text) for text in texts)
        return NameAnswer(any(known == name for known, _ in zone), records, 60.0)

    sender = sender or f"strong-bad@{domain}"
    return asyncio.run(spf.verdict(ask, address, domain, sender, "helo.example", "mx.example"))


@pytest.mark.parametrize(
    ("record", "address", "disposition"),
    [
        ("v=spf1 +all", "192.0.2.1", "pass"),
        ("v=spf1 a -all", "192.0.2.10", "pass"),
        ("v=spf1 a -all", "192.0.2.65", "fail"),
        ("v=spf1 a:example.org -all", "192.0.2.10", "fail"),
        ("v=spf1 mx -all", "192.0.2.130", "pass"),
        ("v=spf1 mx:example.org -all", "192.0.2.140", "pass"),
        ("v=spf1 mx mx:example.org -all", "192.0.2.140", "pass"),
        ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.131", "pass"),
        ("v=spf1 ptr -all", "192.0.2.65", "pass"),
        ("v=spf1 ptr -all", "192.0.2.140", "fail"),
        ("v=spf1 ptr -all", "192.0.2.4", "fail"),  # its name says otherwise
        ("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.129", "pass"),
        ("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.65", "fail"),
        ("v=spf1 ip6:2001:db8::/32 -all", "2001:db8::7", "pass"),
        ("v=spf1 a:six.example/24//64 -all", "2001:db8::7", "pass"),
        ("v=spf1 ip4:192.0.2.10 -all", "2001:db8::7", "fail"),
        ("v=spf1 ?all", "192.0.2.1", "neutral"),
        ("v=spf1", "192.0.2.1", "neutral"),
        ("V=SPF1 ~ALL", "192.0.2.1", "softfail"),
        ("v=spf1 include:pass.example -all", "192.0.2.1", "pass"),
        ("v=spf1 include:soft.example -all", "192.0.2.1", "fail"),
        ("v=spf1 include:no.example -all", "192.0.2.1", "permerror"),
        ("v=spf1 redirect=soft.example", "192.0.2.1", "softfail"),
        ("v=spf1 redirect=soft.example ?all", "192.0.2.1", "neutral"),
        ("v=spf1 redirect=no.example", "192.0.2.1", "permerror"),
        ("v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all", "192.0.2.10", "pass"),
        ("v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all", "192.0.2.11", "fail"),
        ("v=spf1 x=y a:broken.example -all", "192.0.2.1", "temperror"),
        ("v=spf1 a mx include:loop.example -all", "192.0.2.1", "permerror"),
        ("v=spf1 a:n1.x.example a:n2.x.example a:n3.x.example -all", "192.0.2.1", "permerror"),
        *((f"v=spf1 {term} -all", "192.0.2.10", "permerror") for term in (
            "all:x", "include", "ip4:300.0.0.1", "ip4:2001:db8::1", "a/33", "a//129", "nonsense", "ptr:", "mx:", "-",
            "redirect=", "exists:%{x}.example", "exists:%{t}.example", "redirect=a.example redirect=b.example",
            "+exp=x.example",
        )),
    ],
)  # fmt: skip
def test_a_record_says_who_may(record: str, address: str, disposition: str) -> None:
    assert verdict(record, address).disposition == disposition


@pytest.mark.parametrize(
    ("domain", "disposition"),
    [("localhost", "none"), ("nowhere.example", "none"), ("no.example", "none"), ("twice.example", "permerror"),
     (f"{'x' * 64}.example", "none"), ("", "none"), ("broken.example", "temperror")],
)  # fmt: skip
def test_what_is_no_record(domain: str, disposition: str) -> None:
    assert verdict("v=spf1 -all", domain=domain).disposition == disposition


def test_a_refusal_is_explained_by_the_domain() -> None:
    assert verdict("v=spf1 -all exp=why.example.com").context == "192.0.2.10 is not one of % example.com's hosts"
    assert verdict("v=spf1 -all exp=nowhere.example").context == "matched '-all' directive"


@pytest.mark.parametrize(
    ("macro", "expanded"),
    [  # RFC 7208 §7.4
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l-}", "strong.bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{S}", "strong-bad%40email.example.com"),
        ("%{h}%{r}", "helo.examplemx.example"),
    ],
)
def test_macros_are_those_of_the_standard(macro: str, expanded: str) -> None:
    domain = "email.example.com"
    check = SpfCheck({}, "192.0.2.3", domain, f"strong-bad@{domain}", "helo.example", "mx.example")
    assert check.expand(macro, stripdot=False) == expanded


def test_what_would_keep_the_library_busy_is_refused_at_once() -> None:
    assert verdict(f"v=spf1 a:x.{'a' * 600}! -all").disposition == "permerror"
    assert verdict(f"v=spf1 {'a ' * 2100}-all").disposition == "permerror"
    assert verdict(f"v=spf1 {'ip4:192.0.2.99 ' * 200}ip4:192.0.2.10 -all").disposition == "pass"


def test_the_hosts_of_a_domain_are_asked_for_together() -> None:
    rounds: list[set[tuple[str, str]]] = []
    check = SpfCheck({}, "192.0.2.9", "example.com", "x@example.com", "helo.example", "mx.example")
    answers: dict[tuple[str, str], Any] = {
        ("example.com", "TXT"): [[b"v=spf1 mx ", b"-all"]],
        ("example.com", "MX"): [(10, "a.example"), (20, "B.example")],
    }
    given: dict[tuple[str, str], Any] = {}
    while check.verdict() is None:
        rounds.append(set(check.missing))
        given |= {name: answers.get(name, []) for name in check.missing}
        check = SpfCheck(given, "192.0.2.9", "example.com", "x@example.com", "helo.example", "mx.example")
    assert rounds == [{("example.com", "TXT")}, {("example.com", "MX")}, {("a.example", "A"), ("b.example", "A")}]


def test_a_policy_asks_and_refuses(start: Callable[..., Gateway]) -> None:
    gateway = start(
        INIT
        + TO_MAILDIR
        + """
        kumo.dns.define_resolver('zone', { Test = { zones = { [[
$ORIGIN example.
@ 3600 IN SOA ns root 1 1 1 1 20
good 60 IN TXT "v=spf1 ip4:127.0.0.1 -all"
bad 60 IN TXT "v=spf1 -all"
]] } } })
        kumo.on('get_listener_domain', function(domain, listener, conn_meta)
          if kumo.spf.check_host('good.example', conn_meta, nil, 'zone').disposition == 'pass' then
            return kumo.make_listener_domain { relay_to = true }
          end
        end)
        kumo.on('smtp_server_mail_from', function(sender, conn_meta)
          local found = kumo.spf.check_host(sender.domain, conn_meta, tostring(sender), 'zone')
          if found.disposition == 'fail' then kumo.reject(550, '5.7.23 ' .. found.result.reason) end
          conn_meta:set_meta('x_spf', found.disposition)
        end)
        kumo.on('smtp_server_message_received', function(msg)
          local found = kumo.spf.check_msg(msg, 'zone')
          msg:add_authentication_results('gw.example', { found.result })
          msg:append_header('X-SPF', msg:get_meta 'x_spf')
        end)""",
        "--workers",
        "1",
    )
    with gateway.smtp() as client:
        client.ehlo()
        assert client.mail("a@bad.example") == (550, b"5.7.23 matched '-all' directive")
        client.sendmail("a@good.example", ["r@rcpt.example"], "Subject: x\r\n\r\nx\r\n")
    with gateway.smtp("127.0.0.2") as stranger:  # whose decision is not the first one's
        stranger.ehlo()
        assert stranger.mail("a@elsewhere.example")[0] == 250
        assert stranger.rcpt("r@rcpt.example")[0] == 550
    [mail] = gateway.mails()
    assert b"X-SPF: pass" in mail
    assert b"spf=pass" in mail and b"smtp.mailfrom=a@good.example" in mail.replace(b"\r\n", b"\n")
