"""Finding a running gateway: by its policy, by a URL; and what is said where there is none."""

from __future__ import annotations

import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from gateway._fastpath import CidrSet
from gateway.admin import locate
from gateway.admin.locate import NoGateway
from gateway.config import HttpListener
from tests.ports import free_port


def policy_of(tmp_path, *listens: str) -> str:
    path = tmp_path / "init.lua"
    calls = "\n".join(f"  kumo.start_http_listener {{ listen = '{listen}' }}" for listen in listens)
    path.write_text(f"local kumo = require 'kumo'\nkumo.on('init', function()\n{calls}\nend)\n")
    return str(path)


def said(**where) -> str:
    with pytest.raises(NoGateway) as error:
        locate.find(**where)
    return str(error.value)


@pytest.fixture
def stranger():
    """A server that is none of ours."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/healthz" and self.server.has_health
            self.send_response(200 if found else 404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.has_health = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_running_gateway_is_found_by_its_policy_and_by_its_url(start, tmp_path):
    port = free_port()
    gateway = start(f"kumo.on('init', function() kumo.start_http_listener {{ listen = '0.0.0.0:{port}' }} end)")
    gateway.announced()
    base = f"http://127.0.0.1:{port}"
    assert locate.find(policy=str(gateway.policy_file)) == base
    assert locate.find(admin=f"{base}/") == locate.find(admin=f"127.0.0.1:{port}") == base
    with locate.ask(base, "/healthz") as response:
        assert response.read() == b"OK\n"
    with pytest.raises(NoGateway, match="knows no /nothing: it may be of another version"):
        locate.ask(base, "/nothing")
    # of several listeners, the one that answers
    assert locate.find(policy=policy_of(tmp_path, f"127.0.0.1:{free_port()}", f"127.0.0.1:{port}")) == base
    # the policy of the disk may be bad by now: where it listens is known all the same
    bad = "\nkumo.on('init', function() kumo.start_esmtp_listener { no_such_option = true } end)\n"
    gateway.policy_file.write_text(gateway.policy_file.read_text() + bad)
    assert locate.find(policy=str(gateway.policy_file)) == base


def test_where_nothing_answers_that_is_said(tmp_path):
    port = free_port()
    expected = f"http://127.0.0.1:{port}: nothing listens there; is the gateway running?"
    assert said(policy=policy_of(tmp_path, f"127.0.0.1:{port}")) == expected
    assert said(admin=f"http://127.0.0.1:{port}") == expected


def test_where_nobody_answers_in_time_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "PATIENCE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert said(admin=f"127.0.0.1:{port}") == f"http://127.0.0.1:{port}: no answer within 0.01 s"


def test_where_something_else_answers_that_is_said(tmp_path, stranger):
    port = stranger.server_address[1]
    assert "no relay-gateway (BaseHTTP/" in said(policy=policy_of(tmp_path, f"127.0.0.1:{port}"))
    stranger.has_health = False
    assert "no relay-gateway (404 Not Found for /healthz)" in said(admin=f"http://127.0.0.1:{port}")


def test_a_policy_that_does_not_say_where_is_told_so(tmp_path):
    assert "has no HTTP listener" in said(policy=policy_of(tmp_path))
    assert "kumo.start_http_listener { listen = '127.0.0.1:8000' }" in said(policy=policy_of(tmp_path))
    for address in ("127.0.0.1:0", "fd:http"):
        assert f"at which port its HTTP listener ({address}) is" in said(policy=policy_of(tmp_path, address))
    assert said(policy=str(tmp_path / "none.lua")) == f"{tmp_path}/none.lua: No such file or directory"
    bad = tmp_path / "bad.lua"
    bad.write_text("this is not Lua")
    assert re.match(
        r"this policy cannot be read: \S+bad.lua:1: .*; or name the HTTP listener with", said(policy=str(bad))
    )
    assert "which gateway?" in said()


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1", "http://", "127.0.0.1:99999", "http://127.0.0.1:8000/?a=b"])
def test_what_is_no_url_is_told_so(url):
    assert "is not the URL of an HTTP listener, which looks like http://127.0.0.1:8000" in said(admin=url)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("0.0.0.0:80", "http://127.0.0.1:80"), ("[::]:80", "http://[::1]:80"), ("[2001:db8::1]:80", "http://[2001:db8::1]:80"),
        ("192.0.2.1:8000", "http://192.0.2.1:8000"),
    ],
)  # fmt: skip
def test_an_address_to_listen_on_becomes_one_to_connect_to(address, url):
    assert locate._url_of(address) == url


def test_a_listener_that_answers_this_machine_is_asked_first():
    others, own = CidrSet(("10.0.0.0/8",)), CidrSet(("127.0.0.1",))
    listens = [("127.0.0.1:1", others), ("[::1]:2", own), ("127.0.0.2:3", own), ("0.0.0.0:4", own)]
    listeners = [HttpListener(listen=listen, trusted_hosts=trusted) for listen, trusted in listens]
    urls = locate._urls("init.lua", listeners)
    assert [int(url.rpartition(":")[2]) for url in urls] == [3, 4, 1, 2]


def test_what_something_else_says_is_told_in_a_line():
    assert locate._silence("http://x", OSError("220 mx\r\n")) == "http://x: no answer (220 mx)"
