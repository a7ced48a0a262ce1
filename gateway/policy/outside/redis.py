"""`require 'redis'`: commands to a Redis server. The client library is there with the extra `redis` only."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.policy.kumo.values import Objects, binary, described, string, text_of
from gateway.policy.options import Option, Schema, accepted, boolean, duration, integer, mismatch, refused
from gateway.policy.options import string as text
from gateway.policy.outside.outside import Outside, read_known_options

if TYPE_CHECKING:
    from redis.asyncio import Redis

THROTTLE_TIMEOUT = 2.0  # seconds for an answer about a throttle, unless the policy says otherwise


class TimedOut(ValueError):
    """No answer in time."""


def _node(value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not value.startswith(("redis://", "rediss://", "unix://")):
        raise mismatch("the URL of one server such as 'redis://127.0.0.1/'", value)
    return value


OPEN = Schema(
    {
        "node": Option(_node, required=True),
        "pool_size": Option(integer(1), default=10),
        "connect_timeout": Option(duration, default=30.0),
        "wait_timeout": Option(duration, default=30.0),
        "response_timeout": Option(duration),
        "cluster": refused("clusters are not asked", False),
        "read_from_replicas": accepted(boolean),
        "recycle_timeout": accepted(duration),
        "username": Option(text),
        "password": Option(text),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class RedisConnection:
    """What is known about a server; the connections to it are the process's."""

    outside: Outside
    options: dict[str, Any]

    @property
    def asks(self) -> str:
        """Whom it asks, as it may be shown: without a password."""
        parts = urlsplit(self.options["node"])
        return f"Redis at {parts.netloc.rpartition('@')[2] or parts.path}"


def open_connection(outside: Outside, options: Any, response_timeout: float | None = None) -> RedisConnection:
    """A server to ask; a connection is made when the first question is."""
    try:
        import redis.asyncio  # noqa: F401
    except ImportError:
        raise ValueError("the client library is not installed: pip install 'relay-gateway[redis]'") from None
    read = read_known_options("redis.open", OPEN, options)
    return RedisConnection(outside, {"response_timeout": response_timeout, **read})


def open_redis(outside: Outside, options: Any) -> RedisConnection:
    """A Redis server to ask; its options are a table"""
    return open_connection(outside, options)


async def ask(connection: RedisConnection, *command: Any) -> Any:
    """What the server answers to a command, as Lua has it. Raises ValueError."""
    import redis.exceptions

    if not connection.outside.background.may_ask(connection.asks):
        return None
    try:
        client: Any = _client(connection)
        return _outward(await client.execute_command(*command))
    except redis.exceptions.TimeoutError as error:
        raise TimedOut(f"{str(command[0]).upper()}: {error}") from None
    except (redis.exceptions.RedisError, OSError) as error:
        raise ValueError(f"{str(command[0]).upper()}: {error}") from None


def _client(connection: RedisConnection) -> Redis:
    from redis.asyncio import BlockingConnectionPool, Redis

    options = connection.options

    def make() -> Redis:
        pool: Any = BlockingConnectionPool.from_url(
            options["node"],
            max_connections=options["pool_size"],
            timeout=options["wait_timeout"],
            socket_connect_timeout=options["connect_timeout"],
            socket_timeout=options["response_timeout"],
            protocol=2,  # older servers know no other
        )
        pool.connection_kwargs.update({name: options[name] for name in ("username", "password") if name in options})
        client = Redis.from_pool(pool)
        client.response_callbacks.clear()  # answers as the server gives them
        return client

    return connection.outside.background.kept(f"redis {json.dumps(options)}", make, Redis.aclose)


async def _query(connection: RedisConnection, *command: Any) -> Any:
    if not command:
        raise ValueError("query: expected a command")
    return await ask(connection, string(command[0], "query"), *map(_inward, command[1:]))


def _inward(value: Any) -> Any:
    if isinstance(value, str):
        return binary(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError(f"query: an argument is {described(value)}")


def _outward(value: Any) -> Any:
    if isinstance(value, bytes):
        return text_of(value)
    if isinstance(value, list | tuple | set):
        return [_outward(item) for item in value]
    if isinstance(value, dict):
        return {_outward(key): _outward(item) for key, item in value.items()}
    if isinstance(value, Exception):
        raise ValueError(str(value))
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {"open": open_redis}
OBJECTS: Objects = {RedisConnection: ({"query": _query}, {})}
WAITING = frozenset({"RedisConnection:query"})
