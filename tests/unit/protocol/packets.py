"""Packets for the tests of this folder."""

from __future__ import annotations

import ipaddress

from masque_client.protocol.ip_packet import UDP, build_ipv4, build_ipv6


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def build(source: str, destination: str, payload: bytes = b"payload!", protocol: int = UDP, **options: int) -> bytes:
    """An IPv4 or IPv6 packet, by the addresses."""
    if ":" in source:
        return build_ipv6(packed(source), packed(destination), protocol, payload, **options)
    return build_ipv4(packed(source), packed(destination), protocol, payload, **options)  # type: ignore[arg-type]


def extension(next_header: int, length_units: int = 0) -> bytes:
    """A Hop-by-Hop, Routing or Destination Options header of (units + 1) * 8 bytes."""
    return bytes((next_header, length_units)) + b"\x04" + bytes(5 + 8 * length_units)


def fragment(next_header: int, offset: int) -> bytes:
    """An IPv6 Fragment header; `offset` in units of 8 bytes."""
    return bytes((next_header, 0)) + (offset << 3 | 1).to_bytes(2) + bytes(4)
