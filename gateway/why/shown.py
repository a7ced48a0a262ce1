"""Values of a policy as JSON: what handlers were given, what they read and returned."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from typing import Any

from gateway.config import Maildir, SmtpFleet
from gateway.mail.message import Message
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import NEVER, Evaluation
from gateway.policy.engine import Identity
from gateway.policy.listener import Block
from gateway.policy.messages.handle import MessageHandle
from gateway.policy.objects import lua_option
from gateway.policy.runtime import inward
from gateway.smtp.address import EnvelopeAddress


def shown_result(value: object) -> Any:
    """What a handler's answer means to the gateway. Of a configuration the options that are not the default; of
    computed parameters what is in no `peer` or `via` block.
    """
    if isinstance(value, Identity):
        return value._asdict()
    if isinstance(value, Block):
        return {**shown_result(value.plain), **({"meta": dict(value.meta)} if value.meta else {})}
    if isinstance(value, EnvelopeAddress):
        return value.email
    if isinstance(value, Maildir):
        return {"maildir_path": value.path}
    if isinstance(value, SmtpFleet):
        return {"smtp": {"mx_list": [host.name for host in value.mx_list]}}
    if isinstance(value, Mapping):
        return {str(key): shown_result(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        options = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        return {
            field.name: shown_result(options[field.name])
            for field in fields(value)
            if field.init and options[field.name] != _default(field)
        }
    if isinstance(value, tuple | list):
        return [shown_result(item) for item in value]
    return lua_option(value)


def _default(field: Field[Any]) -> object:
    return None if field.default is NO_DEFAULT else field.default


def shown_arguments(arguments: Iterable[object]) -> list[Any]:
    """What handlers were given: plain values as they are, of the rest what it is."""
    return [_argument(value) for value in arguments]


def _argument(value: object) -> Any:
    if isinstance(value, ConnMeta):
        return "conn_meta"
    if isinstance(value, Message | MessageHandle):
        return "message"
    if isinstance(value, EnvelopeAddress):
        return value.email
    if isinstance(value, str):
        return inward(value)
    return value if value is None or isinstance(value, bool | int | float) else "…"


def shown_reads(evaluation: Evaluation) -> dict[str, Any]:
    """The metadata that a handler read, by its keys."""
    return {key: _thawed(value) for key, value in evaluation.reads.items()}


def _thawed(value: object) -> Any:
    """What decision_cache.frozen() was given."""
    if not isinstance(value, tuple):
        return value
    kind, text = value
    if kind == "json":
        return json.loads(text)
    return {"True": True, "False": False}.get(text, json.loads(text) if text[-1:].isdigit() else text)


def cacheable(evaluation: Evaluation) -> bool:
    """Whether the answer would be the same for everybody of whom the same is known, for a time at least."""
    return bool(evaluation.stable)


def lasts(evaluation: Evaluation, now: float) -> float | None:
    """For how many seconds; None for ever."""
    return None if evaluation.expires == NEVER else max(0.0, evaluation.expires - now)
