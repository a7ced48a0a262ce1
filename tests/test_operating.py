"""What can be changed over HTTP, by whom, and that the token is in no log."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from tests.gateway_process import INIT, PATIENCE, TO_UPSTREAMS, Gateway, wait_until
from tests.ports import free_port

TOKEN = "correct-horse-battery-staple"
POLICY = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }") + TO_UPSTREAMS


def started(folder: Path, *options: str) -> Gateway:
    """Its only member is away, and what it should get is spooled."""
    upstream = f"127.0.0.1:{free_port()}"
    options = ("--workers", "1", "--spool", str(folder / "spool"), *options)
    return Gateway(folder, POLICY, *options, upstreams=[upstream])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("operating")
    token_file(folder).write_text(f"{TOKEN}\n")
    options = ("--control", str(folder / "control"), "--operator-token-file", str(token_file(folder)))
    running = started(folder, *options)
    try:
        with running.smtp() as client:
            client.sendmail("a@sender.example", "b@far.example", "Subject: one\n\n")
        wait_until(lambda: running.metric("spool_messages") == 1, "a message in the spool")
        yield running
    finally:
        running.kill()


def token_file(folder: Path) -> Path:
    return folder / "token"


def post(gateway: Gateway, path: str, token: str = "", accept: str = "*/*", **form: str) -> tuple[int, str]:
    headers = {"Accept": accept} | ({"Authorization": f"Bearer {token}"} if token else {})
    address = f"http://{gateway.announced()['http'][0]}{path}"
    try:
        with urlopen(Request(address, urlencode(form).encode(), headers), timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def is_drained(gateway: Gateway) -> bool:
    return gateway.metric(f'upstream_member_state{{member="{gateway.upstreams[0]}",state="drained"}}') == 1


def test_without_a_token_file_nothing_can_be_changed(tmp_path):
    gateway = started(tmp_path)
    try:
        for path in ("/operator/fleet", "/operator/spool"):
            assert post(gateway, path, TOKEN, do="drain", member="x")[0] == 403
        assert "<form" not in gateway.get("/")[1]
    finally:
        gateway.kill()


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper()])
def test_without_the_token_nothing_is_changed(gateway, token):
    assert post(gateway, "/operator/fleet", token, do="drain", member=gateway.upstreams[0])[0] == 403
    assert post(gateway, "/operator/fleet", do="drain", member=gateway.upstreams[0], token=token)[0] == 403
    assert post(gateway, "/operator/spool", token, do="hold", all="yes")[0] == 403
    assert not is_drained(gateway)


def test_a_member_is_drained_and_taken_back(gateway):
    member = gateway.upstreams[0]
    before = [gateway.metric(f'operator_requests_total{{result="{result}"}}') for result in ("done", "failed")]
    status, said = post(gateway, "/operator/fleet", TOKEN, do="drain", member=member)
    assert (status, said) == (
        200,
        f"{member} gets no message more, within a second; what is under way to it ends there; "
        "no other member is in order: mail is deferred until one is, or spooled where there is a spool\n",
    )
    assert is_drained(gateway)
    assert post(gateway, "/operator/fleet", TOKEN, do="undrain", member=member)[0] == 200
    assert not is_drained(gateway)
    status, said = post(gateway, "/operator/fleet", TOKEN, do="drain", member="nobody")
    assert (status, said) == (409, f"there is no member 'nobody'; known are: {member}\n")
    after = [gateway.metric(f'operator_requests_total{{result="{result}"}}') for result in ("done", "failed")]
    assert after == [before[0] + 2, before[1] + 1]


def test_spooled_messages_are_held_and_tried_again(gateway):
    assert post(gateway, "/operator/spool", TOKEN, do="hold", all="yes") == (200, "1 message\n")
    assert post(gateway, "/operator/spool", TOKEN, do="retry", queue="far.example") == (200, "1 message\n")
    assert post(gateway, "/operator/spool", TOKEN, do="retry", id="nobody") == (409, "0 messages\n")


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("fleet", {}),
        ("fleet", {"do": "drain"}),
        ("fleet", {"do": "show", "member": "x"}),
        ("spool", {"do": "drop", "all": "yes"}),
        ("spool", {"do": "hold"}),
    ],
)
def test_what_is_not_meant_is_not_done(gateway, path, form):
    assert post(gateway, f"/operator/{path}", TOKEN, **form)[0] == 400


def test_the_page_has_forms_that_work_without_javascript(gateway):
    assert '<form method="post" action="/operator/fleet">' in gateway.get("/")[1]
    form = {"do": "drain", "member": "<script>alert(1)</script>", "token": TOKEN}
    status, page = post(gateway, "/operator/fleet", accept="text/html,*/*;q=0.8", **form)
    assert status == 409
    assert "&lt;script&gt;" in page
    assert "<script>alert" not in page
    assert TOKEN not in page


def test_a_new_token_counts_at_once_and_none_is_in_a_log(gateway):
    file, wrong = token_file(gateway.folder), "a-wrong-token-that-is-long"
    assert post(gateway, "/operator/spool", wrong, do="hold", all="yes")[0] == 403
    try:
        for unusable in ("", "short", None):
            file.unlink() if unusable is None else file.write_text(unusable)
            assert post(gateway, "/operator/spool", TOKEN, do="hold", all="yes")[0] == 403
            assert post(gateway, "/operator/spool", unusable or "", do="hold", all="yes")[0] == 403
        file.write_text(f"{TOKEN}-2")
        assert post(gateway, "/operator/spool", TOKEN, do="retry", all="yes")[0] == 403
        assert post(gateway, "/operator/spool", f"{TOKEN}-2", do="retry", all="yes")[0] == 200
    finally:
        file.write_text(TOKEN)
    log = gateway.log_file.read_text()
    assert "has not the operator token" in log
    assert "operator at 127.0.0.1: retry what the spool has: 1 message" in log
    assert TOKEN not in log
    assert wrong not in log


def test_guesses_at_the_token_are_all_counted_and_told_once(gateway):
    before = gateway.metric('operator_requests_total{result="refused"}')
    for number in range(20):
        assert post(gateway, "/operator/fleet", f"guess-{number}-of-many-guesses", do="drain", member="x")[0] == 403
    assert gateway.metric('operator_requests_total{result="refused"}') == before + 20
    assert gateway.log_file.read_text().count("has not the operator token") <= 2


def test_the_option_needs_a_control_socket(tmp_path):
    gateway = started(tmp_path, "--operator-token-file", str(token_file(tmp_path)))
    with suppress(smtplib.SMTPException):
        assert gateway.process.wait(PATIENCE) == 78
    assert "--operator-token-file needs --control" in gateway.log_file.read_text()
