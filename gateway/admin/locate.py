"""Where a running gateway answers HTTP: found by its policy's HTTP listener, or by a URL; and asking it there.

For commands that ask a running gateway. What they ask, and who may, is theirs and server.py's.
"""

from __future__ import annotations

import argparse
import ipaddress
import time
from collections.abc import Iterable
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import Deployment, Destination, EgressPath, HttpListener, QueueConfig
from gateway.policy.background import Background
from gateway.policy.handlers import Handlers
from gateway.policy.problems import PolicyProblems
from gateway.policy.source import PolicySource

PATIENCE = 5.0  # seconds until nobody answers
NAME = "relay-gateway"  # what the admin process says in its Server header
_ANY_FLEET = Deployment(fleet=Destination(QueueConfig(), EgressPath()))  # nobody asks where mail goes
_LONGEST = 1000  # octets of an answer that are shown where it is none of ours


class NoGateway(Exception):
    """No gateway can be asked; the text says why, and what to do, to the operator."""


class _NoRedirects(HTTPRedirectHandler):
    """Our own server sends none."""

    def redirect_request(self, *arguments: object) -> None:
        return None


_opener = build_opener(ProxyHandler({}), _NoRedirects())  # a proxy of the environment's is not meant for this


def add_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Declare `--policy` and `--admin`, of which one is given."""
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("--policy", metavar="FILE", help="the gateway's policy, whose HTTP listener is asked")
    where.add_argument("--admin", metavar="URL", help="the gateway's HTTP listener, as in http://127.0.0.1:8000")


def find(policy: str | None = None, admin: str | None = None) -> str:
    """The base URL of a running gateway, such as "http://127.0.0.1:8000". Raises NoGateway.

    policy: the path of its policy, read as `check` reads it. admin: the URL itself, which goes first; a bare HOST:PORT
    will do.
    """
    if admin is not None:
        base = _as_url(admin)
        trouble = _trouble_with(base)
        if trouble:
            raise NoGateway(trouble)
        return base
    if policy is None:
        raise NoGateway("which gateway? Name its policy with --policy FILE, or its HTTP listener with --admin URL")
    troubles = []
    for base in _urls(policy, _listeners(policy)):
        trouble = _trouble_with(base, must_say_its_name=True)
        if not trouble:
            return base
        troubles.append(trouble)
    raise NoGateway("; ".join(troubles))


def ask(base: str, path: str, body: bytes | None = None, timeout: float | None = PATIENCE) -> HTTPResponse:
    """GET of a path with its query, or POST of a body; the caller closes the response. Raises NoGateway.

    timeout: seconds without any octet; None waits for ever.
    """
    try:
        response: HTTPResponse = _opener.open(Request(base + path, body), timeout=timeout)
    except HTTPError as error:
        with error:
            said = error.read(_LONGEST).decode("utf-8", "replace").strip()
        if said in ("", "404: Not Found"):
            said = f"this gateway knows no {path.partition('?')[0]}: it may be of another version"
        raise NoGateway(f"{base}: {said or error.reason}") from None
    except (OSError, HTTPException) as error:
        raise NoGateway(_silence(base, error)) from None
    return response


def _listeners(policy: str) -> tuple[HttpListener, ...]:
    """The HTTP listeners that a policy declares, good or bad as the rest of it may be."""
    try:
        source = PolicySource.read(policy, _ANY_FLEET)
    except OSError as error:
        raise NoGateway(f"{policy}: {error.strerror or error}") from None
    page = CounterPage(bytearray(metrics.page_size()))
    handlers = Handlers(source, page, time.monotonic, Background())
    problems: PolicyProblems | None = None
    try:
        handlers.load(validating=True)
    except PolicyProblems as found:
        problems = found
    listeners = handlers.api.config().http_listeners
    if listeners:
        return listeners
    if problems is not None:
        first, count = problems.problems[0], len(problems.problems)
        more = f" (and {count - 1} more; see relay-gateway check {policy})" if count > 1 else ""
        raise NoGateway(f"this policy cannot be read: {first}{more}; or name the HTTP listener with --admin URL")
    raise NoGateway(
        f"{policy} has no HTTP listener, so nobody can ask a gateway that runs it: "
        "call kumo.start_http_listener { listen = '127.0.0.1:8000' } in init, and reload"
    )


def _urls(policy: str, listeners: Iterable[HttpListener]) -> list[str]:
    """Where the listeners can be reached from here, those first that answer who is here."""
    addresses = [listener.listen for listener in sorted(listeners, key=_is_for_others)]
    urls = [url for url in map(_url_of, addresses) if url]
    if not urls:
        raise NoGateway(
            f"{policy} does not say at which port its HTTP listener ({', '.join(addresses)}) is: "
            "name it with --admin URL; the diagnostics and `run --announce` tell it"
        )
    return urls


def _is_for_others(listener: HttpListener) -> bool:
    """Whether it does not trust this machine, which asks with the address that it asks."""
    asked = urlsplit(_url_of(listener.listen)).hostname
    if asked is None:
        return True
    asked = asked.partition("%")[0]
    ip = ipaddress.ip_address(asked)
    source = "127.0.0.1" if ip.is_loopback and ip.version == 4 else asked
    return not listener.trusted_hosts.contains_text(source)


def _url_of(address: str) -> str:
    """The URL of an "IP:PORT"; "" where only the running gateway knows the port."""
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return ""  # a socket that is passed by its name
    if not port.isdigit() or not int(port):
        return ""
    if ip.is_unspecified:
        ip = ipaddress.ip_address("::1" if ip.version == 6 else "127.0.0.1")
        return f"http://[{ip}]:{port}" if ip.version == 6 else f"http://{ip}:{port}"
    return f"http://{host}:{port}"


def _as_url(admin: str) -> str:
    text = admin if "://" in admin else f"http://{admin}"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise NoGateway(f"{admin} is not the URL of an HTTP listener, which looks like http://127.0.0.1:8000")
    return text.rstrip("/")


def _trouble_with(base: str, *, must_say_its_name: bool = False) -> str | None:
    """Why a URL is not a gateway's; None where it is. must_say_its_name: no proxy stands before it that may hide it."""
    try:
        with _opener.open(f"{base}/healthz", timeout=PATIENCE) as response:
            headers = response.headers
    except HTTPError as error:
        with error:
            if error.code != 503:  # what it says where it is not well
                return f"{base}: there is a server, but no relay-gateway ({error.code} {error.reason} for /healthz)"
            headers = error.headers
    except (OSError, HTTPException) as error:
        return _silence(base, error)
    if must_say_its_name and headers.get("Server") != NAME:
        return f"{base}: there is a server, but no relay-gateway ({headers.get('Server') or 'it does not say what'})"
    return None


def _silence(base: str, error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"{base}: no answer within {PATIENCE:g} s"
    if isinstance(reason, ConnectionRefusedError):
        return f"{base}: nothing listens there; is the gateway running?"
    said = " ".join(str(getattr(reason, "strerror", None) or reason).split())
    return f"{base}: no answer ({said or type(reason).__name__})"
