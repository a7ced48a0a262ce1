"""io.popen: programs as policies start them, and those that take too long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.outside import programs
from gateway.policy.problems import PolicyProblems
from tests.gateway_process import INIT, Gateway, wait_until
from tests.policy_tools import examine, said, source_of

SLEEP = 50000 + os.getpid()  # seconds; whose programs they are


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("io.popen('echo one; echo two'):read('*a')", "one\ntwo\n"),
        ("io.popen('echo one; echo two'):read()", "one"),
        ("io.popen('echo one; echo two'):read('L')", "one\n"),
        ("{ io.popen('echo one; printf two'):read('l', 'l', 'l', 'l') }", ["one", "two"]),
        ("{ io.popen('echo 12 0x10 -1.5e1 x'):read('n', 'n', 'n') }", [12, 16, -15.0]),
        ("io.popen('echo x'):read('n')", None),
        ("io.popen('echo hello'):read(2)", "he"),
        ("io.popen('true'):read('a')", ""),
        ("io.popen('true'):read(0)", None),
        ("io.popen('true'):read('l')", None),
        ("io.popen(\"printf 'a\\\\0\\\\377'\"):read('a') == 'a\\0\\xff'", True),
        ("{ io.popen('exit 3'):close() }", {"2": "exit", "3": 3}),
        ("{ io.popen('kill -9 $$'):close() }", {"2": "signal", "3": 9}),
        ("{ io.close(io.popen 'true') }", [True, "exit", 0]),
        ("{ io.popen('true'):write('x') }", {"2": "Bad file descriptor", "3": 9}),
        ("{ io.popen('true'):seek() }", {"2": "Illegal seek", "3": 29}),
        ("{ os.execute 'exit 3' }", {"2": "exit", "3": 3}),
        ("os.execute()", True),
        ("os.execute 'cat'", True),
        ("io.type(io.popen 'true')", "file"),
        ("io.type(io.stdout)", "file"),
        ("io.type(5)", None),
        ("type(io.popen('true'))", "userdata"),
        ("#io.popen('head -c 300000 /dev/zero'):read('a')", 300000),
        ("io.popen(5):close()", None),
    ],
)
def test_a_policy_that_is_loaded_reads_what_a_program_writes(code: str, result: Any) -> None:
    assert said(f"result = {code}") == result


def test_lines_of_a_program_are_looped_over() -> None:
    assert said("result = {} for line in io.popen('echo a; echo b'):lines() do result[#result + 1] = line end") == [
        "a",
        "b",
    ]


def test_a_program_is_written_to(tmp_path: Path) -> None:
    assert said(f"local p = io.popen('cat > {tmp_path}/x', 'w') p:write('a', 5):flush() result = p:close()") is True
    assert (tmp_path / "x").read_text() == "a5"


def test_a_program_has_none_of_the_gateways_files(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        file.fileno()
        assert str(tmp_path) not in said("result = io.popen('ls -l /proc/self/fd'):read 'a'")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("io.popen {}", "io.popen: expected a string, got a table"),
        ("io.popen('true', 'r+')", "io.popen: invalid mode 'r+'"),
        ("io.popen('true'):read('x')", "Program:read: invalid format 'x'"),
        ("local p = io.popen('true') p:close() p:read()", "Program:read: attempt to use a closed file"),
        ("local p = io.popen('true') p:close() p:lines()()", "Program:lines: attempt to use a closed file"),
        ("io.popen('true\\0')", "io.popen: embedded null byte"),
    ],
)
def test_what_goes_wrong_is_a_lua_error(code: str, problem: str) -> None:
    with pytest.raises(PolicyProblems) as raised:
        said(code)
    assert problem in raised.value.problems[0].message


def test_what_a_program_writes_is_bounded() -> None:
    with pytest.raises(PolicyProblems, match="it writes more than 16 MiB"):
        said("io.popen('cat /dev/zero'):read 'a'")


def test_how_many_run_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "MOST_RUNNING", 0)
    with pytest.raises(PolicyProblems, match="0 programs are running already"):
        said("io.popen 'true'")


def test_a_policy_is_not_loaded_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PATIENCE", 0.05)
    with pytest.raises(PolicyProblems, match="it takes more than 0 seconds"):
        said("io.popen('sleep 1000'):read()")


def test_check_starts_no_program_of_a_handler(tmp_path: Path) -> None:
    handler = f"local p = io.popen('touch {tmp_path}/x') local all = p:read('*a') .. 'x' p:close() p:reed()"
    errors, _, _ = examine(source_of(f"kumo.on('smtp_server_mail_from', function() {handler} end)"))
    assert [problem.message for problem in errors] == ["p:reed: a Program has no such method"]
    assert not (tmp_path / "x").exists()


# --- at the wire ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    policy = f"""{INIT}
        local name = io.popen('echo known'):read()
        kumo.set_handler_limits {{ wait = '20s' }}
        kumo.on('smtp_server_ehlo', function(name)
          kumo.set_handler_limits {{ wait = name == 'limited' and '100ms' or '20s' }}
        end)
        kumo.on('smtp_server_mail_from', function(sender)
          if sender.user == 'ever' then io.popen('exec >/dev/null; sleep {SLEEP} & sleep {SLEEP}'):close() end
          if sender.user == 'executed' then os.execute 'sleep {SLEEP} & sleep {SLEEP}' end
          if sender.user == 'read' then io.popen('sleep {SLEEP} & sleep {SLEEP}'):read() end
          kumo.reject(550, name .. io.popen('echo $PPID'):read() .. ' ' .. tostring(io.popen('exit 5'):close()))
        end)
        kumo.on('get_listener_domain', function(domain)
          return kumo.make_listener_domain {{ relay_to = io.popen('echo ' .. domain):read() == 'a.example' }}
        end)
    """
    running = Gateway(tmp_path_factory.mktemp("programs"), policy, "--workers", "1")
    yield running
    assert running.stop() == 0
    running.kill()


def sleeping() -> list[str]:
    """Programs of these tests that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if path.read_bytes() == f"sleep\0{SLEEP}\0".encode() else []
        except OSError:
            continue
    return found


