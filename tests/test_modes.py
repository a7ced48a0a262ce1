"""Who may read and write what the gateway makes: every file and socket of a running one, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.cli import main
from tests.gateway_process import Gateway, wait_until
from tests.ports import free_port

POLICY = """
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.0.0.1' } }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0, max_segment_duration = '100ms' }
  require('gateway').ship {
    name = 'files', max_batch_delay = '10ms', sink = { files = { directory = LOGS .. '/../shipped' } },
  }
end)
kumo.on('get_queue_config', function(domain)
  if domain == 'maildir.example' then
    return kumo.make_queue_config { protocol = { maildir_path = MAILDIR .. '/a/b' } }
  end
  return kumo.make_queue_config { protocol = { smtp = { mx_list = UPSTREAMS } } }
end)
"""
# what there must be, by a pattern; and the bits that nobody else may have. SECURITY.md says the same
SECRET, NOT_WRITABLE = 0o077, 0o002
MADE = {
    "spool": SECRET,
    "spool/*": SECRET,
    "maildir/a/b/new/*": SECRET,
    "control": SECRET,
    "shipped/*": 0o007,
    "logs/.ship/*": NOT_WRITABLE,
    "logs/*": NOT_WRITABLE,
    "announce": NOT_WRITABLE,
    "set/*": NOT_WRITABLE,
}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes_below(folder: Path) -> dict[Path, int]:
    """Of what is there and stays."""
    found = {}
    for path in list(folder.rglob("*")):
        with suppress(FileNotFoundError):
            found[path] = stat.S_IMODE(path.lstat().st_mode)
    return found


@pytest.mark.parametrize("mask", [0, 0o077])
def test_nobody_else_writes_what_is_made_and_nobody_else_reads_mail_whatever_the_umask(tmp_path, mask):
    folder = tmp_path / "gateway"
    folder.mkdir()
    with umask(mask):
        assert main(["init", str(folder / "set")]) == 0
        gateway = Gateway(
            folder,
            POLICY,
            *("--workers", "1", "--spool", str(folder / "spool"), "--control", str(folder / "control")),
            upstreams=[f"127.0.0.1:{free_port()}"],
        )
    try:
        with gateway.smtp() as client:
            for domain in ("maildir.example", "far.example"):
                client.sendmail("a@out.example", f"b@{domain}", "Subject: x\n\n")
        wait_until(lambda: all(any(folder.glob(pattern)) for pattern in MADE), lambda: str(list(folder.rglob("*"))))
        ours = {folder, gateway.policy_file, gateway.log_file}
        made = {path: mode for path, mode in modes_below(folder).items() if path not in ours}
        assert [path for path, mode in made.items() if mode & (mask or NOT_WRITABLE)] == []
        for pattern, forbidden in MADE.items():
            assert [path for path in folder.glob(pattern) if made.get(path, 0) & forbidden] == [], pattern
    finally:
        gateway.kill()
