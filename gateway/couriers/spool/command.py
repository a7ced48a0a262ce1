"""`relay-gateway spool`: what is in a spool, and what an operator wants done to it; with a gateway running or without.

Whoever has locked a file works on it. Another one is read beside that; what is to be changed is left there as an order,
which the gateway carries out within a second. Without a gateway it is done here, records included.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import LocalLogs
from gateway.couriers.spool import holdings, orders
from gateway.couriers.spool.holdings import Holding, Locked
from gateway.couriers.spool.kept import Envelope, legible
from gateway.couriers.spool.orders import STATES, Order
from gateway.couriers.spool.store import DAMAGED, Damaged, Row, Store
from gateway.logs.writer import LogWriter

_ASK_AGAIN = 0.05  # seconds
_LOG_PATIENCE = 60.0  # seconds for a disk to take the records
_ENDINGS = {"retry": "to be tried now", "hold": "held", "drop": "dropped"}

DESCRIPTION = "Look into a spool (kumo.define_spool, run --spool), and change what becomes of its messages."
EPILOG = """\
actions:
  list           a line for each message; --summary counts them by queue, state and last answer
  show ID…       all that is known of messages; --content prints them instead
  retry          try messages now, held ones too
  hold           try messages no more, nor let them expire, until retry
  drop           forget messages, with an AdminBounce record each; their senders are not told
  export FILE    move messages into a file; only where no gateway works on them
  import FILE    take up what was exported; a gateway that runs there does so within seconds

examples:
  relay-gateway spool list /var/lib/relay-gateway/spool --recipient @example.com
  relay-gateway spool drop /var/lib/relay-gateway/spool --queue example.com --older 86400 \\
      --log-dir /var/log/relay-gateway
"""


class NotDone(Exception):
    """What the operator asked for cannot be done; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    actions = ("list", "show", "retry", "hold", "drop", "export", "import")
    parser.add_argument("action", choices=actions, metavar="ACTION", help=", ".join(actions))
    parser.add_argument("directory", metavar="DIR", help="the spool's directory")
    parser.add_argument("names", metavar="ID|FILE", nargs="*", help="messages, or the file of export and import")
    parser.add_argument("--queue", metavar="NAME", help="those of this queue")
    parser.add_argument("--site", metavar="TEXT", help="those whose site has this in it, such as a host of mx_list")
    parser.add_argument("--sender", metavar="ADDRESS", help="those from there; @DOMAIN for all of a domain")
    parser.add_argument("--recipient", metavar="ADDRESS", help="those to there; @DOMAIN for all of a domain")
    parser.add_argument("--state", choices=list(STATES.values()), help="those in this state")
    parser.add_argument("--older", metavar="S", type=float, help="those that arrived so many seconds ago, or earlier")
    parser.add_argument("--all", action="store_true", help="with retry, hold and drop: every message")
    parser.add_argument("--json", action="store_true", help="a JSON object for each message")
    parser.add_argument("--summary", action="store_true", help="with list: how many of what")
    parser.add_argument("--content", action="store_true", help="with show: the message itself")
    parser.add_argument("--log-dir", metavar="DIR", help="with drop: where records go if no gateway runs: a log_dir")
    parser.add_argument("--timeout", metavar="S", type=float, default=60.0, help="to wait for a gateway (default: 60)")


def run(args: argparse.Namespace) -> int:
    """Returns 0 where it went well, else 1 with the reason on standard error."""
    try:
        return _ACTIONS[args.action](args)
    except BrokenPipeError:
        raise
    except (NotDone, OSError, sqlite3.Error) as error:
        print(f"relay-gateway spool: {error}", file=sys.stderr)
        return 1


# --- reading ----------------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    order = _order(args)
    counted: Counter[tuple[str, str, str]] = Counter()
    for store in _stores(args.directory):
        for row in store.rows():
            if not order.means(row):
                continue
            if args.summary:
                counted[row.queue, STATES[row.state], _last(legible(row.envelope))] += 1
            else:
                print(json.dumps(_known(row)) if args.json else _line(row))
    for (queue, state, last), number in counted.most_common():
        print(f"{number:8d} {state:11s} {queue}  {last}")
    return 0


