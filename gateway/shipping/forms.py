"""Which records a shipment wants, and what is sent of them: filters and templates. No I/O.

A record is only parsed where something has to be known of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import orjson
from jinja2 import Environment, TemplateError

from gateway.logs.encoding import Template
from gateway.shipments import RecordForm, Shipment
from gateway.shipping.dispatch import Parcel

log = logging.getLogger("gateway.shipping")

_TYPE = re.compile(rb'\{"type":"(\w+)"')  # records begin with it
_TIMESTAMP = re.compile(rb'"timestamp":(\d+)')
_ANY = "Any"
_AS_IT_IS = RecordForm()


_EXPRESSIONS = Environment(autoescape=False)  # no HTML here


__all__ = ["FieldText", "Forms", "TemplateError", "condition"]


def condition(text: str) -> Callable[[dict[str, Any]], bool]:
    """An expression over a record's fields, such as `response.code >= 500`. Raises TemplateError."""
    expression = _EXPRESSIONS.compile_expression(text)
    return lambda record: bool(expression(record, log_record=record))


class FieldText:
    """A topic, subject or key: a text, or a template over a record's fields."""

    def __init__(self, text: str) -> None:
        """Raises TemplateError."""
        self.varies = "{{" in text or "{%" in text
        self._text = text
        self._template = Template(text) if self.varies else None

    def of(self, line: bytes) -> str:
        """For one record. Raises whatever the template raises."""
        if self._template is None:
            return self._text
        return self._template.render(line).decode().strip()


class Forms:
    """What a shipment makes of lines."""

    def __init__(self, shipment: Shipment, topic: str = "", key: str = "") -> None:
        """topic, key: as the sink wants them. Raises TemplateError."""
        self._topic, self._key = FieldText(topic), FieldText(key)
        self._forms = {kind: _Form(form) for kind, form in shipment.per_record.items()}
        self._others = self._forms.get(_ANY, _Form(_AS_IT_IS))
        self._wanted = condition(shipment.where) if shipment.where else None

    def parcel(self, id: str, line: bytes, opened: float) -> Parcel | None:
        """What is sent of a line; None for nothing. opened: when its segment was; seconds since 1970."""
        form = self._others
        if self._forms and (found := _TYPE.match(line)):
            form = self._forms.get(found[1].decode(), self._others)
        if not form.enable or not self._is_wanted(line):
            return None
        try:
            body = form.template.render(line).rstrip(b"\n") if form.template else line
            topic, key = self._topic.of(line), self._key.of(line)
        except Exception as error:  # whatever a template does, its record is kept
            log.error("a template failed; the record is shipped as it is: %s", error)
            body, topic, key = line, self._plain(self._topic), ""
        when = _TIMESTAMP.search(line)
        return Parcel(id, body, topic, key, max(opened, float(when[1]) if when else 0.0))

    def _plain(self, text: FieldText) -> str:
        return "unknown" if text.varies else text.of(b"")

    def _is_wanted(self, line: bytes) -> bool:
        if self._wanted is None:
            return True
        try:
            record = orjson.loads(line)
            return self._wanted(record if isinstance(record, dict) else {})
        except (orjson.JSONDecodeError, TemplateError, TypeError, ValueError, ArithmeticError) as error:
            log.error("a condition failed; the record is shipped: %s", error)
            return True


class _Form:
    def __init__(self, form: RecordForm) -> None:
        self.enable = form.enable
        self.template = Template(form.template) if form.template is not None else None
