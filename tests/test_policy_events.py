"""The events of a transaction before it becomes messages, as clients and couriers meet them."""

from __future__ import annotations

import pytest

from tests.policy_session import PolicySession

ACCEPTED = "250 2.0.0 OK ids="
BOTH = ["b@y.example", "c@y.example"]
LOCAL_PROBLEM = "451 4.3.0 Local problem; try again later"


def data(body: str, options: str = "", more: str = "") -> PolicySession:
    return PolicySession(f"kumo.on('smtp_server_data', function(msg, conn_meta)\n{body}\nend)\n{more}", options)


def splitting(body: str, options: str = "", more: str = "") -> PolicySession:
    return PolicySession(
        f"kumo.on('smtp_server_split_transaction', function(msg, conn_meta)\n{body}\nend)\n{more}", options
    )


def test_a_chunk_of_who_was_not_offered_chunks_is_refused_and_counted(caplog: pytest.LogCaptureFixture):
    session = PolicySession("kumo.on('smtp_server_ehlo', function() return { 'PIPELINING' } end)")
    session.says("EHLO c.example", "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>")
    assert session.says("BDAT 6 LAST", "NOOP") == ["502 5.5.1 Command not implemented"]
    [rejection] = session.records("Rejection")
    assert rejection["reason"] == "unknown_command" and not caplog.records


# --- smtp_server_data -------------------------------------------------------------------------------------


def test_data_sees_the_content_as_received_with_all_recipients_once_per_transaction():
    session = data(
        "assert(msg:get_data() == 'Subject: s\\r\\n\\r\\nhello\\r\\n', msg:get_data())\n"
        "assert(#msg:recipient_list() == 2)\n"
        "conn_meta:set_meta('times', (conn_meta:get_meta 'times' or 0) + 1)",
        "batch_handling = 'BifurcateAlways'",
        "kumo.on('smtp_server_message_received', function(msg, conn_meta)\n"
        "  assert(conn_meta:get_meta 'times' == 1) assert(msg:get_first_named_header_value 'Received') end)",
    )
    assert session.transaction("b@y.example", "c@y.example").startswith(ACCEPTED)
    assert session.delivered() == [("a@x.example", ["b@y.example"]), ("a@x.example", ["c@y.example"])]


def test_what_data_changes_reaches_every_message():
    session = data(
        "msg:set_sender 'new@x.example'\nmsg:set_recipient { 'one@y.example', 'two@z.example' }\n"
        "msg:prepend_header('X-Seen', 'yes')\nmsg:set_meta('campaign', 'c1')",
        "batch_handling = 'BatchByDomain'",
        "kumo.on('smtp_server_message_received', function(msg) assert(msg:get_meta 'campaign' == 'c1') end)",
    )
    assert session.transaction("b@y.example").startswith(ACCEPTED)
    assert session.delivered() == [("new@x.example", ["one@y.example"]), ("new@x.example", ["two@z.example"])]
    for number in (0, 1):
        assert "X-Seen: yes\r\nSubject: s\r\n\r\nhello\r\n" in session.content(number)
        assert session.content(number).index("Received: ") < session.content(number).index("X-Seen")
    first, second = session.records("Reception")
    assert first["id"] != second["id"]


def test_a_message_that_stays_whole_keeps_the_id_that_data_saw():
    session = data("conn_meta:set_meta('id', msg:id())")
    reply = session.transaction("b@y.example", "c@y.example")
    assert reply == f"250 2.0.0 OK ids={session.records('Reception')[0]['id']}"
    assert reply.endswith(str(session.records("Reception")[0]["id"]))


RECIPIENT = "kumo.on('smtp_server_message_received', function(msg)\n{} msg:recipient().domain:lower() end)"