def _show(args: argparse.Namespace) -> int:
    if not args.names:
        raise NotDone("show: which message? give its id")
    found = 0
    for store in _stores(args.directory):
        for row in orders.select(store, _order(args)):
            found += 1
            if not args.content:
                print(json.dumps(_known(row), indent=2))
                continue
            sys.stdout.flush()
            content = Envelope.decoded(row.envelope).content(store.content(row.number))
            sys.stdout.buffer.writelines(content.plain_pieces())
    if not found:
        raise NotDone("there is no such message")
    return 0


def _known(row: Row) -> dict[str, Any]:
    known: dict[str, Any] = {
        "state": STATES[row.state],
        "queue": row.queue,
        "site": row.site,
        "size": row.size,
        "attempts": row.attempts,
        "arrived": _moment(row.arrived),
        "due": _moment(row.due),
        "expires": _moment(row.expires),
    }
    envelope = legible(row.envelope)
    return known if envelope is None else {**envelope.shown(), **known, "last": _last(envelope)}


def _moment(unix_time: float) -> str | None:
    """None for what is no time: a damaged row has any number."""
    try:
        return datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


def _line(row: Row) -> str:
    age = max(0.0, time.time() - row.arrived)
    envelope = legible(row.envelope)
    if envelope is None:
        return f"{'?':32s} {STATES[row.state]:11s} number {row.number}"
    recipients = ", ".join([f"<{each.email}>" for each in envelope.recipients])
    times = "1 attempt" if row.attempts == 1 else f"{row.attempts} attempts"
    return (
        f"{envelope.id} {STATES[row.state]:11s} {_duration(age):>4s} old, {times}, {row.size} octets, "
        f"queue {row.queue}: <{envelope.sender.email}> to {recipients}: {_last(envelope)}"
    )


def _last(envelope: Envelope | None) -> str:
    """What was said last."""
    last = None if envelope is None else envelope.last
    return "" if last is None else f"{last.code} {last.enhanced} {last.content}".replace("  ", " ").replace("\n", " ")


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


# --- changing ---------------------------------------------------------------------------------------------------------


def _change(args: argparse.Namespace) -> int:
    order = _order(args)
    if not args.all and all(value is None for name, value in vars(order).items() if name != "what"):
        raise NotDone(f"{args.action}: which messages? give ids, a filter, or --all")
    done = carry_out_in(args.directory, order, args.timeout, args.log_dir)
    print(f"{_number(done)} {_ENDINGS[order.what]}")
    return 0 if done else 1


def _number(messages: int) -> str:
    return f"{messages} {'message' if messages == 1 else 'messages'}"


def carry_out_in(directory: str, order: Order, timeout: float, log_dir: str | None = None) -> int:
    """Does it to the messages of a spool that are meant, or has the gateway do it that works on them.

    Returns to how many. timeout: seconds. log_dir: where records go that no gateway writes. Raises NotDone, OSError.
    """
    done = 0
    for path in _files(directory):
        try:
            with _locked(path), closing(Store(path)) as store, store.transaction():
                rows = orders.select(store, order)
                for row in rows:
                    orders.carry_out(store, row.number, order.what)
                if order.what == "drop":
                    _record(rows, log_dir)
                done += len(rows)
        except Locked:
            done += _asked(path, order, timeout)
        except sqlite3.Error as error:
            raise NotDone(f"{path}: {error}") from error
    return done


def _record(dropped: list[Row], log_dir: str | None) -> None:
    """Has a record of each on disk, before any of them is forgotten."""
    now_ns = time.time_ns()
    bounces = [bounce for row in dropped if (bounce := orders.bounce_of(row, now_ns)) is not None]
    if not bounces:
        return
    if log_dir is None:
        raise NotDone("drop: no gateway runs: where are the AdminBounce records to go? give a log_dir as --log-dir")
    there = set(os.listdir(log_dir))
    logs = LogWriter(
        [LocalLogs(log_dir=log_dir, back_pressure=len(bounces) + 1)],
        CounterPage(bytearray(metrics.page_size())),
        call_soon=lambda callback: None,
    )
    for record, message in bounces:
        logs.submit(record, message)
    if not logs.close(_LOG_PATIENCE):
        raise NotDone(f"drop: the records cannot be written to {log_dir}; nothing is dropped")
    _give(log_dir, [os.path.join(log_dir, name) for name in set(os.listdir(log_dir)) - there])


