"""`relay-gateway check`: what it prints, its exit status, and what it warns of."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.policy import check
from tests.policy_tools import examine, source_of

QUICKSTART = Path(__file__).parent.parent / "deploy" / "quickstart.lua"


def problems_of(text: str, **files: str) -> list[str]:
    problems, _, _ = examine(source_of(text, **files))
    return list(map(str, problems))


def warnings_of(text: str) -> list[str]:
    problems, warnings, _ = examine(source_of(text))
    assert problems == []
    return [str(warning) for warning in warnings]


# --- the command ------------------------------------------------------------------------------------------


def run(path: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    return check.run(parser.parse_args([str(path), *options]))


def test_the_quickstart_policy_is_good_and_without_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(QUICKSTART) == 0
    assert capsys.readouterr().out == (
        f"{QUICKSTART}: good; 127.0.0.1:2525; handlers: get_listener_domain, get_queue_config, init; "
        "mail for <Postmaster> is refused but from relay_hosts: nothing is granted for '' or a listener's hostname\n"
    )


@pytest.mark.parametrize(
    ("domain", "grant", "said"),
    [
        ("''", "relay_to = true", "is taken from anybody"),
        ("'gw.example'", "relay_to = true", "is taken from anybody"),
        ("'gw.example'", "log_oob = true", "is taken where it is a report"),
        ("'gw.example'", "", "is refused but from relay_hosts"),
        ("'another.example'", "relay_to = true", "is refused but from relay_hosts"),
    ],
)
def test_what_becomes_of_mail_for_postmaster_is_told(tmp_path, capsys, domain, grant, said) -> None:
    path = tmp_path / "policy.lua"
    path.write_text(
        "kumo.on('init', function() "
        "kumo.start_esmtp_listener { listen = '127.0.0.1:0', hostname = 'GW.example' } end)\n"
        f"kumo.on('get_listener_domain', function(domain) if domain == {domain} then "
        f"return kumo.make_listener_domain {{ {grant} }} end end)"
    )
    assert run(path) == 0
    assert f"; mail for <Postmaster> {said}" in capsys.readouterr().out


def test_a_bad_policy_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.lua"
    path.write_text("kumo.make_listener_domain { relay_too = true }")
    assert run(path) == 1
    assert capsys.readouterr().out == (
        f"{path}:1: kumo.make_listener_domain: relay_too: unknown option; did you mean 'relay_to'?\n"
        f"{path}: 1 problem; the gateway would not start with it\n"
    )


def test_warnings_make_the_exit_status_1_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "policy.lua"
    path.write_text(listener_domain("relay_to = true"))
    assert (run(path), run(path, "--strict"), run(QUICKSTART, "--strict")) == (0, 1, 0)


def test_json_is_a_list_of_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.lua"
    path.write_text("kumo.make_listener_domain {\nrelay_too = true }\nkumo.on('main', function() end)")
    assert run(path, "--json") == 1
    assert json.loads(capsys.readouterr().out) == [
        {
            "file": str(path),
            "line": 2,
            "severity": "error",
            "message": "kumo.make_listener_domain: relay_too: unknown option; did you mean 'relay_to'?",
        },
        {
            "file": str(path),
            "line": 3,
            "severity": "warning",
            "message": "kumo.on: event 'main' is never triggered; relay-gateway has no script mode",
        },
    ]
    assert run(QUICKSTART, "--json") == 0
    assert capsys.readouterr().out == "[]\n"


def test_what_a_policy_prints_does_not_get_into_the_json(tmp_path: Path) -> None:
    path = tmp_path / "policy.lua"
    path.write_text("print 'hello' io.write 'there' kumo.on('get_listener_domain', function() print 'again' end)")
    command = [sys.executable, "-m", "gateway", "check", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    assert done.stderr == "hello\nthere"  # and nothing of the rehearsal


def test_a_missing_file_is_a_problem_in_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nowhere.lua"
    assert run(path, "--json") == 1
    [problem] = json.loads(capsys.readouterr().out)
    assert problem == {"file": str(path), "line": 0, "severity": "error", "message": "No such file or directory"}


def test_a_policy_that_starts_but_fails_is_said_to_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.lua"
    path.write_text("kumo.on('get_listener_domain', function() no_such() end)")
    assert run(path) == 1
    assert "1 problem; the gateway would start with it nevertheless" in capsys.readouterr().out


def test_a_missing_file_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere.lua") == 1
    assert "No such file" in capsys.readouterr().out


def test_an_unusable_certificate_is_told_with_its_line_beside_all_other_problems() -> None:
    text = """kumo.start_esmtp_listener {
        listen = '127.0.0.1:25',
        tls_certificate = '/nowhere/cert.pem',
        tls_private_key = '/nowhere/key.pem',
    }
    kumo.start_esmtp_listener { listen = '127.0.0.1:26', banner = 'a\\r\\n250 b', hostname = 'mail b\u00fccher' }
    """
    problems, _, _ = examine(source_of(text))
    assert [(problem.line, problem.message.partition(": ")[2].partition(",")[0]) for problem in problems] == [
        (3, "/nowhere/cert.pem: No such file or directory"),
        (4, "/nowhere/key.pem: No such file or directory"),
        (6, "banner: expected a text without control characters"),
        (6, "hostname: expected a host name in ASCII such as 'mx.example.com'"),
    ]


def test_a_certificate_that_the_policy_computes_is_looked_at_too() -> None:
    text = """local name = os.getenv 'NOWHERE' or '/nowhere/cert.pem'
    kumo.start_esmtp_listener { listen = '127.0.0.1:25', tls_certificate = name, tls_private_key = name }
    """
    (problem,), _, _ = examine(source_of(text))
    assert str(problem).startswith("policy.lua: listener 127.0.0.1:25: /nowhere/cert.pem: ")


def certificate(name: str, days: int, password: bytes | None = None) -> tuple[bytes, bytes]:
    """A certificate that is valid until so many days from now, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    ends = datetime.now(UTC) + timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - timedelta(days=90))
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    sealed = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    pem = serialization.Encoding.PEM
    return made.public_bytes(pem), key.private_bytes(pem, form, sealed)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("good", None),
        ("expired", "the certificate has expired at "),
        ("early", "the certificate is not valid before "),
        ("encrypted", "the key is encrypted"),
        ("mismatched", "the key is of another certificate"),
        ("in the wrong order", "the key is of another certificate in that file: the listener's own comes first"),
        ("unreadable", "No such file"),
        ("garbage", "cert: no certificate in PEM"),
    ],
)
def test_certificates_that_no_client_would_take_are_problems(tmp_path: Path, case: str, said: str | None) -> None:
    days = {"expired": -1, "early": 100}.get(case, 30)
    pem, key = certificate("gw.example", days, b"secret" if case == "encrypted" else None)
    other = certificate("other.example", 30)[1]
    if case == "in the wrong order":
        pem = certificate("other.example", 30)[0] + pem
    (tmp_path / "cert").write_bytes(b"nothing" if case == "garbage" else pem)
    if case != "unreadable":
        (tmp_path / "key").write_bytes(other if case == "mismatched" else key)
    keys = f"tls_certificate = '{tmp_path}/cert',\ntls_private_key = '{tmp_path}/key'"
    found, _, summary = examine(source_of(f"kumo.start_esmtp_listener {{ listen = '127.0.0.1:25',\n{keys} }}"))
    problems = list(map(str, found))
    assert summary.endswith("would not start with it") is (case not in ("good", "expired", "early"))
    line = 3 if case == "unreadable" else 2  # of the key
    assert [problem.startswith(f"policy.lua:{line}: ") and said in problem for problem in problems if said] == (
        [True] if said else []
    )
    assert bool(problems) == bool(said)


