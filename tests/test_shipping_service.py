"""`gateway.ship` in a policy: the service ships its own records, over reloads and crashes; what `check` says of it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from gateway.policy.shipping_schemas import SHIPMENT, SINKS
from gateway.policy.source import PolicySource
from tests.gateway_process import INIT, wait_until
from tests.policy_tools import examine
from tests.shipping import Receiver, receiving

ROOT = Path(__file__).parent.parent


def policy(receiver: Receiver, more: str = "") -> str:
    ship = f"""
  require('gateway').ship {{
    name = 'hook',
    max_batch_delay = '50ms',
    max_retry_interval = '200ms',
    sink = {{ webhook = {{ url = '{receiver.url}' }} }},
    {more}
  }}
end)
"""
    return INIT.replace("end)\n", ship)


def refuse_one(gateway) -> None:
    with gateway.smtp() as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:<a@sender.example>")
        client.docmd("RCPT", "TO:<nobody@nowhere.example>")


def records_in(receiver: Receiver) -> set[str]:
    return set(receiver.ids)


def test_a_service_ships_what_it_logs_over_reloads_and_the_death_of_the_process_that_does(start):
    with receiving() as receiver:
        gateway = start(policy(receiver))
        refuse_one(gateway)
        wait_until(lambda: len(records_in(receiver)) == 1, "the first record")
        shipper = wait_until(lambda: process_named("shipper", gateway), "the shipper")
        gateway.reload(policy(receiver, "where = \"type == 'Rejection'\","))
        wait_until(lambda: not process_named("shipper", gateway) & shipper, "the end of the first shipper")
        refuse_one(gateway)
        wait_until(lambda: len(records_in(receiver)) == 2, "the second record")
        os.kill(wait_until(lambda: process_named("shipper", gateway) - shipper, "another one").pop(), signal.SIGKILL)
        refuse_one(gateway)
        wait_until(lambda: len(records_in(receiver)) == 3, "the third record")
        name = 'ship_acknowledged_records_total{shipment="hook"}'
        wait_until(lambda: gateway.metric(name) >= 2, "its count")
        refuse_one(gateway)
        assert gateway.stop() == 0
        assert len(records_in(receiver)) == 4  # what is written at the end is shipped before the end


def process_named(name: str, gateway) -> set[int]:
    found = set()
    for pid in gateway.children():
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"relay-gateway: {name}".encode()):
                found.add(pid)
        except FileNotFoundError:
            continue
    return found


BAD = """\
local gateway = require 'gateway'
kumo.on('init', function()
  gateway.ship { name = 'a', sink = { webhook = { url = 'https://x.example', signing_kye = 'k' } } }
  gateway.ship {
    name = 'b', sink = { fils = {} },
  }
  gateway.ship { name = 'c', sink = { stdout = {} } }
  gateway.ship { name = 'c', sink = { stdout = {} }, log_dirs = { 'x' }, where = 'type ==' }
end)
"""


def test_check_finds_every_mistake_of_a_shipment_with_its_line(tmp_path):
    file = tmp_path / "policy.lua"
    file.write_text(BAD)
    problems, _, _ = examine(PolicySource.read(str(file)))
    said = [f"{problem.line}: {problem.message}; {problem.hint}" for problem in problems]
    for expected in (
        r"3: gateway\.ship: sink\.webhook\.signing_kye: unknown option; did you mean 'signing_key'\?",
        r"[45]: gateway\.ship: sink: no kind of sink is called 'fils'; did you mean 'files'\?",
        r"7: gateway\.ship: there is nothing to ship: no log_dirs, and no kumo\.configure_local_logs",
        r"8: gateway\.ship: where: not an expression",
    ):
        assert any(re.match(expected, each) for each in said), (expected, said)
    assert len(said) == 4


def test_a_second_shipment_of_one_name_is_refused(tmp_path):
    file = tmp_path / "policy.lua"
    file.write_text(
        "kumo.on('init', function()\n  local ship = require('gateway').ship\n"
        + "  ship { name = 'a', log_dirs = { 'x' }, sink = { stdout = {} } }\n" * 2
        + "end)\n"
    )
    problems, _, _ = examine(PolicySource.read(str(file)))
    assert [(problem.line, problem.message) for problem in problems] == [
        (4, "gateway.ship: there is a shipment 'a' already")
    ]


def test_the_page_lists_every_option():
    text = (ROOT / "docs" / "shipping.md").read_text()
    sections = re.split(r"^(?=`sink\.\w+`|Of a shipment)", text, flags=re.MULTILINE)
    titles = re.compile(r"`sink\.\w+`|Of a shipment")
    named = {
        titles.match(part)[0]: {
            name for cell in re.findall(r"^\| (`.*?) \|", part, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
        }
        for part in sections[1:]
    }
    rows = {name.strip("`").removeprefix("sink."): found for name, found in named.items()}
    assert rows.pop("Of a shipment") == set(SHIPMENT.options)
    assert {kind: found for kind, found in rows.items() if kind in SINKS} == {
        kind: set(schema.options) for kind, schema in SINKS.items()
    }
