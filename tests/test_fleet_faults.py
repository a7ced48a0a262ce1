"""What docs/delivery.md lists, done to the fleet of a running gateway: the replies, and where each message has arrived.

FAULTS=all (`make faults`) does it in 16 ways to 20,000 messages, and tells tests/fault_report.py what it cost clients;
otherwise it is done once.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from tests.fault_accounts import account_for, measured, sent_to
from tests.fault_cases import DOINGS, MIDST, SOUND, STAGES, Way, cells, every_way, faulty_fleets, tables
from tests.fault_report import DOCS, SHOWN, note, shown, stored
from tests.gateway_process import Gateway
from tests.test_relay_tls import certificate  # noqa: F401  # a fixture

ALL = os.environ.get("FAULTS") == "all"
WAYS = every_way() if ALL else [Way()]
EACH = 13 if ALL else 1
BRIEFLY = ("closes", "resets")  # in the middle of a content, where not all is done


def test_the_page_has_every_stage_and_doing() -> None:
    every = {(stage, doing) for stage in [*STAGES, MIDST] if stage != "BDAT" for doing in DOINGS}
    chunks = {(stage, doing) for stage in ("MAIL", "RCPT", "BDAT") for doing in DOINGS}
    assert {heading: {(cell.stage, cell.doing) for cell in found} for heading, found in tables().items()} == {
        "Alone": every,
        "Beside a sound member": every,
        "Alone, with CHUNKING": chunks,
        "Beside a sound member, with CHUNKING": chunks,
    }


def test_of_any_three_choices_every_combination_is_among_the_ways() -> None:
    ways = [(way.workers, way.pipelining, way.chunking, way.tls, way.spool, way.sound) for way in every_way()]
    for one in range(6):
        for two in range(one):
            for three in range(two):
                assert len({(way[one], way[two], way[three]) for way in ways}) == 8


@pytest.mark.skipif(not stored(), reason="nothing was measured yet")
def test_the_page_shows_what_was_measured() -> None:
    assert shown(stored()) in DOCS.read_text(), SHOWN


@pytest.mark.timeout(900 if ALL else 120)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_whatever_a_member_does_every_reply_is_true_and_every_message_accounted_for(
    way: Way,
    tmp_path: Path,
    certificate: Path,  # noqa: F811
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    chosen = [cell for cell in cells(way) if ALL or cell.stage != MIDST or cell.doing in BRIEFLY]
    with faulty_fleets(way, context, chosen) as faulty:
        gateway = Gateway(tmp_path, way.policy(faulty.lua, tmp_path), "--workers", str(way.workers))
        try:
            sent = sent_to(faulty, gateway.address, EACH)
            accounts = account_for(gateway, faulty, sent, way)
        finally:
            gateway.kill()
    assert {message.cell.stage for message in sent} >= {SOUND, "dot" if not way.chunks else "BDAT"}
    if ALL:
        note(str(way), measured(sent, accounts))
