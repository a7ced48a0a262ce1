"""What the command line says about where a policy runs: options, the small file, and what they mean together.

Whatever KumoMTA's dialect can say is said there; here is the rest, as a Deployment.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

from gateway.config import (
    Deployment,
    Destination,
    EgressPath,
    Host,
    PartialRefusal,
    QueueConfig,
    SmtpFleet,
    SpoolSettings,
    UpstreamTls,
)
from gateway.policy.domain_files import EVERYWHERE, Parameters, Text, Unreadable, parsed
from gateway.policy.fleet_schemas import FLEET, fleet_member
from gateway.policy.options import (
    BadOptions,
    Option,
    Schema,
    Trouble,
    as_table,
    duration,
    list_of,
    one_of,
    refusal,
    string,
)
from gateway.policy.path_schemas import EGRESS_PATH
from gateway.policy.problems import PolicyProblems, Problem
from gateway.policy.schemas import socket_address
from gateway.policy.source import PolicySource

# Nodes of a fleet have certificates of their own making, mostly; what is offered is used.
_PATH = {"enable_tls": UpstreamTls.OPPORTUNISTIC_INSECURE}


def _fleet(value: object) -> SmtpFleet:
    """Hosts, or what gateway.fleet takes."""
    is_table = isinstance(value, dict) and any(isinstance(key, str) for key in value)
    return FLEET(value) if is_table else SmtpFleet(_members(value))


def _members(value: object) -> tuple[Host, ...]:
    found: tuple[Host, ...] = list_of(fleet_member, "hosts")(value)
    if not found:
        raise refusal("there is no host")
    return found


def _path(value: object) -> dict[str, Any]:
    """The options as given, so that those that are not keep the gateway's defaults for a fleet."""
    return EGRESS_PATH.read(value)


_RETRIES = ("retry_interval", "max_retry_interval", "max_age")  # of kumo.make_queue_config, with a spool

FILE = Schema(
    {
        "fleet": Option(_fleet),
        "listen": Option(list_of(socket_address, "addresses"), default=()),
        "spool": Option(string),
        "path": Option(_path, default={}),
        **{name: Option(duration) for name in _RETRIES},
        "on_partial_refusal": Option(one_of(PartialRefusal), default=PartialRefusal.DSN),
    }
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that reads a policy as a running gateway does."""
    parser.add_argument(
        "--fleet",
        metavar="HOST:PORT[,…]",
        type=_hosts,
        help="relay to these hosts, whatever the policy says about queues and egress; its delivery side is theirs",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDR[,…]",
        type=_addresses,
        help="listen for SMTP there, instead of where the policy's listeners do, with their parameters in their order",
    )
    parser.add_argument(
        "--spool",
        metavar="DIR",
        help="keep there what cannot be handed over now, whatever the policy says about spools",
    )
    parser.add_argument(
        "--gateway-config",
        metavar="FILE",
        help="the same and more in TOML: fleet, listen, spool, path, on_partial_refusal; the command line goes first",
    )


def source_of(args: argparse.Namespace, path: str | None = None) -> PolicySource:
    """The policy that is named, or the one of a path, to be loaded as it is going to run.

    Raises OSError where it cannot be read, and PolicyProblems for what is wrong with the gateway's own file.
    """
    return PolicySource.read(args.policy if path is None else path, _deployment(args))


def _deployment(args: argparse.Namespace) -> Deployment:
    options = FILE.read({}) if args.gateway_config is None else _options(args.gateway_config)
    fleet = SmtpFleet(args.fleet) if args.fleet else options.get("fleet")
    listen = args.listen or options["listen"]
    directory = args.spool or options.get("spool")
    spool = None if directory is None else SpoolSettings(name="data", path=directory)
    if fleet is None:
        if options["path"]:
            raise PolicyProblems([Problem(args.gateway_config, 0, "path is for a fleet, and there is none")])
        return Deployment(listen=listen, spool=spool)
    retries = {name: options[name] for name in _RETRIES if options.get(name) is not None}
    queue = QueueConfig(protocol=fleet, on_partial_refusal=options["on_partial_refusal"], **retries)
    path: EgressPath = EGRESS_PATH.built({**_PATH, **options["path"]})
    return Deployment(fleet=Destination(queue, path), listen=listen, spool=spool)


def _options(path: str) -> dict[str, Any]:
    try:
        text = Text(path, Path(path).read_bytes().decode("utf-8"))
        return FILE.read(as_table(parsed(text, tomllib.loads)))
    except UnicodeDecodeError:
        raise PolicyProblems([Problem(path, 0, "this is no text in UTF-8")]) from None
    except OSError as error:
        raise PolicyProblems([Problem(path, 0, str(error.strerror))]) from None
    except Unreadable as bad:
        raise PolicyProblems([bad.problem]) from None
    except BadOptions as bad:
        raise PolicyProblems([_located(trouble, text) for trouble in bad.troubles]) from None


def _located(trouble: Trouble, text: Text) -> Problem:
    key, *inner = trouble.keys
    line = text.line_of(Parameters(EVERYWHERE, str(key)), tuple(inner))
    return Problem(text.name, line, str(trouble), trouble.hint)


def _hosts(text: str) -> tuple[Host, ...]:
    return tuple(_each(text, fleet_member))


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(_each(text, socket_address))


def _each(text: str, read: Any) -> list[Any]:
    try:
        return [read(part.strip()) for part in text.split(",")]
    except BadOptions as bad:
        raise argparse.ArgumentTypeError(str(bad)) from None
