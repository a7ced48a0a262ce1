"""From a record to the bytes of a segment: which metadata and headers a logger shows, JSON, templates. No I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import orjson
from jinja2 import TemplateError

from gateway._fastpath import JsonLine

__all__ = ["GAP", "Draft", "Form", "Record", "Selection", "Template", "TemplateError", "laid_out", "to_json"]

# Stands in a layout for a value that every record has its own of. The octet is one that JSON text never has.
GAP = orjson.Fragment(b"\0")
EMPTY = b"{}"
_HEADERS = b',"headers":'


class Form:
    """What a type's records have in common: the JSON around their gaps, encoded once.

    layout: all keys in their order; GAP where the values differ, and for `meta` and `headers`, which are neighbours.
    """

    def __init__(self, layout: Mapping[str, Any]) -> None:
        self.type = layout["type"]
        self.pieces = tuple((to_json(layout) + b"\n").split(b"\0"))


class Record:
    """One record. Whether `meta` and `headers` are shown is each logger's business, so these two are put in by whoever
    asks for the line.

    meta: all of the metadata. line: the record with both of them empty. behind_meta: the index in it where `meta` ends.
    """

    def __init__(self, type: str, meta: Mapping[str, Any], line: bytes, behind_meta: int) -> None:
        self.type = type
        self.meta = meta
        self._line = line
        self._behind_meta = behind_meta

    def line(self, meta: bytes = EMPTY, headers: bytes = EMPTY) -> bytes:
        """The record as one line of JSON, whatever policy and peers put into it. meta, headers: JSON objects."""
        if meta is EMPTY and headers is EMPTY:
            return self._line
        before = self._line[: self._behind_meta - len(EMPTY)]
        behind = self._line[self._behind_meta + len(_HEADERS) + len(EMPTY) :]
        return b"".join((before, meta, _HEADERS, headers, behind))


class Draft(JsonLine):
    """A record under way: a form whose gaps are filled in their order. One draft serves for any number of records."""

    def begin(self, form: Form) -> None:
        """Begins a record. What was under way is given up."""
        self._type = form.type
        self.start(form.pieces)

    def leave_out_meta_and_headers(self) -> None:
        """Fills these two gaps."""
        self.json(EMPTY)
        self._behind_meta = self.size
        self.json(EMPTY)

    def record(self, meta: Mapping[str, Any]) -> Record:
        """The record, once all gaps are filled. meta: all of the metadata."""
        return Record(self._type, meta, self.finish(), self._behind_meta)


def laid_out(layout: Mapping[str, Any], meta: Mapping[str, Any]) -> Record:
    """The record of a layout whose only gaps are those of `meta` and `headers`."""
    draft = Draft()
    draft.begin(Form(layout))
    draft.leave_out_meta_and_headers()
    return draft.record(meta)


class Selection:
    """The `meta` and `headers` lists of a logger: names, or beginnings of names with a trailing `*`.

    Names of metadata are compared exactly, names of headers without case.
    """

    def __init__(self, meta: Sequence[str], headers: Sequence[str]) -> None:
        self._meta_names, self._meta_starts = _patterns(meta)
        self._header_names, self._header_starts = _patterns([name.lower() for name in headers])
        self.shows_meta = bool(meta)
        self.shows_headers = bool(headers)

    def meta(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The selected metadata."""
        names, starts = self._meta_names, self._meta_starts
        return {k: v for k, v in values.items() if k in names or k.startswith(starts)}

    def headers(self, fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """The selected header fields under the spelling met first; a repeated field becomes a list."""
        names, starts = self._header_names, self._header_starts
        spelling: dict[str, str] = {}
        selected: dict[str, Any] = {}
        for name, value in fields:
            folded = name.lower()
            if folded not in names and not folded.startswith(starts):
                continue
            if folded not in spelling:
                spelling[folded] = name
                selected[name] = value
            elif isinstance(known := selected[spelling[folded]], list):
                known.append(value)
            else:
                selected[spelling[folded]] = [known, value]
        return selected


def _patterns(patterns: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    exact = frozenset(pattern for pattern in patterns if not pattern.endswith("*"))
    return exact, tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))


def to_json(value: Any) -> bytes:
    """JSON of anything at all."""
    try:
        return orjson.dumps(value)
    except TypeError:  # lone surrogates, integers beyond 64 bits, keys that are no strings
        return orjson.dumps(_plain(value))


def _plain(value: Any) -> Any:
    """The value with everything that JSON cannot hold replaced by text, or null for what is not finite."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or value is GAP or isinstance(value, bool):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    return str(value)


class Template:
    """A `per_record` template (Jinja): the record's fields are its variables, and `log_record` is the record.

    Raises TemplateError where the text is no template.
    """

    __slots__ = ("_template",)

    def __init__(self, text: str) -> None:
        self._template = _ENVIRONMENT.from_string(text)

    def render(self, line: bytes) -> bytes:
        """What stands in the segment for the record in `line`, with a newline at its end.

        Raises whatever the template raises.
        """
        record = orjson.loads(line)
        text = self._template.render(record, log_record=record)
        return (text if text.endswith("\n") else text + "\n").encode("utf-8", "replace")


def as_kumomta_prints(value: Any) -> Any:
    """A value in a template: maps and lists as JSON with sorted keys, the rest in minijinja's words."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return {None: "none", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else value


_ENVIRONMENT = jinja2.Environment(autoescape=False, keep_trailing_newline=True, finalize=as_kumomta_prints)