@pytest.mark.parametrize(
    ("policy", "options", "delivered"),
    [
        (RECIPIENT.format("local domain ="), "", [["b@y.example"], ["c@y.example"]]),
        (RECIPIENT.format("local domain ="), "batch_handling = 'BatchByDomain'", None),
        (RECIPIENT.format("end) -- "), "", [BOTH]),
        ("kumo.on('smtp_server_message_received', function(msg) msg:recipient_list() end)", "", [BOTH]),
    ],
)
def test_who_asks_for_the_recipient_of_a_message_gets_one_for_each_recipient(
    policy: str, options: str, delivered: list[list[str]] | None
):
    session = PolicySession(policy, options)
    reply = session.transaction(*BOTH)
    assert reply.startswith(LOCAL_PROBLEM if delivered is None else ACCEPTED)
    assert [to for _, to in session.delivered()] == (delivered or [])


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        ("kumo.reject(552, '5.7.1 not this')", "552 5.7.1 not this"),
        ("error 'a fault'", LOCAL_PROBLEM),
        ("msg:set_recipient {}", LOCAL_PROBLEM),
    ],
)
def test_what_data_refuses_is_refused_for_everybody(body: str, reply: str):
    session = data(body, "batch_handling = 'BifurcateAlways'")
    assert session.transaction("b@y.example", "c@y.example") == reply
    assert session.batches == [] and session.records("Reception") == []
    assert session.says("NOOP") == ["250 2.0.0 OK"]


def test_data_may_wait():
    session = data("kumo.sleep(2)\nmsg:set_meta('waited', true)")
    assert session.transaction("b@y.example").startswith("354")
    assert session.says("NOOP") == []
    session.time.pass_time(2)
    taken, noop = session.said()
    assert taken.startswith(ACCEPTED) and noop == "250 2.0.0 OK"


def test_connection_metadata_set_later_reaches_no_message_of_the_transaction():
    session = data(
        "conn_meta:set_meta('early', 1)",
        "batch_handling = 'BifurcateAlways'",
        "kumo.on('smtp_server_message_received', function(msg, conn_meta)\n"
        "assert(msg:get_meta 'early' == nil) assert(msg:get_meta 'late' == nil) conn_meta:set_meta('late', 1) end)",
    )
    assert session.transaction("b@y.example", "c@y.example").startswith(ACCEPTED)


def test_connection_metadata_set_with_one_message_does_not_reach_the_next_of_its_transaction():
    session = PolicySession(
        "kumo.on('smtp_server_message_received', function(msg, conn_meta)\n"
        "assert(msg:get_meta 'late' == nil) conn_meta:set_meta('late', 1) end)",
        "batch_handling = 'BifurcateAlways'",
    )
    assert session.transaction("b@y.example", "c@y.example").startswith(ACCEPTED)
    assert session.transaction("b@y.example") == LOCAL_PROBLEM  # the next transaction has it


# --- smtp_server_split_transaction ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "groups"),
    [
        ("return nil", [["b@y.example", "c@z.example", "d@y.example"]]),
        ("", [["b@y.example", "c@z.example", "d@y.example"]]),
        (
            "return { { 'd@y.example', 'b@y.example' }, { msg:recipient_list()[2] } }",
            [["d@y.example", "b@y.example"], ["c@z.example"]],
        ),
        ("local r = msg:recipient_list() return { r, {} }", [["b@y.example", "c@z.example", "d@y.example"]]),
        (
            "local by = {} for _, r in ipairs(msg:recipient_list()) do by[r.domain] = by[r.domain] or {}\n"
            "table.insert(by[r.domain], r) end return by",
            [["b@y.example", "d@y.example"], ["c@z.example"]],
        ),
        (
            "return { { 'b@y.example', 'more@y.example' }, { 'c@z.example' }, { 'd@y.example' } }",
            [["b@y.example", "more@y.example"], ["c@z.example"], ["d@y.example"]],
        ),
    ],
)
def test_a_transaction_is_split_as_the_policy_says(body: str, groups: list[list[str]]):
    session = splitting(body)
    assert session.transaction("b@y.example", "c@z.example", "d@y.example").startswith(ACCEPTED)
    assert sorted(recipients for _, recipients in session.delivered()) == sorted(groups)


def test_splitting_is_asked_for_a_single_recipient_and_after_data():
    session = splitting(
        "assert(msg:recipient_list()[1].email == 'alias@y.example') return { { 'alias@y.example' } }",
        more="kumo.on('smtp_server_data', function(msg) msg:set_recipient 'alias@y.example' end)",
    )
    assert session.transaction("b@y.example").startswith(ACCEPTED)
    assert session.delivered() == [("a@x.example", ["alias@y.example"])]


