"""The packets' side of a TUN device: its buffers, whichever kind they are, and what is in them.

Who forwards packets reads and writes buffers through a `TunPort` and leaves them packed as long as possible; only the
QUIC engine needs single packets. With offload a buffer is a super-packet (`netio.offload`), else a packet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from masque_client.netio import offload
from masque_client.netio.offload.virtio import HEADER, HEADER_BYTES, VirtioHeader
from masque_client.netio.tun import TunDevice
from masque_client.protocol.packing import ONE_PER_BUFFER, Packing

_GSO_SIZE = VirtioHeader._fields.index("gso_size")


class SuperPackets:
    """Packing as the kernel's: a virtio_net_hdr and a super-packet in each buffer.

    Args:
        merges_udp: whether the device takes merged UDP datagrams.
    """

    head = HEADER_BYTES

    def __init__(self, *, merges_udp: bool) -> None:
        self._merges_udp = merges_udp

    def measure(self, buffers: Sequence[bytes], /) -> tuple[int, int]:
        """See `Packing`."""
        return offload.measure(buffers)

    def largest(self, buffer: bytes) -> int:
        """See `Packing`."""
        count, total = offload.measure([buffer])
        if count == 1:
            return total
        headers = (total - len(buffer) + HEADER_BYTES) // (count - 1)  # the super-packet has one set of them itself
        gso_size: int = HEADER.unpack_from(buffer)[_GSO_SIZE]
        return headers + gso_size

    def split(self, buffers: Sequence[bytes], prefix: bytes, /) -> list[bytes]:
        """See `Packing`."""
        return offload.segment(buffers, prefix)

    def gather(self, datagrams: Sequence[bytes], skip: int, /) -> list[bytes]:
        """See `Packing`."""
        return offload.coalesce(datagrams, skip, self._merges_udp)


class TunPort:
    """A TUN device as the road of the packets sees it.

    Attributes:
        packing: of the buffers that `read` returns and `write` takes. A session's must be the same.
        read: up to so many packets, or one super-packet more, in buffers; see `TunDevice.read_batch` for errors.
        write: takes buffers, returns how many packets the host took.
    """

    read: Callable[[int], list[bytes]]
    write: Callable[[Sequence[bytes]], int]

    def __init__(self, tun: TunDevice) -> None:
        self.packing: Packing
        if tun.offload:
            self.packing = SuperPackets(merges_udp=tun.merges_udp)
            self.read, self.write = tun.read_super_packets, tun.write_super_packets
        else:
            self.packing = ONE_PER_BUFFER
            self.read, self.write = tun.read_batch, tun.write_batch
        self.fileno = tun.fileno
        self.write_packets = tun.write_batch
        """Takes single packets, whatever the packing: for the few that are made here, such as ICMP."""
