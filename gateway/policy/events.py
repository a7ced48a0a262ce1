"""Which events there are: those that run, those of KumoMTA's that do not run here yet, and those that may have several
handlers."""

from __future__ import annotations

# Events that this gateway triggers.
LISTENER_DOMAIN = "get_listener_domain"
CONNECTION_ACCEPTED = "smtp_server_connection_accepted"
EHLO = "smtp_server_ehlo"
AUTH_PLAIN = "smtp_server_auth_plain"
MAIL_FROM = "smtp_server_mail_from"
RCPT_TO = "smtp_server_rcpt_to"
DATA = "smtp_server_data"
SPLIT_TRANSACTION = "smtp_server_split_transaction"
MESSAGE_RECEIVED = "smtp_server_message_received"
QUEUE_CONFIG = "get_queue_config"
EGRESS_PATH = "get_egress_path_config"
PRE_INIT = "pre_init"
INIT = "init"
VALIDATE_CONFIG = "validate_config"

SUPPORTED = (
    PRE_INIT,
    INIT,
    VALIDATE_CONFIG,
    CONNECTION_ACCEPTED,
    EHLO,
    AUTH_PLAIN,
    MAIL_FROM,
    LISTENER_DOMAIN,
    RCPT_TO,
    DATA,
    SPLIT_TRANSACTION,
    MESSAGE_RECEIVED,
    QUEUE_CONFIG,
    EGRESS_PATH,
)

# Events with a chain of handlers; every other one has a single handler.
MULTIPLE = frozenset({PRE_INIT, VALIDATE_CONFIG, QUEUE_CONFIG})

# Never triggered here, and nothing is lost by that.
WITHOUT_EFFECT = {
    "main": "relay-gateway has no script mode",
    **dict.fromkeys(
        ("http_server_validate_auth_basic", "http_server_validate_auth_bearer", "http_message_generated"),
        "there is no HTTP injection and no HTTP login here",
    ),
}

# A handler for one of these would change what happens to mail or records, so leaving it out silently would mislead.
NOT_SUPPORTED = frozenset(
    {
        "smtp_server_get_dynamic_parameters",
        "smtp_server_message_deferred_inject",
        "smtp_server_rewrite_response",
        "smtp_client_rewrite_delivery_status",
        "should_enqueue_log_record",
        "requeue_message",
        "throttle_insert_ready_queue",
        "get_egress_pool",
        "get_egress_source",
        "get_acl_definition",
        "shutdown_logging",
    }
)
NOT_SUPPORTED_PREFIX = "log_disposition_"


def is_supported(name: str) -> bool:
    """False for KumoMTA's events that a policy must not rely on here. Names of a policy's own are fine."""
    return name not in NOT_SUPPORTED and not name.startswith(NOT_SUPPORTED_PREFIX)
