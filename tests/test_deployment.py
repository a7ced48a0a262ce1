"""--fleet, --listen and --gateway-config: where a policy runs, which it does not say itself."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway_process import INIT, TO_MAILDIR, Gateway, Sink, wait_until

from gateway._fastpath import CidrSet
from gateway.cli import main
from gateway.config import Deployment, Destination, EgressPath, Listener, QueueConfig
from gateway.policy.engine import Policy
from gateway.policy.source import PolicySource
from tests.policy_cases import checked
from tests.policy_tools import new_page

TWO = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '192.0.2.1:25', hostname = 'one.example', relay_hosts = { '127.0.0.0/8' } }
  kumo.start_esmtp_listener { listen = '192.0.2.1:587', hostname = 'two.example', relay_hosts = { '127.0.0.0/8' } }
end)
"""


def written(folder: Path, policy: str = TWO, config: str = "") -> Path:
    (folder / "init.lua").write_text(policy)
    (folder / "gateway.toml").write_text(config)
    return folder / "init.lua"


def relayed(gateway: Gateway, sink: Sink, subject: str) -> bool:
    """Sends a message; whether the sink gets it."""
    with gateway.smtp() as client:
        client.sendmail("a@x.example", ["b@y.example"], f"Subject: {subject}\r\n\r\nx\r\n")
    return bool(wait_until(lambda: any(subject.encode() in mail for mail in sink.mails()), subject))


def test_mail_goes_to_the_fleet_whatever_the_policy_says_and_still_after_a_reload(
    start: Callable[..., Gateway], sink: Sink
) -> None:
    policy = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.0/8' }") + TO_MAILDIR
    gateway = start(policy, "--fleet", f"127.0.0.1:1,{sink.address}")
    assert relayed(gateway, sink, "first")
    gateway.reload(policy + "kumo.make_egress_pool { name = 'x' }")
    gateway.announced(2)
    assert relayed(gateway, sink, "second")
    assert not gateway.mails()
    assert ": kumo.make_egress_pool: left to the fleet" in gateway.diagnostics()


def test_what_the_policy_discards_does_not_reach_the_fleet(start: Callable[..., Gateway], sink: Sink) -> None:
    policy = """
    kumo.on('smtp_server_message_received', function(msg)
      if msg:get_first_named_header_value 'Subject' == 'away' then msg:set_meta('queue', 'null') end
      msg:set_meta('routing_domain', 'elsewhere.example')
    end)
    """
    gateway = start(TWO + policy, "--fleet", sink.address, "--listen", "127.0.0.1:0", "--workers", "1")
    with gateway.smtp() as client:
        client.sendmail("a@x.example", ["b@y.example"], "Subject: away\r\n\r\nx\r\n")
    assert relayed(gateway, sink, "kept")
    assert len(sink.mails()) == 1


def test_the_same_options_hold_after_an_upgrade(start: Callable[..., Gateway], sink: Sink) -> None:
    gateway = start(TWO, "--fleet", sink.address, "--listen", "127.0.0.1:0", "--workers", "1")
    assert relayed(gateway, sink, "before")
    address, epoch = gateway.address, gateway.announced()["epoch"]
    gateway.process.send_signal(signal.SIGUSR2)
    gateway.announced(epoch + 1)
    assert gateway.address == address
    assert relayed(gateway, sink, "after")


def test_a_file_says_the_same_and_is_read_again_at_a_reload(
    start: Callable[..., Gateway], sink: Sink, tmp_path: Path
) -> None:
    config = "fleet = ['{}']\nlisten = ['127.0.0.1:0']\n[path]\nenable_tls = 'Disabled'\nehlo_domain = 'gw.example'\n"
    written(tmp_path, config=config.format(sink.address))
    gateway = start(TWO, "--gateway-config", str(tmp_path / "gateway.toml"), "--workers", "1")
    assert relayed(gateway, sink, "from the file")
    with gateway.smtp() as client:
        assert client.ehlo()[1].startswith(b"one.example")
    written(tmp_path, config="fleet = []\n")
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "gateway.toml:1: fleet: there is no host" in gateway.diagnostics(), "the reload is refused")
    assert relayed(gateway, sink, "still the one before")


