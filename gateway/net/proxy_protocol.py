"""The PROXY protocol, versions 1 and 2: octets in, who is connected to whom out. No sockets, no time.

What a proxy says before all else, so that the server behind it knows the client (HAProxy's doc/proxy-protocol.txt,
whose sections the comments name). Nothing here decides whom to believe.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # §2.2
MOST_OF_V1 = 107  # octets with CRLF (§2.1)
MOST_OF_V2 = 16 * 1024  # octets; more than any proxy has to say
_V1 = b"PROXY "
_V1_PORT = re.compile(r"0|[1-9]\d{0,4}", re.ASCII)
_FIXED = 16  # octets of a version 2 header before its addresses
_TCP4, _TCP6, _UNIX, _UNSPECIFIED = 0x11, 0x21, 0x31, 0x00
_ADDRESSES = {_TCP4: 12, _TCP6: 36, _UNIX: 216, _UNSPECIFIED: 0}  # octets of both ends
_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL, _SSL_CN = 0x01, 0x02, 0x03, 0x05, 0x20, 0x22  # §2.2.1
_TEXTS = {_ALPN: "proxy_alpn", _AUTHORITY: "proxy_authority", _UNIQUE_ID: "proxy_unique_id"}
_HAS_CERTIFICATE = 0x06  # PP2_CLIENT_CERT_CONN, PP2_CLIENT_CERT_SESS (§2.2.5)


class HeaderFault(StrEnum):
    """Why what came is no header."""

    MISSING = "missing"  # the first octets are something else
    MALFORMED = "malformed"


class NoHeader(Exception):
    """What came is no header; says nothing of what it was."""

    def __init__(self, fault: HeaderFault) -> None:
        super().__init__(fault)
        self.fault = fault


class Header(NamedTuple):
    """client, server: host and port of the connection that the proxy has taken; None where it does not say, as for
    its own health checks. told: what else it says, by the name of its metadata. rest: the octets behind the header.
    """

    client: tuple[str, int] | None
    server: tuple[str, int] | None
    told: dict[str, str]
    rest: bytes


class HeaderReader:
    """Reads one header out of octets that come in any portions."""

    def __init__(self) -> None:
        self._received = b""

    def feed(self, data: bytes) -> Header | None:
        """The header once it is complete. Raises NoHeader as soon as it cannot be one."""
        self._received += data
        received = self._received
        if received.startswith(SIGNATURE):
            return _read_v2(received)
        if received.startswith(_V1):
            return _read_v1(received)
        if SIGNATURE.startswith(received) or _V1.startswith(received):
            return None
        raise NoHeader(HeaderFault.MISSING)


def header_v2(client: str, server: tuple[str, int]) -> bytes:
    """A version 2 header without anything else. client: an address, whose port nobody knows; "" for the connection of
    the proxy itself. server: the end that was connected to, left out where it is of another family.
    """
    if not client:
        return SIGNATURE + bytes((0x20, _UNSPECIFIED, 0, 0))
    source, destination = ipaddress.ip_address(client), ipaddress.ip_address(server[0])
    end, port = (
        (destination.packed, server[1]) if destination.version == source.version else (bytes(len(source.packed)), 0)
    )
    family = _TCP4 if source.version == 4 else _TCP6
    addresses = source.packed + end + bytes(2) + port.to_bytes(2, "big")
    return SIGNATURE + bytes((0x21, family)) + len(addresses).to_bytes(2, "big") + addresses


def _read_v1(received: bytes) -> Header | None:
    end = received.find(b"\r\n", 0, MOST_OF_V1)
    if end < 0:
        if len(received) >= MOST_OF_V1:
            raise NoHeader(HeaderFault.MALFORMED)
        return None
    rest = received[end + 2 :]
    words = received[:end].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":  # §2.1: whatever follows is ignored
        return Header(None, None, {}, rest)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise NoHeader(HeaderFault.MALFORMED)
    _, family, source, destination, source_port, destination_port = words
    client = _v1_end(family, source, source_port)
    return Header(client, _v1_end(family, destination, destination_port), {}, rest)


def _v1_end(family: str, host: str, port: str) -> tuple[str, int]:
    kind = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        address = str(kind(host))
    except ValueError:
        raise NoHeader(HeaderFault.MALFORMED) from None
    if "%" in address or not _V1_PORT.fullmatch(port) or int(port) > 65535:
        raise NoHeader(HeaderFault.MALFORMED)
    return address, int(port)


def _read_v2(received: bytes) -> Header | None:
    if len(received) > 12 and received[12] not in (0x20, 0x21):  # §2.2: version 2; LOCAL, PROXY
        raise NoHeader(HeaderFault.MALFORMED)
    if len(received) < _FIXED:
        return None
    command, family = received[12], received[13]
    end = _FIXED + int.from_bytes(received[14:16], "big")
    if end > MOST_OF_V2 or (command == 0x21 and (family not in _ADDRESSES or end < _FIXED + _ADDRESSES[family])):
        raise NoHeader(HeaderFault.MALFORMED)
    if len(received) < end:
        return None
    rest = received[end:]
    if command == 0x20:  # §2.2: the proxy's own connection; what else is in the header is skipped
        return Header(None, None, {}, rest)
    at = _FIXED + _ADDRESSES[family]
    told = _told(received[:end], at)
    if family not in (_TCP4, _TCP6):
        return Header(None, None, told, rest)
    size = 4 if family == _TCP4 else 16
    hosts, ports = received[_FIXED : _FIXED + 2 * size], received[at - 4 : at]
    client = str(ipaddress.ip_address(hosts[:size])), int.from_bytes(ports[:2], "big")
    return Header(client, (str(ipaddress.ip_address(hosts[size:])), int.from_bytes(ports[2:], "big")), told, rest)


def _told(header: bytes, at: int) -> dict[str, str]:
    """What a version 2 header says behind the addresses, which end at `at`."""
    told: dict[str, str] = {}
    for kind, start, value in _fields(header, at):
        if kind in _TEXTS:
            told[_TEXTS[kind]] = _text(value)
        elif kind == _CRC32C:
            checked = header[:start] + bytes(len(value)) + header[start + len(value) :]
            if value != _crc32c(checked).to_bytes(4, "big"):
                raise NoHeader(HeaderFault.MALFORMED)
        elif kind == _SSL:
            told.update(_told_of_tls(value))
    return told


def _told_of_tls(value: bytes) -> dict[str, str]:
    """§2.2.5: the name in the client's certificate, where it had one that the proxy has verified."""
    if len(value) < 5:
        raise NoHeader(HeaderFault.MALFORMED)
    names = [_text(inner) for kind, _, inner in _fields(value, 5) if kind == _SSL_CN]
    verified = value[0] & _HAS_CERTIFICATE and value[1:5] == bytes(4)
    return {"proxy_ssl_cn": names[0]} if verified and names else {}


def _fields(octets: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """(type, where the value starts, value) of each field from `at` on."""
    while at < len(octets):
        start = at + 3
        end = start + int.from_bytes(octets[at + 1 : start], "big")
        if start > len(octets) or end > len(octets):
            raise NoHeader(HeaderFault.MALFORMED)
        yield octets[at], start, octets[start:end]
        at = end


def _text(value: bytes) -> str:
    """As it is where it is UTF-8: a client may have had a say in it."""
    return value.decode("utf-8", "backslashreplace")


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        crc = octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE = _crc32c_table()


def _crc32c(octets: bytes) -> int:
    """The checksum of §2.2.3, reflected."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc = crc >> 8 ^ _TABLE[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF
