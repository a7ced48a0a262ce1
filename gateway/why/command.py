"""`relay-gateway explain`: what the gateway would answer to a client, and why. The command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import orjson

from gateway.admin import locate
from gateway.policy import deployment, printing
from gateway.policy.problems import PolicyProblems
from gateway.why.asking import explained
from gateway.why.conversation import CLIENT
from gateway.why.explain import Explanation
from gateway.why.prose import in_words
from gateway.why.question import STRANGER, Inquiry, Misuse

EX_UNAVAILABLE = 1  # nobody answers, as with `trace`
EX_USAGE = 2  # as argparse has it
EX_CONFIG = 78  # <sysexits.h>; the same as `run` for a policy that cannot be used
PATIENCE = 60.0  # seconds for an answer of a running gateway


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `explain`."""
    deployment.add_arguments(parser)
    add_question(parser)
    parser.add_argument("--live", action="store_true", help="ask the running gateway, whose policy FILE is")
    locate.add_arguments(parser)
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
    add("--ehlo", metavar="NAME", type=_one_line, default=CLIENT, help="how the client calls itself")
    add("--meta", metavar="K=V", action="append", default=[], help="conn_meta besides what there always is")
    add("--message", metavar="FILE", help="the content; default a small letter")


def run(args: argparse.Namespace) -> int:
    """Prints the explanation. Returns 0; 1 where no running gateway answers, 2 for arguments that do not fit, 78 for a
    policy that cannot be used.
    """
    try:
        inquiry = _inquiry(args)
        if args.live or args.admin is not None:
            explanation = _live(args, inquiry)
        else:
            with printing.on_standard_error():
                explanation = explained(deployment.source_of(args), inquiry)
    except PolicyProblems as bad:
        for problem in bad.problems:
            print(problem, file=sys.stderr)
        return EX_CONFIG
    except OSError as error:
        status = EX_CONFIG if error.filename == args.policy else EX_USAGE
        return _complain(f"{error.filename}: {error.strerror}", status)
    except Misuse as misuse:
        return _complain(str(misuse), EX_USAGE)
    except locate.NoGateway as nobody:
        return _complain(str(nobody), EX_UNAVAILABLE)
    if args.json:
        sys.stdout.buffer.write(orjson.dumps(explanation, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        print(in_words(explanation), end="")
    return 0


def _complain(text: str, status: int) -> int:
    print(f"relay-gateway explain: {text}", file=sys.stderr)
    return status


def _inquiry(args: argparse.Namespace) -> Inquiry:
    asked = Inquiry(
        sender=args.sender,
        recipients=args.recipients,
        peer=args.peer,
        listener=args.listener,
        auth=args.auth,
        tls=args.tls,
        ehlo=args.ehlo,
        meta=args.meta,
    )
    if args.message is None:
        return asked
    return asked._replace(message=Path(args.message).read_bytes().decode("latin-1"), message_name=args.message)


def _live(args: argparse.Namespace, inquiry: Inquiry) -> Explanation:
    """By the running gateway, with the policy that is in force there."""
    base = locate.find(args.policy, args.admin)
    with locate.ask(base, "/explain", inquiry.as_json(), timeout=PATIENCE) as response:
        explanation: Explanation = orjson.loads(response.read())
    return explanation


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise argparse.ArgumentTypeError("it has a character that no command has")
    return text