@pytest.mark.parametrize(
    "options",
    [
        "sni = { ['a.example'] = { tls_certificate = 'CERT',\ntls_private_key = 'KEY' } }",
        "peer = { ['10.0.0.0/8'] = { tls_certificate = 'CERT',\ntls_private_key = 'KEY' } }",
        "tls_required_client_ca = 'KEY'",
        "tls_ciphers = 'NONE:AT-ALL'",
    ],
)
def test_a_certificate_deep_inside_a_listener_is_a_problem_of_its_line(tmp_path: Path, options: str) -> None:
    pem, _ = certificate("gw.example", 30)
    (tmp_path / "cert").write_bytes(pem)
    (tmp_path / "key").write_bytes(certificate("other.example", 30)[1])
    given = options.replace("CERT", f"{tmp_path}/cert").replace("KEY", f"{tmp_path}/key")
    [problem] = problems_of(f"kumo.start_esmtp_listener {{ listen = '127.0.0.1:25',\n{given} }}")
    assert problem.startswith("policy.lua:2: listener 127.0.0.1:25: ")
    assert problem.endswith(
        (
            "the key is of another certificate",
            "no certificates in PEM",
            "NONE:AT-ALL: no cipher that OpenSSL knows is in tls_ciphers",
        )
    )


def test_a_certificate_that_expires_within_21_days_is_warned_of_with_its_line(tmp_path: Path) -> None:
    for name, days in (("soon", 20), ("late", 22)):
        for kind, octets in zip(("cert", "key"), certificate("gw.example", days), strict=True):
            (tmp_path / f"{name}.{kind}").write_bytes(octets)
    keys = "tls_certificate = '{0}/{1}.cert',\ntls_private_key = '{0}/{1}.key'"
    soon, late = keys.format(tmp_path, "soon"), keys.format(tmp_path, "late")
    begin = "kumo.start_esmtp_listener { listen = '127.0.0.1:25', relay_hosts = {},\n"
    assert warnings_of(begin + late + " }") == []
    (warning,) = warnings_of(begin + soon + " }")
    assert warning.startswith("policy.lua:2: ")
    assert f"{tmp_path}/soon.cert: the certificate expires in 19 days, at " in warning
    (warning,) = warnings_of(begin + f"sni = {{ ['a.example'] = {{\n{soon} }} }},\n{late} }}")
    assert warning.startswith("policy.lua:3: ")


