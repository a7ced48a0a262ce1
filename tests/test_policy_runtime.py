"""Handlers: how they are registered, what they may reach, and what becomes of their errors."""

from __future__ import annotations

import itertools
import logging
import pickle
import random
from pathlib import Path

import pytest

from gateway import metrics
from gateway.config import ListenerDomain
from gateway.mail.message import Message
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.engine import Identity, Policy
from gateway.policy.problems import PolicyError, PolicyProblems, Rejected
from gateway.policy.runs import OncePerMinute
from gateway.policy.source import PolicySource
from gateway.smtp.address import NULL_SENDER, POSTMASTER, parse_address
from tests.policy_tools import Clock, ask, domain_policy, load, new_page, source_of

CONN = ConnMeta()


def problems_of(text: str, **files: str) -> list[str]:
    with pytest.raises(PolicyProblems) as raised:
        load(text, **files)
    return [str(problem) for problem in raised.value.problems]


def mail_from(body: str, **options: object) -> Policy:
    return load(f"kumo.on('smtp_server_mail_from', function(sender, conn_meta)\n{body}\nend)", **options)  # type: ignore[arg-type]


def error_of(body: str) -> str:
    with pytest.raises(PolicyError) as raised:
        mail_from(body).mail_from(NULL_SENDER, CONN).result()
    return str(raised.value).removeprefix("smtp_server_mail_from: policy.lua:")


# --- kumo.on ----------------------------------------------------------------------------------------------


def test_a_second_handler_for_a_single_event_names_the_first_ones_place() -> None:
    text = "\nkumo.on('init', function() end)\n\nkumo.on('init', function() end)"
    assert problems_of(text) == ["policy.lua:4: init event already has a handler defined at policy.lua:2"]


def test_events_with_several_handlers_go_on_until_one_returns_something() -> None:
    policy = load("""
        kumo.on('get_queue_config', function(domain) asked = domain end)
        kumo.on('get_queue_config', function(domain)
          return kumo.make_queue_config { protocol = { maildir_path = asked } }
        end)
        kumo.on('get_queue_config', function() error 'not reached' end)
    """)
    assert policy.destination("example.com").result().queue.protocol.path == "example.com"


def test_an_explicit_nil_ends_the_chain_without_a_configuration() -> None:
    policy = load("""
        kumo.on('get_queue_config', function() return nil end)
        kumo.on('get_queue_config', function() error 'not reached' end)
    """)
    assert policy.destination("example.com").result() is None


def test_registering_inside_a_handler_is_an_error() -> None:
    assert error_of("kumo.on('init', function() end)").startswith(
        "2: Attempting to register an event handler via `kumo.on('init', ...)` from within the event handler "
        "'smtp_server_mail_from'. You must move"
    )


def test_events_that_never_run_here_are_refused_at_load() -> None:
    [problem] = problems_of("kumo.on('requeue_message', function() end)")
    assert problem.startswith("policy.lua:1: kumo.on: event 'requeue_message' is not supported yet by relay-gateway")


def test_handles_names_the_events_that_have_handlers() -> None:
    assert load("kumo.on('init', function() end)").handles == {"init"}


def test_an_event_without_handler_changes_nothing() -> None:
    policy = load("")
    policy.connection_accepted(CONN).result()
    policy.rcpt_to(parse_address("a@example.com"), CONN).result()
    assert policy.ehlo("client.example", CONN, ["SIZE"]).result() is None
    assert policy.auth_plain("", "scott", "tiger", CONN).result() is None
    assert ask(policy) is None
    assert policy.destination("example.com").result() is None


# --- loading ----------------------------------------------------------------------------------------------


def test_loading_collects_every_problem_and_goes_on() -> None:
    text = """
        kumo.on('init', function()
          kumo.start_esmtp_listener { listen = 'nowhere' }
          kumo.start_esmtp_listener { lisden = '127.0.0.1:25' }
          kumo.configure_local_logs {}
        end)
        domain = kumo.make_listener_domain { relay_to = 1 }
    """
    assert [problem.split(": ")[0] for problem in problems_of(text)] == [f"policy.lua:{line}" for line in (7, 3, 4, 5)]


