"""require 'sqlite': databases as policies use them, AUTH out of one, and a query that takes too long."""

from __future__ import annotations

import smtplib
import sqlite3
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.outside import sqlite
from gateway.policy.problems import PolicyProblems
from tests.gateway_process import INIT, Gateway, wait_until
from tests.policy_tools import said

FOR_EVER = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def of_people(code: str) -> Any:
    """What a policy that has a database with two people puts into `result`."""
    return said(f"""
        local sqlite = require 'sqlite'
        local db = sqlite.open ':memory:'
        db:execute 'CREATE TABLE people (name, age)'
        db:execute('INSERT INTO people (name, age) values (?, ?)', 'john', 42)
        db:execute('INSERT INTO people (name, age) values (:name, :age)', {{ name = 'fred', age = 32 }})
        {code}
    """)


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("db:execute 'select age from people order by age'", [32, 42]),
        ("db:execute 'select * from people order by age'", [{"name": "fred", "age": 32}, {"name": "john", "age": 42}]),
        ("db:execute('select name from people where name = ?', 'nobody')[1]", None),
        ("db:execute 'delete from people'", 2),
        ("db:execute 'create table more (x)'", 0),
        ("db:execute('select name from people where age = ?1 and ?1 = ?1', { 42 })", ["john"]),
        ("db:execute('select ?, ?', nil, true)[1]['?']", 1),
        ("db:execute('select typeof(?)', 'x')[1]", "text"),
        ("db:execute('select typeof(?)', '\\xff')[1]", "blob"),
        ("db:execute('select typeof(?)', 1)[1]", "integer"),
        ("db:execute('select typeof(?)', 1.5)[1]", "real"),
        ("db:execute('select ?', 'a\\0ü')[1] == 'a\\0ü'", True),
        ("db:execute(\"select x'ff00'\")[1] == '\\xff\\0'", True),
        ("db:execute(\"select cast(x'ff' as text)\")[1] == '\\xff'", True),
        ("db:execute('insert into people values (1, 2) returning age')", [2]),
    ],
)
def test_a_policy_asks_a_database(code: str, result: Any) -> None:
    assert of_people(f"result = {code}") == result


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("sqlite.open '/nonexistent/x.db'", "sqlite.open: /nonexistent/x.db: unable to open database file"),
        ("sqlite.open {}", "sqlite.open: expected a string, got a table"),
        ("db:execute 'select * from nowhere'", "SqliteDatabase:execute: no such table: nowhere"),
        ("db:execute('select ?', print)", "SqliteDatabase:execute: a parameter is an object"),
        ("db:execute('select ?', 1, {})", "SqliteDatabase:execute: a parameter is a table"),
        ("db:execute('select ?')", "Incorrect number of bindings"),
        ("db:execute 'select 1; select 2'", "one statement at a time"),
        ("db:close() db:execute 'select 1'", "Cannot operate on a closed database"),
    ],
)
def test_what_goes_wrong_is_a_lua_error(code: str, problem: str) -> None:
    with pytest.raises(PolicyProblems) as raised:
        of_people(code)
    assert problem in raised.value.problems[0].message


def test_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MOST_ROWS", 1)
    with pytest.raises(PolicyProblems, match="the query gives more than 1 rows"):
        of_people("db:execute 'select * from people'")


# --- at the wire ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("sqlite")
    connection = sqlite3.connect(folder / "users.db")
    connection.execute("CREATE TABLE users (email TEXT, password TEXT)")
    connection.execute("INSERT INTO users VALUES ('user@example.com', 'secret')")
    connection.commit()
    connection.close()
    policy = f"""{INIT}
        local sqlite = require 'sqlite'
        local path = '{folder}/users.db'
        local shared = sqlite.open(path)

        local auth_check = kumo.memoize(function(user, password)
          local db = sqlite.open(path)
          local result = db:execute('select email from users where email = ? and password = ?', user, password)
          return result[1] == user
        end, {{ name = 'sqlite_auth', ttl = '1 minute', capacity = 100 }})

        kumo.on('smtp_server_auth_plain', function(authz, authc, password) return auth_check(authc, password) end)
        kumo.on('smtp_server_mail_from', function(sender)
          if sender.user == 'ever' then sqlite.open(path):execute '{FOR_EVER}' end
          shared:execute 'select count(*) from users'
        end)
        kumo.set_handler_limits {{ wait = '20s' }}
        kumo.on('smtp_server_ehlo', function(name)
          kumo.set_handler_limits {{ wait = name == 'limited' and '100ms' or '20s' }}
        end)
    """
    running = Gateway(folder, policy, "--workers", "1")
    yield running
    assert running.stop() == 0
    running.kill()


def authenticated(gateway: Gateway, password: str) -> int:
    insecure = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    insecure.check_hostname, insecure.verify_mode = False, ssl.CERT_NONE
    with gateway.smtp() as client:
        client.starttls(context=insecure)
        client.ehlo()
        client.user, client.password = "user@example.com", password
        try:
            return client.auth("PLAIN", client.auth_plain)[0]
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code


def test_users_are_authenticated_out_of_a_database(gateway: Gateway) -> None:
    assert [authenticated(gateway, password) for password in ("secret", "wrong", "secret")] == [235, 535, 235]
    assert "secret" not in gateway.diagnostics()


def threads_at_work(gateway: Gateway) -> int:
    """How many threads of the worker compute at this moment."""
    (worker,) = gateway.workers()
    states = [path.read_text().rpartition(") ")[2] for path in Path(f"/proc/{worker}/task").glob("*/stat")]
    return sum(state.startswith("R") for state in states)


def test_a_query_without_end_holds_up_nobody_and_ends_with_its_client(gateway: Gateway) -> None:
    for _ in range(3):
        with gateway.connect() as waiting:
            waiting.sendall(b"EHLO a.example\r\nMAIL FROM:<ever@a.example>\r\n")
            wait_until(lambda: threads_at_work(gateway), "the query runs")
            with gateway.smtp() as other:
                other.ehlo()
                assert other.mail("a@a.example")[0] == 250
        wait_until(lambda: not threads_at_work(gateway), "the query is over")


def test_a_query_that_takes_too_long_is_451(gateway: Gateway) -> None:
    with gateway.smtp() as client:
        client.ehlo("limited")
        assert client.mail("ever@a.example")[0] == 451
        wait_until(lambda: not threads_at_work(gateway), "the query is over")
        assert client.mail("a@a.example")[0] == 250
