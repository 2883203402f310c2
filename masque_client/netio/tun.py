"""The TUN device: IP packets of this machine, read and written in batches.

A packet is one layer-3 packet from its version nibble to its last payload byte, nothing before it (IFF_NO_PI), which is
what RFC 9484 §6 carries, with its checksums final (`masque-core` I-48). The device disappears with its last descriptor
unless someone made it persistent. Addresses, routes and MTU are `host`'s business.

With offload the kernel hands out and takes super-packets of up to 64 KiB, one per system call, which stand for dozens
of packets (`netio.offload`). `read_batch` and `write_batch` hide that. Who would rather judge a super-packet once than
each of its packets uses `read_super_packets` and `write_super_packets`, with `offload.segment` and `coalesce` between.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Self

from masque_client.errors import HostError
from masque_client.netio import offload as offload_kernel
from masque_client.netio.tun_setup import leave_plain, open_tun


@dataclass(slots=True)
class TunCounters:
    """What went through the device. Counters only grow. Read: host → tunnel; written: tunnel → host.

    Packets and bytes are those of final packets, however they crossed. Super-packets are crossings of more than one
    packet at once, so `packets_read` less what they held crossed alone.
    """

    packets_read: int = 0
    bytes_read: int = 0
    packets_written: int = 0
    bytes_written: int = 0
    write_drops: int = 0
    super_packets_read: int = 0
    super_packets_written: int = 0


class TunDevice:
    """One non-blocking queue of one TUN device. Not thread-safe; make it with `open`.

    Attributes:
        name: the interface's name as the kernel gave it.
        counters: see `TunCounters`.
        offload: packets cross as super-packets, and so do buffers of `read_super_packets` and `write_super_packets`.
        merges_udp: among them UDP datagrams (Linux 6.2).
    """

    def __init__(self, descriptor: int, name: str, *, offload: bool = False, merges_udp: bool = False) -> None:
        self.name = name
        self.counters = TunCounters()
        self.offload = offload
        self.merges_udp = merges_udp
        self._descriptor = descriptor
        self._outlives_us = False

    @classmethod
    def open(cls, name: str = "masque%d", *, attach: bool = False, offload: bool = True) -> Self:
        """Create a device in the network namespace of this thread, link down and without addresses.

        Args:
            name: at most 15 bytes; `%d` becomes the first free number.
            attach: allow `name` to be an existing persistent device that nobody has open. Its owner may do so
                without CAP_NET_ADMIN.
            offload: let packets cross as super-packets, if the kernel knows how and `offload.IS_WORTHWHILE`.

        Raises:
            ConfigurationError: the kernel would not take the name.
            PrivilegeError: no CAP_NET_ADMIN, or no /dev/net/tun.
            HostError: the name is taken, or the device is in use or of another kind.
        """
        opened = open_tun(name, attach=attach, offload=offload and offload_kernel.IS_WORTHWHILE)
        device = cls(opened.descriptor, opened.name, offload=opened.headers, merges_udp=opened.udp)
        device._outlives_us = attach
        return device

    @property
    def offload_kind(self) -> str:
        """For people: `compiled`, `python` or `off`."""
        return offload_kernel.ACTIVE if self.offload else "off"

    # --- packets ----------------------------------------------------------------------------------------------------

    def read_batch(self, limit: int = 64) -> list[bytes]:
        """Take the packets the host has sent, in order; empty when there are none.

        Reading ends with `limit` packets; a last super-packet is taken whole and may exceed it.

        Raises:
            HostError: the device was deleted under us; close it.
        """
        buffers = self.read_super_packets(limit)
        return offload_kernel.segment(buffers) if self.offload else buffers

    def write_batch(self, packets: Sequence[bytes]) -> int:
        """Hand packets to the host, in order; returns how many it took. The others are lost and counted.

        The order is kept within each flow. A link that is down refuses them all, and what is no IP packet is refused
        at any time.
        """
        if self.offload:
            packets = offload_kernel.coalesce(packets, 0, self.merges_udp)
        return self.write_super_packets(packets)

    # --- super-packets; without `offload` they are packets -----------------------------------------------------------

    def read_super_packets(self, limit: int = 64) -> list[bytes]:
        """What `read_batch` reads, as the kernel gave it: for `offload.segment`. `limit` counts packets."""
        supers, packets, size, multiple, error = offload_kernel.read_buffers(self._descriptor, limit, self.offload)
        if error:
            self._raise_gone(OSError(error, os.strerror(error)))
        counters = self.counters
        counters.packets_read += packets
        counters.bytes_read += size
        counters.super_packets_read += multiple
        return supers

    def write_super_packets(self, supers: Sequence[bytes]) -> int:
        """What `write_batch` writes, as `offload.coalesce` made it; returns how many packets the host took."""
        packets, size, multiple, drops, error = offload_kernel.write_buffers(self._descriptor, supers, self.offload)
        if error:
            raise OSError(error, os.strerror(error))
        counters = self.counters
        counters.packets_written += packets
        counters.bytes_written += size
        counters.super_packets_written += multiple
        counters.write_drops += drops
        return packets

    # --- the descriptor ---------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor, for readiness callbacks; -1 when closed."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor, and with it a device that is not persistent; harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            if self.offload and self._outlives_us:
                leave_plain(descriptor)
            os.close(descriptor)

    def _raise_gone(self, error: OSError) -> NoReturn:
        if error.errno == errno.EBADF:
            raise error
        raise HostError(
            f"the TUN device {self.name} is gone: {error.strerror}", hint="something else deleted it; try again"
        ) from error
