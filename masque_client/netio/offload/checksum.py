"""Internet checksums (RFC 1071), as big numbers: the quickest way in plain Python."""

from __future__ import annotations


def sum16(data: bytes | bytearray) -> int:
    """The one's-complement sum of 16-bit words, modulo 0xFFFF: a number's remainder is that of its digits' sum."""
    return int.from_bytes(data if len(data) % 2 == 0 else bytes(data) + b"\0", "big") % 0xFFFF


def transport_checksum(total: int) -> bytes:
    """The field for the sum of everything else; never zero, which UDP reserves for "none"."""
    return (0xFFFF - total % 0xFFFF).to_bytes(2, "big")


def complete_ipv4_header(packet: bytearray, header_bytes: int, total_length: int) -> None:
    """Set the total length, and the header's checksum, which may be zero."""
    packet[2:4] = total_length.to_bytes(2, "big")
    packet[10:12] = bytes(2)
    packet[10:12] = (-sum16(packet[:header_bytes]) % 0xFFFF).to_bytes(2, "big")
