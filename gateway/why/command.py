"""`relay-gateway explain`: what the gateway would answer to a client, and why. The command line, and loading."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import Listener
from gateway.later import Waits, begun
from gateway.policy.background import Background
from gateway.policy.problems import PolicyProblems
from gateway.policy.source import PolicySource
from gateway.why.conversation import Desk, Question
from gateway.why.differ import local_end
from gateway.why.explain import Explanation, explain
from gateway.why.messages import LETTER, MESSAGES, as_sent
from gateway.why.prose import in_words
from gateway.why.watched import NotingApi, WatchedPolicy

EX_USAGE = 2  # as argparse has it
EX_CONFIG = 78  # <sysexits.h>; the same as `run` for a policy that cannot be used
STRANGER = "192.0.2.1"  # RFC 5737: nobody's
CLIENT_PORT = 40_000


class Misuse(Exception):
    """The arguments do not fit the policy. str() says how."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `explain`."""
    parser.add_argument("--policy", metavar="FILE", required=True, help="the policy, a Lua file")
    add_question(parser)
    parser.add_argument("--json", action="store_true", help="for a program: docs/why.md lists the keys")


def add_question(parser: argparse.ArgumentParser) -> None:
    """The options that say what a client would do."""
    add = parser.add_argument
    add("--from", dest="sender", metavar="A", type=_one_line, required=True, help="the sender; '<>' for none")
    add(
        "--to", dest="recipients", metavar="B", type=_one_line, action="append", required=True,
        help="a recipient; may be repeated",
    )  # fmt: skip
    add("--peer", metavar="IP[:PORT]", default=STRANGER, help=f"the client's address; default {STRANGER}, a stranger")
    add("--listener", metavar="ADDR", help="which listener of the policy; default the first")
    add("--auth", metavar="USER", type=_one_line, help="the client authenticated as USER, under TLS; nobody is asked")
    add("--tls", action="store_true", help="the client used STARTTLS")
    add("--ehlo", metavar="NAME", type=_one_line, default="client.example", help="how the client calls itself")
    add("--meta", metavar="K=V", action="append", default=[], help="conn_meta besides what there always is")
    add("--message", metavar="FILE", help="the content; default a small letter")


def run(args: argparse.Namespace) -> int:
    """Prints the explanation. Returns 0, 2 for arguments that do not fit, 78 for a policy that cannot be used."""
    logging.getLogger("gateway.policy").addHandler(logging.NullHandler())  # the explanation says it
    background = Background.alone()
    try:
        desk = desk_for(args.policy, background)
        question = question_of(args, desk.policy.config.listeners)
        explanation: Explanation = settled(desk, explain(desk, question))
    except PolicyProblems as bad:
        for problem in bad.problems:
            print(problem, file=sys.stderr)
        return EX_CONFIG
    except OSError as error:
        print(f"relay-gateway explain: {error.filename}: {error.strerror}", file=sys.stderr)
        return EX_CONFIG if error.filename == args.policy else EX_USAGE
    except Misuse as misuse:
        print(f"relay-gateway explain: {misuse}", file=sys.stderr)
        return EX_USAGE
    finally:
        background.end()
    if args.json:
        sys.stdout.buffer.write(orjson.dumps(explanation, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        print(in_words(explanation), end="")
    return 0


def desk_for(path: str, background: Background) -> Desk:
    """A policy, ready to be asked. Raises PolicyProblems, OSError."""
    page = CounterPage(bytearray(metrics.page_size()))
    source = PolicySource.read(path)
    policy = WatchedPolicy.load(source, page=page, background=background, api=NotingApi, verify_every=1 << 60)
    return Desk(policy, page, time.time_ns)


def settled(desk: Desk, steps: Waits) -> Any:
    """What steps lead to, in a process that does nothing else."""
    return desk.policy.finish(begun(steps))


def question_of(args: argparse.Namespace, listeners: Sequence[Listener]) -> Question:
    """What the options ask. Raises Misuse, OSError."""
    if not listeners:
        raise Misuse("the policy has no SMTP listener")
    number, wanted = _listener(args.listener, listeners)
    name, message = LETTER, MESSAGES[LETTER]
    if args.message is not None:
        name, message = args.message, as_sent(Path(args.message).read_bytes())
    return Question(
        sender=_path(args.sender),
        recipients=tuple(map(_path, args.recipients)),
        peer=_peer(args.peer),
        listener=number,
        local=local_end(listeners[number], wanted),
        auth=args.auth,
        tls=args.tls,
        ehlo=args.ehlo,
        meta=dict(map(_metadata, args.meta)),
        message=message,
        message_name=name,
    )


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise argparse.ArgumentTypeError("it has a character that no command has")
    return text


def _path(text: str) -> str:
    return text[1:-1] if text.startswith("<") and text.endswith(">") else text


def _metadata(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Misuse(f"--meta {text}: expected KEY=VALUE")
    return key, value


def _peer(text: str) -> tuple[str, int]:
    host, port = text, CLIENT_PORT
    if text.startswith("[") or text.count(":") == 1:
        host, _, number = text.rpartition(":")
        if not number.isdigit() or not 0 < int(number) < 65_536:
            raise Misuse(f"--peer {text}: expected IP or IP:PORT")
        port = int(number)
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), port
    except ValueError:
        raise Misuse(f"--peer {text}: '{host}' is no IP address") from None


def _listener(wanted: str | None, listeners: Sequence[Listener]) -> tuple[int, str]:
    """Which listener is meant, and our end's address where it listens on any."""
    if wanted is None:
        return 0, ""
    found = [number for number, listener in enumerate(listeners) if wanted == listener.listen]
    if found:
        return found[0], ""
    host, _, port = wanted.rpartition(":")
    for number, listener in enumerate(listeners):
        if listener.listen in (f"0.0.0.0:{port}", f"[::]:{port}"):
            return number, host.strip("[]")
    there = ", ".join(listener.listen for listener in listeners)
    raise Misuse(f"no listener {wanted}; the policy has: {there}")