def test_a_mistake_inside_pcall_is_the_policys_own_business() -> None:
    policy = load("ok, message = pcall(kumo.make_listener_domain, { relay_to = 1 }); assert(not ok)")
    assert policy.handles == frozenset()


def test_syntax_and_runtime_errors_are_problems_with_their_place() -> None:
    assert problems_of("\nlocal x = = 1")[0].startswith("policy.lua:2: unexpected symbol")
    assert problems_of("\n\nnothing.at_all()") == [
        "policy.lua:3: attempt to index a nil value (global 'nothing')",
    ]
    assert problems_of("kumo.on('init', function()\nerror 'no'\nend)") == ["policy.lua:2: no"]


def test_a_policy_whose_loading_does_not_end_is_a_problem_with_its_place() -> None:
    seconds = itertools.count(step=10.0)
    source = source_of("kumo.on('init', function()\n  while true do end\nend)")
    with pytest.raises(PolicyProblems) as bad:
        Policy.load(source, page=new_page(), clock=lambda: next(seconds))
    assert str(bad.value) == "policy.lua:2: the policy takes more than 30 seconds to load"


def test_handlers_may_take_as_long_as_they_like() -> None:
    policy = domain_policy("for _ = 1, 3000000 do end return kumo.make_listener_domain { relay_to = true }")
    assert ask(policy) == ListenerDomain(relay_to=True)


def test_pre_init_runs_before_init() -> None:
    load("""
        kumo.on('init', function() assert(ready == 2) end)
        kumo.on('pre_init', function() ready = 1 end)
        kumo.on('pre_init', function() ready = ready + 1 end)
    """)


def test_validate_config_runs_only_when_validating() -> None:
    text = "kumo.on('validate_config', function() assert(_VALIDATING_CONFIG) kumo.validation_failed() end)"
    load(text)
    source = PolicySource("policy.lua", {"policy.lua": text.encode()})
    with pytest.raises(PolicyProblems, match="validate_config says that it failed"):
        Policy.load(source, page=new_page(), validating=True)


def test_a_filter_event_needs_a_handler() -> None:
    text = "kumo.configure_local_logs { log_dir = '/var/log/x', filter_event = 'keep' }"
    assert problems_of(text) == ["policy.lua:1: filter_event 'keep' has no handler"]


def test_declarations_after_loading_are_errors() -> None:
    assert error_of("kumo.start_esmtp_listener {}") == "2: kumo.start_esmtp_listener must be called in the init event"


def test_problems_can_be_pickled() -> None:
    with pytest.raises(PolicyProblems) as raised:
        load("error 'no'")
    assert pickle.loads(pickle.dumps(raised.value)).problems == raised.value.problems


# --- files ------------------------------------------------------------------------------------------------


def test_require_finds_files_beside_the_policy_and_the_snapshot_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "policy.lua").write_text("domains = require 'lists.domains'\nassert(domains[1] == 'a')")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "domains.lua").write_text("return { 'a' }")
    source = PolicySource.read(str(tmp_path / "policy.lua"))
    Policy.load(source, page=new_page())
    (tmp_path / "lists" / "domains.lua").write_text("return { 'b' }")
    (tmp_path / "policy.lua").write_text("error 'changed'")
    Policy.load(pickle.loads(pickle.dumps(source)), page=new_page())


def test_a_file_that_was_missing_stays_missing_in_the_snapshot(tmp_path: Path) -> None:
    (tmp_path / "policy.lua").write_text(f"assert(not loadfile '{tmp_path}/more.lua')")
    source = PolicySource.read(str(tmp_path / "policy.lua"))
    Policy.load(source, page=new_page())
    (tmp_path / "more.lua").write_text("")
    Policy.load(source, page=new_page())


def test_dofile_and_loadfile_return_what_the_chunk_returns() -> None:
    load("assert(dofile 'more.lua' == 7); assert(loadfile('more.lua')() == 7)", more="return 7")


def test_a_mistake_in_a_required_file_is_reported_there() -> None:
    found = problems_of("require 'more'", **{"./more": "\nlocal = 1"})
    assert found[0].startswith("./more.lua:2: <name> expected")


def test_a_module_that_is_nowhere_is_an_error_that_lists_where_it_was_sought() -> None:
    assert problems_of("require 'nowhere'") == [
        "policy.lua:1: require 'nowhere': there is no nowhere.lua; "
        "looked for in ., /opt/kumomta/share, /opt/kumomta/etc/policy"
    ]


