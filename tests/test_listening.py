"""Listening sockets, kept and shared by port."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from gateway.service.listening import ListeningSockets, UnusableAddress, split
from tests.ports import free_port

LOOPBACK = "127.0.0.1:0"


@pytest.fixture
def sockets() -> Iterator[ListeningSockets]:
    opened = ListeningSockets(2)
    yield opened
    opened.keep_only(())


def connect(address: str) -> socket.socket:
    return socket.create_connection(split(address), timeout=10)


def reached(sockets: ListeningSockets, address: str) -> set[int]:
    """The slots whose sockets get some of 64 connections."""
    slots = set()
    for _ in range(64):
        with connect(address):
            for slot in (0, 1):
                (listener,) = sockets.of_slot([LOOPBACK], slot)
                listener.setblocking(False)
                try:
                    listener.accept()[0].close()
                except OSError:
                    continue
                slots.add(slot)
    return slots


def test_all_slots_share_the_port_that_the_first_one_got(sockets):
    sockets.open([LOOPBACK])
    (address,) = sockets.bound([LOOPBACK])
    assert {s.getsockname() for slot in (0, 1) for s in sockets.of_slot([LOOPBACK], slot)} == {split(address)}
    assert reached(sockets, address) == {0, 1}


def test_a_muted_slot_gets_no_connections_until_it_listens_again(sockets):
    sockets.open([LOOPBACK])
    (address,) = sockets.bound([LOOPBACK])
    sockets.mute(0)
    sockets.mute(0)
    assert reached(sockets, address) == {1}
    sockets.mute(1)
    with pytest.raises(ConnectionRefusedError):
        connect(address)
    sockets.listen(0)
    assert reached(sockets, address) == {0}
    sockets.listen(1)
    sockets.listen(1)
    assert reached(sockets, address) == {0, 1}


def test_an_address_that_stays_keeps_its_sockets(sockets):
    sockets.open([LOOPBACK])
    (address,) = sockets.bound([LOOPBACK])
    sockets.open([LOOPBACK, LOOPBACK])
    both = sockets.bound([LOOPBACK, LOOPBACK])
    assert both[0] == address != both[1]
    sockets.keep_only([LOOPBACK])
    connect(address).close()
    with pytest.raises(ConnectionRefusedError):
        connect(both[1])


def test_a_second_service_on_the_same_port_is_refused(sockets):
    sockets.open([LOOPBACK])
    (address,) = sockets.bound([LOOPBACK])
    with pytest.raises(UnusableAddress, match=f"cannot listen on {address}: Address already in use"):
        ListeningSockets(2).open([address])


def test_when_one_address_fails_none_is_opened(sockets):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnusableAddress, match=busy):
            sockets.open([LOOPBACK, busy])
    with pytest.raises(KeyError):
        sockets.bound([LOOPBACK])


def test_the_same_port_twice_is_refused(sockets):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UnusableAddress, match="already in use"):
        sockets.open([address, address])


def test_an_ipv6_address_is_written_with_brackets(sockets):
    sockets.open(["[::1]:0"])
    (address,) = sockets.bound(["[::1]:0"])
    assert address.startswith("[::1]:")
    connect(address).close()


def can_have_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def is_accepted_by(listeners: list[socket.socket], address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=10):
        for listener in listeners:
            listener.setblocking(False)
            try:
                listener.accept()[0].close()
            except OSError:
                continue
            return True
    return False


@pytest.mark.skipif(not can_have_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize("ipv4_first", [True, False])
def test_every_address_of_ipv6_leaves_ipv4_to_a_listener_that_has_it(sockets, ipv4_first):
    port = free_port()
    addresses = [f"0.0.0.0:{port}", f"[::]:{port}"]
    sockets.open(addresses if ipv4_first else addresses[::-1])
    ipv4, ipv6 = ([sockets.of_slot([one], slot)[0] for slot in (0, 1)] for one in addresses)
    assert is_accepted_by(ipv4, ("127.0.0.1", port))
    assert is_accepted_by(ipv6, ("::1", port))
