"""Programs that send mail, which we did not write, in clear and under STARTTLS with AUTH: nodemailer; with CLIENTS=all
(make clients) msmtp, curl and Go's net/smtp, and Postfix, Exim and OpenSMTPD with the gateway as their smart host.

A test whose program is not installed is skipped and says so. The gateway lets nobody relay who has not authenticated,
but for the clients in clear, which come from an address that may.
"""

from __future__ import annotations

import os
import smtplib
import subprocess
from pathlib import Path

import pytest
from relay_gateway_bench.peers.base import Knobs, Peer
from relay_gateway_bench.peers.configured import Exim, OpenSMTPD, PostfixQueue

from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, Gateway, wait_until
from tests.programs import program
from tests.test_real_clients import AUTHENTICATED, PASSWORDS
from tests.test_tls_listener import Authority, authority, pair

__all__ = ["authority"]
AT_LENGTH = pytest.mark.skipif(os.environ.get("CLIENTS") != "all", reason="make clients: it takes seconds")
CONTENT = "Subject: from a program\r\n\r\n.a dot\r\n..two\r\nthe end\r\n"


def begun(start, authority: Authority, *, ours: bool = False) -> Gateway:
    options = pair(authority.issue("localhost")) + ", relay_hosts = " + ("{ '127.0.0.1' }" if ours else "{}")
    policy = INIT.replace("relay_hosts = {}", options) + PASSWORDS + AUTHENTICATED + TO_MAILDIR
    return start(policy, "--workers", "1")


