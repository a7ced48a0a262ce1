"""DomainTable: what `policy-extras.listener_domains` grants, by listener and domain, for a million domains.

The exact name, then the longest wildcard, on the very listener, then on every one; the first that is found decides
alone. It is made where the policy is checked and handed to the workers, which share its memory. How its files are read
is domain_files.py's business.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable
from typing import Any, Final

from gateway._fastpath import CidrSet, PackedNames
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import Evaluation, Known
from gateway.policy.domain_files import EVERYWHERE, Group, Parameters, Text
from gateway.policy.kumo.domain_map import normalised
from gateway.policy.options import BadOptions, Option, Schema, as_table, list_of, refusal, string
from gateway.policy.problems import Problem
from gateway.policy.schemas import LISTENER_DOMAIN

ENTRIES = 4_096  # different ones that are kept ready
LONGEST = 255  # octets of a domain (RFC 5321 §4.5.3.1.2)
PROBLEMS = 20  # that are named, of all that a file has

LISTENER_CONFIG = Schema(
    {**LISTENER_DOMAIN.options, "relay_from_authz": Option(list_of(string, "names of users"))}, LISTENER_DOMAIN.built
)
_PLAIN = re.compile(rf"[a-z0-9.*-]{{0,{LONGEST}}}")  # a domain as it is looked up
_UNSPECIFIED = ("0.0.0.0", "[::]")  # sections that are for every address with their port
_NOTHING: Final = Known(None)

Domains = dict[str, dict[str, Any]]  # parameters by normalised domain


class Entry:
    """What is granted. known: as an answer. options: as read. users: of whom each may relay from where he is.

    made: as a policy gets it, once it has asked.
    """

    __slots__ = ("known", "made", "options", "users")

    def __init__(self, options: dict[str, Any]) -> None:
        self.users = frozenset(options.get("relay_from_authz", ()))
        self.options = {name: value for name, value in options.items() if name in LISTENER_DOMAIN.options}
        self.known = Known(LISTENER_DOMAIN.built(self.options))
        self.made: object = None

    def from_here(self, received_from: object) -> Entry:
        """The same for one of its users: its relay_from is the peer's address."""
        peer = str(received_from).rpartition(":")[0].strip("[]")
        return Entry({**self.options, "relay_from": CidrSet((peer,) if peer else ())})


class _Section:
    """The domains of one listener, exact names and what is below "*."; "" of the latter is for all names."""

    def __init__(self, exact: PackedNames, below: PackedNames) -> None:
        self._exact = exact
        self._below = below

    def __len__(self) -> int:
        return len(self._exact) + len(self._below)

    def __reduce__(self) -> tuple[type[_Section], tuple[PackedNames, PackedNames]]:
        return _Section, (self._exact, self._below)

    def find(self, name: str) -> int:
        """The number of the best entry, -1 for none."""
        found = self._exact.find(name)
        return found if found >= 0 else self._below.find_above(name)

    def name_of(self, name: str) -> str | None:
        """How the best entry is called; None for none."""
        if self._exact.find(name) >= 0:
            return name
        labels = name.split(".")
        above = (".".join(labels[first:]) for first in range(1, len(labels) + 1))
        return next((f"*.{suffix}" if suffix else "*" for suffix in above if self._below.find(suffix) >= 0), None)


