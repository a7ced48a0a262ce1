"""What a policy names outside of itself: certificates, keys, log directories. Whether the service can use them, by file
and line where that is known.

`check` asks without changing anything; the service asks at its start and at a reload, as the user it runs as.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from gateway.config import Listener, LocalLogs
from gateway.logs import disk
from gateway.net import tls
from gateway.policy import lint
from gateway.policy.options import BadOptions
from gateway.policy.problems import Problem
from gateway.policy.schemas import key_source
from gateway.policy.source import PolicySource


class Defect(NamedTuple):
    """may_pass: whether it may be over at the next start without an edit, such as a directory on a disk that is not
    there yet.
    """

    problem: Problem
    may_pass: bool


def unusable_keys(source: PolicySource, listeners: Iterable[Listener], files: tls.KeyFiles) -> list[Defect]:
    """Certificates and keys that no connection could use. files: reads them, and keeps what was read."""
    written_out = list(_keys_written_out(source, files))
    located = tuple(trouble.problem.message.partition(": ")[2] for trouble in written_out)
    computed = [
        Defect(Problem(source.path, 0, f"listener {listener}: {error}"), error.may_pass)
        for listener, error in tls.problems(listeners, files)
        if not str(error).endswith(located)
    ]
    return written_out + computed


def _keys_written_out(source: PolicySource, files: tls.KeyFiles) -> Iterator[Defect]:
    """Those that the text of the policy names by itself, so that their line is known."""
    for file, call in lint.calls_in(source):
        if call.function == "start_esmtp_listener" and isinstance(call.argument, dict):
            names = [name for name in ("tls_certificate", "tls_private_key") if name in call.argument]
            with suppress(BadOptions):  # said already
                keys = {name: key_source(call.argument[name]) for name in names}
                error = tls.unusable(keys.get("tls_certificate"), keys.get("tls_private_key"), files)
                if error is not None:
                    problem = Problem(file, call.lines[(names[0],)], f"kumo.{call.function}: {error}")
                    yield Defect(problem, error.may_pass)


def unusable_directories(source: PolicySource, loggers: Sequence[LocalLogs], *, make: bool) -> list[Defect]:
    """Log directories that no record could be written to.

    make: create what is missing; otherwise only what can be known without it is said.
    """
    troubles = []
    for directory in dict.fromkeys(name for logger in loggers for name in disk.directories(logger)):
        error = disk.unusable(directory) if make else disk.unmakeable(directory)
        if error is not None:
            file, line = _where(source, directory)
            message = f"log_dir {directory} cannot be written to: {error.strerror or error}"
            troubles.append(Defect(Problem(file, line, message), True))
    return troubles


def _where(source: PolicySource, directory: str) -> tuple[str, int]:
    """The line that names a log directory; 0 where the policy computes it."""
    for file, call in lint.calls_in(source):
        if call.function == "configure_local_logs":
            for keys, line in call.lines.items():
                if keys[-1] == "log_dir" and _entry(call.argument, keys) == directory:
                    return file, line
    return source.path, 0


def _entry(table: object, keys: Iterable[object]) -> object:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table
