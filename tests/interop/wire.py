"""The wire images of RFC 9114, 9297 and 9484 read a second time, from the RFCs and from nothing of `masque_client`.

Only what the dissection needs, and only well-formed input: anything else ends in an assertion or an IndexError.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple


def variable_length_integer(data: bytes, at: int = 0) -> tuple[int, int]:
    """The integer at an offset, and the offset behind it (RFC 9000 §16)."""
    length = 1 << (data[at] >> 6)
    return int.from_bytes(data[at : at + length]) & ((1 << (8 * length - 2)) - 1), at + length


def type_length_values(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Frames of an HTTP/3 stream (RFC 9114 §7.1), and capsules (RFC 9297 §3.2): both look like this."""
    at = 0
    while at < len(data):
        kind, at = variable_length_integer(data, at)
        length, at = variable_length_integer(data, at)
        assert at + length <= len(data), f"{kind:#x} of {length} bytes is cut off"
        yield kind, data[at : at + length]
        at += length


class InnerUdp(NamedTuple):
    """A UDP datagram inside a tunnelled IP packet."""

    source: str
    destination: str
    payload: bytes


def udp_inside(packet: bytes) -> InnerUdp | None:
    """The UDP datagram in exactly one IP packet, or None if it carries something else (RFC 791 §3.1, RFC 8200 §3)."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 0x0F) * 4
        length, protocol, addresses = int.from_bytes(packet[2:4]), packet[9], packet[12:20]
        words = sum(int.from_bytes(packet[at : at + 2]) for at in range(0, header, 2))
        assert (words & 0xFFFF) + (words >> 16) == 0xFFFF, "the header checksum is wrong"
    else:
        assert packet[0] >> 4 == 6
        header, length, protocol, addresses = 40, 40 + int.from_bytes(packet[4:6]), packet[6], packet[8:40]
    assert length == len(packet), f"a packet of {length} bytes in {len(packet)}"
    if protocol != 17:
        return None
    half = len(addresses) // 2
    source, destination = ip_address(addresses[:half]), ip_address(addresses[half:])
    return InnerUdp(str(source), str(destination), packet[header + 8 :])
