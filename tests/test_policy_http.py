"""kumo.http: requests as a policy makes them, what a policy learns of the response, and what a slow server holds up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.policy.problems import PolicyProblems
from tests.gateway_process import INIT, Gateway
from tests.outside import HttpServer, http_server
from tests.policy_tools import load

RELAYS = "kumo.on('get_listener_domain', function() return kumo.make_listener_domain { relay_to = true } end)\n"


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with http_server() as running:
        yield running


def said(server: HttpServer, code: str) -> str:
    """What a policy's top level puts into `result`."""
    text = f"""
        local kumo = require 'kumo'
        local client, url, result = kumo.http.build_client {{}}, '{server.url}', nil
        {code}
        kumo.on('init', function()
          kumo.start_esmtp_listener {{ listen = '127.0.0.1:0', banner = kumo.encode.hex_encode(tostring(result)) }}
        end)
    """
    return bytes.fromhex(load(text).config.listeners[0].overrides["banner"]).decode("latin-1")


def seen(server: HttpServer, code: str) -> dict[str, Any]:
    """What the server sees of the request that `code` makes of `client`."""
    found: dict[str, Any] = json.loads(said(server, f"result = {code}:send():text()"))
    return found


def test_a_request_is_what_the_policy_says(server: HttpServer) -> None:
    found = seen(server, "client:post(url .. '/a?b=c'):header('X-One', 1):headers { ['X-Two'] = 'ü' }:body '{}'")
    assert (found["method"], found["path"], found["body"]) == ("POST", "/a?b=c", "{}")
    assert (found["headers"]["X-One"], found["headers"]["X-Two"]) == ("1", "ü")
    assert found["headers"]["User-Agent"].startswith("relay-gateway/")
    assert "Content-Type" not in found["headers"]


def test_a_body_may_have_any_octets(server: HttpServer) -> None:
    assert seen(server, r"client:put(url):body '\xff\0'")["body"] == "\xff\0"


@pytest.mark.parametrize(
    ("call", "value"),
    [
        ("basic_auth('user', 'pa:ss')", "Basic dXNlcjpwYTpzcw=="),
        ("basic_auth 'user'", "Basic dXNlcjo="),
        ("bearer_auth 'token'", "Bearer token"),
    ],
)
def test_credentials_become_the_authorization_field(server: HttpServer, call: str, value: str) -> None:
    assert seen(server, f"client:get(url):{call}")["headers"]["Authorization"] == value