class _Texts:
    """Texts by number, in one piece."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._ends = array("Q", (0,))
        pieces = []
        for text in texts:
            pieces.append(text)
            self._ends.append(self._ends[-1] + len(text))
        self._text = "".join(pieces)

    def __getitem__(self, number: int) -> str:
        return self._text[self._ends[number] : self._ends[number + 1]]


class DomainTable:
    """Immutable, picklable; made by `Merging.table`.

    sections: by listener. texts: of the parameters, by the numbers in the sections. files: the names of those that it
    was made of.
    """

    def __init__(self, sections: dict[str, _Section], texts: _Texts, files: tuple[str, ...]) -> None:
        self.files = files
        self._sections = sections
        self._texts = texts
        self._everywhere = sections.get(EVERYWHERE)
        self._some_ports = any(listener.rpartition(":")[0] in _UNSPECIFIED for listener in sections)
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        return sum(map(len, self._sections.values()))

    def __reduce__(self) -> tuple[type[DomainTable], tuple[Any, ...]]:
        return DomainTable, (self._sections, self._texts, self.files)

    def answer(self, domain: str, listener: str, conn: ConnMeta) -> Known:
        """What is granted, as Policy.listener_domain has it: a ListenerDomain, or None grants nothing."""
        entry = self.entry(domain, listener, conn, None)
        return _NOTHING if entry is None else entry.known

    def entry(self, domain: str, listener: str, conn: ConnMeta, evaluation: Evaluation | None) -> Entry | None:
        """The same as an Entry. domain: normalised. evaluation: is told what was looked at."""
        number = self._number(domain, listener)
        if number < 0:
            return None
        entry = self._entries.get(number)
        if entry is None:
            entry = self._made(number)
        if entry.users and _seen(conn, "authz_id", evaluation) in entry.users:
            return entry.from_here(_seen(conn, "received_from", evaluation))
        return entry

    def name_of(self, domain: str, listener: str) -> tuple[str, str] | None:
        """The section of a listener and the name in it that decide about a domain; None where nothing does."""
        address, _, port = listener.rpartition(":")
        for section in (listener, f"{_UNSPECIFIED[address[:1] == '[']}:{port}", EVERYWHERE):
            if section in self._sections:
                name = self._sections[section].name_of(domain)
                if name is not None:
                    return section, name
        return None

    def _number(self, domain: str, listener: str) -> int:
        section = self._sections.get(listener)
        if section is not None:
            number = section.find(domain)
            if number >= 0:
                return number
        if self._some_ports:
            address, _, port = listener.rpartition(":")
            section = self._sections.get(f"{_UNSPECIFIED[address[:1] == '[']}:{port}")
            if section is not None:
                number = section.find(domain)
                if number >= 0:
                    return number
        return -1 if self._everywhere is None else self._everywhere.find(domain)

    def _made(self, number: int) -> Entry:
        if len(self._entries) >= ENTRIES:
            self._entries.clear()
        entry = self._entries[number] = Entry(LISTENER_CONFIG.read(as_table(json.loads(self._texts[number]))))
        return entry


def _seen(conn: ConnMeta, key: str, evaluation: Evaluation | None) -> Any:
    value = conn.values.get(key)
    if evaluation is not None:
        evaluation.read(conn, key, value)
    return value


class Merging:
    """Files on their way into a table: the parameters of a later one stand over those of an earlier one. problems: what
    is wrong with them, with file and line."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.listeners: dict[str, Domains] = {}
        self._checked: dict[int, dict[str, Any]] = {}  # parameters that are good by the object's id
        self._overlays: dict[tuple[int, int], dict[str, Any]] = {}
        self._kept: list[object] = []  # whose ids are keys

    def add(self, text: Text, groups: Iterable[Group]) -> None:
        """One more file."""
        found: dict[str, Domains] = {}
        for group in groups:
            here = found.setdefault(group.listener, {})
            for name, values in group.domains.items():
                known = self._checked.get(id(values))
                if known is None:
                    known = self._values(text, Parameters(group.listener, name, values))
                is_plain = _PLAIN.fullmatch(name) is not None
                domain = name if is_plain else self._domain(text, Parameters(group.listener, name))
                if known is not None:
                    here[domain] = known
        for listener, domains in found.items():
            merged = self.listeners.setdefault(listener, {})
            for domain, values in domains.items() if merged else ():
                if domain in merged:
                    domains[domain] = self._overlay(merged[domain], values)
            merged.update(domains)

    def table(self, files: Iterable[str]) -> DomainTable:
        """The table of all of them."""
        numbers: dict[str, int] = {}  # of parameters by their text
        known: dict[int, int] = {}  # the same by the object, of which there are few where there are many domains
        sections = {}
        for listener, domains in self.listeners.items():
            exact, below = {}, {}
            for domain, values in domains.items():
                number = known.get(id(values))
                if number is None:
                    number = known[id(values)] = numbers.setdefault(json.dumps(values, sort_keys=True), len(numbers))
                if domain == "*" or domain.startswith("*."):
                    below[domain[2:]] = number
                else:
                    exact[domain] = number
            sections[listener] = _Section(PackedNames(exact), PackedNames(below))
        return DomainTable(sections, _Texts(numbers), tuple(files))

    def _domain(self, text: Text, one: Parameters) -> str:
        if len(one.domain) > LONGEST or not one.domain.isprintable():
            self._note(text, one, refusal("this is no domain"))
        return normalised(one.domain)

    def _values(self, text: Text, one: Parameters) -> dict[str, Any] | None:
        values = one.values
        try:
            LISTENER_CONFIG.read(as_table(values))
        except BadOptions as bad:
            self._note(text, one, bad)
            return None
        assert isinstance(values, dict)
        self._checked[id(values)] = values
        return values

    def _note(self, text: Text, one: Parameters, bad: BadOptions) -> None:
        for trouble in bad.troubles:
            if len(self.problems) < PROBLEMS:
                self.problems.append(text.problem(one, str(trouble), trouble.keys, trouble.hint))

    def _overlay(self, below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        key = id(below), id(above)
        merged = self._overlays.get(key)
        if merged is None:
            merged = self._overlays[key] = {**below, **above}
            self._kept += (below, above, merged)
        return merged
