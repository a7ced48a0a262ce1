"""python bench/sizing.py: what one worker takes for each idle session, handshake and log record. The figures of
docs/operations.md, "Sizing", that are not of a bench report.

Memory is resident memory of the worker, processor time its own; all on loopback, one worker.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import zstandard

POLICY = """
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = '127.0.0.1:0', hostname = 'gw.example', relay_hosts = { '127.0.0.1' },
    tls_certificate = '%(certificate)s', tls_private_key = '%(key)s',
  }
  kumo.configure_local_logs { log_dir = '%(folder)s/logs', min_free_space = 0 }
end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { '%(fleet)s' } } } }
end)
kumo.on('get_egress_path_config', function() return kumo.make_egress_path { enable_tls = 'Disabled' } end)
"""
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def start(folder: Path, fleet: str) -> tuple[subprocess.Popen[bytes], int, tuple[str, int]]:
    """A gateway, its worker, and where it listens."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=gw.example"
    subprocess.run([*made.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)
    names = {"folder": folder, "fleet": fleet, "certificate": certificate, "key": key}
    (folder / "init.lua").write_text(POLICY % names)
    command = [sys.executable, "-m", "gateway", "run", "--policy", str(folder / "init.lua"), "--workers", "1"]
    process = subprocess.Popen([*command, "--announce", str(folder / "at"), "--log-level", "error"])
    while not (folder / "at").exists():
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (worker,) = (int(pid) for pid in children if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes())
    host, _, port = json.loads((folder / "at").read_text())["smtp"][0].rpartition(":")
    return process, worker, (host, int(port))


def resident(pid: int) -> int:
    """Octets."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def processor_time(pid: int) -> float:
    """Seconds."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:13])) / TICKS


def session(address: tuple[str, int], context: ssl.SSLContext | None) -> socket.socket:
    """One that has said EHLO, under TLS where there is a context."""
    client = socket.create_connection(address, 30)
    for line in (b"", b"EHLO x.example\r\n", *([b"STARTTLS\r\n"] if context else [])):
        client.sendall(line)
        client.recv(4096)
    if context is not None:
        client = context.wrap_socket(client)
        client.sendall(b"EHLO x.example\r\n")
        client.recv(4096)
    return client


def letters(address: tuple[str, int], count: int) -> None:
    """Messages as of a newsletter: each with a recipient and a return path of its own, which compress badly."""
    chosen = random.Random(1)
    domains = [f"{chosen.randbytes(5).hex()}.example" for _ in range(300)]
    with socket.create_connection(address, 30) as client, client.makefile("rb") as replies:
        client.sendall(b"HELO x.example\r\n")
        for _ in range(2):
            replies.readline()
        for _ in range(count):
            sender, domain = f"bounce-{chosen.randbytes(8).hex()}@news.example", chosen.choice(domains)
            recipient = f"{chosen.randbytes(6).hex()}@{domain}"
            client.sendall(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
            for _ in range(3):
                replies.readline()
            client.sendall(b"Subject: x\r\n\r\nx\r\n.\r\n")
            assert replies.readline().startswith(b"250")


def main() -> None:
    """Prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=10000)
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = [sys.executable, "-m", "gateway", "bench", "sink", "--listen", "127.0.0.1:0"]
        sink = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        stack.callback(sink.kill)
        assert sink.stdout is not None
        host, port = json.loads(sink.stdout.readline())["listening"]
        gateway, worker, address = start(folder, f"{host}:{port}")
        stack.callback(gateway.kill)
        print(f"a worker that has just started: {resident(worker) / 2**20:.0f} MiB")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for name, terms in (("in clear", None), ("under TLS 1.3", context)):
            warm = [session(address, terms) for _ in range(100)]
            time.sleep(2)
            before, began = resident(worker), processor_time(worker)
            clients = [session(address, terms) for _ in range(args.sessions)]
            took = processor_time(worker) - began
            time.sleep(2)
            each = (resident(worker) - before) / args.sessions
            print(
                f"{name}: {each / 1024:.1f} KiB for each idle session, {took / args.sessions * 1e6:.0f} µs to get there"
            )
            for client in (*warm, *clients):
                client.close()
        letters(address, args.messages)
        gateway.terminate()
        gateway.wait()
        files = list((folder / "logs").iterdir())
        octets = sum(file.stat().st_size for file in files)
        text = b"".join(zstandard.ZstdDecompressor().stream_reader(file.open("rb"), True).read() for file in files)
        records = text.count(b"\n")
        print(f"log: {records} records of {len(text) / records:.0f} octets, {octets / records:.0f} on disk;")
        print(
            f"     {records / args.messages:.1f} records, {octets / args.messages:.0f} octets on disk for each message"
        )


if __name__ == "__main__":
    main()
