"""What `check` calls good starts, answers a first message without an error of Lua, and relays nothing for a stranger:
every example, at the wire.

The examples are the policies in tests/policies and deploy, those of the pages, and KumoMTA's on make_listener_domain.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.net import tls
from gateway.policy.source import PolicySource
from tests.gateway_process import PATIENCE, Gateway, Sink
from tests.outside import NameServer, name_server
from tests.policy_tools import examine
from tests.test_docs import LUA_BLOCKS
from tests.test_policy_examples import EXAMPLES

ROOT = Path(__file__).parent.parent
OWN = [*sorted((ROOT / "tests" / "policies").glob("*.lua")), *sorted((ROOT / "deploy").glob("*.lua"))]
GOOD = [
    *(pytest.param(path.read_text(), id=path.stem) for path in OWN),
    *LUA_BLOCKS,
    *(pytest.param(text, id=f"make_listener_domain-{number}") for number, text in enumerate(EXAMPLES, 1)),
]
LISTENER = "kumo.on('init', function() kumo.start_esmtp_listener { listen = '127.0.0.1:0' } end)\n"


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    with name_server({}) as server:
        yield server


def here(text: str, folder: Path, upstream: str, resolver: str) -> str:
    """A policy with this machine's addresses and files in the place of those that it names."""
    for name, pem in zip(("tls.pem", "tls.key"), tls._self_signed("gw.example"), strict=True):
        (folder / name).write_bytes(pem)
    (folder / "domains.toml").write_text((ROOT / "tests" / "policies" / "domains.toml").read_text())
    (folder / "more.json").write_text("{}")
    (folder / "webhook.key").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    with sqlite3.connect(folder / "users.db") as users:
        users.execute("create table users (name, password)")
    users.close()
    text = re.sub(r"listen = '[^']*'", "listen = '127.0.0.1:0'", text)
    text = re.sub(r"(['\"])(/etc/relay-gateway|/var/log|/var/lib|var)/", rf"\1{folder}/", text)
    text = text.replace("toml_load 'domains.toml'", f"toml_load '{folder}/domains.toml'")
    text = re.sub(r"mx_list = \{(?:[^{}]|\{[^{}]*\})*\}", f"mx_list = {{ '{upstream}' }}", text)
    text = text.replace("{ '127.0.0.0/8' }", "{ '127.0.0.1' }")  # strangers are here, too
    text = text.replace("https://hooks.example", "http://127.0.0.1:9")
    if "kumo.dns" in text:
        text = f"kumo.dns.configure_resolver {{ name_servers = {{ '{resolver}' }} }} {text}"
    return text if "start_esmtp_listener" in text else LISTENER + text


def codes_of_a_first_message(client: smtplib.SMTP, text: str) -> list[tuple[int, bytes]]:
    """Every reply to a client that tries all domains in a policy's text, also after AUTH where that is offered."""
    replies = [client.ehlo()]
    if "smtp_server_auth_plain" in text:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.starttls(context=context)
        replies += [client.ehlo(), client.docmd("AUTH", "PLAIN AGFubgB0aWdlcg==")]  # ann, tiger
    domains = ["x.example", *dict.fromkeys(re.findall(r"[\w-]+\.example(?:\.\w+)?", text))]
    for domain in domains:
        replies += [client.mail(f"a@{domain}"), client.rcpt(f"b@{domain}")]
        if replies[-1][0] == 250:
            replies.append(client.data(b"From: a@x.example\r\nSubject: s\r\nX-Campaign: c\r\n\r\nhello\r\n"))
        replies.append(client.rset())
    return replies


@pytest.mark.parametrize("text", GOOD)
def test_a_good_policy_answers_its_first_message(
    text: str,
    tmp_path: Path,
    start: Callable[..., Gateway],
    sink: Sink,
    names: NameServer,
) -> None:
    policy = here(text, tmp_path, sink.address, names.address)
    source = PolicySource(str(tmp_path / "policy.lua"), {str(tmp_path / "policy.lua"): policy.encode()})
    problems, _, _ = examine(source)
    assert problems == []
    gateway = start(policy, "--workers", "1")
    assert lua_errors(gateway, text) == []
    assert relayed_for_a_stranger(gateway, text) == []


def test_an_open_relay_would_be_noticed(start: Callable[..., Gateway]) -> None:
    relay = LISTENER.replace("listen =", "relay_hosts = { '0.0.0.0/0' }, listen =")
    assert relayed_for_a_stranger(start(relay, "--workers", "1"), relay) != []


def test_an_error_of_lua_would_be_noticed(start: Callable[..., Gateway]) -> None:
    handler = "kumo.on('smtp_server_mail_from', function() return nil .. 'x' end)"
    assert lua_errors(start(LISTENER + handler, "--workers", "1"), handler) != []


def relayed_for_a_stranger(gateway: Gateway, text: str) -> list[str]:
    """The senders as whom a client that no policy knows may send anywhere; it claims all domains of a policy."""
    client = smtplib.SMTP(timeout=PATIENCE, source_address=("127.77.0.9", 0))
    found = []
    with contextlib.suppress(smtplib.SMTPServerDisconnected), contextlib.closing(client):  # who must name a client
        if client.connect(*gateway.address)[0] == 220:
            client.ehlo("nobody.test")
            for domain in ["x.example", "example.com", *re.findall(r"[\w-]+\.example(?:\.\w+)?", text)]:
                client.mail(f"a@{domain}")
                if client.rcpt("victim@nowhere.test")[0] == 250:
                    found.append(domain)
                client.rset()
    return found


def lua_errors(gateway: Gateway, text: str) -> list[object]:
    """What goes wrong in a policy during a first message."""
    with gateway.smtp() as client:
        replies = codes_of_a_first_message(client, text)
    failed = [reply for reply in replies if reply[0] == 451 and reply[1].startswith(b"4.3.0")]
    return [*failed, *re.findall(r"ERROR.*", gateway.diagnostics())]
