"""Every series of /metrics moves: a series that nothing can move says nothing, and hides that something is not counted.

Real gateways are driven through everything that they count, and scraped; what is left must be in COUNTED_ELSEWHERE. The
scenarios look at no reply: what is answered when is the other tests' subject.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from resource import RLIMIT_NOFILE, prlimit
from typing import Any

import pytest

from gateway.metrics import REDELIVERED
from gateway.net import tls
from tests.dialogue import Dialogue, ScriptedUpstream, Values, metrics_page, play_over_sockets
from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, TO_UPSTREAMS, Gateway, wait_until
from tests.upstream import EXTENSIONS, Answer, Do, Upstream, ehlo

DIALOGUES = Path(__file__).parent / "dialogues"
CORPUS = Path(__file__).parent / "corpus" / "reports"
OPEN = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }")

# Faults of our own cannot be ordered from outside. tests/test_arrival.py injects one at the connection,
# tests/test_reception.py at every stage of a session, tests/test_tls_stream.py in a handshake.
STAGES = ("connect", "command", "auth", "mail", "rcpt", "data")
COUNTED_ELSEWHERE = [
    ("connections_refused_total", "internal_error"),
    ("tls_handshake_failures_total", "local"),
    ("rejections_total", "connect/data_too_slow"),  # it takes ten seconds, but not in tests/test_conduct.py
    ("limit_cells_shared_total", ""),  # with a hundred thousand networks; tests/test_allowance.py has a smaller table
    *(("throttle_fallbacks_total", cause) for cause in ("timeout", "error")),  # tests/test_policy_throttles.py
    *(("rejections_total", f"{stage}/internal_error") for stage in STAGES),
    ("tls_resumed_total", ""),  # tests/test_tls_resumption.py
    ("notifications_total", "unwanted"),  # tests/test_dsn.py
    *(("operator_requests_total", result) for result in ("done", "failed", "refused")),  # tests/test_operating.py
    # tests/test_spool_service.py and tests/test_spool_faults.py are about these
    *(("spool_redeliveries_total", result) for result in REDELIVERED),
    *((f"spool_{name}", "") for name in ("messages", "bytes", "kept_total", "failures_total", "damaged_total")),
    *(("spool_oldest_age_seconds", "0"), ("spool_commit_duration_seconds_count", "")),
    *(("messages_total", "spooled"), ("notifications_total", "spooled")),
    *(("log_records_total", kind) for kind in ("Expiration", "AdminBounce")),
]


class Members:
    """Scripted members of a fleet, in an event loop of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._running: list[Upstream] = []

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def add(self, answers: dict[str, Answer | list[Answer]], **options: Any) -> str:
        """The address of another one."""

        async def begin() -> Upstream:
            return await Upstream(answers, **options).__aenter__()

        self._running.append(self.run(begin()))
        return f"127.0.0.1:{self._running[-1].port}"

    def stop(self) -> None:
        for each in self._running:
            self.run(each.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Moved:
    """What has moved so far, and what there is."""

    def __init__(self, folder: Path) -> None:
        self.all: set[tuple[str, str]] = set()
        self.moved: set[tuple[str, str]] = set()
        self.members = Members()
        self._folder, self._numbers = folder, itertools.count()
        self._gateways: list[Gateway] = []

    def start(self, policy: str, *options: str, upstreams: Sequence[str] = (), under: Sequence[str] = ()) -> Gateway:
        folder = self._folder / str(next(self._numbers))
        gateway = Gateway(folder, policy, "--workers", "1", *options, upstreams=upstreams, under=under)
        self._gateways.append(gateway)
        gateway.announced()
        return gateway

    def scrape(self, gateway: Gateway) -> None:
        values: Values = metrics_page(gateway)
        for (name, labels), value in values.items():
            if name.endswith(("_created", "_bucket", "_sum")):
                continue
            family = next(f for f in (name, name.removesuffix("_count")) if f)
            values_of = dict(labels)
            if "member" in values_of:  # which there are is each gateway's own; tests of the fleet look at them
                continue
            values_of = {key: "any" if key in ("listener", "file", "hash") else each for key, each in values_of.items()}
            label = "/".join(values_of[key] for key in sorted(values_of, key=_order))
            series = family.removeprefix("relay_gateway_"), label
            self.all.add(series)
            if value:
                self.moved.add(series)

    def stop(self) -> None:
        for gateway in self._gateways:
            gateway.kill()
        self.members.stop()


def _order(label: str) -> int:
    """As the families declare them."""
    order = ["outcome", "source", "verb", "stage", "kind", "action", "result", "reply", "reason"]
    return order.index(label) if label in order else 0


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Moved]:
    running = Moved(tmp_path)
    yield running
    running.stop()


