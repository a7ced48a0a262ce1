"""Log directories: which there are, whether they can be written to, and whether they have enough room
(`min_free_space`, `min_free_inodes`).
"""

from __future__ import annotations

import errno
import os
import tempfile

from gateway.config import RECORD_TYPES, LocalLogs, RecordSettings


def settings_of(logger: LocalLogs) -> dict[str, RecordSettings]:
    """The settings of every type of record that the logger takes."""
    anything = logger.per_record.get("Any", RecordSettings())
    settings = {kind: logger.per_record.get(kind, anything) for kind in RECORD_TYPES}
    return {kind: each for kind, each in settings.items() if each.enable}


def directories(logger: LocalLogs) -> list[str]:
    """Where the logger's records go, each directory once."""
    return sorted({settings.log_dir or logger.log_dir for settings in settings_of(logger).values()})


def unusable(directory: str, mode: int = 0o777) -> OSError | None:
    """Why nothing could be written in the directory, which is made if need be, with that mode. A full disk is no
    reason: it may have room by the time there is something to write.
    """
    try:
        os.makedirs(directory, mode=mode, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return None if error.errno in (errno.ENOSPC, errno.EDQUOT) and os.path.isdir(directory) else error


def unmakeable(directory: str) -> OSError | None:
    """The same, as far as it can be known without writing anything and without being the service's user."""
    path = os.path.abspath(directory)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        return NotADirectoryError(errno.ENOTDIR, f"{path} is no directory")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return OSError(errno.EROFS, os.strerror(errno.EROFS))
    return None


def shortage(directory: str, min_free_space: str | int, min_free_inodes: str | int) -> str | None:
    """What is short on the file system of `directory`, in words for the operator; None where there is enough.

    The limits are numbers (bytes, inodes) or percentages ("10%"). Raises OSError where the directory cannot be asked.
    """
    status = os.statvfs(directory)
    space = status.f_bavail * status.f_frsize
    if space < _limit(min_free_space, status.f_blocks * status.f_frsize):
        return f"{directory}: only {space} bytes are free, min_free_space is {min_free_space}"
    if status.f_favail < _limit(min_free_inodes, status.f_files):  # file systems without inodes report 0 of 0
        return f"{directory}: only {status.f_favail} inodes are free, min_free_inodes is {min_free_inodes}"
    return None


def _limit(limit: str | int, total: int) -> float:
    if isinstance(limit, str) and limit.endswith("%"):
        return total * float(limit[:-1]) / 100
    return float(limit)
