"""`relay-gateway spool`, on a spool that nobody works on; with a gateway in tests/test_spool_service.py."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway import cli
from gateway.couriers.spool import holdings
from gateway.couriers.spool.kept import Envelope
from gateway.couriers.spool.store import DAMAGED, HELD, WAITS_FOR_SITE, WAITS_FOR_TIME, Row, Store
from gateway.handover import Response
from gateway.logs.reader import DirectoryReader
from gateway.logs.records import Origin
from gateway.smtp.address import parse_address
from gateway.smtp.requests import Requests

CONTENT = b"Subject: x\r\n\r\n..dot\r\n"
Said = Callable[..., tuple[int, str, str]]


def envelope(number: int, sender: str = "a@x.example", recipient: str = "b@y.example") -> Envelope:
    return Envelope(
        id=f"{number:032x}",
        sender=parse_address(sender),
        recipients=[parse_address(recipient)],
        given=None,
        meta={"tenant": "t"},
        origin=Origin("client.example", "192.0.2.1", "s", tls_cipher="c", tls_peer_subject_name=["x"]),
        smtputf8=False,
        hostname="gw.example",
        received_at=5.0,
        last=Response(451, "4.4.1", "not reached", "MAIL"),
    )


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Three messages in two files."""
    directory = tmp_path / "spool"
    directory.mkdir()
    messages = {
        "0-0": [(1, "q1", WAITS_FOR_TIME, envelope(1)), (2, "q2", WAITS_FOR_SITE, envelope(2, "c@z.example"))],
        "1-0": [(3, "q1", HELD, envelope(3, recipient="d@w.example"))],
    }
    for name, those in messages.items():
        with closing(Store(str(directory / f"{name}.spool"))) as store, store.transaction():
            for number, queue, state, each in those:
                row = Row(0, 9e9, 5.0, 9e9, 0, 1, state, f"mx_list:mta{number}", queue, each.encoded())
                store.append(row, [CONTENT])
    return directory


@pytest.fixture
def said(spool: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    def run(action: str, *options: str) -> tuple[int, str, str]:
        code = cli.main(["spool", action, str(spool), *options])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def ids(text: str) -> list[int]:
    return [int(json.loads(line)["id"], 16) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [1, 2, 3]),
        (("--queue", "q1"), [1, 3]),
        (("--site", "mta2"), [2]),
        (("--sender", "C@z.example"), [2]),
        (("--sender", "@x.example"), [1, 3]),
        (("--recipient", "d@w.example"), [3]),
        (("--recipient", "@y.example"), [1, 2]),
        (("--state", "held"), [3]),
        (("--state", "unreachable"), [2]),
        (("--older", "10"), [1, 2, 3]),
        (("--older", "1e10"), []),
        ((f"{2:032x}", f"{3:032x}"), [2, 3]),
        ((f"{2:032x}", "--queue", "q1"), []),
    ],
)
def test_every_filter_means_what_it_says(said: Said, options, expected):
    code, out, _ = said("list", *options, "--json")
    assert (code, ids(out)) == (0, expected)


def test_a_line_tells_who_what_and_why(said: Said):
    line = said("list")[1].splitlines()[0]
    assert line.startswith(f"{1:032x} waiting")
    assert line.endswith(" old, 1 attempt, 21 octets, queue q1: <a@x.example> to <b@y.example>: 451 4.4.1 not reached")


def test_the_summary_counts_by_queue_state_and_last_answer(said: Said):
    assert [line.split() for line in said("list", "--summary")[1].splitlines()] == [
        ["1", state, queue, "451", "4.4.1", "not", "reached"]
        for state, queue in (("waiting", "q1"), ("unreachable", "q2"), ("held", "q1"))
    ]


def test_show_tells_everything_that_is_known(said: Said):
    known = json.loads(said("show", f"{2:032x}")[1])
    assert (known["sender"], known["meta"], known["queue"]) == ("c@z.example", {"tenant": "t"}, "q2")
    assert (known["recipients"], known["last"]) == (["b@y.example"], "451 4.4.1 not reached")
    assert (known["arrived"], known["due"]) == ("1970-01-01T00:00:05+00:00", "2255-03-14T16:00:00+00:00")
    assert known["origin"]["peer_address"] == "192.0.2.1"
    assert said("show", "f" * 32)[0] == 1
    assert said("show")[0] == 1


def test_the_content_is_shown_without_the_dots_of_smtp(spool: Path, capfdbinary):
    cli.main(["spool", "show", str(spool), f"{2:032x}", "--content"])
    assert capfdbinary.readouterr().out == b"Subject: x\r\n\r\n.dot\r\n"


def test_binary_content_is_shown_to_the_octet(spool: Path, capfdbinary):
    binary = envelope(4)
    binary.requests, binary.open_end = Requests(), True
    binary.requests.binary = True
    with closing(Store(str(spool / "0-0.spool"))) as store, store.transaction():
        store.append(Row(0, 9e9, 5.0, 9e9, 0, 1, HELD, "s", "q", binary.encoded()), [b"a: b\r\n\r\n..\0\n\r\n"])
    cli.main(["spool", "show", str(spool), f"{4:032x}", "--content"])
    assert capfdbinary.readouterr().out == b"a: b\r\n\r\n.\0\n"


