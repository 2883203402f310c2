"""TunDevice on the real kernel, in a namespace of its own."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from masque_client.errors import ConfigurationError, HostError, PrivilegeError
from masque_client.netio import tun_setup
from masque_client.netio.tun import TunDevice
from masque_client.testing.netns import Lab, Namespace

pytestmark = pytest.mark.netns

READY_WITHIN_S = 60.0
TUN_ADDRESS, PEER = "192.0.2.1", "192.0.2.2"
TUN_ADDRESS6, PEER6 = "2001:db8::1", "2001:db8::2"


@pytest.fixture
def host(lab: Lab) -> Iterator[Namespace]:
    host = lab.namespace("host")
    # Silence: without a link-local address a device sends no router solicitations and no MLD reports.
    host.sysctl("net.ipv6.conf.default.addr_gen_mode", 1)
    with host.entered():
        yield host


@pytest.fixture
def tun(host: Namespace) -> Iterator[TunDevice]:
    """A device that is up, with an address of either family."""
    device = TunDevice.open()
    host.ip("address", "add", f"{TUN_ADDRESS}/24", "dev", device.name)
    host.ip("address", "add", f"{TUN_ADDRESS6}/64", "dev", device.name, "nodad")
    host.ip("link", "set", device.name, "up")
    yield device
    device.close()


def answer(packet: bytes) -> bytes:
    """The same UDP packet on its way back. Swapping addresses and ports leaves every checksum valid."""
    at, size = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    source, destination, ports = packet[at : at + size], packet[at + size : at + 2 * size], at + 2 * size
    from_port, to_port, rest = packet[ports : ports + 2], packet[ports + 2 : ports + 4], packet[ports + 4 :]
    return packet[:at] + destination + source + to_port + from_port + rest


def read(tun: TunDevice, count: int) -> list[bytes]:
    packets: list[bytes] = []
    while len(packets) < count:
        assert select.select([tun], [], [], READY_WITHIN_S)[0], "no packet came out of the TUN device"
        packets += tun.read_batch()
    return packets


def test_the_kernel_picks_a_free_number(host: Namespace) -> None:
    first, second = TunDevice.open(), TunDevice.open()
    assert [first.name, second.name] == ["masque0", "masque1"]
    assert {name for _, name in socket.if_nameindex()} >= {"masque0", "masque1"}
    first.close()
    assert "masque0" not in {name for _, name in socket.if_nameindex()}
    first.close()
    assert first.fileno() == -1
    second.close()


@pytest.mark.parametrize(
    ("family", "source", "peer", "header"),
    [(socket.AF_INET, TUN_ADDRESS, PEER, 20), (socket.AF_INET6, TUN_ADDRESS6, PEER6, 40)],
    ids=["ipv4", "ipv6"],
)
def test_packets_go_out_and_come_back(
    tun: TunDevice, family: socket.AddressFamily, source: str, peer: str, header: int
) -> None:
    payloads = [bytes([n]) * (100 * n) for n in range(1, 11)]
    with socket.socket(family, socket.SOCK_DGRAM) as program:
        program.bind((source, 0))
        program.settimeout(READY_WITHIN_S)
        for payload in payloads:
            program.sendto(payload, (peer, 4000))
        packets = read(tun, len(payloads))
        assert [packet[header + 8 :] for packet in packets] == payloads

        assert tun.write_batch([answer(packet) for packet in packets]) == len(packets)
        assert [program.recvfrom(2000)[0] for _ in payloads] == payloads
    counters = tun.counters
    assert (counters.packets_read, counters.packets_written, counters.write_drops) == (10, 10, 0)
    assert counters.bytes_read == counters.bytes_written == sum(map(len, packets))


def test_an_idle_device_gives_an_empty_batch(tun: TunDevice) -> None:
    assert tun.read_batch() == []
    assert tun.write_batch([]) == 0


def test_the_limit_leaves_the_rest_for_later(tun: TunDevice) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        for n in range(3):
            program.sendto(bytes([n]), (PEER, 4000))
    assert [packet[28:] for packet in tun.read_batch(limit=2)] == [b"\x00", b"\x01"]
    assert [packet[28:] for packet in tun.read_batch(limit=2)] == [b"\x02"]


def test_refused_packets_are_counted_and_the_rest_goes(tun: TunDevice) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.bind((TUN_ADDRESS, 0))
        program.settimeout(READY_WITHIN_S)
        program.sendto(b"hello", (PEER, 4000))
        [packet] = read(tun, 1)
        assert tun.write_batch([b"", b"\x00 no IP version", answer(packet)]) == 1
        assert program.recvfrom(100)[0] == b"hello"
    assert tun.counters.write_drops == 2


def test_a_link_that_is_down_loses_packets_without_raising(host: Namespace, tun: TunDevice) -> None:
    host.ip("link", "set", tun.name, "down")
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20, 0, 0, 64, 59, 0, b"\xc0\x00\x02\x02", b"\xc0\x00\x02\x01")
    assert tun.write_batch([packet, packet]) == 0
    assert tun.counters.write_drops == 2
    assert tun.read_batch() == []


def test_a_deleted_device_is_said_plainly(host: Namespace, tun: TunDevice) -> None:
    host.ip("link", "delete", tun.name)
    with pytest.raises(HostError, match=f"{tun.name} is gone"):
        tun.read_batch()
    assert tun.write_batch([b"\x45"]) == 0


def test_a_persistent_device_is_attached_only_on_request(host: Namespace) -> None:
    host.ip("tuntap", "add", "dev", "pre0", "mode", "tun")
    with pytest.raises(HostError, match="exists or is in use"):
        TunDevice.open("pre0")
    device = TunDevice.open("pre0", attach=True)
    with pytest.raises(HostError, match="in use"):
        TunDevice.open("pre0", attach=True)
    device.close()
    assert "pre0" in {name for _, name in socket.if_nameindex()}


def test_a_device_of_another_kind_is_refused(host: Namespace) -> None:
    with pytest.raises(HostError, match="no TUN device"):
        TunDevice.open("lo", attach=True)


def test_no_privilege_is_said_plainly(host: Namespace) -> None:
    child = os.fork()
    if child == 0:  # only this child gives up root
        try:
            os.setgid(65534)
            os.setuid(65534)
            TunDevice.open()
        except PrivilegeError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_no_driver_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun_setup, "TUN_PATH", "/dev/net/no-such-tun")
    with pytest.raises(PrivilegeError, match="does not exist") as caught:
        TunDevice.open()
    assert "modprobe tun" in caught.value.hint


@pytest.mark.parametrize("name", ["", "sixteen-bytes-16", "a b", "a/b", "a:b", ".", "..", "a%sb", "%d%d", "ü" * 8])
def test_a_name_the_kernel_would_not_take_is_the_users_mistake(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name"):
        TunDevice.open(name)