def test_a_log_directory_that_cannot_be_made_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = f"""kumo.configure_local_logs {{
        log_dir = '{tmp_path}/new/logs',
        per_record = {{
            Bounce = {{ log_dir = '{tmp_path}/file/bounces' }},
        }},
    }}
    """
    (problem,), _, _ = examine(source_of(text))
    where = f"log_dir {tmp_path}/file/bounces"
    assert str(problem) == f"policy.lua:4: {where} cannot be written to: {tmp_path}/file is no directory"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("esmtp 127.0.0.1:25", "esmtp 127.0.0.1:25", True),
        ("esmtp 0:25", "esmtp 0.0.0.0:25", True),
        ("esmtp 127.0.0.1:25", "http 127.0.0.1:25", True),
        ("esmtp 0.0.0.0:25", "http 127.0.0.1:25", True),
        ("http 0.0.0.0:8000", "http 127.0.0.1:8000", True),
        ("esmtp fd:smtp", "esmtp fd:smtp", True),
        ("esmtp 127.0.0.1:0", "esmtp 127.0.0.1:0", False),
        ("esmtp 0.0.0.0:25", "esmtp 127.0.0.1:25", True),
        ("esmtp 127.0.0.1:25", "esmtp 0:25", True),
        ("esmtp [::]:25", "esmtp [::1]:25", True),
        ("esmtp [::]:25", "esmtp 0.0.0.0:25", False),
        ("http 127.0.0.1:25", "http [::]:25", False),
        ("esmtp [::]:25", "http 127.0.0.1:25", True),
        ("esmtp [::ffff:127.0.0.1]:25", "esmtp 127.0.0.1:25", True),
        ("esmtp [::ffff:127.0.0.1]:25", "http 127.0.0.1:26", False),
        ("esmtp 0.0.0.0:25", "esmtp [::1]:25", False),
        ("esmtp fd:a", "http fd:b", False),
        ("esmtp 127.0.0.1:25", "esmtp 127.0.0.2:25", False),
    ],
)
def test_listeners_with_one_address_are_a_problem(one: str, other: str, collide: bool) -> None:
    calls = [f"kumo.start_{kind}_listener {{ listen = '{listen}' }}" for kind, listen in map(str.split, (one, other))]
    problems = problems_of("\n".join(calls))
    expected = f"policy.lua:2: kumo.start_{other.split(maxsplit=1)[0]}_listener: listen: "
    assert [problem.startswith(expected) for problem in problems] == [True] * collide
    assert all(problem.endswith("is taken by the listener of policy.lua:1") for problem in problems)


def test_required_files_are_looked_at_too() -> None:
    source = source_of(
        "dofile 'more.lua'", more="kumo.on('get_listener_domain', function()\nkumo.make_egress_path(5) end)"
    )
    problems, _, _ = examine(source)
    assert [str(problem) for problem in problems] == [
        "more.lua:2: kumo.make_egress_path: expected a table, found the number 5"
    ]


# --- warnings ---------------------------------------------------------------------------------------------


def listener_domain(options: str, condition: str = "true") -> str:
    return (
        "kumo.on('get_listener_domain', function(domain, _, conn_meta)\n"
        f"if {condition} then return kumo.make_listener_domain {{ {options} }} end\nend)"
    )


