"""kumo.fs.open: files in threads; kumo.crypto: AES, signatures for AWS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.kumo import crypto
from gateway.policy.kumo.values import binary
from gateway.policy.outside import async_files
from gateway.policy.problems import PolicyError, PolicyProblems
from tests.gateway_process import INIT
from tests.policy_tools import ask, domain_policy, said


def test_a_file_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    found = said(f"""
        local file = kumo.fs.open('{path}', 'w')
        file:write 'hello there\\xff'
        local size = file:seek('end')
        file:seek 'set'
        result = {{ size, file:read(5), #file:read(), file:seek(), file:read(), file:seek(-1), file:read() }}
        file:seek('end', -1)
        file:flush()
        file:close()
    """)
    assert found == [12, "hello", 7, 12, "", 11, "\ufffd"]
    assert path.read_bytes() == b"hello there\xff"


@pytest.mark.parametrize(
    ("mode", "content"),
    [("w", b"new"), ("wb", b"new"), ("a", b"oldernew"), ("a+b", b"oldernew"), ("r+", b"newer"), ("w+", b"new")],
)
def test_a_mode_says_what_becomes_of_the_content(tmp_path: Path, mode: str, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"older")
    said(f"local file = kumo.fs.open('{path}', '{mode}') file:write 'new' file:close()")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("kumo.fs.open '/nonexistent/x'", "kumo.fs.open: /nonexistent/x: No such file or directory"),
        ("kumo.fs.open('/dev/null', 'x')", "kumo.fs.open: 'x' is none of r, w, a"),
        ("kumo.fs.open('/dev/null'):write 'x'", "AsyncFile:write: write"),
        ("kumo.fs.open('/dev/null'):seek('here')", "AsyncFile:seek: 'here' is none of set, cur, end"),
        ("kumo.fs.open('/dev/zero'):read(-1)", "AsyncFile:read: expected a size from 0 to"),
        ("kumo.fs.open('/dev/zero'):read()", "AsyncFile:read: the file has more than 64 MiB left"),
        ("local f = kumo.fs.open '/dev/null' f:close() f:read()", "AsyncFile:read: read of closed file"),
        ("kumo.crypto.aes_encrypt_block('Ctr', 'x', { key_data = '' })", "expected 'Cbc' or 'Ecb' as the algorithm"),
        ("kumo.crypto.aes_encrypt_block('Cbc', 'x', { key_data = 'k' })", "the key has 1 octets, not 16 or 32"),
    ],
)
def test_what_goes_wrong_is_a_lua_error(monkeypatch: pytest.MonkeyPatch, code: str, problem: str) -> None:
    monkeypatch.setattr(async_files, "MOST_READ", 64 << 20)
    with pytest.raises(PolicyProblems) as raised:
        said(code)
    assert problem in raised.value.problems[0].message


def test_a_message_is_noted_in_a_file_while_others_go_on(start: Any, tmp_path: Path) -> None:
    gateway = start(
        f"""{INIT}
        kumo.on('get_listener_domain', function() return kumo.make_listener_domain {{ relay_to = true }} end)
        kumo.on('smtp_server_message_received', function(msg)
          local file = kumo.fs.open('{tmp_path}/noted', 'a')
          file:write(tostring(msg:sender()) .. '\\n')
          file:close()
          msg:set_meta('queue', 'null')
        end)
        """
    )
    for number in range(3):
        with gateway.smtp() as client:
            client.sendmail(f"{number}@a.example", "b@b.example", "Subject: x\r\n\r\nx\r\n")
    assert (tmp_path / "noted").read_text().split() == [f"{number}@a.example" for number in range(3)]


# --- AES --------------------------------------------------------------------------------------------------------------


@given(st.sampled_from(["Cbc", "Ecb"]), st.text(), st.sampled_from(["k" * 16, "k" * 32]))
def test_what_is_encrypted_is_decrypted(algorithm: str, text: str, key: str) -> None:
    encrypted = crypto.aes_encrypt_block(algorithm, text, {"key_data": key})
    assert crypto.aes_decrypt_block(algorithm, encrypted, {"key": {"key_data": key}}).octets == binary(text)
    assert len(binary(encrypted)) % 16 == 0


def test_ecb_is_as_the_standard_has_it() -> None:
    key = bytes(range(16)).decode("latin-1")
    plain = bytes.fromhex("00112233445566778899aabbccddeeff").decode("utf-8", "surrogateescape")
    found = binary(crypto.aes_encrypt_block("Ecb", plain, {"key_data": key}))
    assert found[:16].hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"  # FIPS 197, appendix C.1


def test_another_key_does_not_decrypt() -> None:
    shown = crypto.aes_encrypt_block("Ecb", "secret", {"key_data": "k" * 16})
    with pytest.raises(ValueError, match="it is not encrypted with this key"):
        crypto.aes_decrypt_block("Ecb", shown, {"key_data": "x" * 16})
    with pytest.raises(ValueError, match="has not the length of one"):
        crypto.aes_decrypt_block("Cbc", shown, {"key_data": "k" * 16})


# --- signatures for AWS -----------------------------------------------------------------------------------------------

SIGNED = """{
  access_key = { key_data = 'AKIDEXAMPLE' }, secret_key = { key_data = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY' },
  region = 'us-east-1', service = 'iam', method = 'GET', uri = '/',
  query_params = { Version = '2010-05-08', Action = 'ListUsers' },
  headers = { Host = 'iam.amazonaws.com', ['Content-Type'] = 'application/x-www-form-urlencoded; charset=utf-8' },
  timestamp = kumo.time.from_unix_timestamp(1440938160),
}"""


def test_a_request_is_signed_as_amazons_own_example_is() -> None:
    signature = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    policy = domain_policy(f"""
        local signed = kumo.crypto.aws_sign_v4 {SIGNED}
        assert(signed.timestamp == '20150830T123600Z')
        assert(signed.signature == '{signature}')
        assert(signed.authorization == 'AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, '
          .. 'SignedHeaders=content-type;host;x-amz-date, Signature={signature}')
        assert(signed.canonical_request:find 'Action=ListUsers&Version=2010%-05%-08')""")
    assert ask(policy, "x.example") is None


def test_a_request_to_s3_signs_its_content() -> None:
    signature = "b438a29cae8b5d9fd3634e7b70ea4fdedb1fea96260aae6a9cf2e6b0ad5a4028"  # of KumoMTA's own test
    assert said(f"""
        local signed = kumo.crypto.aws_sign_v4 {{
          access_key = {{ key_data = 'AKIAIOSFODNN7EXAMPLE' }},
          secret_key = {{ key_data = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' }},
          region = 'us-east-1', service = 's3', method = 'GET', uri = '/test.txt',
          headers = {{ host = 'examplebucket.s3.amazonaws.com' }}, timestamp = '2025-11-21T20:04:15Z',
        }}
        local expected = 'SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}'
        result = signed.authorization:find(expected, 1, true) ~= nil
    """)


@pytest.mark.parametrize(
    ("part", "instead", "problem"),
    [
        ("uri = '/',", "", "aws_sign_v4: uri"),
        ("region = 'us-east-1'", "regoin = 'us-east-1'", "aws_sign_v4: unknown option 'regoin'"),
        ("timestamp = kumo.time.from_unix_timestamp(1440938160)", "timestamp = 'now'", "'now' is no date"),
    ],
)
def test_what_cannot_be_signed_is_named_and_no_secret_with_it(part: str, instead: str, problem: str) -> None:
    policy = domain_policy(f"kumo.crypto.aws_sign_v4 {SIGNED.replace(part, instead)}")
    with pytest.raises(PolicyError) as error:
        ask(policy, "x.example")
    assert problem in str(error.value)
    assert "wJalr" not in str(error.value)
