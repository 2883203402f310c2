"""TUN offload: packets of a peer merged, super-packets cut. Guided by the branches of the Python kernel; the compiled
one, where it was built, must answer the same."""

from __future__ import annotations

import contextlib
from types import ModuleType

from masque_client.netio.offload import python_kernel
from masque_client.netio.offload.virtio import HEADER_BYTES, MAX_PACKET_BYTES
from tests.fuzz.choices import parse_steps
from tests.fuzz.harness import FuzzOne
from tests.unit.netio.segments import ones_complement_sum

compiled: ModuleType | None = None
with contextlib.suppress(ImportError):
    from masque_client.netio.offload import _compiled as compiled


def make() -> FuzzOne:
    """Input: steps. Kind 0 adds a packet with its checksums made right, 1 one as it is, 2 cuts a super-packet."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    packets: list[bytes] = []
    for step in parse_steps(data):
        if step.kind % 3 == 2:
            cut([step.payload], step.payload[:1])
        else:
            packets.append(step.payload if step.kind % 3 else with_right_checksums(step.payload))
    for merge_udp in (False, True):
        merged = python_kernel.coalesce(packets, 0, merge_udp)
        assert compiled is None or compiled.coalesce(packets, 0, merge_udp) == merged
        assert all(len(super_packet) <= HEADER_BYTES + MAX_PACKET_BYTES for super_packet in merged)
        assert len(cut(merged, b"")) == len(packets)


def cut(supers: list[bytes], prefix: bytes) -> list[bytes]:
    packets = python_kernel.segment(supers, prefix)
    assert compiled is None or compiled.segment(supers, prefix) == packets
    measured = len(packets), sum(map(len, packets)) - len(packets) * len(prefix)
    assert python_kernel.measure(supers) == measured
    assert compiled is None or compiled.measure(supers) == measured
    return packets


def with_right_checksums(packet: bytes) -> bytes:
    """Fuzzers do not find checksums: put them where an IPv4 or IPv6 packet with TCP or UDP has them."""
    done = bytearray(packet)
    is_version4 = packet[:1] == b"\x45"
    start, addresses, protocol = (20, packet[12:20], packet[9:10]) if is_version4 else (40, packet[8:40], packet[6:7])
    at = start + {b"\x06": 16, b"\x11": 6}.get(protocol, len(packet))
    if is_version4 and len(packet) >= 20:
        done[10:12] = bytes(2)
        done[10:12] = (0xFFFF - ones_complement_sum(bytes(done[:20]))).to_bytes(2)
    if at + 2 <= len(packet):
        done[at : at + 2] = bytes(2)
        pseudo_header = addresses + (len(packet) - start).to_bytes(4) + protocol.rjust(4, b"\0")
        done[at : at + 2] = (0xFFFF - ones_complement_sum(pseudo_header + bytes(done[start:]))).to_bytes(2)
    return bytes(done)
