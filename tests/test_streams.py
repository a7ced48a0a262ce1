"""Streams at real sockets: what arrives and goes out, back-pressure, ends of all kinds, a bad day of the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from gateway import _fastpath as fp
from gateway.net import streams
from gateway.net.outbox import Outbox
from gateway.net.streams import MOST_ACCEPTED, Acceptor, Poller, Protocol, Source, Stream

Main = Coroutine[Any, Any, None]
PATIENCE = 20.0
MANY = 5 * 1024 * 1024  # octets; more than the kernel takes at once
LARGE = b"".join(b"%d\r\n" % n for n in range(MANY // 8))


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main: Main) -> None:
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(asyncio.wait_for(main, PATIENCE))

    return runner


class Recorder(Protocol):
    """What a stream told; `inside` is True during calls."""

    def __init__(self, stays: bool = False) -> None:
        self.received = bytearray()
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.on_data: Callable[[], None] = lambda: None
        self.inside = False
        self._stays = stays
        self._changed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.inside = True
        try:
            self.on_data()
        finally:
            self.inside = False
        self._changed.set()

    def eof_received(self) -> bool:
        self._note("eof")
        return self._stays

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.inside
        self.error = exc
        self._note("lost")

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._changed.set()

    async def until(self, what: Callable[[], bool]) -> None:
        while not what():
            self._changed.clear()
            await self._changed.wait()

    async def told(self, call: str) -> None:
        await self.until(lambda: call in self.calls)


class Service:
    """A poller, a listener, and what it accepted."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.loop = asyncio.get_running_loop()
        self.poller = Poller(self.loop)
        self.socket = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.gone = 0
        self.listener = Acceptor(self.poller, self.socket, self.accept, self.lose)
        self.address = self.socket.getsockname()
        self.accepted: asyncio.Queue[Stream] = asyncio.Queue()
        self.peers: list[socket.socket] = []

    def accept(self, stream: Stream) -> None:
        self.accepted.put_nowait(stream)

    def lose(self) -> None:
        self.gone += 1

    def call(self) -> socket.socket:
        """A socket connected to the listener, which does not know of it yet."""
        peer = socket.create_connection(self.address[:2])
        peer.setblocking(False)
        self.peers.append(peer)
        return peer

    def end(self) -> socket.socket:
        """The listener's end of a new connection, which is the last of `peers`; no stream has it."""
        self.call()
        return socket.socket(fileno=fp.accept(self.socket.fileno())[0])

    async def pair(self, recorder: Protocol | None = None) -> tuple[Stream, socket.socket]:
        peer = self.call()
        stream = await self.accepted.get()
        if recorder is not None:
            stream.set_protocol(recorder)
        return stream, peer

    async def read(self, peer: socket.socket, size: int = 1 << 30) -> bytes:
        """What the peer gets: so many octets, or all up to the end."""
        received = bytearray()
        while len(received) < size and (data := await self.loop.sock_recv(peer, 1 << 20)):
            received += data
        return bytes(received)


@contextlib.asynccontextmanager
async def service(host: str = "127.0.0.1") -> AsyncIterator[Service]:
    made = Service(host)
    try:
        yield made
    finally:
        made.listener.close()
        for peer in made.peers:
            peer.close()
        made.poller.close()


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


# --- the good day -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.112.9.200", "::1"])
def test_octets_come_and_go_and_both_ends_know_their_addresses(run, host: str) -> None:
    async def main() -> None:
        async with service(host) as here:
            recorder = Recorder()
            stream, peer = await here.pair(recorder)
            assert stream.peer == peer.getsockname()[:2]
            assert stream.local_address() == peer.getpeername()[:2]
            peer.send(b"question")
            await recorder.until(lambda: recorder.received == b"question")
            stream.write(b"ans")
            stream.write(b"")
            stream.writelines([b"w", b"", b"er"])
            stream.writelines([])
            assert await here.read(peer, 6) == b"answer"

    run(main())


