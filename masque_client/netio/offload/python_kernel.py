"""The offload kernel in Python: the twin of `_compiled`, for installations without a compiler.

Same names, same bytes out; the property tests hold the two against each other. Described in the package's docstring.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from masque_client.netio.offload.virtio import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER_BYTES,
    NEEDS_CSUM,
    NOTHING_TO_DO,
    TCP_CSUM_OFFSET,
    UDP_CSUM_OFFSET,
    VirtioHeader,
)

MAX_OPEN_GROUPS: Final = 32
"""The oldest closes for a new one; a batch seldom has that many busy flows."""

MAX_UDP_SEGMENTS: Final = 64
"""UDP_MAX_SEGMENTS of older kernels."""

_MAX_PACKET_BYTES: Final = 65_535
_TCP: Final = 6
_UDP: Final = 17
_CSUM_OFFSET: Final = {_TCP: TCP_CSUM_OFFSET, _UDP: UDP_CSUM_OFFSET}
_FIN, _PSH, _ACK, _ECE, _CWR = 0x01, 0x08, 0x10, 0x40, 0x80


def _sum16(data: bytes | bytearray) -> int:
    """The one's-complement sum of 16-bit words, modulo 0xFFFF: a big number's remainder is the sum of its digits."""
    return int.from_bytes(data if len(data) % 2 == 0 else bytes(data) + b"\0", "big") % 0xFFFF


def _transport_checksum(total: int) -> bytes:
    """Never zero, which UDP reserves for "none"."""
    return (0xFFFF - total % 0xFFFF).to_bytes(2, "big")


def _complete_ipv4_header(packet: bytearray, header_bytes: int, total_length: int) -> None:
    packet[2:4] = total_length.to_bytes(2, "big")
    packet[10:12] = bytes(2)
    packet[10:12] = (-_sum16(packet[:header_bytes]) % 0xFFFF).to_bytes(2, "big")


# --- outbound -------------------------------------------------------------------------------------------------------


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


def _complete_checksum(header: VirtioHeader, packet: bytes) -> bytes:
    start = header.csum_start
    at = start + header.csum_offset
    if at + 2 > len(packet):
        return packet
    return packet[:at] + _transport_checksum(_sum16(packet[start:])) + packet[at + 2 :]


def _transport_bytes(header: VirtioHeader, packet: bytes) -> int:
    """Length of the TCP or UDP header; 0 when the super-packet makes no sense.

    The kernel's `hdr_len` is only a hint: on a forwarding path it may be the length of the first packet.
    """
    gso_type, transport, size = header.gso_type & ~GSO_ECN, header.csum_start, len(packet)
    if not header.flags & NEEDS_CSUM or header.gso_size == 0 or not 20 <= size <= _MAX_PACKET_BYTES:
        return 0
    version = packet[0] >> 4
    if version == 4:
        if transport < 20 or transport != (packet[0] & 0x0F) * 4 or gso_type == GSO_TCPV6:
            return 0
    elif version != 6 or transport < 40 or gso_type == GSO_TCPV4:
        return 0
    if gso_type in (GSO_TCPV4, GSO_TCPV6):
        if header.csum_offset != _CSUM_OFFSET[_TCP] or transport + 20 > size:
            return 0
        length = (packet[transport + 12] >> 4) * 4
        if length < 20:
            return 0
    elif gso_type == GSO_UDP_L4 and header.csum_offset == _CSUM_OFFSET[_UDP]:
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
            _complete_ipv4_header(own, start, headers + len(payload))
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
        total = pseudo + transport_length + _sum16(own[start:]) + _sum16(payload)
        own[checksum_at : checksum_at + 2] = _transport_checksum(total)
        out.append(b"".join((prefix, own, payload)))


# --- inbound --------------------------------------------------------------------------------------------------------


class _Kind(Enum):
    FOREIGN = auto()
    HOSTS_KNOWN = auto()
    FLOW_KNOWN = auto()
    MERGEABLE = auto()


@dataclass(slots=True)
class _Packet:
    """A packet and what `_classify` found out about it: offsets of transport header and payload."""

    data: bytes
    protocol: int = 0
    transport: int = 0
    headers: int = 0
    hosts: bytes = b""

    @property
    def flow(self) -> tuple[int, bytes]:
        return self.protocol, self.hosts + self.data[self.transport : self.transport + 4]

    @property
    def payload_bytes(self) -> int:
        return len(self.data) - self.headers

    @property
    def flags(self) -> int:
        return self.data[self.transport + 13] if self.protocol == _TCP else 0


@dataclass(slots=True)
class _Group:
    """A run of packets of one flow that the first one's header can stand for.

    `segment` is the payload of all packets but the last, which may be shorter; `size` that of the merged packet.
    """

    packets: list[_Packet]
    segment: int = 0
    size: int = 0
    next_sequence: int = 0
    first_valid: bool = False
    header_of_tcp: bytes = field(default=b"")


def coalesce(payloads: Iterable[bytes], skip: int = 0, merge_udp: bool = False) -> list[bytes]:
    """See the package."""
    if skip < 0:
        raise ValueError("skip is a number of bytes, not negative")
    groups: list[_Group] = []
    opened: dict[tuple[int, bytes], _Group] = {}
    for payload in payloads:
        packet = _Packet(payload[skip:])
        match _classify(packet, merge_udp):
            case _Kind.MERGEABLE:
                _place(packet, groups, opened)
                continue
            case _Kind.FLOW_KNOWN:
                opened.pop(packet.flow, None)
            case _Kind.HOSTS_KNOWN:
                for flow in [flow for flow, group in opened.items() if group.packets[0].hosts == packet.hosts]:
                    del opened[flow]
        groups.append(_Group([packet]))
    return [_merge(group) for group in groups]


def _classify(packet: _Packet, merge_udp: bool) -> _Kind:
    """Fragments, IPv4 options and IPv6 extension headers are not looked behind: such packets pass alone."""
    data, size = packet.data, len(packet.data)
    if size >= 20 and data[0] >> 4 == 4:
        packet.hosts, packet.transport, packet.protocol = data[12:20], 20, data[9]
        fragment = int.from_bytes(data[6:8], "big") & 0xBFFF
        if data[0] != 0x45 or data[2] << 8 | data[3] != size or fragment:
            return _Kind.HOSTS_KNOWN
    elif size >= 40 and data[0] >> 4 == 6:
        packet.hosts, packet.transport, packet.protocol = data[8:40], 40, data[6]
        if (data[4] << 8 | data[5]) + 40 != size or size > _MAX_PACKET_BYTES:
            return _Kind.HOSTS_KNOWN
    else:
        return _Kind.FOREIGN
    if packet.protocol == _TCP:
        return _classify_tcp(packet)
    return _classify_udp(packet, merge_udp) if packet.protocol == _UDP else _Kind.HOSTS_KNOWN


def _classify_tcp(packet: _Packet) -> _Kind:
    data, start, size = packet.data, packet.transport, len(packet.data)
    if size < start + 20:
        return _Kind.HOSTS_KNOWN
    length = (data[start + 12] >> 4) * 4
    if length < 20 or start + length > size:
        return _Kind.HOSTS_KNOWN
    packet.headers = start + length
    is_plain_data = data[start + 12] & 0x0F == 0 and packet.flags & ~(_PSH | _ECE) == _ACK and packet.payload_bytes > 0
    return _Kind.MERGEABLE if is_plain_data else _Kind.FLOW_KNOWN


def _classify_udp(packet: _Packet, merge_udp: bool) -> _Kind:
    data, start, size = packet.data, packet.transport, len(packet.data)
    if size < start + 8 or data[start + 4] << 8 | data[start + 5] != size - start:
        return _Kind.HOSTS_KNOWN
    packet.headers = start + 8
    has_checksum = data[start + 6 : start + 8] != b"\0\0"
    return _Kind.MERGEABLE if merge_udp and packet.payload_bytes > 0 and has_checksum else _Kind.FLOW_KNOWN


def _place(packet: _Packet, groups: list[_Group], opened: dict[tuple[int, bytes], _Group]) -> None:
    """Checksums are looked at only where merging would hide them: what stays alone is the kernel's to judge."""
    flow = packet.flow
    group = opened.get(flow)
    if group is not None and _fits(group, packet):
        group.first_valid = group.first_valid or _checksums_hold(group.packets[0])
        if group.first_valid:
            if not _checksums_hold(packet):
                del opened[flow]
                groups.append(_Group([packet]))
                return
            group.packets.append(packet)
            group.size += packet.payload_bytes
            group.next_sequence = group.next_sequence + packet.payload_bytes & 0xFFFF_FFFF
            if _is_last(group, packet):
                del opened[flow]
            return
    opened.pop(flow, None)
    group = _Group([packet], segment=packet.payload_bytes, size=len(packet.data))
    groups.append(group)
    if _is_last(group, packet):
        return
    if packet.protocol == _TCP:
        group.next_sequence = _sequence(packet) + group.segment & 0xFFFF_FFFF
        group.header_of_tcp = _constant_tcp_header(packet)
    if len(opened) == MAX_OPEN_GROUPS:
        del opened[next(iter(opened))]
    opened[flow] = group


