"""`relay-gateway init DIR`: writes a commented set to start from: policy, unit, environment file, rules, dashboards.

What is written is what lies in deploy/, with the paths of this installation; nothing is copied anywhere else, no user
is made, no service is started. Nothing that is there already is touched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from gateway.policy import check, deployment
from gateway.policy.problems import PolicyProblems, Severity
from gateway.policy.source import PolicySource

DESCRIPTION = """\
Write what a service needs to start from into a directory: a policy, a systemd unit, its environment file, Prometheus
rules and Grafana dashboards. Writes nothing where one of these is there already.
"""
EPILOG = """\
examples:
  relay-gateway init ./pilot                                                  to try it, as anybody
  relay-gateway init /etc/relay-gateway --fleet mta1:2525,mta2:2525           relays to a fleet
  relay-gateway init /etc/relay-gateway --fleet mta1:2525 --kumomta init.lua  in front of nodes that run KumoMTA, with a
                                                                              copy of their policy
"""

POLICY, UNIT, ENVIRONMENT = "init.lua", "relay-gateway.service", "relay-gateway.env"
COPIED = ("prometheus/prometheus.yml", "prometheus/relay-gateway.rules.yml", "grafana/*.json")
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # from the unit: ProtectHome, PrivateTmp

_QUICKSTART_SAYS = """\
-- A first policy. `make run` starts the gateway with it; `relay-gateway check deploy/quickstart.lua` checks it.
-- docs/policy.md lists everything a policy can say.

local kumo = require 'kumo'
"""
_INIT_SAYS = """\
-- The policy of this gateway. `relay-gateway check` says what is wrong with it, `relay-gateway explain` why it answers
-- what it answers. An edit takes effect with `systemctl reload relay-gateway`.

local kumo = require 'kumo'

-- Where records and mail are kept: where systemd tells the service, or beside this file where it is started by hand.
local logs = os.getenv 'LOGS_DIRECTORY' or {logs}
local state = os.getenv 'STATE_DIRECTORY' or {state}
"""
_TO_MAILDIR = """\
-- Where accepted mail goes. A real fleet looks like this:
--   protocol = { smtp = { mx_list = { 'mta1.internal:2525', 'mta2.internal:2525' } } }
kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config { protocol = { maildir_path = 'var/maildir' } }
end)
"""
_TO_FLEET = """\
-- Where accepted mail goes: to all of these, and to the others where one is away.
kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { MEMBERS } } } }
end)

