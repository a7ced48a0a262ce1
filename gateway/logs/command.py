"""`relay-gateway logs`: prints the records of log directories, or sums them up. Reading is reader.py's business."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import orjson

from gateway.config import RECORD_TYPES
from gateway.logs.merging import LogEntry, MergedLogs
from gateway.logs.selection import Selected, moment
from gateway.logs.sums import RecordSums
from gateway.logs.terse import line_of

POLL_SECONDS = 0.2
_INTERRUPTED = 130  # what shells report for SIGINT
_FILTERS = (
    ("-d", "--domain", "DOMAIN", "only what has a sender or recipient there"),
    ("-p", "--peer", "PEER", "only what came from this address, network or name, or went there"),
    ("-r", "--reason", "REASON", "only refusals and failures for this reason (docs/reasons.md)"),
    ("-s", "--session", "ID", "only records of this session"),
    ("-m", "--message", "ID", "only records of this message"),
)
EPILOG = """\
Times are UTC: 2026-08-04T12:30, 2026-08-04, with a zone where another is meant; or an age: 90s, 15m, 2h, 3d, 1w.
Each filter may be repeated: a record is wanted that fits one of its values, in every filter.

  relay-gateway logs --stats --since 1d DIR                   what happened since yesterday
  relay-gateway logs -f -t Rejection -r relay_denied DIR      who is refused
  relay-gateway logs --json --cursor-file place DIR           what came since the last time, for programs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the subcommand."""
    parser.epilog = EPILOG
    parser.add_argument("directory", metavar="DIR", nargs="+", help="a log_dir of the policy's configure_local_logs")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new records as they are written")
    parser.add_argument("-n", "--lines", type=_number, metavar="N", help="of those that are there only the last N")
    parser.add_argument("--since", type=_moment, metavar="TIME", help="only what happened then or later")
    parser.add_argument("--until", type=_moment, metavar="TIME", help="only what happened before")
    parser.add_argument(
        "-t", "--type", action="append", default=[], choices=RECORD_TYPES, metavar="TYPE",
        help=f"only records of this type: {', '.join(RECORD_TYPES)}",
    )  # fmt: skip
    for short, long, metavar, purpose in _FILTERS:
        parser.add_argument(short, long, action="append", default=[], metavar=metavar, help=purpose)
    parser.add_argument("--from", dest="cursor", metavar="CURSOR", help="only what was written since this was printed")
    parser.add_argument("--show-cursor", action="store_true", help="print where reading ended, to standard error")
    parser.add_argument("--cursor-file", metavar="FILE", help="go on from the cursor in this file, and keep it there")
    parser.add_argument("--stats", action="store_true", help="only sums, by reason, domain, member and hour")
    parser.add_argument("--top", type=_number, default=20, metavar="N", help="how many domains --stats shows (20)")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="as they were written, also on a terminal")
    shape.add_argument("--terse", action="store_true", help="in a line for people each, also where it is no terminal")


def run(args: argparse.Namespace) -> int:
    """Prints one record per line; returns 0, 1 where a directory cannot be read, 2 where an argument is wrong, 130
    after Ctrl-C.
    """
    try:
        wanted = _wanted(args).test()
        reading = MergedLogs(args.directory, _cursor(args), args.since or 0.0)
    except ValueError as error:
        print(f"relay-gateway logs: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        return _unreadable(error)
    try:
        if args.stats:
            return _sum_up(filter(wanted, reading.entries()), args)
        return _go_on(reading, wanted, args)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough; Python must not complain at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _unreadable(error)
    finally:
        reading.close()
        if args.show_cursor:
            print(f"cursor: {reading.cursor}", file=sys.stderr)


def _wanted(args: argparse.Namespace) -> Selected:
    return Selected(
        since=args.since,
        until=args.until,
        types=args.type,
        domains=args.domain,
        peers=args.peer,
        reasons=args.reason,
        sessions=args.session,
        messages=args.message,
    )


def _go_on(reading: MergedLogs, wanted: Callable[[LogEntry], bool], args: argparse.Namespace) -> int:
    in_words = args.terse or (sys.stdout.isatty() and not args.json)
    shown: Callable[[LogEntry], bytes] = (
        (lambda entry: line_of(entry).encode()) if in_words else (lambda entry: entry.line)
    )
    last: int | None = args.lines
    while True:
        entries: Iterable[LogEntry] = filter(wanted, reading.entries())
        if last is not None:
            entries, last = deque(entries, last), None
        _print(shown(entry) for entry in entries)
        _keep(reading.cursor, args)
        if not args.follow:
            return 0
        time.sleep(POLL_SECONDS)


def _in_words(entry: LogEntry) -> bytes:
    return line_of(entry).encode()


def _as_written(entry: LogEntry) -> bytes:
    return entry.line


def _sum_up(entries: Iterator[LogEntry], args: argparse.Namespace) -> int:
    sums = RecordSums()
    for entry in entries:
        sums.add(entry)
    if args.json:
        _print([orjson.dumps(sums.as_json(args.top))])
    else:
        _print(line.encode() for line in sums.lines(args.top))
    return 0


def _print(lines: Iterable[bytes]) -> None:
    output = sys.stdout.buffer
    for line in lines:
        output.write(line + b"\n")
    output.flush()


def _cursor(args: argparse.Namespace) -> str | None:
    if args.cursor is None and args.cursor_file is not None:
        with suppress(FileNotFoundError), open(args.cursor_file, encoding="ascii") as file:
            return file.read().strip() or None
    word: str | None = args.cursor
    return word.removeprefix("cursor: ") if word else None


def _keep(cursor: str, args: argparse.Namespace) -> None:
    """After what was printed: who is cut off in between sees it again."""
    if args.cursor_file is None:
        return
    new = f"{args.cursor_file}.new"
    with open(new, "w", encoding="ascii") as file:
        file.write(f"{cursor}\n")
    os.replace(new, args.cursor_file)


def _unreadable(error: OSError) -> int:
    print(f"relay-gateway logs: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def _moment(text: str) -> float:
    try:
        return moment(text, time.time())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text}: not a number")
    return int(text)