def _is_last(group: _Group, packet: _Packet) -> bool:
    return packet.payload_bytes < group.segment or packet.flags & _PSH != 0


def _fits(group: _Group, packet: _Packet) -> bool:
    payload = packet.payload_bytes
    if payload > group.segment or group.size + payload > _MAX_PACKET_BYTES:
        return False
    if not _same_ip_header(group.packets[0].data, packet.data, len(group.packets)):
        return False
    if packet.protocol == _UDP:
        return len(group.packets) < MAX_UDP_SEGMENTS
    return _sequence(packet) == group.next_sequence and _constant_tcp_header(packet) == group.header_of_tcp


def _same_ip_header(first: bytes, data: bytes, index: int) -> bool:
    if first[0] >> 4 == 6:
        return first[:4] == data[:4] and first[7] == data[7]  # traffic class, flow label; hop limit
    if first[1] != data[1] or first[6] != data[6] or first[8] != data[8]:  # TOS, Don't Fragment, TTL
        return False
    if first[6] & 0x40:
        return True  # with DF the identification means nothing (RFC 6864 §4.1); without, segmentation counts it up
    return (first[4] << 8 | first[5]) + index & 0xFFFF == data[4] << 8 | data[5]


def _sequence(packet: _Packet) -> int:
    return int.from_bytes(packet.data[packet.transport + 4 : packet.transport + 8], "big")