def test_handlers_read_programs_that_the_worker_starts(gateway: Gateway) -> None:
    with gateway.smtp() as client:
        client.ehlo()
        (worker,) = gateway.workers()
        assert client.mail("a@a.example") == (550, f"5.0.0 known{worker} nil".encode())


@pytest.mark.parametrize("user", ["ever", "read", "executed"])
def test_a_program_without_end_holds_up_nobody_and_ends_with_its_client(gateway: Gateway, user: str) -> None:
    with gateway.connect() as waiting:
        waiting.sendall(f"EHLO a.example\r\nMAIL FROM:<{user}@a.example>\r\n".encode())
        wait_until(lambda: len(sleeping()) == 2, "the program runs")
        with gateway.smtp() as other:
            other.ehlo()
            assert other.mail("a@a.example")[0] == 550
    wait_until(lambda: not sleeping(), "the program and what it has started are gone")


@pytest.mark.parametrize("user", ["ever", "read", "executed"])
def test_a_program_that_takes_too_long_is_451_and_is_killed(gateway: Gateway, user: str) -> None:
    with gateway.smtp() as client:
        client.ehlo("limited")
        assert client.mail(f"{user}@a.example")[0] == 451
    wait_until(lambda: not sleeping(), "the program and what it has started are gone")


# --- policy-extras.docker_utils ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("docker.resolve_docker_network()", "127.0.0.0/24"),
        ("docker.resolve_docker_name('localhost')[1]", "127.0.0.1"),
        ("#docker.resolve_docker_name '; echo 192.0.2.1  STREAM'", 0),
    ],
)
def test_the_network_of_a_container(monkeypatch: pytest.MonkeyPatch, code: str, result: Any) -> None:
    monkeypatch.setenv("HOSTNAME", "localhost")
    assert said(f"local docker = require 'policy-extras.docker_utils' result = {code}") == result


def test_there_is_no_network_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "-")  # what is no name is not asked for
    assert said("result = require('policy-extras.docker_utils').resolve_docker_network()") is None
