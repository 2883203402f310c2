"""TCP and UDP packets for the tests of TUN offload, written down plainly: nothing of the offload kernel is used."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, replace
from typing import Self

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << n for n in range(8))
NEEDS_CSUM = 1
TCPV4, TCPV6, UDP_L4, ECN = 1, 4, 5, 0x80
NO_HEADER = bytes(10)


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071 §1, as it is written there."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def virtio(flags: int, gso_type: int, hdr_len: int, gso_size: int, csum_start: int, csum_offset: int) -> bytes:
    return struct.pack("=BBHHHH", flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)


@dataclass(frozen=True)
class Packet:
    """A TCP or UDP packet between two documentation addresses; `bytes(packet)` has its checksums complete."""

    payload: bytes = b""
    version: int = 4
    source: str = ""
    destination: str = ""
    ports: tuple[int, int] = (40_000, 443)
    traffic_class: int = 0
    flow_label: int = 0x12345
    hops: int = 64
    identification: int = 0x1000
    fragment: int = 0x4000
    is_tcp: bool = True
    seq: int = 1000
    ack: int = 2000
    flags: int = ACK
    window: int = 512
    urgent: int = 0
    options: bytes = b""

    def but(self, **changes: object) -> Self:
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def ip_bytes(self) -> int:
        return 20 if self.version == 4 else 40

    @property
    def transport_bytes(self) -> int:
        return 20 + len(self.options) if self.is_tcp else 8

    @property
    def header_bytes(self) -> int:
        return self.ip_bytes + self.transport_bytes

    @property
    def checksum_at(self) -> int:
        return self.ip_bytes + (16 if self.is_tcp else 6)

    def _addresses(self) -> bytes:
        here, there = ("192.0.2.1", "198.51.100.2") if self.version == 4 else ("2001:db8::1", "2001:db8::2")
        ends = (ipaddress.ip_address(self.source or here), ipaddress.ip_address(self.destination or there))
        return ends[0].packed + ends[1].packed

    def _pseudo_header(self) -> bytes:
        protocol, length = 6 if self.is_tcp else 17, self.transport_bytes + len(self.payload)
        return self._addresses() + struct.pack("!II", length, protocol)

    def _ip_header(self) -> bytes:
        length, protocol = self.transport_bytes + len(self.payload), 6 if self.is_tcp else 17
        if self.version == 6:
            first = 6 << 28 | self.traffic_class << 20 | self.flow_label
            return struct.pack("!IHBB", first, length, protocol, self.hops) + self._addresses()
        fields = (0x45, self.traffic_class, 20 + length, self.identification, self.fragment, self.hops, protocol)
        checksum = 0xFFFF - ones_complement_sum(struct.pack("!BBHHHBBH", *fields, 0) + self._addresses())
        return struct.pack("!BBHHHBBH", *fields, checksum) + self._addresses()

    def _transport(self, checksum: int) -> bytes:
        if not self.is_tcp:
            return struct.pack("!HHHH", *self.ports, 8 + len(self.payload), checksum) + self.payload
        offset = self.transport_bytes // 4 << 4
        numbers = (*self.ports, self.seq, self.ack, offset, self.flags, self.window, checksum, self.urgent)
        return struct.pack("!HHIIBBHHH", *numbers) + self.options + self.payload

    def __bytes__(self) -> bytes:
        checksum = 0xFFFF - ones_complement_sum(self._pseudo_header() + self._transport(0))
        return self._ip_header() + self._transport(checksum or 0xFFFF)

    def unfinished(self) -> bytes:
        """As the kernel leaves it to a network card: the sum of the pseudo-header in the checksum field."""
        return self._ip_header() + self._transport(ones_complement_sum(self._pseudo_header()) % 0xFFFF)

    def super_packet(self, gso_size: int, *, more_type: int = 0, hdr_len: int | None = None) -> bytes:
        """What a TUN device hands out for this packet, to be cut into pieces of `gso_size` bytes."""
        gso_type = (TCPV4 if self.version == 4 else TCPV6) if self.is_tcp else UDP_L4
        header_bytes = self.header_bytes if hdr_len is None else hdr_len
        header = (
            NEEDS_CSUM,
            gso_type | more_type,
            header_bytes,
            gso_size,
            self.ip_bytes,
            self.checksum_at - self.ip_bytes,
        )
        return virtio(*header) + self.unfinished()

    def cut(self, gso_size: int) -> list[bytes]:
        """The packets a network card would send for that super-packet."""
        starts = range(0, len(self.payload), gso_size)
        return [bytes(self._piece(index, start, gso_size, start == starts[-1])) for index, start in enumerate(starts)]

    def _piece(self, index: int, start: int, gso_size: int, is_last: bool) -> Self:
        flags = self.flags & ~(CWR if index else 0) & ~(0 if is_last else FIN | PSH)
        return self.but(
            payload=self.payload[start : start + gso_size],
            seq=(self.seq + start) % 2**32,
            identification=(self.identification + index) % 2**16,
            flags=flags,
        )


def payload(size: int, seed: int = 1) -> bytes:
    """Bytes that differ from place to place."""
    return bytes((seed + n * 7 + n // 251) % 256 for n in range(size))


def spoil(packet: bytes, at: int) -> bytes:
    """The packet with one bit turned at `at`; negative counts from the end."""
    damaged = bytearray(packet)
    damaged[at] ^= 0x10
    return bytes(damaged)
