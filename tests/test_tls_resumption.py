"""Sessions under TLS that go on at another worker, and not under another policy."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys

import pytest

from tests.gateway_process import PATIENCE, Gateway, wait_until
from tests.test_tls_listener import IMPLICIT, TELLS, Authority, Issued, authority, listening, pair, trusting

__all__ = ["authority"]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def of_one(version: ssl.TLSVersion, authority: Authority | None = None, client: Issued | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context() if authority is None else trusting(authority, client)
    if authority is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


class Visit:
    """One connection: at which worker, whether it resumed, what it was told to MAIL, and what the next may resume."""

    def __init__(self, gateway: Gateway, context: ssl.SSLContext, before: Visit | None = None) -> None:
        session = None if before is None else before.session
        with (
            socket.create_connection(gateway.address, PATIENCE) as clear,
            context.wrap_socket(clear, server_hostname="localhost", session=session) as client,
        ):
            client.sendall(b"EHLO client.example\r\nMAIL FROM:<>\r\n")
            with client.makefile("rb") as answers:  # and, before them, TLS 1.3's tickets
                for _ in range(3):
                    while (line := answers.readline().decode())[3:4] == "-":
                        pass
            self.answer = line
            self.resumed, self.session = client.session_reused, client.session
            self.worker = _worker_of(gateway, client)


def _worker_of(gateway: Gateway, client: socket.socket) -> int:
    ours, theirs = client.getsockname()[1], client.getpeername()[1]
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file]
    inode = next(row[9] for row in rows if row[1].endswith(f":{theirs:04X}") and row[2].endswith(f":{ours:04X}"))
    for pid in gateway.children():
        if any(_is(f"/proc/{pid}/fd/{fd}", f"socket:[{inode}]") for fd in os.listdir(f"/proc/{pid}/fd")):
            return pid
    raise AssertionError("it is nobody's")


def _is(path: str, wanted: str) -> bool:
    try:
        return os.readlink(path) == wanted
    except OSError:  # closed meanwhile
        return False


def elsewhere(gateway: Gateway, context: ssl.SSLContext, first: Visit) -> Visit:
    """The first visit of another worker by a client that comes again and again; it has resumed each time."""
    before = first
    while (visit := Visit(gateway, context, before)).worker == first.worker:
        assert visit.resumed
        before = visit
    return visit


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_session_is_resumed_at_another_worker_and_one_that_came_later(start, version):
    gateway = start(IMPLICIT, "--workers", "2")
    context = of_one(version)
    first = Visit(gateway, context)
    assert not first.resumed
    other = elsewhere(gateway, context, first)
    assert other.resumed
    assert gateway.metric("tls_resumed_total") >= 1
    os.kill(first.worker, signal.SIGKILL)
    wait_until(lambda: len(gateway.workers()) == 2 and first.worker not in gateway.workers(), "another in its place")
    assert elsewhere(gateway, context, other).resumed


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_the_keys_of_tickets_are_new_with_every_reload_and_the_handshake_is_whole_again(start, version):
    gateway = start(IMPLICIT, "--workers", "2")
    context = of_one(version)
    first = Visit(gateway, context)
    gateway.reload(IMPLICIT)
    gateway.announced(epoch=2)
    wait_until(lambda: first.worker not in gateway.children(), "the old workers gone")
    later = Visit(gateway, context, first)
    assert not later.resumed
    assert Visit(gateway, context, later).worker
    assert elsewhere(gateway, context, later).resumed


A_DAY_FOR_EACH_OCTET = """
import os, sys
from gateway.cli import main
from gateway.net import tls
renew = tls.ServerContexts.renew
def later(self, now):
    renew(self, now + tls.KEYS_LAST * os.path.getsize(sys.argv[-1]))
tls.ServerContexts.renew = later
sys.exit(main(sys.argv[4:-2]))
"""  # argv: -c, what it runs instead of, and behind its own arguments a file of so many days


def test_the_keys_of_tickets_are_forgotten_after_two_days_by_all_workers(start, tmp_path):
    days = tmp_path / "days"
    days.touch()
    days_of = ("--user", str(days))  # cut off before it is read
    gateway = start(IMPLICIT, "--workers", "2", *days_of, under=(sys.executable, "-c", A_DAY_FOR_EACH_OCTET))
    context = of_one(ssl.TLSVersion.TLSv1_3)
    first = Visit(gateway, context)
    assert Visit(gateway, context, first).resumed
    days.write_text("12")  # so that the keys of that ticket are not the last ones either
    strict: dict[int, Visit] = {}

    def both_refuse() -> bool:
        visit = Visit(gateway, context, first)
        if not visit.resumed:
            strict[visit.worker] = visit
        return len(strict) == 2

    wait_until(both_refuse, "new keys at both workers")
    later = strict[first.worker]
    assert elsewhere(gateway, context, later).resumed
    os.kill(first.worker, signal.SIGKILL)
    wait_until(lambda: len(gateway.workers()) == 2 and first.worker not in gateway.workers(), "another in its place")
    assert elsewhere(gateway, context, later).resumed


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_resumed_session_has_the_clients_certificate_still(start, authority, version):
    server, client = authority.issue("localhost"), authority.issue("client.example")
    options = f"{pair(server)}, tls_required_client_ca = '{authority.file}'"
    gateway = start(listening(f"tls_mode = 'ImplicitTls', {options}") + TELLS, "--workers", "1")
    context = of_one(version, authority, client)
    first = Visit(gateway, context)
    again = Visit(gateway, context, first)
    assert again.resumed
    assert client.fingerprint in again.answer
