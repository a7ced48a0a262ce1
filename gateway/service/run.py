"""`relay-gateway run`: puts the supervisor together with what its children run."""

from __future__ import annotations

import argparse
import contextlib
import encodings
import importlib
import logging
import os
import pkgutil
import sys

from setproctitle import setproctitle

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.admin.context import AdminContext
from gateway.net import tls
from gateway.policy import deployment, surroundings
from gateway.policy.engine import Policy
from gateway.policy.problems import PolicyProblems
from gateway.service import control, diagnostics, privileges, trial, upgrade, watching, worker
from gateway.service.context import DEFAULT_CONTENT_LIMITS, EX_CONFIG, ContentLimits
from gateway.service.loading import BadPolicy, LoadedPolicy
from gateway.service.staff import Settings
from gateway.service.supervisor import Supervisor

log = logging.getLogger(__name__)

LEAST_CONTENT_MEMORY = 1 << 20  # octets
_SHIPPING = (
    *("gateway.service.shipping", "gateway.shipping.sinks.webhook", "gateway.shipping.sinks.files"),
    *(f"gateway.shipping.sinks.{kind}" for kind in ("stdout", "kafka", "nats", "amqp")),
)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

DESCRIPTION = """\
Run the service in the foreground; diagnostics go to standard error.

The policy's kumo.start_esmtp_listener and kumo.start_http_listener say where to listen. A supervisor opens the sockets,
starts the workers and an admin process for HTTP, and replaces what dies.
"""