def session(gateway: Gateway, *lines: str) -> None:
    """A client that says line by line whatever the answers are; "TLS" is the handshake."""
    with contextlib.suppress(OSError), gateway.connect() as sock:
        _talk(sock, lines).close()


def _talk(client: socket.socket, lines: Sequence[str]) -> socket.socket:
    """Returns the socket that goes on."""
    _read_reply(client)
    for line in lines:
        if line == "TLS":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            client = context.wrap_socket(client)
            continue
        client.sendall(line.encode() + b"\r\n")
        if not _read_reply(client):
            break
    return client


def _read_reply(client: socket.socket) -> bytes:
    reply = b""
    while not re.search(rb"^\d{3} .*\r\n\Z", reply, re.MULTILINE):
        data = client.recv(4096)
        if not data:
            return b""
        reply += data
    return reply


def send(
    gateway: Gateway,
    recipient: str = "b@far.example",
    content: bytes | str = "Subject: x\r\n\r\n",
    sender: str = "a@out.example",
) -> None:
    """A message, whatever becomes of it."""
    with contextlib.suppress(smtplib.SMTPException, OSError), gateway.smtp() as client:
        client.sendmail(sender, recipient, content)


# --- scenarios --------------------------------------------------------------------------------------------------------


def dialogues(moved: Moved) -> None:
    """What tests/dialogues says."""
    running: dict[str, tuple[Gateway, ScriptedUpstream]] = {}
    try:
        for number, path in enumerate(sorted(DIALOGUES.rglob("*.smtp")), 1):
            dialogue = Dialogue.read(path, DIALOGUES)
            if dialogue.policy not in running:
                upstream = ScriptedUpstream()
                policy = (DIALOGUES / dialogue.policy).read_text()
                running[dialogue.policy] = moved.start(policy, upstreams=[upstream.address]), upstream
            play_over_sockets(dialogue, *running[dialogue.policy], number)
        for gateway, _ in running.values():
            moved.scrape(gateway)
    finally:
        for _, upstream in running.values():
            upstream.stop()


SESSIONS = """
kumo.on('smtp_server_auth_plain', function(authz, authc, password) return password == 'right' end)
kumo.on('smtp_server_mail_from', function(sender)
  if sender.user == 'kept' then kept = {} while true do kept[#kept + 1] = {} end end
end)
kumo.on('smtp_server_ehlo', function(name) if name == 'later.example' then kumo.reject(451, 'later') end end)
kumo.on('should_log', function(message)
  if message:recipient().domain == 'filter-reject.example' then kumo.reject(451, 'no') end
  if message:recipient().domain == 'filter-error.example' then error 'no' end
  return true
end)
kumo.on('get_queue_config', function(domain)
  if domain == 'reject.example' then kumo.reject(451, 'later') end
  if domain == 'path-reject.example' or domain == 'path-error.example' then
    return kumo.make_queue_config { protocol = { smtp = { mx_list = { domain } } } }
  end
  return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } }
end)
kumo.on('get_egress_path_config', function(domain)
  if domain:find 'path%-reject' then kumo.reject(451, 'later') end
  error 'no'
end)
"""


