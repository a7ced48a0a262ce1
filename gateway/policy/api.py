"""The `kumo` module: what each of its functions does when a policy calls it.

Collects what the policy declares and which handlers it registers. While the policy is loading, mistakes are collected
with their places and the call is survived, so that one run shows them all; later they are Lua errors.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from gateway import __version__
from gateway.config import Deployment, HttpListener, Listener, LocalLogs, PolicyConfig, SpoolSettings
from gateway.later import Later
from gateway.policy import delivery_side, events
from gateway.policy.decision_cache import MISSING, RecentlyUsed
from gateway.policy.delivery_side import Left, LeftToTheFleet
from gateway.policy.fleet_schemas import FLEET
from gateway.policy.kumo.files import matching
from gateway.policy.kumo.values import integer, number, string
from gateway.policy.objects import Made
from gateway.policy.options import BadOptions, list_of, sequences
from gateway.policy.options import string as text_option
from gateway.policy.problems import NOT_YET, Problem, Rejected
from gateway.policy.runs import Runs
from gateway.policy.runtime import (
    Fault,
    LuaFunction,
    LuaState,
    Unsupported,
    Waiting,
    inward,
    is_function,
    kind_of,
)
from gateway.policy.schemas import SCHEMAS
from gateway.policy.shipping_schemas import SHIPMENT, shipments_of
from gateway.shipments import Shipment

VERSION = f"relay-gateway {__version__}"

MADE = 1_024  # different tables whose checked values are kept

MAKERS = ("make_listener_domain", "make_queue_config", "make_egress_path")
DECLARATIONS = ("start_esmtp_listener", "start_http_listener", "configure_local_logs", "define_spool")
LOG_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}

# Tuning of KumoMTA's own machinery: without it nothing about mail or records is different.
WITHOUT_EFFECT = (
    "set_smtpsrv_threads", "set_httpinject_threads", "set_qmaint_threads", "set_ready_qmaint_threads",
    "set_readyq_threads", "set_spoolin_threads", "set_logging_threads", "set_max_spare_lua_contexts",
    "set_max_lua_context_age", "set_max_lua_context_use_count", "set_lua_gc_on_put", "set_lruttl_cache_capacity",
    "configure_accounting_db_path",
)  # fmt: skip

# Without effect too, but `relay-gateway check` warns: what the author wanted does not happen.
WARNED = {
    "set_diagnostic_log_filter": "the diagnostic log has no filter",
    "bump_config_epoch": "an edited policy counts after a reload",
    "configure_bounce_classifier": 'records say bounce_classification "Uncategorized"',
}

NOT_SUPPORTED = (
    "apply_supplemental_trace_header", "compute_egress_path_config_constraints",
    "compute_queue_config_constraints", "configure_log_disposition_hook", "configure_log_hook",
    "define_egress_pool", "define_egress_source", "enable_memory_callstack_tracking",
    "format_egress_path_config_constraints", "format_egress_path_config_toml", "format_queue_config_toml",
    "generate_rfc3464_message", "get_memory_hard_limit", "get_memory_low_thresh",
    "get_memory_soft_limit", "inject_message", "invoke_get_egress_path_config", "invoke_get_egress_pool",
    "invoke_get_egress_source", "invoke_get_queue_config", "make_egress_pool", "make_egress_source",
    "prometheus_metrics", "set_httpinject_recipient_rate_limit",
    "set_memory_hard_limit", "set_memory_low_thresh", "set_memory_soft_limit", "set_timeq_spawn_reinsertion",
    "spawn_thread_pool", "start_proxy_listener", "suspend_delivery_when_spool_unhealthy",
)  # fmt: skip

MISSING_MODULES = (
    "aaa", "amqp", "api", "dkim", "kafka",
    "mpsc", "nats", "shaping", "xfer",
)  # fmt: skip

# KumoMTA has none of these.
OURS = ("set_handler_limits", "gateway")
MODULES = ("gateway",)

FUNCTION_NAMES = (
    *("on", "reject", "disconnect", "available_parallelism", "validation_failed", "sleep", "spawn_task", "memoize"),
    *("get_event_registrars", "make_message", "traceback"),
    *(f"log_{word}" for word in LOG_LEVELS),
    *MAKERS, *DECLARATIONS, "set_handler_limits", "set_config_monitor_globs", "eval_config_monitor_globs",
    *WITHOUT_EFFECT, *WARNED,
)  # fmt: skip

_lua_log = logging.getLogger("gateway.policy.lua")


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered event handler and where it was registered. behind: the object of the host that it asks, no more."""

    function: LuaFunction
    file: str
    line: int
    behind: object = None


