"""The UDP service and its client, on loopback, also with losses in between."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import pytest

from masque_client.engine.interface import Address
from tests.interop import reliable_udp
from tests.interop.model import CellFailed


@pytest.fixture(scope="module")
def service() -> Iterator[Address]:
    service = reliable_udp.Service(("127.0.0.1", 0))
    thread = threading.Thread(target=service.serve)
    thread.start()
    yield service.address
    service.close()
    thread.join()


@pytest.fixture
def lossy(service: Address) -> Iterator[Address]:
    """A relay to the service for one client; loses a tenth of what it carries, each way."""
    chance = random.Random(1)
    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    near.bind(("127.0.0.1", 0))
    far.connect(service)
    clients: list[Address] = []

    def inward() -> None:
        while True:
            data, client = near.recvfrom(65535)
            if not data:
                return
            clients[:] = [client]
            if chance.random() > 0.1:
                far.send(data)

    def outward() -> None:
        while data := far.recv(65535):
            if chance.random() > 0.1:
                near.sendto(data, clients[0])

    threads = [threading.Thread(target=each) for each in (inward, outward)]
    for thread in threads:
        thread.start()
    yield near.getsockname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as goodbye:
        goodbye.sendto(b"", near.getsockname())
    threads[0].join()
    far.send(b"")  # it is echoed
    threads[1].join()
    near.close()
    far.close()


@pytest.mark.parametrize("size", [0, 1, 1199])
def test_echo(service: Address, size: int) -> None:
    reliable_udp.echo(service, bytes(size))


def test_transfers(service: Address) -> None:
    assert reliable_udp.upload(service, 1_234_567) > 0
    assert reliable_udp.download(service, 2_345_678) > 0


def test_transfers_survive_losses(lossy: Address) -> None:
    assert reliable_udp.upload(lossy, 123_456) > 0
    assert reliable_udp.download(lossy, 123_456) > 0


def test_silence_is_a_failure() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(CellFailed, match="no answer to 6 bytes"):
            reliable_udp.echo(silent.getsockname(), b"hello", tries=2, wait_s=0.05)
        with pytest.raises(CellFailed, match="0 of 10 pieces"):
            reliable_udp.download(silent.getsockname(), 10 * reliable_udp.PIECE_BYTES, patience_s=0.2)


def test_a_wrong_byte_is_noticed(service: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliable_udp, "_piece", lambda sequence, size: bytes(size))
    with pytest.raises(CellFailed, match="SHA-256 differs"):
        reliable_udp.download(service, 10_000)


def test_the_largest_inbound_packet(service: Address) -> None:
    assert reliable_udp.inbound_mtu(service, packet_bytes=1500) == 1500
