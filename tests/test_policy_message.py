"""Methods of messages in Lua."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.mail.message import Message
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.messages.table import NOT_SUPPORTED, WITHOUT_EFFECT
from gateway.policy.problems import PolicyError
from gateway.smtp.address import parse_address
from tests.policy_tools import load

MAIL = (
    b'From: "Scott, J." <scott@send.example>\r\nTo: a@one.example, Team: b@two.example;\r\n'
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Campaign-Id: first\r\nX-Campaign-ID: last\r\nX-Tenant: t\r\n"
    b"\r\nHello\r\n"
)
BOUNCE = b"""\
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.far.example

Final-Recipient: rfc822; u@far.example
Action: failed
Status: 5.1.1

--b
Content-Type: text/rfc822-headers

Subject: x

--b--
""".replace(b"\n", b"\r\n")


def run(body: str, content: bytes = MAIL, recipients: int = 2, **meta: Any) -> Message:
    """The message after smtp_server_message_received(msg, conn_meta) with this body."""
    policy = load(f"kumo.on('smtp_server_message_received', function(msg, conn_meta)\n{body}\nend)")
    addresses = [parse_address(f"r{number}@example.com") for number in range(recipients)]
    message = Message("0" * 32, parse_address("s@send.example"), addresses, data=content, meta=meta)
    policy.message_received(message, ConnMeta()).result()
    return message


def error_of(body: str, **options: Any) -> str:
    with pytest.raises(PolicyError) as raised:
        run(body, **options)
    return str(raised.value)


def result(expression: str, **options: Any) -> Any:
    """An expression's value, through metadata."""
    return run(f"msg:set_meta('result', {expression})", **options).meta["result"]


def test_the_envelope_can_be_read() -> None:
    assert result("{ msg:id(), msg:sender().email, msg:recipient_list()[2].user }") == [
        "0" * 32,
        "s@send.example",
        "r1",
    ]


def test_recipient_is_one_address_or_a_list_or_nil() -> None:
    assert result("msg:recipient().email", recipients=1) == "r0@example.com"
    assert result("msg:recipient()[2].email") == "r1@example.com"
    assert result("msg:recipient() == nil", recipients=0) is True


@pytest.mark.parametrize("value", ["'<A@Example.COM>'", "msg:sender()", "{ 'A@example.com' }", "{ msg:sender() }"])
def test_recipients_can_be_set(value: str) -> None:
    message = run(f"msg:set_sender 'A@example.com'; msg:set_recipient({value})")
    assert [recipient.email for recipient in message.recipients] == ["A@example.com"]


def test_the_sender_can_be_null() -> None:
    assert run("msg:set_sender ''").sender.email == ""


@pytest.mark.parametrize("value", ["'no address'", "{}", "nil", "5", "{ 5 }"])
def test_bad_recipients_are_errors(value: str) -> None:
    assert "address" in error_of(f"msg:set_recipient({value})") or "list" in error_of(f"msg:set_recipient({value})")


def test_metadata_and_queue_name() -> None:
    assert result("{ msg:get_meta 'a', msg:get_meta 'b' == nil }", a="x", b=None) == ["x", True]
    assert result("msg:queue_name()", tenant="t") == "t@example.com"
    assert "must be a string" in error_of("msg:queue_name()", tenant=5)


def test_attempts_count() -> None:
    assert result("(msg:increment_num_attempts() or 0) + msg:num_attempts()") == 1


def test_data_is_bytes() -> None:
    assert result("#msg:get_data()") == len(MAIL)
    assert run("msg:set_data(msg:get_data():gsub('Hello', '\\xff'), nil)").data() == MAIL.replace(b"Hello", b"\xff")


def test_header_values() -> None:
    assert result("msg:get_first_named_header_value 'subject'") == "Grüße"
    assert result("msg:get_all_named_header_values 'x-campaign-id'") == ["first", "last"]
    assert result("msg:get_first_named_header_value 'absent' == nil") is True
    assert result("msg:get_all_headers()[3]") == ["Subject", "Grüße"]


def test_address_headers() -> None:
    assert result("{ msg:from_header().name, msg:from_header().user, msg:from_header().email }") == [
        "Scott, J.", "scott", "scott@send.example",
    ]  # fmt: skip
    assert result("msg:to_header().list[2].domain") == "two.example"
    assert result("tostring(msg:from_header())") == '[{"Address":{"name":"Scott, J.","address":"scott@send.example"}}]'
    assert result("msg:get_address_header 'Cc' == nil") is True
    assert "several addresses" in error_of("return msg:to_header().user")


def test_a_malformed_address_header_is_an_error() -> None:
    assert "From" in error_of("msg:from_header()", content=b"From: a b c <\r\n\r\n")


def test_fields_can_be_added_and_removed() -> None:
    assert run("msg:prepend_header('X-New', 'Grüße', true)").data() == b"X-New: =?UTF-8?q?Gr=C3=BC=C3=9Fe?=\r\n" + MAIL
    assert run("msg:append_header('X-New', 'v')").data() == MAIL.replace(b"\r\n\r\n", b"\r\nX-New: v\r\n\r\n")
    assert run("msg:remove_all_named_headers 'x-tenant'").data() == MAIL.replace(b"X-Tenant: t\r\n", b"")
    assert b"X-" not in run("msg:remove_x_headers()").data()
    assert run("msg:remove_x_headers { 'subject' }").first_header("subject") is None


