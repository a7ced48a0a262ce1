"""The object model that `check` works with is what the runtime offers, no more and no less."""

from __future__ import annotations

import pytest

from gateway.mail.headers import AddressHeader
from gateway.policy import events
from gateway.policy.api import MAKERS
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.kumo.regexes import Regex
from gateway.policy.messages.handle import MessageHandle
from gateway.policy.model import Function, Model, Namespace, of_this_gateway
from gateway.policy.objects import Made
from gateway.policy.schemas import SCHEMAS
from gateway.smtp.address import EnvelopeAddress
from tests.policy_tools import load

MODEL = of_this_gateway()


def function(*path: str) -> Function:
    found: object = MODEL.kumo
    for name in path:
        assert isinstance(found, Namespace)
        found = found.members[name]
    assert isinstance(found, Function)
    return found


def test_whatever_the_kumo_module_has_in_lua_is_in_the_model() -> None:
    known = ", ".join(f"{name} = true" for name in MODEL.kumo.members)
    load(
        f"known = {{ {known} }} for name in pairs(kumo) do assert(known[name], name); known[name] = nil end\n"
        "assert(next(known) == nil, next(known))"
    )


@pytest.mark.parametrize(
    ("path", "gives"),
    [
        (("regex", "compile"), Regex),
        (("string", "trim"), str),
        (("serde", "json_parse"), None),
        (("reject",), None),
    ],
)
def test_what_a_function_gives_is_read_off_its_annotation(path: tuple[str, ...], gives: type | None) -> None:
    assert function(*path).gives is gives


def test_what_kumomta_has_and_the_gateway_has_not_is_marked() -> None:
    assert function("generate_rfc3464_message").unsupported
    assert not function("make_listener_domain").unsupported
    dkim = MODEL.kumo.members["dkim"]
    assert isinstance(dkim, Namespace) and dkim.unsupported


def test_methods_and_fields_of_objects_are_known() -> None:
    message = MODEL.kinds[MessageHandle]
    assert message.methods["sender"].gives is EnvelopeAddress
    assert message.methods["from_header"].gives is AddressHeader
    assert message.methods["dkim_sign"].unsupported
    assert MODEL.kinds[EnvelopeAddress].fields == {"user", "domain", "email"}
    assert set(MODEL.kinds[ConnMeta].methods) == {"get_meta", "set_meta", "auth_info"}
    for maker, schema in ((name, SCHEMAS[name]) for name in MAKERS):  # a class of its own for each
        made = function(maker).gives
        assert made is not None and issubclass(made, Made) and MODEL.kinds[made].fields == frozenset(schema.options)


def test_parameters_of_handlers_have_classes() -> None:
    assert MODEL.parameters(events.MESSAGE_RECEIVED) == (MessageHandle, ConnMeta)
    assert MODEL.parameters(events.RCPT_TO) == (EnvelopeAddress, ConnMeta)
    assert MODEL.parameters("an_event_of_ones_own") == ()


def test_a_model_is_of_a_state_that_has_loaded_nothing() -> None:
    assert isinstance(MODEL, Model)
    assert "names" not in MODEL.libraries
