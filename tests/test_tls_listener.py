"""TLS at a listener: from the first octet on, by name, with client certificates; and files that change."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import smtplib
import socket
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, Gateway, wait_until
from tests.programs import program

IMPLICIT = INIT.replace("relay_hosts = {}", "tls_mode = 'ImplicitTls', relay_hosts = { '127.0.0.1' }")


class Issued(NamedTuple):
    """A certificate and its key, in PEM files."""

    certificate: Path
    key: Path
    fingerprint: str


SIGNS_CERTIFICATES = x509.KeyUsage(False, False, False, False, False, True, True, False, False)


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
        self.certificate = self._signed(self.name, self.key.public_key(), "", ca=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, days: int = 90, file: str | None = None) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key.public_key(), name, days=days)
        paths = [self.folder / f"{file or name}.{kind}.pem" for kind in ("certificate", "key")]
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Issued(paths[0], paths[1], certificate.fingerprint(hashes.SHA256()).hex())

    def _signed(self, subject, public_key, name: str, *, days: int = 90, ca: bool = False) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if name:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        if ca:  # Python verifies strictly since 3.13 (RFC 5280 §4.2.1.3)
            builder = builder.add_extension(SIGNS_CERTIFICATES, critical=True)
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def listening(options: str) -> str:
    return INIT.replace("relay_hosts = {}", f"{options}, relay_hosts = {{ '127.0.0.1' }}")


def pair(issued: Issued) -> str:
    return f"tls_certificate = '{issued.certificate}', tls_private_key = '{issued.key}'"


def trusting(authority: Authority, client: Issued | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


def secure(gateway: Gateway, context: ssl.SSLContext | None = None, name: str = "localhost") -> ssl.SSLSocket:
    """A client that begins with TLS, before it has read anything."""
    if context is None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(gateway.connect(), server_hostname=name)


def shown(client: ssl.SSLSocket) -> str:
    """The fingerprint of the server's certificate."""
    certificate = client.getpeercert(True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def talk(client: socket.socket, *lines: str) -> list[str]:
    """The replies' last lines, the greeting's first."""
    replies = []
    with client, client.makefile("rb") as answers:
        for line in (None, *lines):
            if line is not None:
                client.sendall(line.encode() + b"\r\n")
            while (answer := answers.readline().decode().rstrip())[3:4] == "-":
                pass
            replies.append(answer)
    return replies


# --- from the first octet on ------------------------------------------------------------------------------------------


def test_a_session_under_tls_from_the_first_octet_on_is_one_and_the_policy_knows(start):
    meta = """
    kumo.on('smtp_server_ehlo', function(name, conn)
      local implicit = tostring(conn:get_meta 'tls_implicit')
      kumo.reject(550, '5.0.0 ' .. implicit .. ' ' .. conn:get_meta 'tls_protocol_version')
    end)"""
    gateway = start(IMPLICIT + meta, "--workers", "1")
    replies = talk(secure(gateway), "EHLO c.example", "QUIT")
    assert replies[0].startswith("220 gw.example ")
    assert replies[1] == "550 5.0.0 true TLSv1_3"
    assert gateway.metric('tls_handshakes_total{result="ok"}') == 1


def test_starttls_is_neither_offered_nor_taken_there_and_a_message_goes_through(start):
    gateway = start(IMPLICIT + TO_MAILDIR, "--workers", "1")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP_SSL(*gateway.address, "client.example", timeout=PATIENCE, context=context) as client:
        client.ehlo()
        assert not client.has_extn("starttls")
        assert client.docmd("STARTTLS")[0] == 503
        client.sendmail("a@out.example", ["b@far.example"], "Subject: x\r\n\r\nhello\r\n")
    (mail,) = gateway.mails()
    assert b"with ESMTPS" in mail


def test_who_speaks_in_clear_there_hears_nothing_and_is_counted(start):
    gateway = start(IMPLICIT, "--workers", "1")
    with gateway.connect() as client:
        client.sendall(b"EHLO c.example\r\n")
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(4096):
                data += more
    assert b"220" not in data and b"250" not in data
    wait_until(lambda: gateway.metric('tls_handshake_failures_total{cause="no_tls"}') == 1, "counted")
    assert gateway.metric("connections_open") == 0


def test_who_is_turned_away_hears_nothing_in_clear(start):
    gateway = start(IMPLICIT.replace("relay_hosts", "max_connections = 1, relay_hosts"), "--workers", "1")
    with secure(gateway), gateway.connect() as other:
        assert other.recv(100) == b""
    assert gateway.metric('connections_refused_total{reason="too_many_connections"}') == 1


def test_a_proxy_names_its_client_before_tls(start):
    gateway = start(
        IMPLICIT.replace(
            "relay_hosts = { '127.0.0.1' }", "proxy_protocol_from = { '127.0.0.1' }, relay_hosts = { '192.0.2.7' }"
        )
        + TO_MAILDIR,
        "--workers",
        "1",
    )
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with gateway.connect() as sock:

        def done(step):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))

        outgoing.write(b"")
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        sock.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 465\r\n" + outgoing.read())  # in one segment
        done(client.do_handshake)
        assert done(lambda: client.read(100)).startswith(b"220 ")
        client.write(b"EHLO c.example\r\n")
        assert b"PIPELINING" in done(lambda: client.read(1000))
        client.write(b"MAIL FROM:<a@out.example>\r\nRCPT TO:<b@far.example>\r\n")
        said = b""
        while said.count(b"\r\n") < 2:
            said += done(lambda: client.read(1000))
        assert b"250 2.1.5 " in said


