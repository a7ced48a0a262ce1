"""What all peers have in common: a private directory, a port, processes that are gone afterwards.

A peer is a server under measurement. It listens on loopback, on a port of its own choice, and either discards what it
accepts or hands it over to the sink. Nothing of the system's own mail service is touched.
"""

import contextlib
import os
import shutil
import signal
import socket
import string
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CONF = Path(__file__).parent / "conf"
INSTALLED = Path(os.environ.get("RELAY_GATEWAY_BENCH_PEERS", Path.home() / ".cache" / "relay-gateway-bench"))
START_SECONDS = 30.0
SETUP = "bench/setup-peers.sh"


class PeerError(Exception):
    """A peer that does not start; the text has the end of what it said."""


@dataclass(frozen=True)
class Knobs:
    """How a peer is to be set up for a scenario; a peer ignores what it has no equivalent of.

    upstream: port of the sink on 127.0.0.1; 0: accept and discard. workers: processes that share the work. logs: write
    a record of every message. tls: offer STARTTLS. policy: variables of policies/bench.lua.
    """

    upstream: int = 0
    workers: int = 1
    logs: bool = True
    tls: bool = False
    policy: tuple[tuple[str, str], ...] = ()


class Peer:
    """A server that can be started and stopped; for `with`."""

    name = ""
    relays = True  # hands over to the sink; otherwise accepts and discards
    queues = False  # answers before it handed over
    warm_up = 0.5  # seconds of load until a message costs what it will go on to cost

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs
        self.port = free_port()
        self.home = Path()
        self.processes: list[subprocess.Popen[bytes]] = []

    def missing(self) -> str | None:
        """What keeps this peer from running here, with the way to get it; None when nothing does."""
        return None

    def version(self) -> str:
        """Name and version of the software."""
        return self.name

    def start(self) -> None:
        """Start the server; it need not listen yet. Called with `home` made."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop what `start` started."""

    def pids(self) -> list[int]:
        """The processes whose trees are the server."""
        return [process.pid for process in self.processes]

    def __enter__(self) -> "Peer":
        # /tmp and not $TMPDIR: unprivileged parts of a peer have to be able to reach it
        self.home = Path(tempfile.mkdtemp(prefix=f"bench-{self.name}-", dir="/tmp"))
        self.home.chmod(0o755)
        try:
            self.start()
            self._wait_until_greeting()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self.stop()
        for process in self.processes:
            end_process_group(process)
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, *command: str | Path, user: str | None = None, **environment: str) -> None:
        """Start a long-running process in a process group of its own; it says what it has to say into `home`/output."""
        with open(self.home / "output", "ab") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.home,
                env=os.environ | environment,
                start_new_session=True,
                user=user,
            )
        self.processes.append(process)

    def configure(self, template: str, to: str | None = None, **values: object) -> Path:
        """Write the configuration file made of conf/`template` into `home`; ${port}, ${upstream}, ${home} are known."""
        known = {"port": self.port, "upstream": self.knobs.upstream, "home": self.home} | values
        path = self.home / (to or template)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(string.Template((CONF / template).read_text()).substitute(known))
        return path

    def said(self) -> str:
        """The end of the process's output."""
        with contextlib.suppress(OSError):
            return (self.home / "output").read_text(errors="replace")[-2000:]
        return ""

    def _wait_until_greeting(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self.processes):
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                if probe.recv(512).startswith(b"220"):
                    probe.sendall(b"QUIT\r\n")
                    return
            time.sleep(0.05)
        raise PeerError(f"{self.name} does not start: {self.said() or 'no output'}")


def free_port() -> int:
    """A port on 127.0.0.1 that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_program(*names: str) -> str | None:
    """The first of these programs that is installed, on the path, in /usr/sbin or among the installed peers."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", str(INSTALLED / "bin")])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def output_of(*command: str | Path) -> str:
    """What a short command prints, both streams."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=30, check=False)
    return (done.stdout + done.stderr).strip()


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate and its key (P-256), by the openssl command."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=bench.example -days 30 "
        f"-out {certificate} -keyout {key}".split(),
        check=True,
        capture_output=True,
    )
    return certificate, key


def end_process_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that `run` started and all of its group, politely first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            if number == signal.SIGTERM:
                continue  # whatever is left of the group gets SIGKILL
    process.poll()
