"""The header in front of super-packets."""

from __future__ import annotations

from masque_client.netio.offload.virtio import NOTHING_TO_DO, VirtioHeader
from tests.unit.netio.segments import Packet, payload


def test_encode_undoes_parse() -> None:
    super_packet = Packet(payload(3000)).super_packet(1000)
    header = VirtioHeader.parse(super_packet)
    assert header == VirtioHeader(flags=1, gso_type=1, hdr_len=40, gso_size=1000, csum_start=20, csum_offset=16)
    assert header.encode() == super_packet[:10]
    assert VirtioHeader().encode() == NOTHING_TO_DO