@pytest.mark.parametrize(
    "result",
    [
        "{}",
        "{ {} }",
        "{ { 'b@y.example' } }",
        "'b@y.example'",
        "{ 'b@y.example', 'c@y.example' }",
        "{ { 'b@' } }",
        "true",
    ],
)
def test_no_recipient_is_accepted_and_then_left_out(result: str):
    session = splitting(f"return {result}")
    assert session.transaction("b@y.example", "c@y.example") == LOCAL_PROBLEM
    assert session.batches == []


def test_splitting_may_wait_and_reject():
    session = splitting("kumo.sleep(1) kumo.reject(451, '4.7.1 later')")
    assert session.transaction("b@y.example").startswith("354")
    session.time.pass_time(1)
    assert session.said() == ["451 4.7.1 later"]


# --- smtp_server_get_dynamic_parameters -------------------------------------------------------------------


def dynamic(body: str, options: str = "", more: str = "") -> PolicySession:
    return PolicySession(
        f"kumo.on('smtp_server_get_dynamic_parameters', function(listener, conn_meta)\n{body}\nend)\n{more}", options
    )


def test_parameters_are_asked_for_before_everything_else():
    session = dynamic(
        "assert(listener == '127.0.0.1:25' and conn_meta:get_meta 'hostname' == 'gw.example')\n"
        "return { hostname = 'other.example', banner = 'hi', meta = { x_tenant = 't' } }",
        more="kumo.on('smtp_server_connection_accepted', function(conn_meta)\n"
        "assert(conn_meta:get_meta 'hostname' == 'other.example' and conn_meta:get_meta 'x_tenant' == 't') end)",
    )
    assert session.said() == ["220 other.example hi"]
    assert session.says("EHLO c")[0] == "250-other.example Hello c"
    session.transaction("b@y.example")
    assert "by other.example (" in session.content()


@pytest.mark.parametrize("result", ["nil", "{}", "setmetatable({}, {})"])
def test_no_parameters_are_no_change(result: str):
    assert dynamic(f"return {result}").said() == ["220 gw.example relay-gateway"]


@pytest.mark.parametrize(
    "late", ["tls_mode = 'ImplicitTls'", "require_proxy_protocol = true", "proxy_protocol_from = { '192.0.2.1' }"]
)
@pytest.mark.parametrize("block", ["{ %s }", "{ via = { ['127.0.0.1'] = { peer = { ['0/0'] = { %s } } } } }"])
def test_what_a_connection_begins_with_comes_too_late(block: str, late: str):
    assert dynamic(f"return {block % late}").said() == ["421 4.3.0 gw.example technical difficulties"]


def test_parameters_go_over_those_of_the_listener_with_blocks_of_their_own():
    session = dynamic(
        "return { banner = 'plain', relay_hosts = { '192.0.2.0/24' }, max_recipients_per_message = 7,\n"
        "via = { ['127.0.0.1'] = { banner = 'via', peer = { ['127/8'] = { max_message_size = 9 } } },\n"
        "['127.0.0.2'] = { banner = 'elsewhere' } } }",
        "max_recipients_per_message = 1, line_length_hard_limit = 600",
    )
    assert session.said() == ["220 gw.example via"]
    assert "250-SIZE 9" in session.says("EHLO c.example")
    assert session.says("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>")[1].startswith("550 5.7.1 relaying")
    assert session.says("NOOP " + "x" * 700) == ["500 5.5.2 Line too long"]


def test_longer_lines_can_be_allowed():
    session = dynamic("return { line_length_hard_limit = 20000 }")
    assert session.said() and session.says("NOOP " + "x" * 19_000) == ["250 2.0.0 OK"]


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        ("kumo.reject(554, '5.7.1 not here')", "554 5.7.1 not here"),
        ("error 'a fault'", "421 4.3.0 gw.example technical difficulties"),
        ("return 5", "421 4.3.0 gw.example technical difficulties"),
        ("return { listen = '127.0.0.1:25' }", "421 4.3.0 gw.example technical difficulties"),
        ("return { banner = {} }", "421 4.3.0 gw.example technical difficulties"),
        ("return { tls_certificate = 'x.pem' }", "421 4.3.0 gw.example technical difficulties"),
        ("return { deferred_queue = true }", "421 4.3.0 gw.example technical difficulties"),
    ],
)
def test_a_connection_without_parameters_is_turned_away(body: str, reply: str):
    session = dynamic(body)
    assert session.said() == [reply] and session.closed()
    assert session.records("Rejection")[0]["response"]["command"] is None


