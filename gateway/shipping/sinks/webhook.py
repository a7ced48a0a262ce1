"""The sink `webhook`: a POST for each batch, signed as Standard Webhooks have it.

`webhook-signature` is `v1,` and the base64 of the HMAC-SHA-256 over the batch's id, the time and the body, with dots
between them. What is an answer about the batch, and what about anything else, `meaning` says.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import hmac
import ssl
import time
from collections.abc import Mapping

import aiohttp
import orjson

from gateway import __version__
from gateway.shipments import WebhookSettings
from gateway.shipping.dispatch import Failed, NeverTaken, Outcome, RecordBatch, Taken

_KEY_PREFIX = "whsec_"
_REFUSING = {400, 413, 415, 422}  # what the body is to blame for; all else may be mended on one of the two sides
_MOST_ANSWER = 16 * 1024  # octets of an answer that are read, so that its connection can be used again


class WebhookSink:
    """One URL."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._key = key_of(settings.signing_key.read()) if settings.signing_key is not None else None
        self._headers = {"User-Agent": f"relay-gateway/{__version__}", **settings.headers}
        if settings.authorization is not None:
            self._headers["Authorization"] = settings.authorization.read()
        self._session: aiohttp.ClientSession | None = None

    async def send(self, batch: RecordBatch) -> Outcome:
        body = body_of(batch, self._settings.format)
        headers = {**self._headers, **self._described(batch, body)}
        if self._settings.compress:
            body = gzip.compress(body, 6, mtime=0)
        try:
            async with self._opened().post(
                self._settings.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                await response.content.read(_MOST_ANSWER)
                return meaning(response.status, response.headers)
        except aiohttp.ClientConnectorError as error:
            return Failed(f"cannot connect: {error.os_error.strerror or type(error.os_error).__name__}")
        except TimeoutError:
            return Failed(f"no answer within {self._settings.timeout:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Failed(f"no answer: {type(error).__name__}")  # its words may show the URL

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _described(self, batch: RecordBatch, body: bytes) -> dict[str, str]:
        """The fields about this batch; the signature is over the body before compression."""
        now = str(int(time.time()))
        fields = {
            "Content-Type": "application/json" if self._settings.format == "envelopes" else "application/x-ndjson",
            "webhook-id": batch.id,
            "webhook-timestamp": now,
            "relay-gateway-attempt": str(batch.attempt),
        }
        if self._settings.compress:
            fields["Content-Encoding"] = "gzip"
        if self._key is not None:
            fields["webhook-signature"] = signature(self._key, batch.id, now, body)
        return fields

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cafile=self._settings.ca_file)
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout)
            connector = aiohttp.TCPConnector(ssl=context, limit=2)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False)
        return self._session


def key_of(secret: str) -> bytes:
    """The octets of a signing key: base64 behind `whsec_`, else the text itself. Raises ValueError."""
    if not secret.startswith(_KEY_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_KEY_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"the signing key is no base64 behind {_KEY_PREFIX}") from None


def signature(key: bytes, id: str, timestamp: str, body: bytes) -> str:
    """The value of `webhook-signature`."""
    digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def body_of(batch: RecordBatch, form: str) -> bytes:
    """`envelopes`: a JSON array of `{"id", "record"}`; a record that is no JSON is a string. `lines`: the records."""
    if form == "lines":
        return b"".join(parcel.body + b"\n" for parcel in batch.parcels)
    return orjson.dumps([{"id": parcel.id, "record": _as_json(parcel.body)} for parcel in batch.parcels])


def _as_json(body: bytes) -> orjson.Fragment | str:
    """A record is put in as it was written; what a template made of it only where it is JSON."""
    if body.startswith(b"{"):
        try:
            orjson.loads(body)
            return orjson.Fragment(body)
        except orjson.JSONDecodeError:
            pass
    return body.decode("utf-8", "replace")


def meaning(status: int, headers: Mapping[str, str]) -> Outcome:
    """What an answer says of the batch."""
    if 200 <= status < 300:
        return Taken()
    if status in _REFUSING:
        return NeverTaken(f"HTTP {status}")
    after = headers.get("Retry-After", "")
    return Failed(f"HTTP {status}", after=float(after) if after.isascii() and after.isdigit() else 0.0)