# --- names and client certificates ------------------------------------------------------------------------------------


def test_the_certificate_is_that_of_the_name_that_is_asked_for(start, authority):
    usual, one, any_ = (
        authority.issue(name, file=file)
        for name, file in [("localhost", "l"), ("one.example", "o"), ("*.two.example", "t")]
    )
    sni = f"sni = {{ ['One.example'] = {{ {pair(one)} }}, ['*.two.example'] = {{ {pair(any_)} }} }}"
    gateway = start(listening(f"tls_mode = 'ImplicitTls', {pair(usual)}, {sni}"), "--workers", "1")
    for name, issued in [("localhost", usual), ("one.example", one), ("ONE.example", one), ("x.two.example", any_)]:
        with secure(gateway, trusting(authority), name) as client:
            assert shown(client) == issued.fingerprint
    with secure(gateway, None, "elsewhere.example") as client:
        assert shown(client) == usual.fingerprint


TELLS = """
kumo.on('smtp_server_mail_from', function(sender, conn)
  local subject = conn:get_meta 'tls_peer_subject_name'
  local fingerprint, who = tostring(conn:get_meta 'tls_peer_fingerprint'), tostring(conn:get_meta 'authz_id')
  kumo.reject(550, '5.0.0 ' .. (subject and subject[1] or 'none') .. ' ' .. fingerprint .. ' ' .. who)
end)
"""


@pytest.mark.parametrize("mode", ["ImplicitTls", "StartTls"])
def test_a_client_certificate_is_metadata_and_logs_in(start, authority, mode):
    server, client = authority.issue("localhost"), authority.issue("mx.example")
    gateway = start(
        listening(f"tls_mode = '{mode}', {pair(server)}, tls_optional_client_ca = '{authority.file}'") + TELLS,
        "--workers",
        "1",
    )

    def connected(context: ssl.SSLContext) -> socket.socket:
        if mode == "ImplicitTls":
            return secure(gateway, context)
        sock = gateway.connect()
        replies = sock.makefile("rb")
        for line in (b"", b"EHLO c.example\r\n", b"STARTTLS\r\n"):
            sock.sendall(line)
            while replies.readline()[3:4] == b"-":
                pass
        replies.close()
        wrapped = context.wrap_socket(sock, server_hostname="localhost")
        wrapped.sendall(b"NOOP\r\n")
        return wrapped

    with_one = talk(
        connected(trusting(authority, client)),
        "EHLO c.example",
        "MAIL FROM:<>",
        "AUTH EXTERNAL =",
        "MAIL FROM:<>",
        "QUIT",
    )
    assert with_one[1] == "250 AUTH EXTERNAL"
    assert with_one[2] == f"550 5.0.0 CN=mx.example {client.fingerprint} nil"
    assert with_one[3] == "235 2.7.0 Authenticated"
    assert with_one[4].endswith(" mx.example")
    without = talk(connected(trusting(authority)), "EHLO c.example", "MAIL FROM:<>", "AUTH EXTERNAL =", "QUIT")
    assert without[2:4] == ["550 5.0.0 none nil nil", "502 5.5.1 Command not implemented"]
    wait_until(lambda: len(gateway.records()) >= 4, "records")
    subjects = {tuple(record.get("tls_peer_subject_name") or ()) for record in gateway.records()}
    assert subjects == {("CN=mx.example",), ()}


def test_without_the_certificate_that_is_required_there_is_no_session(start, authority, tmp_path):
    server, client = authority.issue("localhost"), authority.issue("mx.example")
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").issue("mx.example")
    gateway = start(
        listening(f"tls_mode = 'ImplicitTls', {pair(server)}, tls_required_client_ca = '{authority.file}'"),
        "--workers",
        "1",
    )
    assert talk(secure(gateway, trusting(authority, client)), "QUIT")[0].startswith("220 ")
    for wrong in (None, stranger):
        with pytest.raises((ssl.SSLError, ConnectionResetError, AssertionError)):
            client_socket = secure(gateway, trusting(authority, wrong))
            assert talk(client_socket)[0]
    wait_until(lambda: gateway.metric('tls_handshakes_total{result="failed"}') == 2, "counted")