def _asked(path: str, order: Order, timeout: float) -> int:
    """Has the gateway do it; returns to how many messages."""
    with closing(Store(path)) as store:
        with store.transaction():
            number = store.order(json.dumps(vars(order)))
        deadline = time.monotonic() + timeout
        while True:
            with store.transaction():
                answer = store.take_answer(number)
            if answer is not None:
                return int(json.loads(answer))
            if time.monotonic() > deadline:
                raise NotDone(f"the gateway that works on {path} has not answered; it will do so later")
            time.sleep(_ASK_AGAIN)


# --- moving -----------------------------------------------------------------------------------------------------------


def _export(args: argparse.Namespace) -> int:
    *ids, file = args.names or [None]
    if file is None:
        raise NotDone("export: into which file?")
    args.names = ids
    order = _order(args)
    moved = 0
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        for path in _files(args.directory):
            try:
                with _locked(path), closing(Store(path)) as store:
                    rows = _written(store, order, out)
                    with store.transaction():
                        for row in rows:
                            store.remove(row.number)
                    moved += len(rows)
            except Locked:
                if not moved:
                    os.unlink(file)
                    raise NotDone(f"a gateway works on {path}: stop it first") from None
                raise NotDone(f"a gateway works on {path}: stop it first ({_number(moved)} in {file})") from None
    print(f"{_number(moved)} moved into {file}")
    return 0


def _written(store: Store, order: Order, out: Any) -> list[Row]:
    """The messages that are meant, on disk in the file. One that is damaged stays where it is."""
    rows = []
    for row in orders.select(store, order):
        try:
            content = store.content(row.number)
        except Damaged as error:
            print(error, file=sys.stderr)
            continue
        if row.state == DAMAGED:
            continue
        rows.append(row)
        values = dict(zip(_MOVED, [getattr(row, name) for name in _MOVED], strict=True))
        values |= {"envelope": row.envelope.decode(), "content": b64encode(content).decode()}
        out.write(json.dumps(values) + "\n")
    out.flush()
    os.fsync(out.fileno())
    return rows


_MOVED = ("due", "arrived", "expires", "attempts", "state", "site", "queue")


def _import(args: argparse.Namespace) -> int:
    if len(args.names) != 1:
        raise NotDone("import: from which file?")
    moved = 0
    holding = Holding.claim(args.directory, 0, 0)
    try:
        with open(args.names[0]) as lines, closing(Store(holding.path)) as store, store.transaction():
            for line in lines:
                read = json.loads(line)
                row = Row(number=0, size=0, envelope=read["envelope"].encode(), **{name: read[name] for name in _MOVED})
                store.append(row, [b64decode(read["content"])])
                moved += 1
        path = holding.path
        _give(args.directory, (path, f"{path}-wal", f"{path}-shm", path.removesuffix(holdings.SUFFIX) + ".lock"))
    except (ValueError, KeyError, TypeError) as error:
        raise NotDone(f"{args.names[0]} is no file of export: {error}") from error
    finally:
        holding.let_go()
    print(f"{_number(moved)} taken up")
    return 0


def _give(directory: str, names: Iterable[str]) -> None:
    """What root makes there is for whoever owns the directory, the service's user."""
    if os.geteuid() != 0:
        return
    owner = os.stat(directory)
    for name in names:
        if os.path.exists(name):
            os.chown(name, owner.st_uid, owner.st_gid)


# --- files ------------------------------------------------------------------------------------------------------------


def _order(args: argparse.Namespace) -> Order:
    return Order(
        what=args.action if args.action in _ENDINGS else "",
        ids=args.names or None,
        queue=args.queue,
        site=args.site,
        sender=args.sender,
        recipient=args.recipient,
        state=args.state,
        older=None if args.older is None else time.time() - args.older,
    )


def _files(directory: str) -> list[str]:
    return holdings.files(directory)


def _stores(directory: str) -> Iterator[Store]:
    for path in _files(directory):
        with closing(Store(path)) as store:
            yield store


@contextmanager
def _locked(path: str) -> Iterator[None]:
    lock = holdings.locked(path)
    try:
        yield
    finally:
        os.close(lock)


_ACTIONS = {
    "list": _list,
    "show": _show,
    "retry": _change,
    "hold": _change,
    "drop": _change,
    "export": _export,
    "import": _import,
}
