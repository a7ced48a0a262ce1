"""Which events there are and what their handlers receive: those that run, those of KumoMTA's that do not run here, and
those that may have several handlers."""

from __future__ import annotations

# Events that this gateway triggers.
LISTENER_DOMAIN = "get_listener_domain"
DYNAMIC_PARAMETERS = "smtp_server_get_dynamic_parameters"
CONNECTION_ACCEPTED = "smtp_server_connection_accepted"
EHLO = "smtp_server_ehlo"
AUTH_PLAIN = "smtp_server_auth_plain"
MAIL_FROM = "smtp_server_mail_from"
RCPT_TO = "smtp_server_rcpt_to"
DATA = "smtp_server_data"
SPLIT_TRANSACTION = "smtp_server_split_transaction"
MESSAGE_RECEIVED = "smtp_server_message_received"
SHUTDOWN_LOGGING = "shutdown_logging"
REWRITE_RESPONSE = "smtp_server_rewrite_response"
QUEUE_CONFIG = "get_queue_config"
EGRESS_PATH = "get_egress_path_config"
PRE_INIT = "pre_init"
INIT = "init"
VALIDATE_CONFIG = "validate_config"

# Their parameters, by the names that docs/policy.md gives them; model.py knows what each name stands for.
PARAMETERS: dict[str, tuple[str, ...]] = {
    PRE_INIT: (),
    INIT: (),
    VALIDATE_CONFIG: (),
    DYNAMIC_PARAMETERS: ("listener", "conn_meta"),
    CONNECTION_ACCEPTED: ("conn_meta",),
    EHLO: ("domain", "conn_meta", "extensions"),
    AUTH_PLAIN: ("authz", "authc", "password", "conn_meta"),
    MAIL_FROM: ("sender", "conn_meta"),
    LISTENER_DOMAIN: ("domain", "listener", "conn_meta"),
    RCPT_TO: ("recipient", "conn_meta"),
    DATA: ("msg", "conn_meta"),
    SPLIT_TRANSACTION: ("msg", "conn_meta"),
    MESSAGE_RECEIVED: ("msg", "conn_meta"),
    REWRITE_RESPONSE: ("status", "response", "command", "conn_meta"),
    SHUTDOWN_LOGGING: (),
    QUEUE_CONFIG: ("domain", "tenant", "campaign", "routing_domain"),
    EGRESS_PATH: ("routing_domain", "source", "site_name"),
}

SUPPORTED = tuple(PARAMETERS)

# Events with a chain of handlers; every other one has a single handler.
MULTIPLE = frozenset(
    {
        *(PRE_INIT, VALIDATE_CONFIG, QUEUE_CONFIG),
        *("should_enqueue_log_record", "requeue_message", "throttle_insert_ready_queue", "get_acl_definition"),
    }
)

_NO_HTTP = "nothing is injected over HTTP here"
_NO_SPOOL = "the gateway's spool asks no policy about what is in it"

# Never triggered here, and nothing is lost by that; `relay-gateway check` says why.
WITHOUT_EFFECT = {
    "main": "relay-gateway has no script mode",
    "smtp_server_message_deferred_inject": "no message waits here: deferred_queue is refused",
    "http_message_generated": _NO_HTTP,
    "http_server_validate_auth_basic": _NO_HTTP,
    "http_server_validate_auth_bearer": _NO_HTTP,
    "proxy_init": "relay-gateway is no SOCKS proxy",
    "proxy_server_auth_rfc1929": "relay-gateway is no SOCKS proxy",
    "rebind_message": _NO_SPOOL,
    "spool_message_enumerated": _NO_SPOOL,
    "tsa_init": "it is triggered by the shaping daemon",
    "tsa_load_shaping_data": "it is triggered by the shaping daemon",
    "xfer_message_received": "nodes of a fleet exchange queues among themselves",
}

# A handler for one of these would change what happens to mail or records, so leaving it out silently would mislead.
NOT_SUPPORTED = frozenset(
    {
        "smtp_client_rewrite_delivery_status",
        "should_enqueue_log_record",
        "requeue_message",
        "throttle_insert_ready_queue",
        "get_egress_pool",
        "get_egress_source",
        "get_acl_definition",
        "message_requeued",  # what requeue_message once was
    }
)
NOT_SUPPORTED_PREFIX = "log_disposition_"


def is_supported(name: str) -> bool:
    """False for KumoMTA's events that a policy must not rely on here. Names of a policy's own are fine."""
    return name not in NOT_SUPPORTED and not name.startswith(NOT_SUPPORTED_PREFIX)
