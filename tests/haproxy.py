"""A real HAProxy for tests, with a configuration that the test gives."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path
from urllib.request import urlopen

from tests.gateway_process import PATIENCE
from tests.programs import program


class HAProxy:
    """address: where it listens for SMTP. status: where it answers HTTP. text: a configuration that says the same."""

    def __init__(self, folder: Path, address: tuple[str, int], status: tuple[str, int], text: str) -> None:
        self.address, self.status = address, status
        configuration = folder / "haproxy.cfg"
        configuration.write_text(text)
        self.log = folder / "haproxy.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([program("haproxy"), "-db", "-f", configuration], stderr=log, stdout=log)

    def page(self, path: str) -> str:
        """What it answers to GET path; nothing while it does not listen yet."""
        assert self.process.poll() is None, self.log.read_text()
        with (
            contextlib.suppress(OSError),
            urlopen("http://{}:{}".format(*self.status) + path, timeout=PATIENCE) as page,
        ):
            text: str = page.read().decode()
            return text
        return ""

    def talk(self, source: str, octets: bytes) -> bytes:
        """All that a client of this address reads that sends this."""
        with socket.create_connection(self.address, PATIENCE, source_address=(source, 0)) as sock:
            sock.sendall(octets)
            return b"".join(iter(lambda: sock.recv(10_000), b""))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
