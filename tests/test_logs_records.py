"""Records: their keys, types and null rules (KumoMTA's), what is hidden, ids, and the encoding of anything at all."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import RECORD_TYPES
from gateway.handover import HandOver, RecipientOutcome, Response, Status
from gateway.logs import identity, records
from gateway.logs.encoding import GAP, Record, Selection, Template, laid_out, to_json
from gateway.mail.message import Message
from gateway.policy import schemas
from gateway.policy.options import BadOptions
from gateway.reports.rfc3464 import OutOfBand
from gateway.smtp import replies
from gateway.smtp.address import NULL_SENDER, EnvelopeAddress, parse_address
from gateway.smtp.replies import Reason

DOCS = Path(__file__).parent.parent / "docs" / "log-records.md"
NOW = 1_785_847_290_123_456_789
SESSION = "9bcd689e-23d9-41b7-a015-63a1382f8b57"

GOLDEN = (
    '{"type":"Reception","id":"6f0c0000000011f1881a010b26353bd1","sender":"a@send.example",'
    '"recipient":"u@example.com","queue":"example.com","site":"","size":1312,'
    '"response":{"code":250,"enhanced_code":null,"content":"","command":null},'
    '"peer_address":{"name":"client.example","addr":"192.0.2.7"},"timestamp":1785847290,'
    '"event_time":"2026-08-04T12:41:30.123456789Z","created":1785847290,'
    '"created_time":"2026-08-04T12:41:30.120011Z","num_attempts":0,"bounce_classification":"Uncategorized",'
    '"egress_pool":null,"egress_source":null,"source_address":null,"feedback_report":null,"meta":{},"headers":{},'
    f'"delivery_protocol":null,"reception_protocol":"ESMTP","nodeid":"{identity.node_id()}",'
    f'"session_id":"{SESSION}"}}\n'
)
# The order of keys in every type; optional ones come behind them and are absent rather than null.
KEYS = list(json.loads(GOLDEN))[:-1]
TLS_KEYS = ["tls_cipher", "tls_protocol_version", "tls_peer_subject_name"]


def a_message(*recipients: str) -> Message:
    return Message(
        "6f0c0000000011f1881a010b26353bd1",
        parse_address("a@send.example"),
        [parse_address(recipient) for recipient in recipients or ("u@example.com",)],
        data=b"Subject: x\r\n\r\n" + b"x" * 1296 + b"\r\n",
        meta={"tenant": "t"},
        received_at=1785847290.120011,
    )


ORIGIN = records.Origin("client.example", "192.0.2.7", SESSION)
TLS_ORIGIN = records.Origin(
    "client.example", "192.0.2.7", SESSION, tls_cipher="TLS13_AES_256_GCM_SHA384", tls_protocol_version="TLSv1_3"
)


def outcome(recipient: str, status: Status, response: Response, reason: Reason | None = None) -> RecipientOutcome:
    return RecipientOutcome(parse_address(recipient), status, response, reason)


def hand_over(*outcomes: RecipientOutcome, **values: Any) -> HandOver:
    return HandOver(
        outcomes=list(outcomes), site="unspecified->mx_list:mta1@smtp_client", protocol="ESMTP", seconds=0.1, **values
    )


def bounce(**values: Any) -> OutOfBand:
    defaults: dict[str, Any] = {
        "recipient": "user@far.example",
        "action": "failed",
        "code": 550,
        "content": "5.1.1 no such user",
        "enhanced_code": {"class": 5, "subject": 1, "detail": 1},
        "reporting_mta": "mx.far.example",
        "attempted_at": None,
        "added": {"action": "failed"},
    }
    return OutOfBand(**(defaults | values))


def shown(record: Record) -> dict[str, Any]:
    """The record as a logger with all metadata shows it."""
    return json.loads(record.line(to_json(record.meta)))


def reception(*args: Any) -> dict[str, Any]:
    return shown(records.reception(*args))


def feedback(*args: Any) -> dict[str, Any]:
    return shown(records.feedback(*args))


def out_of_band(*args: Any) -> dict[str, Any]:
    return shown(records.out_of_band(*args))


def handed_over(*args: Any) -> list[dict[str, Any]]:
    return [shown(record) for record in records.handed_over(*args)]


def rejection(reply: replies.Reply = replies.BAD_SEQUENCE, **values: Any) -> dict[str, Any]:
    return shown(records.rejection(reply, ORIGIN, NOW, **({"command": None, "meta": {}} | values)))


DELIVERED = Response(250, "2.0.0", "queued as 1", ".\r\n")
NO_USER = Response(550, "5.1.1", "no such user", "RCPT TO:<x@d>\r\n")


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_a_reception_is_laid_out_as_kumomta_does():
    record = records.reception(a_message(), ORIGIN, "example.com", NOW)
    assert record.line().decode() == GOLDEN


@pytest.mark.parametrize(
    "record",
    [
        reception(a_message(), ORIGIN, "q", NOW),
        feedback(a_message(), ORIGIN, "q", {}, NOW),
        out_of_band(a_message(), ORIGIN, "q", bounce(), NOW),
        rejection(),
        *handed_over(a_message(), ORIGIN, "q", hand_over(outcome("u@d", Status.DELIVERED, DELIVERED)), NOW),
    ],
    ids=lambda record: record["type"],
)
def test_every_type_has_the_same_keys_in_the_same_order(record):
    assert list(record)[: len(KEYS)] == KEYS
    assert not set(list(record)[len(KEYS) :]) & set(TLS_KEYS)


def test_every_type_is_documented_and_every_documented_type_exists():
    text = DOCS.read_text()
    assert set(re.findall(r"^### `(\w+)`", text, re.MULTILINE)) == set(RECORD_TYPES)


def test_every_key_is_documented_and_every_documented_key_exists():
    table = DOCS.read_text().partition("## Fields")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert documented == [*KEYS, *TLS_KEYS, "session_id", "reason", "notification", "left_out"]


def test_tls_and_session_stand_at_the_end_when_there_is_tls():
    record = reception(a_message(), TLS_ORIGIN, "q", NOW)
    assert list(record)[len(KEYS) :] == [*TLS_KEYS, "session_id"]
    assert record["tls_peer_subject_name"] == []


def test_one_recipient_is_a_string_and_several_are_a_list():
    assert reception(a_message("a@d", "b@d"), ORIGIN, "d", NOW)["recipient"] == ["a@d", "b@d"]


def test_times_keep_their_leading_zeroes():
    record = reception(a_message(), ORIGIN, "d", 1_785_847_290_000_000_007)
    assert record["event_time"] == "2026-08-04T12:41:30.000000007Z"


def test_recipients_with_the_same_result_share_a_record():
    result = hand_over(
        outcome("a@d", Status.DELIVERED, DELIVERED),
        outcome("b@d", Status.PERMANENT, NO_USER, Reason.UPSTREAM_REFUSED),
        outcome("c@d", Status.DELIVERED, Response(250, "2.0.0", "queued as 1", ".\r\n")),
        peer_name="mta1.example",
        peer_address="10.0.0.1",
        session_id=SESSION,
        source_address="10.0.0.9:40112",
        tls_cipher="TLS_AES_256_GCM_SHA384",
        tls_protocol_version="TLSv1.3",
    )
    delivery, refused = handed_over(a_message("a@d", "b@d", "c@d"), ORIGIN, "d", result, NOW)
    assert delivery["type"] == "Delivery"
    assert delivery["recipient"] == ["a@d", "c@d"]
    assert delivery["response"] == {
        "code": 250,
        "enhanced_code": {"class": 2, "subject": 0, "detail": 0},
        "content": "queued as 1",
        "command": ".\r\n",
    }
    assert delivery["peer_address"] == {"name": "mta1.example", "addr": "10.0.0.1"}
    assert delivery["source_address"] == {"address": "10.0.0.9:40112"}
    assert (delivery["egress_pool"], delivery["egress_source"]) == ("unspecified", "unspecified")
    assert (delivery["delivery_protocol"], delivery["reception_protocol"]) == ("ESMTP", "ESMTP")
    assert list(delivery)[len(KEYS) :] == [*TLS_KEYS, "session_id"]
    assert refused["type"] == "Bounce"
    assert refused["recipient"] == "b@d"
    assert refused["reason"] == "upstream_refused"


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (Status.TRANSIENT, Reason.UPSTREAM_UNREACHABLE, "TransientFailure"),
        (Status.UNKNOWN, Reason.OUTCOME_UNKNOWN, "TransientFailure"),
        (Status.PERMANENT, Reason.UPSTREAM_REFUSED, "Bounce"),
    ],
)
def test_what_was_not_delivered_names_its_reason_and_a_peer_only_where_there_was_one(status, reason, kind):
    result = hand_over(outcome("u@d", status, Response(451, "4.4.1", "no\r\nanswer", None), reason))
    (record,) = handed_over(a_message(), ORIGIN, "d", result, NOW)
    assert record["type"] == kind
    assert record["reason"] == reason.value
    assert record["peer_address"] is None
    assert record["source_address"] is None
    assert record["response"]["content"] == "no answer"


def test_a_rejection_names_the_refused_recipient_the_sender_and_the_reason():
    reply = replies.make(550, "5.7.1 relaying not permitted\nat all", Reason.RELAY_DENIED)
    record = rejection(
        reply,
        command="RCPT TO:<u@other.example>",
        sender=parse_address("a@send.example"),
        recipients=[parse_address("u@other.example")],
        meta={"tenant": "t"},
    )
    assert record["sender"] == "a@send.example"
    assert record["recipient"] == "u@other.example"
    assert record["response"] == {
        "code": 550,
        "enhanced_code": {"class": 5, "subject": 7, "detail": 1},
        "content": "relaying not permitted at all",
        "command": "RCPT TO:<u@other.example>",
    }
    assert (record["id"], record["queue"], record["site"], record["size"]) == ("", "", "", 0)
    assert record["reception_protocol"] is None
    assert list(record)[len(KEYS) :] == ["session_id", "reason"]
    assert record["reason"] == "relay_denied"
    assert record["created_time"] == record["event_time"]


def test_a_rejection_outside_a_transaction_has_no_sender_and_no_recipient():
    record = rejection()
    assert (record["sender"], record["recipient"]) == ("", "")


def test_a_null_sender_is_an_empty_string():
    assert rejection(sender=NULL_SENDER)["sender"] == ""


@pytest.mark.parametrize(
    "command",
    [
        "AUTH PLAIN AHVzZXIAc2VjcmV0",
        "auth plain AHVzZXIAc2VjcmV0",
        " AUTH LOGIN c2VjcmV0",
        "AHVzZXIAc2VjcmV0",
        "c2VjcmV0",
        "AUHT PLAIN c2VjcmV0",
        "AUTH\tPLAIN c2VjcmV0",
        "PASS c2VjcmV0",
        "GET /?token=c2VjcmV0",
    ],
)
def test_no_credential_reaches_a_record(command):
    shown = rejection(command=command)["response"]["command"]
    assert shown.endswith("[redacted]")
    assert "c2Vj" not in shown
    assert "AHVz" not in shown


@pytest.mark.parametrize(
    "command", ["MAIL FROM:<a@b> FOO=1", "rcpt to:<x>", "EHLO client", "DATA", "VRFY u", "STARTTLS"]
)
def test_commands_of_smtp_are_shown_as_they_came(command):
    assert rejection(command=command)["response"]["command"] == command


def test_an_oob_record_speaks_of_the_bounced_recipient():
    message = a_message("bounce-123@b.example.com")
    message.sender = NULL_SENDER
    added = {"action": "failed", "supplemental_trace": {"recipient": "u@d"}}
    record = out_of_band(message, TLS_ORIGIN, "b.example.com", bounce(added=added), NOW)
    assert record["id"] == message.id
    assert (record["sender"], record["recipient"]) == ("bounce-123@b.example.com", "user@far.example")
    assert record["size"] == 0
    assert record["peer_address"] == {"name": "mx.far.example", "addr": "192.0.2.7"}
    assert record["response"] == {
        "code": 550,
        "enhanced_code": {"class": 5, "subject": 1, "detail": 1},
        "content": "5.1.1 no such user",
        "command": None,
    }
    assert list(record)[len(KEYS) :] == ["session_id", "action", "supplemental_trace"]


@pytest.mark.parametrize("year", [1000, 1969, 2026, 9999])
def test_an_oob_record_takes_the_time_of_the_last_attempt(year):
    attempted = datetime(year, 8, 1, 10, 0, 0, tzinfo=UTC)
    record = out_of_band(a_message(), ORIGIN, "q", bounce(attempted_at=attempted), NOW)
    assert record["event_time"] == f"{year}-08-01T10:00:00.000000000Z"
    assert record["timestamp"] == int(attempted.timestamp())
    assert record["created_time"] == "2026-08-04T12:41:30.120011Z"


def test_a_feedback_record_is_a_reception_with_its_report():
    record = feedback(a_message(), ORIGIN, "q", {"feedback_type": "abuse"}, NOW)
    own = {"type": "Feedback", "feedback_report": {"feedback_type": "abuse"}}
    assert record == reception(a_message(), ORIGIN, "q", NOW) | own


def test_what_was_no_report_although_it_said_so_is_told_at_the_end():
    assert list(reception(a_message(), ORIGIN, "q", NOW, "no_parts").items())[-1] == ("report_unreadable", "no_parts")
    assert rejection(added={"report_unreadable": "no_boundary"})["report_unreadable"] == "no_boundary"
    assert "report_unreadable" not in rejection()


# --- encoding ---------------------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(meta=st.dictionaries(st.text(), JSON_VALUES, max_size=4), sender=st.text(), command=st.none() | st.text())
def test_a_record_is_one_line_of_json_and_shows_what_it_was_given(meta, sender, command):
    record = records.rejection(
        replies.BAD_SEQUENCE, ORIGIN, NOW, sender=EnvelopeAddress(sender, ""), command=command, meta=meta
    )
    line = record.line(to_json(meta))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    read = json.loads(line)
    assert read["sender"] == sender
    assert read["meta"] == json.loads(json.dumps(meta), parse_constant=lambda _: None)


TEXT = st.text(max_size=30)
SENDERS = st.builds(EnvelopeAddress, TEXT, TEXT)
TLS = st.just({}) | st.fixed_dictionaries({"tls_cipher": TEXT, "tls_protocol_version": TEXT})


def encoded_as_a_whole(line: bytes, own: dict[str, Any]) -> bytes:
    """What orjson makes of the record in `line`, after a look at `own` values in it."""
    record = orjson.loads(line)
    assert {key: record.get(key) for key in own} == own
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


@given(st.data())
def test_a_form_with_its_gaps_filled_is_what_encoding_the_whole_gives(data):
    draw = data.draw
    recipients = draw(st.lists(SENDERS, min_size=1, max_size=3))
    message = Message(
        draw(TEXT), draw(SENDERS), recipients, data=draw(st.binary()), received_at=draw(st.integers(1, 2**33)) + 0.5
    )
    origin = records.Origin(draw(TEXT), draw(TEXT), draw(TEXT), **draw(TLS))
    queue = draw(TEXT)
    emails = [recipient.email for recipient in recipients]
    own = {
        "id": message.id,
        "sender": message.sender.email,
        "recipient": emails[0] if len(emails) == 1 else emails,
        "queue": queue,
        "size": message.size,
        "timestamp": NOW // 10**9,
        "created": int(message.received_at),
    }
    record = records.reception(message, origin, queue, NOW)
    line = record.line()
    assert line == encoded_as_a_whole(line, own | {"type": "Reception"})
    shown = {"meta": {"a": 1}, "headers": {"b": 2}}
    line = record.line(to_json(shown["meta"]), to_json(shown["headers"]))
    assert line == encoded_as_a_whole(line, own | shown)

    answer = Response(draw(st.integers(200, 599)), draw(st.sampled_from(["", "5.1.1"])), draw(TEXT), draw(TEXT))
    status = draw(st.sampled_from(Status))
    reason = None if status is Status.DELIVERED else draw(st.sampled_from(Reason))
    result = HandOver(
        [RecipientOutcome(recipient, status, answer, reason) for recipient in recipients],
        draw(TEXT),
        draw(TEXT),
        0.1,
        peer_name=draw(TEXT),
        peer_address=draw(TEXT),
        session_id=draw(st.none() | TEXT),
        source_address=draw(st.none() | TEXT),
        **draw(TLS),
    )
    (record,) = records.handed_over(message, origin, queue, result, NOW, draw(st.none() | TEXT))
    line = record.line()
    own |= {"site": result.site, "delivery_protocol": result.protocol, "session_id": result.session_id}
    own |= {"reason": reason and reason.value, "tls_cipher": result.tls_cipher}
    assert line == encoded_as_a_whole(line, own)


def test_what_policy_and_peers_put_in_is_shown_somehow():
    message = a_message()
    message.sender = EnvelopeAddress("\udcff", "")
    record = reception(message, ORIGIN, "\ud800", NOW)
    assert (record["sender"], record["queue"]) == ("?", "?")
    assert list(record) == [*KEYS, "session_id"]


WILD = st.recursive(
    st.none() | st.integers() | st.floats() | st.binary() | st.text(st.characters()) | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(st.characters()), inner),
    max_leaves=8,
)


@given(WILD)
def test_whatever_a_record_holds_it_is_encoded(value):
    record = laid_out({"type": "Reception", "wild": value, "meta": GAP, "headers": GAP}, {})
    assert orjson.loads(record.line(to_json({"wild": value})))["type"] == "Reception"


def test_lone_surrogates_and_huge_integers_become_text():
    assert orjson.loads(to_json({"a": "x\udcff", "b": 2**70, "c": float("nan"), 1: b"\xff"})) == {
        "a": "x?",
        "b": str(2**70),
        "c": None,
        "1": "\ufffd",
    }


@given(
    st.dictionaries(st.text("abX_*", max_size=4), st.none() | st.integers()),
    st.lists(st.text("abX_*", max_size=4), max_size=4),
)
def test_metadata_is_selected_by_exact_name_or_by_its_beginning(values, patterns):
    expected = {
        name: value
        for name, value in values.items()
        if any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in patterns)
    }
    assert Selection(patterns, ()).meta(values) == expected


def test_headers_are_selected_without_case_and_keep_their_first_spelling():
    fields = [("Subject", "s"), ("X-Job", "1"), ("x-job", "2"), ("X-JOB", "3"), ("List-Id", "l"), ("From", "f")]
    assert Selection((), ("SUBJECT", "x-*", "absent")).headers(fields) == {"Subject": "s", "X-Job": ["1", "2", "3"]}


def test_templates_print_null_and_booleans_as_kumomta_does():
    assert Template("{{ a }} {{ b }} {{ c }} {{ missing }}").render(b'{"a":null,"b":true,"c":1}') == b"none true 1 \n"


def test_templates_print_tables_as_kumomta_does():
    record = '{"meta":{"b":{"z":"ä","y":null},"a":1},"list":["x",true]}'.encode()
    text = Template("{{ meta }} {{ list }}").render(record)
    assert text.decode() == '{"a": 1, "b": {"y": null, "z": "ä"}} ["x", true]\n'


def test_a_policy_with_a_broken_template_is_refused_when_it_is_loaded():
    assert schemas.template("{{ type }}") == "{{ type }}"
    with pytest.raises(BadOptions, match="not a template: unexpected end of template"):
        schemas.template("{{ type ")


# --- ids --------------------------------------------------------------------------------------------------------------


def test_a_message_id_is_a_version_1_uuid_that_carries_its_time():
    now = max(NOW, time.time_ns()) + 10**15  # later than any other test's: ids never go back
    text = identity.new_message_id(now)
    assert re.fullmatch(r"[0-9a-f]{32}", text)
    parsed = uuid.UUID(hex=text)
    assert (parsed.version, parsed.variant) == (1, uuid.RFC_4122)
    assert parsed.node >> 40 & 1  # multicast: no hardware address
    later = uuid.UUID(hex=identity.new_message_id(now + 10**9))
    assert later.time - parsed.time == 10**7


def test_a_session_id_is_a_version_8_uuid():
    ids = {identity.new_session_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(str(uuid.UUID(text)) == text for text in ids)
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in ids} == {(8, uuid.RFC_4122)}


def test_ids_go_forward_while_the_clock_stands_still_or_goes_back():
    ids = [uuid.UUID(hex=identity.new_message_id(now)).time for now in [NOW + 5 * 10**9] * 1000 + [NOW] * 1000]
    assert ids == sorted(set(ids))


def test_a_forked_process_makes_other_ids():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, (identity.new_message_id(NOW) + identity.new_session_id()).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    theirs = os.read(reader, 100).decode()
    os.close(reader)
    assert identity.new_message_id(NOW)[16:] != theirs[16:32]
    assert identity.new_session_id() != theirs[32:]


def test_the_node_id_is_stable_and_no_machine_id():
    first = identity.node_id()
    identity.node_id.cache_clear()
    assert identity.node_id() == first
    assert str(uuid.UUID(first)) == first
    machine_id = Path("/etc/machine-id")
    assert not machine_id.exists() or machine_id.read_text().strip() != first.replace("-", "")
