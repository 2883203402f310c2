"""Outbound, as `segment.c`: a super-packet of the kernel becomes the packets that a network card would have sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from masque_client.netio.offload.checksum import complete_ipv4_header, sum16, transport_checksum
from masque_client.netio.offload.virtio import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER_BYTES,
    MAX_PACKET_BYTES,
    NEEDS_CSUM,
    TCP_CSUM_OFFSET,
    UDP_CSUM_OFFSET,
    VirtioHeader,
)

_FIN: Final = 0x01
_PSH: Final = 0x08
_CWR: Final = 0x80


def segment(supers: Iterable[bytes | bytearray | memoryview], prefix: bytes = b"") -> list[bytes]:
    """See the package."""
    out: list[bytes] = []
    for super_packet in supers:
        view = super_packet if isinstance(super_packet, bytes) else memoryview(super_packet).tobytes()
        packet = view[HEADER_BYTES:]
        header = VirtioHeader.parse(view) if len(view) >= HEADER_BYTES else VirtioHeader()
        if header.gso_type == GSO_NONE:
            out.append(prefix + (_complete_checksum(header, packet) if header.flags & NEEDS_CSUM else packet))
        elif transport_bytes := _transport_bytes(header, packet):
            _cut(header, packet, header.csum_start + transport_bytes, prefix, out)
        else:
            out.append(prefix + packet)
    return out


def measure(supers: Iterable[bytes], /) -> tuple[int, int]:
    """See the package."""
    packets = size = 0
    for super_packet in supers:
        packets += 1
        size += max(0, len(super_packet) - HEADER_BYTES)
        if len(super_packet) < HEADER_BYTES or super_packet[1] == GSO_NONE:
            continue
        header, packet = VirtioHeader.parse(super_packet), memoryview(super_packet)[HEADER_BYTES:]
        if transport_bytes := _transport_bytes(header, packet):
            headers = header.csum_start + transport_bytes
            more = max(0, -(-(len(packet) - headers) // header.gso_size) - 1)
            packets += more
            size += more * headers
    return packets, size


def _complete_checksum(header: VirtioHeader, packet: bytes) -> bytes:
    start = header.csum_start
    at = start + header.csum_offset
    if at + 2 > len(packet):
        return packet
    return packet[:at] + transport_checksum(sum16(packet[start:])) + packet[at + 2 :]


def _transport_bytes(header: VirtioHeader, packet: bytes | memoryview) -> int:
    """Length of the TCP or UDP header; 0 when the super-packet makes no sense.

    The kernel's `hdr_len` is only a hint: on a forwarding path it may be the length of the first packet.
    """
    gso_type, transport, size = header.gso_type & ~GSO_ECN, header.csum_start, len(packet)
    if not header.flags & NEEDS_CSUM or header.gso_size == 0 or not 20 <= size <= MAX_PACKET_BYTES:
        return 0
    version = packet[0] >> 4
    if version == 4:
        if transport < 20 or transport != (packet[0] & 0x0F) * 4 or gso_type == GSO_TCPV6:
            return 0
    elif version != 6 or transport < 40 or gso_type == GSO_TCPV4:
        return 0
    if gso_type in (GSO_TCPV4, GSO_TCPV6):
        if header.csum_offset != TCP_CSUM_OFFSET or transport + 20 > size:
            return 0
        length = (packet[transport + 12] >> 4) * 4
        if length < 20:
            return 0
    elif gso_type == GSO_UDP_L4 and header.csum_offset == UDP_CSUM_OFFSET:
        length = 8
    else:
        return 0
    return length if transport + length <= size else 0


def _cut(header: VirtioHeader, packet: bytes, headers: int, prefix: bytes, out: list[bytes]) -> None:
    """Append the segments; `headers` is where the payload starts."""
    size, start, step = len(packet), header.csum_start, header.gso_size
    is_tcp = header.gso_type & ~GSO_ECN != GSO_UDP_L4
    is_version4 = packet[0] >> 4 == 4
    checksum_at = start + header.csum_offset
    # The field holds the pseudo-header's sum for the whole: exchange the length, the rest stays. (No look at the
    # addresses: with an IPv6 routing header they are not those of the pseudo-header.)
    pseudo = int.from_bytes(packet[checksum_at : checksum_at + 2], "big") + 0xFFFF - (size - start)
    identification = int.from_bytes(packet[4:6], "big")
    sequence = int.from_bytes(packet[start + 4 : start + 8], "big")
    template = bytearray(packet[:headers])
    template[checksum_at : checksum_at + 2] = bytes(2)
    for index, offset in enumerate(range(0, max(size - headers, 1), step)):
        payload = packet[headers + offset : headers + offset + step]
        own = bytearray(template)
        if is_version4:
            own[4:6] = (identification + index & 0xFFFF).to_bytes(2, "big")
            complete_ipv4_header(own, start, headers + len(payload))
        else:
            own[4:6] = (headers - 40 + len(payload)).to_bytes(2, "big")
        transport_length = headers - start + len(payload)
        if is_tcp:
            own[start + 4 : start + 8] = (sequence + offset & 0xFFFF_FFFF).to_bytes(4, "big")
            if index > 0:
                own[start + 13] &= ~_CWR
            if headers + offset + step < size:
                own[start + 13] &= ~(_FIN | _PSH)
        else:
            own[start + 4 : start + 6] = transport_length.to_bytes(2, "big")
        total = pseudo + transport_length + sum16(own[start:]) + sum16(payload)
        own[checksum_at : checksum_at + 2] = transport_checksum(total)
        out.append(b"".join((prefix, own, payload)))
