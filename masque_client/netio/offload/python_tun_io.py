"""The system calls of a TUN device, as `tun_io.c`: a batch at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from masque_client.netio.offload.python_segment import measure
from masque_client.netio.offload.virtio import HEADER_BYTES, MAX_PACKET_BYTES


def read_buffers(descriptor: int, limit: int, offload: bool, /) -> tuple[list[bytes], int, int, int, int]:
    """See the package."""
    read = os.read
    buffers: list[bytes] = []
    packets = size = multiple = error = 0
    try:
        while packets < limit:
            buffer = read(descriptor, HEADER_BYTES + MAX_PACKET_BYTES)
            buffers.append(buffer)
            if offload:
                count, total = measure((buffer,))
                multiple += count > 1
            else:
                count, total = 1, len(buffer)
            packets += count
            size += total
    except BlockingIOError:
        pass
    except OSError as problem:
        error = problem.errno or 0
    return buffers, packets, size, multiple, error


def write_buffers(descriptor: int, buffers: Iterable[bytes], offload: bool, /) -> tuple[int, int, int, int, int]:
    """See the package."""
    write = os.write
    packets = size = multiple = dropped = 0
    count = 1
    for buffer in buffers:
        total = len(buffer)
        if offload:
            count, total = measure((buffer,))
        try:
            write(descriptor, buffer)
        except OSError as problem:
            if problem.errno == errno.EBADF:
                return packets, size, multiple, dropped, errno.EBADF
            dropped += count
            continue
        packets += count
        size += total
        if count > 1:
            multiple += 1
    return packets, size, multiple, dropped, 0
