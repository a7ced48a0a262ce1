"""`relay-gateway logs`: prints the records of log directories. Reading is reader.py's business."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence

import orjson

from gateway.config import RECORD_TYPES
from gateway.logs.reader import DirectoryReader

POLL_SECONDS = 0.2
_INTERRUPTED = 130  # what shells report for SIGINT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the subcommand."""
    parser.add_argument("directory", metavar="DIR", nargs="+", help="a log_dir of the policy's configure_local_logs")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new records as they are written")
    parser.add_argument(
        "-t", "--type", action="append", choices=RECORD_TYPES, metavar="TYPE",
        help=f"only records of this type (may be repeated): {', '.join(RECORD_TYPES)}",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Prints one record per line; returns 0, 1 where a directory cannot be read, 130 after Ctrl-C."""
    readers = [DirectoryReader(directory) for directory in args.directory]
    try:
        while True:
            _print(_wanted(_lines(readers), args.type))
            if not args.follow:
                return 0
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough; Python must not complain at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"relay-gateway logs: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        for reader in readers:
            reader.close()


def _lines(readers: Sequence[DirectoryReader]) -> Iterator[bytes]:
    for reader in readers:
        yield from reader.lines()


def _wanted(lines: Iterable[bytes], types: Collection[str] | None) -> Iterator[bytes]:
    for line in lines:
        if types is None or _type(line) in types:
            yield line


def _type(line: bytes) -> str | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:  # written by a template
        return None
    kind = record.get("type") if isinstance(record, dict) else None
    return kind if isinstance(kind, str) else None


def _print(lines: Iterable[bytes]) -> None:
    output = sys.stdout.buffer
    for line in lines:
        output.write(line + b"\n")
    output.flush()
