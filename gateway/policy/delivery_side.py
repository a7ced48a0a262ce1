"""What of KumoMTA's dialect is the delivery side: a fleet that runs the same file does it there.

Which names that are is here. With a fleet named on the command line they answer inertly and are noted, once each;
without one they stay errors that say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.policy.options import Trouble
from gateway.policy.problems import MISSING_EXTRAS, Problem, Severity

HINT = "with --fleet HOST:PORT it is left to the fleet"
LEFT = "left to the fleet"
HTTP_LISTENER = "kumo.start_http_listener"
INJECTION = f"{HTTP_LISTENER} with TLS"

FUNCTIONS = frozenset(
    {
        "apply_supplemental_trace_header", "compute_egress_path_config_constraints", "compute_queue_config_constraints",
        "configure_bounce_classifier", "configure_log_disposition_hook", "configure_log_hook", "define_egress_pool",
        "define_egress_source", "define_spool", "format_egress_path_config_constraints",
        "format_egress_path_config_toml", "format_queue_config_toml", "generate_rfc3464_message",
        "get_memory_hard_limit", "get_memory_low_thresh", "get_memory_soft_limit", "inject_message",
        "invoke_get_egress_path_config", "invoke_get_egress_pool", "invoke_get_egress_source",
        "invoke_get_queue_config", "make_egress_path", "make_egress_pool", "make_egress_source", "make_queue_config",
        "set_httpinject_recipient_rate_limit", "set_memory_hard_limit", "set_memory_low_thresh",
        "set_memory_soft_limit", "start_proxy_listener", "suspend_delivery_when_spool_unhealthy",
    }
)  # fmt: skip
MODULES = frozenset({"aaa", "amqp", "api", "dkim", "kafka", "mpsc", "nats", "shaping", "xfer"})
PUBLISHERS = frozenset({"amqp", "kafka", "nats"})  # those that tell somebody else of a message
EXTRAS = MISSING_EXTRAS  # of policy-extras
METHODS = frozenset({"arc_seal", "dkim_sign"})  # of messages
EVENTS = frozenset(
    {
        "get_acl_definition", "get_egress_path_config", "get_egress_pool", "get_egress_source", "get_queue_config",
        "http_message_generated", "http_server_validate_auth_basic", "http_server_validate_auth_bearer",
        "message_requeued", "proxy_init", "proxy_server_auth_rfc1929", "rebind_message", "requeue_message",
        "should_enqueue_log_record", "smtp_client_rewrite_delivery_status", "spool_message_enumerated",
        "throttle_insert_ready_queue", "tsa_init", "tsa_load_shaping_data", "xfer_message_received",
    }
)  # fmt: skip
_EVENTS_OF_HOOKS = "log_disposition_"


def is_event(name: str) -> bool:
    """Whether a handler of this event works on mail that was accepted."""
    return name in EVENTS or name.startswith(_EVENTS_OF_HOOKS)


def is_function(name: str) -> bool:
    """Whether `kumo.NAME`, `kumo.MODULE.NAME` or `message:NAME` is of the delivery side."""
    kind, colon, method = name.partition(":")
    if colon:
        return kind == "message" and method in METHODS
    name = name.removeprefix("kumo.")
    return name in FUNCTIONS or name.partition(".")[0] in MODULES


def hint_for(function: str, trouble: Trouble) -> str:
    """What to do about a mistake in a function's options: what is refused here may do its work in a fleet."""
    if is_function(function) and trouble.refused:
        return f"{trouble.hint}; {HINT}"
    return trouble.hint


def is_injection(options: Mapping[object, Any]) -> bool:
    """Whether a listener for HTTP is for injection, over TLS. One without TLS serves the gateway's own pages here."""
    keys = options.get("tls_certificate"), options.get("tls_private_key")
    return options.get("use_tls") is True or any(isinstance(key, str | dict) for key in keys)


def is_module(name: str) -> bool:
    """Whether `require NAME` gives a module of the delivery side."""
    package, _, extra = name.partition(".")
    return package == "policy-extras" and extra in EXTRAS


class Left:
    """What a policy leaves to the fleet: each name with the first place that uses it."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, int]] = {}

    def note(self, name: str, file: str, line: int) -> None:
        """Somebody uses it there."""
        self._places.setdefault(name, (file, line))

    def notes(self) -> list[Problem]:
        """All of them, for the operator, in the order of their places."""
        ordered = sorted((file, line, name) for name, (file, line) in self._places.items())
        return [Problem(file, line, f"{name}: {LEFT}", "", Severity.NOTE) for file, line, name in ordered]


@dataclass(frozen=True, slots=True)
class LeftToTheFleet:
    """A function or method of the delivery side, which is known by what it does: nothing. In Lua it gives what answers
    inertly, whatever is asked of it. note: is told its name.
    """

    name: str
    note: Any

    def __call__(self, *_: object) -> None:
        self.note(self.name)
