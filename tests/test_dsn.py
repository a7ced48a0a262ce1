"""DSN (RFC 3461) at the wire: what is offered, what is passed on, and what the gateway tells a sender itself."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fleets import Fleets, gateway_before
from tests.gateway_process import INIT, Gateway, wait_until
from tests.upstream import CHUNKING, EXTENSIONS, Do, ehlo

KNOWS, PLAIN = ehlo(*EXTENSIONS, "DSN"), ehlo(*EXTENSIONS)
CLIENTS = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.0/8' }")
POLICY = (
    CLIENTS.replace("log_dir = LOGS", "log_dir = LOGS, meta = { 'client_requests' }")
    + """
kumo.on('smtp_server_ehlo', function(domain, conn, extensions)
  if not extensions then return end
  if domain == 'without.example' then return {} end
  table.insert(extensions, 'DSN')
  return extensions
end)
kumo.on('smtp_server_message_received', function(msg)
  local to = msg:get_first_named_header_value 'X-Instead'
  if to then msg:set_recipient(to) end
end)
kumo.on('get_queue_config', function(domain)
  local name = domain:match '(%w+)%.example$'
  if name == 'stored' then return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } } end
  local members = { FLEETS[name] }
  if name == 'both' then members = { FLEETS.knows, FLEETS.plain } end
  if name == 'halfgone' then members = { FLEETS.gone, FLEETS.plain } end
  return kumo.make_queue_config { protocol = { smtp = { mx_list = members } }, retry_interval = '1 second' }