def test_parameters_may_be_waited_for_and_early_talkers_wait():
    session = dynamic("kumo.sleep(1) return { banner = 'late' }")
    assert session.says("EHLO c.example") == []
    session.time.pass_time(1)
    assert session.said()[0] == "220 gw.example late"


def test_what_a_handshake_leaves_is_what_the_parameters_said():
    session = dynamic("return { hostname = 'other.example', meta = { x = 'kept' } }", more=AUTH_SEES)
    session.says("EHLO c", "STARTTLS")
    session.start_tls()
    assert session.says("EHLO c", "MAIL FROM:<a@x.example>")[-1].startswith("250")


AUTH_SEES = (
    "kumo.on('smtp_server_mail_from', function(_, conn_meta)\n"
    "assert(conn_meta:get_meta 'hostname' == 'other.example' and conn_meta:get_meta 'x' == 'kept') end)"
)


# --- smtp_server_rewrite_response -------------------------------------------------------------------------


def rewriting(body: str, more: str = "", options: str = "") -> PolicySession:
    return PolicySession(
        f"kumo.on('smtp_server_rewrite_response', function(status, response, command, conn_meta)\n{body}\nend)\n{more}",
        options,
    )


SHOWS_COMMAND = "return nil, response .. ' (' .. tostring(command) .. ' ' .. status .. ')'"


def test_every_reply_can_be_worded():
    session = rewriting(SHOWS_COMMAND)
    assert session.said() == ["220 gw.example relay-gateway (nil 220)"]
    assert session.says("HELO c.example") == ["250 gw.example Hello c.example (HELO c.example 250)"]
    replies = session.says(
        "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA", "", "hello", ".", "FROB x", "QUIT"
    )
    assert replies[:3] == [
        "250 2.1.0 Sender OK (MAIL FROM:<a@x.example> 250)",
        "250 2.1.5 Recipient OK (RCPT TO:<b@y.example> 250)",
        "354 Send the message; end with CRLF.CRLF (DATA 354)",
    ]
    assert replies[3].startswith(ACCEPTED) and replies[3].endswith(" (DATA 250)")
    assert replies[4:] == ["500 5.5.1 Command not recognised ([redacted] 500)", "221 2.0.0 Bye (QUIT 221)"]
    assert session.closed() and len(session.batches) == 1


def test_nothing_returned_is_no_change():
    session = rewriting("")
    assert session.said() == ["220 gw.example relay-gateway"]
    assert session.says("EHLO c")[0] == "250-gw.example Hello c"


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        ("return 250, 'super fantastic!\\n' .. response", ["250-2.1.0 super fantastic!", "250 2.1.0 Sender OK"]),
        ("return nil, 'fine'", ["250 2.1.0 fine"]),
        ("return nil, '2.7.7 fine'", ["250 2.7.7 fine"]),
        ("return '250', 7", ["250 2.1.0 7"]),
        ("return nil, ''", ["250 2.1.0 Sender OK"]),
        ("return nil, '5.1.1 no'", ["250 2.1.0 no"]),
        ("return nil, 'a\\r\\nb\\tc'", ["250-2.1.0 a", "250 2.1.0 b c"]),
    ],
)
def test_words_are_the_policys_and_the_form_is_ours(body: str, reply: list[str]):
    session = rewriting(f"if command and command:find '^MAIL' then {body} end")
    session.says("EHLO c.example")
    assert session.says("MAIL FROM:<a@x.example>") == reply


@pytest.mark.parametrize(
    "body", ["return 550, 'no'", "return 451", "return 421, 'go'", "return 354", "return 251, 'x'", "return 'x'",
             "return {}", "return nil, {}", "error 'a fault'", "kumo.reject(550, 'no')", "return 99999"],
)  # fmt: skip
def test_what_was_accepted_is_never_refused(body: str):
    session = rewriting(f"if status == 250 and not response:find 'Hello' then {body} end")
    assert session.transaction("b@y.example").startswith(ACCEPTED)
    assert len(session.batches) == 1 and session.records("Rejection") == []
    assert session.errors("smtp_server_rewrite_response") == 3