class Api:
    """The kumo module of one Lua state. Set `lua` before any Lua code runs.

    deployment: where it runs. left: is told what it leaves to the fleet.
    """

    def __init__(self, runs: Runs, deployment: Deployment, left: Left) -> None:
        self.lua: LuaState
        self._runs = runs
        self._deployment = deployment
        self._left = left
        self.validation_failed = False
        self.handlers: dict[str, list[Handler]] = {}
        self.problems: list[Problem] = []
        self.filter_events: list[tuple[str, str, int]] = []  # what configure_local_logs names, with file and line
        self._made = RecentlyUsed(MADE)
        self._watched: tuple[str, ...] = ()
        self.shipments: list[tuple[Shipment, tuple[str, int]]] = []  # as they were declared, with file and line
        self._declared: dict[str, list[Any]] = {name: [] for name in DECLARATIONS}
        self.declared_at: dict[str, list[tuple[str, int]]] = {name: [] for name in DECLARATIONS}  # as in config()

    def functions(self) -> dict[str, Callable[..., Any] | Waiting]:
        """For LuaHost.functions: every function of the module by name."""
        functions: dict[str, Callable[..., Any] | Waiting] = {
            "sleep": Waiting(self.sleep),
            "spawn_task": self._spawn_task,
            "set_handler_limits": self._set_handler_limits,
            "set_config_monitor_globs": self._set_watched,
            "eval_config_monitor_globs": lambda *_: self.lua.value(sorted(set().union(*map(matching, self._watched)))),
            "on": self._on,
            "reject": self._reject,
            "disconnect": self._disconnect,
            "available_parallelism": lambda *_: os.cpu_count() or 1,
            "validation_failed": self._validation_failed,
            "get_event_registrars": self._registrars,
        }
        functions |= {name: partial(self._make, name) for name in MAKERS}
        functions |= {name: partial(self._declare, name) for name in DECLARATIONS}
        functions |= {f"log_{word}": partial(self._log, level) for word, level in LOG_LEVELS.items()}
        functions |= {name: lambda *_: None for name in (*WITHOUT_EFFECT, *WARNED)}
        functions |= {name: self._unsupported(name) for name in NOT_SUPPORTED}
        return functions

    def libraries(self) -> dict[str, dict[str, Callable[..., Any] | Waiting]]:
        """Likewise of the gateway's own modules, by what `require` gives."""
        return {"gateway": {"fleet": self._fleet, "ship": self._ship}}

    def left(self) -> dict[str, LeftToTheFleet]:
        """Those that do nothing instead, because there is a fleet."""
        names = () if self._deployment.fleet is None else delivery_side.FUNCTIONS
        return {name: LeftToTheFleet(f"kumo.{name}", self.leave) for name in names}

    def _unsupported(self, name: str) -> Unsupported:
        hint = delivery_side.HINT if name in delivery_side.FUNCTIONS else ""
        return Unsupported(f"kumo.{name}", self.problem, hint)

    def leave(self, name: str) -> None:
        """Something of the delivery side is used. Without a fleet that is a mistake."""
        if self._deployment.fleet is None:
            is_module = name.startswith("policy-extras.")
            self.problem(f"require '{name}': it {NOT_YET}" if is_module else f"{name} {NOT_YET}", delivery_side.HINT)
        elif self._runs.loading:
            self._left.note(name, *self.lua.where())

    def config(self) -> PolicyConfig:
        """What was declared so far."""
        listeners: list[Listener] = self._declared["start_esmtp_listener"]
        http: list[HttpListener] = self._declared["start_http_listener"]
        logs: list[LocalLogs] = self._declared["configure_local_logs"]
        spools: list[SpoolSettings] = self._declared["define_spool"]
        return PolicyConfig(
            listeners=self._deployment.listeners(tuple(listeners)),
            http_listeners=tuple(http),
            local_logs=tuple(logs),
            spools=tuple(spools) if self._deployment.spool is None else (self._deployment.spool,),
            watched=self._watched,
            shipments=shipments_of([shipment for shipment, _ in self.shipments], logs),
        )

    def place_of(self, function: str, number: int) -> tuple[str, int]:
        """File and line of a declaration. number: which of its calls, from 0 on, as in `config`; of listeners that are
        more than the policy's, the last.
        """
        places = self.declared_at[function]
        return places[min(number, len(places) - 1)] if places else ("--listen", 0)

    @property
    def _collecting(self) -> bool:
        return self._runs.loading and self.lua.protected() == 0

    def problem(self, message: str, hint: str = "") -> None:
        """A mistake at the policy's current line: collected while loading, otherwise a Lua error."""
        if not self._collecting:
            self._fail(message + (f"; {hint}" if hint else ""))
        self.problems.append(Problem(*self.lua.where(), message, hint))

    def problems_of_files(self, problems: list[Problem]) -> None:
        """Mistakes elsewhere than at the policy's current line."""
        if problems and not self._collecting:
            self._fail(str(problems[0]))
        self.problems += problems

    def _fail(self, message: str) -> NoReturn:
        raise Fault(f"{self._place()}: {message}")

    def _place(self) -> str:
        """FILE:LINE of the Lua code that runs."""
        file, line = self.lua.where()
        return f"{file}:{line}"

    # --- handlers -----------------------------------------------------------------------------------------

    def _on(self, name: object = None, function: object = None, *_: object) -> None:
        try:
            event = inward(string(name, "on"))
        except ValueError:
            event = ""
        if event and self._is_left(event, function):
            return self._leave_handler(event)
        if not event or not is_function(function):
            self._fail(f"kumo.on: expected a name and a function, got a {kind_of(name)} and a {kind_of(function)}")
        running = self._runs.running
        if running is not None and running.event is not None:
            self._fail(
                f"Attempting to register an event handler via `kumo.on('{event}', ...)` from within the event handler "
                f"'{running.event}'. You must move your event handler registration so that it is setup directly when "
                "the policy is loaded in order for it to consistently trigger and handle events."
            )
        if not events.is_supported(event):
            hint = delivery_side.HINT if delivery_side.is_event(event) else ""
            self.problem(f"kumo.on: event '{event}' {NOT_YET}", hint)
        registered = self.handlers.setdefault(event, [])
        if registered and event not in events.MULTIPLE:
            first = registered[0]
            return self.problem(f"{event} event already has a handler defined at {first.file}:{first.line}")
        registered.append(Handler(function, *self.lua.where(), self.lua.behind(function)))
        return None

    def handler_of(self, event: object) -> LuaFunction:
        """For LuaHost.handler_of: the function that a KeySource names."""
        name = inward(event) if isinstance(event, str) else ""
        if name not in self.handlers:
            raise Fault(f"kumo.secrets.load: no handler is registered for '{name}': kumo.on('{name}', function…)")
        return self.handlers[name][0].function

    def _registrars(self, name: object = None, *_: object) -> Any:
        """Where the handlers of an event were registered: a stack of places for each, nil where it has none."""
        found = self.handlers.get(inward(name)) if isinstance(name, str) else None
        return self.lua.value([[f"{handler.file}:{handler.line}"] for handler in found]) if found else None

    def _is_left(self, event: str, function: object) -> bool:
        return self.lua.is_inert(function) or (self._deployment.fleet is not None and delivery_side.is_event(event))

    def _leave_handler(self, event: str) -> None:
        if self._deployment.fleet is not None:  # otherwise where the function comes from was a mistake already
            self.leave(f"the handler of {event}")

    # --- options ------------------------------------------------------------------------------------------

    def _options(self, name: str, table: object) -> dict[str, Any] | None:
        """The checked option table of a call; None if it is bad and the policy is still loading."""
        try:
            return SCHEMAS[name].read(table)
        except BadOptions as bad:
            if not self._collecting:
                self._fail(bad.deserialize_error(table))
            for trouble in bad.troubles:
                self.problem(f"kumo.{name}: {trouble}", delivery_side.hint_for(f"kumo.{name}", trouble))
            return None

    def _make(self, name: str, *arguments: object) -> Made:
        """Equal tables give the same object: it is read-only, and Lua's collector is slow to let go of others."""
        table = self.lua.plain(arguments[0]) if arguments else None
        key = name, repr(table)
        made = self._made.get(key)
        if made is not MISSING:
            return made  # type: ignore[no-any-return]
        options = self._options(name, table)
        if options is None:
            return Made(name, SCHEMAS[name].read({}), SCHEMAS[name]({}))
        made = Made(name, options, SCHEMAS[name].built(options))
        self._made.put(key, made)
        return made

    def _fleet(self, table: object = None, *_: object) -> Any:
        """What `protocol` of a queue takes: the table, which was looked at here, where the mistakes are."""
        plain = self.lua.plain(table)
        try:
            FLEET.read(plain)
        except BadOptions as bad:
            for trouble in bad.troubles:
                self.problem(f"gateway.fleet: {trouble}", trouble.hint)
            plain = {"members": ["unknown"]}
        return self.lua.value({"fleet": sequences(plain)})

    def _ship(self, table: object = None, *_: object) -> None:
        if not self._runs.loading:
            self._fail("gateway.ship must be called in the init event")
        try:
            shipment = SHIPMENT(self.lua.plain(table))
        except BadOptions as bad:
            for trouble in bad.troubles:
                self.problem(f"gateway.ship: {trouble}", trouble.hint)
            return
        if shipment.name in [known.name for known, _ in self.shipments]:
            self.problem(f"gateway.ship: there is a shipment '{shipment.name}' already")
        self.shipments.append((shipment, self.lua.where()))

    def _declare(self, name: str, *arguments: object) -> None:
        if not self._runs.loading:
            self._fail(f"kumo.{name} must be called in the init event")
        table = self.lua.plain(arguments[0]) if arguments else None
        if self._is_injection(name, table):
            return self.leave(delivery_side.INJECTION)
        options = self._options(name, table)
        if options is None:
            return None
        self._declared[name].append(SCHEMAS[name].built(options))
        self.declared_at[name].append(self.lua.where())
        if "filter_event" in options and name == "configure_local_logs":
            self.filter_events.append((options["filter_event"], *self.lua.where()))

    def _is_injection(self, function: str, table: object) -> bool:
        is_fleets = self._deployment.fleet is not None and f"kumo.{function}" == delivery_side.HTTP_LISTENER
        return is_fleets and isinstance(table, dict) and delivery_side.is_injection(table)

    def _set_watched(self, globs: object = None, *_: object) -> None:
        if not self._runs.loading:
            self._fail("kumo.set_config_monitor_globs must be called in the init event")
        try:
            self._watched = list_of(text_option, "globs")(self.lua.plain(globs))
        except BadOptions as bad:
            self.problem(f"kumo.set_config_monitor_globs: {bad}")

    # --- verdicts -----------------------------------------------------------------------------------------

    def _reject(self, *arguments: object) -> NoReturn:
        if len(arguments) != 2:
            self._fail(f"kumo.reject: expected a code and a text, got {len(arguments)} arguments")
        code, text = self._verdict("reject", *arguments)
        raise Rejected(code, text, closes=code == 421, place=self._place())  # RFC 5321 §3.8

    def _disconnect(self, *arguments: object) -> NoReturn:
        if not 2 <= len(arguments) <= 3:
            self._fail(f"kumo.disconnect: expected a code, a text and a mode, got {len(arguments)} arguments")
        code, text = self._verdict("disconnect", *arguments[:2])
        mode = arguments[2] if len(arguments) == 3 else "ForceDisconnect"
        match mode:
            case "ForceDisconnect":
                raise Rejected(code, text, closes=True, place=self._place())
            case "FollowWith421":
                raise Rejected(code, text, closes=True, follow_with_421=code != 421, place=self._place())
            case "If421":
                raise Rejected(code, text, closes=code == 421, place=self._place())
        self._fail(f"expected one of 'If421', 'FollowWith421' or 'ForceDisconnect', but got {self.lua.text(mode)}")

    def _verdict(self, function: str, code: object, text: object) -> tuple[int, str]:
        with suppress(ValueError):
            number = integer(code, function)
            if 400 <= number <= 599:
                return number, self._reply_text(function, text)
        # Nothing else refuses: a 2xx would promise a delivery that nobody undertook.
        self._fail(f"kumo.{function}: expected a code from 400 to 599, got {self.lua.text(code)}")

    def _reply_text(self, function: str, text: object) -> str:
        try:
            # a reply must say something (RFC 5321 §4.2)
            return inward(string(text, function)).strip() or "refused"
        except ValueError:
            self._fail(f"kumo.{function}: expected a text, got a {kind_of(text)}")

    # --- waiting ------------------------------------------------------------------------------------------

    def sleep(self, seconds: object = None, *_: object) -> Later:
        try:
            span = number(seconds, "sleep")
        except ValueError:
            span = -1
        if not 0 <= span < float("inf"):
            self._fail(f"kumo.sleep: expected a number of seconds, got {self.lua.text(seconds)}")
        self._runs.unstable()
        return self._runs.background.sleep(span)

    def _set_handler_limits(self, *arguments: object) -> None:
        options = self._options("set_handler_limits", self.lua.plain(arguments[0]) if arguments else None)
        if options is not None:
            self._runs.limits = SCHEMAS["set_handler_limits"].built(options)
            self.lua.watched.allowance = self._runs.limits.processor_time

    def _spawn_task(self, task: object = None, *_: object) -> None:
        options = self.lua.plain(task)
        if not isinstance(options, dict) or not isinstance(options.get("event_name"), str):
            self._fail("kumo.spawn_task: expected a table with event_name and args")
        self._runs.unstable()
        event, arguments = options["event_name"], options.get("args")
        self._runs.spawn(event, arguments)

    # --- the rest -----------------------------------------------------------------------------------------

    def _log(self, level: int, *arguments: object) -> None:
        if _lua_log.isEnabledFor(level):
            file, line = self.lua.where()
            _lua_log.log(level, "%s:%d: %s", file, line, " ".join(map(self.lua.text, arguments)))

    def _validation_failed(self, *_: object) -> None:
        self.validation_failed = True
