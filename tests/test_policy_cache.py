"""The cache of decisions: a cached answer is the answer that asking again would give."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import metrics
from gateway.config import Disposition
from gateway.policy.conn_meta import ConnMeta
from gateway.policy.decision_cache import MISSING, DecisionCache, RecentlyUsed, frozen
from gateway.policy.engine import Policy
from gateway.policy.problems import PolicyError
from tests.policy_tools import LISTENER, answered_from, ask, domain_policy, load, new_page

# --- which calls are answered from the cache --------------------------------------------------------------


def sources(policy: Policy, *calls: dict[str, object]) -> list[str]:
    """Where the answers to several calls come from."""
    return [answered_from(policy, **meta) for meta in calls]  # type: ignore[arg-type]


def test_the_second_answer_comes_from_the_cache() -> None:
    page = new_page()
    policy = domain_policy("return kumo.make_listener_domain { relay_to = true }", page=page)
    assert sources(policy, {}, {}) == ["lua", "cache"]
    assert page.get(metrics.DECISION_CACHE_HITS.slot()) == 1
    assert page.get(metrics.DECISION_CACHE_MISSES.slot()) == 1
    assert page.get(metrics.DECISION_CACHE_ENTRIES.slot()) == 1


def test_nil_is_cached_too() -> None:
    assert sources(domain_policy("return nil"), {}, {}) == ["lua", "cache"]


def test_domain_and_listener_have_answers_of_their_own() -> None:
    policy = domain_policy(
        "if listener == '192.0.2.9:25' then return kumo.make_listener_domain { relay_to = true } end"
    )
    assert ask(policy) is None
    assert ask(policy, listener="192.0.2.9:25").relay_to  # type: ignore[attr-defined]
    assert sources(policy, {"domain": "other.example"}, {"domain": "other.example"}) == ["lua", "cache"]


def test_metadata_that_was_not_read_makes_no_difference() -> None:
    policy = domain_policy("return nil")
    assert sources(policy, {"a": 1}, {"a": 2}, {}) == ["lua", "cache", "cache"]


def test_metadata_that_was_read_makes_a_difference() -> None:
    policy = domain_policy("conn_meta:get_meta 'authz_id'")
    assert sources(policy, {"authz_id": "a"}, {"authz_id": "b"}, {}, {"authz_id": "a"}) == ["lua"] * 3 + ["cache"]


@pytest.mark.parametrize("others", [[True, 1, 1.0, "1"], [False, 0, 0.0, -0.0, ""], [[1], [True], ["1"], {"1": 1}]])
def test_values_of_different_types_are_different(others: list[object]) -> None:
    policy = domain_policy("conn_meta:get_meta 'key'")
    assert sources(policy, *({"key": value} for value in others)) == ["lua"] * len(others)
    assert sources(policy, *({"key": value} for value in others)) == ["cache"] * len(others)


def test_a_null_reads_like_an_absent_value() -> None:
    assert sources(domain_policy("conn_meta:get_meta 'key'"), {"key": None}, {}) == ["lua", "cache"]


def test_auth_info_counts_as_reading_the_identities() -> None:
    policy = domain_policy("conn_meta:auth_info()")
    assert sources(policy, {"authz_id": "a"}, {"authz_id": "b"}, {"authz_id": "a"}) == ["lua", "lua", "cache"]


@pytest.mark.parametrize(
    "body",
    [
        "conn_meta:set_meta('x_seen', true)",
        "os.time()",
        "os.date()",
        "os.clock()",
        "math.random()",
        "io.open '/nowhere'",
        "loadfile 'nowhere.lua'",
        "pcall(dofile, 'nowhere.lua')",
        "coroutine.wrap(function() os.time() end)()",
    ],
)
def test_handlers_that_write_or_use_unstable_answers_are_not_cached(body: str) -> None:
    assert sources(domain_policy(body), {}, {}) == ["lua", "lua"]


def test_environment_and_pure_functions_are_stable() -> None:
    body = "os.getenv 'HOME'; string.rep('a', 3); table.concat {}; math.max(1, 2); kumo.log_debug 'x'"
    assert sources(domain_policy(body), {}, {}) == ["lua", "cache"]


def test_an_error_is_not_cached() -> None:
    policy = domain_policy("if not fixed then fixed = true; error 'no' end")
    with pytest.raises(PolicyError):
        ask(policy)
    assert sources(policy, {}, {}) == ["lua", "cache"]


def test_another_sessions_conn_meta_kept_in_a_global_is_no_argument() -> None:
    policy = load("""
        kumo.on('smtp_server_mail_from', function(_, conn_meta) kept = conn_meta end)
        kumo.on('get_listener_domain', function() return kept:get_meta 'x' and kumo.make_listener_domain {} end)
    """)
    policy.mail_from(None, ConnMeta({"x": True}))  # type: ignore[arg-type]
    assert sources(policy, {}, {}) == ["lua", "lua"]


# --- two histories that no cache may repeat ---------------------------------------------------------------

MEMBERS = """
if conn_meta:get_meta 'authz_id' then return kumo.make_listener_domain { relay_to = true } end
"""
BY_AUTH_INFO = """
for _, identity in ipairs(conn_meta:auth_info().identities) do
  if identity.context == 'SmtpAuthPlainAuthorization' then return kumo.make_listener_domain { relay_to = true } end
