"""kumo.dns: what policies learn of the DNS, from servers and from zones of their own, and for how long it is true."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.rdatatype
import pytest

from gateway.policy.background import Background
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import Known
from gateway.policy.engine import Policy
from gateway.policy.outside.lookups import site_name
from gateway.policy.outside.resolvers import NameServer as Asked
from gateway.policy.outside.resolvers import NameServers, RememberingResolver, hosts_file, name_of
from gateway.policy.problems import PolicyProblems
from tests.gateway_process import INIT, Gateway
from tests.outside import NameServer, name_server
from tests.policy_tools import LISTENER, Clock, load, said

RECORDS = {
    ("two.example", "A"): ["300 192.0.2.1"],
    ("two.example", "AAAA"): ["60 2001:db8::1"],
    ("four.example", "A"): ["300 192.0.2.4"],
    ("mail.example", "MX"): ["300 20 b.mail.example.", "300 10 a.mail.example.", "300 20 c.mail.example."],
    ("text.example", "TXT"): ['300 "v=spf1 " "-all"', '300 "\\255"'],
    ("large.example", "TXT"): ['300 "over tcp"'],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["300 one.example."],
    ("2.0.0.127.rbl.example", "A"): ["40 127.0.0.2"],
    ("2.0.0.127.rbl.example", "TXT"): ['300 "listed for a test"'],
}
ZONE = """[[
$ORIGIN rbl.domain.
@ 3600 IN SOA ns root 1 1 1 1 20
1.0.0.10 30 IN A   127.0.0.2
1.0.0.10 300   TXT "Blocked for a very good reason!"
alias 10 IN CNAME 1.0.0.10
*.wild 30 IN A 192.0.2.9
a.b 30 IN A 192.0.2.8
]]"""


@pytest.fixture(scope="module")
def server() -> Iterator[NameServer]:
    with name_server(RECORDS) as running:
        yield running


@pytest.mark.parametrize("config", ["{ ZONES }", "{ zones = { ZONES }, servfail = { 'c.example' } }"])
def test_a_policy_that_is_tried_out_brings_its_zones(config: str) -> None:
    zones = "'$ORIGIN a.example.\\n@ 600 TXT one', { zone = '$ORIGIN b.example.\\n@ 600 TXT two', secure = true }"
    given = config.replace("ZONES", zones)
    asks = "kumo.dns.lookup_txt('a.example')[1] .. kumo.dns.lookup_txt('b.example')[1]"
    tried = f"kumo.dns.configure_test_resolver {given} kumo.dns.configure_test_mta_sts {{ ['a.example'] = 'x' }}"
    assert said(f"{tried} result = {asks}") == "onetwo"


def answered(code: str, server: NameServer | None = None) -> Any:
    """What a policy with a zone of its own, and perhaps a name server, puts into `result`."""
    servers = "" if server is None else f"kumo.dns.configure_resolver {{ name_servers = {{ '{server.address}' }} }}"
    return said(f"""
        kumo.dns.define_resolver('zone', {{ Test = {{ zones = {{ {ZONE} }}, servfail = {{ 'broken.rbl.domain' }} }} }})
        {servers}
        {code}
    """)


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("kumo.dns.lookup_addr 'two.example'", ["192.0.2.1", "2001:db8::1"]),
        ("kumo.dns.lookup_addr('two.example', nil, 'Ipv6AndIpv4')", ["2001:db8::1", "192.0.2.1"]),
        ("kumo.dns.lookup_addr('two.example', nil, 'Ipv4thenIpv6')", ["192.0.2.1"]),
        ("kumo.dns.lookup_addr('two.example', nil, 'Ipv4ThenIpv6')", ["192.0.2.1"]),
        ("kumo.dns.lookup_addr('four.example', nil, 'Ipv6thenIpv4')", ["192.0.2.4"]),
        ("kumo.dns.lookup_addr('four.example', nil, 'Ipv6Only')", {}),
        ("kumo.dns.lookup_addr '192.0.2.7'", ["192.0.2.7"]),
        ("kumo.dns.lookup_txt('text.example')[1]", "v=spf1 -all"),
        ("kumo.dns.lookup_txt('text.example')[2] == '\\xff'", True),
        ("kumo.dns.lookup_txt 'large.example'", ["over tcp"]),
        ("kumo.dns.lookup_ptr '192.0.2.1'", ["one.example."]),
        ("kumo.dns.lookup_ptr '192.0.2.99'", {}),
        ("table.pack(kumo.dns.rbl_lookup('127.0.0.2', 'rbl.example'))[2]", "listed for a test"),
        ("kumo.dns.rbl_lookup('[127.0.0.2]:25', 'rbl.example')", "127.0.0.2"),
        ("table.pack(kumo.dns.rbl_lookup('127.0.0.3', 'rbl.example')).n", 2),
        ("kumo.dns.rbl_lookup('127.0.0.3', 'rbl.example')", None),
        ("select(2, kumo.dns.rbl_lookup('10.0.0.1', 'rbl.domain', 'zone'))", "Blocked for a very good reason!"),
        ("kumo.dns.lookup_addr('alias.rbl.domain', 'zone')", ["127.0.0.2"]),
        ("kumo.dns.lookup_addr('x.y.wild.rbl.domain', 'zone')", ["192.0.2.9"]),
        ("kumo.dns.lookup_txt('b.rbl.domain', 'zone')", {}),
        ("kumo.dns.ptr_host '127.0.0.1'", "1.0.0.127.in-addr.arpa"),
        ("kumo.dns.reverse_ip '127.0.0.1'", "1.0.0.127"),
        ("kumo.dns.reverse_ip '::1'", "1" + ".0" * 31),
    ],
)
def test_a_policy_asks_the_dns(server: NameServer, code: str, result: Any) -> None:
    assert answered(f"result = {code}", server) == result


def test_mail_hosts_are_told_by_preference(server: NameServer) -> None:
    assert answered("result = kumo.dns.lookup_mx 'mail.example'", server) == {
        "by_pref": {"10": ["a.mail.example."], "20": ["b.mail.example.", "c.mail.example."]},
        "site_name": "(a|b|c).mail.example",
        "domain_name": "mail.example.",
        "hosts": ["a.mail.example.", "b.mail.example.", "c.mail.example."],
        "is_domain_literal": False,
        "is_mx": True,
        "mta_sts": "None",
    }
    found = answered("result = kumo.dns.lookup_mx 'four.example'", server)
    assert (found["hosts"], found["is_mx"], found["site_name"]) == (["four.example."], False, "four.example")
    found = answered("result = kumo.dns.lookup_mx '[IPv6:2001:db8::1]'", server)
    assert (found["hosts"], found["is_domain_literal"]) == (["2001:db8::1"], True)


def test_a_site_is_named_by_what_its_hosts_have_in_common() -> None:
    hosts = [f"{alt}gmail-smtp-in.l.google.com." for alt in ("", "alt1.", "alt2.")]
    assert site_name(hosts) == "(alt1|alt2)?.gmail-smtp-in.l.google.com"
    assert site_name(["MX.a.example.", "mx.b.example."]) == "mx.(a|b).example"
    assert site_name([]) == ""


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("kumo.dns.lookup_txt 'none.example'", "kumo.dns.lookup_txt: none.example: there is no such name"),
        ("kumo.dns.lookup_addr 'none.example'", "kumo.dns.lookup_addr: none.example: there is no such name"),
        ("kumo.dns.lookup_mx 'none.example'", "kumo.dns.lookup_mx: none.example: there is no such name"),
        ("kumo.dns.lookup_mx 'text.example'", "there is neither a mail host nor an address"),
        ("kumo.dns.lookup_txt 'broken.example'", "broken.example: no name server gives an answer"),
        ("kumo.dns.lookup_txt('broken.rbl.domain', 'zone')", "broken.rbl.domain: the name server failed"),
        ("kumo.dns.lookup_txt('x.example', 'nobody')", "kumo.dns.lookup_txt: resolver nobody is not defined"),
        ("kumo.dns.lookup_txt 'a..b'", "'a..b' is no domain name"),
        ("kumo.dns.lookup_txt {}", "kumo.dns.lookup_txt: expected a string, got a table"),
        ("kumo.dns.rbl_lookup('host.example', 'rbl.example')", "'host.example' is not an IP address"),
        ("kumo.dns.lookup_addr('x', nil, 'Ipv5')", "'Ipv5' is none of Ipv4AndIpv6"),
        (
            "kumo.dns.configure_resolver { name_server = {} }",
            "unknown option; did you mean 'name_servers'?",
        ),
        (
            "kumo.dns.configure_resolver { name_servers = { 'ns.example' } }",
            "name_servers[1]: expected an address",
        ),
        ("kumo.dns.define_resolver('x', { Test = { zones = { 'x y z' } } })", "a zone cannot be read"),
        ("kumo.dns.define_resolver('x', 'Hickory')", "expected a table or 'HickorySystemConfig', got a string"),
        ("kumo.dns.load_resolv_conf '/nonexistent'", "reading file /nonexistent"),
    ],
)
def test_what_goes_wrong_is_a_lua_error(server: NameServer, code: str, problem: str) -> None:
    with pytest.raises(PolicyProblems) as raised:
        answered(code, server)
    assert problem in raised.value.problems[0].message


def test_a_silent_server_is_given_up_in_time(server: NameServer) -> None:
    with pytest.raises(PolicyProblems, match=r"silent.example: no name server answers"):
        answered(f"""
            local options = {{ timeout = '20ms', attempts = 1 }}
            kumo.dns.configure_resolver {{ name_servers = {{ '{server.address}' }}, options = options }}
            kumo.dns.lookup_txt 'silent.example'
        """)
    with pytest.raises(PolicyProblems, match=r"silent.example: there was no answer in time"):
        answered("kumo.dns.set_mx_timeout '20ms' kumo.dns.lookup_mx 'silent.example'", server)


def test_a_server_may_be_asked_over_tcp_only_and_from_an_address(server: NameServer) -> None:
    answered(f"""
        kumo.dns.define_resolver('tcp', {{ Hickory = {{ name_servers = {{
          {{ socket_addr = '{server.address}', protocol = 'tcp', bind_addr = '127.0.0.9:0' }} }} }} }})
        kumo.dns.lookup_txt('text.example', 'tcp')
    """)
    assert server.asked["text.example", "TXT", "tcp"] == 1


def test_resolvers_stand_one_after_the_other(server: NameServer) -> None:
    assert (
        answered(f"""
        kumo.dns.define_resolver('both', {{ Aggregate = {{
          Test = {{ zones = {{ {ZONE} }} }},
          {{ Hickory = {{ name_servers = {{ '{server.address}' }} }} }},
        }} }})
        local here = kumo.dns.lookup_addr('alias.rbl.domain', 'both')[1]
        result = here .. ' ' .. kumo.dns.lookup_addr('four.example', 'both')[1]
    """)
        == "127.0.0.2 192.0.2.4"
    )


def test_a_resolv_conf_becomes_a_configuration(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text(
        "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.example\noptions ndots:3 timeout:7 attempts:4\n"
    )
    assert answered(f"""
        result = kumo.dns.load_resolv_conf '{conf}'
        kumo.dns.configure_resolver(result)
    """) == {
        "name_servers": ["192.0.2.1:53", "[2001:db8::1]:53"],
        "search": ["a.example"],
        "options": {"timeout": "7s", "ndots": 3, "attempts": 4, "edns0": False},
    }


def test_a_hosts_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# nothing\n127.0.0.1\tLocalHost lh # me\n\n::1 localhost\n")
    assert hosts_file(str(hosts)) == {"localhost": ["127.0.0.1", "::1"], "lh": ["127.0.0.1"]}
    assert hosts_file("/nonexistent") == {}


# --- how long ---------------------------------------------------------------------------------------------------------


def resolver_of(server: NameServer, clock: Clock) -> RememberingResolver:
    servers = NameServers(
        [Asked(("127.0.0.1", server.port))], timeout=1, attempts=1, edns0=True, recursion_desired=True, rotate=False
    )
    return RememberingResolver(servers, clock, 100)


def test_an_answer_is_kept_for_as_long_as_it_says(server: NameServer) -> None:
    clock = Clock()

    async def ask() -> None:
        resolver = resolver_of(server, clock)
        server.asked.clear()
        for name, seconds in (("four.example", 300), ("none.example", 30)):
            key = name_of(name), dns.rdatatype.A
            answers = await asyncio.gather(*(resolver.ask(*key) for _ in range(5)))
            assert {answer.seconds for answer in answers} == {seconds}
            clock.now += seconds - 1
            assert (await resolver.ask(*key)).seconds == 1
            assert server.asked[name, "A", "udp"] == 1
            clock.now += 1
            await resolver.ask(*key)
            assert server.asked[name, "A", "udp"] == 2

    asyncio.run(ask())


def test_who_leaves_takes_the_question_from_nobody(server: NameServer) -> None:
    async def ask() -> None:
        resolver = resolver_of(server, Clock())
        key = name_of("four.example"), dns.rdatatype.A
        first, second = (asyncio.ensure_future(resolver.ask(*key)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).records

    asyncio.run(ask())


def test_a_decision_lasts_as_long_as_the_records_that_it_stands_on(server: NameServer) -> None:
    clock = Clock()
    loop = asyncio.new_event_loop()
    policy: Policy = load(
        f"""
        kumo.dns.configure_resolver {{ name_servers = {{ '{server.address}' }} }}
        kumo.on('get_listener_domain', function(domain)
          if domain == 'listed.example' then kumo.dns.rbl_lookup('127.0.0.2', 'rbl.example') end
          if domain == 'clean.example' then kumo.dns.rbl_lookup('127.0.0.3', 'rbl.example') end
          if domain == 'none.example' then pcall(kumo.dns.lookup_txt, 'none.example') end
          if domain == 'broken.example' then pcall(kumo.dns.lookup_txt, 'broken.example') end
        end)
        """,
        clock=clock,
        background=Background(loop),
    )

    def ask(domain: str) -> bool:
        """Whether the answer comes from the cache."""
        answer = policy.listener_domain(domain, LISTENER, ConnMeta({}))
        policy.finish(answer)
        return isinstance(answer, Known)

    for domain, seconds in (("listed.example", 40), ("clean.example", 30), ("none.example", 30)):
        assert [ask(domain), ask(domain)] == [False, True], domain
        clock.now += seconds - 1
        assert ask(domain), domain
        clock.now += 1
        assert not ask(domain), domain
    assert [ask("broken.example"), ask("broken.example")] == [False, False]
    loop.close()


# --- at the wire ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, server: NameServer) -> Iterator[Gateway]:
    policy = f"""{INIT}
        kumo.on('pre_init', function()
          kumo.dns.configure_resolver {{ name_servers = {{ '{server.address}' }}, options = {{ timeout = '20s' }} }}
        end)
        kumo.on('smtp_server_connection_accepted', function(conn_meta)
          local found, reason = kumo.dns.rbl_lookup(conn_meta:get_meta 'received_from', 'rbl.example')
          if found then kumo.reject(554, '5.7.1 ' .. reason) end
        end)
        kumo.on('smtp_server_mail_from', function(sender)
          if not pcall(kumo.dns.lookup_mx, sender.domain) then kumo.reject(550, '5.1.8 no such domain') end
        end)
    """
    running = Gateway(tmp_path_factory.mktemp("dns"), policy, "--workers", "1")
    yield running
    assert running.stop() == 0
    assert "destroyed" not in running.diagnostics()
    running.kill()


def test_who_is_on_a_list_is_turned_away(gateway: Gateway) -> None:
    with gateway.smtp("127.0.0.1") as client:
        assert client.ehlo()[0] == 250
        assert client.mail("a@mail.example")[0] == 250
        client.rset()
        assert client.mail("a@none.example") == (550, b"5.1.8 no such domain")
    with pytest.raises(smtplib.SMTPConnectError) as refused:
        gateway.smtp("127.0.0.2")
    assert refused.value.smtp_code == 554
    assert b"5.7.1 listed for a test" in bytes(refused.value.smtp_error)


def test_a_silent_name_server_holds_up_nobody_else(gateway: Gateway, server: NameServer) -> None:
    with gateway.connect() as waiting:
        waiting.sendall(b"EHLO a.example\r\nMAIL FROM:<a@silent.example>\r\n")
        assert server.silent.acquire(timeout=20)
        with gateway.smtp() as other:
            other.ehlo()
            assert other.mail("a@mail.example")[0] == 250
