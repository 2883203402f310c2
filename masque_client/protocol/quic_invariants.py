"""What is true of QUIC packets in every version (RFC 8999): enough for a UDP listener to find their connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

QUIC_VERSION_1 = 0x0000_0001
QUIC_VERSION_2 = 0x6B33_43CF

_HEADER_FORM_LONG = 0x80
_FIXED_BIT = 0x40
_INITIAL_TYPE = {QUIC_VERSION_1: 0b00, QUIC_VERSION_2: 0b01}
"""Long packet type of Initial: RFC 9000 §17.2, RFC 9369 §3.2."""


def version_number(version: int) -> int | None:
    """1 or 2, as people count versions; None for any other, and for 0, no version at all."""
    return {QUIC_VERSION_1: 1, QUIC_VERSION_2: 2}.get(version)


@dataclass(frozen=True, slots=True)
class LongHeader:
    """The invariant part of a long header. `is_initial` is only ever true for versions 1 and 2."""

    version: int
    destination_cid: bytes
    source_cid: bytes
    is_initial: bool


def parse_long_header(datagram: bytes | memoryview) -> LongHeader | None:
    """Parse the first packet's long header, or None: a short header (use `short_header_cid`) or a cut one."""
    if len(datagram) < 7 or not datagram[0] & _HEADER_FORM_LONG:
        return None
    version = int.from_bytes(datagram[1:5])
    destination_end = 6 + datagram[5]
    if destination_end >= len(datagram):
        return None
    source_end = destination_end + 1 + datagram[destination_end]
    if source_end > len(datagram):
        return None
    packet_type = (datagram[0] >> 4) & 0b11
    return LongHeader(
        version=version,
        destination_cid=bytes(datagram[6:destination_end]),
        source_cid=bytes(datagram[destination_end + 1 : source_end]),
        is_initial=_INITIAL_TYPE.get(version) == packet_type,
    )


def short_header_cid(datagram: bytes | memoryview, length: int = 8) -> bytes:
    """The Destination Connection ID of a short-header packet; shorter than `length` when the datagram is cut.

    The receiver chose the length itself (RFC 8999 §5.2), so only it can know.
    """
    return bytes(datagram[1 : 1 + length])


def encode_version_negotiation(source_cid: bytes, destination_cid: bytes, versions: Sequence[int]) -> bytes:
    """Compose a Version Negotiation packet (RFC 8999 §6).

    The connection ids are those of the packet being sent: the received packet's, swapped. Only answer datagrams of
    at least 1200 bytes, and never a Version Negotiation packet (RFC 9000 §5.2.2, §6.1).
    """
    return b"".join(
        (
            bytes((_HEADER_FORM_LONG | _FIXED_BIT,)),
            bytes(4),
            len(destination_cid).to_bytes(1),
            destination_cid,
            len(source_cid).to_bytes(1),
            source_cid,
            *(version.to_bytes(4) for version in versions),
        )
    )