-- How to talk to them. Their certificates are mostly of their own making: what is offered is used, whoever signed it.
kumo.on('get_egress_path_config', function(routing_domain, source, site_name)
  return kumo.make_egress_path { enable_tls = 'OpportunisticInsecure' }
end)
"""


class NotWritten(Exception):
    """Why nothing is written, for the operator."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the subcommand."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("directory", metavar="DIR", help="where to; made where it is not there")
    parser.add_argument("--fleet", metavar="HOST:PORT[,…]", help="relay to these hosts; into a Maildir unless given")
    parser.add_argument(
        "--kumomta", metavar="FILE", help="start from this policy of KumoMTA's; its delivery side stays the fleet's"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the set and says what to do next; returns 1, and says why, where nothing is written."""
    folder = Path(os.path.abspath(args.directory))
    try:
        files = contents(folder, args.fleet, args.kumomta)
        write(folder, files)
    except NotWritten as why:
        print(f"relay-gateway init: {why}", file=sys.stderr)
        return 1
    print("\n".join(_next_steps(folder, args.fleet if args.kumomta else None, files)))
    return 0


def data() -> Path:
    """Where the files of deploy/ are: in an installed package, or in the tree that this runs from."""
    here = Path(__file__).parent
    return next(found for found in (here / "deploy", here.parent / "deploy") if found.is_dir())


def program() -> str:
    """The path by which this installation's relay-gateway is started."""
    installed = os.path.join(sysconfig.get_path("scripts"), "relay-gateway")
    return installed if os.path.exists(installed) else shutil.which("relay-gateway") or os.path.abspath(sys.argv[0])


def contents(folder: Path, fleet: str | None, kumomta: str | None) -> dict[str, bytes]:
    """What to write, by path below the folder. fleet: as on a command line. kumomta: a file to start from.

    Raises NotWritten where there is no writing there, where the fleet is none, and with what is wrong with the policy.
    """
    if kumomta is not None and fleet is None:
        raise NotWritten("--kumomta needs --fleet: the hosts that run this policy, to which the gateway relays")
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise NotWritten(f"{place} {'cannot be written to' if place.is_dir() else 'is no directory'}")
    unit = _unit(folder)
    source = _source(folder, fleet, kumomta)
    found, summary = check.report(source)
    wrong = [str(problem) for problem in found if problem.severity is Severity.ERROR]
    if wrong:
        raise NotWritten("\n".join((f"{source.path}: {summary}. Nothing is written", *wrong)))
    where = f"--fleet {fleet}" if kumomta is not None else ""
    files = {
        POLICY: source.main,
        UNIT: unit.encode(),
        ENVIRONMENT: replaced(
            _read(ENVIRONMENT), {"RELAY_GATEWAY_WHERE=\n": f"RELAY_GATEWAY_WHERE={where}\n"}
        ).encode(),
    }
    for pattern in COPIED:
        for path in sorted(data().glob(pattern)):
            files[path.relative_to(data()).as_posix()] = path.read_bytes()
    return files


def _source(folder: Path, fleet: str | None, kumomta: str | None) -> PolicySource:
    """The policy as it is going to run, and to be checked."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    deployment.add_arguments(parser)
    try:
        options = parser.parse_args([] if fleet is None else ["--fleet", fleet])
    except argparse.ArgumentError as error:
        raise NotWritten(str(error).removeprefix("argument ")) from None
    if kumomta is None:
        path = str(folder / POLICY)
        members = () if fleet is None else tuple(member.strip() for member in fleet.split(","))
        return PolicySource(path, {path: _policy(folder, members).encode()})
    try:
        return deployment.source_of(options, kumomta)
    except OSError as error:
        raise NotWritten(f"{kumomta}: {error.strerror}") from None
    except PolicyProblems as bad:
        raise NotWritten("\n".join(map(str, bad.problems))) from None


def _policy(folder: Path, members: tuple[str, ...]) -> str:
    head = _INIT_SAYS.format(logs=lua(str(folder / "var/log")), state=lua(str(folder / "var")))
    edits = {
        _QUICKSTART_SAYS: head,
        "log_dir = 'var/log'": "log_dir = logs",
        " -- relay-gateway logs -f var/log": "",
        "'var/maildir'": "state .. '/maildir'",
    }
    text = _read("quickstart.lua")
    if members:
        text = replaced(text, {_TO_MAILDIR: _TO_FLEET.replace("MEMBERS", ", ".join(map(lua, members)))})
        del edits["'var/maildir'"]
        edits[_QUICKSTART_SAYS] = "".join(line for line in head.splitlines(True) if "'STATE_DIRECTORY'" not in line)
    return replaced(text, edits)


def _unit(folder: Path) -> str:
    environment = str(folder / ENVIRONMENT).replace("%", "%%")
    paths = {"/opt/relay-gateway/bin/relay-gateway": program(), f"/etc/relay-gateway/{POLICY}": str(folder / POLICY)}
    for path in paths.values():
        if not path.isprintable() or set(path) & set("\"'\\"):
            raise NotWritten(f"{path}: quotes, backslashes and control characters are not for the paths of a service")
    text = replaced(_read(UNIT), {f"=-/etc/relay-gateway/{ENVIRONMENT}": f"=-{environment}"})
    return replaced(text, {old: _argument(new) for old, new in paths.items()})


def _argument(path: str) -> str:
    """In a command line of systemd's, where % and $ begin a variable."""
    path = path.replace("%", "%%").replace("$", "$$")
    return f'"{path}"' if " " in path else path


def lua(text: str) -> str:
    """A string of Lua; the text has no quotes, backslashes or line ends."""
    return f"'{text}'"


def replaced(text: str, edits: dict[str, str]) -> str:
    """The text with all of this replaced, each of which it has."""
    for old, new in edits.items():
        if old not in text:
            raise ValueError(f"the text has no {old!r}")
        text = text.replace(old, new)
    return text


def _read(name: str) -> str:
    return (data() / name).read_text(encoding="utf-8")


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Writes all, or nothing and raises NotWritten."""
    there = [name for name in files if os.path.lexists(folder / name)]
    if there:
        raise NotWritten(
            f"{folder} has {', '.join(there)} already, and nothing is overwritten: remove it or name another"
        )
    written: list[Path] = []
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:
                written.append(path)
                file.write(content)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise NotWritten(f"{error.filename or folder}: {error.strerror}") from None


def _next_steps(folder: Path, fleet: str | None, files: dict[str, bytes]) -> Iterator[str]:
    where = f" --fleet {fleet}" if fleet else ""
    policy, unit, environment = (folder / name for name in (POLICY, UNIT, ENVIRONMENT))
    yield f"{policy}: the policy; {'as the fleet has it' if fleet else 'who may send what where'}"
    yield f"{unit}: the service for systemd"
    yield f"{environment}: the options that it is started with"
    yield f"{folder}/prometheus, {folder}/grafana: what to scrape and when to warn; dashboards to import"
    yield ""
    yield "try it:"
    yield f"  {program()} check{where} {policy}"
    yield f"  {program()} run{where} --policy {policy}"
    yield (
        f"  {program()} send 127.0.0.1:2525 --to you@example.com"
        if not fleet
        else (f"  {program()} send HOST:PORT --to ADDRESS     where the policy listens")
    )
    yield ""
    yield "as a service:"
    yield "  useradd --system --no-create-home --shell /usr/sbin/nologin relay-gateway"
    yield f"  systemctl enable --now {unit}"
    hidden = [path for path in (str(folder), program()) if path.startswith(tuple(f"{each}/" for each in _HIDDEN))]
    if hidden:
        yield f"  (not from there: the unit hides {' and '.join(hidden)} from the service; move it to /etc or /opt)"
