"""Listening sockets: one SO_REUSEPORT socket per address and worker slot, kept across reloads and respawns.

They belong to the supervisor, so that a worker's accept queue survives the worker. No connection is accepted here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, MutableMapping

BACKLOG = 4096  # the kernel caps it at net.core.somaxconn
FIRST_PASSED = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
BY_NAME = "fd:"  # how an address of the policy asks for a passed socket by its name
_ONLY_IPV6 = socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
Key = tuple[str, int]  # "IP:PORT" as declared, and which of the declarations with this text


class UnusableAddress(Exception):
    """An address that cannot be listened on; the text is for the operator."""


class ListeningSockets:
    """The sockets of all addresses; `slots` of them per address, which share its port."""

    def __init__(self, slots: int, passed: PassedSockets | None = None) -> None:
        """passed: sockets that somebody else listens with, which are taken instead of opening some."""
        self._slots = slots
        self._passed = passed or PassedSockets()
        self._sockets: dict[Key, list[socket.socket]] = {}

    def open(self, addresses: Iterable[str]) -> None:
        """Listen on the addresses that are new. On UnusableAddress everything is as before."""
        opened: dict[Key, list[socket.socket]] = {}
        addresses = list(addresses)
        try:
            for key in keys(addresses):
                if key not in self._sockets:
                    passed = self._passed.take(key[0])
                    opened[key] = [passed] * self._slots if passed else []
                    if not passed:
                        self._bind(key[0], opened[key], _leaves_ipv4(key[0], addresses))
        except OSError as error:
            self._close(opened.values())
            raise UnusableAddress(f"cannot listen on {key[0]}: {error.strerror or error}") from error
        self._sockets |= opened

    def keep_only(self, addresses: Iterable[str]) -> None:
        """Close the sockets of all other addresses."""
        wanted = set(keys(addresses))
        self._close([self._sockets.pop(key) for key in self._sockets.keys() - wanted])

    def of_slot(self, addresses: Iterable[str], slot: int) -> list[socket.socket]:
        """The slot's sockets, in the order of `addresses`."""
        return [self._sockets[key][slot] for key in keys(addresses)]

    def bound(self, addresses: Iterable[str]) -> list[str]:
        """The addresses as bound: port 0 has become a real one."""
        return [display(sockets[0]) for sockets in (self._sockets[key] for key in keys(addresses))]

    def close_others(self, kept: Iterable[socket.socket]) -> None:
        """In a child: close what is not this child's, so that closing it in the parent takes effect."""
        mine = set(kept)
        self._close([[s for s in sockets if s not in mine] for sockets in self._sockets.values()])

    def mute(self, slot: int) -> None:
        """Stop listening in a slot: its waiting connections are reset and new ones go to the other slots.

        The sockets keep their port, so that no privilege is needed to listen again.
        """
        for sockets in self._sockets.values():
            if sockets.count(sockets[slot]) > 1:
                continue  # one socket for all slots: whoever lives accepts
            try:
                sockets[slot].shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it did not listen

    def listen(self, slot: int) -> None:
        """Undo `mute`; harmless without it."""
        for sockets in self._sockets.values():
            sockets[slot].listen(BACKLOG)

    def bequeath(self) -> list[tuple[str, int, list[int]]]:
        """All, for the program that takes this one's place: (address, which of its kind, a descriptor per slot)."""
        return [(*key, [each.fileno() for each in sockets]) for key, sockets in self._sockets.items()]

    def adopt(self, bequeathed: Iterable[tuple[str, int, list[int]]]) -> None:
        """Go on with what the program before has left. A slot too many would hold connections that nobody accepts."""
        for address, number, fds in bequeathed:
            opened = {fd: socket.socket(fileno=fd) for fd in dict.fromkeys(fds)}
            sockets = [opened[fd] for fd in fds]
            if len(opened) == 1 and len(fds) != self._slots:
                sockets = sockets[:1] * self._slots
            self._close([sockets[self._slots :]])
            sockets = sockets[: self._slots]
            family = sockets[0].family
            while len(sockets) < self._slots:
                leaves_ipv4 = family == socket.AF_INET6 and bool(sockets[0].getsockopt(*_ONLY_IPV6))
                sockets.append(_reuseport_socket(family, sockets[0].getsockname()[:2], leaves_ipv4))
                sockets[-1].listen(BACKLOG)
            self._sockets[address, number] = sockets

    def _bind(self, address: str, opened: list[socket.socket], leaves_ipv4: bool) -> None:
        host, port = split(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, not port)
            if leaves_ipv4:
                probe.setsockopt(*_ONLY_IPV6, 1)
            probe.bind((host, port))
            if port:
                probe.close()  # SO_REUSEPORT alone would let a second service of the same user share it unnoticed
            else:
                port = probe.getsockname()[1]  # a socket that was bound to port 0 itself would lose it in `mute`
            for _ in range(self._slots):
                opened.append(_reuseport_socket(family, (host, port), leaves_ipv4))
        for listener in opened:
            listener.listen(BACKLOG)

    def _close(self, groups: Iterable[Iterable[socket.socket]]) -> None:
        for sockets in groups:
            for each in sockets:
                if not self._passed.has(each):
                    each.close()