def test_an_open_relay_is_warned_of() -> None:
    [warning] = warnings_of(listener_domain("relay_to = true"))
    assert warning.startswith("policy.lua:1: warning: anybody may relay to any domain")


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "any"])
def test_a_list_of_everybody_is_warned_of_where_everybody_connects(network: str) -> None:
    listener = f"kumo.start_esmtp_listener {{\nlisten = 'PLACE:25', relay_hosts = {{ '10.0.0.1', '{network}' }} }}"
    [warning] = warnings_of(listener.replace("PLACE", "0"))
    message = f"anybody may relay to any domain: relay_hosts has {network}; set it to the networks of those who may"
    assert warning == f"policy.lua:1: warning: {message}"
    assert warnings_of(listener.replace("PLACE", "127.0.0.1")) == []


@pytest.mark.parametrize(
    ("options", "who"),
    [
        ("relay_hosts = { '0.0.0.0/1', '128.0.0.0/1' }", "anybody"),
        ("relay_hosts = { '2000::/3' }", "anybody"),
        ("relay_hosts = { '93.0.0.0/8' }", "the whole of 93.0.0.0/8"),
        ("relay_hosts = {}, peer = { ['93.0.0.0/8'] = { relay_hosts = { 'any' } } }", "the whole of 93.0.0.0/8"),
        ("relay_hosts = {}, via = { ['10.1.0.0/16'] = { relay_hosts = { 'any' } } }", "anybody"),
        ("relay_hosts = {}, peer = { ['10.0.0.0/8'] = { relay_hosts = { 'any' } } }", ""),
        ("relay_hosts = { '10.0.0.0/8', '127.0.0.0/8', 'fc00::/7', '93.184.0.0/16', '2001:db8::/32' }", ""),
    ],
)
def test_next_to_everybody_among_the_relay_hosts_is_warned_of(options: str, who: str) -> None:
    warnings = warnings_of(f"kumo.start_esmtp_listener {{ listen = '0:25', {options} }}")
    prefix = f"policy.lua:1: warning: {who} may relay to any domain"
    assert [one.startswith(prefix) for one in warnings] == [True] * bool(who)


COMPUTED = "kumo.on('smtp_server_get_dynamic_parameters', function() return { %s } end)"


def test_what_a_handler_gives_strangers_is_looked_at_as_what_is_written() -> None:
    listener = "kumo.start_esmtp_listener { listen = '0:25', relay_hosts = {} }\n"
    [warning] = warnings_of(listener + COMPUTED % "relay_hosts = { 'any' }")
    assert warning.startswith(
        "policy.lua:2: warning: anybody may relay to any domain: relay_hosts has any, which smtp_se"
    )
    text = listener + COMPUTED % "tls_certificate = '/no/tls.pem', tls_private_key = '/no/tls.key'"
    (problem,), _, summary = examine(source_of(text))
    assert str(problem) == (
        "policy.lua:2: smtp_server_get_dynamic_parameters: /no/tls.pem: No such file or directory; "
        "so no client can use TLS"
    )
    assert summary.endswith("the gateway would start with it nevertheless")


RELAY_FROM = "'{}': anybody may relay to any domain: relay_from has {}; anybody can write as that domain"


def test_everybody_in_a_relay_from_is_warned_of_wherever_it_stands(tmp_path: Path) -> None:
    toml, listener = tmp_path / "domains.toml", "kumo.start_esmtp_listener { listen = '0:25', relay_hosts = {} } "
    toml.write_text(
        "['a.example']\nrelay_from = ['10.0.0.0/8']\n['b.example']\nrelay_from = ['10.0.0.1', '0.0.0.0/0']\n"
    )
    written = listener_domain("relay_from = { '::1',\n'any' }", "domain == 'a.example'")
    [in_lua] = warnings_of(listener + written)
    assert in_lua.startswith("policy.lua:2: warning: anybody may relay to any domain: relay_from has any; anybody can")
    helper = f"require('policy-extras.listener_domains'):setup {{ '{toml}' }}"
    [in_file] = warnings_of(f"{listener} kumo.on('get_listener_domain', {helper})")
    assert in_file.startswith(f"{toml}:4: warning: {RELAY_FROM.format('b.example', '0.0.0.0/0')}")
    computed = "local all = {} all[1] = '0.0.0.0/0' "
    [asked] = warnings_of(listener + computed + listener_domain("relay_from = all"))
    assert "relay_from has 0.0.0.0/0, which get_listener_domain grants for domains it does not know" in asked
    assert warnings_of(listener.replace("0:25", "127.0.0.1:25") + written) == []


def test_an_open_relay_through_a_proxy_on_this_machine_is_warned_of() -> None:
    for listen in ("0.0.0.0:25", "[::]:25", "fd:smtp"):
        [warning] = warnings_of(
            f"kumo.start_esmtp_listener {{\nlisten = '{listen}', xclient_from = {{ '10.0.0.1' }} }}"
        )
        assert warning == (
            "policy.lua:1: warning: relay_hosts is not set, so 127.0.0.1 and ::1 may relay to any domain: behind a "
            "proxy on this machine, everybody; set relay_hosts to those who may"
        )