def test_versions_and_ciphers_are_the_listeners(start, authority):
    server = authority.issue("localhost")
    gateway = start(
        listening(f"tls_mode = 'ImplicitTls', {pair(server)}, tls_minimum_version = 'TLSv1_3'"), "--workers", "1"
    )
    old = trusting(authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        secure(gateway, old).close()
    gateway.reload(
        listening(f"tls_mode = 'ImplicitTls', {pair(server)}, tls_ciphers = 'ECDHE-ECDSA-AES256-GCM-SHA384'")
    )
    gateway.announced(epoch=2)
    with secure(gateway, old) as client:
        assert client.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


# --- files that change ------------------------------------------------------------------------------------------------


def test_certificates_are_loaded_again_when_both_files_have_changed_and_sessions_go_on(start, authority, tmp_path):
    first = authority.issue("localhost")
    gateway = start(listening(f"tls_mode = 'ImplicitTls', {pair(first)}"), "--workers", "1")
    (tmp_path / "new").mkdir()
    second = Authority(tmp_path / "new").issue("localhost")
    with secure(gateway) as before:
        assert shown(before) == first.fingerprint
        assert before.recv(100).startswith(b"220 ")
        shutil.copy(second.certificate, first.certificate)
        wait_until(lambda: "the key is of another certificate" in gateway.diagnostics(), "half a pair noticed")
        with secure(gateway) as meanwhile:
            assert shown(meanwhile) == first.fingerprint
        shutil.copy(second.key, first.key)
        gateway.announced(epoch=2)

        def renewed() -> bool:
            with secure(gateway) as client:
                return shown(client) == second.fingerprint

        wait_until(renewed, "the new certificate")
        before.sendall(b"NOOP\r\n")
        assert before.recv(100)[:4] in (b"250 ", b"421 ")


def test_what_expires_soon_is_told_and_a_metric(start, authority):
    soon = authority.issue("localhost", days=20)
    gateway = start(listening(f"tls_mode = 'ImplicitTls', {pair(soon)}"), "--workers", "1")
    gateway.announced()
    wait_until(lambda: f"{soon.certificate}: the certificate expires in 19 days" in gateway.diagnostics(), "told")
    in_days = (
        gateway.metric('tls_certificate_expiry_timestamp_seconds{worker="0"}') - datetime.datetime.now().timestamp()
    ) / 86400
    assert 19 < in_days < 20


# --- real clients -----------------------------------------------------------------------------------------------------


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2, check=False)


def test_swaks_curl_and_openssl_send_under_implicit_tls(start, authority, tmp_path):
    server = authority.issue("localhost")
    gateway = start(listening(f"tls_mode = 'ImplicitTls', {pair(server)}") + TO_MAILDIR, "--workers", "1")
    host, port = gateway.address
    swaks = run(
        program("swaks"), "--server", f"{host}:{port}", "--tls-on-connect", "--helo", "c.example",
        "--from", "a@out.example",
        "--to", "b@far.example",
    )  # fmt: skip
    assert swaks.returncode == 0, swaks.stdout
    mail = tmp_path / "mail"
    mail.write_bytes(b"Subject: from curl\r\n\r\nhello\r\n")
    curl = run(
        program("curl"), "--silent", "--show-error", "--url", f"smtps://{host}:{port}/client.example", "--insecure",
        "--mail-from", "a@out.example", "--mail-rcpt", "b@far.example", "--upload-file", mail,
    )  # fmt: skip
    assert curl.returncode == 0, curl.stderr
    openssl = subprocess.run(
        [program("openssl"), "s_client", "-connect", f"{host}:{port}", "-quiet", "-CAfile", authority.file],
        input="EHLO c.example\nQUIT\n".replace("\n", "\r\n"),
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert "ENHANCEDSTATUSCODES" in openssl.stdout, openssl.stderr
    assert len(gateway.mails()) == 2


def test_msmtp_sends_under_implicit_tls_with_login(start, authority):
    server = authority.issue("localhost")
    policy = """
    kumo.on('smtp_server_auth_plain', function(authz, authc, password)
      return authc == 'scott' and password == 'tiger'
    end)"""
    gateway = start(listening(f"tls_mode = 'ImplicitTls', {pair(server)}") + policy + TO_MAILDIR, "--workers", "1")
    for method, password, code in (("login", "tiger", 0), ("plain", "tiger", 0), ("login", "lion", 77)):
        sent = subprocess.run(
            [program("msmtp"), "--host=localhost", f"--port={gateway.address[1]}", "--tls=on", "--tls-starttls=off",
             f"--tls-trust-file={authority.file}", f"--auth={method}", "--user=scott",
             f"--passwordeval=echo {password}", "--from=a@out.example", "b@far.example"],
            input="Subject: x\n\nhello\n", capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert sent.returncode == code, sent.stderr
    assert len(gateway.mails()) == 2
