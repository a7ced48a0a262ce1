"""`relay-gateway init`: what it writes is good, runs, and says where it is; what is there already stays as it is."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway import cli, init
from gateway.logs.reader import DirectoryReader
from tests.gateway_process import Gateway, Sink, wait_until

KUMOMTA = """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0.0.0.0:25', relay_hosts = { '127.0.0.0/8' } }
  kumo.define_spool { name = 'data', path = '/var/spool/kumomta/data' }
end)
kumo.on('get_egress_pool', function(name) return kumo.make_egress_pool { name = 'pool' } end)
"""


def made(*arguments: str, status: int = 0) -> str:
    """What `relay-gateway init` says."""
    command = [sys.executable, "-m", "gateway", "init", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


def on_free_ports(folder: Path) -> str:
    """The policy that was written, with ports that are known to be free."""
    text = (folder / "init.lua").read_text()
    return init.replaced(text, {"'127.0.0.1:2525'": "LISTEN", "'127.0.0.1:8025'": "HTTP"})


def service(folder: Path) -> dict[str, list[str]]:
    """The command lines of the unit, with the variables of the environment file."""
    variables = dict(re.findall(r"^(RELAY_\w+)=(.*)$", (folder / "relay-gateway.env").read_text(), re.MULTILINE))
    lines = dict(re.findall(r"^(Exec\w+)=-?(.*)$", (folder / "relay-gateway.service").read_text(), re.MULTILINE))
    for name, value in variables.items():
        lines = {key: line.replace(f"${name}", value) for key, line in lines.items()}
    return {key: shlex.split(line) for key, line in lines.items()}


def send(gateway: Gateway) -> str:
    command = [sys.executable, "-m", "gateway", "send", "{}:{}".format(*gateway.address), "--to", "you@example.com"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_what_is_written_is_good_and_runs_and_takes_a_message(tmp_path: Path, start: Callable[..., Gateway]) -> None:
    folder = tmp_path / "a pilot"
    told = made(str(folder))
    assert f"check {folder}/init.lua" in told
    assert cli.main(["check", "--strict", *service(folder)["ExecStartPre"][2:]]) == 0
    gateway = start(on_free_ports(folder), "--workers", "1")
    assert "250 2.0.0 OK" in send(gateway)
    assert len(list((folder / "var/maildir/new").iterdir())) == 1
    reader = DirectoryReader(str(folder / "var/log"))
    lines: list[str] = []
    wait_until(lambda: lines.extend(reader.lines()) or len(lines) == 2, "its Reception and its Delivery")
    reader.close()


def test_with_a_fleet_it_relays_and_under_systemd_it_logs_where_that_says(
    tmp_path: Path, start: Callable[..., Gateway], sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    made(str(folder), "--fleet", f"127.0.0.1:1, {sink.address}")
    assert cli.main(["check", "--strict", *service(folder)["ExecStartPre"][2:]]) == 0
    monkeypatch.setenv("LOGS_DIRECTORY", str(tmp_path / "logs"))
    gateway = start(on_free_ports(folder), "--workers", "1")
    send(gateway)
    wait_until(sink.mails, "the message in the sink")
    wait_until(lambda: list((tmp_path / "logs").iterdir()), "a segment where systemd says")
    assert not (folder / "var").exists()


def test_a_policy_of_kumomtas_stays_as_it_is_and_the_fleet_is_in_the_environment(tmp_path: Path) -> None:
    policy, folder = tmp_path / "kumo.lua", tmp_path / "set"
    policy.write_text(KUMOMTA)
    made(str(folder), "--kumomta", str(policy), "--fleet", "mta1:2525,mta2:2525")
    assert (folder / "init.lua").read_text() == KUMOMTA
    lines = service(folder)
    assert lines["ExecStart"][1:] == ["run", "--policy", f"{folder}/init.lua", "--fleet", "mta1:2525,mta2:2525"]
    assert cli.main(lines["ExecStartPre"][1:]) == 0


def test_nothing_that_is_there_is_touched(tmp_path: Path) -> None:
    (tmp_path / "relay-gateway.env").write_text("mine")
    said = made(str(tmp_path), status=1)
    assert said == (
        f"relay-gateway init: {tmp_path} has relay-gateway.env already, and nothing is overwritten: remove it or name "
        "another\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["relay-gateway.env"]


def test_what_cannot_be_written_whole_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "prometheus").touch()
    with pytest.raises(init.NotWritten, match="prometheus: "):
        init.write(tmp_path, {"init.lua": b"", "prometheus/x": b""})
    assert [path.name for path in tmp_path.iterdir()] == ["prometheus"]
    (tmp_path / "file").touch()
    with pytest.raises(init.NotWritten, match="/file is no directory"):
        init.contents(tmp_path / "file" / "x", None, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kumomta", "kumo.lua"], "--kumomta needs --fleet: the hosts that run this policy"),
        (["--fleet", "mta1:what"], "--fleet: "),
        (["--fleet", "mta1", "--kumomta", "nowhere.lua"], "nowhere.lua: No such file or directory"),
        (
            ["--fleet", "mta1", "--kumomta", "bad.lua"],
            "bad.lua: 1 problem; the gateway would not start with it. Nothing is",
        ),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(
    tmp_path: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.lua").write_text("this is no Lua")
    with pytest.raises(init.NotWritten) as refused:
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        init.contents(tmp_path / "set", options.get("--fleet"), options.get("--kumomta"))
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("name", ["it's", 'a "b"', "back\\slash", "line\nend"])
def test_a_path_that_a_unit_cannot_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(init.NotWritten, match="are not for the paths of a service"):
        init.contents(tmp_path / name, None, None)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="NOT CHECKED: no systemd-analyze")
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    folder = tmp_path / "100% $HOME here"
    made(str(folder))
    unit = folder / "relay-gateway.service"
    unit.write_text(unit.read_text().replace(init.program(), "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
    text = unit.read_text()
    assert f'"{tmp_path}/100%% $$HOME here/init.lua"' in text
    assert f"EnvironmentFile=-{tmp_path}/100%% $HOME here/relay-gateway.env\n" in text