def sessions(moved: Moved) -> None:
    """Commands and refusals that no dialogue has, and what a policy may do to them."""
    gateway = moved.start(OPEN.replace("LOGS,", "LOGS, filter_event = 'should_log',") + SESSIONS)
    long = "x" * 995
    session(gateway, "HELO", "HELO later.example", "QUIT now", f"HELP {long}", "VRFY", "QUIT")
    session(gateway, "EHLO x", f"STARTTLS {long}", "STARTTLS now", "MAIL FROM:<a@out.example>", "STARTTLS", "QUIT")
    session(gateway, "EHLO x", f"MAIL FROM:<{long}@out.example>", "MAIL FROM:<a@out.example>", "RCPT what", "QUIT")
    session(
        gateway,
        *("EHLO x", "MAIL FROM:<a@out.example>", f"RCPT TO:<{long}@far.example>", "RCPT TO:<ü@far.example>"),
        *("RCPT TO:<b@far.example>", f"DATA {long}", "QUIT"),
    )
    plain = ("EHLO x", "STARTTLS", "TLS", "EHLO x", "AUTH", "AUTH PLAIN ====", f"AUTH PLAIN {'x' * 13_000}")
    session(gateway, *plain, "AUTH PLAIN", "x" * 13_000, "QUIT")
    for domain in ("reject", "filter-reject", "filter-error", "path-reject", "path-error"):
        send(gateway, f"b@{domain}.example")
    session(gateway, "EHLO x", *["MAIL FROM:<"] * 120, "QUIT")
    session(gateway, "EHLO x", "MAIL FROM:<kept@out.example>", "QUIT")
    moved.scrape(gateway)


EVENTS = """
local sessions = 0
local function fails(how) if how == 'error' then error 'no' elseif how == 'reject' then kumo.reject(451, 'no') end end
kumo.on('smtp_server_get_dynamic_parameters', function()
  sessions = sessions + 1
  fails(({ 'error', 'reject' })[sessions])
end)
kumo.on('smtp_server_data', function(message) fails(message:sender().domain:match '^data%-(%a+)') end)
kumo.on('smtp_server_split_transaction', function(message) fails(message:sender().domain:match '^split%-(%a+)') end)
kumo.on('smtp_server_rewrite_response', function(status, response, command)
  if command and command:find '^NOOP' then kumo.reject(451, 'no') end
end)
"""


def events(moved: Moved) -> None:
    """Handlers that fail or refuse where none of the others' do: before a session, around its content, at its end."""
    gateway = moved.start(OPEN + EVENTS + TO_MAILDIR)
    for _ in range(2):
        session(gateway)
    session(gateway, "EHLO x", "NOOP", "QUIT")
    for event, how in itertools.product(("data", "split"), ("error", "reject")):
        send(gateway, sender=f"a@{event}-{how}.example")
    for epoch, ending in enumerate(("error 'no'", "kumo.reject(451, 'no')", ""), 2):
        gateway.reload(f"{OPEN}{TO_MAILDIR}kumo.on('shutdown_logging', function() {ending} end)")
        gateway.announced(epoch=epoch)
    for counted in ("policy_errors_total", "policy_rejects_total"):
        wait_until(lambda name=counted: gateway.metric(f'{name}{{event="shutdown_logging"}}'), "a worker has ended")
    moved.scrape(gateway)


def handshakes(moved: Moved) -> None:
    """Handshakes that fail in every way that a client can bring about."""
    gateway = moved.start(OPEN.replace("relay_hosts", "client_timeout = 1, relay_hosts"))
    old, weak, trusting = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(3))
    for context in (old, weak, trusting):
        context.check_hostname = False
    for context in (old, weak):
        context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("ALL:@SECLEVEL=0")
    weak.set_ciphers("aNULL:@SECLEVEL=0")
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        trusting.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    alert = b"\x15\x03\x03\x00\x02\x02\x50"  # RFC 8446 §6: fatal, internal_error
    for fails in (old, weak, trusting, b"GET / HTTP/1.1\r\n\r\n", hello.read() + alert, b"", None):
        with gateway.connect() as client:
            _read_reply(client)
            for line in (b"EHLO x\r\n", b"STARTTLS\r\n"):
                client.sendall(line)
                _read_reply(client)
            with contextlib.suppress(OSError):
                if isinstance(fails, ssl.SSLContext):
                    fails.wrap_socket(client).close()
                elif fails is not None:
                    client.sendall(fails)
                    client.shutdown(socket.SHUT_WR)
                client.recv(4096)
    moved.scrape(gateway)


