"""Replies in somebody else's words: whatever a policy or an upstream says, the client reads one well-formed reply."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.smtp import replies
from gateway.smtp.replies import Reason

LINE = re.compile(rb"([2-5][0-9]{2})([ -])([^\x00-\x1f\x7f]*)\r\n")  # RFC 5321 §4.2


@given(code=st.integers(200, 599), text=st.text() | st.text("25.10 -\r\n\t\0é", max_size=40))
@example(code=550, text="5.1.1 no such user\r\n250 2.0.0 OK")
@example(code=550, text="")
@example(code=451, text="5.1.1 contradicts its code")
def test_whatever_the_text_a_reply_is_one_reply(code, text):
    wire = replies.make(code, text, Reason.POLICY_REJECT).wire
    lines = LINE.findall(wire)
    assert b"".join(b"%b%b%b\r\n" % line for line in lines) == wire
    assert {line[0] for line in lines} == {b"%d" % code}
    assert [line[1] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]


@given(code=st.sampled_from([250, 421, 451, 550]), text=st.text())
def test_every_line_has_an_enhanced_code_of_the_replys_class(code, text):
    for _, _, line in LINE.findall(replies.make(code, text, Reason.POLICY_REJECT).wire):
        assert re.match(rb"%d\.[0-9]{1,3}\.[0-9]{1,3} " % (code // 100), line)  # RFC 2034 §4


@given(code=st.integers(200, 599), text=st.text(min_size=100))
@example(code=550, text="\N{GRINNING FACE}" * 480)
def test_a_line_is_no_longer_than_clients_must_read(code, text):
    wire = replies.make(code, text, Reason.POLICY_REJECT).wire
    assert max(map(len, wire.splitlines(keepends=True))) <= 512  # RFC 5321 §4.5.3.1.5


@pytest.mark.parametrize("code", [-1, 0, 100, 199, 600, 5500])
def test_a_code_that_is_none_becomes_451(code):
    assert replies.make(code, "5.1.1 no", Reason.POLICY_REJECT).wire == b"451 4.0.0 no\r\n"


@pytest.mark.parametrize(
    ("code", "line", "split"),
    [
        (550, "5.1.1 no such user", ("5.1.1", "no such user")),
        (550, "no such user", ("", "no such user")),
        (550, "4.1.1 no such user", ("", "no such user")),
        (550, "5.1 no such user", ("", "5.1 no such user")),
        (550, "5.1.1000 no such user", ("", "5.1.1000 no such user")),
        (550, "5.1.1x no such user", ("", "5.1.1x no such user")),
        (550, "5.1.1.1 no such user", ("", "5.1.1.1 no such user")),
        (550, "5..1 no such user", ("", "5..1 no such user")),
        (550, "55.1.1 no such user", ("", "no such user")),
        (550, "5.1.", ("", "5.1.")),
        (550, "", ("", "")),
        (250, "2.0.0", ("2.0.0", "")),
        (250, "2.100.999 ", ("2.100.999", "")),
    ],
)
def test_an_enhanced_code_is_split_off_where_it_is_one_of_the_replys_class(code, line, split):
    assert replies.split_enhanced(code, line) == split
