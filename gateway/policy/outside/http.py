"""`kumo.http`: requests to HTTP servers.

All clients of a process share its connections, so that one made for each request costs nothing. A response is read
whole before it is given to the policy: none keeps a connection for itself. An error names no user, password or query:
those may be secrets.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from gateway import __version__
from gateway.policy.kumo.crypto import aws_sign_v4
from gateway.policy.kumo.values import Objects, binary, described, string, text_of
from gateway.policy.options import Option, Schema, accepted, boolean, duration, one_line
from gateway.policy.outside.outside import Outside, read_known_options

if TYPE_CHECKING:
    import aiohttp

MOST_BODY = 16 * 1024 * 1024  # octets of a response
MOST_CONNECTIONS = 256  # of a process, used or kept
MOST_TO_ONE = 64  # of these to one server, so that one that hangs leaves some to the others
KEPT_IDLE = 90.0  # seconds

BUILD_CLIENT = Schema(
    {
        "user_agent": Option(one_line, default=f"relay-gateway/{__version__}"),
        "timeout": Option(duration, default=60.0),
        "accept_invalid_certs": Option(boolean, default=False),
        "pool_idle_timeout": accepted(duration),
        "connection_verbose": accepted(boolean),
    }
)


@dataclass(slots=True)
class HttpClient:
    """How requests are made."""

    outside: Outside
    options: dict[str, Any]
    closed: bool = False


@dataclass(slots=True, eq=False)
class HttpRequest:
    """A request that is being put together. headers: name and value, in order."""

    client: HttpClient
    method: str
    url: str
    timeout: float
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: Any = None

    @property
    def asks(self) -> str:
        """Whom it asks for what, as it may be shown."""
        return f"{self.method} {shown(self.url)}"


@dataclass(frozen=True, slots=True, eq=False)
class HttpResponse:
    """What a server said."""

    status: int
    headers: HttpHeaders
    body: bytes
    charset: str


@dataclass(frozen=True, slots=True, eq=False)
class HttpHeaders:
    """Header fields by name in lower case; several of one name are joined."""

    values: dict[str, str]

    def get(self, name: str) -> str | None:
        """The value of a field in any case, None where there is none."""
        return self.values.get(name.lower())


# --- clients and requests -----------------------------------------------------------------------------------------


def build_client(outside: Outside, options: Any = None) -> HttpClient:
    """A client; its options are a table"""
    return HttpClient(outside, read_known_options("kumo.http.build_client", BUILD_CLIENT, options))


def build_url(outside: Outside, base: Any, parameters: Any) -> str:
    """A URL with parameters put behind those that it has"""
    parts = urlsplit(string(base, "build_url"))
    query = "&".join(part for part in (parts.query, urlencode(_texts(parameters, "build_url"))) if part)
    return urlunsplit(parts._replace(query=query))


def connect_websocket(outside: Outside, url: Any = None) -> None:
    """An error: there are no web sockets here"""
    raise ValueError("web sockets are not supported by relay-gateway")


def _request(method: str) -> Callable[..., HttpRequest]:
    def begin(client: HttpClient, url: Any) -> HttpRequest:
        if client.closed:
            raise ValueError("the client is closed")
        text = string(url, method.lower())
        if urlsplit(text).scheme not in ("http", "https"):
            raise ValueError(f"expected a URL with http or https, got {shown(text)}")
        return HttpRequest(client, method, text, client.options["timeout"])

    return begin


def _close(client: HttpClient) -> None:
    client.closed = True


def _header(request: HttpRequest, name: Any, value: Any) -> HttpRequest:
    field_name, content = string(name, "header"), string(value, "header")
    if not field_name.isascii() or not field_name.strip() or any(char in field_name + content for char in "\r\n\0"):
        raise ValueError(f"header: '{field_name}' is no header field")
    request.headers.append((field_name, content))
    return request


def _headers(request: HttpRequest, headers: Any) -> HttpRequest:
    for name, value in _texts(headers, "headers").items():
        _header(request, name, value)
    return request


def _basic_auth(request: HttpRequest, user: Any, password: Any = None) -> HttpRequest:
    name, secret = string(user, "basic_auth"), "" if password is None else string(password, "basic_auth")
    if ":" in name:
        raise ValueError("basic_auth: a colon in the user's name")  # RFC 7617 §2
    return _header(request, "Authorization", f"Basic {b64encode(binary(f'{name}:{secret}')).decode()}")


def _bearer_auth(request: HttpRequest, token: Any) -> HttpRequest:
    return _header(request, "Authorization", f"Bearer {string(token, 'bearer_auth')}")


def _body(request: HttpRequest, body: Any) -> HttpRequest:
    request.body = binary(string(body, "body"))
    return request


def _form_url_encoded(request: HttpRequest, parameters: Any) -> HttpRequest:
    request.body = urlencode(_texts(parameters, "form_url_encoded")).encode()
    return _header(request, "Content-Type", "application/x-www-form-urlencoded")


def _form_multipart_data(request: HttpRequest, parameters: Any) -> HttpRequest:
    request.body = _texts(parameters, "form_multipart_data")
    return request


def _aws_sign_v4(request: HttpRequest, parameters: Any) -> HttpRequest:
    """Signs it as it stands, but for its body, which is `payload` in the parameters."""
    given = parameters if isinstance(parameters, dict) else {}
    if set(given) & _OF_REQUESTS:
        raise ValueError(f"aws_sign_v4: {', '.join(sorted(set(given) & _OF_REQUESTS))}: the request has that itself")
    parts = urlsplit(request.url)
    headers = {"host": parts.netloc.rpartition("@")[2], **_texts(given.get("headers"), "aws_sign_v4")}
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    about = {"method": request.method, "uri": unquote(parts.path) or "/", "query_params": query, "headers": headers}
    signed = aws_sign_v4({**given, **about})
    _header(request, "Authorization", signed["authorization"])
    if "session_token" in given:
        _header(request, "X-Amz-Security-Token", given["session_token"])
    return _header(request, "X-Amz-Date", signed["timestamp"])


_OF_REQUESTS = frozenset({"method", "uri", "query_params"})


def _timeout(request: HttpRequest, timeout: Any) -> HttpRequest:
    request.timeout = duration(timeout)
    return request


def _texts(table: Any, function: str) -> dict[str, str]:
    if table == [] or table is None:
        return {}
    if not isinstance(table, dict):
        raise ValueError(f"{function}: expected a table of names and values, got {described(table)}")
    return {string(name, function): string(value, function) for name, value in table.items()}


# --- sending --------------------------------------------------------------------------------------------------------


async def send(request: HttpRequest) -> HttpResponse:
    """What the server says. Raises ValueError where it says nothing that can be used."""
    import aiohttp

    client = request.client
    if client.closed:
        raise ValueError("the client is closed")
    if not client.outside.background.may_ask(request.asks):
        return HttpResponse(200, HttpHeaders({"content-type": "application/json"}), b"{}", "utf-8")
    headers = request.headers
    if not any(name.lower() == "user-agent" for name, _ in headers):
        headers = [*headers, ("User-Agent", client.options["user_agent"])]
    data = _form(request.body) if isinstance(request.body, dict) else request.body
    skip = () if isinstance(request.body, dict) else ("Content-Type",)
    what = request.asks
    try:
        async with _session(client.outside).request(
            request.method,
            request.url,
            headers=headers,
            skip_auto_headers=skip,
            data=data,
            ssl=not client.options["accept_invalid_certs"],
            timeout=aiohttp.ClientTimeout(total=request.timeout),
        ) as response:
            return await _received(response)
    except TimeoutError:
        raise ValueError(f"{what}: no response within {request.timeout:g} seconds") from None
    except aiohttp.InvalidURL:
        raise ValueError(f"{what}: the URL is not valid") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ValueError(f"{what}: {_cause(error)}") from None


def _session(outside: Outside) -> aiohttp.ClientSession:
    """The connections of this process's event loop."""
    import aiohttp

    def make() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=MOST_CONNECTIONS, limit_per_host=MOST_TO_ONE, keepalive_timeout=KEPT_IDLE
        )
        jar = aiohttp.DummyCookieJar()  # what one policy's request is told is no other's business
        return aiohttp.ClientSession(connector=connector, cookie_jar=jar)

    return outside.background.kept("http", make, aiohttp.ClientSession.close)


