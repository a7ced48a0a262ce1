"""`kumo.fs`: looking at directories and files. Reading and writing file objects is not here."""

from __future__ import annotations

import glob as globbing
import os
import re
import stat
from collections.abc import Callable
from typing import Any

from gateway.policy.kumo.times import Time
from gateway.policy.kumo.values import string


def read_dir(path: Any) -> list[str]:
    """The absolute names of what is in a directory."""
    directory = string(path, "read_dir")
    try:
        return [os.path.abspath(os.path.join(directory, name)) for name in sorted(os.listdir(directory))]
    except OSError as error:
        raise ValueError(f"read_dir: {directory}: {error.strerror}") from None


def glob(pattern: Any, relative_to: Any = None, ttl: Any = None) -> list[str]:
    """As uncached_glob: what is found is looked for each time, so it need not be remembered for `ttl` seconds."""
    return uncached_glob(pattern, relative_to)


def uncached_glob(pattern: Any, relative_to: Any = None) -> list[str]:
    """The names that match; relative to a directory where they are below it. What cannot be read is left out."""
    base = os.path.abspath("." if relative_to is None else string(relative_to, "glob")) + os.sep
    return sorted(name.removeprefix(base) for name in matching(string(pattern, "glob"), base))


def matching(pattern: str, base: str = "") -> set[str]:
    """The absolute names that match: `*`, `?`, `[…]`, `**` for any directories, and `{this,that}`."""
    found: set[str] = set()
    for one in _alternatives(pattern):
        found.update(map(os.path.abspath, globbing.iglob(os.path.join(base, one), recursive=True)))
    return found


def _alternatives(pattern: str) -> list[str]:
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    start, end = pattern[: braces.start()], pattern[braces.end() :]
    return [one for word in braces[1].split(",") for one in _alternatives(f"{start}{word}{end}")]


def metadata_for_path(path: Any) -> dict[str, Any]:
    """What is known about a file; a symbolic link is followed."""
    return _metadata(string(path, "metadata_for_path"), os.stat)


def symlink_metadata_for_path(path: Any) -> dict[str, Any]:
    """What is known about a file or the symbolic link itself."""
    return _metadata(string(path, "symlink_metadata_for_path"), os.lstat)


def _metadata(path: str, ask: Callable[[str], os.stat_result]) -> dict[str, Any]:
    try:
        found = ask(path)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    return {
        "path": path,
        "is_file": stat.S_ISREG(found.st_mode),
        "is_dir": stat.S_ISDIR(found.st_mode),
        "is_symlink": stat.S_ISLNK(found.st_mode),
        "len": found.st_size,
        "readonly": not found.st_mode & 0o222,
        "dev": found.st_dev,
        "ino": found.st_ino,
        "mode": found.st_mode,
        "nlink": found.st_nlink,
        "uid": found.st_uid,
        "gid": found.st_gid,
        "rdev": found.st_rdev,
        "size": found.st_size,
        "blksize": found.st_blksize,
        "blocks": found.st_blocks,
        "mtime": Time(found.st_mtime_ns),
        "atime": Time(found.st_atime_ns),
        "ctime": Time(found.st_ctime_ns),
    }


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (read_dir, glob, uncached_glob, metadata_for_path, symlink_metadata_for_path)
}
UNSTABLE = frozenset(FUNCTIONS)
