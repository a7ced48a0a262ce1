"""Options of the kumo functions: what is accepted, what is refused in which words, and what is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Disposition, EgressPath, Host, KeySource, Maildir, SmtpFleet, UpstreamTls
from gateway.policy.options import BadOptions, as_json, duration, humantime
from gateway.policy.problems import PolicyError
from gateway.policy.schemas import SCHEMAS
from gateway.policy.source import PolicySource
from tests.policy_tools import ask, domain_policy, examine, load

BAD_POLICIES = sorted((Path(__file__).parent / "bad_policies").glob("*.lua"))


@pytest.mark.parametrize("path", BAD_POLICIES, ids=lambda path: path.stem)
def test_a_bad_policy_is_refused_with_all_its_problems(path: Path) -> None:
    source = PolicySource("policy.lua", {"policy.lua": path.read_bytes()})
    problems, _, _ = examine(source)
    assert "".join(f"{problem}\n" for problem in problems) == path.with_suffix(".expected").read_text()


# --- KumoMTA's words at run time --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "{ log_arf = 'yes' }",
            "invalid value: string \"yes\", expected a boolean value or one of 'Ignore', 'LogThenDrop' or "
            '\'LogThenRelay\', while processing {"log_arf":"yes"}',
        ),
        (
            "{ relay_from = { '10.0.0.1/24' } }",
            "10.0.0.1/24: 10.0.0.1/24 is not a valid CIDR: host part of address was not zero. Did you mean "
            '10.0.0.0/24?, while processing {"relay_from":["10.0.0.1/24"]}',
        ),
        (
            "{ log_relay = true }",
            "unknown field `log_relay`, expected one of `relay_to`, `relay_from`, `log_oob`, `log_arf`, `ttl`, while "
            'processing {"log_relay":true}',
        ),
        ("{ relay_to = 1 }", 'invalid type: integer `1`, expected a boolean, while processing {"relay_to":1}'),
    ],
)
def test_policies_that_catch_errors_see_kumomtas_words(table: str, message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        ask(domain_policy(f"return kumo.make_listener_domain {table}"))
    assert str(raised.value).endswith(f"deserialize error: {message}")


def test_a_policy_can_match_on_the_words() -> None:
    policy = domain_policy("""
        local ok, problem = pcall(kumo.make_listener_domain, { relay_too = true })
        assert(not ok and tostring(problem):match 'deserialize error: (.*), while processing')
    """)
    assert ask(policy) is None


# --- the listener-domain object ---------------------------------------------------------------------------


def check_object(assertions: str) -> None:
    ask(domain_policy(f"local d = kumo.make_listener_domain {{ relay_from = {{ '10.0.0.0/25', '10.0.0.128/25' }}, "
                      f"log_oob = true, log_arf = 'LogThenDrop', ttl = 90 }}\n{assertions}"))  # fmt: skip


@pytest.mark.parametrize(
    "assertions",
    [
        "assert(type(d) == 'userdata')",
        "assert(d.relay_to == false)",
        "assert(d.relay_from[1] == '10.0.0.0/24' and #d.relay_from == 1)",
        "assert(d.log_oob == true)",
        "assert(d.log_arf == 'LogThenDrop')",
        "assert(d.ttl == '1m 30s')",
        "assert(kumo.make_listener_domain({}).ttl == '1m')",
        "assert(kumo.make_listener_domain({}).log_oob == 'Ignore')",
        "assert(d.nothing == nil)",
        "assert(#d == 0)",
        "assert(d ~= kumo.make_listener_domain {})",
        "assert(not pcall(function() d.relay_to = true end) and d.relay_to == false)",
        "local keys = {}; for key in pairs(d) do keys[#keys + 1] = key end; table.sort(keys)\n"
        "assert(table.concat(keys, ' ') == 'log_arf log_oob relay_from relay_to ttl')",
        "d.relay_from[1] = 'x'; assert(d.relay_from[1] == '10.0.0.0/24')",
    ],
)
def test_a_listener_domain_is_a_read_only_object(assertions: str) -> None:
    check_object(assertions)


def test_an_object_can_be_copied_by_its_fields() -> None:
    body = "return kumo.make_listener_domain(kumo.make_listener_domain { log_oob = true, relay_from = { 'any' } })"
    found: Any = ask(domain_policy(body))
    assert found.log_oob is Disposition.LOG
    assert list(found.relay_from) == ["any"]


@pytest.mark.parametrize(
    ("value", "disposition"),
    [
        ("true", Disposition.LOG),
        ("false", Disposition.IGNORE),
        ("'Ignore'", Disposition.IGNORE),
        ("'LogThenRelay'", Disposition.LOG_THEN_RELAY),
        ("'LogThenDrop'", Disposition.LOG_THEN_DROP),
    ],
)
def test_dispositions(value: str, disposition: Disposition) -> None:
    found: Any = ask(domain_policy(f"return kumo.make_listener_domain {{ log_arf = {value} }}"))
    assert found.log_arf is disposition


# --- what is built ----------------------------------------------------------------------------------------


def queue(table: str) -> Any:
    policy = load(f"kumo.on('get_queue_config', function() return kumo.make_queue_config {table} end)")
    destination = policy.destination("example.com").result()
    return None if destination is None else destination.queue


def egress_path(table: str) -> EgressPath:
    policy = load(f"""
        kumo.on('get_queue_config', function()
          return kumo.make_queue_config {{ protocol = {{ smtp = {{ mx_list = {{ 'mta' }} }} }} }}
        end)
        kumo.on('get_egress_path_config', function() return kumo.make_egress_path {table} end)
    """)
    path: EgressPath = policy.destination("example.com").result().path
    return path


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("'mta1'", Host("mta1", "mta1")),
        ("'mta1:2525'", Host("mta1:2525", "mta1", 2525)),
        ("'[10.0.0.2]'", Host("[10.0.0.2]", "10.0.0.2")),
        ("'[10.0.0.2]:2525'", Host("[10.0.0.2]:2525", "10.0.0.2", 2525)),
        ("'[IPv6:2001:db8::1]'", Host("[IPv6:2001:db8::1]", "2001:db8::1")),
        ("{ name = 'one', addr = '10.0.0.1' }", Host("one", "10.0.0.1")),
        ("{ name = 'one', addr = '10.0.0.1:26' }", Host("one", "10.0.0.1", 26)),
        ("{ name = 'one', addr = '2001:db8::1' }", Host("one", "2001:db8::1")),
        ("{ name = 'one', addr = '[2001:db8::1]:26' }", Host("one", "2001:db8::1", 26)),
    ],
)
def test_members_of_the_fleet(entry: str, host: Host) -> None:
    assert queue(f"{{ protocol = {{ smtp = {{ mx_list = {{ {entry} }} }} }} }}").protocol == SmtpFleet((host,))


def test_a_queue_without_mx_list_has_no_destination() -> None:
    assert queue("{}") is None
    assert queue("{ protocol = { smtp = {} } }") is None


def test_a_maildir_may_have_modes() -> None:
    found = queue("{ protocol = { maildir_path = '/m', dir_mode = tonumber('750', 8) } }").protocol
    assert found == Maildir("/m", dir_mode=0o750)


@pytest.mark.parametrize(("value", "limit"), [("32", 32), ("'1,000'", 1000), ("'local:20'", 20), ("1e3", 1000)])
def test_connection_limits(value: str, limit: int) -> None:
    assert egress_path(f"{{ connection_limit = {value} }}").connection_limit == limit


def test_kumomtas_gateway_example_is_understood() -> None:
    found = egress_path("{ enable_tls = 'OpportunisticInsecure', connection_limit = 64, enable_dane = false }")
    assert found == EgressPath(enable_tls=UpstreamTls.OPPORTUNISTIC_INSECURE, connection_limit=64)


def test_options_without_effect_are_accepted() -> None:
    [listener] = load("""
        kumo.start_esmtp_listener {
          data_buffer_size = 4096, deferred_spool = true,
          tls_certificate = '/cert.pem', tls_private_key = { key_data = 'PEM' },
        }
    """).config.listeners
    assert listener.overrides == {
        "tls_certificate": KeySource(path="/cert.pem"),
        "tls_private_key": KeySource(key_data="PEM"),
    }


def test_every_declaration_arrives_in_the_configuration() -> None:
    config = load("""
        kumo.start_esmtp_listener {}
        kumo.start_http_listener { listen = '127.0.0.1:0', trusted_hosts = { '10/8' }, allowed_hosts = { '*.A.b', '*' }}
        kumo.configure_local_logs { log_dir = '/x', headers = { 'Subject' }, per_record = { Any = { enable = false } } }
        kumo.define_spool { name = 'data', path = '/spool', kind = 'RocksDB' }
    """).config
    assert config.listeners[0].listen == "127.0.0.1:2025"
    assert config.http_listeners[0].listen == "127.0.0.1:0"
    assert config.http_listeners[0].allowed_hosts == {"*.a.b", "*"}
    assert config.local_logs[0].per_record["Any"].enable is False
    assert config.spools[0].path == "/spool"


# --- readers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5),
        (0.5, 0.5),
        ("5 minutes", 300),
        ("10s", 10),
        ("1h 30m", 5400),
        ("1h30m", 5400),
        ("1 min", 60),
        ("250ms", 0.25),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", ["", "5", "m", "5 parsecs", "-5s", -1, True, float("nan"), float("inf"), None, "5.5s"]
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(BadOptions):
        duration(value)


@given(st.integers(0, 10**7))
def test_durations_are_written_as_they_are_read(seconds: int) -> None:
    text = humantime(float(seconds))
    assert duration(text) == seconds


LUA_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.dictionaries(
        st.integers(1, 3) | st.sampled_from([name for schema in SCHEMAS.values() for name in schema.options]), inner
    ),
    max_leaves=10,
)


@given(st.sampled_from(sorted(SCHEMAS)), LUA_VALUES)
def test_no_table_makes_a_schema_fail_otherwise_than_by_bad_options(name: str, table: object) -> None:
    try:
        SCHEMAS[name](table)
    except BadOptions as bad:
        assert bad.troubles
        bad.deserialize_error(table)


@pytest.mark.parametrize("secret", [{"smtp_auth_plain_password": "hush"}, {"tls_private_key": {"key_data": "hush"}}])
def test_no_message_shows_a_secret(secret: dict[str, object]) -> None:
    for name, table in (("make_egress_path", {**secret, "x": 1}), ("make_queue_config", {"protocol": {"x": secret}})):
        with pytest.raises(BadOptions) as raised:
            SCHEMAS[name](table)
        assert "hush" not in str(raised.value) + raised.value.deserialize_error(table)


def test_json_in_messages_is_compact() -> None:
    assert (
        as_json({"list": {1: "a", 2: "b"}, "map": {"k": True}, "empty": {}})
        == '{"list":["a","b"],"map":{"k":true},"empty":{}}'
    )
