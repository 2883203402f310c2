"""The listener: what starts a connection, what is answered, and what a GRO train is taken apart for."""

from __future__ import annotations

import asyncio
import socket

import pytest

from masque_client.engine.interface import ReceivedBuffer
from masque_client.netio.clock import MonotonicClock
from masque_client.testing.certificates import CertificateAuthority
from masque_client.testing.quic_listener import QuicListener, _parts_with_one_id
from tests.unit.testing.proxy_client import TIMEOUT_S, bench

UNKNOWN_VERSION = 0x1A2A3A4A
HERE = ("192.0.2.1", 4433)


def short(connection_id: bytes, size: int = 100) -> bytes:
    return (b"\x40" + connection_id).ljust(size, b"\0")


def long(version: int = 1, *, packet_type: int = 0, size: int = 1200, source: bytes = b"sourceid") -> bytes:
    head = bytes([0xC0 | packet_type << 4]) + version.to_bytes(4) + b"\x08destinid\x08" + source
    return head.ljust(size, b"\0")


def test_train_of_one_connection_stays_whole() -> None:
    train = ReceivedBuffer(short(b"a" * 8) * 5 + short(b"a" * 8, 40), 100, HERE)
    assert list(_parts_with_one_id(train)) == [train]


@pytest.mark.parametrize("second", [short(b"b" * 8), long(size=100)])
def test_mixed_train_is_taken_apart(second: bytes) -> None:
    train = ReceivedBuffer(short(b"a" * 8) + second + short(b"a" * 8, 40), 100, HERE)
    parts = _parts_with_one_id(train)
    assert [part.data for part in parts] == [short(b"a" * 8), second, short(b"a" * 8, 40)]
    assert [part.segment_size for part in parts] == [100, 100, 40]


def test_train_of_long_headers_is_taken_apart() -> None:
    assert len(_parts_with_one_id(ReceivedBuffer(long() * 3, 1200, HERE))) == 3


def answers(*datagrams: bytes) -> list[bytes]:
    """What a listener answers to datagrams, none of which may start a connection."""

    async def run() -> list[bytes]:
        listener = QuicListener(
            [("127.0.0.1", 0)],
            lambda original_id, size: pytest.fail("a connection was made"),
            lambda stream, headers: pytest.fail("a request was made"),
            MonotonicClock(),
        )
        received: list[bytes] = []
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.connect(listener.addresses[0])
                for datagram in (*datagrams, long(UNKNOWN_VERSION, source=b"the last")):
                    client.send(datagram)
                while not received or b"the last" not in received[-1]:
                    answer = asyncio.get_running_loop().sock_recv(client, 2000)
                    received.append(await asyncio.wait_for(answer, TIMEOUT_S))
        finally:
            listener.close()
        return received[:-1]

    return asyncio.run(run())


@pytest.mark.parametrize(
    "datagram",
    [
        b"\x40",
        short(b"x" * 8),
        long(size=1199),
        long(UNKNOWN_VERSION, size=1199),
        long(packet_type=2),
        long(0),
        b"\xc0\0\0\0\1\x08short",
        (b"\xc0\0\0\0\1\x04four\x08sourceid").ljust(1200, b"\0"),
    ],
    ids=["one byte", "unknown id", "small", "small, unknown", "handshake", "negotiation", "cut", "short id"],
)
def test_what_is_ignored(datagram: bytes) -> None:
    assert answers(datagram) == []


def test_unknown_version_is_negotiated() -> None:
    (answer,) = answers(long(UNKNOWN_VERSION))
    assert answer[1:5] == bytes(4)
    assert answer[5:23] == b"\x08sourceid\x08destinid"  # swapped (RFC 9000 §17.2.1)
    assert answer[23:] == (1).to_bytes(4) + (0x6B3343CF).to_bytes(4)


def test_connections_share_a_listener_and_are_forgotten(tmp_path_factory: pytest.TempPathFactory) -> None:
    authority = CertificateAuthority.create(tmp_path_factory.mktemp("ca"))

    async def run() -> None:
        async with bench(authority) as running:
            listener = running.proxy.listener
            for _ in range(3):
                await running.connect()
            served = list(listener.connections)
            assert len(served) == 3
            for connection in running.connections:
                connection.close()
            assert all([await connection.wait_closed(TIMEOUT_S) for connection in served])
            assert listener.connections == set()
            assert listener._by_id == {}

    asyncio.run(run())
