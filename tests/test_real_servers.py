"""Servers that we did not write, as members of a fleet: Postfix, in a private directory, in front of the bench's sink.

A test whose server is not installed is skipped and says so; tests/programs.txt says where it comes from.
"""

from __future__ import annotations

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
from tests.programs import program

FROM_HERE = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")
IN_ONE_FLIGHT = """
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { enable_chunking = true }
end)
"""
POLICY = FROM_HERE + TO_UPSTREAMS + IN_ONE_FLIGHT
MESSAGES = 200


class Postfix(PostfixQueue):
    """It takes mail for anybody but `no@far.example`."""

    def configure(self, template: str, to: str | None = None, **values: object) -> Path:
        path = super().configure(template, to, **values)
        if to == "main.cf":
            refused = "inline:{{no@far.example = 550 5.1.1 not here}}"
            with open(path, "a") as main:
                main.write(f"smtpd_recipient_restrictions = check_recipient_access {refused}\n")
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