def introductions(moved: Moved) -> None:
    """Connections that are to begin with a PROXY header, and do so or not; a listener with a certificate."""
    certificate, key = (pem.decode() for pem in tls._self_signed("gw.example"))
    pair = f"tls_certificate = {{ key_data = [[{certificate}]] }}, tls_private_key = {{ key_data = [[{key}]] }}"
    moved.scrape(moved.start(OPEN.replace("relay_hosts", f"{pair}, relay_hosts")))
    options = "client_timeout = 1, require_proxy_protocol = true, proxy_protocol_from = { '127.0.0.1' }, relay_hosts"
    gateway = moved.start(OPEN.replace("relay_hosts", options))
    for said in (
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
        b"PROXY x\r\n",
        b"EHLO x\r\n",
        b"",
        None,
    ):
        with gateway.connect() as client, contextlib.suppress(OSError):
            if said is not None:
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)
            client.recv(4096)
    with (
        socket.create_connection(gateway.address, PATIENCE, source_address=("127.0.0.2", 0)) as client,
        contextlib.suppress(OSError),
    ):
        client.recv(4096)
    moved.scrape(gateway)


STRICT = INIT.replace(
    "relay_hosts",
    "limits = { errors = 1, invalid_recipients = 1, idle_commands = %d }, "
    "first_command_timeout = 0.2, command_timeout = 0.2, data_timeout = 0.2, relay_hosts",
)
MAIL, RCPT, PLAIN = "MAIL FROM:<a@b>", "RCPT TO:<c@reports.example>", "AUTH PLAIN AHgAeA=="
TLS_FIRST = ("EHLO x", "STARTTLS", "TLS", "EHLO x")
MANY_ERRORS = [
    ("NOOP", "X", "X"),
    ("EHLO x", "X", "STARTTLS now"),
    ("EHLO x", "X", "AUTH what"),
    ("EHLO x", "X", "MAIL what"),
    ("EHLO x", MAIL, "RCPT TO:<c@d>", MAIL, RCPT),
    ("EHLO x", MAIL, "RCPT TO:<c@d>", "RSET", MAIL),
    ("EHLO x", MAIL, RCPT, "X", "DATA now"),
    (*TLS_FIRST, *[PLAIN] * 6),
    (),
]
MUCH_IDLENESS = [
    ("NOOP",) * 2,
    ("HELO x", "BDAT 0"),
    ("HELO x", *["RCPT TO:<c@d>"] * 21),
    ("EHLO x", "STARTTLS"),
    ("EHLO x", MAIL),
    ("EHLO x", "AUTH PLAIN"),
]


def limits(moved: Moved) -> None:
    """Clients that do too much of everything, or too little."""
    listens = """
        kumo.on('smtp_server_auth_plain', function() return false end)
        kumo.on('get_listener_domain', function(domain)
          if domain == 'reports.example' then return kumo.make_listener_domain { log_oob = true } end
        end)"""
    for most, scripts in ((20, MANY_ERRORS), (1, MUCH_IDLENESS)):
        gateway = moved.start((STRICT % most) + listens)
        with ThreadPoolExecutor(len(scripts) + 2) as pool:
            for done in [
                *(pool.submit(session, gateway, *script) for script in scripts),
                pool.submit(_dawdle, gateway, b"EHLO x\r\nNO"),
                pool.submit(_dawdle, gateway, f"EHLO x\r\n{MAIL}\r\n{RCPT}\r\nDATA\r\nx".encode()),
                pool.submit(_dawdle, gateway, b""),
            ]:
                done.result()
        moved.scrape(gateway)


QUOTAS = """
kumo.on('init', function()
  local auth = { connections = 1 }
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = {}, peer = {
    ['127.0.0.2'] = { limits = { connections = 1 } },
    ['127.0.0.3'] = { limits = { connection_rate = '1/1h' } },
    ['127.0.0.4'] = { limits = { message_rate = '1/1h' } },
    ['127.0.0.5'] = { limits = { recipient_rate = '1/1h' } },
    ['127.0.0.6'] = { limits = { octet_rate = '1/1h' } },
    ['127.0.0.7'] = { limits = { auth_failures = '1/1h' } },
    ['127.0.0.8'] = { limits_per_identity = { connections = 1 } },
    ['127.0.0.9'] = { limits_per_identity = { connection_rate = '1/1h' } },
    ['127.0.0.10'] = { withhold_extensions = { 'CHUNKING' } },
  } }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)
kumo.on('smtp_server_auth_plain', function(authz) return authz ~= 'x' end)
kumo.on('get_listener_domain', function() return kumo.make_listener_domain { relay_to = true } end)
"""
ADMITTED = "AUTH PLAIN AHUAcA=="