# --- the border -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "python",
        "debug",
        "os.exit",
        "package.loadlib",
        "package.loaded.python",
        "package.loaded.debug",
        "os.setlocale",
    ],
)
def test_policies_do_not_see(expression: str) -> None:
    load(f"assert({expression} == nil)")


@pytest.mark.parametrize("name", ["__class__", "values", "__dict__", "__init__"])
def test_python_attributes_are_out_of_reach(name: str) -> None:
    mail_from(f"assert(conn_meta.{name} == nil); assert(sender.{name} == nil)").mail_from(NULL_SENDER, CONN).result()


def test_methods_of_methods_are_out_of_reach() -> None:
    assert "attempt to index a function value" in error_of("return conn_meta.get_meta.__globals__")


def test_objects_are_read_only() -> None:
    assert error_of("sender.email = 'x'").endswith("cannot set 'email': the object is read-only")


def test_the_metatable_of_objects_is_hidden() -> None:
    mail_from("assert(getmetatable(conn_meta) == false)").mail_from(NULL_SENDER, CONN).result()


def test_bytecode_is_not_loaded() -> None:
    load("assert(not load(string.dump(function() end), 'x', 'b'))")


def test_load_honours_its_environment() -> None:
    load("assert(load('return x', 'chunk', 't', { x = 5 })() == 5); assert(load('return kumo')() == kumo)")


def test_functions_of_kumo_are_functions() -> None:
    load(
        "for _, name in ipairs { 'on', 'reject', 'make_listener_domain' } do assert(type(kumo[name]) == 'function') end"
    )


def test_kumo_is_a_module_and_a_global_with_a_version() -> None:
    load("assert(require 'kumo' == kumo); assert(kumo.version:find 'relay%-gateway')")


def test_a_submodule_that_is_missing_says_so() -> None:
    assert (
        "kumo.kafka.build_producer is not supported yet by relay-gateway"
        in problems_of("kumo.kafka.build_producer{}")[0]
    )


def test_text_crosses_the_border_unharmed() -> None:
    conn = ConnMeta({"name": "Grüße"})
    mail_from("""
        assert(conn_meta:get_meta 'name' == 'Grüße')
        conn_meta:set_meta('binary', '\\xff')
        conn_meta:set_meta('copy', conn_meta:get_meta 'binary')
        conn_meta:set_meta('text', 'Grüße')
    """).mail_from(NULL_SENDER, conn).result()
    assert conn.values["text"] == "Grüße"
    assert conn.values["copy"] == conn.values["binary"] == "\udcff"


def test_addresses_have_user_domain_and_email() -> None:
    policy = mail_from("conn_meta:set_meta('seen', { sender.user, sender.domain, sender.email, tostring(sender) })")
    for address, expected in (
        (parse_address('"a b"@EXAMPLE.com'), ["a b", "example.com", '"a b"@example.com', '"a b"@example.com']),
        (NULL_SENDER, ["", "", "", ""]),
        (POSTMASTER, ["postmaster", "", "Postmaster", "Postmaster"]),
    ):
        conn = ConnMeta()
        policy.mail_from(address, conn).result()
        assert conn.values["seen"] == expected


def test_metadata_keeps_its_types() -> None:
    conn = ConnMeta({"whole": 1, "fraction": 1.0, "flag": True, "list": ["a"], "map": {"k": 1}, "null": None})
    mail_from("""
        for _, key in ipairs { 'whole', 'fraction', 'flag', 'list', 'map', 'null' } do
          conn_meta:set_meta(key .. '_copy', conn_meta:get_meta(key))
        end
    """).mail_from(NULL_SENDER, conn).result()
    for key in ("whole", "fraction", "flag", "list", "map", "null"):
        assert conn.values[f"{key}_copy"] == conn.values[key]
        assert type(conn.values[f"{key}_copy"]) is type(conn.values[key])


def test_metadata_that_json_cannot_hold_is_an_error() -> None:
    assert "value that JSON can hold, found a function" in error_of("conn_meta:set_meta('f', print)")
    assert "value that JSON can hold" in error_of("local t = {}; t.t = t; conn_meta:set_meta('t', t)")


