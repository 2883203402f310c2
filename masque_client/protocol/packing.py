"""How IP packets lie in the buffers that a device and a CONNECT-IP session exchange.

One packet per buffer is the plain case. With the kernel's offload a buffer is a super-packet, whose one header stands
for a run of packets of one flow (`netio.packing`). All packets of a buffer have the same addresses and protocol, so a
verdict on the buffer is a verdict on each of them, and what costs per packet is paid once for dozens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

Split = Callable[[Sequence[bytes], bytes], list[bytes]]
"""`Packing.split`, for those who need nothing else of it."""


class Packing(Protocol):
    """What to know of buffers to judge them, and how to get packets into and out of them."""

    @property
    def head(self) -> int:
        """Bytes in front of the IP header in every buffer."""

    def measure(self, buffers: Sequence[bytes], /) -> tuple[int, int]:
        """How many packets are in the buffers, and their bytes together, headers of all included."""

    def largest(self, buffer: bytes) -> int:
        """Size of the largest packet in a buffer, in bytes."""

    def split(self, buffers: Sequence[bytes], prefix: bytes, /) -> list[bytes]:
        """The packets in the buffers, in order, each behind `prefix`."""

    def gather(self, datagrams: Sequence[bytes], skip: int, /) -> list[bytes]:
        """Buffers with the packets that lie in `datagrams` behind `skip` bytes; each flow keeps its order."""


class OnePerBuffer:
    """The plain case."""

    head = 0

    def measure(self, buffers: Sequence[bytes], /) -> tuple[int, int]:
        """See `Packing`."""
        return len(buffers), sum(map(len, buffers))

    def largest(self, buffer: bytes) -> int:
        """See `Packing`."""
        return len(buffer)

    def split(self, buffers: Sequence[bytes], prefix: bytes, /) -> list[bytes]:
        """See `Packing`."""
        return [prefix + buffer for buffer in buffers]

    def gather(self, datagrams: Sequence[bytes], skip: int, /) -> list[bytes]:
        """See `Packing`."""
        return [datagram[skip:] for datagram in datagrams]


ONE_PER_BUFFER = OnePerBuffer()