def _constant_tcp_header(packet: _Packet) -> bytes:
    """What must be the same in all packets of a group: all but ports, sequence number, PSH and checksum."""
    data, start = packet.data, packet.transport
    flags = packet.flags & ~_PSH
    return (
        data[start + 8 : start + 13]
        + bytes([flags])
        + data[start + 14 : start + 16]
        + data[start + 18 : packet.headers]
    )


def _pseudo_header_sum(packet: _Packet, transport_length: int) -> int:
    return _sum16(packet.hosts) + packet.protocol + transport_length


def _checksums_hold(packet: _Packet) -> bool:
    data, start = packet.data, packet.transport
    if data[0] >> 4 == 4 and _sum16(data[:20]):
        return False
    return (_pseudo_header_sum(packet, len(data) - start) + _sum16(data[start:])) % 0xFFFF == 0


def _merge(group: _Group) -> bytes:
    """The group as the kernel takes it: the sum of the pseudo-header stands in the checksum field."""
    first = group.packets[0]
    if len(group.packets) == 1:
        return NOTHING_TO_DO + first.data
    start, is_tcp, is_version4 = first.transport, first.protocol == _TCP, first.data[0] >> 4 == 4
    own = bytearray(first.data[: first.headers])
    transport_length = group.size - start
    if is_version4:
        _complete_ipv4_header(own, 20, group.size)
    else:
        own[4:6] = transport_length.to_bytes(2, "big")
    if is_tcp:
        own[start + 13] |= group.packets[-1].flags & _PSH
    else:
        own[start + 4 : start + 6] = transport_length.to_bytes(2, "big")
    checksum_offset = _CSUM_OFFSET[first.protocol]
    pseudo = _pseudo_header_sum(first, transport_length) % 0xFFFF
    own[start + checksum_offset : start + checksum_offset + 2] = pseudo.to_bytes(2, "big")
    gso_type = (GSO_TCPV4 if is_version4 else GSO_TCPV6) if is_tcp else GSO_UDP_L4
    header = VirtioHeader(NEEDS_CSUM, gso_type, first.headers, group.segment, start, checksum_offset)
    return b"".join((header.encode(), own, *(packet.data[packet.headers :] for packet in group.packets)))
