"""Large messages through a whole gateway: bounded memory, given back; others are served meanwhile; nothing is lost."""

from __future__ import annotations

import hashlib
import smtplib
import socket
import threading
from pathlib import Path

import pytest

from tests.gateway_process import INIT, PATIENCE, TO_MAILDIR, TO_UPSTREAMS, Gateway, wait_until

POLICY = INIT.replace("relay_hosts = {}", "relay_hosts = { '127.0.0.1' }, max_message_size = 100 * 1024 * 1024")
LIMIT = 16 << 20
SLACK = 100 << 20  # octets of resident memory for everything that is no content


def large(number: int, octets: int) -> bytes:
    """A message that no other is like, with dots at the start of lines."""
    line = hashlib.sha256(b"%d" % number).hexdigest().encode() * 14 + b"\r\n"
    return b"Subject: %d\r\n\r\n" % number + (line + b"." + line) * (octets // (2 * len(line)))


def status(pid: int, name: str) -> int:
    """VmRSS, VmHWM… of a process, in octets."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name + ":")).split()[1]) * 1024


def begin(gateway: Gateway) -> socket.socket:
    """A client that was told to send its content."""
    client = gateway.connect()
    reader = client.makefile("rb")
    assert reader.readline().startswith(b"220")
    for command in (b"HELO c.example", b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@y.example>", b"DATA"):
        client.sendall(command + b"\r\n")
        assert reader.readline()[:1] in b"23"
    return client


def settled(gateway: Gateway) -> bool:
    """No content is anywhere."""
    names = ("content_memory_bytes", "content_files", "content_file_bytes", "content_waiting")
    return all(gateway.metric(name) == 0 for name in names)


@pytest.mark.parametrize("target", [TO_UPSTREAMS, TO_MAILDIR], ids=["upstream", "maildir"])
def test_many_large_messages_at_once_stay_within_the_budget_and_arrive_whole(start, sink, target: str) -> None:
    gateway = start(POLICY + target, "--workers", "1", "--content-memory", f"{LIMIT >> 20}M", upstreams=[sink.address])
    (worker,) = gateway.workers()
    messages = [large(number, 6_000_000) for number in range(30)]  # 180 MB
    failed: list[BaseException] = []

    def send(message: bytes) -> None:
        try:
            gateway.smtp().sendmail("a@x.example", ["b@y.example"], message)
        except BaseException as error:
            failed.append(error)
            raise

    senders = [threading.Thread(target=send, args=(message,)) for message in messages]
    for sender in senders:
        sender.start()
    small = 0
    with gateway.smtp() as client:
        while any(sender.is_alive() for sender in senders):
            client.sendmail("s@x.example", ["b@y.example"], b"Subject: small\r\n\r\nsmall\r\n")
            small += 1
    assert not failed
    assert small > 0
    mails = gateway.mails() if target is TO_MAILDIR else sink.mails()
    arrived = sorted(mail[mail.index(b"Subject:") :] for mail in mails)
    assert [hashlib.sha256(mail).digest() for mail in arrived if len(mail) > 1000] == [
        hashlib.sha256(mail).digest() for mail in sorted(messages)
    ]
    assert len(arrived) == len(messages) + small
    assert status(worker, "VmHWM") < LIMIT + SLACK
    wait_until(lambda: gateway.metric("content_written_total") >= len(messages), "every large one told of")
    wait_until(lambda: settled(gateway), "everything given back")


@pytest.mark.parametrize("target", [TO_UPSTREAMS, TO_MAILDIR], ids=["upstream", "maildir"])
def test_a_content_is_given_back_with_its_reply_though_connections_are_kept(start, sink, target: str) -> None:
    keep = "kumo.on('get_egress_path_config', function() return kumo.make_egress_path { idle_timeout = '1h' } end)"
    gateway = start(POLICY + target + keep, "--workers", "1", upstreams=[sink.address])
    client = gateway.smtp()
    client.sendmail("a@x.example", ["b@y.example"], large(1, 3_000_000))
    wait_until(lambda: gateway.metric("content_written_total") == 1, "a file was used")
    wait_until(lambda: settled(gateway), "everything given back")
    assert gateway.metric("upstream_connections_open") == (target is TO_UPSTREAMS)


def test_memory_and_descriptors_of_a_client_that_vanishes_are_given_back(start) -> None:
    gateway = start(POLICY + TO_MAILDIR, "--workers", "1", "--content-memory", f"{LIMIT >> 20}M")
    (worker,) = gateway.workers()
    gateway.metric("content_memory_bytes")
    before = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    clients = [begin(gateway) for _ in range(10)]
    for number, client in enumerate(clients):
        client.sendall(large(number, 2_000_000))
    wait_until(lambda: gateway.metric("content_files") == 10, "ten files")
    wait_until(lambda: gateway.metric("content_file_bytes") > 10_000_000, "their octets")
    for client in clients:
        client.close()
    wait_until(lambda: settled(gateway), "everything given back")
    wait_until(lambda: len(list(Path(f"/proc/{worker}/fd").iterdir())) <= before, "descriptors closed")


def test_resident_memory_is_given_back(start) -> None:
    gateway = start(POLICY + TO_MAILDIR, "--workers", "1")  # 256 MiB
    (worker,) = gateway.workers()
    with gateway.smtp() as client:
        client.sendmail("a@x.example", ["b@y.example"], large(0, 1000))
    before = status(worker, "VmRSS")
    clients = [begin(gateway) for _ in range(150)]
    for number, client in enumerate(clients):
        client.sendall(large(number, 900_000))  # too little for a file
    wait_until(lambda: gateway.metric("content_memory_bytes") > 100_000_000, "contents in memory")
    assert gateway.metric("content_files") < 75
    for client in clients:
        client.close()
    wait_until(lambda: settled(gateway), "everything given back")
    wait_until(
        lambda: status(worker, "VmRSS") < before + (40 << 20),
        lambda: f"given back to the system: {status(worker, 'VmRSS') >> 20} MiB, {before >> 20} before",
    )


def test_without_room_nothing_is_read_and_nothing_is_stuck(start) -> None:
    nofile = ["prlimit", "--nofile=200:200"]  # files for 25 contents
    gateway = start(POLICY + TO_MAILDIR, "--workers", "1", "--content-memory", "1M", under=nofile)
    holders = [begin(gateway) for _ in range(25)]
    for number, client in enumerate(holders):
        client.sendall(large(number, 200_000))
    wait_until(lambda: gateway.metric("content_files") == 25, "all files taken")
    waiting = [begin(gateway) for _ in range(10)]
    messages = [large(100 + number, 3_000_000) for number in range(10)]
    replies: list[bytes] = []

    def send(client: socket.socket, message: bytes) -> None:
        client.sendall(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        replies.append(client.recv(100))
        client.close()

    senders = [threading.Thread(target=send, args=pair) for pair in zip(waiting, messages, strict=True)]
    for sender in senders:
        sender.start()
    wait_until(lambda: gateway.metric("content_waiting") == 10, "clients that wait")
    assert gateway.metric("content_memory_bytes") < (1 << 20) + 10 * 256 * 1024 + 25 * 16 * 1024
    assert replies == []
    for client in holders:
        client.close()
    for sender in senders:
        sender.join(PATIENCE)
    assert [reply[:3] for reply in replies] == [b"250"] * 10
    arrived = {mail[mail.index(b"Subject:") :] for mail in gateway.mails()}
    assert arrived == set(messages)
    wait_until(lambda: settled(gateway), "everything given back")


def test_a_full_disk_is_452_for_what_needs_it(start) -> None:
    gateway = start(
        POLICY + TO_MAILDIR, "--workers", "1", "--content-memory", "1M", under=["prlimit", "--fsize=200000"]
    )
    client = gateway.smtp()
    with pytest.raises(smtplib.SMTPDataError) as refused:
        client.sendmail("a@x.example", ["b@y.example"], large(1, 1_000_000))
    assert (refused.value.smtp_code, refused.value.smtp_error[:5]) == (452, b"4.3.1")
    client.sendmail("a@x.example", ["b@y.example"], b"Subject: small\r\n\r\n")
    wait_until(lambda: gateway.metric("content_failures_total") == 1, "counted")
    assert gateway.metric('rejections_total{reason="no_room",stage="data"}') == 1
    assert "1 messages were refused: no room for them in" in gateway.diagnostics()
    assert len(gateway.mails()) == 1
    wait_until(lambda: [r["reason"] for r in gateway.records() if r["type"] == "Rejection"] == ["no_room"], "recorded")


@pytest.mark.parametrize("line", [b"x" * 5000 + b"\r\n", b"lone\n" * 100], ids=["long line", "lone LF"])
def test_a_message_whose_answer_is_known_is_not_kept(start, line: bytes) -> None:
    gateway = start(POLICY + TO_MAILDIR, "--workers", "1")
    client = begin(gateway)
    client.sendall(large(1, 2_000_000))
    wait_until(lambda: gateway.metric("content_files") == 1, "a file")
    client.sendall(line * 1000)
    wait_until(lambda: settled(gateway), "nothing kept")
    client.sendall(b"\r\n.\r\n")
    assert client.recv(100)[:1] == b"5"
    client.close()


def test_a_content_directory_that_will_not_do_is_said_at_the_start(start, tmp_path: Path) -> None:
    gateway = start(POLICY, "--content-directory", str(tmp_path / "missing"))
    assert gateway.process.wait(PATIENCE) != 0
    assert f"cannot start: [Errno 2] No such file or directory: '{tmp_path}/missing'" in gateway.diagnostics()


@pytest.mark.parametrize("size", ["", "M", "1T", "-1", "1.5G", "1023K", "x"])
def test_a_size_that_is_none_is_an_error_of_the_command_line(start, size: str) -> None:
    gateway = start(POLICY, f"--content-memory={size}")
    assert gateway.process.wait(PATIENCE) == 2
    assert "--content-memory: expected" in gateway.diagnostics()