@pytest.mark.parametrize("size", [100 * 1024, MANY])
def test_a_large_content_arrives_whole(run, size: int) -> None:
    async def main() -> None:
        async with service() as here:
            recorder = Recorder()
            _, peer = await here.pair(recorder)
            await here.loop.sock_sendall(peer, LARGE[:size])
            peer.shutdown(socket.SHUT_WR)
            await recorder.told("lost")
            assert recorder.received == LARGE[:size]
            assert recorder.calls == ["eof", "lost"]

    run(main())


def test_small_packets_are_sent_at_once_because_the_listener_says_so_for_all(run) -> None:
    async def main() -> None:
        async with service() as here:
            with here.end() as sock:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                assert not os.get_blocking(sock.fileno()) and not sock.get_inheritable()

    run(main())


def test_what_a_turn_leads_to_follows_behind_all_that_it_has_read(run) -> None:
    async def main() -> None:
        async with service() as here:
            order: list[str] = []
            recorders = [Recorder(), Recorder()]
            peers = [(await here.pair(recorder))[1] for recorder in recorders]
            outbox = Outbox(here.poller.call_soon)
            for recorder in recorders:
                recorder.on_data = lambda: (order.append("read"), outbox.afterwards(lambda: order.append("write")))
            for peer in peers:
                peer.send(b"x")
            for recorder in recorders:
                await recorder.until(lambda received=recorder.received: bool(received))
            assert order == ["read", "read", "write", "write"]

    run(main())


class Broken(Source):
    """Fails as no source does; what was to follow its turn was noted before."""

    def __init__(self, poller: Poller, first: Callable[[], None]) -> None:
        self._poller = poller
        self._first = first

    def ready(self, readable: bool, writable: bool) -> None:
        self._poller.call_soon(self._first)
        raise RuntimeError("our own fault")


def test_a_turn_that_fails_has_its_end_all_the_same(run) -> None:
    async def main() -> None:
        async with service() as here:
            failures: list[object] = []
            here.loop.set_exception_handler(lambda loop, context: failures.append(context["exception"]))
            ended = asyncio.Event()
            fd = here.end().detach()
            peer = here.peers[0]
            here.poller.watch(fd, Broken(here.poller, ended.set), True, False)
            peer.send(b"x")
            await ended.wait()
            here.poller.watch(fd, Source(), False, False)
            os.close(fd)
            assert {str(failure) for failure in failures} == {"our own fault"}
            recorder = Recorder()
            _, peer = await here.pair(recorder)
            peer.send(b"y")
            await recorder.until(lambda: recorder.received == b"y")

    run(main())


# --- back-pressure ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [[LARGE], [LARGE[at : at + 1000] for at in range(0, len(LARGE), 1000)]], ids=len)
def test_what_the_kernel_does_not_take_follows_when_the_peer_reads(run, chunks: list[bytes]) -> None:
    async def main() -> None:
        async with service() as here:
            recorder = Recorder()
            stream, peer = await here.pair(recorder)
            stream.set_write_buffer_limits(0)
            given = list(chunks)
            stream.writelines(given)
            assert recorder.calls == ["pause"]
            stream.write(b"behind")
            stream.writelines([b" ", b"it"])
            assert await here.read(peer, len(LARGE) + 9) == LARGE + b"behind it"
            await recorder.told("resume")
            assert recorder.calls == ["pause", "resume"]
            assert given == chunks

    run(main())


def test_a_stream_that_does_not_read_leaves_octets_and_the_end_to_the_kernel(run) -> None:
    async def main() -> None:
        async with service() as here:
            recorder, other = Recorder(), Recorder()
            stream, peer = await here.pair(recorder)
            stream.pause_reading()
            peer.send(b"later")
            peer.shutdown(socket.SHUT_WR)
            _, neighbour = await here.pair(other)
            neighbour.send(b"now")
            await other.until(lambda: other.received == b"now")
            assert (recorder.received, recorder.calls) == (b"", [])
            stream.resume_reading()
            await recorder.told("lost")
            assert (recorder.received, recorder.calls) == (b"later", ["eof", "lost"])

    run(main())


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_client_that_has_said_all_still_gets_its_answer(run) -> None:
    async def main() -> None:
        async with service() as here:
            recorder = Recorder(stays=True)
            stream, peer = await here.pair(recorder)
            peer.shutdown(socket.SHUT_WR)
            await recorder.told("eof")
            stream.write(b"answer")
            assert recorder.calls == ["eof"]
            stream.close()
            assert await here.read(peer) == b"answer"
            await recorder.told("lost")

    run(main())


