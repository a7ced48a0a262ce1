"""Options of what a policy says about where mail of a queue goes: kumo.make_queue_config.

Declarations only, like schemas.py, which explains them.
"""

from __future__ import annotations

from gateway.config import Host, Maildir, PartialRefusal, QueueConfig, SmtpFleet
from gateway.policy.fleet_schemas import FLEET, fleet_member
from gateway.policy.options import (
    Option,
    Schema,
    accepted,
    boolean,
    duration,
    integer,
    json_value,
    list_of,
    one_of,
    refusal,
    refused,
    string,
)
from gateway.policy.path_schemas import THROTTLE, RefreshStrategy, refreshing


def _mx_list(value: object) -> tuple[Host, ...]:
    hosts: tuple[Host, ...] = list_of(fleet_member, "hosts")(value)
    if not hosts:
        raise refusal("mx_list is empty, so there is no fleet to relay to")
    return hosts


_SMTP = Schema(
    {"mx_list": Option(_mx_list), "treat_mx_list_as_secure": accepted(boolean)},
    lambda options: SmtpFleet(options["mx_list"]) if "mx_list" in options else None,
)


def _plain_path(value: object) -> str:
    path = string(value)
    if "{{" in path or "{%" in path:
        raise refusal("templates in maildir_path are not supported yet by relay-gateway")
    return path


def _mode(value: object) -> int:
    return integer(0, 0o7777)(value)


_PROTOCOL = Schema(
    {
        "smtp": Option(_SMTP),
        "fleet": Option(FLEET, ours=True),
        "maildir_path": Option(_plain_path),
        "dir_mode": Option(_mode),
        "file_mode": Option(_mode),
        "custom_lua": refused("relaying goes to an mx_list or a maildir"),
        "xfer": refused("relaying goes to an mx_list or a maildir"),
    }
)


def _protocol(value: object) -> SmtpFleet | Maildir | None:
    options = _PROTOCOL(value)
    if len({"smtp", "maildir_path", "fleet"} & set(options)) > 1:
        raise refusal("a queue has one protocol: smtp or maildir_path")
    if "maildir_path" in options:
        return Maildir(options["maildir_path"], options.get("dir_mode"), options.get("file_mode"))
    fleet: SmtpFleet | None = options.get("fleet") or options.get("smtp")
    return fleet


QUEUE_CONFIG = Schema(
    {
        "protocol": Option(_protocol),
        "egress_pool": Option(string),
        "provider_name": Option(string),
        "refresh_interval": Option(duration),
        "refresh_strategy": Option(one_of(RefreshStrategy)),
        "on_partial_refusal": Option(one_of(PartialRefusal), ours=True),
        "retry_interval": Option(duration),
        "max_retry_interval": Option(duration),
        "max_age": Option(duration),
        "reap_interval": accepted(duration),
        "strategy": accepted(string),
        "timerwheel_tick_interval": accepted(duration),
        "shrink_policy": accepted(json_value),
        "max_message_rate": refused(THROTTLE),
    },
    refreshing(QueueConfig),
)
