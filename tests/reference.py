"""Slow, obvious oracles for the compiled kernels: one octet or one regular expression at a time, nothing clever.

Nothing here is shared with gateway/; a kernel and its oracle agree because both follow the RFC.
"""

import email
import email.message
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address

# --- framing: RFC 5321 §2.3.8, §4.1.1.4, §4.5.2 ------------------------------------------------------------

VERBS = [
    "EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT",
    "STARTTLS", "AUTH", "XCLIENT", "BDAT",
]  # fmt: skip


def commands(stream: bytes, max_line: int) -> tuple[list[tuple[str, bytes]], bytes]:
    """All commands of a stream as (verb name, argument), and the unfinished rest."""
    found = []
    line = b""
    for octet in stream:
        line += bytes([octet])
        if line.endswith(b"\r\n"):
            found.append(_command(line[:-2]) if len(line) <= max_line else ("LINE_TOO_LONG", b""))
            line = b""
    return found, line


def _command(line: bytes) -> tuple[str, bytes]:
    word = re.match(rb"[^ \t]*", line).group()
    name = word.decode("latin-1").upper()
    if word.isascii() and name in VERBS:
        return name, line[len(word) :].strip(b" \t")
    return "UNKNOWN", line


@dataclass
class Content:
    stuffed: bytes  # as received, without the terminator's own line
    rest: bytes

    @property
    def size(self) -> int:
        return len(unstuff(self.stuffed))

    @property
    def bare_cr(self) -> bool:
        return re.search(rb"\r(?!\n)", self.stuffed) is not None

    @property
    def bare_lf(self) -> bool:
        return re.search(rb"(?<!\r)\n", self.stuffed) is not None

    @property
    def loose_dot(self) -> bool:
        return re.search(rb"(?:\A|\r\n)\.(?!\.)", self.stuffed) is not None

    def has_line_longer_than(self, limit: int) -> bool:
        """A line ends at an LF; its ending counts as two octets at most, a dot that starts it does not count."""
        lines = [line.removeprefix(b".") for line in self.stuffed.split(b"\n")[:-1]]
        return any(len(line) + 1 > limit + 2 for line in lines)


def content(stream: bytes) -> Content | None:
    """The content at the start of a stream that follows the DATA command, or None if it does not end."""
    seen = b"\r\n"  # the end of the DATA command line
    for octet in stream:
        seen += bytes([octet])
        if seen.endswith(b"\r\n.\r\n"):
            return Content(seen[2:-3], stream[len(seen) - 2 :])
    return None


def unstuff(stuffed: bytes) -> bytes:
    return re.sub(rb"(\A|\r\n)\.", rb"\1", stuffed)


def stuff(plain: bytes) -> bytes:
    if plain and not plain.endswith(b"\r\n"):
        plain += b"\r\n"
    return re.sub(rb"(\A|\r\n)\.", rb"\1..", plain)


def repair_line_endings(stuffed: bytes, fix: bool) -> bytes:
    plain = unstuff(stuffed)
    if fix:
        plain = re.sub(rb"\r\n|\r|\n", b"\r\n", plain)
    return re.sub(rb"(\A|(?<=[\r\n]))\0*\.", b"..", plain)


# --- CIDR sets ---------------------------------------------------------------------------------------------

Network = IPv4Network | IPv6Network


def covers(prefixes: Sequence[Network], packed: bytes) -> bool:
    """Whether one of the prefixes covers a packed address; an IPv4-mapped one counts as IPv4 and as nothing else."""
    address = ip_address(packed)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in prefix for prefix in _in_own_family(prefixes))


def merged(prefixes: Sequence[Network]) -> list[str]:
    """The fewest prefixes that cover the same addresses, as text, IPv4 first; `any` if that is all there are."""
    own = _in_own_family(prefixes)
    ipv4 = collapse_addresses(prefix for prefix in own if isinstance(prefix, IPv4Network))
    ipv6 = collapse_addresses(prefix for prefix in own if isinstance(prefix, IPv6Network))
    texts = [str(prefix).removesuffix(f"/{prefix.max_prefixlen}") for prefix in (*ipv4, *ipv6)]
    return ["any"] if texts == ["0.0.0.0/0", "::/0"] else texts


def _in_own_family(prefixes: Sequence[Network]) -> list[Network]:
    """The prefixes, those inside ::ffff:0:0/96 (RFC 4291 §2.5.5.2) turned into the IPv4 prefixes they stand for."""
    return [
        IPv4Network((prefix.network_address.ipv4_mapped, prefix.prefixlen - 96))
        if isinstance(prefix, IPv6Network) and prefix.prefixlen >= 96 and prefix.network_address.ipv4_mapped
        else prefix
        for prefix in prefixes
    ]


# --- reports: RFC 3464, RFC 5965; read by the standard library -----------------------------------------------


def report_fields(message: bytes) -> tuple[list[list[tuple[str, str]]], list[tuple[str, str]]]:
    """(blocks of the first delivery-status child, fields of the first feedback-report child) as stdlib reads them."""
    blocks: list[list[tuple[str, str]]] = []
    feedback: list[tuple[str, str]] = []
    for part in email.message_from_bytes(message).get_payload():
        children = part.get_payload()
        if part.get_content_type() == "message/delivery-status" and not blocks:
            blocks = [_fields(block) for block in children if block.items()]
        elif part.get_content_type() == "message/feedback-report" and not feedback:
            feedback = _fields(children[0])
    return blocks, feedback


def _fields(block: email.message.Message) -> list[tuple[str, str]]:
    return [(name.lower(), " ".join(value.split())) for name, value in block.items()]


def part_places(message: bytes, at: int, boundary: bytes) -> list[tuple[int, int]]:
    """Where the parts of the multipart whose body begins at `at` begin and end, by lines (RFC 2046 §5.1.1)."""
    delimiter = re.compile(rb"--" + re.escape(boundary) + rb"(--)?[ \t]*\r?\n?")
    places = []
    start = -1
    for line in re.finditer(rb"[^\n]*\n|[^\n]+", message[at:]):
        if (found := delimiter.fullmatch(line[0])) is None:
            continue
        here = at + line.start()
        if start >= 0:
            end = here - (2 if message[start:here].endswith(b"\r\n") else 1)
            places.append((start, max(start, end)))
        start = -1 if found[1] else at + line.end()
        if found[1]:
            break
    if start >= 0:
        places.append((start, len(message)))
    return places