@pytest.mark.parametrize("code", [250, 354, 200, 399, 600])
def test_what_was_refused_is_never_accepted(code: int):
    session = rewriting(f"if status >= 400 then return {code}, 'fine' end", options="max_message_size = 10")
    assert session.transaction("b@y.example").startswith("552 5.3.4 message too big")
    assert session.batches == []


def test_a_refusal_may_become_another_and_is_recorded_as_it_was_said():
    session = rewriting("if status == 550 then return 451, '4.7.1 try later\\nplease' end")
    session.says("EHLO c.example")
    refused = "if recipient.user == 'no' then kumo.reject(550, '5.1.1 nobody') end"
    session = rewriting(
        "if status == 550 then return 451, '4.7.1 try later\\nplease' end",
        f"kumo.on('smtp_server_rcpt_to', function(recipient) {refused} end)",
    )
    replies = session.says("EHLO c.example", "MAIL FROM:<a@x.example>", "RCPT TO:<no@y.example>")
    assert replies[-2:] == ["451-4.7.1 try later", "451 4.7.1 please"]
    [record] = session.records("Rejection")
    assert (record["sender"], record["recipient"], record["reason"]) == ("a@x.example", "no@y.example", "policy_reject")
    assert record["response"]["code"] == 451 and record["response"]["command"] == "RCPT TO:<no@y.example>"
    assert session.says("RCPT TO:<b@y.example>") == ["250 2.1.5 Recipient OK"]


def test_a_refusal_that_becomes_421_ends_the_session():
    session = rewriting("if status == 500 then return 421, '4.7.0 enough' end")
    assert session.says("FROB", "NOOP")[-1] == "421 4.7.0 enough"
    assert session.closed()


def test_a_refusal_of_the_content_is_recorded_with_sender_and_recipients():
    session = rewriting(
        "kumo.sleep(1)", "kumo.on('smtp_server_message_received', function() kumo.reject(554, '5.7.1 no') end)"
    )
    session.time.pass_time(1)
    session.says("EHLO c.example", "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA", "", ".")
    session.time.pass_time(5)
    assert session.said()[-1] == "554 5.7.1 no"
    [record] = session.records("Rejection")
    assert (record["sender"], record["recipient"]) == ("a@x.example", "b@y.example")


def test_wording_may_wait_and_everything_keeps_its_order():
    session = rewriting("kumo.sleep(1) return nil, response .. ' late'")
    assert session.said() == []
    assert session.says("EHLO c.example", "MAIL FROM:<a@x.example>", "NOOP", "QUIT") == []
    session.time.pass_time(1)
    assert session.said() == ["220 gw.example relay-gateway late"]
    session.time.pass_time(1.5)
    assert session.said()[0].startswith("250-gw.example Hello")
    session.time.pass_time(10)
    assert session.said() == ["250 2.1.0 Sender OK late", "250 2.0.0 OK late", "221 2.0.0 Bye late"]
    assert session.closed()


def test_a_handshake_waits_for_the_words_before_it():
    session = rewriting("if command == 'STARTTLS' then kumo.sleep(1) return nil, 'go ahead' end")
    session.says("EHLO c.example")
    assert session.says("STARTTLS") == [] and not session.wants_tls
    session.time.pass_time(1)
    assert session.said() == ["220 2.0.0 go ahead"] and session.wants_tls
    session.start_tls()
    assert session.says("EHLO c.example")[0] == "250-gw.example Hello c.example"


def test_the_connections_end_is_worded_like_everything_else():
    session = rewriting("if status >= 400 then kumo.sleep(1) return nil, response .. '!' end", REJECTS_AT_CONNECT)
    assert session.said() == [] and not session.closed()
    session.time.pass_time(1)
    assert session.said() == ["554 5.7.1 no!"] and not session.closed()
    session.time.pass_time(1)
    assert session.said() == ["421 4.3.2 gw.example disconnecting due to previous error!"] and session.closed()


REJECTS_AT_CONNECT = (
    "kumo.on('smtp_server_connection_accepted', function() kumo.disconnect(554, '5.7.1 no', 'FollowWith421') end)"
)


def test_who_hangs_up_is_recorded_as_refused_without_more_words():
    session = rewriting("if status >= 500 then kumo.sleep(1) end")
    session.says("EHLO c.example")
    assert session.says("FROB") == []
    session.hang_up()
    assert session.time.waiting == 0
    assert [record["response"]["code"] for record in session.records("Rejection")] == [500]


