"""Keys and passwords by KeySource: a file, the policy's text, a vault, a handler's answer; a listener's at the wire."""

from __future__ import annotations

import os
import pickle
import signal
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.config import Deployment, Destination, EgressPath, QueueConfig
from gateway.net.tls import _self_signed
from gateway.policy.engine import Policy
from gateway.policy.problems import PolicyProblems
from gateway.policy.source import PolicySource
from tests.gateway_process import INIT, TO_MAILDIR, Gateway, wait_until
from tests.outside import TOKEN, HttpServer, http_server
from tests.policy_tools import examine, load, new_page


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    with http_server() as server:
        monkeypatch.setenv("VAULT_ADDR", server.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        yield server


def said(code: str) -> str:
    """What a policy's top level puts into `result`."""
    text = f"""
        local kumo, result = require 'kumo'
        {code}
        kumo.on('init', function() kumo.start_esmtp_listener {{ listen = '127.0.0.1:0', banner = result }} end)
    """
    return str(load(text).config.listeners[0].overrides["banner"])


@pytest.mark.parametrize(
    "source",
    [
        "'{tmp_path}/key'",
        "{ key_data = 'lion' }",
        "{ vault_mount = 'secret', vault_path = 'mail/x' }",
        "{ vault_mount = 'secret', vault_path = 'mail/x', vault_key = 'other' }",
        "{ vault_mount = 'secret', vault_path = 'mail/x', vault_address = '{url}', vault_token = 'hvs.tiger' }",
        "{ event_name = 'key of', event_args = { 'li', 'on' } }",
        "{ event_name = 'key' }",
    ],
)
def test_a_key_is_read_from_wherever_its_source_says(vault: HttpServer, tmp_path: Path, source: str) -> None:
    (tmp_path / "key").write_text("lion")
    vault.secrets["secret/mail/x"] = {"key": "lion", "other": "lion"}
    found = source.replace("{tmp_path}", str(tmp_path)).replace("{url}", vault.url)
    handlers = """
        kumo.on('key of', function(one, other) return one .. other end)
        kumo.on('key', function() kumo.sleep(0) return 'lion' end)"""
    assert said(f"{handlers}\nresult = kumo.secrets.load({found})") == "lion"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{ vault_mount = 'secret', vault_path = 'y' }", "the vault answers 404 for secret/y: there is no such secret"),
        ("{ vault_mount = 's', vault_path = 'y', vault_token = 'x' }", "403 for s/y: the token may not read it"),
        ("{ vault_mount = 'secret', vault_path = 'x' }", "secret/x in the vault has no 'key'"),
        ("{ vault_mount = 'secret', vault_path = 'n', vault_key = 'number' }", "is a number, not a string"),
        ("{ vault_mount = 'secret' }", "'vault_path' is missing"),
        ("{ vault_mount = 'secret', vault_path = 'x', vault_kye = 'a' }", "did you mean 'vault_key'?"),
        ("{ vault_mount = 's', vault_path = 'x', vault_address = 'http://127.0.0.1:1' }", "cannot connect"),
        ("{ event_name = 'nobody' }", "no handler is registered for 'nobody'"),
        ("{ event_name = 'number' }", "the handler of 'number' must return a string, not a number"),
        ("{ event_name = 'number', vault_path = 'x' }", "'vault_path' beside event_name"),
        ("{}", "expected a file's path or { key_data = '…' }"),
    ],
)
def test_what_a_source_lacks_is_said_without_its_secrets(vault: HttpServer, source: str, problem: str) -> None:
    vault.secrets |= {"secret/x": {"other": "lion"}, "secret/n": {"number": 5}}
    with pytest.raises(PolicyProblems) as raised:
        said(f"kumo.on('number', function() return 5 end)\nresult = kumo.secrets.load {source}")
    text = str(raised.value)
    assert problem in text and "kumo.secrets.load" in text
    assert "lion" not in text and TOKEN not in text


