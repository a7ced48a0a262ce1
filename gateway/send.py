"""`relay-gateway send`: sends a message to an SMTP server, and shows what was said; to try a gateway out.

For people at a terminal. What load is made with is bench/'s.
"""

from __future__ import annotations

import argparse
import smtplib
import ssl
import sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from gateway.terminal import printable

TIMEOUT = 30.0  # seconds
_PORT = 25

DESCRIPTION = """\
Send a message to an SMTP server and show the dialogue. Exits 1 where the server refuses anything, 2 where it cannot be
reached.
"""
EPILOG = """\
examples:
  relay-gateway send 127.0.0.1:2525 --to you@example.com
  relay-gateway send gw.example --from me@a.example --to b@c.example --to d@e.example --file letter.eml --tls --count 10
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the subcommand."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("server", metavar="HOST[:PORT]", type=_server, help="where to; port 25 unless given")
    parser.add_argument("--from", dest="sender", metavar="ADDRESS", default="me@sender.example",
                        help="the envelope's sender, '' for none (default: %(default)s)")  # fmt: skip
    parser.add_argument("--to", metavar="ADDRESS", action="append", required=True, help="a recipient (may be repeated)")
    parser.add_argument("--subject", default="a first message", help="of the letter that is made (%(default)s)")
    parser.add_argument("--file", metavar="FILE", help="send this instead; - is standard input")
    parser.add_argument("--ehlo", metavar="NAME", default="client.example", help="the client's name (%(default)s)")
    parser.add_argument("--tls", action="store_true", help="STARTTLS, whatever certificate the server has")
    parser.add_argument("--count", metavar="N", type=_count, default=1, help="so many, over one connection (1)")
    parser.add_argument("--quiet", action="store_true", help="show only the replies to messages")


class NotTaken(Exception):
    """The server refused something; all has been shown."""


class Sender(smtplib.SMTP):
    """Shows what is said on standard output."""

    def __init__(self, ehlo: str, quiet: bool) -> None:
        self._quiet = quiet
        super().__init__(local_hostname=ehlo, timeout=TIMEOUT)

    def said(self, command: str, *, always: bool = False) -> None:
        """Says a command, and raises NotTaken for a reply 4xx or 5xx."""
        self.show(f"> {command}", always=False)
        code, text = self.docmd(command)
        self.heard(code, text, always=always)

    def heard(self, code: int, text: bytes, *, always: bool = False) -> None:
        """Shows a reply. Raises NotTaken."""
        for line in text.decode("utf-8", "replace").split("\n"):
            self.show(f"< {code} {line}", always=always or code >= 400)
        if code >= 400 or code < 0:
            raise NotTaken

    def show(self, line: str, *, always: bool) -> None:
        """A line; always: though --quiet."""
        if always or not self._quiet:
            print(printable(line), flush=True)

    def content(self, octets: bytes, number: int) -> None:
        """What follows DATA."""
        self.show(f"> … {len(octets)} octets", always=False)
        lines = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines.split(b"\r\n"))
        self.send(stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n")
        self.send(b".\r\n")
        self.heard(*self.getreply(), always=True)


def run(args: argparse.Namespace) -> int:
    """Sends; returns the exit code."""
    try:
        content = None if args.file is None else _read(args.file)
    except OSError as error:
        print(f"relay-gateway send: {args.file}: {error.strerror}", file=sys.stderr)
        return 2
    host, port = args.server
    client = Sender(args.ehlo, args.quiet)
    try:
        client.heard(*client.connect(host, port))
        client.said(f"EHLO {args.ehlo}")
        if args.tls:
            _start_tls(client, host, args.ehlo)
        for number in range(args.count):
            _send_one(client, args, content, number)
        client.said("QUIT")
    except NotTaken:
        return 1
    except (OSError, smtplib.SMTPException) as error:
        print(f"relay-gateway send: {host}:{port}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 2
    finally:
        client.close()
    return 0


def _start_tls(client: Sender, host: str, ehlo: str) -> None:
    client.said("STARTTLS")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # asked for privacy, not for whom
    assert client.sock is not None
    client.sock = context.wrap_socket(client.sock, server_hostname=host)
    client.file = None
    client.said(f"EHLO {ehlo}")


def _send_one(client: Sender, args: argparse.Namespace, content: bytes | None, number: int) -> None:
    client.said(f"MAIL FROM:<{args.sender}>")
    for recipient in args.to:
        client.said(f"RCPT TO:<{recipient}>")
    client.said("DATA")
    client.content(content if content is not None else _letter(args, number), number)


def _letter(args: argparse.Namespace, number: int) -> bytes:
    letter = EmailMessage()
    letter["From"] = args.sender or "postmaster@sender.example"
    letter["To"] = ", ".join(args.to)
    letter["Subject"] = args.subject if args.count == 1 else f"{args.subject} ({number + 1} of {args.count})"
    letter["Date"] = formatdate(localtime=True)
    letter["Message-ID"] = make_msgid(domain=args.ehlo)
    letter.set_content("Hello,\n\nthis is a message of `relay-gateway send`.\n")
    return letter.as_bytes()


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    with open(file, "rb") as opened:
        return opened.read()


def _server(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        return text.strip("[]"), _PORT
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text}: expected HOST or HOST:PORT")
    return host.strip("[]"), int(port)


def _count(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 to 1000000")
    return int(text)
