"""All size arithmetic of the tunnel: what fits in what. Nobody else adds or subtracts header sizes.

    path MTU           one IP packet outside
    └ UDP payload      minus IP and UDP headers (28 bytes over IPv4, 48 over IPv6)
      └ DATAGRAM frame minus QUIC short header and AEAD tag
        └ HTTP Datagram Payload  minus frame type, Length and Quarter Stream ID
          └ inner packet         minus Context ID: an IP packet, or a UDP payload

Over HTTP/2 a byte stream carries the HTTP Datagram Payloads, and only `MAX_TUNNEL_MTU` limits the inner packet.

Each name says which of these it measures; all are bytes. Sources: RFC 9000 §14 and §17.3.1, RFC 9221 §4,
RFC 9297 §2.1, RFC 9484 §7.2.
"""

from __future__ import annotations

from typing import Literal

IpVersion = Literal[4, 6]

MIN_UDP_PAYLOAD = 1200
"""Every QUIC path carries this UDP payload (RFC 9000 §14)."""
DEFAULT_UDP_PAYLOAD = 1350
"""For a path of unknown MTU: fits 1400-byte links and carries a 1280-byte inner packet."""
MIN_IPV6_MTU = 1280
"""A link that carries IPv6 carries this packet (RFC 8200 §5): RFC 9484 §7.2 demands it of the tunnel."""
IPV6_CAPABLE_UDP_PAYLOAD = 1331
"""UDP payload that carries a `MIN_IPV6_MTU` packet whatever header sizes QUIC v1 chooses (RFC 9484 §7.2)."""

MAX_TUNNEL_MTU = 1500
"""Largest tunnel MTU we configure. Capsules on a byte stream (HTTP/2) have no path MTU of their own, but the packet
leaves the proxy on a link: almost always an Ethernet, where anything larger would only come back as Packet Too Big."""
MAX_HTTP_DATAGRAM_IN_CAPSULE = 65_536
"""HTTP Datagram Payload, Context ID included, of a DATAGRAM capsule: the largest UDP payload, generously."""

MAX_UDP_PAYLOAD_OVER_IPV4 = 1472
MAX_UDP_PAYLOAD_OVER_IPV6 = 1452
"""What an Ethernet path carries. Larger links are not used: the path beyond them is rarely larger."""

_IP_UDP_OVERHEAD: dict[int, int] = {4: 20 + 8, 6: 40 + 8}
_LOWEST_CANDIDATE: dict[int, int] = {4: 1252, 6: 1232}
"""UDP payload of a 1280-byte outer packet: the last attempt, without room for inner IPv6."""
_SHORT_HEADER_FLAGS = 1
_AEAD_TAG = 16
_DATAGRAM_FRAME_TYPE = 1


def max_http_datagram(
    udp_payload: int,
    *,
    connection_id_length: int = 8,
    packet_number_length: int = 2,
    length_field: int = 2,
    quarter_stream_id_length: int = 1,
    peer_max_datagram_frame_size: int | None = None,
) -> int:
    """Largest HTTP Datagram Payload, Context ID included, that one QUIC packet of `udp_payload` bytes carries.

    Args:
        udp_payload: size of the QUIC packet, headers and tag included.
        connection_id_length: of the peer's connection id, which the peer chose (0 to 20).
        packet_number_length: 1 to 4; both our engines always use 2.
        length_field: bytes of the frame's Length; both our engines always write it (type 0x31), 0 for type 0x30.
        quarter_stream_id_length: 1 up to stream 252, 2 up to 65532; so this is a limit per stream.
        peer_max_datagram_frame_size: the transport parameter, which limits the whole frame (RFC 9221 §3).
    """
    frame = udp_payload - _SHORT_HEADER_FLAGS - connection_id_length - packet_number_length - _AEAD_TAG
    if peer_max_datagram_frame_size is not None:
        frame = min(frame, peer_max_datagram_frame_size)
    return max(0, frame - _DATAGRAM_FRAME_TYPE - length_field - quarter_stream_id_length)


def inner_max(
    udp_payload: int,
    *,
    connection_id_length: int = 8,
    packet_number_length: int = 2,
    length_field: int = 2,
    quarter_stream_id_length: int = 1,
    context_id_length: int = 1,
    peer_max_datagram_frame_size: int | None = None,
) -> int:
    """Largest packet inside the tunnel: an IP packet with its header, or a UDP payload. See `max_http_datagram`.

    The overhead is 32 bytes with our engines on both ends and at most 51 (RFC 9484 §7.2), 53 with a Length field.
    """
    payload = max_http_datagram(
        udp_payload,
        connection_id_length=connection_id_length,
        packet_number_length=packet_number_length,
        length_field=length_field,
        quarter_stream_id_length=quarter_stream_id_length,
        peer_max_datagram_frame_size=peer_max_datagram_frame_size,
    )
    return max(0, payload - context_id_length)


def udp_payload_for_link(mtu: int, ip_version: IpVersion) -> int:
    """Largest UDP payload in one unfragmented IP packet of `mtu` bytes without options or extension headers."""
    return max(0, mtu - _IP_UDP_OVERHEAD[ip_version])


def link_mtu_for(udp_payload: int, ip_version: IpVersion) -> int:
    """The IP packet that carries a UDP payload of this size: `udp_payload_for_link` backwards."""
    return udp_payload + _IP_UDP_OVERHEAD[ip_version]


def initial_udp_payload_candidates(link_mtu: int | None, ip_version: IpVersion) -> tuple[int, ...]:
    """UDP payload sizes to try for a new connection, largest first; go on to the next when a handshake times out.

    Args:
        link_mtu: MTU of the route to the proxy, or None when unknown.
        ip_version: of the path outside.

    The route's own MTU comes first because it usually holds; then `DEFAULT_UDP_PAYLOAD`; then what fits a 1280-byte
    path, where inner IPv6 is impossible. Nothing over the link's MTU (with DF set it cannot leave this machine) and
    nothing under `MIN_UDP_PAYLOAD` is offered.
    """
    candidates = [DEFAULT_UDP_PAYLOAD, _LOWEST_CANDIDATE[ip_version]]
    if link_mtu is not None:
        ceiling = MAX_UDP_PAYLOAD_OVER_IPV4 if ip_version == 4 else MAX_UDP_PAYLOAD_OVER_IPV6
        largest = max(MIN_UDP_PAYLOAD, min(ceiling, udp_payload_for_link(link_mtu, ip_version)))
        candidates = [largest, *(size for size in candidates if size < largest)]
    return tuple(candidates)