def test_without_a_token_the_vault_is_not_asked(vault: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_TOKEN")
    with pytest.raises(PolicyProblems, match="neither vault_token nor VAULT_TOKEN is set"):
        said("result = kumo.secrets.load { vault_mount = 's', vault_path = 'x' }")
    assert not vault.asked


def test_every_function_that_takes_a_key_takes_all_sources(vault: HttpServer) -> None:
    vault.secrets["secret/aes"] = {"key": "k" * 16}
    aes = "{ vault_mount = 'secret', vault_path = 'aes' }"
    assert (
        said(f"""
        local text = kumo.crypto.aes_encrypt_block('Cbc', 'hello', {aes})
        result = kumo.crypto.aes_decrypt_block('Cbc', text, {{ key = {aes} }}).bytes""")
        == "hello"
    )
    assert said(f"result = kumo.digest.hmac_sha1({aes}, 'x').hex") == said(
        f"result = kumo.digest.hmac_sha1({{ key_data = '{'k' * 16}' }}, 'x').hex"
    )
    assert said(f"""
        kumo.on('id', function() return 'AKID' end)
        local request = {{ access_key = {{ event_name = 'id' }}, secret_key = {aes}, region = 'r', service = 's',
          method = 'GET', uri = '/', query_params = {{ event_name = 'not asked' }} }}
        result = kumo.crypto.aws_sign_v4(request).authorization""").startswith("AWS4-HMAC-SHA256 Credential=AKID/")


POLICY = f"""{INIT.replace("hostname", "KEYS hostname")}{TO_MAILDIR}
kumo.on('get_listener_domain', function() return kumo.make_listener_domain {{ relay_to = true }} end)
kumo.on('certificate', function(name) return kumo.secrets.load {{ vault_mount = 'tls', vault_path = name }} end)
kumo.on('smtp_server_mail_from', function(sender)
  kumo.reject(550, '5.7.1 ' .. kumo.secrets.load {{ vault_mount = 'tls', vault_path = 'words', vault_key = 'text' }})
end)
"""


def test_a_listener_has_its_certificate_from_a_vault_and_needs_none_later(
    start: Callable[..., Gateway], vault: HttpServer
) -> None:
    certificate, key = (pem.decode() for pem in _self_signed("gw.example"))
    vault.secrets |= {"tls/gw": {"key": key}, "tls/chain": {"key": certificate}, "tls/words": {"text": "no"}}
    gateway = start(
        POLICY.replace(
            "KEYS",
            """tls_certificate = { event_name = 'certificate', event_args = { 'chain' } },
             tls_private_key = { vault_mount = 'tls', vault_path = 'gw' },""",
        ),
        "--workers",
        "1",
    )
    context = ssl.create_default_context(cadata=certificate)
    context.check_hostname = False
    with gateway.smtp() as client:
        client.starttls(context=context)
        client.ehlo()
        assert client.mail("a@a.example") == (550, b"5.7.1 no")
    vault.secrets.clear()
    [worker] = gateway.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: [pid for pid in gateway.workers() if pid != worker], "another worker")
    with gateway.smtp() as client:
        client.starttls(context=context)
        client.ehlo()
        assert client.mail("a@a.example")[0] == 451


def test_what_a_vault_said_is_part_of_the_snapshot(vault: HttpServer) -> None:
    vault.secrets["s/x"] = {"key": "lion"}
    text = """kumo.on('init', function()
      local banner = kumo.secrets.load { vault_mount = 's', vault_path = 'x' }
      kumo.start_esmtp_listener { listen = '127.0.0.1:0', banner = banner }
    end)"""
    source = PolicySource("p.lua", {"p.lua": text.encode()})
    Policy.load(source, page=new_page())
    vault.secrets.clear()
    later = Policy.load(pickle.loads(pickle.dumps(source)), page=new_page())
    assert later.config.listeners[0].overrides["banner"] == "lion"
    assert len(vault.asked) == 1


def test_where_a_source_cannot_be_waited_for_it_is_refused_with_what_to_write(vault: HttpServer) -> None:
    errors, _, _ = examine(PolicySource("p.lua", {"p.lua": b"""
        kumo.on('init', function() kumo.start_esmtp_listener { listen = '127.0.0.1:0' } end)
        kumo.on('get_egress_path_config', function()
          return kumo.make_egress_path { smtp_auth_plain_username = 'u',
            smtp_auth_plain_password = { vault_mount = 'secret', vault_path = 'x' } }
        end)"""}))  # fmt: skip
    assert "{ key_data = kumo.secrets.load { … } }" in str(errors[0])


def test_what_is_left_to_the_fleet_names_no_key() -> None:
    text = b"""
        local sources = require 'policy-extras.sources'
        kumo.on('init', function()
          kumo.start_esmtp_listener { listen = '127.0.0.1:0', relay_hosts = sources.hosts() }
        end)"""
    deployment = Deployment(fleet=Destination(QueueConfig(), EgressPath()))
    Policy.load(PolicySource("p.lua", {"p.lua": text}, deployment=deployment), page=new_page())
