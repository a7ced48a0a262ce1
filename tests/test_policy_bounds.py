"""The largest values that a policy can set: each is taken, and mail passes with all of them at once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.config import EgressPath, Limits, ListenerParams, LocalLogs, QueueConfig
from gateway.policy.options import LONGEST, MOST, BadOptions, Option, Role, Schema, duration, integer
from gateway.policy.path_schemas import _limit
from gateway.policy.schemas import LISTENER_BLOCK, SCHEMAS, amount
from gateway.smtp.events import Observer
from gateway.smtp.session import ServerSession
from gateway.smtp.terms import Terms
from tests.gateway_process import wait_until

AS_TEXTS_TOO = ((_limit, MOST), (amount, MOST), (duration, LONGEST))


def most(option: Option) -> int | float | None:
    """The largest number that an option takes; None when it takes none."""
    if isinstance(option.read, integer):
        return option.read.maximum
    return next((value for reader, value in AS_TEXTS_TOO if reader is option.read), None)


NUMBERS = [
    (function, name, value)
    for function, schema in SCHEMAS.items()
    for name, option in schema.options.items()
    if (value := most(option)) is not None
]
NEEDED: dict[str, dict[str, Any]] = {
    "configure_local_logs": {"log_dir": "/l"},
    "define_spool": {"name": "n", "path": "/p"},
}


def supported(function: str) -> Iterator[tuple[str, int | float]]:
    for where, name, value in NUMBERS:
        if where == function and SCHEMAS[function].options[name].role is Role.SUPPORTED:
            yield name, value


@pytest.mark.parametrize(("function", "name", "value"), NUMBERS)
def test_a_number_is_taken_up_to_its_maximum_and_no_further(function: str, name: str, value: float) -> None:
    table = NEEDED.get(function, {})
    SCHEMAS[function]({**table, name: value})
    for more in (value + 1, 2**63 - 1, float("inf"), 1e300):
        with pytest.raises(BadOptions) as refused:
            SCHEMAS[function]({**table, name: more})
        assert " at most " in str(refused.value) or " to " in str(refused.value) or more != value + 1


def test_every_number_in_a_configuration_has_a_maximum() -> None:
    """What is a number in what a policy declares is read by a reader whose maximum is known."""
    for function, config in (
        ("start_esmtp_listener", ListenerParams), ("make_egress_path", EgressPath), ("configure_local_logs", LocalLogs),
        ("make_queue_config", QueueConfig),
    ):  # fmt: skip
        numbers = {
            name
            for name, parameter in inspect.signature(config).parameters.items()
            if str(parameter.annotation).split()[0] in ("int", "float") or "| int" in str(parameter.annotation)
        }
        assert numbers <= {name for name, _ in supported(function)}, function


@pytest.mark.parametrize(("name", "value"), [(name, most(option)) for name, option in LISTENER_BLOCK.options.items()])
def test_a_session_runs_with_each_parameter_at_its_maximum(name: str, value: float | None) -> None:
    if value is None or LISTENER_BLOCK.options[name].role is not Role.SUPPORTED:
        return
    session = ServerSession(Terms(ListenerParams(hostname="gw.example", **{name: value}), offer_tls=False), Observer())
    session.receive_data(b"NOOP\r\nNOOP\r\n")
    assert session.next_event() is None


def _lua(function: str, **more: str) -> str:
    named = dict(supported(function)) | more
    return "{ " + ", ".join(f"{name} = {value:.0f}" if name not in more else f"{name} = {value}"
                            for name, value in named.items()) + " }"  # fmt: skip


def test_mail_passes_with_every_number_at_its_maximum(start: Any, sink: Any) -> None:
    disk = {"min_free_space": "0", "min_free_inodes": "0"}  # at the maximum no disk is large enough, which is meant
    policy = f"""
    kumo.on('init', function()
      kumo.start_esmtp_listener {_lua("start_esmtp_listener", listen="LISTEN", hostname="'gw.example'")}
      kumo.start_http_listener {{ listen = HTTP }}
      kumo.configure_local_logs {_lua("configure_local_logs", log_dir="LOGS", **disk)}
    end)
    kumo.on('get_queue_config', function()
      return kumo.make_queue_config {_lua("make_queue_config", protocol="{ smtp = { mx_list = UPSTREAMS } }")}
    end)
    kumo.on('get_egress_path_config', function()
      return kumo.make_egress_path {_lua("make_egress_path")}
    end)
    """
    gateway = start(policy, "--workers", "1", upstreams=[sink.address])
    with gateway.smtp() as client:
        client.sendmail("a@out.example", ["b@far.example", "c@far.example"], "Subject: x\r\n\r\n" + "y" * 2000)
    assert len(sink.mails()) == 1
    wait_until(lambda: len(gateway.records()) == 2, lambda: str(gateway.records()))


def test_numbers_of_schemas_within_schemas_are_taken_up_to_their_maximum_and_no_further() -> None:
    readers = [option.read for schema in SCHEMAS.values() for option in schema.options.values()]
    inner = [schema for schema in readers if isinstance(schema, Schema)]
    numbers = [(one, name, value) for one in inner for name, option in one.options.items() if (value := most(option))]
    assert {name for _, name, _ in numbers} == {
        name for name, parameter in inspect.signature(Limits).parameters.items() if parameter.annotation == "int"
    }
    for schema, name, value in numbers:
        limits = schema({name: value})
        session = ServerSession(Terms(ListenerParams(hostname="gw.example", limits=limits)), Observer())
        session.limit(Terms(ListenerParams(hostname="gw.example", limits=limits)).limits)
        session.receive_data(b"NOOP\r\nX\r\nRCPT TO:<a@b>\r\n")
        assert session.next_event() is None
        with pytest.raises(BadOptions, match=r" at most | to "):
            schema({name: value + 1})