def test_auth_info_shows_identities() -> None:
    conn = ConnMeta({"authn_id": "a", "authz_id": "z", "received_from": "192.0.2.1:5"})
    mail_from("""
        local info = conn_meta:auth_info()
        assert(info.peer_address == '192.0.2.1')
        assert(info.identities[1].identity == 'z' and info.identities[1].context == 'SmtpAuthPlainAuthorization')
        assert(info.identities[2].identity == 'a' and info.identities[2].context == 'SmtpAuthPlainAuthentication')
        assert(#info.groups == 0)
    """).mail_from(NULL_SENDER, conn).result()


# --- results ----------------------------------------------------------------------------------------------


def test_ehlo_may_replace_the_keywords() -> None:
    policy = load("""
        kumo.on('smtp_server_ehlo', function(domain, conn_meta, extensions)
          if not extensions then return 'ignored for HELO' end
          if domain == 'plain.example' then return { extensions[1] } end
          if domain == 'bad.example' then return { 'SIZE\\r\\n250 X' } end
        end)
    """)
    assert policy.ehlo("plain.example", CONN, ["SIZE", "PIPELINING"]).result() == ("SIZE",)
    assert policy.ehlo("other.example", CONN, ["SIZE"]).result() is None
    assert policy.ehlo("plain.example", CONN, None).result() is None
    with pytest.raises(PolicyError, match="expected a list of strings"):
        policy.ehlo("bad.example", CONN, ["SIZE"]).result()


@pytest.mark.parametrize(
    ("result", "identity"),
    [
        ("true", Identity("scott", "boss")),
        ("false", None),
        ("nil", None),
        ("{ identities = { { identity = 'x' } } }", Identity("x", "x")),
        (
            "{ identities = { { identity = 'z', context = 'SmtpAuthPlainAuthorization' },"
            " { identity = 'n', context = 'SmtpAuthPlainAuthentication' } } }",
            Identity("n", "z"),
        ),
    ],
)
def test_auth_plain_returns_an_identity_or_refuses(result: str, identity: Identity | None) -> None:
    policy = load(f"kumo.on('smtp_server_auth_plain', function() return {result} end)")
    answer = policy.auth_plain("boss", "scott", "tiger", CONN).result()
    assert (answer and answer[:2]) == (identity and identity[:2])


def test_an_empty_authorization_identity_is_the_authenticated_one() -> None:
    policy = load("kumo.on('smtp_server_auth_plain', function(authz) return authz == 'scott' end)")
    assert policy.auth_plain("", "scott", "tiger", CONN).result()[:2] == ("scott", "scott")


@pytest.mark.parametrize("result", ["'yes'", "1", "{}", "{ identities = {} }", "{ identities = { 'x' } }"])
def test_auth_plain_refuses_to_guess(result: str) -> None:
    policy = load(f"kumo.on('smtp_server_auth_plain', function() return {result} end)")
    with pytest.raises(PolicyError):
        policy.auth_plain("", "scott", "tiger", CONN).result()


@pytest.mark.parametrize(
    "result", ["{ relay_to = true }", "false", "true", "'relay'", "1", "kumo.make_queue_config {}", "conn_meta"]
)
def test_get_listener_domain_must_return_its_object_or_nil(result: str) -> None:
    with pytest.raises(PolicyError, match=r"expected nil or the result of kumo\.make_listener_domain"):
        ask(domain_policy(f"return {result}"))


def test_queue_configurations_are_asked_for_again_after_their_refresh_interval() -> None:
    clock = Clock()
    text = """
        count = 0
        kumo.on('get_queue_config', function(domain)
          count = count + 1
          local protocol = { maildir_path = '/m' }
          local name = tostring(count)
          return kumo.make_queue_config { protocol = protocol, provider_name = name, refresh_interval = '2m' }
        end)
    """
    policy = load(text, clock=clock)
    names = ["example.com", "example.com", "later", "example.com", "tenant@example.com"]
    seen = []
    for name in names:
        if name == "later":
            clock.now += 121
        else:
            seen.append(policy.destination(name).result().queue.provider_name)
    assert seen == ["1", "1", "2", "3"]


def test_the_epoch_strategy_never_asks_again() -> None:
    clock = Clock()
    text = """
        count = 0
        kumo.on('get_queue_config', function()
          return kumo.make_queue_config { protocol = { smtp = { mx_list = { 'mta' } } }, refresh_strategy = 'Epoch' }
        end)
        kumo.on('get_egress_path_config', function(routing_domain, source, site)
          count = count + 1
          local name = 'mx' .. tostring(count) .. '.example'
          return kumo.make_egress_path { ehlo_domain = name, refresh_strategy = 'Epoch' }
        end)
    """
    policy = load(text, clock=clock)
    first = policy.destination("example.com").result()
    clock.now += 1e9
    assert policy.destination("example.com").result() is first
    assert first.path.ehlo_domain == "mx1.example"


def test_a_destination_lasts_as_long_as_the_shorter_of_its_configurations() -> None:
    clock = Clock()
    text = """
        queues, paths = 0, 0
        kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
          queues = queues + 1
          local fleet = { mx_list = { domain .. ':' .. tostring(queues) } }
          return kumo.make_queue_config { protocol = { smtp = fleet }, refresh_interval = '4m' }
        end)
        kumo.on('get_egress_path_config', function(routing_domain, source, site)
          paths = paths + 1
          return kumo.make_egress_path { ehlo_domain = routing_domain .. tostring(paths), refresh_interval = '1m' }
        end)
    """
    policy = load(text, clock=clock)
    seen = []
    for _ in range(5):
        destination = policy.destination("campaign:tenant@127.0.0.1!routed.example").result()
        assert policy.destination("campaign:tenant@127.0.0.1!routed.example").result() is destination
        seen.append((destination.queue.protocol.mx_list[0].port, destination.path.ehlo_domain))
        clock.now += 61
    assert seen == [(1, f"routed.example{n}") for n in range(1, 5)] + [(2, "routed.example5")]


def test_a_queue_without_a_protocol_has_no_destination() -> None:
    policy = load("kumo.on('get_queue_config', function() return kumo.make_queue_config {} end)")
    assert policy.destination("example.com").result() is None


# --- verdicts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("kumo.reject(550, '5.7.1 no')", (550, "5.7.1 no", False, False)),
        ("kumo.reject(421, 'later')", (421, "later", True, False)),
        ("kumo.reject(550, '')", (550, "refused", False, False)),
        ("kumo.reject(550, 'a\\nb')", (550, "a\nb", False, False)),
        ("kumo.disconnect(550, 'bye')", (550, "bye", True, False)),
        ("kumo.disconnect(550, 'bye', 'FollowWith421')", (550, "bye", True, True)),
        ("kumo.disconnect(421, 'bye', 'FollowWith421')", (421, "bye", True, False)),
        ("kumo.disconnect(550, 'bye', 'If421')", (550, "bye", False, False)),
        ("local ok, e = pcall(kumo.reject, 550, 'no'); error(e)", (550, "no", False, False)),
    ],
)
def test_verdicts(call: str, expected: tuple[int, str, bool, bool]) -> None:
    with pytest.raises(Rejected) as raised:
        mail_from(call).mail_from(NULL_SENDER, CONN).result()
    verdict = raised.value
    assert (verdict.code, verdict.text, verdict.closes, verdict.follow_with_421) == expected


def test_a_verdict_is_honoured_in_get_listener_domain_and_not_cached() -> None:
    policy = domain_policy("if conn_meta:get_meta 'bad' then kumo.reject(550, 'no') end")
    for _ in range(2):
        with pytest.raises(Rejected):
            ask(policy, bad=True)
    assert ask(policy) is None


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("kumo.reject(250, 'x')", "2: kumo.reject: expected a code from 400 to 599, got 250"),
        ("kumo.reject(399, 'x')", "2: kumo.reject: expected a code from 400 to 599, got 399"),
        ("kumo.reject(600, 'x')", "2: kumo.reject: expected a code from 400 to 599, got 600"),
        ("kumo.reject(550)", "2: kumo.reject: expected a code and a text, got 1 arguments"),
        ("kumo.reject(550, {})", "2: kumo.reject: expected a text, got a table"),
        (
            "kumo.disconnect(550, 'x', 'Later')",
            "2: expected one of 'If421', 'FollowWith421' or 'ForceDisconnect', but got Later",
        ),
    ],
)
def test_bad_verdicts_are_errors(call: str, expected: str) -> None:
    assert error_of(call) == expected