end
"""


@pytest.mark.parametrize("body", [MEMBERS, BY_AUTH_INFO])
@pytest.mark.parametrize("other", [{}, {"authz_id": None}, {"authn_id": "scott"}])
def test_a_login_lets_nobody_else_relay(body: str, other: dict[str, object]) -> None:
    policy = domain_policy(body)
    for _ in range(3):
        assert ask(policy, authz_id="scott", authn_id="scott")
        assert ask(policy, **other) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [MEMBERS, BY_AUTH_INFO])
def test_a_refusal_before_auth_is_forgotten_after_it(body: str) -> None:
    policy = domain_policy(body)
    conn = ConnMeta({"received_from": "192.0.2.7:40000"})
    for _ in range(3):
        assert policy.listener_domain("example.com", LISTENER, conn).result() is None
    conn.values.update(authn_id="scott", authz_id="scott")
    assert policy.listener_domain("example.com", LISTENER, conn).result().relay_to
    conn.values.clear()  # STARTTLS: what was said before counts no more
    assert policy.listener_domain("example.com", LISTENER, conn).result() is None


# --- sampled verification ---------------------------------------------------------------------------------

MOODY = """
count = (count or 0) + 1
if count > 1 then return kumo.make_listener_domain { relay_to = true } end
"""


def test_a_difference_found_by_verification_ends_caching() -> None:
    page = new_page()
    policy = domain_policy(MOODY, page=page, verify_every=3)
    assert sources(policy, {}, {}, {}, {}, {}) == ["lua", "cache", "cache", "cache", "lua"]
    assert page.get(metrics.DECISION_CACHE_MISMATCHES.slot()) == 1
    assert page.get(metrics.DECISION_CACHE_ENTRIES.slot()) == 0


def test_agreement_keeps_the_cache() -> None:
    policy = domain_policy("return kumo.make_listener_domain { relay_from = { '10/8' } }", verify_every=2)
    assert sources(policy, *[{}] * 9) == ["lua"] + ["cache"] * 8


def test_an_error_during_verification_ends_caching_and_is_raised() -> None:
    policy = domain_policy("count = (count or 0) + 1; if count == 2 then error 'no' end", verify_every=1)
    ask(policy)
    with pytest.raises(PolicyError):
        ask(policy)
    assert sources(policy, {}, {}) == ["lua", "lua"]


def test_reading_something_else_under_the_same_circumstances_ends_caching() -> None:
    page = new_page()
    policy = domain_policy("flip = not flip; conn_meta:get_meta(flip and 'a' or 'b')", page=page)
    assert sources(policy, {"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 2, "b": 2}) == ["lua"] * 3
    assert page.get(metrics.DECISION_CACHE_MISMATCHES.slot()) == 1


# --- cached equals uncached, for any handler --------------------------------------------------------------

KEYS = ("a", "b", "c")
VALUES = st.sampled_from([None, True, False, 1, 1.0, 0, "1", "", "x", [1], {"k": "v"}])
METADATA = st.dictionaries(st.sampled_from(KEYS), VALUES)


@st.composite
def bodies(draw: st.DrawFn, depth: int = 3) -> str:
    """A handler's body: a tree of questions about metadata, the domain and the listener."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        options = draw(st.sampled_from(["relay_to = true", "log_oob = true", "log_arf = 'LogThenDrop'", ""]))
        return draw(st.sampled_from(["return nil", f"return kumo.make_listener_domain {{ {options} }}"]))
    key = draw(st.sampled_from(KEYS))
    test = draw(
        st.sampled_from(
            [
                f"conn_meta:get_meta '{key}'",
                f"conn_meta:get_meta '{key}' == '1'",
                f"conn_meta:get_meta '{key}' == 1",
                f"math.type(conn_meta:get_meta '{key}') == 'float'",
                f"type(conn_meta:get_meta '{key}') == 'table'",
                "domain == 'a.example'",
                "listener == '192.0.2.1:25'",
            ]
        )
    )
    yes, no = draw(bodies(depth - 1)), draw(bodies(depth - 1))
    return f"if {test} then {yes} else {no} end"