def test_a_field_cannot_bring_another_one_along() -> None:
    assert "line break" in error_of("msg:prepend_header('X', 'a\\r\\nBcc: b')")
    assert "line break" in error_of("msg:prepend_header('X', 'a\\r\\nBcc: b', true)")


def test_x_headers_are_imported_last_one_wins() -> None:
    assert run("msg:import_x_headers()").meta == {"x_campaign_id": "last", "x_tenant": "t"}
    assert run("msg:import_x_headers { 'Subject', 'Absent' }").meta == {"subject": "Grüße"}


@pytest.mark.parametrize(
    ("spec", "meta"),
    [
        ("{ name = 'x-campaign-id' }", {"x_campaign_id": "last"}),
        ("{ name = 'x-campaign-id', match = 'first' }", {"x_campaign_id": "first"}),
        ("{ name = 'x-campaign-id', match = 'all', target = 'c' }", {"c": ["first", "last"]}),
        ("{ name = 'X-Ten*', transform = 'camel_case' }", {"xTenant": "t"}),
        ("{ name = 'X-Ten*', transform = 'pascal_case' }", {"XTenant": "t"}),
        ("{ name = 'X-Ten*', transform = 'kebab_case' }", {"x-tenant": "t"}),
    ],
)
def test_headers_are_imported_as_specified(spec: str, meta: dict[str, Any]) -> None:
    assert run(f"msg:import_headers {{ {spec} }}").meta == meta


def test_the_first_matching_specification_wins_and_may_remove() -> None:
    message = run("msg:import_headers { { name = 'x-tenant', remove = true }, { name = 'x-*' } }")
    assert message.meta == {"x_tenant": "t", "x_campaign_id": "last"}
    assert message.first_header("x-tenant") is None
    assert message.first_header("x-campaign-id") == "first"


def test_bad_specifications_are_errors() -> None:
    assert "[1].match: expected one of 'first', 'last', 'all'" in error_of(
        "msg:import_headers { { name = 'x', match = 'any' } }"
    )


def test_reports_are_parsed() -> None:
    found = result("msg:parse_rfc3464()", content=BOUNCE)
    assert found["per_recipient"][0]["final_recipient"] == {"recipient_type": "rfc822", "recipient": "u@far.example"}
    assert found["original_message"] == "Subject: x\n"
    assert result("msg:parse_rfc5965() == nil", content=BOUNCE) is True
    assert result("msg:parse_rfc3464() == nil") is True


@pytest.mark.parametrize("method", WITHOUT_EFFECT)
def test_methods_without_effect_are_accepted(method: str) -> None:
    assert run(f"msg:{method}()").data() == MAIL


@pytest.mark.parametrize("method", NOT_SUPPORTED)
def test_methods_that_are_not_supported_say_so(method: str) -> None:
    assert f"msg:{method} is not supported yet" in error_of(f"msg:{method}()")


@pytest.mark.parametrize("call", ["msg.id()", "msg.id(conn_meta)", "msg.id({})", "msg:get_meta()", "msg:set_data({})"])
def test_wrong_calls_are_errors_of_the_policy(call: str) -> None:
    assert any(
        word in error_of(call) for word in ("msg:id: call it with a colon", "expected a name", "expected a string")
    )


def test_a_message_is_out_of_reach_after_its_event() -> None:
    policy = load("""
        kumo.on('smtp_server_message_received', function(msg)
          if kept then kept:id() end
          kept = msg
        end)
    """)
    message = Message("0" * 32, parse_address("s@send.example"), [], data=MAIL)
    policy.message_received(message, ConnMeta()).result()
    with pytest.raises(PolicyError, match="msg:id: the event that the message came with is over"):
        policy.message_received(message, ConnMeta()).result()


def test_what_does_not_conform_is_named_or_mended():
    content = b"Subject : x\r\nno colon\r\n\r\nx\r\n"
    checks = "'MISSING_COLON_VALUE|LINE_TOO_LONG'"
    refused = result(f"msg:check_fix_conformance({checks}, 'MISSING_DATE_HEADER')", content=content)
    assert refused == "Message has conformance issues: MISSING_COLON_VALUE"
    fixes = "'NAME_ENDS_WITH_SPACE|MISSING_DATE_HEADER|MISSING_MESSAGE_ID_HEADER'"
    mended = run(f"assert(msg:check_fix_conformance('', {fixes}) == nil)", content=content).data()
    assert mended.startswith(b"Subject: x\r\nno colon\r\nDate: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: <0000")
    assert mended.endswith(b"@send.example>\r\n\r\nx\r\n")


def test_a_problem_that_nobody_knows_is_an_error_with_those_there_are():
    assert "invalid flag 'spoon', possible values are 'INVALID_MIME_HEADERS', " in error_of(
        "msg:check_fix_conformance('LINE_TOO_LONG|spoon', '')"
    )


