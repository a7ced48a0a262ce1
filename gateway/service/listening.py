"""Listening sockets: one SO_REUSEPORT socket per address and worker slot, kept across reloads and respawns.

They belong to the supervisor, so that a worker's accept queue survives the worker. No connection is accepted here.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

BACKLOG = 4096  # the kernel caps it at net.core.somaxconn
Key = tuple[str, int]  # "IP:PORT" as declared, and which of the declarations with this text


class AddressError(Exception):
    """An address that cannot be listened on; the text is for the operator."""


class ListeningSockets:
    """The sockets of all addresses; `slots` of them per address, which share its port."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._sockets: dict[Key, list[socket.socket]] = {}

    def open(self, addresses: Iterable[str]) -> None:
        """Listen on the addresses that are new. On AddressError everything is as before."""
        opened: dict[Key, list[socket.socket]] = {}
        try:
            for key in keys(addresses):
                if key not in self._sockets:
                    opened[key] = []
                    self._bind(key[0], opened[key])
        except OSError as error:
            _close(opened.values())
            raise AddressError(f"cannot listen on {key[0]}: {error.strerror or error}") from error
        self._sockets |= opened

    def keep_only(self, addresses: Iterable[str]) -> None:
        """Close the sockets of all other addresses."""
        wanted = set(keys(addresses))
        _close([self._sockets.pop(key) for key in self._sockets.keys() - wanted])

    def of_slot(self, addresses: Iterable[str], slot: int) -> list[socket.socket]:
        """The slot's sockets, in the order of `addresses`."""
        return [self._sockets[key][slot] for key in keys(addresses)]

    def bound(self, addresses: Iterable[str]) -> list[str]:
        """The addresses as bound: port 0 has become a real one."""
        return [display(sockets[0]) for sockets in (self._sockets[key] for key in keys(addresses))]

    def close_others(self, kept: Iterable[socket.socket]) -> None:
        """In a child: close what is not this child's, so that closing it in the parent takes effect."""
        mine = set(kept)
        _close([[s for s in sockets if s not in mine] for sockets in self._sockets.values()])

    def mute(self, slot: int) -> None:
        """Stop listening in a slot: its waiting connections are reset and new ones go to the other slots.

        The sockets keep their port, so that no privilege is needed to listen again.
        """
        for sockets in self._sockets.values():
            try:
                sockets[slot].shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it did not listen

    def listen(self, slot: int) -> None:
        """Undo `mute`; harmless without it."""
        for sockets in self._sockets.values():
            sockets[slot].listen(BACKLOG)

    def _bind(self, address: str, opened: list[socket.socket]) -> None:
        host, port = split(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, not port)
            probe.bind((host, port))
            if port:
                probe.close()  # SO_REUSEPORT alone would let a second service of the same user share it unnoticed
            else:
                port = probe.getsockname()[1]  # a socket that was bound to port 0 itself would lose it in `mute`
            for _ in range(self._slots):
                listener = socket.socket(family)
                opened.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind((host, port))
        for listener in opened:
            listener.listen(BACKLOG)


def keys(addresses: Iterable[str]) -> list[Key]:
    """Keys that tell two declarations of "127.0.0.1:0" apart."""
    seen: dict[str, int] = {}
    result = []
    for address in addresses:
        seen[address] = seen.get(address, -1) + 1
        result.append((address, seen[address]))
    return result


def split(address: str) -> tuple[str, int]:
    """("127.0.0.1", 25) of "127.0.0.1:25", ("::1", 25) of "[::1]:25"."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def display(listener: socket.socket) -> str:
    """The address of a socket, as a policy would write it."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _close(groups: Iterable[Iterable[socket.socket]]) -> None:
    for sockets in groups:
        for each in sockets:
            each.close()
