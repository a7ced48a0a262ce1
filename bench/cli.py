"""The command line of `relay-gateway bench`. Arguments in, exit code out; the work is done elsewhere."""

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from . import contents, floods, instructions, outage, silent
from .fairness import Hogs, measure
from .flooding import FLOODS
from .load import Plan, Target, TargetError, prepared, show_progress
from .mix import SENDER, Mix, MixError, load_mix, parse_size, plain_mix
from .peers import PEERS
from .peers.simple import KumoMTA
from .report import write_readme, write_report
from .run import FULL, QUICK, SMOKE, Runner, write
from .sink import listen, parse_refusals, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `relay-gateway bench`."""
    commands = parser.add_subparsers(dest="bench_command", required=True, metavar="COMMAND")
    _add_load(commands.add_parser("load", help="send load to an SMTP server and say how it did", description=_LOAD))
    _add_run(commands.add_parser("run", help="measure the gateway beside its peers", description=_RUN))
    _add_report(commands.add_parser("report", help="make the page of a result again", description=_REPORT))
    counts = "count the instructions of the kernels and compare them with the baseline"
    instructions.add_arguments(commands.add_parser("instructions", help=counts, description=instructions.__doc__))
    fairness = "how long a client waits beside others that pipeline for ever"
    _add_fairness(commands.add_parser("fairness", help=fairness, description=_FAIRNESS))
    besides = "what a good client loses while others flood the gateway"
    _add_floods(commands.add_parser("floods", help=besides, description=floods.__doc__))
    away = "what clients notice of an outage of the whole fleet, where there is a spool"
    _add_outage(commands.add_parser("outage", help=away, description=outage.__doc__))
    beside = "what a member of the fleet that never greets costs the others' clients"
    _add_silent(commands.add_parser("silent", help=beside, description=silent.__doc__))
    memory = "how much memory large messages take, and how long other mail waits meanwhile"
    _add_contents(commands.add_parser("contents", help=memory, description=contents.__doc__))
    _add_sink(commands.add_parser("sink", help="an SMTP server that takes, checks, and discards", description=_SINK))


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen subcommand; its exit code."""
    try:
        return int(arguments.bench_run(arguments))
    except (TargetError, MixError, ValueError) as error:
        print(f"bench {arguments.bench_command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


_LOAD = """\
Send messages over SMTP and report rates, outcomes and latencies. Closed loop by default: each connection
sends its next message when the last one was answered. With --rate, open loop: messages are due at fixed
times whatever the server does, and latency counts from when a message was due. Always bounded, by
--messages and --seconds."""

_RUN = """\
Run the scenarios against every server that is installed here, side by side, and write JSON, Markdown and HTML.
Everything runs on loopback, on free ports, in private directories. Peers that are absent are named and skipped."""

_REPORT = "Write Markdown, HTML and pictures beside a result of `bench run`."

_FAIRNESS = """\
Let many connections pipeline unknown commands as fast as they are read, and measure what another client waits for the
answer to NOOP; print it as JSON. Always bounded, by --seconds."""

_SINK = """\
Accept every message and discard it, checking the marks that `bench load` puts in: counts are printed as
JSON at the end, and whenever a line comes in on standard input."""


def _add_load(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", metavar="HOST:PORT", help="a loopback address, unless --target-is-mine")
    add(
        "--target-is-mine",
        action="store_true",
        help="the target is not on loopback, and load on it is authorised",
    )
    add("-n", "--messages", type=int, default=10_000, metavar="N", help="how many messages (%(default)s)")
    add("--seconds", type=float, default=60, metavar="S", help="stop after so long (%(default)s)")
    add("-c", "--connections", type=int, default=20, metavar="N", help="connections at a time (%(default)s)")
    add("--rate", type=float, default=0, metavar="R", help="open loop: R messages per second")
    add("--pipeline", action="store_true", help="MAIL, RCPT and DATA in one write (RFC 2920)")
    add(
        "--per-connection",
        type=int,
        default=0,
        metavar="N",
        help="messages per connection; 1: a new one each",
    )
    add("--size", type=parse_size, default=1024, metavar="SIZE", help="of each message, as in 10KiB (1KiB)")
    add("--recipients", type=int, default=1, metavar="N", help="recipients of each message (%(default)s)")
    add("--domains", type=int, default=1, metavar="N", help="spread recipients over d0.example … (one domain)")
    add("--from", dest="sender", default=SENDER, metavar="ADDRESS", help="reverse-path (%(default)s)")
    add("--to", default="", metavar="ADDRESS", help="the one recipient")
    add("--mix", type=Path, metavar="FILE", help="sizes, domains and reports by weight, from a TOML file")
    add("--tls", action="store_true", help="STARTTLS first (through Python's ssl: a slower source)")
    add("--auth", metavar="USER:PASSWORD", help="AUTH PLAIN (the same path)")
    add("--json", type=Path, metavar="FILE", help="write the result there as well; - is standard output")
    add("-q", "--quiet", action="store_true", help="no progress")
    parser.set_defaults(bench_run=_load)


def _add_sink(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="where (%(default)s: any free port)")
    add("--delay", type=float, default=0, metavar="S", help="wait so long before the reply to the final dot")
    add(
        "--refuse",
        action="append",
        default=[],
        metavar="STAGE=CODE[/N]",
        help="refuse each N-th MAIL, RCPT, DATA or DOT",
    )
    add("--drop", type=int, default=0, metavar="N", help="close without a reply after each N-th final dot")
    add("--reset", type=int, default=0, metavar="N", help="the same with a TCP reset")
    add("--no-chunking", dest="chunking", action="store_false", help="do not offer CHUNKING (BDAT)")
    parser.set_defaults(bench_run=_sink)


def _add_fairness(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", metavar="HOST:PORT", help="a loopback address, unless --target-is-mine")
    add("--target-is-mine", action="store_true", help="the target is not on loopback, and this is authorised")
    add("--hogs", type=int, default=20, metavar="N", help="connections that pipeline for ever (%(default)s)")
    add("--unread", action="store_true", help="the hogs do not read their replies")
    add("--seconds", type=float, default=5, metavar="S", help="measure for so long (%(default)s)")
    add("--worker", type=int, default=0, metavar="PID", help="also tell by how much this process grows")
    parser.set_defaults(bench_run=_fairness)


def _fairness(arguments: argparse.Namespace) -> int:
    target = Target.parse(arguments.target, mine=arguments.target_is_mine)
    hogs = Hogs(arguments.hogs, not arguments.unread, arguments.seconds)
    print(json.dumps(measure(target, hogs, arguments.worker)))
    return 0


def _add_floods(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    usual = floods.Measure()
    add("--only", action="append", default=[], metavar="NAME", help=f"only these: {', '.join(FLOODS)}")
    add("--sessions", type=int, default=0, metavar="N", help="no larger crowds than this (10000 idle, 2000 that drip)")
    add("--rate", type=float, default=usual.rate, metavar="R", help="of the good client's messages (%(default)s)")
    add("--seconds", type=float, default=usual.seconds, metavar="S", help="for each figure (%(default)s)")
    add("--workers", type=int, default=usual.workers, metavar="N", help="of the gateway (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the result there as well")
    parser.set_defaults(bench_run=_floods)


def _floods(arguments: argparse.Namespace) -> int:
    chosen = {name: getattr(arguments, name) for name in ("sessions", "rate", "seconds", "workers")}
    result = floods.measured(floods.Measure(tuple(arguments.only), **chosen))
    return _told(result, floods.table(result), arguments.json)


def _add_outage(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    usual = outage.Measure()
    add("--rate", type=float, default=usual.rate, metavar="R", help="messages a second (%(default)s)")
    add("--octets", type=parse_size, default=usual.octets, metavar="SIZE", help="of each message (%(default)s)")
    add("--usual", type=float, default=usual.usual, metavar="S", help="seconds with the fleet up (%(default)s)")
    add("--away", type=float, default=usual.away, metavar="S", help="seconds without it (%(default)s)")
    add("--clients", type=int, default=usual.clients, metavar="N", help="connections of the load (%(default)s)")
    add("--workers", type=int, default=usual.workers, metavar="N", help="of the gateway (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the result there as well, second by second")
    parser.set_defaults(bench_run=partial(_measured, part=outage))


def _add_silent(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    usual = silent.Measure()
    add("--rounds", type=int, default=usual.rounds, metavar="N", help="with and without it (%(default)s)")
    add("--seconds", type=float, default=usual.seconds, metavar="S", help="of load in each (%(default)s)")
    add("--octets", type=parse_size, default=usual.octets, metavar="SIZE", help="of each message (%(default)s)")
    add("--clients", type=int, default=usual.clients, metavar="N", help="connections of the load (%(default)s)")
    add("--workers", type=int, default=usual.workers, metavar="N", help="of the gateway (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the result there as well")
    parser.set_defaults(bench_run=partial(_measured, part=silent))


def _measured(arguments: argparse.Namespace, part: ModuleType) -> int:
    """part: one of the bench's modules that has a Measure, what is measured by it, and a table of that."""
    chosen = {name: getattr(arguments, name) for name in vars(part.Measure())}
    result = part.measured(part.Measure(**chosen))
    return _told(result, part.table(result), arguments.json)


def _told(result: dict[str, Any], table: str, file: Path | None) -> int:
    """Prints a result that holds or does not, and writes it to a file where one is named; the exit code."""
    if file:
        file.write_text(json.dumps(result, indent=1) + "\n")
    print(table)
    return 0 if result["holds"] else 1


def _add_contents(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", metavar="HOST:PORT", help="a loopback address, unless --target-is-mine")
    add("--target-is-mine", action="store_true", help="the target is not on loopback, and this is authorised")
    add("--worker", type=int, required=True, metavar="PID", help="the gateway's only worker")
    add("--recipient", default="b@in.example", metavar="ADDRESS", help="of all messages (%(default)s)")
    add("--clients", type=int, default=200, metavar="N", help="with a large message each (%(default)s)")
    add("--octets", type=parse_size, default=20_000_000, metavar="SIZE", help="of a large message (%(default)s)")
    add("--seconds", type=float, default=300, metavar="S", help="give up then (%(default)s)")
    parser.set_defaults(bench_run=_contents)


def _contents(arguments: argparse.Namespace) -> int:
    target = Target.parse(arguments.target, mine=arguments.target_is_mine)
    crowd = contents.Crowd(arguments.clients, arguments.octets, arguments.seconds)
    print(json.dumps(contents.measure(target, crowd, arguments.recipient, arguments.worker)))
    return 0


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="settings", action="store_const", const=QUICK, help="about 6 minutes (default)")
    size.add_argument("--full", dest="settings", action="store_const", const=FULL, help="everything, about 25 minutes")
    size.add_argument("--smoke", dest="settings", action="store_const", const=SMOKE, help="does it run at all?")
    add("--only", action="append", default=[], metavar="NAME", help="only scenarios of this name or pattern")
    add("--peer", action="append", default=[], metavar="NAME", help=f"only these peers: {', '.join(PEERS)}")
    add("--repetitions", type=int, metavar="N", help="of each scenario and contender")
    add("--seconds", type=float, metavar="S", help="of load in each repetition")
    add("--kumod", default="", metavar="PATH", help="measure this KumoMTA binary as well")
    add("--results", type=Path, default=Path("bench/results"), metavar="DIR", help="where to write (%(default)s)")
    parser.set_defaults(bench_run=_run, settings=QUICK)


def _run(arguments: argparse.Namespace) -> int:
    unknown = set(arguments.peer) - set(PEERS)
    if unknown:
        raise ValueError(f"no peer is called {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    KumoMTA.program = arguments.kumod
    chosen = {"only": tuple(arguments.only), "peers": tuple(arguments.peer)}
    chosen |= {"repetitions": arguments.repetitions, "growth": arguments.repetitions, "seconds": arguments.seconds}
    settings = replace(arguments.settings, **{name: value for name, value in chosen.items() if value})
    path = write(Runner(settings).run(), arguments.results)
    print("\n".join(str(file) for file in [path, *write_report(path)]))
    return 0


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("result", type=Path, nargs="+", metavar="FILE", help="JSON that `bench run` wrote")
    of_readme = "put the main picture and the targets between the marks in this file as well"
    parser.add_argument("--readme", type=Path, metavar="README", help=of_readme)
    parser.set_defaults(bench_run=_report)


def _report(arguments: argparse.Namespace) -> int:
    for path in arguments.result:
        print("\n".join(str(file) for file in write_report(path)))
        if arguments.readme:
            write_readme(path, arguments.readme)
    return 0


def _mix(arguments: argparse.Namespace) -> Mix:
    if arguments.mix:
        return load_mix(arguments.mix)
    return plain_mix(
        arguments.size,
        recipients=arguments.recipients,
        domains=arguments.domains,
        sender=arguments.sender,
        to=arguments.to,
    )


def _load(arguments: argparse.Namespace) -> int:
    target = Target.parse(arguments.target, mine=arguments.target_is_mine)
    user, colon, password = (arguments.auth or "").partition(":")
    plan = Plan(
        messages=arguments.messages,
        seconds=arguments.seconds,
        connections=arguments.connections,
        rate=arguments.rate,
        pipelining=arguments.pipeline,
        per_connection=arguments.per_connection,
        tls=arguments.tls,
        auth=(user, password) if colon else None,
    )
    progress = sys.stderr.isatty() and not arguments.quiet
    with prepared(target, _mix(arguments), plan) as load:
        load.connect()
        result = load.run(show_progress if progress else None)
    if progress:
        print(file=sys.stderr)
    text = json.dumps(result, indent=1)
    if str(arguments.json) == "-":
        print(text)
        return 0 if result["acked"] else 1
    if arguments.json:
        arguments.json.write_text(text + "\n")
    latency = result["latency_us"]
    print(
        f"{result['acked']:,} of {result['sent']:,} messages taken in {result['seconds']:.2f} s: "
        f"{result['messages_per_second']:,.0f}/s; refused {result['refused']:,}, lost {result['lost']:,}, "
        f"unknown {result['unknown']:,}, unfinished {result['unfinished']:,}\n"
        f"latency µs: median {latency['p50']:,.0f}, 90 % {latency['p90']:,.0f}, 99 % {latency['p99']:,.0f}, "
        f"99.9 % {latency['p99.9']:,.0f}, max {latency['max']:,.0f}; "
        f"this source used {result['source_us_per_message']:.1f} µs of CPU per message"
    )
    if result["error"] and not result["acked"]:
        print(f"last error: {result['error']}", file=sys.stderr)
    return 0 if result["acked"] else 1


def _sink(arguments: argparse.Namespace) -> int:
    host, _, port = arguments.listen.rpartition(":")
    refuse = parse_refusals(arguments.refuse)
    listener = listen(host.strip("[]") or "127.0.0.1", int(port))
    serve(
        listener,
        delay=arguments.delay,
        refuse=refuse,
        drop_every=arguments.drop,
        reset_every=arguments.reset,
        chunking=arguments.chunking,
    )
    return 0
