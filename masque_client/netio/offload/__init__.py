"""Offload: many packets per system call, at the TUN device and at the UDP socket. The inner loops of both.

    read_buffers      the TUN device → what the kernel has for us: packets, with offload super-packets
    segment           super-packets → the packets that a network card would have sent                 (TSO, USO)
    coalesce          packets from the tunnel → super-packets that the kernel takes in one write      (GRO)
    write_buffers     packets or super-packets → the TUN device
    measure           super-packets → how many packets they stand for, how many bytes

    receive_trains    the UDP socket → buffers of one or more datagrams                               (UDP_GRO)
    send_trains       datagrams → the UDP socket, in as few system calls as they allow                (UDP_SEGMENT)

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

receive_trains(sock, limit, remote)
    `(buffers, datagrams, bytes, empty, errors)`: what waits in `sock`, at most `limit` buffers, each from `remote`,
    or from who sent it where that is None; how many datagrams and bytes they hold; how many are empty; and the errno
    values that answered earlier datagrams (ICMP), each of which counts against `limit`, too.
    Raises OSError when `sock` is closed.

send_trains(sock, datagrams, start, family, in_trains)
    `(position, end, errno, calls, bytes)`: all from `start` to before `position` were sent, in that many calls and
    bytes. When those are not all, `errno` tells why the kernel refused `position` to before `end`, which would have
    been the next call's; what to do about it is left to the caller. (C also leaves it what it cannot read itself, such
    as host names, saying EAFNOSUPPORT.) `family` is that of the datagrams' addresses, or 0 to send to the peer of a
    connected socket. Datagrams go one by one unless `in_trains`.

Neither of the two ever waits, whatever the socket's mode.

The design of the TUN half was learnt from wireguard-go's `tun` package and the kernel's GRO.
"""

from __future__ import annotations

import contextlib
import os

from masque_client.netio.offload.python_kernel import (
    coalesce,
    measure,
    read_buffers,
    receive_trains,
    segment,
    send_trains,
    write_buffers,
)

ACTIVE = "python"
"""Which kernel this process uses."""

if os.environ.get("MASQUE_PURE_PYTHON") != "1":
    with contextlib.suppress(ImportError):
        from masque_client.netio.offload._compiled import (
            coalesce,
            measure,
            read_buffers,
            receive_trains,
            segment,
            send_trains,
            write_buffers,
        )

        ACTIVE = "compiled"

IS_WORTHWHILE = ACTIVE == "compiled"
"""Whether TUN offload costs less than it saves: in Python it takes twice what a system call per packet does."""

__all__ = [
    "ACTIVE",
    "IS_WORTHWHILE",
    "coalesce",
    "measure",
    "read_buffers",
    "receive_trains",
    "segment",
    "send_trains",
    "write_buffers",
]
