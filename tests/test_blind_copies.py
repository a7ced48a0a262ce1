"""No copy for several recipients tells one of them of another (RFC 5321 §7.2), at the wire."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from email import message_from_bytes
from itertools import count
from pathlib import Path

import orjson
import pytest

from tests.fleets import TO_FLEETS, Fleets, gateway_before
from tests.gateway_process import Gateway

HANDLINGS = ("Together", "BatchByDomain", "BifurcateAlways")
POLICY = (
    """
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.0.0.0/8' },
    trace_headers = { include_meta_names = { 'campaign' } },
    peer = {
      ['127.0.1.1'] = { batch_handling = 'Together' },
      ['127.0.1.2'] = { batch_handling = 'BatchByDomain' },
      ['127.0.1.3'] = { batch_handling = 'BifurcateAlways' },
      ['127.0.1.4'] = { trace_headers = { received_header = false, include_meta_names = { 'campaign' } } },
    },
  }
end)
kumo.on('smtp_server_message_received', function(msg)
  msg:set_meta('campaign', 'c')
  local added = msg:get_first_named_header_value 'X-Add'
  if added then msg:set_recipient { msg:recipient_list()[1], added } end
  local only = msg:get_first_named_header_value 'X-Only'
  if only then msg:set_recipient(only) end
  if msg:get_first_named_header_value 'X-Edit' then msg:append_header('X-Edited', 'yes') end
end)
"""
    + TO_FLEETS
)
A1, A2, B, C = "ann@a.taken1.example", "art@a.taken1.example", "bea@b.taken1.example", "cid@c.taken2.example"
EVERYBODY = (A1, A2, B, C)
_subjects = count(1)


@pytest.fixture(scope="module")
def fleets() -> Iterator[Fleets]:
    running = Fleets()
    yield running
    running.close()


@pytest.fixture(scope="module")
def gateway(fleets: Fleets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_before(fleets, tmp_path_factory.mktemp("blind"), POLICY) as running:
        yield running


class Copy:
    """What somebody got. named: the recipients that its trace names, however they are written there."""

    def __init__(self, recipients: list[str], content: bytes) -> None:
        self.recipients = recipients
        self.message = message_from_bytes(content)
        reference = orjson.loads(b64decode("".join(self.message["X-KumoRef"].split())))
        assert reference.pop("_@_") == "\\_/"
        assert reference.pop("campaign") == "c"
        self.in_reference = reference.pop("recipient", None)
        assert reference == {}
        found = re.search(r"for <(.*?)>", self.message["Received"] or "")
        self.in_received = found[1] if found else None
        self.text = content.decode() + str(self.in_reference)

    @property
    def named(self) -> set[str]:
        return {recipient for recipient in EVERYBODY if recipient.partition("@")[0] + "@" in self.text}


def copies(gateway: Gateway, fleets: Fleets, client: str, recipients: tuple[str, ...], *fields: str) -> list[Copy]:
    """All copies of one message."""
    session = gateway.smtp(client)
    number = next(_subjects)
    subject = f"Subject: number {number}."
    session.sendmail("s@out.example", recipients, "\r\n".join([subject, *fields, "", "hello", ""]))
    session.quit()
    found = [mail for mail in fleets.all_mails() if subject.encode() in mail.content]
    assert sum(len(mail.recipients) for mail in found) >= len(recipients)
    return [Copy(mail.recipients, mail.content) for mail in found]


@pytest.mark.parametrize("handling", HANDLINGS)
@pytest.mark.parametrize("recipients", [(A1,), (A1, A2), (A1, B), (A1, C), (A1, A2, B, C)])
def test_a_copy_names_its_recipient_where_it_is_the_only_one(gateway, fleets, handling, recipients):
    client = f"127.0.1.{HANDLINGS.index(handling) + 1}"
    found = copies(gateway, fleets, client, recipients)
    for copy in found:
        alone = {
            "Together": len(recipients) == 1,
            "BatchByDomain": sum(other.endswith(copy.recipients[0].partition("@")[2]) for other in recipients) == 1,
            "BifurcateAlways": True,
        }[handling]
        if alone:
            assert copy.in_received == copy.in_reference == copy.recipients[0]
            assert copy.named == set(copy.recipients)
        else:
            assert copy.in_received is copy.in_reference is None
            assert copy.named == set()


def test_a_copy_for_one_of_several_destinations_has_the_same_content_and_names_nobody(gateway, fleets):
    one, other = copies(gateway, fleets, "127.0.1.1", (A1, C))
    assert [one.recipients, other.recipients] == [[A1], [C]]
    assert one.named == other.named == set()
    assert one.message["Received"] == other.message["Received"]


@pytest.mark.parametrize("field", ["X-Unused: 1", "X-Edit: 1"])
def test_a_recipient_that_the_policy_adds_is_not_told_of_the_first(gateway, fleets, field):
    (copy,) = copies(gateway, fleets, "127.0.1.1", (A1,), "X-Add: extra@a.taken1.example", field)
    assert copy.recipients == [A1, "extra@a.taken1.example"]
    assert copy.in_received is copy.in_reference is None
    assert copy.named == set()
    assert copy.message["Received"].startswith("from ")
    assert len(copy.message.get_all("Received")) == 1


def test_a_received_field_is_not_made_up_for_an_added_recipient(gateway, fleets):
    (copy,) = copies(gateway, fleets, "127.0.1.4", (A1,), "X-Add: extra@a.taken1.example")
    assert copy.message["Received"] is None


def test_one_recipient_in_the_place_of_several_is_named_in_the_reference(gateway, fleets):
    (copy,) = copies(gateway, fleets, "127.0.1.1", (A1,), f"X-Only: {B}")
    assert copy.recipients == [B]
    assert (copy.in_received, copy.in_reference) == (A1, B)


def test_blind_copies_in_maildirs_name_nobody(gateway: Gateway, fleets: Fleets):
    session = gateway.smtp("127.0.1.1")
    session.sendmail(
        "s@out.example", ["ann@stored1.example", "cid@stored2.example"], "Subject: stored\r\n\r\nhello\r\n"
    )
    files: list[Path] = [*gateway.maildir.glob("stored1/new/*"), *gateway.maildir.glob("stored2/new/*")]
    assert len(files) == 2
    for file in files:
        copy = Copy([], file.read_bytes())
        assert copy.in_received is copy.in_reference is None
        assert "ann@" not in copy.text
        assert "cid@" not in copy.text
