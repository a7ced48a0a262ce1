"""Peers that need no configuration file: the sink itself, smtp-sink, aiosmtpd, the gateway, KumoMTA."""

import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

from .base import SETUP, Knobs, Peer, find_program, free_port, output_of

POLICY = Path(__file__).parent.parent / "policies" / "bench.lua"


class Direct(Peer):
    """No server at all: the source talks to the sink, which shows what those two cost."""

    name = "direct"
    relays = False

    def start(self) -> None:
        self.run(sys.executable, "-c", _SINK, str(self.port))


_SINK = """
import os, sys
from relay_gateway_bench.sink import listen, serve
r, w = os.pipe()      # standard input that never ends: SIGTERM does
os.dup2(r, 0)
serve(listen("127.0.0.1", int(sys.argv[1])))
"""


class SmtpSink(Peer):
    """Postfix's smtp-sink: C, no policy, no log; the yardstick of what accepting a message costs."""

    name = "smtp-sink"
    relays = False

    def missing(self) -> str | None:
        return None if find_program("smtp-sink") else "smtp-sink is not installed: apt-get install postfix"

    def version(self) -> str:
        postconf = find_program("postconf")
        return f"smtp-sink of Postfix {output_of(postconf, '-dh', 'mail_version')}" if postconf else "smtp-sink"

    def start(self) -> None:
        program = find_program("smtp-sink")
        assert program
        drop = ("-u", "nobody") if os.getuid() == 0 else ()
        connections = ("-m", "30000")  # at a time; more than 256 would wait otherwise
        self.run(program, *drop, *connections, f"127.0.0.1:{self.port}", "4096")


class Aiosmtpd(Peer):
    """aiosmtpd on uvloop; handing over, when it does, with aiosmtplib over one connection per session."""

    name = "aiosmtpd"

    def missing(self) -> str | None:
        wanted = ("aiosmtpd", "aiosmtplib", "uvloop")
        absent = [name for name in wanted if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed: pip install 'relay-gateway[bench]'" if absent else None

    def version(self) -> str:
        version = importlib.metadata.version
        return f"aiosmtpd {version('aiosmtpd')}, aiosmtplib {version('aiosmtplib')}, uvloop {version('uvloop')}"

    def start(self) -> None:
        upstream = str(self.knobs.upstream) if self.relays else "0"
        self.run(sys.executable, Path(__file__).parent / "aiosmtpd_server.py", str(self.port), upstream)


class AiosmtpdDiscard(Aiosmtpd):
    name = "aiosmtpd-discard"
    relays = False


class Gateway(Peer):
    """This project, with policies/bench.lua."""

    name = "gateway"

    def __init__(self, knobs: Knobs) -> None:
        super().__init__(knobs)
        self.relays = knobs.upstream != 0

    def missing(self) -> str | None:
        return None if self._program().exists() else f"{self._program()} is not installed: make .venv/.ready"

    def version(self) -> str:
        return output_of(self._program(), "--version")

    def start(self) -> None:
        workers = str(self.knobs.workers)
        self.run(self._program(), "run", "--policy", POLICY, "--workers", workers, **self._variables())

    @staticmethod
    def _program() -> Path:
        return Path(sysconfig.get_path("scripts")) / "relay-gateway"

    def _variables(self) -> dict[str, str]:
        return {
            "BENCH_PORT": str(self.port),
            "BENCH_UPSTREAM": str(self.knobs.upstream),
            "BENCH_HTTP": str(free_port()),
            "BENCH_LOGS": str(self.home / "logs") if self.knobs.logs else "",
            "BENCH_SPOOL": str(self.home / "spool"),
        } | dict(self.knobs.policy)


class KumoMTA(Gateway):
    """KumoMTA's kumod with the same policy file; its path comes from --kumod. It queues: 250 means spooled."""

    name = "kumomta"
    queues = True
    program = ""

    def missing(self) -> str | None:
        return None if self.program else f"no kumod named: pass --kumod PATH (see {SETUP})"

    def version(self) -> str:
        return output_of(self.program, "--version")

    def start(self) -> None:
        user = ("--user", "nobody") if os.getuid() == 0 else ()
        for directory in ("logs", "spool"):
            (self.home / directory).mkdir(mode=0o777)
            (self.home / directory).chmod(0o777)
        self.run(self.program, "--policy", POLICY, *user, **self._variables())
