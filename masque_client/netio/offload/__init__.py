"""Segmentation and coalescing for TUN offload: the work of a network card, between super-packets and IP packets.

    read_buffers     the device                 → what the kernel has for us: packets, with offload super-packets
    segment          the kernel's super-packets → the packets that a network card would have sent       (TSO, USO)
    coalesce         packets from the tunnel    → super-packets that the kernel takes in one write      (GRO)
    write_buffers    packets or super-packets   → the device
    measure          super-packets              → how many packets they stand for, how many bytes

All work on a batch, and exist twice: compiled (C, `_compiled`) and in Python (`python_kernel`). This is where one is
chosen: the compiled one, unless it was not built or MASQUE_PURE_PYTHON=1 is set. `ACTIVE` says which.

A super-packet here always starts with the ten bytes of `virtio.VirtioHeader`, whatever follows.

segment(supers, prefix=b"")
    The packets of all `supers` in order, each behind `prefix` (the Context ID, for a caller that frames them at once).
    Their checksums are complete; IPv4 identifications and TCP sequence numbers count up; FIN and PSH are on the last
    only, CWR on the first. A super-packet that makes no sense (the kernel sends none) is passed on whole, for the
    packet filter to refuse and count.

coalesce(payloads, skip=0, merge_udp=False)
    The packets in `payloads`, each behind `skip` bytes, as super-packets. Order is kept within every flow, and between
    flows as far as that goes. TCP segments are merged when they follow each other, are of one size (the last may be
    shorter) and differ in nothing else that matters; PSH ends a super-packet; other flags, fragments, IPv4 options and
    IPv6 extension headers keep a packet alone. So does a wrong checksum, of IP or transport: the kernel shall see it.
    `merge_udp` does the same for UDP datagrams; only for a device that took TUN_F_USO4 and TUN_F_USO6.
    What is no IP packet passes unchanged. At most 65,535 bytes of packet per super-packet.

measure(supers)
    (packets, bytes) of what `segment` would make of them, headers of all included.

read_buffers(descriptor, limit, offload)
    Reads until nothing is there or `limit` packets are (a last super-packet is taken whole). Returns (buffers, packets,
    bytes, how many buffers were of more than one packet, errno that ended it or 0). Without `offload` a buffer is a
    packet.

write_buffers(descriptor, buffers, offload)
    Returns (packets, bytes, how many buffers were of more than one packet, packets dropped, errno). What the kernel
    refuses is dropped and the rest still written; only a descriptor that is none (EBADF) ends it.

The design was learnt from wireguard-go's `tun` package and the kernel's GRO.
"""

from __future__ import annotations

import contextlib
import os

from masque_client.netio.offload.python_kernel import coalesce, measure, read_buffers, segment, write_buffers

ACTIVE = "python"
"""Which kernel this process uses."""

if os.environ.get("MASQUE_PURE_PYTHON") != "1":
    with contextlib.suppress(ImportError):
        from masque_client.netio.offload._compiled import coalesce, measure, read_buffers, segment, write_buffers

        ACTIVE = "compiled"

IS_WORTHWHILE = ACTIVE == "compiled"
"""Whether offload costs less than it saves: in Python it takes twice what a system call per packet does."""

__all__ = ["ACTIVE", "IS_WORTHWHILE", "coalesce", "measure", "read_buffers", "segment", "write_buffers"]
