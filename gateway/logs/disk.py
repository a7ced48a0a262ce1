"""How much room a log directory has, and whether that is enough (`min_free_space`, `min_free_inodes`)."""

from __future__ import annotations

import os


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