def quotas(moved: Moved) -> None:
    """Networks that use up what they may."""
    gateway = moved.start(QUOTAS + TO_MAILDIR)
    script: tuple[str, ...]
    for number, script in enumerate(
        [
            (),
            (),
            ("EHLO x", MAIL, "RSET", MAIL),
            ("EHLO x", MAIL, RCPT, RCPT),
            ("EHLO x", MAIL, RCPT, "DATA", "hello\r\n.", MAIL),
            (*TLS_FIRST, PLAIN, PLAIN),
            (*TLS_FIRST, ADMITTED, MAIL),
            (*TLS_FIRST, ADMITTED, MAIL),
            ("EHLO x", MAIL, RCPT, "BDAT 0 LAST"),
        ],
        2,
    ):
        source = f"127.0.0.{number}"
        with socket.create_connection(gateway.address, PATIENCE, source_address=(source, 0)) as first:
            held = _talk(first, script)
            with socket.create_connection(gateway.address, PATIENCE, source_address=(source, 0)) as second:
                _talk(second, script).close()
            held.close()
    moved.scrape(gateway)


def _dawdle(gateway: Gateway, said: bytes) -> None:
    with gateway.connect() as client:
        client.sendall(said)
        while client.recv(4096):
            pass


def newcomers(moved: Moved) -> None:
    """XCLIENT in every way, other protocols, and who talks too early."""
    asked = """kumo.on('smtp_server_connection_accepted', function(conn)
      if conn:get_meta 'orig_received_from' then %s end
    end)"""
    line = "XCLIENT ADDR=192.0.2.7"
    for does in ("", "error 'no'", "kumo.reject(550, 'no')", "kumo.reject(450, 'no')"):
        trusting = OPEN.replace("relay_hosts", "xclient_from = { '127.0.0.1' }, relay_hosts")
        gateway = moved.start(trusting + asked % does)
        session(gateway, line, "EHLO x", line, "MAIL FROM:<>", line)
        moved.scrape(gateway)
    for limit in ("connection_rate = '1/h'", "connections = 1"):
        trusting = INIT.replace("relay_hosts", f"xclient_from = {{ '127.0.0.1' }}, limits = {{ {limit} }}, relay_hosts")
        gateway = moved.start(trusting)
        with gateway.connect() as client:
            for _ in range(2):
                _read_reply(client)
                client.sendall(line.encode() + b"\r\n")
            _read_reply(client)
            session(gateway, line)
        moved.scrape(gateway)
    gateway = moved.start(OPEN)
    for first in (b"\x16", b"\x03", b"SSH-2.0-x\r\n", b"PROXY x\r\n", b"GET / HTTP/1.1\r\n"):
        with gateway.connect() as client:
            client.sendall(first)
            while client.recv(4096):
                pass
    moved.scrape(gateway)
    gateway = moved.start(INIT.replace("relay_hosts", "early_talker = 'Reject', relay_hosts"))
    with gateway.connect() as client:
        client.sendall(b"EHLO x\r\n")
        while client.recv(4096):
            pass
    moved.scrape(gateway)


CACHING = """
local calls = 0
kumo.on('get_listener_domain', function(domain)
  calls = calls + 1
  return kumo.make_listener_domain { relay_to = calls == 4 }
end)
"""


def decisions(moved: Moved) -> None:
    """A handler that the cache cannot trust, and more domains than the cache holds."""
    for domains in (["changing.example"] * 3000, [f"d{number}.example" for number in range(70_000)]):
        gateway = moved.start(INIT.replace("relay_hosts", "limits = { invalid_recipients = 0 }, relay_hosts") + CACHING)
        with gateway.connect() as client, client.makefile("rb") as replies:
            client.sendall(b"EHLO x\r\nMAIL FROM:<a@out.example>\r\n")
            for start in range(0, len(domains), 500):
                some = domains[start : start + 500]
                client.sendall("".join(f"RCPT TO:<b@{domain}>\r\n" for domain in some).encode())
                for _ in range(500):
                    replies.readline()
        moved.scrape(gateway)


