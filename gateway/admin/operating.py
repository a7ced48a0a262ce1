"""What an operator may change over HTTP: members drained, spooled messages tried or held. Only with the token in the
file that `run --operator-token-file` names; without such a file, nothing.

It is the supervisor that drains, and the spool's owner that tries and holds: they are asked. The token is in no log.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from aiohttp import web

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.admin.context import Means
from gateway.admin.html import CONTENT_SECURITY, text_page
from gateway.couriers.spool.command import NotDone, carry_out_in
from gateway.couriers.spool.orders import Order
from gateway.inbound.complaints import Complaints
from gateway.terminal import printable

LEAST_TOKEN = 16  # characters: what is shorter can be guessed
PATIENCE = 30.0  # seconds for whoever is asked
_BEARER = "bearer "

log = logging.getLogger(__name__)


def token_in(path: str) -> bytes:
    """The token in a file. Raises OSError, ValueError where it is none; the text does not have it."""
    token = Path(path).read_bytes().strip()
    if len(token) < LEAST_TOKEN:
        raise ValueError(f"{path}: a token has {LEAST_TOKEN} characters at least")
    return token


class Operating:
    """The answers to POST. means: None where nothing may be changed. thread: for what takes time. page: of the process,
    to count on.
    """

    def __init__(self, means: Means | None, thread: Executor, page: CounterPage) -> None:
        self._means, self._thread, self._page = means, thread, page
        self._complaints = Complaints(log, logging.WARNING)
        if means is not None:
            try:
                token_in(means.token_file)
            except (OSError, ValueError) as error:
                log.error("nobody can change anything over HTTP: %s", error)

    async def fleet(self, request: web.Request) -> web.Response:
        """POST /operator/fleet: do=drain or undrain, member=NAME."""
        means, form = await self._admitted(request)
        action, member = form.get("do", ""), form.get("member", "")
        if action not in ("drain", "undrain") or not member:
            raise web.HTTPBadRequest(text="expected do=drain or do=undrain, and member=NAME\n")
        return await self._do(
            request, f"{action} {member}", lambda: means.ask({"ask": "fleet", "do": action, "member": member})
        )

    async def spool(self, request: web.Request) -> web.Response:
        """POST /operator/spool: do=retry or hold; id=ID, queue=NAME, or all=yes."""
        means, form = await self._admitted(request)
        action, number, queue = (form.get(name, "") for name in ("do", "id", "queue"))
        if action not in ("retry", "hold") or not (number or queue or form.get("all")):
            raise web.HTTPBadRequest(text="expected do=retry or do=hold, and id=ID, queue=NAME or all=yes\n")
        directory = means.spool
        if directory is None:
            raise web.HTTPConflict(text="the policy has no spool\n")
        order = Order(what=action, ids=[number] if number else None, queue=queue or None)
        what = f"{action} what the spool has" + (f" of queue {queue}" if queue else f" as {number}" if number else "")

        def ordered() -> tuple[bool, list[str]]:
            done = carry_out_in(directory, order, PATIENCE)
            return done > 0, [f"{done} {'message' if done == 1 else 'messages'}"]

        return await self._do(request, what, ordered)

    async def _admitted(self, request: web.Request) -> tuple[Means, dict[str, str]]:
        """The form of who has the token. Raises HTTPForbidden for anybody else."""
        if self._means is None:
            raise web.HTTPForbidden(text="nothing can be changed here: the service has no --operator-token-file\n")
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        header = request.headers.get("Authorization", "")
        bearer = header[len(_BEARER) :] if header.lower().startswith(_BEARER) else ""
        given = (bearer or form.pop("token", "")).strip().encode("utf-8", "surrogateescape")
        try:
            token = await asyncio.get_running_loop().run_in_executor(self._thread, token_in, self._means.token_file)
        except (OSError, ValueError) as error:
            self._count("refused")
            log.error("nobody can change anything over HTTP: %s", error)
            raise web.HTTPForbidden(text="the service cannot use its operator token; its log knows why\n") from None
        if not hmac.compare_digest(given, token):
            self._count("refused")
            now = asyncio.get_running_loop().time()
            self._complaints.say("token", now, f"{request.remote} has not the operator token")
            raise web.HTTPForbidden(text="that is not the operator token\n")
        return self._means, form

    async def _do(self, request: web.Request, what: str, ask: Callable[[], tuple[bool, list[str]]]) -> web.Response:
        try:
            done, said = await asyncio.get_running_loop().run_in_executor(self._thread, ask)
        except (OSError, ValueError, NotDone) as error:
            done, said = False, [f"not done: {error}"]
        outcome = "; ".join(said)
        self._count("done" if done else "failed")
        log.info("operator at %s: %s: %s", request.remote, printable(what), printable(outcome))
        status = 200 if done else 409
        if "text/html" in request.headers.get("Accept", ""):
            page, kind = text_page(what, outcome), "text/html"
            return web.Response(
                status=status, text=page, content_type=kind, headers={"Content-Security-Policy": CONTENT_SECURITY}
            )
        return web.Response(status=status, text=f"{outcome}\n", headers={"Cache-Control": "no-store"})

    def _count(self, result: str) -> None:
        self._page.add(metrics.OPERATOR_REQUESTS.slot(result))
