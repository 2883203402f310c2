"""Inbound, as `coalesce.c`: packets of one batch are merged into super-packets, as a card's receive offload would.

A group is a run of packets of one flow that one header can stand for. It is open while more may join; a flow has at
most one open group, and it is the flow's latest: whatever of the flow cannot join closes it, so nothing overtakes
within a flow. Groups are written in the order of their first packets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from masque_client.netio.offload.checksum import complete_ipv4_header, sum16
from masque_client.netio.offload.virtio import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    MAX_PACKET_BYTES,
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

_TCP: Final = 6
_UDP: Final = 17
_PSH: Final = 0x08
_ACK: Final = 0x10
_ECE: Final = 0x40


class _Kind(Enum):
    """How much is known of a packet, and so which groups it closes: none, its hosts', its flow's, or it may join."""

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
    header_of_tcp: bytes = b""


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
        if (data[4] << 8 | data[5]) + 40 != size or size > MAX_PACKET_BYTES:
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
    if payload > group.segment or group.size + payload > MAX_PACKET_BYTES:
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
    return sum16(packet.hosts) + packet.protocol + transport_length


def _checksums_hold(packet: _Packet) -> bool:
    data, start = packet.data, packet.transport
    if data[0] >> 4 == 4 and sum16(data[:20]):
        return False
    return (_pseudo_header_sum(packet, len(data) - start) + sum16(data[start:])) % 0xFFFF == 0


def _merge(group: _Group) -> bytes:
    """The group as the kernel takes it: the sum of the pseudo-header stands in the checksum field."""
    first = group.packets[0]
    if len(group.packets) == 1:
        return NOTHING_TO_DO + first.data
    start, is_tcp, is_version4 = first.transport, first.protocol == _TCP, first.data[0] >> 4 == 4
    own = bytearray(first.data[: first.headers])
    transport_length = group.size - start
    if is_version4:
        complete_ipv4_header(own, 20, group.size)
    else:
        own[4:6] = transport_length.to_bytes(2, "big")
    if is_tcp:
        own[start + 13] |= group.packets[-1].flags & _PSH
    else:
        own[start + 4 : start + 6] = transport_length.to_bytes(2, "big")
    checksum_offset = TCP_CSUM_OFFSET if is_tcp else UDP_CSUM_OFFSET
    pseudo = _pseudo_header_sum(first, transport_length) % 0xFFFF
    own[start + checksum_offset : start + checksum_offset + 2] = pseudo.to_bytes(2, "big")
    gso_type = (GSO_TCPV4 if is_version4 else GSO_TCPV6) if is_tcp else GSO_UDP_L4
    header = VirtioHeader(NEEDS_CSUM, gso_type, first.headers, group.segment, start, checksum_offset)
    return b"".join((header.encode(), own, *(packet.data[packet.headers :] for packet in group.packets)))
