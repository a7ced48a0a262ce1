"""Connections that are turned away before a session begins: what the client hears, and what is recorded of it."""

from __future__ import annotations

import socket

from tests.gateway_process import INIT, PATIENCE, wait_until


def test_a_connection_over_max_connections_gets_421_and_a_record(start):
    gateway = start(INIT.replace("hostname =", "max_connections = 1, hostname ="), "--workers", "1")
    with gateway.smtp() as first, socket.create_connection(gateway.address, PATIENCE) as second:
        assert first.noop()[0] == 250
        answer = second.makefile("rb").read()
        assert answer == b"421 4.3.2 gw.example too many concurrent sessions. Try later\r\n"
    (record,) = wait_until(gateway.records, "recorded")
    assert (record["type"], record["reason"]) == ("Rejection", "too_many_connections")
    assert record["response"]["code"] == 421 and record["response"]["command"] is None
    assert record["peer_address"] == {"name": "", "addr": "127.0.0.1"}
    assert gateway.metric('connections_refused_total{reason="too_many_connections"}') == 1
    assert gateway.metric('rejections_total{reason="too_many_connections",stage="connect"}') == 1