@pytest.mark.parametrize(
    ("option", "limit", "where"),
    [
        ("require_proxy_protocol", "proxy_protocol_from", "in a PROXY header"),
        ("allow_xclient", "xclient_from", "with XCLIENT"),
    ],
)
def test_proxies_that_may_be_anybody_are_warned_of(option: str, limit: str, where: str) -> None:
    options = f"listen = '127.0.0.1:25', relay_hosts = {{ '10.0.0.2' }}, {option} = true"
    [warning] = warnings_of(f"kumo.start_esmtp_listener {{ {options} }}")
    assert warning == (
        f"policy.lua:1: warning: whoever connects may claim any address {where}, also one that may relay; "
        f"set {limit} to the proxies"
    )
    assert warnings_of(f"kumo.start_esmtp_listener {{ {options}, {limit} = {{ '10.0.0.1' }} }}") == []


@pytest.mark.parametrize(
    "options",
    [
        "listen = '127.0.0.1:25'",
        "listen = '[::1]:25'",
        "listen = '0:25', proxy_protocol_from = { '127.0.0.0/8' }",
        "listen = '0:25', require_proxy_protocol = true, proxy_protocol_from = { '10.0.0.1' }",
        "listen = '0:25', relay_hosts = { '::1' }",
    ],
)
def test_who_cannot_be_reached_is_told_of_clients_or_says_who_may_relay_is_not_warned(options: str) -> None:
    assert warnings_of(f"kumo.start_esmtp_listener {{ {options} }}") == []


@pytest.mark.parametrize("option", ["log_oob", "log_arf"])
def test_reports_logged_for_any_domain_are_warned_of(option: str) -> None:
    [warning] = warnings_of(listener_domain(f"{option} = 'LogThenDrop'"))
    assert warning.startswith("policy.lua:1: warning: anybody may have reports logged, whatever domain")


@pytest.mark.parametrize(
    "condition", ["domain == 'example.com'", "conn_meta:get_meta 'authz_id'", "domain:match 'com$'"]
)
def test_rules_for_known_domains_or_users_are_not_warned_of(condition: str) -> None:
    assert warnings_of(listener_domain("relay_to = true, log_oob = 'LogThenDrop'", condition)) == []


def test_true_is_explained() -> None:
    [warning] = warnings_of(listener_domain("log_arf = true", "domain == 'example.com'"))
    assert warning == (
        "policy.lua:2: warning: log_arf = true logs a report and then relays it only where relaying is allowed anyway; "
        "'LogThenDrop' never relays a report, 'LogThenRelay' always does"
    )


def test_a_handler_that_fails_for_strangers_is_no_reason_to_warn() -> None:
    assert warnings_of("kumo.on('get_listener_domain', function() kumo.reject(550, 'no') end)") == []


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "kumo.on('http_server_validate_auth_basic', function() end)",
            "event 'http_server_validate_auth_basic' is never triggered; nothing is injected over HTTP",
        ),
        ("kumo.on('main', function() end)", "event 'main' is never triggered"),
        ("kumo.set_diagnostic_log_filter 'kumod=debug'", "kumo.set_diagnostic_log_filter has no effect"),
        ("kumo.make_queue_config { max_age = '1d' }", "the queue has no protocol"),
    ],
)
def test_what_has_no_effect_is_warned_of(text: str, warning: str) -> None:
    [found] = warnings_of(text)
    assert warning in found


def test_events_of_ones_own_are_fine() -> None:
    assert warnings_of("kumo.on('my_filter', function() end)") == []


def test_files_that_a_shipment_could_not_read_are_problems(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("secret")
    nowhere = tmp_path / "nowhere"
    text = (
        "kumo.on('init', function()\n"
        "  kumo.start_esmtp_listener { listen = '127.0.0.1:0' }\n"
        f"  kumo.configure_local_logs {{ log_dir = '{tmp_path}/log' }}\n"
        "  require('gateway').ship { name = 'out', sink = { webhook = {\n"
        "    url = 'https://warehouse.example/records',\n"
        f"    signing_key = '{there}',\n"
        f"    authorization = '{nowhere}',\n"
        "  } } }\n"
        "end)\n"
    )
    [problem] = problems_of(text)
    assert ":7: gateway.ship: shipment 'out' would stay: authorization " in problem
    assert problem.endswith(f"{nowhere} cannot be read: No such file or directory")
    nowhere.write_text("Bearer x")
    assert problems_of(text) == []
