"""Certificates of listeners: read when the policy is, and what is wrong with them said in words."""

from __future__ import annotations

import pickle
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.config import KeySource, Listener, ListenerParams
from gateway.net import tls


@pytest.fixture
def pems(tmp_path: Path) -> tuple[KeySource, KeySource]:
    """A certificate in a file, and its key as text."""
    certificate, key = tls._self_signed("mx.example")
    path = tmp_path / "certificate.pem"
    path.write_bytes(certificate)
    return KeySource(path=str(path)), KeySource(key_data=key.decode())


def test_a_certificate_from_a_file_and_a_key_from_text_make_a_context(pems: tuple[KeySource, KeySource]) -> None:
    certificate, key = pems
    listener = Listener(listen="127.0.0.1:0", overrides={"tls_certificate": certificate, "tls_private_key": key})
    assert tls.problems([listener], tls.KeyFiles()) == []
    params = ListenerParams(hostname="mx.example", tls_certificate=certificate, tls_private_key=key)
    contexts = tls.ServerContexts([listener], tls.KeyFiles(), now=0.0)
    context = contexts.context(params)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert contexts.context(params) is context


def test_without_certificate_a_self_signed_one_is_made_once() -> None:
    contexts = tls.ServerContexts([], tls.KeyFiles(), now=0.0)
    params = ListenerParams(hostname="mx.example")
    assert contexts.context(params) is contexts.context(params)
    assert contexts.context(ListenerParams(hostname="other.example")) is not contexts.context(params)


def test_every_unusable_certificate_is_named_also_in_peer_and_via_blocks(
    tmp_path: Path, pems: tuple[KeySource, KeySource]
) -> None:
    certificate, key = pems
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    missing = KeySource(path=str(tmp_path / "missing.pem"))
    listener = Listener(
        listen="127.0.0.1:25",
        overrides={"tls_certificate": missing, "tls_private_key": key},
        peer={"10.0.0.0/8": {"tls_certificate": KeySource(path=str(garbage)), "tls_private_key": key}},
        via={"192.0.2.1": {"tls_certificate": certificate}},
    )
    problems = tls.problems([listener], tls.KeyFiles())
    assert [listen for listen, _ in problems] == ["127.0.0.1:25"] * 3
    first, second, third = (error for _, error in problems)
    assert "missing.pem" in str(first) and first.may_pass
    assert "garbage.pem" in str(second) and not second.may_pass
    assert "belong together" in str(third) and not third.may_pass


def test_an_encrypted_key_is_an_error_and_no_question(pems: tuple[KeySource, KeySource]) -> None:
    certificate, key = pems
    assert key.key_data is not None
    encrypted = serialization.load_pem_private_key(key.key_data.encode(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    error = tls.unusable(certificate, KeySource(key_data=encrypted.decode()), tls.KeyFiles())
    assert error is not None
    assert "the key is encrypted" in str(error)
    assert not error.may_pass


def test_certificates_are_read_when_the_policy_is_and_not_at_the_first_handshake(
    tmp_path: Path, pems: tuple[KeySource, KeySource]
) -> None:
    certificate, key = pems
    listener = Listener(listen="127.0.0.1:0", overrides={"tls_certificate": certificate, "tls_private_key": key})
    files = tls.KeyFiles()
    contexts = tls.ServerContexts([listener], files, now=0.0)
    (tmp_path / "certificate.pem").unlink()
    params = ListenerParams(hostname="mx.example", tls_certificate=certificate, tls_private_key=key)
    assert contexts.context(params)
    assert tls.ServerContexts([listener], pickle.loads(pickle.dumps(files)), 0.0).context(params)  # a worker's, later


@pytest.mark.parametrize(
    ("cipher", "shown"),
    [
        (("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256), ("TLSv1_3", "TLS13_AES_256_GCM_SHA384")),
        (("ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2", 128), ("TLSv1_2", "ECDHE-RSA-AES128-GCM-SHA256")),
        (None, ("", "")),
    ],
)
def test_names_are_kumomtas(cipher: tuple[str, str, int] | None, shown: tuple[str, str]) -> None:
    assert tls.shown_names(cipher) == shown


def test_contexts_are_bounded_however_many_names_a_policy_has(monkeypatch):
    monkeypatch.setattr(tls, "MOST_CONTEXTS", 2)
    contexts = tls.ServerContexts([], tls.KeyFiles(), now=0.0)
    first, second, third = (contexts.context(ListenerParams(hostname=f"{name}.example")) for name in "abc")
    assert contexts.context(ListenerParams(hostname="c.example")) is third
    assert contexts.context(ListenerParams(hostname="b.example")) is second
    assert contexts.context(ListenerParams(hostname="a.example")) is not first


def test_keys_of_tickets_to_come_are_there_before_workers_are_and_their_certificate_is_the_same(monkeypatch):
    listener = Listener(listen="127.0.0.1:0", overrides={"hostname": "mx.example"})
    contexts = tls.ServerContexts([listener], tls.KeyFiles(), now=5.0)
    params = ListenerParams(hostname="mx.example")
    monkeypatch.setattr(tls, "_self_signed", None)  # from here on nobody can make another
    seen = []
    for day in range(tls.SHARED_AHEAD + 1):
        contexts.renew(5.0 + day * tls.KEYS_LAST)
        monkeypatch.setattr(tls, "_with", None)  # nor another context
        seen.append(contexts.context(params))
        assert contexts.context(params) is seen[-1]
    assert len(set(map(id, seen))) == len(seen)
    monkeypatch.undo()
    contexts.renew(5.0 + (tls.SHARED_AHEAD + 1) * tls.KEYS_LAST)
    assert contexts.context(params) not in seen  # one that this process has alone