def test_our_end_comes_behind_what_was_written_and_the_peer_may_go_on(run) -> None:
    async def main() -> None:
        async with service() as here:
            recorder = Recorder()
            stream, peer = await here.pair(recorder)
            stream.write(LARGE)
            stream.write_eof()
            stream.write(b"too late")
            assert await here.read(peer) == LARGE
            peer.send(b"thanks")
            await recorder.until(lambda: recorder.received == b"thanks")
            stream.write_eof()
            assert "lost" not in recorder.calls

    run(main())


def test_closing_waits_for_what_was_written_and_reads_no_more(run) -> None:
    async def main() -> None:
        async with service() as here:
            recorder = Recorder()
            stream, peer = await here.pair(recorder)
            stream.write(LARGE)
            stream.close()
            stream.resume_reading()
            stream.write(b"too late")
            assert await here.read(peer) == LARGE
            await recorder.told("lost")
            assert recorder.calls == ["pause", "resume", "lost"]
            assert recorder.error is None

    run(main())


@pytest.mark.parametrize("end", [Stream.close, Stream.abort])
def test_the_end_is_told_once_and_never_from_within_a_call(run, end: Callable[[Stream], None]) -> None:
    async def main() -> None:
        async with service() as here:
            inside, outside = Recorder(), Recorder()
            stream, peer = await here.pair(inside)

            def end_it() -> None:
                end(stream)
                stream.write(b"x")
                end(stream)

            inside.on_data = end_it
            peer.send(b"end yourself")
            await inside.told("lost")
            stream, _ = await here.pair(outside)
            end(stream)
            end(stream)
            assert outside.calls == []
            await outside.told("lost")
            assert inside.calls == outside.calls == ["lost"]

    run(main())


def test_a_peer_that_resets_ends_what_is_being_written_to_it(run) -> None:
    async def main() -> None:
        async with service() as here:
            recorder = Recorder()
            stream, peer = await here.pair(recorder)
            stream.write(LARGE)
            reset(peer)
            await recorder.told("lost")
            assert isinstance(recorder.error, ConnectionError)
            assert recorder.calls == ["pause", "lost"]

    run(main())


def test_a_reset_shows_when_one_reads_or_writes(run) -> None:
    async def main() -> None:
        async with service() as here:
            reading, writing = Recorder(), Recorder()
            _, peer = await here.pair(reading)
            reset(peer)
            await reading.told("lost")
            stream, peer = await here.pair(writing)
            stream.pause_reading()
            reset(peer)
            stream.write(b"x")
            assert writing.calls == []
            await writing.told("lost")
            assert isinstance(reading.error, ConnectionError) and isinstance(writing.error, ConnectionError)

    run(main())


# --- a bad day --------------------------------------------------------------------------------------------------------