def test_a_request_is_signed_for_aws_as_it_is_sent(server: HttpServer) -> None:
    keys = "access_key = { key_data = 'AKID' }, secret_key = { key_data = 'tiger' }, region = 'r', service = 's'"
    found = seen(
        server,
        f"client:post(url .. '/a%20b?c=d&a='):body 'x':aws_sign_v4 {{ {keys}, payload = 'x', session_token = 't' }}",
    )["headers"]
    scope = found["Authorization"].partition("Signature=")[0]
    assert scope.endswith("SignedHeaders=host;x-amz-date;x-amz-security-token, ") and "Credential=AKID/" in scope
    assert found["X-Amz-Security-Token"] == "t"
    moment = datetime.strptime(found["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    again = f"""result = kumo.crypto.aws_sign_v4 {{ {keys}, payload = 'x', session_token = 't', method = 'POST',
      uri = '/a b', query_params = {{ c = 'd', a = '' }}, headers = {{ host = '127.0.0.1:{server.port}' }},
      timestamp = kumo.time.from_unix_timestamp({moment:.0f}) }}.authorization"""
    assert said(server, again) == found["Authorization"]


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ("access_key = { key_data = 'a' }", "aws_sign_v4: region"),
        ("method = 'GET'", "method: the request has that itself"),
        (
            "access_key = { event_name = 'x' }, secret_key = { key_data = 'x' }, region = 'r', service = 's'",
            "kumo.secrets.load",
        ),
    ],
)
def test_what_cannot_be_signed_is_said(server: HttpServer, parameters: str, problem: str) -> None:
    with pytest.raises(PolicyProblems, match=problem):
        said(server, f"client:get(url):aws_sign_v4 {{ {parameters} }}")


def test_forms_are_encoded(server: HttpServer) -> None:
    found = seen(server, "client:post(url):form_url_encoded { key = 'a b', n = 5 }")
    assert found["headers"]["Content-Type"] == "application/x-www-form-urlencoded"
    assert sorted(found["body"].split("&")) == ["key=a+b", "n=5"]
    found = seen(server, r"client:post(url):form_multipart_data { text = 'value', octets = '\xff' }")
    assert found["headers"]["Content-Type"].startswith("multipart/form-data; boundary=")
    assert 'name="text"\r\n\r\nvalue\r\n' in found["body"]
    assert 'Content-Type: application/octet-stream\r\nContent-Disposition: form-data; name="octets"' in found["body"]


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("client:get(url .. '/code/404'):send():status_code()", "404"),
        ("client:get(url .. '/code/404'):send():status_reason()", "Not Found"),
        ("client:get(url .. '/code/599'):send():status_reason()", "nil"),
        ("client:get(url .. '/code/201'):send():status_is_success()", "true"),
        ("client:get(url .. '/code/500'):send():status_is_success()", "false"),
        ("client:get(url .. '/code/500'):send():status_is_server_error()", "true"),
        ("client:get(url .. '/code/400'):send():status_is_client_error()", "true"),
        ("client:get(url .. '/code/304'):send():status_is_redirection()", "true"),
        ("client:get(url .. '/code/200'):send():status_is_informational()", "false"),
        ("client:get(url):send():headers()['X-SEEN']", "yes"),
        ("client:get(url):send():headers()['X-None']", "nil"),
        ("client:get(url .. '/latin'):send():text()", "grüße".encode().decode("latin-1")),
        ("client:get(url .. '/latin'):send():bytes()", "gr\xfc\xdfe"),
        ("client:get(url .. '/latin'):send():content_length()", "5"),
        ("kumo.json_parse(client:get(url .. '/away'):send():text()).path", "/there"),
        (
            "kumo.http.build_url('https://example.com/?existing=value', { a = 1 })",
            "https://example.com/?existing=value&a=1",
        ),
        ("require('kumo.http').build_client({ user_agent = 'me' }):get(url):send():text():match 'me'", "me"),
    ],
)
def test_a_policy_looks_at_the_response(server: HttpServer, code: str, result: str) -> None:
    assert said(server, f"result = {code}") == result


def test_unknown_options_are_named_and_do_nothing(server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    code = "result = kumo.http.build_client({ headers = { a = 'b' }, timeouts = 5 }):get(url):send():status_code()"
    assert said(server, code) == "200"
    assert "kumo.http.build_client: unknown options, which do nothing: headers, timeouts" in caplog.text


def test_header_fields_can_be_walked(server: HttpServer) -> None:
    assert (
        said(server, "for k, v in pairs(client:get(url):send():headers()) do if k == 'x-seen' then result = v end end")
        == "yes"
    )


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (
            "kumo.http.build_client { timeout = 'soon' }",
            "kumo.http.build_client: timeout: expected a number of seconds",
        ),
        ("client:get 'example.com'", "HttpClient:get: expected a URL with http or https, got example.com"),
        ("client:get(url):header('X\\n', 'x')", "HttpRequest:header: 'X\n' is no header field"),
        ("client:get(url):header('X', 'x\\r\\nY: z')", "HttpRequest:header: 'X' is no header field"),
        ("client:get(url):timeout 'soon'", "HttpRequest:timeout: expected a number of seconds"),
        ("client:get(url):body {}", "HttpRequest:body: expected a string, got a table"),
        ("client:close() client:get(url)", "HttpClient:get: the client is closed"),
        ("local r = client:get(url) client:close() r:send()", "HttpRequest:send: the client is closed"),
        ("client:get('http://u:p@127.0.0.1:1/x?token=y'):send()", "GET http://127.0.0.1:1/x: cannot connect: "),
        ("client:get('http://127.0.0.1:99999/'):send()", "GET http://127.0.0.1:99999/: the URL is not valid"),
        ("client:get('http://nowhere.invalid/'):send()", "GET http://nowhere.invalid/: cannot connect: "),
        ("client:get(url .. '/held'):timeout(0.01):send()", "/held: no response within 0.01 seconds"),
        ("client:get(url .. '/huge'):send()", "/huge: the response has more than 16 MiB"),
        ("client:get(url):basic_auth('a:b')", "HttpRequest:basic_auth: a colon in the user's name"),
        ("kumo.http.connect_websocket(url)", "web sockets are not supported by relay-gateway"),
    ],
)
def test_what_goes_wrong_is_a_lua_error_without_secrets(server: HttpServer, code: str, problem: str) -> None:
    with pytest.raises(PolicyProblems) as raised:
        said(server, code)
    text = raised.value.problems[0].message
    assert problem in text
    assert "token" not in text and "u:p" not in text


# --- at the wire ------------------------------------------------------------------------------------------------------

WEBHOOK = """
kumo.on('smtp_server_message_received', function(msg, conn_meta)
  local request = kumo.http.build_client({}):post(URL .. '/hook')
  request:header('Content-Type', 'application/json')
  request:bearer_auth 'secret'
  request:body(kumo.json_encode { from = tostring(msg:sender()), subject = msg:get_first_named_header_value 'Subject' })
  local response = request:send()
  if not response:status_is_success() then kumo.reject(451, '4.7.1 later') end
  msg:set_meta('queue', 'null')
end)
kumo.on('smtp_server_mail_from', function(sender)
  local client = kumo.http.build_client { timeout = '100ms' }
  if sender.user == 'held' then client:get(URL .. '/held'):timeout('20s'):send() end
  if sender.user == 'late' then client:get(URL .. '/held'):send() end
  if sender.user == 'caught' and not pcall(function() client:get(URL .. '/held'):send() end) then
    kumo.reject(450, '4.7.1 not now')
  end
end)
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, server: HttpServer) -> Iterator[Gateway]:
    policy = f"local URL = '{server.url}'\n{INIT}{RELAYS}{WEBHOOK}"
    running = Gateway(tmp_path_factory.mktemp("http"), policy, "--workers", "1")
    yield running
    assert running.stop() == 0
    assert "nclosed" not in running.diagnostics()
    running.kill()


def test_a_webhook_hears_of_every_message(gateway: Gateway, server: HttpServer) -> None:
    server.asked.clear()
    for number in range(3):
        with gateway.smtp() as client:
            client.sendmail("a@a.example", "b@b.example", f"Subject: {number}\r\n\r\nx\r\n")
    assert [json.loads(one["body"]) for one in server.asked] == [
        {"from": "a@a.example", "subject": str(number)} for number in range(3)
    ]
    assert server.asked[0]["headers"]["Authorization"] == "Bearer secret"
    assert "secret" not in gateway.diagnostics()


def test_a_slow_server_holds_up_nobody_else(gateway: Gateway, server: HttpServer) -> None:
    waiting = gateway.connect()
    waiting.sendall(b"EHLO a.example\r\nMAIL FROM:<held@a.example>\r\n")
    assert server.held.acquire(timeout=20)
    with gateway.smtp() as other:
        other.sendmail("a@a.example", "b@b.example", "Subject: x\r\n\r\nx\r\n")
    waiting.close()
    assert server.left.acquire(timeout=20)  # when the client is gone, the request is cancelled


@pytest.mark.parametrize(("user", "code"), [("late", 451), ("caught", 450)])
def test_a_server_that_takes_too_long_is_an_error(gateway: Gateway, user: str, code: int) -> None:
    with gateway.smtp() as client:
        client.ehlo()
        assert client.mail(f"{user}@a.example")[0] == code
        assert client.mail("a@a.example")[0] == 250
