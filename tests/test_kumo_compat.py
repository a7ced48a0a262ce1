"""Side by side with KumoMTA's daemon: what it was seen to do that the gateway did not, line by line. Each is the same
here, or otherwise on purpose: then docs/differences.md has a row that says so.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.dialogue import MemoryClient
from tests.policy_tools import load, new_page

ROWS = [
    line.split(" | ")[0]
    for line in (Path(__file__).parent.parent / "docs/differences.md").read_text().splitlines()
    if line.startswith("| ")
]
SERVER = """
kumo.on('init', function()
  kumo.start_esmtp_listener {
    hostname = 'gw.example', relay_hosts = { '127.9.0.1' }, batch_handling = 'BifurcateAlways',
  }
end)
kumo.on('smtp_server_auth_plain', function(authz, authc, password) return password == 'secret' end)
"""
DISCARDS = "kumo.on('smtp_server_message_received', function(msg, conn) msg:set_meta('queue', 'null') end)"
MAIL = ("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>")
MESSAGE = "Subject: a\r\n\t  b   c\r\n\r\nhello\r\n.\r\n"


def client_of(policy: str, peer: str = "127.9.0.1") -> MemoryClient:
    return MemoryClient(load(SERVER + policy), peer, lambda data: [data], new_page())


def replies(client: MemoryClient, *lines: str) -> list[str]:
    """The last line of what is said to each; the greeting first."""
    said = [client.take()]
    for line in lines:
        client.send(line.removesuffix("\r\n").encode() + b"\r\n")
        if client.wants_tls:
            client.start_tls()
        said.append(client.take())
    return [text.rstrip("\r\n").rpartition("\r\n")[2] for text in said]


def plain(text: str) -> str:
    return f"AUTH PLAIN {base64.b64encode(text.encode()).decode()}"


TLS = ("EHLO c", "STARTTLS", "EHLO c")


@pytest.mark.parametrize(
    ("lines", "reply", "row"),
    [
        (("EHLO c", MAIL[0], "RCPT TO:<b@y.example>", "DATA"), "554 5.5.1", "DATA when every recipient was refused"),
        (("EHLO c", "WHAT"), "500 5.5.1", "unknown commands, an empty line"),
        (("EHLO c", ""), "500 5.5.1", "unknown commands, an empty line"),
        (("EHLO c", "XCLIENT ADDR=192.0.2.1"), "550 5.7.0", "XCLIENT where it is not allowed"),
        ((*TLS, "STARTTLS"), "503 5.5.1", "STARTTLS under TLS"),
        ((*TLS, "AUTH PLAIN", "*"), "501 5.7.0", "AUTH given up with `*`"),
        ((*TLS, plain("\0\0secret")), "501 5.5.2", "AUTH PLAIN with an empty user or password"),
        ((*TLS, plain("\0ann\0")), "501 5.5.2", "AUTH PLAIN with an empty user or password"),
        (("EHLO c", "RCPT TO:<b@y.example>"), "503 5.5.1", "commands out of order"),
        (("EHLO -x",), "250", "`EHLO -x`, `NOOP x y`"),
        (("EHLO c", "NOOP x y"), "250 2.0.0", "`EHLO -x`, `NOOP x y`"),
        (("EHLO c", "MAIL FROM:<a@b-.example>"), "501 5.1.7", "a domain with a label that ends in `-`"),
        (("EHLO c", "MAIL FROM:<ä@x.example>"), "553 5.6.7", "an address that is not ASCII, without SMTPUTF8"),
    ],
)
def test_a_code_that_differs_is_the_rfcs_and_documented(lines: tuple[str, ...], reply: str, row: str) -> None:
    assert replies(client_of("", peer="192.0.2.1"), *lines)[-1].startswith(reply)
    assert f"| {row}" in ROWS


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        ("kumo.reject('550', '5.7.1 x')", "550 5.7.1 x"),
        ("kumo.reject(550, '')", "550 5.0.0"),
        ("kumo.reject(450, '5.7.1 later')", "450 4.0.0 later"),  # a row of the differences
    ],
)
def test_codes_and_texts_of_a_refusal_are_as_lua_has_them(code: str, reply: str) -> None:
    client = client_of(f"kumo.on('smtp_server_mail_from', function() {code} end)")
    assert replies(client, "EHLO c", MAIL[0])[-1].startswith(reply)
    assert "| an enhanced code of another class, `kumo.reject(450, '5.7.1 …')`" in ROWS


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("msg:prepend_header('X-Score', 5); found = msg:get_first_named_header_value 'X-Score'", "5"),
        ("msg:set_data(5); found = msg:get_data()", "5"),
        ("msg:set_meta(5, 'x'); found = msg:get_meta '5'", "x"),
        ("msg:set_meta('list', { 1, 2, nil, 4, word = 'x' }); found = msg:get_meta('list')[2]", "2"),
        ("msg:set_meta('list', { 1, 2, word = 'x' }); found = tostring(msg:get_meta('list').word)", "nil"),
        ("found = type(msg.get_meta)", "function"),
        ("found = msg:get_first_named_header_value 'Subject'", "a b c"),
        ("found = conn:auth_info().peer_address", "127.9.0.1"),
    ],
)
def test_objects_answer_as_there(code: str, found: str) -> None:
    client = client_of(f"""
        kumo.on('smtp_server_message_received', function(msg, conn)
          local found
          {code}
          kumo.reject(550, '5.7.1 found ' .. found)
        end)""")
    assert replies(client, "EHLO c", *MAIL, "DATA", MESSAGE)[-1] == f"550 5.7.1 found {found}"


def test_of_whom_auth_lets_be_another_the_other_comes_first() -> None:
    policy = """
        kumo.on('smtp_server_mail_from', function(sender, conn)
          local names = {}
          for _, identity in ipairs(conn:auth_info().identities) do names[#names + 1] = identity.identity end
          kumo.reject(550, '5.7.1 ' .. table.concat(names, ' '))
        end)"""
    assert replies(client_of(policy), *TLS, plain("bob\0ann\0secret"), MAIL[0])[-1] == "550 5.7.1 bob ann"


def test_metadata_that_a_handler_gives_the_connection_does_not_reach_the_next_batch_of_its_transaction() -> None:
    client = client_of("""
        kumo.on('smtp_server_message_received', function(msg, conn)
          if msg:get_meta 'seen' then kumo.reject(550, '5.7.1 seen') end
          conn:set_meta('seen', 'yes')
          msg:set_meta('queue', 'null')
        end)""")
    assert replies(client, "EHLO c", *MAIL, "RCPT TO:<c@z.example>", "DATA", MESSAGE)[-1].startswith("250 ")


def test_a_connection_that_is_refused_with_a_421_to_follow_gets_both_and_a_record_of_each() -> None:
    client = client_of("""
        kumo.on('smtp_server_connection_accepted', function() kumo.disconnect(554, '5.7.1 no', 'FollowWith421') end)""")
    assert [line[:3] for line in client.take().splitlines()] == ["554", "421"]
    assert [record["response"]["code"] for record in client.records()] == [554, 421]


def test_a_header_field_cannot_be_given_another_behind_it() -> None:
    client = client_of("""
        kumo.on('smtp_server_message_received', function(msg) msg:prepend_header('X-A', 'b\\r\\nX-C: d') end)""")
    assert replies(client, "EHLO c", *MAIL, "DATA", MESSAGE)[-1].startswith("451 4.3.0")


def test_a_lone_line_feed_ends_no_command() -> None:
    client = client_of(DISCARDS)
    client.take()
    client.send(b"EHLO c\nMAIL FROM:<a@x.example>\r\n")
    assert client.take().startswith("501 5.5.4")


def test_an_empty_message_is_a_message() -> None:
    assert replies(client_of(DISCARDS), "EHLO c", *MAIL, "DATA", ".\r\n")[-1].startswith("250 ")
    assert "| an empty body" in ROWS


@pytest.mark.parametrize(
    "row",
    [
        "| queue names of IPv6 literals",
        "| `peer_address` in `Delivery`, for an `mx_list` entry with a port",
        "| a Maildir",
        "| `line_length_hard_limit` below 512, a certificate without its key",
        "| `log_oob = true`, `log_arf = true`",
        "| a report with one bad date, a capital letter, a blank line too many",
    ],
)
def test_what_else_is_otherwise_is_documented(row: str) -> None:
    assert row in ROWS