end)
kumo.on('get_egress_path_config', function(domain, source, site)
  local function is(name) return site:find(FLEETS[name], 1, true) ~= nil end
  return kumo.make_egress_path { enable_chunking = is 'chunks', use_lmtp = is 'lmtp' }
end)
"""
)
SPOOL = "kumo.define_spool { name = 'data', path = LOGS .. '-spool', min_free_space = 0, min_free_inodes = 0 }\n"
MESSAGE = b"Subject: x\r\n\r\nhello \xc3\xa9\r\n"
SENDER = "ann@senders.example"
NO = b"550 5.1.1 no such mailbox\r\n"


@pytest.fixture(scope="module")
def fleets() -> Iterator[Fleets]:
    running = Fleets()
    running.add("knows", {"EHLO": KNOWS, "RCPT <no@knows.example>": NO})
    running.add("plain", {"EHLO": PLAIN, "RCPT <no@plain.example>": NO})
    running.add("chunks", {"EHLO": ehlo(*CHUNKING, "DSN")})
    running.add("lmtp", {"LHLO": KNOWS}).lmtp = True
    running.add("waits", {"EHLO": PLAIN, ".": [b"451 4.3.0 later\r\n", b"250 2.0.0 now\r\n"]})
    running.add("knowswaits", {"EHLO": KNOWS, ".": [b"451 4.3.0 later\r\n", b"250 2.0.0 now\r\n"]})
    running.add("refuses", {"EHLO": KNOWS, ".": [b"451 4.3.0 later\r\n", b"554 5.6.0 not such content\r\n"]})
    running.add("senders", {"EHLO": KNOWS})
    gone = running.add("gone", {"EHLO": KNOWS})
    running._run(gone.stop())
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def gateway(fleets: Fleets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_before(fleets, tmp_path_factory.mktemp("dsn"), POLICY) as running:
        yield running


@pytest.fixture(scope="module")
def spooling(fleets: Fleets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_before(fleets, tmp_path_factory.mktemp("dsnspool"), POLICY + SPOOL) as running:
        yield running


def send(
    gateway: Gateway,
    recipients: dict[str, str],
    mail: str = "",
    *,
    sender: str = SENDER,
    message: bytes = MESSAGE,
) -> bytes:
    """recipients: the parameters of RCPT by address. Returns what was said to the content."""
    with smtplib.SMTP(*gateway.address, "client.example", 30) as client:
        client.ehlo()
        assert client.docmd(f"MAIL FROM:<{sender}> BODY=8BITMIME {mail}")[0] == 250
        for recipient, parameters in recipients.items():
            assert client.docmd(f"RCPT TO:<{recipient}> {parameters}")[0] == 250
        code, text = client.data(message)
        assert code == 250, text
        return text


def asked(fleets: Fleets, name: str, verb: str, sender: str) -> list[str]:
    """What a member was asked with a verb in transactions of a sender."""

    async def look() -> list[str]:
        found, within = [], False
        for command in fleets.upstreams[name].commands:
            if command.startswith("MAIL"):
                within = f"<{sender}>" in command
            if within and command.startswith(verb):
                found.append(command)
        return found

    return fleets._run(look())


PARAMETERS = "RET=HDRS ENVID=QQ314159"


@pytest.mark.parametrize("name", ["knows", "chunks", "lmtp"])
def test_parameters_are_passed_on_unchanged_to_who_knows_them(fleets: Fleets, gateway: Gateway, name: str):
    sender = f"{name}.a@senders.example"
    send(
        gateway,
        {f"b@{name}.example": "NOTIFY=success,FAILURE ORCPT=rfc822;B+2Bx@There.example", f"c@{name}.example": ""},
        "ret=full ENVID=a+2Bb",
        sender=sender,
    )
    (mail,) = asked(fleets, name, "MAIL", sender)
    assert mail.endswith(" RET=FULL ENVID=a+2Bb")
    assert asked(fleets, name, "RCPT", sender) == [
        f"RCPT TO:<b@{name}.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B+2Bx@There.example",
        f"RCPT TO:<c@{name}.example>",
    ]
    assert not fleets.told(f"b@{name}.example")  # whoever takes it tells


def test_a_chunk_to_a_single_recipient_carries_them_too(fleets: Fleets, gateway: Gateway):
    sender = "single@senders.example"
    for _ in range(2):  # the first by DATA
        send(gateway, {"one@chunks.example": "NOTIFY=NEVER"}, sender=sender)
    assert asked(fleets, "chunks", "RCPT", sender) == ["RCPT TO:<one@chunks.example> NOTIFY=NEVER"] * 2
    assert asked(fleets, "chunks", "BDAT", sender)


def test_records_can_show_what_was_asked_for(gateway: Gateway):
    send(gateway, {"r@knows.example": "NOTIFY=DELAY", "s@knows.example": ""}, "ENVID=records")

    def found() -> list[Any]:
        kept = [record["meta"].get("client_requests") for record in gateway.records() if record["type"] == "Reception"]
        return [each for each in kept if each and each["envid"] == "records"]

    wait_until(found, "recorded")
    wanted = {"r@knows.example": {"notify": "DELAY", "orcpt": None}}
    assert found() == [{"envid": "records", "ret": None, "recipients": wanted}]


@pytest.mark.parametrize(
    ("verb", "parameter"),
    [
        ("MAIL", "RET=BODY"),
        ("MAIL", "RET"),
        ("MAIL", "RET=FULL RET=FULL"),
        ("MAIL", "ENVID"),
        ("MAIL", "ENVID=a+2b"),
        ("MAIL", "ENVID=a+0A"),
        ("MAIL", "ENVID=a+7F"),
        ("MAIL", "ENVID=" + 101 * "x"),
        ("RCPT", "NOTIFY"),
        ("RCPT", "NOTIFY=NEVER,SUCCESS"),
        ("RCPT", "NOTIFY=SUCCESS,,DELAY"),
        ("RCPT", "NOTIFY=SOMETIMES"),
        ("RCPT", "NOTIFY=DELAY NOTIFY=DELAY"),
        ("RCPT", "ORCPT"),
        ("RCPT", "ORCPT=b@x.example"),
        ("RCPT", "ORCPT=;b@x.example"),
        ("RCPT", "ORCPT=rfc822;"),
        ("RCPT", "ORCPT=rfc822;b+@x.example"),
        ("RCPT", "ORCPT=rfc822;b+0D+0Ax@x.example"),
        ("RCPT", "ORCPT=utf-8;b\\x{0}@x.example"),
        ("RCPT", "ORCPT=rfc822;" + 494 * "x"),
    ],
)
def test_a_malformed_parameter_is_501_and_ends_nothing(gateway: Gateway, verb: str, parameter: str):
    client = gateway.smtp()
    client.ehlo("client.example")
    if verb == "RCPT":
        assert client.docmd(f"MAIL FROM:<{SENDER}>")[0] == 250
    path = "FROM:<a@b.example>" if verb == "MAIL" else "TO:<b@knows.example>"
    assert client.docmd(f"{verb} {path} {parameter}") == (501, b"5.5.4 Malformed parameter")
    assert client.docmd(f"{verb} {path}")[0] == 250


@pytest.mark.parametrize(
    "parameters",
    ["ENVID=" + 100 * "x", "ENVID=+20+7E", "RET=hdrs"],
)
def test_what_is_well_formed_is_taken(gateway: Gateway, parameters: str):
    client = gateway.smtp()
    client.ehlo("client.example")
    assert client.docmd(f"MAIL FROM:<{SENDER}> SMTPUTF8 {parameters}")[0] == 250
    for recipient in ("NOTIFY=never", "ORCPT=rfc822;" + 493 * "x", "ORCPT=utf-8;b\\x{E9}@x.example", "ORCPT=x400;/C=a"):
        wanted = 250 if "=a" not in recipient[8:] else 501  # "=" is encoded
        assert client.docmd(f"RCPT TO:<b@knows.example> {recipient}")[0] == wanted
    client.command_encoding = "utf-8"
    assert client.docmd("RCPT TO:<b@knows.example> ORCPT=utf-8;bé@x.example")[0] == 250


def test_what_is_not_offered_is_555(gateway: Gateway):
    client = gateway.smtp()
    client.ehlo("without.example")
    assert client.docmd("MAIL FROM:<a@b.example> RET=FULL") == (555, b"5.5.4 Parameter RET is not supported")
    assert client.docmd("MAIL FROM:<a@b.example>")[0] == 250
    assert client.docmd("RCPT TO:<b@knows.example> NOTIFY=NEVER") == (555, b"5.5.4 Parameter NOTIFY is not supported")
    client.helo("client.example")
    assert client.docmd("MAIL FROM:<a@b.example> RET=FULL")[0] == 555


def test_utf8_in_orcpt_goes_on_in_ascii(fleets: Fleets, gateway: Gateway):
    client = gateway.smtp()
    client.ehlo("client.example")
    client.command_encoding = "utf-8"
    client.docmd("MAIL FROM:<utf@senders.example> SMTPUTF8")
    client.docmd("RCPT TO:<u@knows.example> ORCPT=utf-8;é@x.example")
    assert client.data(b"Subject: x\r\n\r\nx\r\n")[0] == 250
    expected = ["RCPT TO:<u@knows.example> ORCPT=utf-8;\\x{E9}@x.example"]
    assert asked(fleets, "knows", "RCPT", "utf@senders.example") == expected


def test_the_gateway_tells_of_success_where_the_next_hop_cannot(fleets: Fleets, gateway: Gateway):
    send(
        gateway,
        {
            "s@plain.example": "NOTIFY=SUCCESS ORCPT=rfc822;who+2Bi@there.example",
            "t@plain.example": "NOTIFY=FAILURE,SUCCESS",
            "f@plain.example": "NOTIFY=FAILURE,DELAY",
            "n@plain.example": "",
        },
        "ENVID=one+20two RET=FULL",
    )
    (mail,) = fleets.told("s@plain.example")  # before the 250
    assert mail.recipients == [SENDER]
    text = mail.content
    assert text == fleets.told("t@plain.example")[0].content
    assert b"Original-Envelope-Id: one two\r\nReporting-MTA: dns; " in text
    assert b"Original-Recipient: rfc822; who+i@there.example\r\n" in text
    assert text.count(b"Action: relayed\r\nStatus: 2.1.9\r\n") == 2
    assert b"hello" not in text  # RFC 3461 §4.3: RET is about failures
    assert not fleets.told("f@plain.example") and not fleets.told("n@plain.example")


def test_the_gateway_tells_of_what_it_has_stored_itself(fleets: Fleets, gateway: Gateway):
    send(gateway, {"s@stored.example": "NOTIFY=SUCCESS", "n@stored.example": "NOTIFY=NEVER"})
    (mail,) = fleets.told("s@stored.example")
    assert b"Action: delivered\r\nStatus: 2.0.0\r\n" in mail.content
    assert b"n@stored.example" not in mail.content


def test_of_a_refused_recipient_the_sender_hears_what_it_wants(fleets: Fleets, gateway: Gateway):
    parameters = "NOTIFY=FAILURE ORCPT=rfc822;no+2B@here.example"
    send(gateway, {"no@plain.example": parameters, "yes@plain.example": ""}, "ENVID=e+3D RET=FULL")
    (mail,) = fleets.told("no@plain.example")
    assert b"Action: failed\r\n" in mail.content
    assert b"Original-Envelope-Id: e=\r\n" in mail.content
    assert b"Original-Recipient: rfc822; no+@here.example\r\n" in mail.content
    assert b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n" in mail.content
    assert MESSAGE in mail.content


def test_a_recipient_that_the_policy_has_put_in_has_the_requests_of_the_one_before(fleets: Fleets, gateway: Gateway):
    message = b"X-Instead: other@plain.example\r\n" + MESSAGE
    send(gateway, {"first@knows.example": "NOTIFY=SUCCESS ORCPT=rfc822;o@there.example"}, message=message)
    (mail,) = fleets.told("other@plain.example")
    assert b"Original-Recipient: rfc822; o@there.example\r\n" in mail.content


def test_whoever_wants_to_hear_nothing_hears_nothing(fleets: Fleets, gateway: Gateway):
    before = len(fleets.mails("senders"))
    text = send(gateway, {"no@knows.example": "NOTIFY=NEVER", "yes@knows.example": ""})
    id = text.split(b"ids=")[1].split()[0].decode()

    def bounces() -> list[Any]:
        return [each for each in gateway.records() if each["type"] == "Bounce" and each["id"] == id]

    wait_until(bounces, "recorded")
    assert bounces()[0]["notification"] == {"result": "unwanted"}
    assert len(fleets.mails("senders")) == before


def test_members_that_pass_it_on_go_before_those_that_cannot(fleets: Fleets, gateway: Gateway):
    for name in ("knows", "plain"):
        send(gateway, {f"x@{name}.example": ""})  # now it is known what each can
    for _ in range(4):
        send(gateway, {"p@both.example": "NOTIFY=SUCCESS"}, sender="prefers@senders.example")
    assert len(asked(fleets, "knows", "MAIL", "prefers@senders.example")) == 4
    assert not fleets.told("p@both.example")


def test_where_they_are_away_the_others_do(fleets: Fleets, gateway: Gateway):
    async def begin() -> None:
        await fleets.upstreams["gone"].__aenter__()

    fleets._run(begin())
    send(gateway, {"x@gone.example": ""})
    fleets._run(fleets.upstreams["gone"].stop())
    send(gateway, {"h@halfgone.example": "NOTIFY=SUCCESS"})
    (mail,) = fleets.told("h@halfgone.example")
    assert b"Action: relayed\r\n" in mail.content


def test_what_is_spooled_keeps_its_requests(fleets: Fleets, spooling: Gateway):
    sender = "kept@senders.example"
    for name in ("waits", "knowswaits"):
        send(spooling, {f"w@{name}.example": "NOTIFY=SUCCESS ORCPT=rfc822;w@o.example"}, PARAMETERS, sender=sender)
        wait_until(lambda name=name: fleets.mails(name), "tried again")
    first, second = asked(fleets, "knowswaits", "RCPT", sender)
    assert first == second == "RCPT TO:<w@knowswaits.example> NOTIFY=SUCCESS ORCPT=rfc822;w@o.example"
    assert all(command.endswith(PARAMETERS) for command in asked(fleets, "knowswaits", "MAIL", sender))
    wait_until(lambda: fleets.told("w@waits.example"), "told")
    (mail,) = fleets.told("w@waits.example")
    assert b"Action: relayed\r\n" in mail.content and b"Original-Envelope-Id: QQ314159\r\n" in mail.content
    assert not fleets.told("w@knowswaits.example")


def test_what_a_spooled_message_fails_for_is_told_to_who_wants_to_know(fleets: Fleets, spooling: Gateway):
    send(spooling, {"w@refuses.example": "NOTIFY=FAILURE", "v@refuses.example": "NOTIFY=NEVER"}, "RET=FULL")
    wait_until(lambda: fleets.told("w@refuses.example"), "told")
    (mail,) = fleets.told("w@refuses.example")
    assert b"v@refuses.example" not in mail.content.partition(b"Subject: x")[0].partition(b"message/delivery-status")[2]
    assert MESSAGE in mail.content


def offers(gateway: Gateway) -> bool:
    with smtplib.SMTP(*gateway.address, "client.example", 30) as client:
        client.ehlo()
        return bool(client.has_extn("dsn"))


def relay(gateway: Gateway) -> None:
    with smtplib.SMTP(*gateway.address, "client.example", 30) as client:
        client.sendmail(SENDER, ["x@anywhere.example"], b"Subject: x\r\n\r\nx\r\n")


def test_it_is_offered_as_long_as_the_whole_fleet_knows_it(fleets: Fleets, start: Callable[..., Gateway]):
    one, other = fleets.add("one", {"EHLO": KNOWS}), fleets.add("other", {"EHLO": KNOWS})
    running = start(CLIENTS, "--workers", "2", "--fleet", f"127.0.0.1:{one.port},127.0.0.1:{other.port}")
    wait_until(lambda: offers(running), "offered")  # nobody has sent anything yet
    other.answers["EHLO"] = PLAIN
    fleets._run(_drop(other))

    def withdrawn() -> bool:
        relay(running)
        return not offers(running)

    wait_until(withdrawn, "withdrawn")
    wait_until(lambda: not any(offers(running) for _ in range(10)), "withdrawn by both workers")
    other.answers["EHLO"] = KNOWS
    fleets._run(_drop(other))

    def back() -> bool:
        relay(running)
        return offers(running)

    wait_until(back, "offered again")


async def _drop(upstream: Any) -> None:
    upstream.drop_all(Do.DROP)


def test_it_is_not_offered_where_one_of_the_fleet_does_not_know_it_or_was_not_reached(
    fleets: Fleets, start: Callable[..., Gateway]
):
    knows, plain, gone = (fleets.addresses[name] for name in ("knows", "plain", "gone"))
    running = start(CLIENTS, "--workers", "1", "--fleet", f"{knows},{plain}")
    relay(running)
    relay(running)
    assert not offers(running)
    running = start(CLIENTS, "--workers", "1", "--fleet", f"{knows},{gone}")
    relay(running)
    assert not offers(running)
