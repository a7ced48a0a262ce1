"""Where `relay-gateway report` finds messages: files, Maildirs, mbox files, standard input. Reading only."""

import mmap
import re
import sys
from collections.abc import Iterator
from pathlib import Path

STDIN = "-"
_MBOX_SUFFIXES = {".mbox", ".mbx"}
_MESSAGE_SUFFIXES = {".eml", ".msg"}  # of files that hold one message, even behind a "From " line
# RFC 4155: a line "From ADDRESS TIMESTAMP" at the start or behind an empty line. One without a time of day is text.
_FROM_LINE = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\r\n]*\d{1,2}:\d\d[^\r\n]*\r?\n")


def messages(name: str) -> Iterator[tuple[str, bytes]]:
    """(name, octets) of each message that `name` stands for: a file, a Maildir or other directory, an mbox file, or
    STDIN. Raises OSError for what cannot be read."""
    if name == STDIN:
        octets = sys.stdin.buffer.read()
        yield from split(name, octets) if octets.startswith(b"From ") else [(name, octets)]
        return
    path = Path(name)
    if path.is_dir():
        for file in _files(path):
            yield str(file), file.read_bytes()
    elif _is_mbox(path):
        with path.open("rb") as mbox, mmap.mmap(mbox.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield from split(name, mapped)
    else:
        yield name, path.read_bytes()


def split(name: str, mbox: bytes | mmap.mmap) -> Iterator[tuple[str, bytes]]:
    """The messages of an mbox, numbered from 1, without their "From " lines; all of it if it has none."""
    starts = list(_FROM_LINE.finditer(mbox))
    if not starts:
        yield name, bytes(mbox)
    for number, start in enumerate(starts, 1):
        end = starts[number].start() if number < len(starts) else len(mbox)
        yield f"{name}:{number}", mbox[start.end() : end]


def _files(directory: Path) -> list[Path]:
    """The messages of a Maildir, or else the files of a directory; those with a dot in front do not count."""
    boxes = [directory / box for box in ("cur", "new") if (directory / box).is_dir()] or [directory]
    files = [file for box in boxes for file in box.iterdir() if file.is_file() and not file.name.startswith(".")]
    return sorted(files)


def _is_mbox(path: Path) -> bool:
    with path.open("rb") as file:
        begins = file.read(5) == b"From "
    return begins and (path.suffix in _MBOX_SUFFIXES or path.suffix not in _MESSAGE_SUFFIXES)