def refused_connections(moved: Moved) -> None:
    """A listener that is full, a policy that fails, a log disk without room, a client that says nothing."""
    policy = INIT.replace("relay_hosts", "max_connections = 1, client_timeout = 0.2, relay_hosts")
    gateway = moved.start(policy)
    with gateway.connect() as idle:
        _read_reply(idle)
        session(gateway)
        moved.scrape(gateway)  # with one open
        _read_reply(idle)
    moved.scrape(gateway)
    gateway = moved.start(INIT + "kumo.on('smtp_server_connection_accepted', function() error 'no' end)")
    session(gateway)
    moved.scrape(gateway)
    gateway = moved.start(INIT.replace("min_free_space = 0", "min_free_space = '100%'"))
    session(gateway)
    moved.scrape(gateway)


def processes(moved: Moved) -> None:
    """Reloads, a worker that dies and takes its time to come back, one that drains, one without descriptors."""
    slow = "local t = os.clock() while os.clock() < t + 0.5 do end\n"
    gateway = moved.start(slow + OPEN + TO_MAILDIR)
    gateway.reload("what?")
    wait_until(lambda: gateway.metric('policy_reloads_total{result="failed"}'), "the failed reload")
    os.kill(gateway.workers()[0], signal.SIGKILL)
    wait_until(lambda: gateway.metric('workers{state="starting"}'), "a worker starts")
    moved.scrape(gateway)
    client = gateway.smtp()
    client.ehlo()
    client.mail("a@out.example")
    gateway.reload(OPEN + TO_MAILDIR)
    gateway.announced(epoch=2)
    moved.scrape(gateway)
    client.close()
    (worker,) = wait_until(lambda: [pid for pid in gateway.workers() if pid], "the worker")
    limits = prlimit(worker, RLIMIT_NOFILE)
    prlimit(worker, RLIMIT_NOFILE, (8, limits[1]))
    with gateway.connect():
        wait_until(lambda: gateway.metric("accept_failures_total"), "it has no descriptor")
        prlimit(worker, RLIMIT_NOFILE, limits)
    moved.scrape(gateway)


def shutting_down(moved: Moved) -> None:
    """Who connects before the ports close is told so."""
    gateway = moved.start(OPEN + TO_MAILDIR)
    with gateway.connect() as busy, busy.makefile("rb") as replies:
        for line in ("EHLO x", "MAIL FROM:<a@out.example>"):
            busy.sendall(line.encode() + b"\r\n")
        while not replies.readline().startswith(b"250 2.1.0"):
            pass
        gateway.reload(OPEN + TO_MAILDIR)
        gateway.announced(epoch=2)
        busy.sendall(b"RSET\r\n")
        while b"421" not in replies.readline():
            pass
    moved.scrape(gateway)


def logs(moved: Moved) -> None:
    """A log directory that turns into a file, and a worker that has to end before it is one again."""
    gateway = moved.start(OPEN + TO_MAILDIR)
    send(gateway)
    wait_until(gateway.records, "a segment")
    shutil.rmtree(gateway.logs)
    gateway.logs.write_text("a file where a directory should be")
    send(gateway)
    wait_until(lambda: gateway.metric("log_failures_total"), "it cannot be written")
    moved.scrape(gateway)
    gateway.reload((OPEN + TO_MAILDIR).replace("LOGS", f"'{gateway.folder}/elsewhere'"))
    gateway.announced(epoch=2)
    wait_until(lambda: gateway.metric("log_lost_records_total"), "given up")
    moved.scrape(gateway)


def resets(moved: Moved) -> None:
    """A client that is gone before anybody accepts it."""
    gateway = moved.start(OPEN + TO_MAILDIR)
    (worker,) = gateway.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        client = gateway.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: gateway.metric("connections_gone_total"), "it was reset")
    moved.scrape(gateway)


def maildirs(moved: Moved) -> None:
    """A Maildir that cannot be written."""
    gateway = moved.start(OPEN + TO_MAILDIR)
    gateway.maildir.write_text("a file where a directory should be")
    send(gateway)
    moved.scrape(gateway)


