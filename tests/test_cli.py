"""The command line: finding, explaining and importing subcommands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gateway import __version__, cli


def relay_gateway(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gateway", *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_command_and_teaches(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert ending.value.code == 0
    assert all(f"    {name} " in text for name in cli.COMMANDS)
    assert "relay-gateway run --policy" in text


def test_version_names_the_gateway_and_python(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(["--version"])
    assert ending.value.code == 0
    assert f"relay-gateway {__version__} (Python {sys.version.split()[0]})" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [(), ("frobnicate",), ("logs",)])
def test_what_cannot_be_meant_is_a_usage_error(arguments):
    ending = relay_gateway(*arguments)
    assert ending.returncode == 2
    assert "usage: relay-gateway" in ending.stderr


def test_only_the_chosen_commands_module_is_imported():
    program = "import sys; from gateway import cli; cli.main(['logs', '/']); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "gateway.logs.command" in modules
    assert not {"gateway.reports.command", "gateway.service.supervisor", "uvloop", "aiohttp", "lupa"} & set(modules)


@pytest.mark.parametrize(
    ("command", "package"),
    [("bench", "relay-gateway[bench]"), ("check", "relay-gateway with all that it depends on")],
)
def test_a_command_that_is_not_installed_says_what_to_install(command, package, monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, command, ("no_such_package.cli", "…"))
    assert cli.main([command]) == 1
    assert f"needs no_such_package: install {package}" in capsys.readouterr().err


def test_a_broken_module_of_the_gateway_itself_is_not_mistaken_for_that(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "bench", ("gateway.no_such_module", "…"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["bench"])


def test_ctrl_c_ends_a_command_with_130(monkeypatch):
    from gateway.logs import command

    monkeypatch.setattr(command, "run", lambda args: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["logs", "/"]) == 130
