"""What a load consists of: messages, their shares, senders and recipients, from a size or from a mix file.

A mix file is TOML:

    recipients_per_message = 2      # default 1
    seed = 7                        # of the shuffle; the same file gives the same sequence every time

    [[message]]
    size = "10KiB"                  # header and body as on the wire
    weight = 80
    sender = "news@sender.example"  # default bench@sender.example; "" is the null reverse-path

    [[message]]
    corpus = "reports"              # every file below this directory (relative to the mix file) is a
    message weight = 5 sender = ""

    [[domain]]                      # of the recipients; default in.example
    name = "in.example"
    weight = 9

    [[domain]]
    name = "d{}.example"            # count domains, d0.example and so on, share this weight
    count = 1000
"""

import random
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SENDER = "bench@sender.example"
DOMAIN = "in.example"
_SEQUENCE = 4096  # messages and recipients repeat after so many, unless there are more of them
_UNITS = {"": 1, "B": 1, "K": 1024, "KIB": 1024, "M": 1024**2, "MIB": 1024**2}
_HEADER = (
    b"From: <%b>\r\nTo: <someone@in.example>\r\nSubject: bench message of %d bytes\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <%d@bench.example>\r\n\r\n"
)
_LINE = b"The quick brown fox jumps over the lazy dog. 0123456789 abcdefghijklmnopqr\r\n"


class MixError(ValueError):
    """A size or a mix file that cannot be understood; the text says where and why."""


@dataclass(frozen=True)
class Mix:
    """What the load source sends.

    contents: (sender, message as on the wire) pairs; order: indices into it; recipients: addresses. Order
    and recipients are cycled; each message goes to the next `per_message` recipients.
    """

    contents: list[tuple[bytes, bytes]]
    order: list[int] = field(default_factory=lambda: [0])
    recipients: list[bytes] = field(default_factory=lambda: [b"user@" + DOMAIN.encode()])
    per_message: int = 1


def parse_size(text: str | int) -> int:
    """Bytes of "1024", "10KiB", "5 MiB"."""
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", str(text).strip())
    if not match or match[2].upper() not in _UNITS:
        raise MixError(f"size: expected something like 10KiB, got {text!r}")
    return int(match[1]) * _UNITS[match[2].upper()]


def message_of(size: int, sender: str = SENDER) -> bytes:
    """A plain message of `size` bytes with the source's own mark; one too small for its header is a bit
    larger."""
    header = _HEADER % (sender.encode(), size, size)
    body_size = max(size - 61 - len(header), 2)  # 61: the mark, prepended when the message is sent
    lines, rest = divmod(body_size - 2, len(_LINE))
    return header + _LINE * lines + b"x" * rest + b"\r\n"


def message_from_file(data: bytes) -> bytes:
    """The message in a file as it goes over the wire: CRLF, dots stuffed (RFC 5321 §4.5.2), CRLF at the
    end."""
    data = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    data = re.sub(rb"(?m)^\.", b"..", data)
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def plain_mix(size: int, *, recipients: int = 1, domains: int = 1, sender: str = SENDER, to: str = "") -> Mix:
    """Messages of one size. With several `domains` the recipients are in d0.example, d1.example and so
    on."""
    if to:
        addresses = [to.encode()]
    elif domains == 1:
        addresses = [b"user%d@%b" % (i, DOMAIN.encode()) for i in range(max(recipients, 100))]
    else:
        addresses = [b"user@d%d.example" % i for i in range(domains)]
        random.Random(1).shuffle(addresses)
    return Mix([(sender.encode(), message_of(size, sender))], recipients=addresses, per_message=recipients)


def load_mix(path: Path) -> Mix:
    """The mix that a file describes.

    Raises MixError.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MixError(f"{path}: {error}") from error
    unknown = set(table) - {"recipients_per_message", "seed", "message", "domain"}
    if unknown:
        raise MixError(f"{path}: unknown key {sorted(unknown)[0]!r}")
    chance = random.Random(table.get("seed", 1))
    contents: list[tuple[bytes, bytes]] = []
    weights: list[float] = []
    for entry in table.get("message", [{}]):
        added = _messages_of(entry, path)
        contents += added
        weights += [entry.get("weight", 1) / len(added)] * len(added)
    order = chance.choices(range(len(contents)), weights, k=max(_SEQUENCE, len(contents)))
    recipients = _recipients_of(table.get("domain", [{"name": DOMAIN}]), chance, path)
    return Mix(contents, order, recipients, int(table.get("recipients_per_message", 1)))


def _messages_of(entry: dict[str, Any], path: Path) -> list[tuple[bytes, bytes]]:
    unknown = set(entry) - {"size", "corpus", "weight", "sender"}
    if unknown:
        raise MixError(f"{path}: message: unknown key {sorted(unknown)[0]!r}")
    sender = str(entry.get("sender", SENDER))
    if "corpus" not in entry:
        return [(sender.encode(), message_of(parse_size(entry.get("size", 1024)), sender))]
    directory = path.parent / entry["corpus"]
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.suffix not in (".jsonl", ".json", ".md"))
    if not files:
        raise MixError(f"{path}: message: no file in corpus {directory}")
    return [(sender.encode(), message_from_file(file.read_bytes())) for file in files]


def _recipients_of(entries: list[dict[str, Any]], chance: random.Random, path: Path) -> list[bytes]:
    domains: list[str] = []
    weights: list[float] = []
    for entry in entries:
        if "name" not in entry or set(entry) - {"name", "count", "weight"}:
            raise MixError(f"{path}: domain: expected name, and optionally count and weight, got {sorted(entry)}")
        count = int(entry.get("count", 1))
        domains += [entry["name"].replace("{}", str(i)) for i in range(count)]
        weights += [entry.get("weight", 1) / count] * count
    drawn = chance.choices(domains, weights, k=max(_SEQUENCE, 4 * len(domains)))
    return [f"user{i % 1000}@{domain}".encode() for i, domain in enumerate(drawn)]
