"""The aiosmtpd peer: a script of its own process. Arguments: the port to listen on, the sink's port (0: discard)."""

import asyncio
import sys
from typing import Any
from weakref import WeakKeyDictionary

import aiosmtplib
import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session


class Discard:
    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return "250 2.0.0 Ok"


class Relay:
    """Hands every message over before it is answered; a session keeps one connection to the sink."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.clients: WeakKeyDictionary[Session, aiosmtplib.SMTP] = WeakKeyDictionary()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        client = self.clients.get(session)
        if client is None:
            client = aiosmtplib.SMTP(hostname="127.0.0.1", port=self.port, start_tls=False)
            await client.connect()
            self.clients[session] = client
        await client.sendmail(envelope.mail_from or "", envelope.rcpt_tos, envelope.original_content or b"")
        return "250 2.0.0 Ok"


async def main(port: int, upstream: int) -> None:
    handler: Any = Relay(upstream) if upstream else Discard()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(handler, hostname="aiosmtpd.example", data_size_limit=1 << 26), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
