"""JsonLine against orjson: what is put together is what encoding the whole would give, octet for octet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import JsonLine

KEYS = st.text(max_size=5)
# Escapes and their neighbours in every place of a word of eight octets, too.
TEXTS = st.text() | st.text('"\\\n\x1f !#[]\x7f\x80\xa2\xdcé€😀', max_size=40)
VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | TEXTS
TIMES = st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC))


def filled(pieces: list[bytes], *values: Any) -> bytes:
    line = JsonLine()
    line.start(tuple(pieces))
    for value in values:
        put(line, value)
    return line.finish()


def put(line: JsonLine, value: Any) -> None:
    if isinstance(value, int):
        line.integer(value)
    elif isinstance(value, bytes):
        line.json(value)
    else:
        line.text(value)


@given(st.dictionaries(KEYS, VALUES, min_size=1), st.sets(st.integers(0, 20)))
def test_a_filled_object_is_what_orjson_makes_of_the_whole(record, encoded_before):
    pieces = [b""]
    for key in record:
        pieces[-1] += b"," if len(pieces) > 1 else b"{"
        pieces[-1] += orjson.dumps(key) + b":"
        pieces.append(b"")
    pieces[-1] = b"}"
    values = [orjson.dumps(v) if n in encoded_before else v for n, v in enumerate(record.values())]
    assert filled(pieces, *values) == orjson.dumps(record)


def test_every_octet_that_takes_an_escape_has_orjsons():
    text = "".join(map(chr, range(0x100)))
    assert filled([b"", b""], text) == orjson.dumps(text)


def test_a_line_has_room_for_anything():
    texts = ["x" * 1000, "\x1f" * 3000, "y" * 20000]
    assert filled([b"[", b",", b",", b"]"], *texts) == orjson.dumps(texts)


def test_a_lone_surrogate_becomes_a_question_mark():
    assert filled([b"", b""], "a\ud800b") == b'"a?b"'


@given(st.lists(st.tuples(TIMES, st.integers(0, 999_999_999)), min_size=1))
def test_times_are_written_as_rfc_3339_has_them(times):
    line = JsonLine()
    for moment, fraction in times:
        seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
        line.start((b"", b" ", b""))
        line.time(seconds, fraction, 9)
        line.time(seconds, fraction // 1000, 6)
        whole = moment.strftime("%Y-%m-%dT%H:%M:%S")
        assert line.finish().decode() == f'"{whole}.{fraction:09d}Z" "{whole}.{fraction // 1000:06d}Z"'


def test_a_line_can_be_begun_again_at_any_time():
    line = JsonLine()
    line.start((b"[", b",", b"]"))
    line.text("abandoned")
    line.start((b"[", b"]"))
    line.integer(1)
    assert (line.size, line.finish(), line.size) == (2, b"[1]", 3)


def test_as_many_values_as_gaps_are_asked_for():
    line = JsonLine()
    with pytest.raises(ValueError, match="no gap is left"):
        line.text("not begun")
    with pytest.raises(ValueError, match="not every gap"):
        line.finish()
    line.start((b"[", b"]"))
    with pytest.raises(ValueError, match="not every gap"):
        line.finish()
    line.integer(1)
    with pytest.raises(ValueError, match="no gap is left"):
        line.integer(2)
    with pytest.raises(ValueError, match="no pieces"):
        line.start(())


@pytest.mark.parametrize(
    ("method", "values", "error"),
    [
        ("integer", (2**63,), OverflowError),
        ("integer", ("1",), TypeError),
        ("text", (b"a",), TypeError),
        ("json", (None,), TypeError),
        ("json", ("a",), TypeError),
        ("time", (0, 0, 0), ValueError),
        ("time", (0, 0, 21), ValueError),
    ],
)
def test_what_it_cannot_write_is_an_error(method, values, error):
    line = JsonLine()
    line.start((b"", b""))
    with pytest.raises(error):
        getattr(line, method)(*values)