# --- as Lua has it ------------------------------------------------------------------------------------------


def test_numbers_and_strings_stand_in_for_each_other() -> None:
    message = run("""
        msg:set_meta(5, 'x') msg:prepend_header('X-Score', 5) msg:append_header('X-Rate', 0.5)
        assert(msg:get_meta '5' == 'x' and msg:get_meta(5) == 'x')
        conn_meta:set_meta(7, 1) assert(conn_meta:get_meta '7' == 1)
    """)
    assert message.first_header("X-Score") == "5"
    assert message.first_header("X-Rate") == "0.5"
    assert run("msg:set_data(5)").data() == b"5\r\n"


def test_methods_are_functions() -> None:
    assert result("{ type(msg.get_meta), type(conn_meta.set_meta), type(msg.no_such) }") == [
        "function",
        "function",
        "nil",
    ]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("{ 1, 2, nil, 4 }", [1, 2]),
        ("{ 'a', x = 'lost' }", ["a"]),
        ("{ [2] = 'b' }", {"2": "b"}),
        ("{}", {}),
        ("{ { 1 }, { x = { 2 } } }", [[1], {"x": [2]}]),
        ("{ [true] = 1 }", {"True": 1}),
    ],
)
def test_a_table_with_an_array_part_is_stored_as_that(value: str, stored: object) -> None:
    assert result(value) == stored
    assert run(f"conn_meta:set_meta('x', {value}) msg:set_meta('y', conn_meta:get_meta 'x')").meta["y"] == stored


def test_nil_is_stored_as_null() -> None:
    assert run("msg:set_meta('gone', nil)").meta == {"gone": None}


@pytest.mark.parametrize("read", ["msg:get_first_named_header_value 'X-Folded'", "msg:get_all_headers()[1][2]"])
def test_runs_of_blanks_in_a_header_are_one(read: str) -> None:
    folded = b"X-Folded:  a \t b\r\n\t  c   d \r\n\r\n"
    assert result(read, content=folded) == "a b c d"
    assert run("msg:import_x_headers()", content=folded).meta == {"x_folded": "a b c d"}


def test_an_address_with_a_quoted_local_part() -> None:
    content = b'From: "A B" <"a b"@x.example>\r\n\r\n'
    found = "(function() local f = msg:from_header() return { f.name, f.user, f.domain, f.email } end)()"
    assert result(found, content=content) == ["A B", "a b", "x.example", '"a b"@x.example']


@pytest.mark.parametrize("spec", ["{ name = 'X-*', target = 't' }", "{ name = '*' }", "{ name = 'X-*-Id' }"])
def test_what_a_specification_cannot_mean_is_an_error(spec: str) -> None:
    assert "msg:import_headers: [1]." in error_of(f"msg:import_headers {{ {spec} }}")


# --- scheduling -------------------------------------------------------------------------------------------

WORKING_HOURS = "{ dow = 'Mon,Wednesday', tz = 'America/Phoenix', start = '09:00:00', ['end'] = '17:00:00' }"


def test_a_schedule_is_returned_and_left_to_the_fleet() -> None:
    assert result(f"msg:set_scheduling({WORKING_HOURS})") == {
        "dow": "Mon,Wednesday",
        "tz": "America/Phoenix",
        "start": "09:00:00",
        "end": "17:00:00",
    }
    assert result("msg:set_scheduling { first_attempt = '2023-03-01T17:00:00-08:00' }")
    assert "result" in run("msg:set_meta('result', msg:set_scheduling(nil)) msg:set_due(nil)").meta
    run("msg:set_due '2024-03-08T17:51:42.481711Z'")


def test_a_schedule_in_a_header_is_read_and_stays_for_the_fleet() -> None:
    content = b'X-Schedule: {"first_attempt":\r\n "2026-01-01T00:00:00Z"}\r\n\r\nx\r\n'
    message = run("msg:set_meta('result', msg:import_scheduling_header('X-Schedule', true))", content=content)
    assert message.meta["result"] == {"first_attempt": "2026-01-01T00:00:00Z"}
    assert message.first_header("X-Schedule")
    assert result("msg:import_scheduling_header('X-Other', true) == nil", content=content) is True


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("msg:set_scheduling { dow = 'Mon' }", "dow, tz, start and end belong together"),
        ("msg:set_scheduling { first_attempt = 'tomorrow' }", "first_attempt: expected a date and time"),
        (f"msg:set_scheduling({WORKING_HOURS.replace('Mon,', 'Mo,')})", "dow: expected days"),
        (f"msg:set_scheduling({WORKING_HOURS.replace('America/Phoenix', 'PST')})", "tz: expected a time zone"),
        (f"msg:set_scheduling({WORKING_HOURS.replace('17:', '27:')})", "end: expected a time of day"),
        ("msg:set_scheduling { when = 1 }", "unknown option"),
        ("msg:set_due 'later'", "expected a date and time"),
        ("msg:import_scheduling_header('Subject')", "is no JSON"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_an_error(call: str, error: str) -> None:
    assert error in error_of(call)