def test_drop_hold_and_retry_do_it_in_all_files(said: Said, spool: Path, tmp_path: Path):
    (tmp_path / "logs").mkdir()
    assert said("drop", "--queue", "q1", "--log-dir", str(tmp_path / "logs"))[1] == "2 messages dropped\n"
    assert ids(said("list", "--json")[1]) == [2]
    assert said("hold", f"{2:032x}")[1] == "1 message held\n"
    assert "held" in said("list")[1]
    assert said("retry", "--all")[1] == "1 message to be tried now\n"
    with closing(Store(str(spool / "0-0.spool"))) as store:
        (row,) = store.rows()
        assert (row.due, row.state) == (0.0, WAITS_FOR_TIME)
    assert said("drop", "--queue", "q9")[0] == 1


def test_what_is_dropped_without_a_gateway_has_its_record(said: Said, tmp_path: Path):
    logs = tmp_path / "logs"
    logs.mkdir()
    assert said("drop", "--queue", "q1", "--log-dir", str(logs))[0] == 0
    with closing(DirectoryReader(str(logs))) as reader:
        records = [json.loads(line) for line in reader.lines()]
    assert [(record["type"], int(record["id"], 16), record["recipient"]) for record in records] == [
        ("AdminBounce", 1, "b@y.example"),
        ("AdminBounce", 3, "d@w.example"),
    ]
    assert [(record["queue"], record["num_attempts"], record["size"]) for record in records] == [("q1", 1, 21)] * 2
    assert {record["response"]["content"] for record in records} == {"An administrator has dropped the message"}


@pytest.mark.parametrize("options", [(), ("--log-dir", "/nowhere/at/all")])
def test_without_a_place_for_its_records_nothing_is_dropped(said: Said, options):
    code, _, err = said("drop", "--all", *options)
    assert code == 1
    assert "--log-dir" in err or "/nowhere/at/all" in err
    assert ids(said("list", "--json")[1]) == [1, 2, 3]


@pytest.mark.parametrize("action", ["drop", "hold", "retry"])
def test_nothing_is_done_to_all_by_accident(said: Said, action):
    code, _, err = said(action)
    assert code == 1
    assert "--all" in err
    assert len(said("list")[1].splitlines()) == 3


def test_what_was_exported_is_the_same_where_it_is_imported(said: Said, spool: Path, tmp_path: Path, capsys):
    before = said("list", "--json")[1]
    file = str(tmp_path / "moved")
    assert said("export", file)[0] == 0
    assert said("list")[1] == ""
    assert os.stat(file).st_mode & 0o077 == 0
    assert cli.main(["spool", "import", str(tmp_path / "other"), file]) == 0
    capsys.readouterr()
    cli.main(["spool", "list", str(tmp_path / "other"), "--json"])
    assert capsys.readouterr().out == before
    with closing(Store(str(tmp_path / "other" / "0-0.spool"))) as store:
        assert [store.content(row.number) for row in store.rows()] == [CONTENT] * 3


def test_export_takes_nothing_that_a_gateway_works_on(said: Said, spool: Path, tmp_path: Path):
    lock = holdings.locked(str(spool / "1-0.spool"))
    try:
        code, _, err = said("export", str(tmp_path / "moved"), "--queue", "q1")
    finally:
        os.close(lock)
    assert code == 1
    assert "stop it first" in err
    assert ids(said("list", "--json")[1]) == [2, 3]


def test_import_takes_all_of_a_file_or_nothing(spool: Path, tmp_path: Path, capsys):
    (tmp_path / "bad").write_text('{"due": 1}\n')
    assert cli.main(["spool", "import", str(tmp_path / "other"), str(tmp_path / "bad")]) == 1
    assert "no file of export" in capsys.readouterr().err


def test_what_is_damaged_is_shown_and_can_be_dropped(said: Said, spool: Path):
    with closing(Store(str(spool / "0-0.spool"))) as store:
        store._database.execute("UPDATE messages SET envelope = 'x' WHERE number = 1")
        store._database.execute("UPDATE messages SET due = 9e99 WHERE number = 2")  # and who it is for can be read
    assert "damaged     number 1" in said("list")[1]
    assert "damaged" in said("list", "--sender", "c@z.example")[1]
    nothing, known = [json.loads(line) for line in said("list", "--state", "damaged", "--json")[1].splitlines()]
    assert "id" not in nothing
    assert (known["sender"], known["due"]) == ("c@z.example", None)
    assert said("retry", "--state", "damaged")[1] == "0 messages to be tried now\n"
    with closing(Store(str(spool / "0-0.spool"))) as store:
        assert next(store.rows()).state == DAMAGED
    assert said("drop", "--state", "damaged")[1] == "2 messages dropped\n"


def test_a_directory_that_is_missing_is_told(tmp_path: Path, capsys):
    assert cli.main(["spool", "list", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