def _form(parameters: Mapping[str, str]) -> aiohttp.FormData:
    from aiohttp import BytesPayload, FormData

    form = FormData(default_to_multipart=True)
    for name, value in parameters.items():
        octets = binary(value)
        try:
            form.add_field(name, octets.decode())
        except UnicodeDecodeError:
            form.add_field(name, BytesPayload(octets, content_type="application/octet-stream"))
    return form


async def _received(response: aiohttp.ClientResponse) -> HttpResponse:
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MOST_BODY:
            raise ValueError(f"the response has more than {MOST_BODY >> 20} MiB")
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return HttpResponse(response.status, HttpHeaders(headers), b"".join(pieces), response.charset or "utf-8")


def shown(url: str) -> str:
    """A URL as it may be logged."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(no URL)"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _cause(error: Exception) -> str:
    """What went wrong, without the request, which may have secrets in it."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {error.os_error.strerror or 'no address'}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the response cannot be read: {error.message}"
    return str(error) or type(error).__name__


# --- responses --------------------------------------------------------------------------------------------------------


def _reason(response: HttpResponse) -> str | None:
    try:
        return HTTPStatus(response.status).phrase
    except ValueError:
        return None


def _is(hundred: int) -> Callable[[HttpResponse], bool]:
    return lambda response: response.status // 100 == hundred


def _content_length(response: HttpResponse) -> int | None:
    length = response.headers.get("content-length") or ""
    return int(length) if length.isascii() and length.isdigit() else None


def _text(response: HttpResponse) -> str:
    for mark, charset in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if response.body.startswith(mark):
            return response.body.decode(charset, "replace")
    try:
        return response.body.decode(response.charset, "replace")
    except LookupError:
        return response.body.decode("utf-8", "replace")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (build_client, build_url, connect_websocket)
}
OBJECTS: Objects = {
    HttpClient: (
        {**{method.lower(): _request(method) for method in ("GET", "POST", "PUT")}, "close": _close},
        {},
    ),
    HttpRequest: (
        {
            "header": _header,
            "headers": _headers,
            "basic_auth": _basic_auth,
            "bearer_auth": _bearer_auth,
            "body": _body,
            "form_url_encoded": _form_url_encoded,
            "form_multipart_data": _form_multipart_data,
            "timeout": _timeout,
            "aws_sign_v4": _aws_sign_v4,
            "send": send,
        },
        {},
    ),
    HttpResponse: (
        {
            "status_code": lambda response: response.status,
            "status_reason": _reason,
            "status_is_informational": _is(1),
            "status_is_success": _is(2),
            "status_is_redirection": _is(3),
            "status_is_client_error": _is(4),
            "status_is_server_error": _is(5),
            "headers": lambda response: response.headers,
            "content_length": _content_length,
            "text": _text,
            "bytes": lambda response: text_of(response.body),
        },
        {},
    ),
}
WAITING = frozenset({"HttpRequest:send"})
