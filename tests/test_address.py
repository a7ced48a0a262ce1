"""Mailbox addresses (gateway/smtp/address.py): RFC 5321 §4.1.2 and §4.1.3, RFC 6531, normalisation."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.smtp.address import (
    NULL_SENDER,
    POSTMASTER,
    AddressError,
    EnvelopeAddress,
    normalise_domain,
    parse_address,
    parse_mailbox,
)

VALID = [
    # text, as it goes on the wire, local part without quoting, domain as it is looked up
    ("user@example.com", "user@example.com", "user", "example.com"),
    ("User.Name+Tag@EXAMPLE.Com", "User.Name+Tag@example.com", "User.Name+Tag", "example.com"),
    ("!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~", "example.com"),
    ("a@localhost", "a@localhost", "a", "localhost"),
    ("a@my_host.example", "a@my_host.example", "a", "my_host.example"),
    ("a@1.example", "a@1.example", "a", "1.example"),
    ('"a b"@example.com', '"a b"@example.com', "a b", "example.com"),
    ('"a@b"@example.com', '"a@b"@example.com', "a@b", "example.com"),
    (r'"a\"b\\c"@example.com', r'"a\"b\\c"@example.com', r'a"b\c', "example.com"),
    ('""@example.com', '""@example.com', "", "example.com"),
    ("a@[192.0.2.1]", "a@[192.0.2.1]", "a", "[192.0.2.1]"),
    ("a@[IPv6:2001:DB8:0:0:0:0:0:1]", "a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]"),
    ("a@[ipv6:::1]", "a@[IPv6:::1]", "a", "[IPv6:::1]"),
    ("a@[x-tag:some.thing]", "a@[x-tag:some.thing]", "a", "[x-tag:some.thing]"),
    ("@one.example:a@example.com", "a@example.com", "a", "example.com"),
    ("@one.example,@[192.0.2.1]:a@example.com", "a@example.com", "a", "example.com"),
    ("Postmaster", "Postmaster", "postmaster", ""),
    ("POSTMASTER", "Postmaster", "postmaster", ""),
    ("postmaster@Example.COM", "postmaster@example.com", "postmaster", "example.com"),
    ("jürgen@example.com", "jürgen@example.com", "jürgen", "example.com"),
    ("a@Bücher.example", "a@xn--bcher-kva.example", "a", "xn--bcher-kva.example"),
    ("a@bücher。example", "a@xn--bcher-kva.example", "a", "xn--bcher-kva.example"),
    ("ö" * 40 + "@example.com", "ö" * 40 + "@example.com", "ö" * 40, "example.com"),
    ("v" * 300 + "@example.com", "v" * 300 + "@example.com", "v" * 300, "example.com"),
    (f"a@{'l' * 63}.example", f"a@{'l' * 63}.example", "a", f"{'l' * 63}.example"),
]
INVALID = [
    "", "a", "a@", "@example.com", "@", "a b@example.com", "a@b@example.com", ".a@example.com", "a.@example.com",
    "a..b@example.com", "a@.example", "a@example.", "a@exam..ple", "a@-example", "a@example-", "a@_example",
    "a@exa mple", f"a@{'l' * 64}.example", "a@" + "l." * 127 + "ll", "a@[", "a@[]", "a@[192.0.2.1", "a@[300.0.0.1]",
    "a@[1.2.3]", "a@[IPv6:fish]", "a@[IPv6:192.0.2.1]", "a@[IPv6:fe80::1%eth0]", "a@[IPv6:::1%a b]",
    "a@[ipv6:::1%]]", "a@[x-tag:]", "a@[:x]", 'a"b@example.com', '"a@example.com',
    '"a"b@example.com', '"a\x01"@example.com', "a\x00@example.com", "a@exa\x00mple", "a@example\r\n", "<a@example.com>",
    "a,b@example.com", "a@\u200b.example", "@one.example a@example.com", "a@xn--\udcff",
]  # fmt: skip


@pytest.mark.parametrize(("text", "email", "user", "domain"), VALID)
def test_a_mailbox_is_read_and_its_domain_normalised(text, email, user, domain):
    address = parse_mailbox(text)
    assert (address.email, address.user, address.domain) == (email, user, domain)
    assert str(address) == email


@pytest.mark.parametrize("text", INVALID)
def test_what_is_no_mailbox_is_refused(text):
    with pytest.raises(AddressError):
        parse_mailbox(text)


@pytest.mark.parametrize("text", ["", "<>", "  ", " <> "])
def test_policies_may_write_the_null_reverse_path(text):
    assert parse_address(text) is NULL_SENDER


@pytest.mark.parametrize("text", ["a@example.com", "<a@example.com>", " <a@EXAMPLE.com> "])
def test_policies_may_leave_out_angle_brackets(text):
    assert parse_address(text).email == "a@example.com"


def test_postmaster_needs_no_domain():
    assert parse_address("<postMASTER>") is POSTMASTER


def test_addresses_are_values():
    address = EnvelopeAddress("a@example.com", "example.com")
    assert address == parse_mailbox("a@EXAMPLE.com")
    assert address != EnvelopeAddress("A@example.com", "example.com")
    assert address != "a@example.com"
    assert len({address, parse_mailbox("a@example.com")}) == 1
    assert pickle.loads(pickle.dumps(address)) == address
    assert repr(address) == "<a@example.com>"


ADDRESS_TEXT = st.text(alphabet='aB0.-_@"\\ [:]IPv6éß,。', max_size=24)


@given(st.one_of(ADDRESS_TEXT, ADDRESS_TEXT.map(lambda text: f"a@{text}"), st.text(max_size=12)))
def test_what_is_read_once_is_read_the_same_again(text):
    try:
        address = parse_mailbox(text)
    except AddressError:
        return
    assert parse_address(address.email) == address
    if address.domain:
        assert normalise_domain(address.domain) == address.domain
        assert address.domain.isascii()
    assert not set(address.email) & set("\r\n\0")
