"""IP headers: parse, find the protocol behind IPv6 extension headers, compute checksums, compose.

No policy lives here. A packet is the bytes from its version nibble to the last byte of its payload.
Sources: RFC 791, RFC 8200, RFC 1071 and RFC 1624 (checksums), RFC 9484 §4.8 and §7.
"""

from __future__ import annotations

from dataclasses import dataclass

ICMP = 1
TCP = 6
UDP = 17
ICMPV6 = 58

IPV4_HEADER = 20
IPV6_HEADER = 40
DEFAULT_TTL = 64

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_MOBILITY, _HIP, _SHIM6 = 135, 139, 140
EXTENSION_HEADERS = frozenset(
    {_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION, _MOBILITY, _HIP, _SHIM6}
)
"""Next Header values that are walked over. 50 (ESP) and 59 (none) end the chain and are matched as themselves."""
_MAX_EXTENSION_HEADERS = 8


@dataclass(frozen=True, slots=True)
class IpHeader:
    """What matters of a packet's header.

    Attributes:
        version: 4 or 6.
        source: packed address; so is `destination`.
        protocol: of the outermost header that is no IPv6 extension (RFC 9484 §4.8).
        payload_offset: where that header starts.
        total_length: of the packet as its header states it, in bytes; not compared with what arrived.
        is_later_fragment: a fragment other than the first: there is no upper-layer header at `payload_offset`.
        has_routing_header: IPv6 with a type 0 routing header, which must not be forwarded (RFC 5095).
    """

    version: int
    source: bytes
    destination: bytes
    protocol: int
    payload_offset: int
    total_length: int
    is_later_fragment: bool = False
    has_routing_header: bool = False


def parse_ip_header(packet: bytes) -> IpHeader | None:
    """Parse a packet's header, or None when it is not one: wrong version, cut header, or a length that cannot be.

    A packet longer than its stated length parses; a header chain that leaves the packet does not.
    """
    if len(packet) >= IPV4_HEADER and packet[0] >> 4 == 4:
        return _parse_ipv4(packet)
    if len(packet) >= IPV6_HEADER and packet[0] >> 4 == 6:
        return _parse_ipv6(packet)
    return None


def _parse_ipv4(packet: bytes) -> IpHeader | None:
    header_length = (packet[0] & 0x0F) * 4
    total_length = int.from_bytes(packet[2:4])
    if not IPV4_HEADER <= header_length <= total_length or header_length > len(packet):
        return None
    return IpHeader(
        version=4,
        source=packet[12:16],
        destination=packet[16:20],
        protocol=packet[9],
        payload_offset=header_length,
        total_length=total_length,
        is_later_fragment=int.from_bytes(packet[6:8]) & 0x1FFF != 0,
    )


def _parse_ipv6(packet: bytes) -> IpHeader | None:
    total_length = IPV6_HEADER + int.from_bytes(packet[4:6])
    protocol, offset, routing = packet[6], IPV6_HEADER, False
    later_fragment = False
    end = min(total_length, len(packet))
    for _ in range(_MAX_EXTENSION_HEADERS + 1):
        if protocol not in EXTENSION_HEADERS or later_fragment:
            return IpHeader(
                version=6,
                source=packet[8:24],
                destination=packet[24:40],
                protocol=protocol,
                payload_offset=offset,
                total_length=total_length,
                is_later_fragment=later_fragment,
                has_routing_header=routing,
            )
        if offset + 8 > end:
            return None
        size = (packet[offset + 1] + 1) * 8
        if protocol == _FRAGMENT:
            size = 8
            later_fragment = int.from_bytes(packet[offset + 2 : offset + 4]) & 0xFFF8 != 0
        elif protocol == _AUTHENTICATION:
            size = (packet[offset + 1] + 2) * 4
        elif protocol == _ROUTING:
            routing = routing or packet[offset + 2] == 0
        protocol, offset = packet[offset], offset + size
        if offset > end:
            return None
    return None


def decrement_ttl(packet: bytes) -> bytes | None:
    """One hop less, for user-space forwarders only: a kernel TUN has already done it (RFC 9484 §7.2).

    Returns:
        None when the packet has no hop left: drop it and answer with ICMP Time Exceeded.
    """
    if packet[0] >> 4 == 6:
        return packet[:7] + (packet[7] - 1).to_bytes(1) + packet[8:] if packet[7] > 1 else None
    if packet[8] <= 1:
        return None
    total = int.from_bytes(packet[10:12]) + 0x0100  # RFC 1624: TTL is the high byte of its 16-bit word
    total = (total & 0xFFFF) + (total >> 16)
    changed = bytearray(packet)
    changed[8] -= 1
    changed[10:12] = (0 if total == 0xFFFF else total).to_bytes(2)
    return bytes(changed)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of `data`, padded with a zero byte when odd. 0 for data that carries its own."""
    number = int.from_bytes(data + b"\0" if len(data) % 2 else data)
    # 2^16 leaves remainder 1 modulo 0xffff, so the one's complement sum of all words is the number itself modulo that.
    total = number % 0xFFFF
    if total == 0 and number:
        total = 0xFFFF
    return 0xFFFF - total


def pseudo_header(source: bytes, destination: bytes, length: int, protocol: int) -> bytes:
    """What upper-layer checksums cover besides the payload (RFC 8200 §8.1; RFC 768 for 4-byte addresses)."""
    if len(source) == 4:
        return source + destination + protocol.to_bytes(2) + length.to_bytes(2)
    return source + destination + length.to_bytes(4) + protocol.to_bytes(4)


def build_ipv4(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = DEFAULT_TTL,
    identification: int = 0,
    dont_fragment: bool = False,
) -> bytes:
    """An IPv4 packet without options; addresses are packed."""
    header = b"".join(
        (
            b"\x45\x00",
            (IPV4_HEADER + len(payload)).to_bytes(2),
            identification.to_bytes(2),
            b"\x40\x00" if dont_fragment else b"\x00\x00",
            ttl.to_bytes(1),
            protocol.to_bytes(1),
            b"\x00\x00",
            source,
            destination,
        )
    )
    return header[:10] + checksum(header).to_bytes(2) + header[12:] + payload


def build_ipv6(
    source: bytes, destination: bytes, next_header: int, payload: bytes, *, hop_limit: int = DEFAULT_TTL
) -> bytes:
    """An IPv6 packet without extension headers; addresses are packed."""
    return b"".join(
        (
            b"\x60\x00\x00\x00",
            len(payload).to_bytes(2),
            next_header.to_bytes(1),
            hop_limit.to_bytes(1),
            source,
            destination,
            payload,
        )
    )
