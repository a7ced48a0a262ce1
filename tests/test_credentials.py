"""No credential that a client ever sends is found anywhere afterwards: one gateway is told the same secret in every way
that AUTH and its mistakes have, and then all that it wrote, shows and leaves behind is searched, for the secret as it
is and in base64, whatever stood before it; and for the private key of the listener.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.cli import main
from tests.gateway_process import PATIENCE, TO_UPSTREAMS, Gateway, wait_until
from tests.ports import free_port
from tests.test_tls_listener import Authority, trusting
from tests.test_trace_command import Trace

SECRET = b"Zq8vKx7Wm3TtRr5PNn2Lc"
POLICY = (
    """
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.0.0.2' }, allow_xclient = false,
    invalid_line_endings = 'Allow', line_length_hard_limit = 998,
    tls_certificate = 'KEYS/gw.example.certificate.pem', tls_private_key = 'KEYS/gw.example.key.pem',
    tls_optional_client_ca = 'KEYS/ca.pem',
  }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)
kumo.on('smtp_server_auth_plain', function(authz, authc, password, conn)
  if authc == 'broken' then
    error('the directory is away')
  end
  return authc == 'scott'
end)
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { smtp_auth_plain_username = 'gw', smtp_auth_plain_password = { key_data = '"""
    + SECRET.decode()
    + """' }, enable_tls = 'Disabled' }
end)
"""
    + TO_UPSTREAMS
)


def encoded(text: bytes) -> bytes:
    return b64encode(text)


PLAIN, BROKEN, WRONG = (encoded(b"\0" + who + b"\0" + SECRET) for who in (b"scott", b"broken", b"eve"))
ALONE = encoded(SECRET)
EHLO = b"EHLO client.example\r\n"
SAID: dict[str, bytes] = {
    "PLAIN": EHLO + b"AUTH PLAIN " + PLAIN,
    "PLAIN in two steps": EHLO + b"AUTH PLAIN\r\n" + PLAIN,
    "PLAIN, wrong": EHLO + b"AUTH PLAIN " + WRONG,
    "PLAIN, in vain": EHLO + b"AUTH PLAIN " + BROKEN,
    "PLAIN, with authzid": EHLO + b"AUTH PLAIN " + encoded(SECRET + b"\0scott\0" + SECRET),
    "PLAIN, no field": EHLO + b"AUTH PLAIN " + ALONE,
    "PLAIN, too many fields": EHLO + b"AUTH PLAIN " + encoded(b"\0".join([SECRET] * 5)),
    "PLAIN, as it is": EHLO + b"AUTH PLAIN \0scott\0" + SECRET,
    "LOGIN": EHLO + b"AUTH LOGIN\r\n" + encoded(b"scott") + b"\r\n" + ALONE,
    "LOGIN at once": EHLO + b"AUTH LOGIN " + encoded(b"eve") + b"\r\n" + ALONE,
    "LOGIN, exchanged": EHLO + b"AUTH LOGIN " + ALONE + b"\r\n" + encoded(b"scott"),
    "LOGIN, as it is": EHLO + b"AUTH LOGIN\r\nscott\r\n" + SECRET,
    "LOGIN, given up": EHLO + b"AUTH LOGIN\r\n*\r\n" + ALONE,
    "EXTERNAL": EHLO + b"AUTH EXTERNAL " + ALONE,
    "EXTERNAL, as the certificate says": EHLO + b"AUTH EXTERNAL =\r\nAUTH EXTERNAL " + ALONE,
    "unknown mechanism": EHLO + b"AUTH CRAM-MD5 " + ALONE,
    "mechanism forgotten": EHLO + b"AUTH " + ALONE,
    "bad base64": EHLO + b"AUTH PLAIN " + PLAIN + b"!=\r\n",
    "bad base64, later": EHLO + b"AUTH PLAIN\r\n=" + PLAIN,
    "more arguments": EHLO + b"AUTH PLAIN " + PLAIN + b" " + ALONE,
    "before EHLO": b"AUTH PLAIN " + PLAIN,
    "after HELO": b"HELO client.example\r\nAUTH PLAIN " + PLAIN,
    "in a transaction": EHLO + b"MAIL FROM:<a@b.example>\r\nAUTH PLAIN " + PLAIN,
    "twice": EHLO + b"AUTH PLAIN " + PLAIN + b"\r\nAUTH PLAIN " + PLAIN,
    "small letters": EHLO + b"auth plain " + PLAIN,
    "too many spaces": EHLO + b"  AUTH  PLAIN  " + PLAIN,
    "a tab": EHLO + b"AUTH\tPLAIN\t" + PLAIN,
    "one word": EHLO + b"AUTHPLAIN " + PLAIN,
    "a word too early": EHLO + b"XAUTH PLAIN " + PLAIN,
    "no command": EHLO + ALONE,
    "no command, as it is": EHLO + SECRET + b"\r\n" + PLAIN,
    "behind a bare LF": EHLO + b"NOOP\nAUTH PLAIN " + PLAIN,
    "with NULs": EHLO + b"AUTH PLAIN " + PLAIN + b"\0" + SECRET,
    "too long": EHLO + b"AUTH PLAIN " + encoded(b"\0scott\0" + SECRET * 900),
    "too long, later": EHLO + b"AUTH PLAIN\r\n" + encoded(b"\0scott\0" + SECRET * 900),
    "too long a command": EHLO + SECRET * 900,
    "XCLIENT": EHLO + b"XCLIENT LOGIN=" + SECRET,
    "pipelined": EHLO + b"AUTH PLAIN " + WRONG + b"\r\nAUTH PLAIN " + WRONG + b"\r\nMAIL FROM:<>\r\n" + ALONE,
    "cut short": EHLO + b"AUTH PLAIN " + PLAIN[:-3],
}
CUT = 7  # octets of a packet, where they come in many


def needles() -> list[re.Pattern[bytes]]:
    """The secret as it is, in hexadecimal digits, and in base64 behind any number of octets, of which the outermost
    characters depend on the neighbours."""
    found = [re.escape(SECRET), re.escape(SECRET.hex().encode())]
    for before in range(3):
        whole = b64encode(b"x" * before + SECRET)
        found.append(re.escape(whole[4 if before else 0 : len(whole) // 4 * 4 - 4]))
    return [re.compile(each, re.IGNORECASE) for each in found]


NEEDLES = needles()


def key_needles(file: Path) -> list[re.Pattern[bytes]]:
    """A private key as numbers, and its PEM line by line."""
    lines = file.read_bytes().splitlines()[1:-1]
    number = load_pem_private_key(file.read_bytes(), None).private_numbers().private_value  # type: ignore[union-attr]
    found = [number.to_bytes(32), number.to_bytes(32).hex().encode(), str(number).encode(), *lines]
    return [re.compile(re.escape(each), re.IGNORECASE) for each in found]


def holds_secret(octets: bytes, needles: Sequence[re.Pattern[bytes]] = NEEDLES) -> bool:
    without_escapes = octets.replace(b"\\", b"")
    return any(each.search(octets) or each.search(without_escapes) for each in needles)


@pytest.mark.parametrize("said", [SAID["PLAIN"], SAID["PLAIN, with authzid"], ALONE, SECRET, b"xy" + SECRET])
def test_the_search_finds_what_it_looks_for(said):
    assert holds_secret(b"..." + said)
    assert holds_secret(b"..." + b64encode(b"z" + said if b"\0" in said else b"zz" + SECRET))


def connections(gateway: Gateway, stack: ExitStack, context: ssl.SSLContext, tls: bool) -> Iterator[socket.socket]:
    """Each from another address, so that nobody has to wait for what another one did."""
    for number in count(1):
        source = (f"127.0.{2 + tls}.{number}", 0)
        client: socket.socket = socket.create_connection(gateway.address, PATIENCE, source_address=source)
        stack.enter_context(client)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        greeting = client.recv(1000)
        assert greeting.startswith(b"220"), greeting
        if tls:
            client.sendall(EHLO + b"STARTTLS\r\n")
            answers = b""
            while b"220 " not in answers:
                answers += client.recv(1000)
            client = stack.enter_context(context.wrap_socket(client))
        yield client


def say_all(gateway: Gateway, context: ssl.SSLContext) -> None:
    """Everything, in clear and under TLS, in one packet and in many."""
    with ExitStack() as stack:
        asked = []
        for tls in (False, True):
            clients = connections(gateway, stack, context, tls)
            for octets in SAID.values():
                client = next(clients)
                whole = octets + b"\r\nQUIT\r\nQUIT\r\n"  # one may be taken for what AUTH waits for
                cut = CUT if len(whole) < 200 and not tls else len(whole)
                with suppress(ConnectionError):
                    for start in range(0, len(whole), cut):
                        client.sendall(whole[start : start + cut])
                asked.append(client)
        for client in asked:
            replies = b""
            with suppress(ConnectionError):  # where it was sent away in the middle of what it said
                while data := client.recv(65536):
                    replies += data
            assert not holds_secret(replies), replies


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name, octets); of compressed ones what is inside, too."""
    for path in folder.rglob("*"):
        yield str(path), str(path).encode()
        if path.is_file():
            octets = path.read_bytes()
            yield str(path), octets
            if path.suffix == ".zst" or octets.startswith(b"\x28\xb5\x2f\xfd"):
                yield f"{path}, unpacked", zstandard.ZstdDecompressor().decompressobj().decompress(octets)


def printed(gateway: Gateway, spool: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, bytes]:
    """What the commands say that look into a running gateway, its policy and its files."""
    found: dict[str, bytes] = {}

    def say(*command: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(command) == code, (command, capsys.readouterr())
        told = capsys.readouterr()
        found[" ".join(command)] = (told.out + told.err).encode()
        return told.out

    admin = ("--admin", f"http://{gateway.announced()['http'][0]}")
    question = ("--from", "a@out.example", "--to", "b@far.example", "--auth", "scott", "--peer", "192.0.2.9")
    for as_json in ((), ("--json",)):
        say("explain", "--live", *admin, *question, *as_json)
        say("explain", "--policy", str(gateway.policy_file), *question, *as_json)
        say("check", str(gateway.policy_file), *as_json, code=1)  # what is broken
        say("status", *admin, *as_json)
        say("trace", "--recent", *admin, *as_json)
        say("logs", str(gateway.logs), *as_json)
    say("limits", "--control", str(gateway.folder / "control"))
    say("fleet", "--control", str(gateway.folder / "control"))
    (waiting,) = say("spool", "list", str(spool), "--json").splitlines()
    message = say("spool", "show", str(spool), json.loads(waiting)["id"], "--content")
    (folder / "message").write_text(message)
    say("report", "--why", str(folder / "message"))
    return found


def test_a_credential_is_nowhere_once_it_was_said(start, tmp_path, monkeypatch, capsys):
    spool, aside, keys = (tmp_path / name for name in ("spool", "aside", "keys"))
    aside.mkdir()
    keys.mkdir()
    authority = Authority(keys)
    key = key_needles(authority.issue("gw.example").key)
    context = trusting(authority, authority.issue("scott"))
    context.check_hostname = False
    monkeypatch.setenv("TMPDIR", str(aside))
    upstreams = [f"127.0.0.1:{free_port()}"]
    policy = POLICY.replace("KEYS", str(keys))
    gateway = start(policy, "--workers", "1", "--spool", str(spool), "--control", "control", upstreams=upstreams)
    with gateway.smtp("127.0.0.2") as session:
        session.sendmail("a@out.example", "b@far.example", "Subject: one\n\n")
    trace = Trace(gateway, workers=1)
    say_all(gateway, context)
    wait_until(lambda: "QUIT" in trace.text(), "the trace")
    (worker,) = gateway.workers()
    shown = {
        path: gateway.get(path)[1].encode() for path in ("/", "/status", "/status/refused", "/metrics", "/trace/recent")
    }
    shown |= printed(gateway, spool, aside, capsys)
    trace.process.send_signal(signal.SIGINT)
    trace.process.wait(PATIENCE)
    os.kill(worker, signal.SIGABRT)  # as the supervisor does it; it leaves what it was at
    wait_until(lambda: worker not in gateway.children(), "its end")
    assert gateway.stop() == 0
    records = gateway.records()
    assert len({record["peer_address"]["addr"] for record in records if record["type"] == "Rejection"}) > len(SAID)
    shown["records"] = str(records).encode()
    gateway.policy_file.unlink()  # which has its own, for the fleet
    assert {path.name for path in keys.iterdir() if holds_secret(path.read_bytes(), key)} == {"gw.example.key.pem"}
    shutil.rmtree(keys)
    places = [*shown.items(), *files_below(tmp_path)]
    assert {name for name, octets in places if holds_secret(octets) or holds_secret(octets, key)} == set()
    searched = " ".join(name for name, _ in places)
    assert all(each in searched for each in ("log", "/spool/", "/logs/", "trace-0")), searched
