"""`relay-gateway trace`: what happens in a running gateway's sessions, as it happens; or what it refused last.

What is told, and how little of it is kept, is gateway/tracing's; the lines for a person are display.py's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from urllib.parse import urlencode

from gateway.admin import display, locate
from gateway.admin.locate import NoGateway
from gateway.tracing.wanted import BadWish, Wanted

RETURN = 10.0  # seconds that a gateway gets to answer again, after a reload or a restart
_PAUSE = 0.1
_USAGE = 2

DESCRIPTION = """\
Show sessions of a running gateway as they happen: commands, replies, what the policy's handlers answered, decisions
with their reason, hand-overs. Passwords are not shown. Ctrl-C ends it. With --recent: what was refused before.
"""
EPILOG = """\
examples:
  relay-gateway trace --policy init.lua --to example.com       what becomes of mail for a domain
  relay-gateway trace --policy init.lua --refused --terse      a line for each transaction that is refused something
  relay-gateway trace --admin http://127.0.0.1:8000 --recent   the last refusals
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    locate.add_arguments(parser)
    parser.add_argument("--peer", metavar="CIDR", action="append", help="only clients there (may be repeated)")
    parser.add_argument("--to", metavar="DOMAIN", action="append", help="only mail for this domain (may be repeated)")
    parser.add_argument("--refused", action="store_true", help="only transactions that are refused something")
    parser.add_argument("--terse", action="store_true", help="a line for each transaction")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, as docs/why.md describes them")
    parser.add_argument("--recent", action="store_true", help="the last refusals, instead of what happens now")


def run(args: argparse.Namespace) -> int:
    """Prints until the gateway is gone or, with --recent, to the end; returns the exit code."""
    wishes = [*(("peer", peer) for peer in args.peer or ()), *(("to", domain) for domain in args.to or ())]
    wishes += [(flag, "1") for flag in ("refused", "terse") if getattr(args, flag)]
    try:
        query = urlencode(Wanted.read(wishes).pairs())
    except BadWish as error:
        print(f"relay-gateway trace: --{error}", file=sys.stderr)
        return _USAGE
    try:
        base = locate.find(args.policy, args.admin)
        if args.recent:
            with locate.ask(base, f"/trace/recent?{query}") as response:
                _print_recent(response, as_json=args.json, terse=args.terse)
            return 0
        _follow(base, f"/trace?{query}", as_json=args.json)
    except NoGateway as error:
        print(f"relay-gateway trace: {error}", file=sys.stderr)
    except BrokenPipeError:  # `| head` has seen enough; Python must not complain at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 1


def _follow(base: str, path: str, *, as_json: bool) -> None:
    """Prints events until nobody answers any more: an admin process that ends is followed by the next one's."""
    response = locate.ask(base, path, timeout=None)
    while True:
        with response:
            for line in _lines(response):
                _print_event(line, as_json)
        print("# the stream has ended; asking again", file=sys.stderr, flush=True)
        response = _ask_again(base, path)


def _ask_again(base: str, path: str) -> HTTPResponse:
    deadline = time.monotonic() + RETURN
    while True:
        try:
            return locate.ask(base, path, timeout=None)
        except NoGateway:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)


def _lines(response: HTTPResponse) -> Iterator[bytes]:
    """Whole lines, as they arrive, up to the end of the stream, in good order or not."""
    try:
        while (line := response.readline()).endswith(b"\n"):
            yield line
    except (OSError, HTTPException):
        return


def _print_event(line: bytes, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(line.decode())
    else:
        event = json.loads(line)
        # what is about the trace itself is none of its lines
        out = sys.stderr if event.get("event") in ("watching", "gone") else sys.stdout
        print(display.line_of(event), file=out, flush=True)
    sys.stdout.flush()


def _print_recent(response: HTTPResponse, *, as_json: bool, terse: bool) -> None:
    last = None
    for line in _lines(response):
        event = json.loads(line)
        if as_json or terse:
            print(
                line.decode().rstrip("\n") if as_json else f"{str(event.get('time', ''))[:10]} {display.line_of(event)}"
            )
            continue
        if event.get("session") != last:
            print(display.head_of(event))
            last = event.get("session")
        print(display.refusal_of(event))
    sys.stdout.flush()