def test_a_watched_file_of_domains_is_read_again_and_a_bad_one_changes_nothing(
    start: Callable[..., Gateway], sink: Sink, tmp_path: Path
) -> None:
    domains = tmp_path / "domains.toml"
    domains.write_text("['one.example']\nrelay_to = true\n")
    policy = f"""
    kumo.on('get_listener_domain', require('policy-extras.listener_domains'):setup {{ '{domains}' }})
    kumo.set_config_monitor_globs {{ '{domains}' }}
    """
    gateway = start(INIT + policy, "--fleet", sink.address, "--workers", "1")

    def taken() -> list[str]:
        with gateway.smtp() as client:
            client.ehlo()
            client.mail("<a@x.example>")
            return [name for name in ("one", "two") if client.rcpt(f"<b@{name}.example>")[0] == 250]

    assert taken() == ["one"]
    domains.write_text("['two.example']\nrelay_to = true\n")
    gateway.announced(2)
    assert taken() == ["two"]
    domains.write_text("['one.example']\nrelay_two = true\n")
    wait_until(
        lambda: "domains.toml:2: 'one.example': relay_two: unknown option" in gateway.diagnostics(), "the refusal"
    )
    assert taken() == ["two"]


def test_explain_asks_the_policy_as_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = written(tmp_path, TWO + "kumo.make_egress_pool { name = 'x' }", "fleet = ['mta1:2525']\n")
    question = [
        "explain",
        "--policy",
        str(policy),
        "--from",
        "a@x.example",
        "--to",
        "b@y.example",
        "--peer",
        "127.0.0.1",
    ]
    assert main([*question, "--gateway-config", str(tmp_path / "gateway.toml")]) == 0
    assert "would go to the fleet mta1:2525" in capsys.readouterr().out
    assert main([*question, "--fleet", "mta2", "--listen", "127.0.0.1:2525"]) == 0
    assert "would go to the fleet mta2" in (said := capsys.readouterr().out)
    assert "asked at 127.0.0.1:2525" in said
    assert main(question) == 78


def test_addresses_take_the_listeners_in_their_order() -> None:
    one, two = Listener(listen="192.0.2.1:25"), Listener(listen="192.0.2.1:587", max_connections=7)
    replaced = Deployment(listen=("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")).listeners((one, two))
    assert [listener.listen for listener in replaced] == ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
    assert [listener.max_connections for listener in replaced] == [one.max_connections, 7, 7]
    assert Deployment(listen=("127.0.0.1:1",)).listeners((one, two)) == (Listener(listen="127.0.0.1:1"),)
    assert Deployment(listen=("127.0.0.1:1",)).listeners(()) == (Listener(listen="127.0.0.1:1"),)
    assert Deployment().listeners((one, two)) == (one, two)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("fleet = ['mta1:2525']\n", "good; 192.0.2.1:25, 192.0.2.1:587"),
        ("fleet = ['mta1:2525']\nlisten = ['127.0.0.1:2525']\n", "good; 127.0.0.1:2525;"),
        ("fleet = 'mta1:2525'\n", "gateway.toml:1: fleet: expected a list of hosts"),
        ("[fleet]\nmembers = ['a', {host = 'b', weight = 2}]\n", "good; 192.0.2.1:25"),
        ("[fleet]\nmembers = ['a', {host = 'b', grop = 2}]\n", "gateway.toml:2: fleet.members[2].grop: unknown option"),
        ("\nfleat = ['mta1']\n", "gateway.toml:2: fleat: unknown option; did you mean 'fleet'?"),
        ("fleet = ['a']\n[path]\n\nenable_tls = 'x'\n", "gateway.toml:4: path.enable_tls: expected one of"),
        (
            "fleet = ['a']\n[path]\nmax_message_rate = '1/s'\n",
            "gateway.toml:3: path.max_message_rate: not",
        ),
        ("[path]\nenable_tls = 'Required'\n", "gateway.toml: path is for a fleet, and there is none"),
        ("fleet = [\n", "gateway.toml:1: Invalid value"),
        ("listen = ['nowhere']\n", "gateway.toml:1: listen[1]: expected an address and port"),
    ],
)
def test_what_is_wrong_with_the_file_is_told_with_its_line(tmp_path: Path, config: str, said: str) -> None:
    policy = written(tmp_path, config=config)
    assert said in checked(policy, "--gateway-config", "gateway.toml")[1]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    status, said = checked(written(tmp_path), "--gateway-config", "nowhere.toml")
    assert (status, said) == (1, "nowhere.toml: No such file or directory\ninit.lua: it was not looked at\n")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--fleet", "mta1:x", "expected a host such as 'mta1:2525' or '[10.0.0.1]:2525'"),
        ("--fleet", "mta1,", "expected a host"),
        ("--listen", "mta1", "expected an address and port such as '127.0.0.1:2525'"),
    ],
)
def test_a_bad_option_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    with pytest.raises(SystemExit):
        main(["check", option, value, str(written(tmp_path))])
    assert said in capsys.readouterr().err


