"""The packet's road: batches, backpressure, order, counters. A socket pair stands for the TUN device's descriptor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pytest

from masque_client.dataplane.forwarder import TUN_BATCH, Forwarder
from masque_client.http.stream import SessionStream
from masque_client.netio.clock import VirtualClock
from masque_client.netio.tun import TunDevice
from masque_client.protocol.session import Encapsulated


class Tun:
    """What the forwarder needs of a TUN device without offload; `host` is the kernel's side."""

    offload = False

    def __init__(self) -> None:
        self.host, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self.host.setblocking(False)
        self.batches: list[int] = []

    def fileno(self) -> int:
        return self._ours.fileno()

    def read_batch(self, limit: int = 64) -> list[bytes]:
        packets: list[bytes] = []
        while len(packets) < limit:
            try:
                packets.append(self._ours.recv(65536))
            except BlockingIOError:
                break
        self.batches.append(len(packets))
        return packets

    def write_batch(self, packets: list[bytes]) -> int:
        for packet in packets:
            self._ours.send(packet)
        return len(packets)

    def received_by_host(self) -> list[bytes]:
        packets: list[bytes] = []
        while True:
            try:
                packets.append(self.host.recv(65536))
            except BlockingIOError:
                return packets

    def close(self) -> None:
        self.host.close()
        self._ours.close()


class Stream:
    """A session stream whose queue has `room`; its session drops packets of `b"drop"` and answers `b"answer"`."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.sent: list[bytes] = []
        self.flushes = 0
        self.session = self

    def encapsulate(self, packets: list[bytes], now: float) -> Encapsulated:
        assert now == 7.0
        replies = [b"icmp" for packet in packets if packet == b"answer"]
        return Encapsulated([packet for packet in packets if packet not in (b"drop", b"answer")], replies)

    def send_payloads(self, packets: list[bytes]) -> int:
        taken = packets[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def flush(self) -> None:
        self.flushes += 1


@pytest.fixture
def tun() -> Iterator[Tun]:
    device = Tun()
    yield device
    device.close()


def forward(tun: Tun, stream: Stream, scenario: Callable[[Forwarder], Awaitable[None]]) -> Forwarder:
    """Run `scenario` with a started forwarder, which is stopped at the end."""

    async def main() -> Forwarder:
        forwarder = Forwarder(cast(TunDevice, tun), VirtualClock(7.0))
        forwarder.start(cast(SessionStream[Any], stream))
        await scenario(forwarder)
        forwarder.stop()
        return forwarder

    return asyncio.run(main())


async def turns(count: int = 3) -> None:
    """Let the loop look at its descriptors."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_outbound_packets_keep_their_order_and_are_flushed_once_a_batch(tun: Tun) -> None:
    stream, packets = Stream(), [bytes([n]) * 100 for n in range(20)]

    async def scenario(forwarder: Forwarder) -> None:
        for packet in packets:
            tun.host.send(packet)
        await turns()

    forwarder = forward(tun, stream, scenario)
    assert stream.sent == packets
    assert stream.flushes == 1
    assert (forwarder.traffic.packets_out, forwarder.traffic.bytes_out) == (20, 2000)


def test_no_batch_is_larger_than_the_limit(tun: Tun) -> None:
    stream = Stream()

    async def scenario(forwarder: Forwarder) -> None:
        for _ in range(TUN_BATCH + 10):
            tun.host.send(b"p")
        await turns(6)

    forward(tun, stream, scenario)
    assert max(tun.batches) == TUN_BATCH
    assert len(stream.sent) == TUN_BATCH + 10


def test_what_the_session_drops_is_not_sent_and_its_answers_go_to_the_host(tun: Tun) -> None:
    stream = Stream()

    async def scenario(forwarder: Forwarder) -> None:
        for packet in (b"drop", b"good", b"answer"):
            tun.host.send(packet)
        await turns()

    forwarder = forward(tun, stream, scenario)
    assert stream.sent == [b"good"]
    assert tun.received_by_host() == [b"icmp"]
    assert forwarder.traffic.packets_out == 1


def test_a_full_queue_stops_the_reading_and_nothing_is_lost_or_reordered(tun: Tun) -> None:
    stream, packets = Stream(room=3), [bytes([n]) for n in range(8)]

    async def scenario(forwarder: Forwarder) -> None:
        for packet in packets:
            tun.host.send(packet)
        await turns()
        assert stream.sent == packets[:3]
        tun.host.send(b"later")
        await turns()
        assert tun.batches == [8], "the device must not be read while packets wait"
        stream.room = 2
        forwarder.resume()
        await turns()
        assert stream.sent == packets[:5]
        stream.room = 100
        forwarder.resume()
        await turns()

    forwarder = forward(tun, stream, scenario)
    assert stream.sent == [*packets, b"later"]
    assert forwarder.traffic.packets_out == 9
    assert forwarder.traffic.bytes_out == 8 + 5


def test_inbound_packets_go_to_the_host(tun: Tun) -> None:
    async def scenario(forwarder: Forwarder) -> None:
        forwarder.deliver([b"one", b"three"])

    forwarder = forward(tun, Stream(), scenario)
    assert tun.received_by_host() == [b"one", b"three"]
    assert (forwarder.traffic.packets_in, forwarder.traffic.bytes_in) == (2, 8)


def test_what_the_host_answers_at_once_is_queued_for_the_flush_that_follows(tun: Tun) -> None:
    stream = Stream()

    async def scenario(forwarder: Forwarder) -> None:
        tun.host.send(b"acknowledgement")  # before the loop could look
        forwarder.deliver([b"data"])
        assert stream.sent == [b"acknowledgement"]
        assert stream.flushes == 0

    forwarder = forward(tun, stream, scenario)
    assert tun.received_by_host() == [b"data"]
    assert forwarder.traffic.packets_out == 1


def test_the_device_is_not_read_for_answers_while_packets_wait(tun: Tun) -> None:
    stream = Stream(room=1)

    async def scenario(forwarder: Forwarder) -> None:
        for packet in (b"1", b"2"):
            tun.host.send(packet)
        await turns()
        tun.host.send(b"3")
        forwarder.deliver([b"data"])
        assert tun.batches == [2]

    forward(tun, stream, scenario)
    assert stream.sent == [b"1"]


def test_after_stop_nothing_is_read_and_resuming_is_harmless(tun: Tun) -> None:
    stream = Stream()

    async def scenario(forwarder: Forwarder) -> None:
        forwarder.stop()
        forwarder.stop()
        tun.host.send(b"late")
        forwarder.resume()
        await turns()

    forward(tun, stream, scenario)
    assert stream.sent == []
    assert tun.batches == []
