"""`require 'sqlite'`: databases in files.

Queries run in threads, one at a time for a connection; while the policy is loaded they run where they are called, since
nobody else is kept waiting. A query that nobody waits for any more is interrupted.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from gateway.policy.kumo.values import Objects, binary, described, integer, string, text_of
from gateway.policy.outside.outside import Outside

BUSY_TIMEOUT = 500  # milliseconds
MOST_ROWS = 100_000
_READS = re.compile(r"\s*(?:select|with|values|pragma|explain)\b|.*\breturning\b", re.IGNORECASE | re.DOTALL)
INTERRUPT_AGAIN = 0.05  # seconds: an interrupt between two steps of a query is lost


class SqliteDatabase:
    """One connection to a database."""

    def __init__(self, outside: Outside, path: str, busy_timeout: int) -> None:
        """Raises ValueError."""
        self.outside = outside
        self.path = path
        self.lock = asyncio.Lock()
        try:
            self.connection = sqlite3.connect(
                path, timeout=busy_timeout / 1000, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise ValueError(f"open: {path}: {error}") from None
        self.connection.text_factory = text_of

    def __del__(self) -> None:
        with suppress(AttributeError, sqlite3.Error):
            self.connection.close()

    def run(self, sql: str, parameters: Any) -> Any:
        """Rows: their values where there is one column, else by its names. Without columns, how many were changed."""
        try:
            cursor = self.connection.execute(sql, parameters)
            rows = cursor.fetchmany(MOST_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise ValueError(f"execute: {error}") from None
        if len(rows) > MOST_ROWS:
            raise ValueError(f"execute: the query gives more than {MOST_ROWS} rows")
        if cursor.description is None:
            return max(0, cursor.rowcount)
        names = [column[0] for column in cursor.description]
        if len(names) == 1:
            return [_outward(value) for (value,) in rows]
        return [{name: _outward(value) for name, value in zip(names, row, strict=True)} for row in rows]


def open_database(
    outside: Outside, path: Any, busy_timeout: Any = None
) -> SqliteDatabase | Coroutine[Any, Any, SqliteDatabase]:
    """A connection to the database in a file; how many milliseconds to wait for others that use it"""
    patience = BUSY_TIMEOUT if busy_timeout is None else integer(busy_timeout, "open")
    name = string(path, "open")
    if not outside.background.may_ask(f"the database {name}"):
        stand_in = SqliteDatabase(outside, ":memory:", 0)
        stand_in.path = name
        return stand_in
    work = partial(SqliteDatabase, outside, name, max(0, patience))
    return work() if outside.loading() else _in_thread(outside, work, lambda: None)


def _execute(database: SqliteDatabase, sql: Any, *parameters: Any) -> Any:
    query = string(sql, "execute")
    given: Any = parameters
    if len(parameters) == 1 and isinstance(parameters[0], dict | list):
        given = parameters[0]
    if isinstance(given, dict):
        given = {name: _inward(value) for name, value in given.items()}
    else:
        given = [_inward(value) for value in given]
    if not database.outside.background.may_ask(f"the database {database.path}"):
        return [] if _READS.match(query) else 0
    work = partial(database.run, query, given)
    return work() if database.outside.loading() else _alone(database, work)


async def _alone(database: SqliteDatabase, work: Callable[[], Any]) -> Any:
    async with database.lock:
        return await _in_thread(database.outside, work, database.connection.interrupt)


async def _in_thread(outside: Outside, work: Callable[[], Any], interrupt: Callable[[], None]) -> Any:
    """What `work` returns; when nobody waits for it any more it is interrupted, and then waited for."""
    job: Future[Any] = outside.background.threads.submit(work)
    try:
        return await asyncio.wrap_future(job)
    except asyncio.CancelledError:
        while not job.done():
            with suppress(sqlite3.Error):
                interrupt()
            await asyncio.sleep(INTERRUPT_AGAIN)
        raise


def _close(database: SqliteDatabase) -> Any:
    return database.connection.close() if database.outside.loading() else _alone(database, database.connection.close)


def _inward(value: Any) -> Any:
    """A Lua value as SQLite's: octets that are no UTF-8 are a BLOB."""
    if isinstance(value, dict | list):
        raise ValueError(f"execute: a parameter is {described(value)}")
    if isinstance(value, str):
        octets = binary(value)
        with suppress(UnicodeDecodeError):
            return octets.decode()
        return octets
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"execute: a parameter is {described(value)}")


def _outward(value: Any) -> Any:
    return text_of(value) if isinstance(value, bytes) else value


FUNCTIONS: dict[str, Callable[..., Any]] = {"open": open_database}
OBJECTS: Objects = {SqliteDatabase: ({"execute": _execute, "close": _close}, {})}
WAITING = frozenset({"sqlite.open", "SqliteDatabase:execute", "SqliteDatabase:close"})
