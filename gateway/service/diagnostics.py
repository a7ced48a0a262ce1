"""The diagnostic log: one line per event on standard error, for the operator. Mail's own records are gateway/logs."""

from __future__ import annotations

import logging
import time

LEVELS = ("debug", "info", "warning", "error")


def configure(name: str, level: str = "info") -> None:
    """Send the log of this process, which calls itself `name`, to standard error. level: one of LEVELS."""
    logging.basicConfig(level=level.upper())
    rename(name)


def rename(name: str) -> None:
    """Give a forked process a name of its own in the log."""
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ {name}[%(process)d] %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