FLEET = """
kumo.on('get_queue_config', function(domain)
  local number, what = domain:match '^n(%d+)%.(%w*)'
  local member = number and UPSTREAMS[tonumber(number)] or what
  if domain == 'nowhere.example' then member = 'no-such-host.invalid' end
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { member or '127.0.0.1:1' } } } }
end)
"""
PATH = """
kumo.on('get_egress_path_config', function(domain, source, site)
  return kumo.make_egress_path {
    enable_tls = 'OpportunisticInsecure', connection_limit = 1, mail_from_timeout = 0.5,
    prohibited_hosts = { '127.0.0.9' },
  }
end)
"""
CLASSES = {
    "2xx": b"250 yes\r\n",
    "3xx": b"354 hm\r\n",
    "4xx": b"451 later\r\n",
    "5xx": b"550 no\r\n",
    "no": b"what?\r\n",
}
VERBS = ("CONNECT", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", ".", "RSET")


def fleet(moved: Moved) -> None:
    """Members that answer everything to everything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = moved._folder
    for name, pem in zip(("cert", "key"), tls._self_signed("member.example"), strict=True):
        (folder / name).write_bytes(pem)
    context.load_cert_chain(folder / "cert", folder / "key")
    offered = {"EHLO": ehlo(*EXTENSIONS, "STARTTLS")}
    scripts: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for verb in VERBS:
        for answer in CLASSES.values():
            extra = (
                offered
                if verb == "STARTTLS"
                else {"RCPT": b"550 no\r\n", "DATA": b"503 no\r\n"}
                if verb == "RSET"
                else {}
            )
            scripts.append(({**extra, verb: answer}, {}))
    scripts.append(({**offered, "STARTTLS": Do.START_TLS}, {"tls": context}))
    scripts.append(({**offered, "STARTTLS": CLASSES["2xx"]}, {}))  # and then no handshake
    scripts.append(({"MAIL": Do.STALL}, {}))
    scripts.append(({"DATA": Do.DROP}, {}))
    members = [moved.members.add(answers, **options) for answers, options in scripts]
    gateway = moved.start(
        OPEN + FLEET + PATH, upstreams=[*members, "127.0.0.1:1", "127.0.0.9:25", "no-such-host.invalid"]
    )
    for number in range(1, len(members) + 4):
        send(gateway, f"b@n{number}.example")
    moved.scrape(gateway)


MEETING = """
kumo.on('get_egress_path_config', function(domain)
  local asked = domain:match '%.xforward%.'
  return kumo.make_egress_path {
    client_address = asked and 'xforward' or nil,
    smtp_auth_plain_username = not asked and 'gw' or nil,
    smtp_auth_plain_password = not asked and { key_data = 'hush' } or nil,
    allow_smtp_auth_plain_without_tls = true,
  }
end)
"""


def meetings(moved: Moved) -> None:
    """Members that answer everything to who we are, and to who our client is."""
    offered = {"EHLO": ehlo(*EXTENSIONS, "AUTH PLAIN", "XFORWARD ADDR")}
    scripts = [("AUTH", answer) for answer in CLASSES.values()]
    scripts += [("XFORWARD", CLASSES[reply]) for reply in ("2xx", "4xx", "5xx")]
    members = [moved.members.add({**offered, verb: answer}) for verb, answer in scripts]
    gateway = moved.start(OPEN + FLEET + MEETING, upstreams=members)
    for number, (verb, _) in enumerate(scripts, 1):
        send(gateway, f"b@n{number}.{verb.lower()}.example")
    moved.scrape(gateway)


NOTIFYING = """
kumo.on('get_queue_config', function(domain)
  local what = domain == 'record.example' and 'Record' or 'Dsn'
  return kumo.make_queue_config { protocol = { smtp = { mx_list = UPSTREAMS } }, on_partial_refusal = what }
end)
"""


def notifications(moved: Moved) -> None:
    """Recipients that are refused beside others, and senders who are told, or not."""
    refused = {f"RCPT <gone@{domain}>": b"550 no\r\n" for domain in ("out.example", "record.example")}
    gateway = moved.start(OPEN + NOTIFYING, upstreams=[moved.members.add({**refused})])
    for sender, domain in (("a@b.example", "out"), ("gone@out.example", "out"), ("", "out"), ("a@b.example", "record")):
        with gateway.smtp() as client:
            client.sendmail(sender, [f"b@{domain}.example", f"gone@{domain}.example"], "Subject: x\r\n\r\ntext\r\n")
    moved.scrape(gateway)


def waiting(moved: Moved) -> None:
    """Two messages for a member that takes one at a time, and its time."""
    member = moved.members.add({".": Do.STALL})
    gateway = moved.start(OPEN + TO_UPSTREAMS + PATH, upstreams=[member])
    threads = [threading.Thread(target=send, args=(gateway,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: gateway.metric("upstream_waiting"), "one waits")
    moved.scrape(gateway)
    gateway.kill()
    for thread in threads:
        thread.join()


def contents(moved: Moved) -> None:
    """More large messages than there are files for, and files that cannot be as large as a message."""
    limits = ["prlimit", "--nofile=200:200", "--fsize=8000000"]  # more than what the processes share
    gateway = moved.start(OPEN + TO_MAILDIR, "--content-memory", "1M", under=limits)
    clients = [gateway.connect() for _ in range(50)]
    for client in clients:
        client.sendall(b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@out.example>\r\nDATA\r\n")
        client.settimeout(1)  # nobody reads what those who wait send
        with contextlib.suppress(TimeoutError):
            client.sendall(b"some octets\r\n" * 12_000)
    wait_until(lambda: gateway.metric("content_waiting"), "some wait")
    moved.scrape(gateway)
    for client in clients:
        client.close()
    send(gateway, content="x" * 70 + "\r\n" * 4_500_000)
    wait_until(lambda: gateway.metric("content_failures_total"), "lost for want of room")
    moved.scrape(gateway)


REPORTS = """
kumo.on('get_listener_domain', function(domain)
  if domain == 'both.example' then
    return kumo.make_listener_domain { relay_to = true, log_oob = 'LogThenRelay', log_arf = 'LogThenRelay' }
  elseif domain == 'drop.example' then
    return kumo.make_listener_domain { log_oob = 'LogThenDrop', log_arf = 'LogThenDrop' }
  elseif domain == 'oob.example' then
    return kumo.make_listener_domain { relay_to = true, log_oob = 'LogThenRelay' }
  elseif domain == 'arf.example' then
    return kumo.make_listener_domain { relay_to = true, log_arf = 'LogThenRelay' }
  end
end)
"""


STATUS = "message/delivery-status\r\n\r\nReporting-MTA: dns; mx.far.example\r\n"
COMPLAINT = (
    "message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: x\r\nVersion: 1\r\nArrival-Date: never\r\n"
)


def report_of(*parts: str) -> bytes:
    text = "Content-Type: multipart/report; boundary=B\r\n\r\n"
    return (text + "".join(f"--B\r\nContent-Type: {part}\r\n" for part in parts) + "--B--\r\n").encode()


ODD_REPORTS = [report_of(STATUS), report_of(*["text/plain\r\n\r\n"] * 20_000, STATUS), report_of(COMPLAINT)]
JUNK = "Content-Type: message/rfc822\r\n\r\nX-HmXmrOriginalRecipient: <b@out.example>\r\nSubject: x\r\n\r\ntext\r\n"


def reports(moved: Moved) -> None:
    """The tests' corpus of bounces and complaints, and what it lacks."""
    listed = OPEN.replace("relay_hosts", "feedback_senders = { 'out.example' }, relay_hosts")
    gateway = moved.start(listed + REPORTS + TO_MAILDIR)
    files = sorted(path for path in CORPUS.rglob("*.eml") if path.stat().st_size < 200_000)
    with gateway.smtp() as client:
        for number, content in enumerate([*(path.read_bytes() for path in files), *ODD_REPORTS]):
            for domain in ("both", "drop", "oob", "arf") if number < 40 or content in ODD_REPORTS else ("both",):
                with contextlib.suppress(smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused):
                    client.sendmail("", f"b@{domain}.example", content)
    send(gateway, "b@both.example", JUNK)
    moved.scrape(gateway)


SCENARIOS: list[Callable[[Moved], None]] = [
    dialogues, sessions, events, handshakes, introductions, newcomers, decisions, refused_connections, processes,
    shutting_down, logs, resets, maildirs, fleet, meetings, waiting, reports, contents, notifications, limits, quotas,
]  # fmt: skip


@pytest.mark.timeout(600)  # it is the work of a hundred tests
def test_every_series_moves(moved):
    with ThreadPoolExecutor(3) as pool:  # they wait most of the time
        for done in [pool.submit(scenario, moved) for scenario in SCENARIOS]:
            done.result()
    left = moved.all - moved.moved
    assert left == set(COUNTED_ELSEWHERE), " ".join(map(str, sorted(left ^ set(COUNTED_ELSEWHERE))))
