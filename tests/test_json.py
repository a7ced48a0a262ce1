"""fill_gaps against orjson: what is put together is what encoding the whole would give, octet for octet."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import fill_gaps

KEYS = st.text(max_size=5)
VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text()


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=60), st.sets(st.integers(0, 59)))
def test_a_filled_object_is_what_orjson_makes_of_the_whole(record, encoded_before):
    pieces = [b""]
    for key in record:
        pieces[-1] += b"," if len(pieces) > 1 else b"{"
        pieces[-1] += orjson.dumps(key) + b":"
        pieces.append(b"")
    pieces[-1] = b"}"
    values = [orjson.dumps(v) if n in encoded_before else v for n, v in enumerate(record.values())]
    assert fill_gaps(tuple(pieces), tuple(values)) == orjson.dumps(record)


def test_every_octet_that_takes_an_escape_has_orjsons():
    text = "".join(map(chr, range(0x100)))
    assert fill_gaps((b"", b""), (text,)) == orjson.dumps(text)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (("\ud800",), UnicodeEncodeError),
        ((2**63,), OverflowError),
        ((1.5,), TypeError),
        ((True,), TypeError),
        (("a", "b"), ValueError),
        ((), ValueError),
    ],
)
def test_what_it_cannot_write_is_an_error(values, error):
    with pytest.raises(error):
        fill_gaps((b"", b""), values)


def test_more_gaps_than_there_is_room_for_are_an_error():
    with pytest.raises(ValueError, match="not as many"):
        fill_gaps((b"",) * 66, (1,) * 65)
