"""Servers that we did not write, as members of a fleet: Postfix, in a private directory, in front of the bench's sink.

A test whose server is not installed is skipped and says so; tests/programs.txt says where it comes from.
"""

from __future__ import annotations

import re
import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from relay_gateway_bench.load import Plan, Target, send
from relay_gateway_bench.mix import plain_mix
from relay_gateway_bench.peers.base import Knobs
from relay_gateway_bench.peers.configured import PostfixQueue
from relay_gateway_bench.sink import SinkProcess

from tests.gateway_process import INIT, TO_UPSTREAMS, Gateway, wait_until
from tests.ports import free_port
from tests.programs import program

FROM_HERE = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
IN_ONE_FLIGHT = """
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { enable_chunking = true }
end)
"""
POLICY = FROM_HERE + TO_UPSTREAMS + IN_ONE_FLIGHT
MESSAGES = 200
RECIPIENTS = 5
CONNECTIONS = 2


class Postfix(PostfixQueue):
    """It takes mail for anybody but `no@far.example`, and RECIPIENTS of a message at a time. narrow: a port at which it
    takes CONNECTIONS at a time.
    """

    def __init__(self, knobs: Knobs) -> None:
        super().__init__(knobs)
        self.narrow = free_port()

    def configure(self, template: str, to: str | None = None, **values: object) -> Path:
        path = super().configure(template, to, **values)
        with open(path, "a") as file:
            if to == "main.cf":
                refused = "inline:{{no@far.example = 550 5.1.1 not here}}"
                file.write(f"smtpd_recipient_restrictions = check_recipient_access {refused}\n")
                file.write(f"smtpd_recipient_limit = {RECIPIENTS}\nsmtpd_client_event_limit_exceptions =\n")
            if to == "master.cf":
                limited = f"smtpd -o smtpd_client_connection_count_limit={CONNECTIONS}"
                file.write(f"127.0.0.1:{self.narrow} inet n - n - 0 {limited}\n")
        return path


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkProcess]:
    with SinkProcess() as running:
        yield running


@pytest.fixture(scope="module")
def postfix(sink: SinkProcess) -> Iterator[Postfix]:
    program("postfix")
    peer = Postfix(Knobs(upstream=sink.port))
    if (why := peer.missing()) is not None:
        pytest.skip(f"not tried: {why}")
    with peer:
        yield peer


def replies_of(gateway: Gateway, stage: str) -> float:
    digits = "345" if stage == "data" else "245"  # what a member may answer there
    return sum(gateway.metric(f'upstream_replies_total{{reply="{digit}xx",stage="{stage}"}}') for digit in digits)


def test_postfix_takes_the_content_with_the_envelope_and_passes_it_on_unaltered(
    start: Callable[..., Gateway], sink: SinkProcess, postfix: Postfix
) -> None:
    gateway = start(POLICY, "--workers", "1", upstreams=[f"127.0.0.1:{postfix.port}"])
    result = send(Target(*gateway.address), plain_mix(1024), Plan(messages=MESSAGES, connections=4))
    assert result["acked"] == MESSAGES
    wait_until(lambda: sink.run(result["run"])["unique"] == MESSAGES, "all of it in the sink")
    arrived = sink.run(result["run"])
    assert (arrived["messages"], arrived["corrupt"]) == (MESSAGES, 0)
    assert replies_of(gateway, "end_of_data") == MESSAGES
    connections = gateway.metric("upstream_connections_opened_total")
    assert 0 < replies_of(gateway, "data") <= connections < MESSAGES  # the first message of each goes by DATA


def test_postfix_discards_a_content_whose_recipient_it_refused(
    start: Callable[..., Gateway], sink: SinkProcess, postfix: Postfix
) -> None:
    gateway = start(POLICY, "--workers", "1", upstreams=[f"127.0.0.1:{postfix.port}"])
    before = sink.counts()["unmarked"]
    with gateway.smtp() as session:
        for _ in range(5):  # a connection each, whose first message goes by DATA
            session.sendmail("a@out.example", ["b@far.example"], "Subject: yes\r\n\r\nyes\r\n")
            with pytest.raises(smtplib.SMTPDataError, match="not here"):
                session.sendmail("a@out.example", ["no@far.example"], "NOOP\r\nRSET\r\n\r\nno\r\n")
    wait_until(lambda: sink.counts()["unmarked"] == before + 5, "those that were not refused in the sink")
    assert replies_of(gateway, "data") == 5


def test_what_is_too_much_for_postfix_goes_in_further_transactions_or_waits_and_it_is_not_down(
    start: Callable[..., Gateway], sink: SinkProcess, postfix: Postfix
) -> None:
    member = f"127.0.0.1:{postfix.narrow}"
    gateway = start(FROM_HERE + TO_UPSTREAMS, "--workers", "1", upstreams=[member])
    before = sink.counts()["unmarked"]
    recipients = [f"r{number}@far.example" for number in range(2 * RECIPIENTS + 2)]
    with gateway.smtp() as session:
        for _ in range(2):
            assert session.sendmail("a@out.example", recipients, "Subject: to many\r\n\r\nhello\r\n") == {}
    assert gateway.metric('upstream_replies_total{reply="4xx",stage="rcpt"}') == RECIPIENTS + 2  # once
    assert gateway.metric('upstream_replies_total{reply="2xx",stage="rcpt"}') == 2 * len(recipients)
    result = send(Target(*gateway.address), plain_mix(1024), Plan(messages=MESSAGES, connections=8))
    assert result["acked"] == MESSAGES
    wait_until(lambda: sink.counts()["unmarked"] == before + 2 * 3, "those to many in the sink")
    wait_until(lambda: sink.run(result["run"])["unique"] == MESSAGES, "all of it in the sink")
    assert sink.run(result["run"])["messages"] == MESSAGES
    assert gateway.metric(f'upstream_member_state{{member="{member}",state="up"}}') == 1
    said = gateway.diagnostics()
    assert f"takes {RECIPIENTS} recipients in one transaction" in said
    assert re.search(r"takes \d connections: .*421 4\.7\.0", said), said
    assert " failed at " not in said
