"""python bench/spool.py: what the spool's store does on this machine, by page size.

The way of a message as clients see it: so many of them, each with one message at a time, on an event loop; the thread
of the store; durable before the next one. Then recovery, and reading and removing all, as after an outage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from pathlib import Path

import uvloop

from gateway.couriers.spool import store as stores
from gateway.couriers.spool.store import WAITS_FOR_TIME, Row, Store
from gateway.couriers.spool.writer import SpoolWriter

ENVELOPE = b"x" * 600  # octets, about what a message with some metadata has


async def kept(writer: SpoolWriter, messages: int, clients: int, content: bytes) -> list[float]:
    """Seconds that each message took."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    left = messages
    over = loop.create_future()

    def one() -> None:
        nonlocal left
        if left == 0:
            return
        left -= 1
        row = Row(0, 1.0, 2.0, 3.0, 0, 1, WAITS_FOR_TIME, "site", "queue", ENVELOPE)
        began = time.perf_counter()
        later = writer.write(lambda store: store.append(row, [content]), needs_room=True)

        def durable() -> None:
            later.result()
            took.append(time.perf_counter() - began)
            one()
            if len(took) == messages:
                over.set_result(None)

        later.then(durable)

    for _ in range(clients):
        one()
    await over
    return took


async def measure(folder: Path, page_size: int, args: argparse.Namespace) -> None:
    """Prints one line."""
    stores.PAGE_SIZE = page_size
    stores.WAL_PAGES = (32 << 20) // page_size
    path = str(folder / f"spool-{page_size}")
    content = os.urandom(args.octets)
    syncs: list[float] = []
    loop = asyncio.get_running_loop()
    writer = SpoolWriter(path, loop.call_soon_threadsafe, lambda *_: None, syncs.append)
    began, used = time.perf_counter(), time.process_time()
    took = sorted(await kept(writer, args.messages, args.clients, content))
    used, seconds = time.process_time() - used, time.perf_counter() - began
    writer.close()
    grown = os.path.getsize(path)
    began = time.perf_counter()
    store = Store(path)
    rows = list(store.rows())
    recovered = time.perf_counter() - began
    began = time.process_time()
    for start in range(0, len(rows), args.clients):
        with store.transaction():
            for row in rows[start : start + args.clients]:
                store.content(row.number)
                store.remove(row.number)
    removed = time.process_time() - began
    store.shrink()
    store.close()
    print(
        f"{page_size:6d} {args.messages / seconds:9.0f}/s {used / args.messages * 1e6:7.1f} µs "
        f"{took[len(took) // 2] * 1e3:7.2f} {took[len(took) * 99 // 100] * 1e3:7.2f} ms {len(syncs):7d} "
        f"{recovered:8.2f} s {removed / args.messages * 1e6:7.1f} µs {grown / args.messages / args.octets:6.2f} "
        f"{os.path.getsize(path):8d}"
    )


def main() -> None:
    """All page sizes, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--octets", type=int, default=10_240)
    parser.add_argument("--directory", default="/var/tmp", help="on the disk that is to be measured")
    parser.add_argument("--page-sizes", type=int, nargs="+", default=[4096, 8192, 16384])
    args = parser.parse_args()
    print("  page   durable   CPU each  median    99th     syncs  recovery  removed  file ÷ contents  afterwards")
    folder = Path(tempfile.mkdtemp(prefix="spool-", dir=args.directory))
    try:
        for page_size in args.page_sizes:
            uvloop.run(measure(folder, page_size, args))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
