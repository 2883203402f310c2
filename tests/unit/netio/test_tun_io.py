"""The device's system calls: both kernels, on a pair of sockets that keep the bounds of packets as a device does."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from masque_client.errors import HostError
from masque_client.netio import offload
from masque_client.netio.offload import python_kernel
from masque_client.netio.tun import TunCounters, TunDevice
from tests.unit.netio.segments import NO_HEADER, Packet, payload

LONE = NO_HEADER + bytes(Packet(payload(54)))
SUPER = Packet(payload(64_000)).super_packet(1300)  # 50 packets
SUPER_BYTES = 64_000 + 50 * 40
TOO_LARGE = bytes(3_000_000)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The device's end, whose descriptor the functions get, and the host's."""
    device, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with device, host:
        for end in (device, host):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
        yield device, host


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """A descriptor that cannot be read: EISDIR, as a device that was deleted says EBADFD."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def closed() -> int:
    """The number of a descriptor that is open no more."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_nothing_there_is_no_error(kernel: ModuleType, pair: Pair, packed: bool) -> None:
    assert kernel.read_buffers(pair[0].fileno(), 64, packed) == ([], 0, 0, 0, 0)


def test_buffers_come_in_order_and_are_counted(kernel: ModuleType, pair: Pair) -> None:
    device, host = pair
    for buffer in (LONE, SUPER, LONE):
        host.send(buffer)
    expected = ([LONE, SUPER, LONE], 52, SUPER_BYTES + 2 * 94, 1, 0)
    assert kernel.read_buffers(device.fileno(), 64, True) == expected


def test_without_offload_a_buffer_is_a_packet(kernel: ModuleType, pair: Pair) -> None:
    device, host = pair
    for buffer in (SUPER, b"x"):
        host.send(buffer)
    assert kernel.read_buffers(device.fileno(), 64, False) == ([SUPER, b"x"], 2, len(SUPER) + 1, 0, 0)


def test_the_limit_counts_packets_and_the_last_buffer_is_whole(kernel: ModuleType, pair: Pair) -> None:
    device, host = pair
    for buffer in (LONE, SUPER, LONE):
        host.send(buffer)
    read = [kernel.read_buffers(device.fileno(), limit, True) for limit in (0, 1, 2, 2)]
    assert [buffers for buffers, *_ in read] == [[], [LONE], [SUPER], [LONE]]


def test_the_largest_super_packet_is_read_whole(kernel: ModuleType, pair: Pair) -> None:
    device, host = pair
    largest = Packet(payload(65_495)).super_packet(1300)
    assert len(largest) == 10 + 65_535
    host.send(largest)
    assert kernel.read_buffers(device.fileno(), 64, True)[0] == [largest]


def test_what_ended_the_reading_is_told(kernel: ModuleType, directory: int, closed: int) -> None:
    assert kernel.read_buffers(directory, 64, True) == ([], 0, 0, 0, errno.EISDIR)
    assert kernel.read_buffers(closed, 64, True) == ([], 0, 0, 0, errno.EBADF)
    assert kernel.read_buffers(-1, 64, False) == ([], 0, 0, 0, errno.EBADF)


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_nothing_to_write(kernel: ModuleType, pair: Pair, packed: bool) -> None:
    assert kernel.write_buffers(pair[0].fileno(), [], packed) == (0, 0, 0, 0, 0)


def test_buffers_go_in_order_and_are_counted(kernel: ModuleType, pair: Pair) -> None:
    device, host = pair
    assert kernel.write_buffers(device.fileno(), (LONE, SUPER), True) == (51, 94 + SUPER_BYTES, 1, 0, 0)
    assert [host.recv(70_000) for _ in range(2)] == [LONE, SUPER]
    assert kernel.write_buffers(device.fileno(), [SUPER, b"x"], False) == (2, len(SUPER) + 1, 0, 0, 0)
    assert [host.recv(70_000) for _ in range(2)] == [SUPER, b"x"]


def test_what_is_refused_is_dropped_and_the_rest_goes(kernel: ModuleType, pair: Pair) -> None:
    device, host = pair
    assert kernel.write_buffers(device.fileno(), [LONE, NO_HEADER + TOO_LARGE, LONE], True) == (2, 188, 0, 1, 0)
    assert [host.recv(70_000) for _ in range(2)] == [LONE, LONE]
    host.close()
    assert kernel.write_buffers(device.fileno(), [LONE, SUPER], True) == (0, 0, 0, 51, 0)


def test_a_closed_descriptor_ends_the_writing(kernel: ModuleType, closed: int) -> None:
    assert kernel.write_buffers(closed, [LONE, SUPER], True) == (0, 0, 0, 0, errno.EBADF)


# --- what is no buffer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [[None], ["text"], [1], None, 7])
def test_what_is_no_bytes_is_a_type_error(kernel: ModuleType, pair: Pair, wrong: object) -> None:
    for packed in (True, False):
        with pytest.raises(TypeError):
            kernel.write_buffers(pair[0].fileno(), wrong, packed)


@pytest.mark.parametrize("wrong", [[None], [1], None, 7])
def test_what_is_no_bytes_cannot_be_measured(kernel: ModuleType, wrong: object) -> None:
    with pytest.raises(TypeError):
        kernel.measure(wrong)


@pytest.mark.parametrize("arguments", [(), (None, 1, True), ("1", 1, True), (0, None, True)])
def test_a_wrong_call_is_a_type_error(kernel: ModuleType, arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        kernel.read_buffers(*arguments)


# --- the device over either kernel ----------------------------------------------------------------------------------


@pytest.fixture
def chosen(kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in python_kernel.__all__:
        monkeypatch.setattr(offload, name, getattr(kernel, name))


@pytest.mark.usefixtures("chosen")
def test_the_device_counts_what_crossed(pair: Pair) -> None:
    device, host = pair
    tun = TunDevice(device.fileno(), "tun0", offload=True)
    host.send(SUPER)
    packets = tun.read_batch()
    assert len(packets) == 50
    assert tun.write_batch(packets) == 50
    assert host.recv(70_000) == SUPER
    host.close()
    assert tun.write_super_packets([SUPER, LONE]) == 0
    assert tun.counters == TunCounters(50, SUPER_BYTES, 50, SUPER_BYTES, 51, 1, 1)


@pytest.mark.usefixtures("chosen")
def test_a_device_that_is_gone_is_said_plainly(directory: int) -> None:
    with pytest.raises(HostError, match="tun0 is gone: Is a directory") as caught:
        TunDevice(directory, "tun0").read_batch()
    assert isinstance(caught.value.__cause__, IsADirectoryError)


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("packed", [True, False])
def test_a_closed_device_is_our_mistake(packed: bool) -> None:
    tun = TunDevice(-1, "tun0", offload=packed)
    for use in (tun.read_batch, lambda: tun.write_batch([bytes(Packet(b"x"))])):
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            use()
        assert not isinstance(caught.value, HostError)
