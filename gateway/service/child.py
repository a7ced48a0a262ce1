"""Starting a child process: the one place that forks. What it runs and when it ends is decided elsewhere."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable

from setproctitle import setproctitle

from gateway.service import diagnostics
from gateway.service.context import EX_SOFTWARE

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_LIBC = ctypes.CDLL(None, use_errno=True)


def start(run: Callable[[], int], name: str) -> int:
    """Fork a child that ends with the exit code that `run` returns; returns the child's process id.

    The child gets default signal handlers (except that it ignores SIGINT and SIGHUP, which a terminal sends to the
    whole group and which are the parent's to answer) and SIGTERM should its parent die. name: for diagnostics.
    """
    parent = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid:
            return pid
        code = EX_SOFTWARE
        try:
            _reset_signals(blocked)
            _die_with(parent)
            faulthandler.enable()  # the supervisor's SIGABRT then shows where a stuck child is
            diagnostics.rename(name)
            setproctitle(f"relay-gateway: {name}")
            code = run()
        except Exception:
            logging.getLogger(__name__).critical("%s failed", name, exc_info=True)
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else EX_SOFTWARE
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _reset_signals(mask: Iterable[int]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGABRT):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _die_with(parent: int) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        raise SystemExit(EX_SOFTWARE)
