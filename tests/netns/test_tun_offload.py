"""TUN offload on the real kernel: what it cuts and merges must be what it would have sent and taken one by one.

    left ─ tun0 ═ bridge, packet by packet ═ tun0 ─ right

A plain device takes only packets whose checksums are complete: offload on one side proves the segments of the other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from masque_client.netio import offload, tun_setup
from masque_client.netio.offload import python_kernel
from masque_client.netio.tun import TunDevice
from masque_client.testing.netns import Lab, Namespace
from tests.netns.bridge import MTU, Bridge, attach, transfer
from tests.netns.test_tun import READY_WITHIN_S, answer, read
from tests.unit.netio.segments import CWR, ECE, Packet, payload, spoil

pytestmark = pytest.mark.netns

UDP_SEGMENT = 103
IPV6_DSTOPTS = 59
TWO_MB = 2_000_000


@pytest.fixture(autouse=True)
def worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offload also where only the kernel in Python is installed: slow, but it must work."""
    monkeypatch.setattr(offload, "IS_WORTHWHILE", True)


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in python_kernel.__all__:
        monkeypatch.setattr(offload, name, getattr(python_kernel, name))


@pytest.fixture
def left(lab: Lab) -> Namespace:
    return lab.namespace("left")


@pytest.fixture
def right(lab: Lab) -> Namespace:
    return lab.namespace("right")


@pytest.fixture
def tun(right: Namespace) -> Iterator[TunDevice]:
    device = attach(right, 2, offload=True)
    yield device
    device.close()


def checksum_errors(namespace: Namespace, protocol: str) -> int:
    with namespace.entered():
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith(f"{protocol}:"))
    return int(values[names.index("InCsumErrors")])


def send_train(namespace: Namespace, size: int, count: int) -> None:
    """`count` UDP datagrams in one system call, from 192.0.2.2 to 192.0.2.1."""
    with namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        program.sendto(payload(size * count), ("192.0.2.1", 4000))


# --- TCP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("offloads", [(True, True), (True, False), (False, True)], ids=["both", "sender", "receiver"])
def test_tcp_arrives_whole(left: Namespace, right: Namespace, offloads: tuple[bool, bool], address: str) -> None:
    near, far = attach(left, 1, offload=offloads[0]), attach(right, 2, offload=offloads[1])
    with Bridge(near, far) as bridge:
        transfer(left, right, address, TWO_MB)
    assert bridge.largest <= MTU
    assert (near.counters.super_packets_read > 0, far.counters.super_packets_written > 0) == offloads
    for device in (near, far):
        device.close()


@pytest.mark.usefixtures("in_python")
def test_tcp_arrives_whole_without_the_compiled_kernel(left: Namespace, right: Namespace) -> None:
    near, far = attach(left, 1, offload=True), attach(right, 2, offload=True)
    with Bridge(near, far):
        transfer(left, right, "192.0.2.2", TWO_MB)
    assert far.counters.super_packets_written > 0
    near.close()
    far.close()


def test_few_crossings_carry_many_packets(left: Namespace, right: Namespace) -> None:
    near, far = attach(left, 1, offload=True), attach(right, 2, offload=True)
    with Bridge(near, far):
        transfer(left, right, "192.0.2.2", TWO_MB)
    counters = near.counters
    assert counters.packets_read > 5 * counters.super_packets_read > 0
    assert counters.bytes_read > TWO_MB
    assert (far.counters.packets_written, far.counters.bytes_written) == (counters.packets_read, counters.bytes_read)
    assert far.counters.write_drops == 0
    near.close()
    far.close()


def test_congestion_marks_and_their_echo_survive(left: Namespace, right: Namespace) -> None:
    """Classic ECN (RFC 3168): a mark here and there, its echo, and the one segment that says it was heard."""
    for namespace in (left, right):
        namespace.sysctl("net.ipv4.tcp_ecn", 1)
    near, far = attach(left, 1, offload=True), attach(right, 2, offload=True)
    seen = {"packets": 0, "marked": 0, "echoed": 0, "heard": 0}

    def mark(source: TunDevice, packets: list[bytes]) -> list[bytes]:
        result = []
        for packet in packets:
            flags = packet[53]
            if source is near:
                seen["packets"] += 1
                seen["heard"] += flags & (CWR | ECE) == CWR
                if packet[1] & 0x30 and seen["packets"] % 50 == 0:
                    seen["marked"] += 1
                    packet = packet[:1] + bytes([packet[1] | 0x30]) + packet[2:]
            else:
                seen["echoed"] += flags & ECE != 0
            result.append(packet)
        return result

    with Bridge(near, far, mark):
        transfer(left, right, "2001:db8::2", TWO_MB)
    assert all(seen.values()), seen
    assert far.counters.super_packets_written > 0
    near.close()
    far.close()


def test_behind_ipv6_extension_headers_nothing_is_merged(left: Namespace, right: Namespace) -> None:
    near, far = attach(left, 1, offload=True), attach(right, 2, offload=True)
    options = b"\0\0\x01\x04" + bytes(4)

    def prepare(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_IPV6, IPV6_DSTOPTS, options)

    next_headers: set[int] = set()

    def look(source: TunDevice, packets: list[bytes]) -> list[bytes]:
        if source is near:  # without data may be from the kernel, for a connection whose socket is gone: no options
            next_headers.update(packet[6] for packet in packets if len(packet) > 200)
        return packets

    with Bridge(near, far, look):
        transfer(left, right, "2001:db8::2", 300_000, prepare)
    assert next_headers == {60}
    assert far.counters.super_packets_written == 0
    near.close()
    far.close()


