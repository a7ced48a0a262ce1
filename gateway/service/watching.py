"""Watching: which files of a policy are others than when it was loaded: certificates, keys, what it asks to be watched.

Looked at from time to time, by name, size and times; what is inside is read only where those differ. A change counts
once it has settled: an edit of several files, or of one in several steps, is one change.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from gateway.policy.kumo.files import matching

PERIOD = 2.0  # seconds from one look to the next
SETTLING = 1.0  # seconds that nothing may change before a change counts
SHARE = 100  # one look takes at most that part of the time
MOST_FILES = 10_000

Look: TypeAlias = "tuple[int, int, int, int]"  # device, inode, size, and when it was changed


@dataclass(frozen=True, slots=True)
class WatchedFiles:
    """globs: what is watched. found: by path, how a file looked and a digest of what was read of it."""

    globs: tuple[str, ...] = ()
    found: dict[str, tuple[Look | None, str]] = field(default_factory=dict)


def as_loaded(globs: Iterable[str], read: Mapping[str, bytes | None]) -> WatchedFiles:
    """The files as a policy has just been loaded with them. read: what it has read of them."""
    globs = tuple(globs)
    contents = {os.path.abspath(path): content for path, content in read.items()}
    found = {}
    for path, look in _looks(globs).items():
        now = _digest(path)
        content = contents.get(path)
        loaded = now if content is None else _digest_of(content)
        found[path] = (look if loaded == now else None, loaded)
    return WatchedFiles(globs, found)


class Watch:
    """The files of one policy. clock: seconds; here and in `changed` the same."""

    def __init__(self, files: WatchedFiles, clock: Callable[[], float]) -> None:
        self._globs = files.globs
        self._known = dict(files.found)
        self._clock = clock
        self._due = clock() + PERIOD
        self._unsettled: dict[str, Look] | None = None

    def changed(self) -> list[str]:
        """The files that have come, gone, or have another content, each change once."""
        now = self._clock()
        if not self._globs or now < self._due:
            return []
        looks = _looks(self._globs)
        self._due = now + max(PERIOD, SHARE * (self._clock() - now))
        if looks == {path: look for path, (look, _) in self._known.items()}:
            self._unsettled = None
            return []
        if looks != self._unsettled:
            self._unsettled = looks
            self._due = now + SETTLING
            return []
        self._unsettled = None
        before, self._known = self._known, {path: (look, self._content(path, look)) for path, look in looks.items()}
        return sorted(
            path
            for path in before.keys() | self._known.keys()
            if before.get(path, (None, None))[1] != self._known.get(path, (None, None))[1]
        )

    def _content(self, path: str, look: Look) -> str:
        known = self._known.get(path)
        return known[1] if known is not None and known[0] == look else _digest(path)


def _looks(globs: Iterable[str]) -> dict[str, Look]:
    found: dict[str, Look] = {}
    for pattern in globs:
        for path in matching(pattern):
            if len(found) >= MOST_FILES:
                return found
            try:
                status = os.stat(path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                found[path] = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    return found


def _digest(path: str) -> str:
    """Of a file's content; "" where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