@settings(max_examples=int(os.environ.get("POLICIES", "200")))
@given(
    body=bodies(),
    calls=st.lists(
        st.tuples(st.sampled_from(["a.example", "b.example"]), st.sampled_from([LISTENER, "[::1]:25"]), METADATA),
        min_size=1,
        max_size=30,
    ),
)
def test_a_cached_result_equals_an_uncached_one(body: str, calls: list[tuple[str, str, dict[str, Any]]]) -> None:
    cached = domain_policy(body)
    uncached = domain_policy(f"os.clock()\n{body}")
    for domain, listener, meta in calls:
        assert ask(cached, domain, listener, **meta) == ask(uncached, domain, listener, **meta)
        assert answered_from(uncached, domain, listener, **meta) == "lua"


# --- the structures ---------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def same(one: object, other: object) -> bool:
    """Equality that tells types apart."""
    return type(one) is type(other) and repr(one) == repr(other)


@given(JSON, JSON)
def test_frozen_values_are_equal_only_for_same_values(one: object, other: object) -> None:
    assert (frozen(one) == frozen(other)) == same(one, other)
    hash(frozen(one))


def test_a_flood_of_domains_stays_within_the_capacity() -> None:
    cache = DecisionCache(100)
    for number in range(1000):
        cache.store((f"{number}.example", LISTENER), [("received_from", str(number))], None)
        assert len(cache) <= 100
    assert cache.evictions >= 900


def test_a_flood_of_values_stays_within_the_capacity() -> None:
    cache = DecisionCache(100)
    for number in range(1000):
        assert cache.store(("example.com", LISTENER), [("received_from", str(number))], None)
        assert len(cache) <= 100


def test_what_is_asked_for_survives_a_flood() -> None:
    cache = DecisionCache(100)
    cache.store(("busy.example", LISTENER), [("a", "x")], Disposition.LOG)
    for number in range(1000):
        cache.store((f"{number}.example", LISTENER), [], None)
        assert cache.lookup(("busy.example", LISTENER), {"a": "x"}).result() is Disposition.LOG


def test_contradictions_are_noticed() -> None:
    cache = DecisionCache(100)
    root = ("example.com", LISTENER)
    assert cache.store(root, [("a", "x")], 1)
    assert cache.store(root, [("a", "x")], 1)
    assert not cache.store(root, [("b", "x")], 1)  # read another key first
    assert not cache.store(root, [], 1)  # read nothing
    assert not cache.store(root, [("a", "x")], 2)  # decided otherwise
    assert not cache.store(root, [("a", "x"), ("b", "y")], 1)  # read more


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12))))
def test_recently_used_never_forgets_within_half_its_capacity(operations: list[tuple[bool, int]]) -> None:
    cache = RecentlyUsed(8)
    order: list[int] = []
    for insert, key in operations:
        found = cache.get(key)
        if found is MISSING:
            assert key not in order[-4:]
            if insert:
                cache.put(key, key)
        else:
            assert found == key
        if insert or found is not MISSING:
            order = [other for other in order if other != key] + [key]
        assert len(cache) <= 8
