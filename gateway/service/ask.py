"""`relay-gateway reload`, `drain`, `upgrade` and `limits`: ask a running service, wait for how it went, and say so."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.service import control

SYSTEMD_PATH = "/run/relay-gateway/control"  # where the unit's RuntimeDirectory has it


@dataclass(frozen=True, slots=True)
class Ask:
    """One subcommand: what it asks for, and what it says about itself."""

    word: str
    description: str
    can_undo: bool = False
    asks_for_peer: bool = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments of the subcommand."""
        parser.description = self.description
        add_control(parser)
        if self.can_undo:
            parser.add_argument("--undo", action="store_true", help="be ready again")
        if self.asks_for_peer:
            parser.add_argument("peer", metavar="PEER", nargs="?", default="", help="only what has this in its name")

    def run(self, args: argparse.Namespace) -> int:
        """Returns 0 where it went well, else 1 with the reasons on standard error."""
        word = f"un{self.word}" if self.can_undo and args.undo else self.word
        about: dict[str, object] = {"peer": args.peer} if self.asks_for_peer else {}
        return ask_and_tell(args, {"ask": word, **about})


def add_control(parser: argparse.ArgumentParser) -> None:
    """Declare where to ask, and how long to wait."""
    parser.add_argument(
        "--control",
        metavar="PATH",
        default=control.default_path() or SYSTEMD_PATH,
        help="the service's control socket, as `run --control` has it (default: %(default)s)",
    )
    parser.add_argument("--timeout", metavar="S", type=float, default=180.0, help="seconds to wait (default: 180)")


def ask_and_tell(args: argparse.Namespace, request: dict[str, object]) -> int:
    """Ask, and print what was said; returns 0 where it went well, else 1 with the reasons on standard error."""
    try:
        ok, said = asked(args.control, request, args.timeout)
    except TimeoutError:
        ok, said = False, [f"no answer within {args.timeout:g} s; the diagnostic log knows more"]
    except FileNotFoundError:
        why = "there is none; the unit has it there, `relay-gateway run --control PATH` elsewhere"
        ok, said = False, [f"cannot ask the service at {args.control}: {why}"]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        ok, said = False, [f"cannot ask the service at {args.control}: {reason}"]
    for line in said:
        print(line, file=sys.stdout if ok else sys.stderr)
    return 0 if ok else 1


def asked(path: str, request: Mapping[str, object], timeout: float) -> tuple[bool, list[str]]:
    """What the service at a control socket answers: whether it went well, and why. timeout: seconds. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as stream:
            line = stream.readline()
    if not line:
        return False, ["the service went away without an answer"]
    answer = json.loads(line)
    return bool(answer["ok"]), [str(text) for text in answer["said"]]


reload = Ask(
    "reload",
    "Make a running service read its policy again. Returns when the new policy is in force, or fails with the "
    "reason, and the policy before stays.",
)
drain = Ask(
    "drain",
    "Make /readyz of a running service say 503, so that load balancers send nobody there; clients are still served.",
    can_undo=True,
)
upgrade = Ask(
    "upgrade",
    "Let the relay-gateway that is installed by now take the place of the running one: same process, same sockets, no "
    "connection refused. What cannot start does not take over.",
)
limits = Ask(
    "limits",
    "Show who uses how much of what a running service limits: connections now; messages, recipients, octets and failed "
    "guesses by network or identity; throttles of the policy. The fullest first, at most 500.",
    asks_for_peer=True,
)