EPILOG = """\
signals:
  TERM, INT   stop: no new connections, transactions under way finish, idle sessions get 421; a second one stops at once
  HUP         read the policy again; a good one takes over without losing a session, a bad one changes nothing
  USR2        let the program that is installed by now take over, in the same way

exit codes:
  0   stopped by a signal
  70  every worker died within seconds of its start
  75  something around the service is in the way, such as an address in use or a directory that cannot be written:
      starting again may help
  78  the policy or the settings are bad: only an edit helps

examples:
  relay-gateway run --policy deploy/quickstart.lua
  relay-gateway run --policy /etc/relay-gateway/init.lua --workers 4 --user relay
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--policy", metavar="FILE", required=True, help="the Lua policy")
    deployment.add_arguments(parser)
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_positive,
        default=len(os.sched_getaffinity(0)),
        help="worker processes (default: one per CPU, here %(default)s)",
    )
    parser.add_argument("--user", metavar="NAME", help="when started as root: what to become once the ports are bound")
    parser.add_argument(
        "--drain-timeout",
        metavar="S",
        type=_seconds,
        default=30.0,
        help="seconds that sessions get to finish when the service stops or reloads (default: 30)",
    )
    parser.add_argument(
        "--drain-delay",
        metavar="S",
        type=_seconds,
        default=0.0,
        help="when stopping, seconds for which /readyz says 503 while clients are still served (default: 0)",
    )
    parser.add_argument(
        "--content-memory",
        metavar="SIZE",
        type=_octets,
        default="256M",
        help="memory for message contents in each worker, as in 64M or 1G; what is more goes to files "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--content-directory",
        metavar="DIR",
        default=DEFAULT_CONTENT_LIMITS.directory,
        help="where these files are, which never have a name (default: $TMPDIR or /var/tmp, here %(default)s)",
    )
    parser.add_argument(
        "--control",
        metavar="PATH",
        default=control.default_path(),
        help="the socket for reload, drain and upgrade (default: in systemd's RuntimeDirectory, or none)",
    )
    parser.add_argument(
        "--operator-token-file",
        metavar="FILE",
        help="with the token in it, members can be drained, and spooled messages tried and held, over HTTP",
    )
    parser.add_argument(
        "--announce",
        metavar="FILE|FD",
        help="when ready, write the bound addresses there, as a line of JSON",
    )
    parser.add_argument("--log-level", choices=diagnostics.LEVELS, default="info", help="of the diagnostics")


def run(args: argparse.Namespace) -> int:
    """Run the service to its end; returns its exit code."""
    examination = upgrade.Examination.asked_for()
    diagnostics.configure("supervisor" if examination is None else "upgrade-trial", args.log_level)
    if args.user:
        try:
            privileges.check(args.user)
        except privileges.PrivilegeError as error:
            print(f"relay-gateway run: --user: {error}", file=sys.stderr)
            return EX_CONFIG
        _import_what_comes_later()
    elif os.geteuid() == 0:
        log.warning(
            "running as root: everything, the policy's Lua included, has root's rights; --user NAME gives them up"
        )
    if args.operator_token_file and not args.control:
        print("relay-gateway run: --operator-token-file needs --control, where members are drained", file=sys.stderr)
        return EX_CONFIG
    content = ContentLimits(args.content_memory, args.content_directory)
    if examination is not None:
        return trial.run(examination, lambda: load(args), worker.run, content)
    settings = Settings(
        workers=args.workers,
        content=content,
        user=args.user,
        drain_timeout=args.drain_timeout,
        drain_delay=args.drain_delay,
        announce=args.announce,
        control=args.control,
        operator_token_file=args.operator_token_file,
    )
    setproctitle("relay-gateway: supervisor")
    inheritance = upgrade.inherited()
    return Supervisor(settings, lambda: load(args), worker.run, _run_admin, inheritance).run()


def load(args: argparse.Namespace) -> LoadedPolicy | BadPolicy:
    """Read and run the policy that is named, for what it declares. Runs Lua: not for the supervisor's own process."""
    scratch = CounterPage(bytearray(metrics.page_size()))
    try:
        policy = Policy.load(deployment.source_of(args), page=scratch)
    except OSError as error:
        return BadPolicy((f"{args.policy}: {error.strerror}",), may_pass=True)
    except PolicyProblems as found:
        return BadPolicy(tuple(map(str, found.problems)))
    keys = tls.KeyFiles()
    troubles = surroundings.unusable_keys(policy.source, policy.config.listeners, keys)
    troubles += surroundings.unusable_directories(policy.source, policy.config, make=True)
    if troubles:
        texts = tuple(str(trouble.problem) for trouble in troubles)
        return BadPolicy(texts, may_pass=all(trouble.may_pass for trouble in troubles))
    named = {os.path.abspath(path): content for path, content in keys.contents.items()}
    watched = watching.as_loaded((*policy.config.watched, *named), {**policy.source.files, **named})
    if policy.source.deployment.fleet is not None:
        from gateway.policy.lint import Lint  # with the grammar of Lua, which is not needed otherwise

        for note in Lint(policy.source).left_to_the_fleet():
            log.info("%s", note)
    return LoadedPolicy(policy.config, policy.source, keys, watched)


def _import_what_comes_later() -> None:
    """What is otherwise imported when it is needed: `--user` may not be able to read where Python is installed."""
    for name in ("gateway.admin.server", "gateway.policy.outside.resolvers", "redis.asyncio", *_SHIPPING):
        with contextlib.suppress(ImportError):  # an extra
            importlib.import_module(name)
    for module in pkgutil.iter_modules(encodings.__path__):
        with contextlib.suppress(ImportError):  # other platforms' have nothing to import here
            importlib.import_module(f"encodings.{module.name}")


def _run_admin(context: AdminContext) -> int:
    from gateway.admin import server  # not needed in the workers, which are forked from the same process

    return server.run(context)


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1024:
        raise argparse.ArgumentTypeError(f"expected 1 to 1024, not {number}")
    return number


def _octets(text: str) -> int:
    digits, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"expected octets, or a number with K, M or G behind it, not {text}")
    octets = int(digits) * _UNITS[unit]
    if not LEAST_CONTENT_MEMORY <= octets < 1 << 62:
        raise argparse.ArgumentTypeError(f"expected at least {LEAST_CONTENT_MEMORY >> 20}M, not {text}")
    return octets


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, not {text}")
    return seconds
