"""Outside: what the functions of this package are given; Lasting: an answer that holds for a time; Several: results."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.policy.background import Background
from gateway.policy.options import Schema

T = TypeVar("T")

log = logging.getLogger("gateway.policy")


@dataclass(frozen=True, slots=True)
class Outside:
    """For one Lua state.

    background: where what takes time goes on. clock: the policy's, in seconds. loading: whether the policy is being
    loaded. settings: what the policy has configured, by module. count: adds one in a slot of the metrics. secrets:
    what vaults have said while the policy was loaded.
    """

    background: Background
    clock: Callable[[], float]
    loading: Callable[[], bool]
    settings: dict[str, Any] = field(default_factory=dict)
    count: Callable[[int], None] = lambda slot: None
    secrets: dict[str, bytes] = field(default_factory=dict)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What a function returns that may block, called in a thread."""
        return await asyncio.wrap_future(self.background.threads.submit(work))


@dataclass(frozen=True, slots=True)
class Lasting:
    """An answer that holds for so many seconds. results: what the function returns, one or several values."""

    results: tuple[Any, ...]
    seconds: float


class Several(tuple[Any, ...]):
    """Several results, which may be others at any time."""


class Unavailable(ValueError):
    """A mistake that is an answer, too: it holds for so many seconds."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


def read_options(schema: Schema, table: Any) -> Any:
    """A table of options, checked; nothing is an empty one. Raises BadOptions."""
    return schema({} if table is None or table == [] else table)


def read_known_options(function: str, schema: Schema, table: Any) -> Any:
    """The same of a table whose unknown options KumoMTA does not look at, so that there are files with some: they are
    named in the log, and left out.
    """
    if isinstance(table, dict):
        unknown = sorted(name for name in table if name not in schema.options)
        if unknown:
            log.warning("%s: unknown options, which do nothing: %s", function, ", ".join(unknown))
        table = {name: value for name, value in table.items() if name in schema.options}
    return read_options(schema, table)
