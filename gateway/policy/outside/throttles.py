"""`kumo.make_throttle`: how often something may happen, by the Generic Cell Rate Algorithm.

A throttle's state is one moment: when it would be unused again if nothing more happened. It is kept by name, for all
workers, or in a Redis server for all that share one; while that does not answer, the workers' own counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway import metrics
from gateway.policy.kumo.values import Objects, string
from gateway.policy.outside import redis
from gateway.policy.outside.outside import Outside
from gateway.policy.outside.redis import RedisConnection
from gateway.quotas import Turn
from gateway.rates import Rate

log = logging.getLogger("gateway.policy")

MOST = 100_000  # names whose state is kept
_FALLBACKS = {cause: metrics.THROTTLE_FALLBACKS.slot(cause) for cause in ("timeout", "error")}


class Throttles:
    """The state of throttles by name, in one process: when each will be unused again."""

    def __init__(self) -> None:
        self._unused_at: dict[str, float] = {}

    def turn(self, name: str, rate: Rate, now: float) -> Turn:
        """Counts one more, if it may come."""
        before = max(now, self._unused_at.get(name, now))
        after = before + rate.interval
        tolerance = rate.interval * rate.burst
        too_soon = after - tolerance - now
        if too_soon > rate.interval * 1e-9:  # what rounding leaves is no time
            return Turn(0, before - now, too_soon)
        if name not in self._unused_at and len(self._unused_at) >= MOST:
            self._make_room(now)
        self._unused_at[name] = after
        return Turn(int((tolerance - (after - now)) / rate.interval + 1e-9), after - now, None)

    def _make_room(self, now: float) -> None:
        """Forgets what is unused; where that is not enough, what will be so first."""
        used = sorted((item for item in self._unused_at.items() if item[1] > now), key=lambda item: -item[1])
        self._unused_at = dict(used[: MOST * 9 // 10])


# The same as Throttles.turn, in the server and by its clock.
_SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local before = math.max(now, tonumber(redis.call('GET', KEYS[1]) or now))
local after = before + interval
local too_soon = after - tolerance - now
if too_soon > interval * 1e-6 then
  return { 0, string.format('%.6f', before - now), string.format('%.6f', too_soon) }
end
local lasts = math.max(1, math.ceil((after - now) * 1000))
redis.call('SET', KEYS[1], string.format('%.6f', after), 'PX', string.format('%d', lasts))
return { math.floor((tolerance - (after - now)) / interval + 1e-6), string.format('%.6f', after - now) }
"""
_SHARED = "redis throttles"  # where the settings keep who shares them


@dataclass(frozen=True, slots=True)
class Throttle:
    """A named throttle with its rate."""

    outside: Outside
    name: str
    rate: Rate

    async def turn(self) -> Turn:
        """Counts one more, if it may come."""
        shared: RedisConnection | None = self.outside.settings.get(_SHARED)
        if shared is not None and not self.rate.local:
            interval, tolerance = self.rate.interval, self.rate.interval * self.rate.burst
            try:
                found = await redis.ask(shared, "EVAL", _SCRIPT, 1, f"throttle:{self.name}", interval, tolerance)
                return Turn(int(found[0]), float(found[1]), float(found[2]) if len(found) > 2 else None)
            except (ValueError, TypeError, LookupError) as error:
                self.outside.count(_FALLBACKS["timeout" if isinstance(error, redis.TimedOut) else "error"])
                log.warning("shared throttles do not answer, this machine counts by itself: %s", error)
        return self.turn_here()

    def turn_here(self) -> Turn:
        """The same on this machine alone, or in this worker."""
        if self.outside.background.is_rehearsal:
            return Turn(self.rate.burst, 0.0, None)
        quotas = self.outside.background.quotas
        if quotas is not None and not self.rate.local:
            return quotas.take("throttle", self.name, self.rate)
        throttles = self.outside.background.kept("throttles", Throttles, _nothing)
        return throttles.turn(self.name, self.rate, self.outside.clock())

    @property
    def is_shared(self) -> bool:
        """Whether somebody has to be asked."""
        return not self.rate.local and _SHARED in self.outside.settings


async def _nothing(_: object) -> None:
    pass


def make_throttle(outside: Outside, name: Any, spec: Any) -> Throttle:
    """A throttle; those of one name count together. `spec` is `[local:]quantity/period[,max_burst=burst]`"""
    return Throttle(outside, string(name, "make_throttle"), Rate.read(string(spec, "make_throttle")))


def configure_redis_throttles(outside: Outside, options: Any) -> None:
    """Throttles that are not `local:` are shared by all that ask this Redis server; only while the policy is loaded"""
    if not outside.loading():
        raise ValueError("it must be called while the policy is loaded, in init")
    outside.settings[_SHARED] = redis.open_connection(outside, options, response_timeout=redis.THROTTLE_TIMEOUT)


def _throttle(throttle: Throttle) -> Any:
    if throttle.is_shared:
        return _asked(throttle)
    return _told(throttle, throttle.turn_here())


async def _asked(throttle: Throttle) -> dict[str, Any]:
    return _told(throttle, await throttle.turn())


def _told(throttle: Throttle, turn: Turn) -> dict[str, Any]:
    return {
        "throttled": turn.retry_after is not None,
        "limit": throttle.rate.burst,
        "remaining": turn.remaining,
        "reset_after": turn.reset_after,
        "retry_after": turn.retry_after,
    }


async def _sleep_if_throttled(throttle: Throttle) -> bool:
    waited = False
    while (turn := await throttle.turn()).retry_after is not None:
        waited = True
        await asyncio.sleep(turn.retry_after)
    return waited


def _delay_message(throttle: Throttle, message: Any = None) -> None:
    raise ValueError("messages are not delayed by relay-gateway: it hands over at once")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (make_throttle, configure_redis_throttles)
}
OBJECTS: Objects = {
    Throttle: (
        {
            "throttle": _throttle,
            "sleep_if_throttled": _sleep_if_throttled,
            "delay_message_if_throttled": _delay_message,
        },
        {},
    )
}
WAITING = frozenset({"Throttle:throttle", "Throttle:sleep_if_throttled"})
