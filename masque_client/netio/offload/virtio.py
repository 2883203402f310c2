"""The header in front of packets on a TUN device with IFF_VNET_HDR (include/uapi/linux/virtio_net.h).

It says what is left to do: complete a checksum, cut a super-packet into segments. Native byte order.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, Self

HEADER: Final = struct.Struct("=BBHHHH")
HEADER_BYTES: Final = HEADER.size
NOTHING_TO_DO: Final = bytes(HEADER_BYTES)

MAX_PACKET_BYTES: Final = 65_535
"""Of a super-packet's packet, headers included."""

NEEDS_CSUM: Final = 1

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80

TCP_CSUM_OFFSET: Final = 16
UDP_CSUM_OFFSET: Final = 6


class VirtioHeader(NamedTuple):
    """One virtio_net_hdr.

    Attributes:
        flags: `NEEDS_CSUM` or 0.
        gso_type: how to cut: a `GSO_*` value, perhaps with the bit `GSO_ECN`.
        hdr_len: bytes of all headers; from the kernel a mere hint.
        gso_size: payload per segment.
        csum_start: where the transport header starts; what is summed reaches from here to the end.
        csum_offset: where the checksum is, from `csum_start`. It holds the sum of the pseudo-header.
    """

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    @classmethod
    def parse(cls, buffer: bytes) -> Self:
        """The header at the start of `buffer`, which holds at least `HEADER_BYTES`."""
        return cls._make(HEADER.unpack_from(buffer))

    def encode(self) -> bytes:
        """The header's ten bytes."""
        return HEADER.pack(*self)
