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


def places(name: str) -> Iterator[tuple[str, bool]]:
    """What a name stands for, each to be read by itself: (STDIN, a file or mbox; whether it is one message whatever it
    looks like). A directory stands for what is in it, a Maildir for its messages and those of its folders."""
    if name != STDIN and Path(name).is_dir():
        yield from _inside(Path(name))
    else:
        yield name, False


def messages(place: str, one: bool) -> Iterator[tuple[str, bytes]]:
    """(name, octets) of each message of one of the `places`. Raises OSError if it cannot be read."""
    if place == STDIN:
        octets = sys.stdin.buffer.read()
        yield from split(place, octets) if octets.startswith(b"From ") else [(place, octets)]
        return
    path = Path(place)
    if not one and _is_mbox(path):
        with path.open("rb") as mbox, mmap.mmap(mbox.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield from split(place, mapped)
    else:
        yield place, path.read_bytes()


def split(name: str, mbox: bytes | mmap.mmap) -> Iterator[tuple[str, bytes]]:
    """The messages of an mbox, numbered from 1, without their "From " lines; all of it if it has none."""
    starts = list(_FROM_LINE.finditer(mbox))
    if not starts:
        yield name, bytes(mbox)
    for number, start in enumerate(starts, 1):
        end = starts[number].start() if number < len(starts) else len(mbox)
        yield f"{name}:{number}", mbox[start.end() : end]


def _inside(directory: Path) -> Iterator[tuple[str, bool]]:
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        yield str(directory), True  # whoever reads it learns why
        return
    boxes = [entry for entry in entries if entry.name in ("cur", "new") and entry.is_dir()]
    if boxes:
        for box in boxes:
            yield from ((file, True) for file, _ in _inside(box))
        folders = [entry for entry in entries if (entry / "cur").is_dir()]
    else:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
        yield from ((str(entry), False) for entry in seen if entry.is_file())
        folders = [entry for entry in seen if entry.is_dir()]
    for folder in folders:
        if not folder.is_symlink():
            yield from _inside(folder)


def _is_mbox(path: Path) -> bool:
    with path.open("rb") as file:
        begins = file.read(5) == b"From "
    return begins and (path.suffix in _MBOX_SUFFIXES or path.suffix not in _MESSAGE_SUFFIXES)