def test_a_file_can_ask_where_it_is(tmp_path: Path) -> None:
    policy = written(tmp_path, "if kumo.gateway then error(tostring(kumo.gateway.fleet), 0) end")
    assert checked(policy)[1].startswith("init.lua:1: false")
    assert checked(policy, "--fleet", "mta1")[1].startswith("init.lua:1: true")


def test_what_is_left_to_the_fleet_answers_whatever_is_asked_of_it(tmp_path: Path) -> None:
    policy = written(
        tmp_path,
        """
        local shaping = require 'policy-extras.shaping'
        local x = shaping:setup { 'a.toml' }.some.thing(1)[2] or shaping.other
        x.field = 1
        for _ in pairs(x) do error 'no entries' end
        for _ in ipairs(x) do error 'no items' end
        assert(#x == 0 and not (x < 1) and x .. '' == 'left to the fleet' and x + 1 == x and -x == x)
        assert(kumo.dkim.rsa_sha256_signer {} == x and kumo.make_egress_pool {} == x)
        kumo.on('smtp_server_message_received', x.handler)
        kumo.on('get_egress_path_config', x.handler)
        """,
    )
    status, said = checked(policy, "--fleet", "mta1")
    assert status == 0, said
    assert "init.lua:9: note: the handler of smtp_server_message_received: left to the fleet" in said
    assert checked(policy)[0] == 1


def test_what_is_left_is_left_out_of_options_and_lists(tmp_path: Path) -> None:
    policy = written(
        tmp_path,
        """
        local sources = require 'policy-extras.sources'
        kumo.on('init', function()
          kumo.start_esmtp_listener {
            listen = '127.0.0.1:2525', relay_hosts = { sources.one(), '192.0.2.1', sources.one(), '192.0.2.2' },
            banner = sources.banner,
          }
          kumo.start_http_listener { listen = '127.0.0.1:8000', trusted_hosts = { sources.one() } }
          kumo.start_http_listener { listen = '127.0.0.1:8001', use_tls = true }
          kumo.start_http_listener { listen = '127.0.0.1:8002', tls_private_key = { vault_path = 'x' } }
        end)
        """,
    )
    source = PolicySource.read(str(policy), Deployment(fleet=Destination(QueueConfig(), EgressPath())))
    config = Policy.load(source, page=new_page()).config
    assert config.listeners[0].overrides == {"relay_hosts": CidrSet(("192.0.2.1", "192.0.2.2"))}
    assert [(http.listen, list(http.trusted_hosts)) for http in config.http_listeners] == [("127.0.0.1:8000", [])]
    status, said = checked(policy, "--fleet", "mta1")
    assert status == 0
    assert "init.lua:9: note: kumo.start_http_listener with TLS: left to the fleet" in said


def test_header_fields_that_are_removed_here_are_missed_there(tmp_path: Path) -> None:
    handler = "kumo.on('smtp_server_message_received', function(msg)\n{} msg:remove_x_headers {{ 'x-a' }} {} end)"
    policy = written(tmp_path, TWO + handler.format("", ""))
    warning = "msg:remove_x_headers: the policy of the fleet does not see what is removed here"
    assert warning in checked(policy, "--fleet", "mta1")[1]
    assert warning not in checked(policy)[1]
    written(tmp_path, TWO + handler.format("if not kumo.gateway then", "end"))
    assert warning not in checked(policy, "--fleet", "mta1")[1]
