"""Handlers: a policy's Lua state with its registered event handlers, and how a policy is loaded.

How handlers are called is runs.py's business, what an event's arguments and results mean engine.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.policy import events
from gateway.policy.api import MISSING_MODULES, VERSION, Api, Handler
from gateway.policy.background import Background
from gateway.policy.collisions import Declared, collisions
from gateway.policy.listener_domains import ListenerDomains
from gateway.policy.memo import Memo
from gateway.policy.messages.table import Messages
from gateway.policy.modules import Modules
from gateway.policy.objects import Objects
from gateway.policy.problems import PolicyProblems, Problem
from gateway.policy.runs import Run, Runs, log
from gateway.policy.runtime import Fault, LuaFailure, LuaHost, LuaState
from gateway.policy.source import PolicySource

KUMOMTA_PATHS = ("/opt/kumomta/share", "/opt/kumomta/etc/policy")

LOADING_TIME = 30.0  # seconds that top level and init may take together

_NONE: list[Handler] = []
_EXTRAS = Path(__file__).with_name("extras")
_REPLACED = metrics.LUA_STATES_REPLACED.slot()


class Handlers:
    """One Lua state, the handlers that its policy registered, and what it declared (`api`).

    runs: calls them. host: what the state was given to begin with.
    """

    def __init__(
        self,
        source: PolicySource,
        page: CounterPage,
        clock: Callable[[], float],
        background: Background,
        make_api: type[Api] = Api,
    ) -> None:
        """make_api: the `kumo` module of each Lua state."""
        self._source = source
        self._clock = clock
        self._page = page
        self.runs = Runs(self._lua_of_what_runs, self.of, page, clock, background)
        self._objects = Objects(self._lua_of_what_runs, self.runs)
        self._make_api = make_api
        self.api = make_api(self.runs, source.deployment, source.left)
        self.host = self._host(self.api)
        self.lua = self.api.lua = LuaState(self.host)
        self.runs.replace_lua = self.replace_lua

    def _lua_of_what_runs(self) -> LuaState:
        running = self.runs.running
        return self.lua if running is None else running.lua

    def _host(self, api: Api) -> LuaHost:
        directory = str(PurePath(self._source.path).parent)
        templates = [f"{path}/{file}" for path in (directory, *KUMOMTA_PATHS) for file in ("?.lua", "?/init.lua")]
        modules = Modules(self._lua_of_what_runs, self.runs, self._source.load, api.sleep, self._source.secrets)
        messages = Messages(
            self._lua_of_what_runs, modules, self.runs.unstable, self.runs.looked, self._source.deployment
        )
        listener_domains = ListenerDomains(self._lua_of_what_runs, self._source, self.runs, api)
        return LuaHost(
            version=VERSION,
            package_path=";".join([*templates, "./?.lua", "./?/init.lua"]),
            functions={**api.functions(), **modules.top(), **messages.functions(), **api.left()},
            handler_of=api.handler_of,
            memo=Memo(self._lua_of_what_runs, self.runs, api.problem).functions(),
            modules={**modules.functions(), **api.libraries()},
            extras=_extra,
            extra_functions={"listener_domains": listener_domains.functions()},
            missing_modules=MISSING_MODULES,
            leave_to_fleet=api.leave,
            fleet=self._source.deployment.fleet is not None,
            exposed={**self._objects.exposed(), **messages.exposed(), **modules.exposed()},
            read=self._read,
            unstable=self.runs.unstable,
            published=self.runs.published,
            wait=self.runs.wait,
            forget=self.runs.forget,
            condemned=self.runs.condemned,
            loading=lambda: self.runs.loading,
        )

    def _read(self, path: str) -> bytes | None:
        self.runs.unstable()
        return self._source.load(path)

    # --- loading ------------------------------------------------------------------------------------------

    def load(self, *, validating: bool) -> None:
        """Runs the policy's top level and its init handlers. Raises PolicyProblems with everything that is wrong.

        validating: run validate_config handlers too, with `_VALIDATING_CONFIG` set.
        """
        if validating:
            self.lua.set_global("_VALIDATING_CONFIG", True)
        self.lua.watch(partial(self._keep_to, self._clock() + LOADING_TIME))
        if self._survives(None, lambda: self.lua.call(self.lua.load(self._source.path, self._source.main))):
            self._run_all(events.PRE_INIT)
            self._run_all(events.INIT)
            if validating:
                self._run_all(events.VALIDATE_CONFIG)
                if self.api.validation_failed:
                    self.api.problems.append(Problem(self._source.path, 0, "validate_config says that it failed"))
            self._check_filters()
            self._check_addresses()
            self._check_shipments()
        self.lua.watch(None)
        self.runs.loading = False
        self.lua.collect()
        self.lua.base = self.lua.limits.used
        if self.api.problems:
            raise PolicyProblems(self.api.problems)

    def replace_lua(self) -> None:
        """Loads the policy again, into a new Lua state; what waits in the old one ends there."""
        api = self._make_api(self.runs, self._source.deployment, self._source.left)
        old = self.lua, self.api
        try:
            self.api = api
            self.lua = api.lua = LuaState(self._host(api))
            self.runs.loading = True
            self.load(validating=False)
        except PolicyProblems as problems:
            self.lua, self.api = old
            log.error("the Lua state holds memory that a handler took, and cannot be replaced: %s", problems)
        else:
            log.warning("the Lua state held memory that a handler took, and was replaced")
            self._page.add(_REPLACED)
        finally:
            self.runs.loading = False

    def _keep_to(self, deadline: float) -> None:
        if self._clock() > deadline:
            file, line = self.lua.where()
            raise Fault(f"{file}:{line}: the policy takes more than {LOADING_TIME:.0f} seconds to load")

    def _run_all(self, event: str) -> None:
        for handler in self.api.handlers.get(event, ()):
            if not self._survives(event, lambda handler=handler: self.lua.call(handler.function)):  # type: ignore[misc]
                return

    def _survives(self, event: str | None, run: Callable[[], object]) -> bool:
        self.runs.running = Run(self.runs, event)
        try:
            run()
        except LuaFailure as failure:
            path, files = self._source.path, self._source.files
            self.api.problems.append(Problem.from_lua(failure.text, path, files, failure.traceback))
            return False
        finally:
            self.runs.running = None
        return True

    def _check_filters(self) -> None:
        for event, file, line in self.api.filter_events:
            if event not in self.api.handlers:
                self.api.problems.append(Problem(file, line, f"filter_event '{event}' has no handler"))

    def _check_shipments(self) -> None:
        for shipment, (_, (file, line)) in zip(self.api.config().shipments, self.api.shipments, strict=True):
            if not shipment.log_dirs:
                message = "gateway.ship: there is nothing to ship: no log_dirs, and no kumo.configure_local_logs"
                self.api.problems.append(Problem(file, line, message))

    def _check_addresses(self) -> None:
        config = self.api.config()
        addresses = {
            "start_esmtp_listener": [listener.listen for listener in config.listeners],
            "start_http_listener": [listener.listen for listener in config.http_listeners],
        }
        declared = [
            Declared(function, listen, *self.api.place_of(function, number))
            for function, found in addresses.items()
            for number, listen in enumerate(found)
        ]
        self.api.problems += collisions(declared)

    # --- running ------------------------------------------------------------------------------------------

    def of(self, event: str) -> list[Handler]:
        """The handlers of an event; empty where it has none."""
        return self.api.handlers.get(event, _NONE)


def extras() -> list[str]:
    """The names of the `policy-extras` modules that are here."""
    return sorted(path.stem for path in _EXTRAS.glob("*.lua"))


def _extra(name: str) -> bytes | None:
    """The Lua text of one of the `policy-extras` modules that are here."""
    path = _EXTRAS / f"{name}.lua"
    return path.read_bytes() if path.is_file() else None