def run(*command: str | Path, said: str = "", **environment: str) -> None:
    done = subprocess.run(
        command, input=said, capture_output=True, text=True, timeout=PATIENCE * 4, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def arrived(gateway: Gateway, *, tls: bool) -> None:
    """One message, unaltered, and by whom and over what it came."""
    wait_until(lambda: any(record["type"] == "Reception" for record in gateway.records()), gateway.diagnostics)
    (stored,) = gateway.mails()
    assert stored.replace(b"\r\n", b"\n").endswith(b"\n.a dot\n..two\nthe end\n")
    assert (b"SMTPSA (" in stored) == tls  # ESMTPSA, or UTF8SMTPSA where it says SMTPUTF8, as Go does
    assert gateway.metric('auth_total{result="accepted"}') == (1 if tls else 0)


BOTH = pytest.mark.parametrize("tls", [False, True], ids=["in clear", "STARTTLS"])


@AT_LENGTH
@BOTH
def test_msmtp_sends(start, authority, tls):
    gateway = begun(start, authority, ours=not tls)
    secure = ["--tls=on", f"--tls-trust-file={authority.file}", "--auth=plain", "--user=scott"]
    run(
        program("msmtp"), "--host=localhost", f"--port={gateway.address[1]}", "--from=a@out.example",
        *([*secure, "--passwordeval=echo tiger"] if tls else ["--tls=off", "--auth=off"]), "b@far.example",
        said=CONTENT,
    )  # fmt: skip
    arrived(gateway, tls=tls)


@AT_LENGTH
@BOTH
def test_curl_sends(start, authority, tmp_path, tls):
    gateway = begun(start, authority, ours=not tls)
    mail = tmp_path / "mail"
    mail.write_bytes(CONTENT.encode())
    secure = ["--ssl-reqd", "--cacert", authority.file, "--user", "scott:tiger"]
    run(
        program("curl"), "--silent", "--show-error", "--url", f"smtp://localhost:{gateway.address[1]}/client.example",
        *(secure if tls else []), "--mail-from", "a@out.example", "--mail-rcpt", "b@far.example",
        "--upload-file", mail,
    )  # fmt: skip
    arrived(gateway, tls=tls)


NODEMAILER = """
const { PORT, TLS, CA, CONTENT } = process.env;
const ca = require('fs').readFileSync(CA);
const secure = { requireTLS: true, auth: { user: 'scott', pass: 'tiger' }, tls: { ca } };
require('nodemailer')
  .createTransport({ host: 'localhost', port: +PORT, ...(TLS ? secure : { ignoreTLS: true }) })
  .sendMail({ envelope: { from: 'a@out.example', to: 'b@far.example' }, raw: CONTENT })
  .catch((error) => { console.error(error); process.exit(1); });
"""


@BOTH
def test_nodemailer_sends(start, authority, tls):
    node = program("node")
    gateway = begun(start, authority, ours=not tls)
    run(
        node, "-", said=NODEMAILER, NODE_PATH="/usr/share/nodejs", PORT=str(gateway.address[1]),
        TLS="1" if tls else "", CA=str(authority.file), CONTENT=CONTENT,
    )  # fmt: skip
    arrived(gateway, tls=tls)


GO = """
package main

import ("crypto/tls"; "crypto/x509"; "net/smtp"; "os")

func must(err error) { if err != nil { panic(err) } }

func main() {
    client, err := smtp.Dial("localhost:" + os.Getenv("PORT"))
    must(err)
    if os.Getenv("TLS") != "" {
        pem, err := os.ReadFile(os.Getenv("CA"))
        must(err)
        roots := x509.NewCertPool()
        roots.AppendCertsFromPEM(pem)
        must(client.StartTLS(&tls.Config{RootCAs: roots, ServerName: "localhost"}))
        must(client.Auth(smtp.PlainAuth("", "scott", "tiger", "localhost")))
    }
    must(client.Mail("a@out.example"))
    must(client.Rcpt("b@far.example"))
    writer, err := client.Data()
    must(err)
    _, err = writer.Write([]byte(os.Getenv("CONTENT")))
    must(err)
    must(writer.Close())
    must(client.Quit())
}
"""


@AT_LENGTH
@BOTH
def test_gos_net_smtp_sends(start, authority, tmp_path, tls):
    go = program("go")
    gateway = begun(start, authority, ours=not tls)
    source = tmp_path / "send.go"
    source.write_text(GO)
    run(go, "run", source, PORT=str(gateway.address[1]), TLS="1" if tls else "", CA=str(authority.file),
        CONTENT=CONTENT)  # fmt: skip
    arrived(gateway, tls=tls)


# --- servers, with the gateway as their smart host --------------------------------------------------------------------

SECURE_POSTFIX = """
smtp_tls_security_level = verify
smtp_tls_verify_cert_match = localhost
smtp_tls_secure_cert_match = localhost
smtp_tls_CAfile = {ca}
smtp_sasl_auth_enable = yes
smtp_sasl_mechanism_filter = plain
smtp_sasl_security_options = noanonymous
smtp_sasl_password_maps = inline:{{ {{[127.0.0.1]:{port} = scott:tiger}} }}
"""
SECURE_EXIM = """  port = {port}
  tls_verify_certificates = {ca}
  tls_verify_cert_hostnames = :
  hosts_require_tls = *
  hosts_require_auth = *

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^scott^tiger
"""


def _with_tls(kind: type[Peer], ca: Path, tls: bool) -> type[Peer]:
    """A server that sends as it is told here, and otherwise as the bench has it."""

    class Sending(kind):  # type: ignore[misc, valid-type]
        def configure(self, template: str, to: str | None = None, **values: object) -> Path:
            path: Path = super().configure(template, to, **values)
            text, port = path.read_text(), self.knobs.upstream
            if path.name == "exim.conf":
                text = text.replace("          control = cutthrough_delivery\n", "")
                if tls:
                    text = text.replace(f"  port = {port}\n", SECURE_EXIM.format(port=port, ca=self.home / "ca.pem"))
                    text = text.replace("  hosts_avoid_tls = *\n", "")
                    text = text.replace("  allow_localhost\n", "")
                    text = text.replace("  driver = smtp\n", "  driver = smtp\n  allow_localhost\n")
            elif path.name == "main.cf" and tls:
                text = text.replace("smtp_tls_security_level = none\n", "")
                text += SECURE_POSTFIX.format(ca=ca, port=port)
            elif path.name == "smtpd.conf" and tls:
                relay = f"host smtp+tls://gw@127.0.0.1:{port} auth <secrets> tls no-verify"
                text = text.replace(f"host smtp://127.0.0.1:{port}", relay)
                text = f'table secrets {{ gw = "scott:tiger" }}\n{text}'
            (self.home / "ca.pem").write_bytes(ca.read_bytes())
            path.write_text(text)
            return path

    return Sending


@AT_LENGTH
@BOTH
@pytest.mark.parametrize("kind", [PostfixQueue, Exim, OpenSMTPD], ids=lambda kind: kind.name)
def test_a_server_sends_through_the_gateway(start, authority, kind, tls):
    if tls and kind is PostfixQueue and not list(Path("/usr/lib").glob("*/sasl2/libplain.so*")):
        pytest.skip("NOT CHECKED: Postfix is here without SASL's PLAIN (Debian: libsasl2-modules)")
    gateway = begun(start, authority, ours=not tls)
    peer = _with_tls(kind, authority.file, tls)(Knobs(upstream=gateway.address[1]))
    if (why := peer.missing()) is not None:
        pytest.skip(f"NOT CHECKED: {why}")
    with peer:
        with smtplib.SMTP("127.0.0.1", peer.port, "client.example", PATIENCE) as client:
            client.sendmail("a@out.example", "b@far.example", CONTENT)
        output = peer.home / "output"
        wait_until(
            lambda: gateway.metric('messages_total{disposition="relayed"}') >= 1,
            lambda: (
                gateway.diagnostics()
                + str(gateway.records())
                + (output.read_text() if output.exists() else "")
                + "".join(path.read_text() for path in peer.home.glob("*log*") if path.is_file())
            ),
        )
        arrived(gateway, tls=tls)
