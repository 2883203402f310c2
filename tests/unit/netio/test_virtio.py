"""The header in front of super-packets, and what it says about their size."""

from __future__ import annotations

import pytest

from masque_client.netio.offload.virtio import NOTHING_TO_DO, VirtioHeader, measure
from tests.unit.netio.segments import Packet, payload


def test_encode_undoes_parse() -> None:
    super_packet = Packet(payload(3000)).super_packet(1000)
    header = VirtioHeader.parse(super_packet)
    assert header == VirtioHeader(flags=1, gso_type=1, hdr_len=40, gso_size=1000, csum_start=20, csum_offset=16)
    assert header.encode() == super_packet[:10]
    assert VirtioHeader().encode() == NOTHING_TO_DO


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_tcp", [True, False], ids=["tcp", "udp"])
@pytest.mark.parametrize("size", [1, 1000, 1001, 60_000])
def test_a_super_packet_measures_what_its_segments_do(version: int, is_tcp: bool, size: int) -> None:
    packet = Packet(payload(size), version=version, is_tcp=is_tcp, options=bytes(12) if is_tcp else b"")
    segments = packet.cut(1000)
    expected = len(segments), sum(map(len, segments))
    assert measure(packet.super_packet(1000)) == expected
    assert measure(packet.super_packet(1000, hdr_len=1040)) == expected, "the kernel's hdr_len is a hint"


def test_a_single_packet_measures_itself() -> None:
    assert measure(NOTHING_TO_DO + b"12345") == (1, 5)
    assert measure(NOTHING_TO_DO) == (1, 0)
