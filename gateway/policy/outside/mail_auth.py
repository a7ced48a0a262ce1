"""`msg:dkim_verify`, `msg:arc_verify`: signatures of a message, with keys from the DNS; verified in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from gateway.mail.message import Message
from gateway.policy.outside.lookups import lookup_txt
from gateway.policy.outside.outside import Outside, Unavailable


async def dkim_verify(outside: Outside, message: Message, resolver: Any = None) -> list[dict[str, Any]]:
    """A result for each DKIM signature, the topmost first; ten of them are looked at."""
    from gateway.mail import authentication

    data = message.data()
    keys = await _keys(outside, authentication.signature_names(data)["dkim"], resolver)
    return await asyncio.to_thread(authentication.verify_dkim, data, keys)


async def arc_verify(outside: Outside, message: Message, resolver: Any = None) -> dict[str, Any]:
    """The state of the chain of ARC seals: none, pass or fail."""
    from gateway.mail import authentication

    data = message.data()
    keys = await _keys(outside, authentication.signature_names(data)["arc"], resolver)
    return await asyncio.to_thread(authentication.verify_arc, data, keys)


async def _keys(outside: Outside, names: Iterable[str], resolver: Any) -> dict[str, Any]:
    return dict(await asyncio.gather(*map(partial(_key, outside, resolver), names)))


async def _key(outside: Outside, resolver: Any, name: str) -> tuple[str, Any]:
    """A name with its key; None where there is none, a NoAnswer where nobody knows."""
    from gateway.mail.authentication import NoAnswer

    try:
        answer = await lookup_txt(outside, name, resolver)
    except Unavailable:
        return name, None
    except ValueError as error:
        return name, NoAnswer(str(error))
    return name, next(iter(answer.results[0]), None)


FUNCTIONS: dict[str, Callable[..., Any]] = {"dkim_verify": dkim_verify, "arc_verify": arc_verify}