class PassedSockets:
    """Sockets that systemd listens with and passes to the service it starts (sd_listen_fds(3)).

    An address of the policy is served by the socket that is bound to it, or, written `fd:NAME`, by the one with that
    FileDescriptorName. It is shared by all workers.
    """

    def __init__(self, sockets: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self._sockets = list(sockets)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> PassedSockets:
        """Takes LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, so that no child believes they are meant for it."""
        pid, count, names = (environment.pop(f"LISTEN_{what}", "") for what in ("PID", "FDS", "FDNAMES"))
        if pid != str(os.getpid()) or not count.isdigit():
            return cls()
        names_of = dict(enumerate(names.split(":")))
        found = []
        for number in range(int(count)):
            os.set_inheritable(FIRST_PASSED + number, False)
            found.append((names_of.get(number, ""), socket.socket(fileno=FIRST_PASSED + number)))
        return cls(found)

    def has(self, each: socket.socket) -> bool:
        """Whether it is one of these, which stay open: a listener that leaves the policy may come back."""
        return any(each is passed for _, passed in self._sockets)

    def take(self, address: str) -> socket.socket | None:
        """The socket for an address; None where none was passed. Raises OSError for a name that was not passed, and for
        a socket that no TCP connection can come from.
        """
        name = address.removeprefix(BY_NAME) if address.startswith(BY_NAME) else None
        for its_name, passed in self._sockets:
            if _accepts(passed) and (its_name == name if name is not None else display(passed) == address):
                return passed
        if name is not None:
            there = ", ".join(name for name, _ in self._sockets) or "none"
            raise OSError(f"no TCP socket named {name!r} was passed by systemd; there are: {there}")
        return None


def _accepts(passed: socket.socket) -> bool:
    return (
        passed.family in (socket.AF_INET, socket.AF_INET6)
        and passed.type == socket.SOCK_STREAM
        and bool(passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )


def _leaves_ipv4(address: str, addresses: Iterable[str]) -> bool:
    """Whether [::], which has IPv4, too (ipv6(7)), is to leave it to a listener of IPv4 at the same port."""
    host, _, port = address.rpartition(":")
    others = (other.rpartition(":") for other in addresses if not other.startswith(BY_NAME))
    return host == "[::]" and port != "0" and any(":" not in other and number == port for other, _, number in others)


def _reuseport_socket(family: int, address: tuple[str, int], leaves_ipv4: bool) -> socket.socket:
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if leaves_ipv4:
            listener.setsockopt(*_ONLY_IPV6, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


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