def test_tail_calls_keep_their_place() -> None:
    assert error_of("return kumo.reject(1, 'x')").startswith("2: ")


# --- errors -----------------------------------------------------------------------------------------------


def test_an_error_is_logged_with_its_traceback_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    page = new_page()
    policy = mail_from("local unlucky_1 = nil\nreturn unlucky_1.field", page=page)
    with pytest.raises(PolicyError):
        policy.mail_from(NULL_SENDER, CONN).result()
    [record] = caplog.records
    assert "policy.lua:3: attempt to index a nil value (local 'unlucky_1')" in record.getMessage()
    assert "stack traceback:" in record.getMessage()
    assert "prelude" not in record.getMessage()
    assert page.get(metrics.POLICY_ERRORS.slot("smtp_server_mail_from")) == 1


def test_verdicts_are_counted_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    page = new_page()
    with pytest.raises(Rejected):
        mail_from("kumo.reject(550, 'no')", page=page).mail_from(NULL_SENDER, CONN).result()
    assert page.get(metrics.POLICY_REJECTS.slot("smtp_server_mail_from")) == 1
    assert caplog.records == []


def test_the_state_lives_on_after_an_error() -> None:
    policy = mail_from("count = (count or 0) + 1; if count == 1 then error({}) end")
    with pytest.raises(PolicyError):
        policy.mail_from(NULL_SENDER, CONN).result()
    policy.mail_from(NULL_SENDER, CONN).result()


def test_endless_recursion_is_an_error_like_others() -> None:
    found = error_of("local function f() return 1 + f() end\nf()")
    assert "stack overflow" in found or "memory" in found  # what comes first depends on the size of the frames


def test_the_same_message_is_logged_once_a_minute() -> None:
    limit = OncePerMinute()

    def passes(message: str, seconds: float) -> bool:
        record = logging.LogRecord("x", logging.ERROR, "", 0, message, None, None)
        record.created = seconds
        return limit.filter(record)

    assert passes("a", 0)
    assert not passes("a", 59)
    assert passes("b", 59)
    assert passes("a", 60)


def test_kumo_log_functions_name_their_place(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    load("kumo.log_info('seen', 1, nil, true); kumo.log_debug 'hidden'")
    assert [record.getMessage() for record in caplog.records] == ["policy.lua:1: seen 1 nil true"]


def test_a_failing_log_filter_loses_no_record() -> None:
    policy = load("""
        kumo.on('quiet', function(msg) return msg:get_meta 'keep' end)
        kumo.on('broken', function(msg) error 'no' end)
    """)
    message = Message("0" * 32, NULL_SENDER, [], data=b"")
    assert policy.log_filter("quiet", message).result() is False
    message.meta["keep"] = True
    assert policy.log_filter("quiet", message).result() is True
    assert policy.log_filter("broken", message).failed


@pytest.mark.parametrize("collector", ["", "collectgarbage 'incremental'"])
def test_an_object_that_is_handed_out_again_is_never_another_one(collector: str) -> None:
    policy = load(f"""
        {collector}
        local known = kumo.domain_map.new {{ ['*.example.com'] = true }}
        local lookup = kumo.memoize(function(domain) return {{ relay = known[domain] or #domain % 2 == 0 }} end,
          {{ name = 'lookup', ttl = '1 hour', capacity = 10000 }})
        kumo.on('get_listener_domain', function(domain)
          if lookup(domain).relay then return kumo.make_listener_domain {{ relay_to = true }} end
        end)
        kumo.on('get_queue_config', function(domain)
          return kumo.make_queue_config {{ protocol = {{ smtp = {{ mx_list = {{ '127.0.0.1:2526' }} }} }} }}
        end)
    """)
    conn, words = ConnMeta({}), random.Random(1)
    for number in range(6000):
        domain = f"{words.getrandbits(64):x}.example"
        found = policy.listener_domain(domain, "192.0.2.1:25", conn).result()
        assert (found is not None) == (len(domain) % 2 == 0)
        if number % 8 == 0:
            assert policy.destination(f"@{domain}").result() is not None
