"""Trace headers and hop counts (gateway/smtp/trace.py)."""

from __future__ import annotations

import base64
import email.policy
import json
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._fastpath import content_of
from gateway.smtp import trace


def test_a_received_header_has_kumomtas_layout():
    start = trace.received_from("client.example", "192.0.2.7", "gw.example", "192.0.2.1", "ESMTPS", "TLSv1_3:X")
    assert trace.received(start, "0123", "b@server.example", 1_785_847_290) == (
        b"Received: from client.example (192.0.2.7)\r\n"
        b"  by gw.example (relay-gateway 192.0.2.1) \r\n"
        b"  with ESMTPS (TLSv1_3:X)  id 0123 for <b@server.example>;\r\n"
        b"  Tue, 4 Aug 2026 12:41:30 +0000\r\n"
    )


def test_a_received_header_for_several_names_none_of_them():
    assert trace.received("Received: … id ", "0123", None, 1_785_847_290) == (
        "Received: … id 0123;\r\n  Tue, 4 Aug 2026 12:41:30 +0000\r\n".encode()
    )


def test_a_client_without_a_name_is_unspecified():
    assert "from unspecified (192.0.2.7)" in trace.received_from("", "192.0.2.7", "gw", "192.0.2.1", "SMTP", "")


@pytest.mark.parametrize(
    ("esmtp", "tls", "authenticated", "smtputf8", "keyword"),
    [
        (False, False, False, False, "SMTP"),
        (True, False, False, False, "ESMTP"),
        (True, True, False, False, "ESMTPS"),
        (True, True, True, False, "ESMTPSA"),
        (True, False, False, True, "UTF8SMTP"),
        (True, True, True, True, "UTF8SMTPSA"),
    ],
)
def test_the_with_keyword_is_rfc_3848s_and_rfc_6531s(esmtp, tls, authenticated, smtputf8, keyword):
    assert trace.with_protocol(esmtp=esmtp, tls=tls, authenticated=authenticated, smtputf8=smtputf8) == keyword


@given(
    st.one_of(st.none(), st.text(min_size=1, max_size=60)),
    st.dictionaries(st.sampled_from("abc"), st.one_of(st.text(), st.integers(-9, 9), st.none()), max_size=3),
)
def test_the_supplemental_header_can_be_read_back(recipient, meta):
    header = trace.supplemental("X-KumoRef", recipient, meta, ("a", "b", "missing"))
    assert all(len(line) <= 998 for line in header.split(b"\r\n"))
    message = BytesParser(policy=email.policy.compat32).parsebytes(header + b"\r\n")
    content = json.loads(base64.b64decode("".join(message["X-KumoRef"].split()), validate=True))
    assert content.pop("_@_") == "\\_/"
    assert content.pop("recipient", None) == recipient
    assert content == {key: value for key, value in meta.items() if key in "ab"}


def test_the_supplemental_header_is_the_same_however_its_tables_were_filled():
    one, other = {"a": {"x": 1, "b": {"z": 2, "y": 3}}, "Z": 4}, {"Z": 4, "a": {"b": {"y": 3, "z": 2}, "x": 1}}
    headers = {
        trace.supplemental("X-KumoRef", "r@x.example", meta, tuple(order))
        for meta, order in ((one, "aZ"), (other, "Za"))
    }
    assert len(headers) == 1


@pytest.mark.parametrize(
    ("message", "hops"),
    [
        (b"", 0),
        (b"Subject: x\r\n\r\n", 0),
        (b"Received: a\r\nrecEIVED : b\r\nSubject: Received: no\r\n\r\nReceived: body\r\n", 2),
        (b"Received: folded\r\n\tby Received: not one\r\n\r\n", 1),
        (b"X-Received: no\r\n\r\n", 0),
        (b"Received: x\r\n" * 150, 150),
    ],
)
def test_hops_are_counted_in_the_header_only(message, hops):
    assert trace.hops(content_of(message)) == hops
    assert trace.hops(content_of(message[13:]).behind([message[:13]])) == hops


def test_a_header_section_is_looked_through_to_its_end():
    fields = [b"Received: " + b"x" * 5000 + b"\r\n" for _ in range(30)]
    assert trace.hops(content_of(b"\r\nReceived: body\r\n").behind(fields)) == 30