def test_a_login_is_never_shown():
    session = rewriting(
        "assert(not (command or ''):find 'AGE') if command == 'AUTH [redacted]' then return nil, 'seen' end",
        "kumo.on('smtp_server_auth_plain', function() return false end)",
    )
    session.says("EHLO c", "STARTTLS")
    session.start_tls()
    session.says("EHLO c")
    assert session.says("AUTH PLAIN AGEAYg==") == ["535 5.7.8 seen"]
    assert session.says("AUTH PLAIN", "AGEAYg==") == ["334 ", "535 5.7.8 seen"]


# --- codes of kumo.reject ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        ("kumo.reject('550', '5.7.1 no')", "550 5.7.1 no"),
        ("kumo.reject(' 451 ', 5)", "451 4.0.0 5"),
        ("kumo.reject(550.0, 5.5)", "550 5.0.0 5.5"),
        ("kumo.disconnect('421', '4.7.0 go')", "421 4.7.0 go"),
        ("kumo.reject('250', 'fine')", LOCAL_PROBLEM),
        ("kumo.reject('55x', 'no')", LOCAL_PROBLEM),
        ("kumo.reject(true, 'no')", LOCAL_PROBLEM),
        ("kumo.reject(550, {})", LOCAL_PROBLEM),
    ],
)
def test_codes_and_texts_are_what_lua_takes_for_numbers_and_strings(call: str, reply: str):
    session = PolicySession(f"kumo.on('smtp_server_mail_from', function() {call} end)")
    assert session.says("EHLO c", "MAIL FROM:<a@x.example>")[-1] == reply


# --- who has logged in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (
            "true",
            "SmtpAuthPlainAuthorization=boss,SmtpAuthPlainAuthentication=scott;;127.0.0.1",
        ),
        ("{ identities = { { identity = 'x' } }, groups = { 'g', 'h' } }", "GenericAuth=x;g,h;127.0.0.1"),
    ],
)
def test_auth_info_is_what_auth_established(result: str, shown: str):
    session = PolicySession(
        f"kumo.on('smtp_server_auth_plain', function() return {result} end)\n"
        "kumo.on('smtp_server_mail_from', function(_, conn_meta)\n"
        "local info, who = conn_meta:auth_info(), {}\n"
        "for _, one in ipairs(info.identities) do who[#who + 1] = one.context .. '=' .. one.identity end\n"
        "local groups = table.concat(info.groups, ',')\n"
        "kumo.reject(550, table.concat(who, ',') .. ';' .. groups .. ';' .. info.peer_address) end)"
    )
    session.says("EHLO c", "STARTTLS")
    session.start_tls()
    assert session.says("EHLO c", "MAIL FROM:<a@x.example>")[-1] == "550 5.0.0 ;;127.0.0.1"
    session.says("AUTH PLAIN Ym9zcwBzY290dAB0aWdlcg==")
    assert session.says("MAIL FROM:<a@x.example>") == [f"550 5.0.0 {shown}"]


def test_groups_do_not_leak_through_the_cache_of_decisions():
    groups = "conn_meta:get_meta 'x_n' == 1 and {} or { 'relayers' }"
    session = PolicySession(
        "local n = 0\nkumo.on('smtp_server_auth_plain', function(_, _, _, conn_meta)\n"
        "n = n + 1 conn_meta:set_meta('x_n', n)\n"
        f"return {{ identities = {{ {{ identity = 'x' }} }}, groups = {groups} }} end)\n"
        "kumo.on('get_listener_domain', function(_, _, conn_meta)\n"
        "return kumo.make_listener_domain { relay_to = #conn_meta:auth_info().groups > 0 } end)",
        "peer = { ['127.0.0.1'] = { relay_hosts = { '192.0.2.1' } } }",
    )
    for expected in ("550", "250"):
        session.says("EHLO c", "STARTTLS")
        session.start_tls()
        session.says("EHLO c", "AUTH PLAIN Ym9zcwBzY290dAB0aWdlcg==", "MAIL FROM:<a@x.example>")
        assert session.says("RCPT TO:<b@y.example>")[0].startswith(expected)
        session.reconnect()
