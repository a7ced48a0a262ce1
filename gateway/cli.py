"""The command line `relay-gateway`: finds the subcommand. Each one's arguments and work are in a module of its own.

Only the chosen subcommand's module is imported, so that none pays for the others.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

from gateway import __version__

# name: (the module with add_arguments(parser) and run(args) -> exit code, or an object in it; what it is for)
COMMANDS = {
    "init": ("gateway.init", "write a policy, a unit and what else a service needs to start from into a directory"),
    "run": ("gateway.service.run", "run the service: supervisor, workers and the HTTP side"),
    "reload": ("gateway.service.ask:reload", "make a running service read its policy again"),
    "drain": ("gateway.service.ask:drain", "make a running service not ready, while it goes on serving"),
    "limits": ("gateway.service.ask:limits", "show who uses how much of what a running service limits"),
    "upgrade": ("gateway.service.ask:upgrade", "let the installed version take over from the running one"),
    "fleet": ("gateway.service.fleet", "show the members of a running service's fleet; drain one of them"),
    "check": ("gateway.policy.check", "load a policy without opening a socket and list every problem"),
    "explain": ("gateway.why.command", "say what a client would be answered, by which rule, and what would change it"),
    "diff": ("gateway.why.diff_command", "say what another policy would change of what the records say was asked"),
    "status": ("gateway.admin.status_command:status", "say what happens in a running gateway now"),
    "top": ("gateway.admin.status_command:top", "the same again and again, until Ctrl-C"),
    "trace": ("gateway.admin.trace", "show a running gateway's sessions as they happen, or what it refused last"),
    "logs": ("gateway.logs.command", "print log records, and follow new ones with -f"),
    "ship": ("gateway.ship", "bring log records to webhooks, Kafka, NATS, AMQP or files, each at least once"),
    "spool": ("gateway.couriers.spool.command", "look into a spool; try, hold, drop and move its messages"),
    "report": ("gateway.reports.command", "say what bounces and complaints in files report"),
    "send": ("gateway.send", "send a message to an SMTP server and show the dialogue"),
    "sink": ("gateway.sink", "an SMTP server that keeps or discards what it gets, to try things out"),
    "bench": ("relay_gateway_bench.cli", "load and measure SMTP servers"),
}

EPILOG = """\
To try it:

  relay-gateway init pilot                            a first policy, in Lua, with comments; and what a service needs
  relay-gateway check pilot/init.lua                  is the policy good?
  relay-gateway run --policy pilot/init.lua           run it, Ctrl-C stops
  relay-gateway send 127.0.0.1:2525 --to a@b.example  a message, from another terminal
  relay-gateway logs -f pilot/var/log                 watch what happens to each message
  curl http://127.0.0.1:8025/metrics                  and the counters

`relay-gateway COMMAND --help` explains each command.
"""


_OTHERS = 0o002  # no file that is made here is everybody's to write to, whatever the umask


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; argv: the arguments after the program's name. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    os.umask(os.umask(_OTHERS) | _OTHERS)
    parser = argparse.ArgumentParser(
        prog="relay-gateway",
        description="The SMTP front door of a sending fleet: decides by Lua policy, relays, logs and counts.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"relay-gateway {__version__} (Python {platform.python_version()})"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((argument for argument in argv if not argument.startswith("-")), None)
    for name, (module, purpose) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=purpose, description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == chosen:
            try:
                implementation = _implementation(module)
            except ModuleNotFoundError as error:
                if error.name is None or error.name.split(".")[0] == "gateway":
                    raise
                package = "relay-gateway[bench]" if name == "bench" else "relay-gateway with all that it depends on"
                print(f"relay-gateway {name} needs {error.name}: install {package}", file=sys.stderr)
                return 1
            implementation.add_arguments(subparser)
    arguments = parser.parse_args(argv)
    try:
        status = int(implementation.run(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130  # what shells report for SIGINT
    except BrokenPipeError:  # `| head` has seen enough; Python must not complain at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what shells report for SIGPIPE
    return status


def _implementation(place: str) -> Any:
    """What COMMANDS names: a module, or after a colon something in it."""
    module, _, name = place.partition(":")
    imported = importlib.import_module(module)
    return getattr(imported, name) if name else imported