def test_segments_follow_the_mtu(left: Namespace, right: Namespace) -> None:
    near, far = attach(left, 1, offload=True), attach(right, 2, offload=True)
    with Bridge(near, far) as bridge:
        transfer(left, right, "2001:db8::2", TWO_MB)
        assert bridge.largest == MTU
        left.ip("link", "set", "tun0", "mtu", "1280")
        bridge.largest = 0
        transfer(left, right, "2001:db8::2", TWO_MB)
    assert bridge.largest == 1280
    near.close()
    far.close()


# --- UDP ------------------------------------------------------------------------------------------------------------


def test_udp_trains_cross_at_once(right: Namespace, tun: TunDevice) -> None:
    if not tun.merges_udp:
        pytest.skip("NEEDS Linux 6.2: this kernel has no TUN_F_USO4")
    with right.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.settimeout(READY_WITHIN_S)
        program.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        program.sendto(payload(9_500), ("192.0.2.1", 4000))
        assert select.select([tun], [], [], READY_WITHIN_S)[0]
        [super_packet] = tun.read_super_packets()
        assert offload.measure([super_packet]) == (10, 9_500 + 10 * 28)
        packets = offload.segment([super_packet])
        assert b"".join(packet[28:] for packet in packets) == payload(9_500)

        assert tun.write_batch([answer(packet) for packet in packets]) == 10
        assert [len(program.recv(2000)) for _ in packets] == [1000] * 9 + [500]
    assert (tun.counters.super_packets_read, tun.counters.super_packets_written) == (1, 1)
    assert (tun.counters.packets_read, tun.counters.packets_written) == (10, 10)
    assert tun.counters.bytes_read == tun.counters.bytes_written == 9_780


@pytest.mark.parametrize("is_tcp", [True, False], ids=["tcp", "udp"])
def test_the_kernel_refuses_what_is_damaged(right: Namespace, tun: TunDevice, is_tcp: bool) -> None:
    """A wrong checksum must not become right by merging."""
    train = Packet(payload(4000), source="192.0.2.1", destination="192.0.2.2", is_tcp=is_tcp).cut(1000)
    train[1] = spoil(train[1], -1)
    assert tun.write_batch(train) == 4
    assert tun.counters.super_packets_written == int(is_tcp or tun.merges_udp)
    assert checksum_errors(right, "Tcp" if is_tcp else "Udp") == 1


def test_datagrams_around_a_damaged_one_arrive(right: Namespace, tun: TunDevice) -> None:
    with right.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.bind(("192.0.2.2", 443))
        program.settimeout(READY_WITHIN_S)
        data = payload(4000)
        train = Packet(data, source="192.0.2.1", destination="192.0.2.2", is_tcp=False).cut(1000)
        train[2] = spoil(train[2], -1)
        tun.write_batch(train)
        assert [program.recv(2000) for _ in range(3)] == [data[:1000], data[1000:2000], data[3000:]]


# --- devices --------------------------------------------------------------------------------------------------------


def test_without_offload_packets_cross_one_by_one(right: Namespace) -> None:
    tun = attach(right, 2, offload=False)
    assert (tun.offload, tun.merges_udp, tun.offload_kind) == (False, False, "off")
    send_train(right, 1000, 5)
    assert [len(packet) for packet in read(tun, 5)] == [1028] * 5
    assert tun.counters.super_packets_read == 0
    tun.close()


def test_a_limit_ends_reading_with_the_super_packet_that_reaches_it(right: Namespace, tun: TunDevice) -> None:
    if not tun.merges_udp:
        pytest.skip("NEEDS Linux 6.2: this kernel has no TUN_F_USO4")
    for _ in range(3):
        send_train(right, 1000, 5)
    assert [len(tun.read_batch(limit=6)) for _ in range(3)] == [10, 5, 0]


@pytest.mark.parametrize("died", [True, False], ids=["died", "closed"])
def test_a_persistent_device_is_left_plain(right: Namespace, monkeypatch: pytest.MonkeyPatch, died: bool) -> None:
    """Whoever opens it next may not ask for super-packets, and must not be given any."""
    right.ip("tuntap", "add", "dev", "pre0", "mode", "tun")
    with right.entered():
        first = TunDevice.open("pre0", attach=True)
        assert first.offload
        if died:
            os.close(first.fileno())
        else:
            first.close()
            monkeypatch.setattr(tun_setup, "leave_plain", lambda _: None)
        second = TunDevice.open("pre0", attach=True, offload=False)
    right.ip("address", "add", "192.0.2.2/24", "dev", "pre0")
    right.ip("link", "set", "pre0", "up")
    send_train(right, 1000, 5)
    packets = [packet for packet in read(second, 5) if packet[0] == 0x45]
    assert [len(packet) for packet in packets] == [1028] * len(packets)
    second.close()


@pytest.mark.parametrize(
    ("request_code", "bits", "offloads"),
    [(0x4004_54CA, 0x4000, (False, False)), (0x4004_54D0, 0xFF, (False, False)), (0x4004_54D0, 0x60, (True, False))],
    ids=["no virtio header", "no offload", "no UDP"],
)
def test_older_kernels_get_what_they_know(
    right: Namespace,
    monkeypatch: pytest.MonkeyPatch,
    request_code: int,
    bits: int,
    offloads: tuple[bool, bool],
) -> None:
    real = fcntl.ioctl

    def refuse(descriptor: int, code: int, argument: bytes | int) -> bytes | int:
        flags = argument if isinstance(argument, int) else int.from_bytes(argument[16:18], "little")
        if code == request_code and flags & bits:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, code, argument)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "ioctl", refuse)
        tun = attach(right, 2, offload=True)
    assert (tun.offload, tun.merges_udp) == offloads
    send_train(right, 1000, 3)
    assert [len(packet) for packet in read(tun, 3)] == [1028] * 3
    tun.close()
