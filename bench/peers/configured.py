"""Peers with configuration files (in conf/): Postfix, Exim, OpenSMTPD, Haraka."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from .base import INSTALLED, SETUP, Peer, find_program, make_certificate, output_of

_ROOT = "needs root (it changes users while it works), which this is not"


class PostfixProxy(Peer):
    """Postfix as a before-queue proxy: smtpd talks to the sink while the client waits (smtpd_proxy_filter)."""

    name = "postfix-proxy"
    warm_up = 1.5  # its processes start on demand

    def missing(self) -> str | None:
        if not find_program("postfix"):
            return "Postfix is not installed: apt-get install postfix"
        return None if os.getuid() == 0 else f"Postfix {_ROOT}"

    def version(self) -> str:
        return f"Postfix {output_of(self._program('postconf'), '-dh', 'mail_version')}"

    def start(self) -> None:
        for directory in ("spool", "data"):
            (self.home / directory).mkdir()
        shutil.chown(self.home / "data", "postfix")
        self.configure("postfix-main.cf", "main.cf")
        proxy_filter = "" if self.queues else f"127.0.0.1:{self.knobs.upstream}"
        self.configure("postfix-master.cf", "master.cf", proxy_filter=proxy_filter)
        if self.knobs.tls:
            certificate, key = make_certificate(self.home)
            with open(self.home / "main.cf", "a") as main:
                main.write(f"smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {key}, {certificate}\n")
        done = subprocess.run(
            [self._program("postfix"), "-c", self.home, "start"], capture_output=True, text=True, check=False
        )
        (self.home / "output").write_text(done.stdout + done.stderr)

    def stop(self) -> None:
        master = self.pids()
        subprocess.run([self._program("postfix"), "-c", self.home, "abort"], capture_output=True, check=False)
        deadline = time.monotonic() + 10
        while master and Path(f"/proc/{master[0]}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    def pids(self) -> list[int]:
        file = self.home / "spool" / "pid" / "master.pid"
        return [int(file.read_text())] if file.exists() else []

    @staticmethod
    def _program(name: str) -> str:
        return find_program(name) or name


class PostfixQueue(PostfixProxy):
    """Postfix as most run it: 250 when the message is in the queue, delivery to the sink after that."""

    name = "postfix-queue"
    queues = True


class _InPrivateRoot(Peer):
    """A peer whose package cannot be installed beside Postfix: it runs in a private copy-on-write view of the system.

    The packages were only downloaded (setup-peers.sh); private-root.sh unpacks them there, in namespaces of their own.
    """

    packages: tuple[str, ...] = ()
    users: tuple[str, ...] = ()

    def _archives(self) -> list[Path]:
        return [path for name in self.packages for path in sorted(INSTALLED.glob(f"debs/{name}_*.deb"))]

    def missing(self) -> str | None:
        if len(self._archives()) < len(self.packages):
            return f"package {self.packages[0]} was not downloaded: run {SETUP} (Debian and the like)"
        if os.getuid() != 0:
            return f"{self.packages[0]} {_ROOT}"
        return None if shutil.which("unshare") else "unshare is not installed: apt-get install util-linux"

    def version(self) -> str:
        return self._archives()[0].stem.replace("_", " ")

    def _run_inside(self, *command: str | Path) -> None:
        script = Path(__file__).parent / "private-root.sh"
        isolation = ("--mount", "--pid", "--fork", "--kill-child")
        archives = " ".join(str(path) for path in self._archives())
        self.run(
            *("unshare", *isolation, "sh", script, self.home, *command), PACKAGES=archives, USERS=" ".join(self.users)
        )

    def stop(self) -> None:
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)  # with --kill-child the whole process namespace goes


class Exim(_InPrivateRoot):
    """Exim with cut-through delivery: it talks to the sink while the client waits."""

    name = "exim"
    packages = ("exim4-daemon-light", "exim4-base", "libidn12")
    users = ("Debian-exim",)

    def start(self) -> None:
        self.home.chmod(0o777)  # spool and logs belong to a user that only exists inside
        self.configure("exim.conf")
        self._run_inside("exim4", "-C", self.home / "exim.conf", "-bdf", "-q1h")


class OpenSMTPD(_InPrivateRoot):
    """OpenSMTPD: with its queue, as it has no other way."""

    name = "opensmtpd"
    packages = ("opensmtpd",)
    users = ("opensmtpd", "opensmtpq")
    queues = True

    def start(self) -> None:
        self.configure("smtpd.conf")
        self._run_inside("smtpd", "-d", "-f", self.home / "smtpd.conf")


class Haraka(Peer):
    """Haraka with smtp_forward: it talks to the sink while the client waits."""

    name = "haraka"
    warm_up = 4.0  # V8 compiles what it has seen often
    conf = ("smtp.ini", "smtp_forward.ini", "plugins", "host_list", "me", "log.ini")

    def missing(self) -> str | None:
        if not find_program("node"):
            return "Node.js is not installed: apt-get install nodejs npm"
        return None if self._program().exists() else f"Haraka is not installed: run {SETUP}"

    def version(self) -> str:
        return output_of("node", "-p", f"'Haraka ' + require('{self._module()}/package.json').version")

    def start(self) -> None:
        shutil.copytree(self._module() / "config", self.home / "config")
        for file in self.conf:
            self.configure(f"haraka-{file}", f"config/{file}")
        (self.home / "queue").mkdir()
        self.run("node", self._program(), "-c", self.home)

    def _module(self) -> Path:
        return INSTALLED / "node_modules" / "Haraka"

    def _program(self) -> Path:
        return self._module() / "bin" / "haraka"
