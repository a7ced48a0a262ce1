"""What `policy-extras.listener_domains` asks of the host: a table of all its files, and what it has for a domain."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.policy import domain_files
from gateway.policy.api import Api
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.domain_files import Text, Unreadable
from gateway.policy.domain_table import DomainTable, Merging
from gateway.policy.kumo.domain_map import normalised
from gateway.policy.objects import Made
from gateway.policy.options import as_json, sequences
from gateway.policy.problems import Problem
from gateway.policy.runs import Runs
from gateway.policy.runtime import Fault, LuaState, inward, kind_of
from gateway.policy.source import PolicySource


class ListenerDomains:
    """The functions for one Lua state. api: takes down what is wrong with files."""

    def __init__(self, lua: Callable[[], LuaState], source: PolicySource, runs: Runs, api: Api) -> None:
        self._lua = lua
        self._source = source
        self._runs = runs
        self._api = api

    def functions(self) -> dict[str, Callable[..., Any]]:
        """For LuaHost.extra_functions."""
        return {"load": self._load, "find": self._find}

    def _load(self, sources: object = None, *_: object) -> DomainTable:
        """The table of a list of file names and tables. A process that was forked from one that has it makes none."""
        plain = sequences(self._lua().plain(sources))
        if not isinstance(plain, list) or not all(isinstance(one, str | dict) for one in plain):
            self._api.problem(f"listener_domains:setup: expected a list of files and tables, got a {kind_of(sources)}")
            plain = []
        key = as_json(plain)
        table = self._source.tables.get(key)
        if table is None:
            with _uncollected():
                table = self._source.tables[key] = self._made(plain)
        return table

    def _made(self, sources: list[str | dict[str, Any]]) -> DomainTable:
        if not self._runs.loading:
            raise Fault("listener_domains:setup must be called when the policy is loaded")
        merging = Merging()
        for source in sources:
            try:
                if isinstance(source, str):
                    text = Text(source, _content(source))
                    merging.add(text, domain_files.read(text))
                else:
                    text = self._policys_text()
                    merging.add(text, domain_files.read_table(source, text))
            except OSError as error:
                self._api.problem(f"listener_domains:setup: reading file {source}: {error.strerror}")
            except UnicodeDecodeError as error:
                merging.problems.append(Problem(str(source), 0, f"this is no text in UTF-8: {error.reason}"))
            except Unreadable as bad:
                merging.problems.append(bad.problem)
        self._api.problems_of_files(merging.problems)
        return merging.table(source for source in sources if isinstance(source, str))

    def _policys_text(self) -> Text:
        """The text that an inline table stands in."""
        file, line = self._lua().where()
        text = (self._source.files.get(file) or b"").decode("utf-8", "replace")
        lines = text.splitlines(keepends=True)
        return Text(file, text, sum(map(len, lines[: max(0, line - 1)])))

    def _find(
        self, table: DomainTable, domain: object = None, listener: object = None, conn: object = None, *_: object
    ) -> Any:
        if not isinstance(domain, str) or not isinstance(listener, str) or not isinstance(conn, ConnMeta):
            raise Fault("expected the arguments of get_listener_domain: domain, listener, conn_meta")
        run = self._runs.running
        evaluation = None if run is None else run.evaluation
        name, section = normalised(inward(domain)), inward(listener)
        entry = table.entry(name, section, conn, evaluation)
        if entry is None:
            return None
        made = entry.made
        if not isinstance(made, Made):
            made = entry.made = Made("make_listener_domain", entry.options, entry.known.result())
        made.found = table, name, section
        return made


def _content(path: str) -> str:
    return Path(path).read_bytes().decode("utf-8")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Makes many values that all stay, which the collector would look at again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