def test_a_fault_of_ours_ends_one_connection_and_leaves_a_traceback(run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with service() as here:
            broken, sound = Recorder(), Recorder()
            _, first = await here.pair(broken)
            _, second = await here.pair(sound)
            broken.on_data = [].pop
            first.send(b"x")
            second.send(b"x")
            await broken.told("lost")
            assert await here.read(first) == b""
            await sound.until(lambda: sound.received == b"x")
            assert "pop from empty list" in caplog.text

    run(main())


def test_a_fault_of_ours_on_a_new_connection_closes_it_and_the_next_is_accepted(run, caplog, monkeypatch) -> None:
    async def main() -> None:
        async with service() as here:
            accepted = here.accepted
            here.accepted = None
            peer = here.call()
            assert await here.read(peer) == b""
            assert "internal error on a new connection" in caplog.text
            here.accepted = accepted
            await here.pair(Recorder())

    run(main())


def test_an_event_of_a_closed_socket_is_not_its_successors(run) -> None:
    async def main() -> None:
        async with service() as here:
            first, second, successor = Recorder(), Recorder(), Recorder()
            heirs = []
            ends = [here.end() for _ in range(3)]
            streams_ = [Stream(here.poller, os.dup(sock.fileno()), ("", 0)) for sock in ends[:2]]

            def replace() -> None:
                if not heirs:
                    other = streams_[1] if first.received else streams_[0]
                    other.abort()
                    heirs.append(Stream(here.poller, os.dup(ends[2].fileno()), ("", 0)))
                    heirs[0].set_protocol(successor)

            for stream, recorder, sock in zip(streams_, (first, second), ends, strict=False):
                stream.set_protocol(recorder)
                recorder.on_data = replace
                sock.close()
            for peer in here.peers[:2]:
                peer.send(b"at once")
            while not heirs:
                await asyncio.sleep(0)
            here.peers[2].send(b"heir")
            await successor.until(lambda: successor.received == b"heir")
            assert successor.calls == []
            assert len(first.received) + len(second.received) == len(b"at once")
            ends[2].close()

    run(main())


def test_a_connection_that_was_reset_meanwhile_is_counted_and_nobodys(run) -> None:
    async def main() -> None:
        async with service() as here:
            for _ in range(3):
                reset(here.call())
            waiting = here.call()
            stream = await here.accepted.get()
            assert stream.peer == waiting.getsockname()
            assert here.accepted.empty()
            assert here.gone == 3
            stream.abort()

    run(main())


def test_a_crowd_is_accepted_a_few_at_a_time_and_who_is_there_has_its_turn_between(run) -> None:
    async def main() -> None:
        async with service() as here:
            recorder = Recorder()
            _, peer = await here.pair(recorder)
            crowd = 2 * MOST_ACCEPTED + 1
            for _ in range(crowd):
                here.call()
            before: list[int] = []
            recorder.on_data = lambda: before.append(here.accepted.qsize())
            peer.send(b"x")
            await recorder.until(lambda: recorder.received == b"x")
            assert before[0] <= MOST_ACCEPTED
            for _ in range(crowd):
                (await here.accepted.get()).abort()

    run(main())


def test_without_descriptors_accepting_rests_and_goes_on(run, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with service() as here:
            monkeypatch.setattr(streams, "REST", 0.01)
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            here.call()
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
            try:
                while "cannot accept connections, trying again" not in caplog.text:
                    await asyncio.sleep(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            await here.accepted.get()

    run(main())


# --- closing ----------------------------------------------------------------------------------------------------------


def test_a_closed_listener_accepts_nothing_and_other_processes_socket_goes_on(run) -> None:
    async def main() -> None:
        async with service() as here:
            supervisors = here.socket.dup()
            here.listener.close()
            here.listener.close()
            here.call()
            await asyncio.sleep(0)
            assert here.accepted.empty()
            supervisors.setblocking(True)
            supervisors.accept()[0].close()
            supervisors.close()

    run(main())


# --- the system calls -------------------------------------------------------------------------------------------------


def test_having_to_wait_is_no_error_and_a_broken_socket_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        listener.setblocking(False)
        fd, address = fp.accept(listener.fileno())
        assert address == peer.getsockname()
        assert fp.accept(listener.fileno()) is None
        assert fp.receive(fd) is None
        while fp.send(fd, LARGE):
            pass
        assert fp.send_chunks(fd, [b"x"], 0) == 0
        fp.close(fd)
        for call in (fp.accept, fp.receive, fp.local_address, fp.shut_down, lambda fd: fp.send(fd, b"x")):
            with pytest.raises(OSError, match="Bad file descriptor"):
                call(fd)


@pytest.mark.parametrize("start", [-1, 4])
def test_a_start_outside_of_the_first_chunk_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match="first chunk"):
        fp.send_chunks(0, [b"abc"], start)


def test_only_events_that_happened_can_be_asked_for() -> None:
    epoll = fp.Epoll()
    assert epoll.wait() == 0
    for ask in (epoll.descriptor, epoll.readable, epoll.writable):
        with pytest.raises(IndexError):
            ask(0)
    epoll.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        epoll.wait()
