"""What a policy names outside of itself: certificates, keys, log directories, files of shipments. Whether the service
can use them, by file and line where that is known.

`check` asks without changing anything; the service asks at its start and at a reload, as the user it runs as.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.config import KeySource, Listener, PolicyConfig
from gateway.logs import disk
from gateway.net import tls
from gateway.policy import events
from gateway.policy.options import UNKNOWN, BadOptions
from gateway.policy.path_schemas import key_source
from gateway.policy.problems import Problem, Severity
from gateway.policy.source import PolicySource
from gateway.shipments import Secret, Shipment

if TYPE_CHECKING:
    from gateway.policy.engine import Policy
    from gateway.policy.lint import Lint


_LISTENER = "kumo.start_esmtp_listener"
_SHIP = "gateway.ship"


class Defect(NamedTuple):
    """may_pass: whether it may be over at the next start without an edit, such as a directory on a disk that is not
    there yet.
    """

    problem: Problem
    may_pass: bool


def unusable_keys(
    source: PolicySource,
    listeners: Iterable[Listener],
    files: tls.KeyFiles,
    text: Lint | None = None,
    at: datetime | None = None,
) -> list[Defect]:
    """Certificates and keys that no connection could use.

    files: reads them, and keeps what was read. text: what the policy's text shows; without it, the text is only looked
    at when there is something to be located. at: certificates have to be valid then; None for whenever.
    """
    computed = tls.problems(listeners, files, at)
    if text is None and not computed:
        return []
    text = text or _text(source)
    written_out = list(_keys_written_out(text, files, at))
    located = tuple(trouble.problem.message.partition(": ")[2] for trouble in written_out)
    return written_out + [
        Defect(Problem(*(_named(text, error) or (source.path, 0)), f"listener {listener}: {error}"), error.may_pass)
        for listener, error in computed
        if not str(error).endswith(located)
    ]


def unusable_computed_keys(
    policy: Policy, computed: Mapping[int, Mapping[str, Any]], files: tls.KeyFiles, at: datetime
) -> Iterator[Problem]:
    """The same of those that a handler gives a connection. computed: parameters by the number of the listener."""
    for parameters in computed.values():
        error = tls.unusable(parameters.get("tls_certificate"), parameters.get("tls_private_key"), files, at)
        if error is not None:
            event = events.DYNAMIC_PARAMETERS
            yield Problem(*policy.registered_at(event), f"{event}: {error}", "so no client can use TLS")


def expiring(
    source: PolicySource, listeners: Iterable[Listener], files: tls.KeyFiles, text: Lint, at: datetime
) -> list[Problem]:
    """Warnings of certificates that are to be renewed. Of ones that connections can use: see unusable_keys."""
    found = []
    for name, end in tls.ends(listeners, files).items():
        if end < at + tls.EXPIRES_SOON:
            file, line = _where(text, name, "tls_certificate", _LISTENER) or (source.path, 0)
            message = f"{_LISTENER}: {name}: the certificate expires in {(end - at).days} days, at {end}"
            found.append(Problem(file, line, message, severity=Severity.WARNING))
    return found


def _text(source: PolicySource) -> Lint:
    from gateway.policy.lint import Lint  # with the grammar of Lua, which is not needed where nothing is wrong

    return Lint(source)


def _keys_written_out(text: Lint, files: tls.KeyFiles, at: datetime | None) -> Iterator[Defect]:
    """Those that the text of the policy names by itself, so that their line is known."""
    for call, options, lines in text.tables(_LISTENER):
        names = [name for name in ("tls_certificate", "tls_private_key") if name in options]
        with suppress(BadOptions):  # said already
            keys: dict[str, KeySource] = {name: key_source(options[name]) for name in names}
            for error in _errors(keys, files, at):
                about = str(error).partition(": ")[0]
                name = next((name for name in names if options[name] == about), names[0])
                message = f"{_LISTENER}: {error}"
                yield Defect(Problem(call.where.file, lines[(name,)], message), error.may_pass)


def _errors(keys: dict[str, KeySource], files: tls.KeyFiles, at: datetime | None) -> list[tls.UnusableKey]:
    """Each of the two that cannot be read; where both can, why they cannot be used together."""
    unreadable = []
    for source in keys.values():
        try:
            tls.content(source, files)
        except tls.UnusableKey as error:
            unreadable.append(error)
    together = None if unreadable else tls.unusable(keys.get("tls_certificate"), keys.get("tls_private_key"), files, at)
    return [together] if together is not None else unreadable


def _named(text: Lint, error: tls.UnusableKey) -> tuple[str, int] | None:
    """Where a listener names the files that an error is about, however deep inside; None where that is computed."""
    names = str(error).partition(": ")[0].split(", ")
    for call, options, lines in text.tables(_LISTENER):
        places = {found: line for keys, line in lines.items() if isinstance(found := _entry(options, keys), str)}
        if all(name in places for name in names):
            return call.where.file, places[names[0]]
    return None


def unusable_towards_members(text: Lint) -> list[Defect]:
    """Certificates, keys and ciphers towards the fleet that the text of the policy names by itself."""
    found = []
    for function in ("kumo.make_egress_path", "gateway.fleet"):
        for call, options, lines in text.tables(function):
            for keys, path in _paths(function, options):
                named = [name for name in _TOWARDS_MEMBERS if name in path]
                error = _unusable_path(path)
                if error is not None:
                    line = lines.get((*keys, named[0]), call.where.line)
                    found.append(Defect(Problem(call.where.file, line, f"{function}: {error}"), error.may_pass))
    return found


_TOWARDS_MEMBERS = ("tls_certificate", "tls_private_key", "tls_ca", "openssl_cipher_list")


def _paths(function: str, options: Mapping[object, Any]) -> Iterator[tuple[tuple[object, ...], Mapping[object, Any]]]:
    """The tables with options of an egress path in a call, and where each is."""
    if function != "gateway.fleet":
        yield (), options
        return
    members = options.get("members")
    places: list[tuple[tuple[object, ...], Any]] = [(("path",), options.get("path"))]
    if isinstance(members, dict):
        tables = ((number, member) for number, member in members.items() if isinstance(member, dict))
        places += [(("members", number, "path"), member.get("path")) for number, member in tables]
    yield from ((keys, path) for keys, path in places if isinstance(path, dict))


def _unusable_path(path: Mapping[object, Any]) -> tls.UnusableKey | None:
    with suppress(BadOptions):  # said already
        certificate, key, ca = (
            key_source(path[name]) if path.get(name) not in (None, UNKNOWN) else None for name in _TOWARDS_MEMBERS[:3]
        )
        pair = (certificate, key) if certificate is not None and key is not None else None
        ciphers = path.get("openssl_cipher_list")
        try:
            tls.client_context(tls.ClientTls(pair, ca, ciphers if isinstance(ciphers, str) else None))
        except tls.UnusableKey as error:
            return error
    return None


def unusable_directories(
    source: PolicySource, config: PolicyConfig | None, text: Lint | None = None, *, make: bool
) -> list[Defect]:
    """Directories of logs and of the spool that nothing could be written to. config: None where there is none.

    text: as for unusable_keys. make: create what is missing; otherwise only what can be known without it is said.
    """
    troubles = []
    for directory, name, function in _directories(config):
        mode = 0o700 if config is not None and config.spool and config.spool.path == directory else 0o777
        error = disk.unusable(directory, mode) if make else disk.unmakeable(directory)
        if error is not None:
            text = text or _text(source)
            file, line = _where(text, directory, name, function) or (source.path, 0)
            message = f"{name} {directory} cannot be written to: {error.strerror or error}"
            troubles.append(Defect(Problem(file, line, message), True))
    return troubles


def unreadable_by_shipments(source: PolicySource, config: PolicyConfig | None, text: Lint) -> list[Problem]:
    """Files of secrets and of authorities that a shipment could not read: the gateway would start, its records stay."""
    found = []
    for shipment in config.shipments if config is not None else ():
        for name, path in _files_of(shipment):
            try:
                open(path, "rb").close()
            except OSError as error:
                file, line = _where(text, path, name, _SHIP) or (source.path, 0)
                what = f"shipment '{shipment.name}' would stay: {name} {path} cannot be read: {error.strerror}"
                found.append(Problem(file, line, f"{_SHIP}: {what}"))
    return found


def _files_of(shipment: Shipment) -> Iterator[tuple[str, str]]:
    """The options of its sink that name a file to read, with the file."""
    for name in (option.name for option in fields(shipment.sink)):
        value = getattr(shipment.sink, name)
        if isinstance(value, Secret) and value.path is not None:
            yield name, value.path
        elif name in ("ca_file", "credentials") and value is not None:
            yield name, value


def _directories(config: PolicyConfig | None) -> Iterator[tuple[str, str, str]]:
    """Each directory, and the option of which function names it."""
    if config is None:
        return
    for directory in dict.fromkeys(name for logger in config.local_logs for name in disk.directories(logger)):
        yield directory, "log_dir", "kumo.configure_local_logs"
    if config.spool is not None:
        yield config.spool.path, "path", "kumo.define_spool"


def _where(text: Lint, value: str, name: str, function: str) -> tuple[str, int] | None:
    """The line that gives an option this value; None where the policy computes it."""
    for call, options, lines in text.tables(function):
        for keys, line in lines.items():
            if keys[-1] == name and _entry(options, keys) == value:
                return call.where.file, line
    return None


def _entry(table: object, keys: Iterable[object]) -> object:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table
