"""The loops of a UDP socket, as `udp_receive.c` and `udp_send.c`: a batch at a time."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from typing import Final

from masque_client.engine.interface import Address, ReceivedBuffer
from masque_client.netio.sockopt import UDP_SEGMENT

MAX_SEGMENTS: Final = 64
"""Datagrams per GSO train: the kernel's UDP_MAX_SEGMENTS (64 for long, 128 in newer kernels)."""

MAX_TRAIN_BYTES: Final = 65_000
"""UDP payload per GSO train; the kernel's limit is 65,535 less the headers of IP and UDP."""

RECEIVE_BYTES: Final = 65_535
"""Room for one read: a GRO train is never larger than the largest UDP datagram."""

_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(4)
_GRO_SIZE: Final = struct.Struct("i")
_GSO_SIZE: Final = struct.Struct("H")

_NO_SOCKET: Final = frozenset({errno.EBADF, errno.ENOTSOCK})


def receive_trains(
    sock: socket.socket, limit: int, remote: Address | None, /
) -> tuple[list[ReceivedBuffer], int, int, int, list[int]]:
    """See the package."""
    batch: list[ReceivedBuffer] = []
    errors: list[int] = []
    datagrams = octets = empty = 0
    for _ in range(limit):
        try:
            data, ancillary, _flags, source = sock.recvmsg(RECEIVE_BYTES, _ANCILLARY_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno is None or error.errno in _NO_SOCKET:
                raise
            errors.append(error.errno)
            continue
        length = len(data)
        # UDP_GRO is the only ancillary data we ask for, and it comes with trains only.
        size = _GRO_SIZE.unpack(ancillary[0][2])[0] if ancillary else length
        datagrams += -(-length // size) if size else 1
        octets += length
        empty += not length
        batch.append(ReceivedBuffer(data, size, remote or source[:2]))
    return batch, datagrams, octets, empty, errors


def send_trains(
    sock: socket.socket, datagrams: Sequence[tuple[bytes, Address]], start: int, family: int, in_trains: bool, /
) -> tuple[int, int, int, int, int]:
    """See the package."""
    position, end, calls, octets = start, start, 0, 0
    while position < len(datagrams):
        end = _train_end(datagrams, position, bool(family)) if in_trains else position + 1
        address = datagrams[position][1] if family else None
        try:
            octets += _send(sock, [datagram[0] for datagram in datagrams[position:end]], address)
        except OSError as error:
            return position, end, error.errno or errno.EIO, calls, octets
        calls += 1
        position = end
    return position, end, 0, calls, octets


def _send(sock: socket.socket, payloads: list[bytes], address: Address | None) -> int:
    if len(payloads) > 1:
        segment = (socket.SOL_UDP, UDP_SEGMENT, _GSO_SIZE.pack(len(payloads[0])))
        return sock.sendmsg(payloads, [segment], socket.MSG_DONTWAIT, address)
    if address is None:
        return sock.send(payloads[0], socket.MSG_DONTWAIT)
    return sock.sendto(payloads[0], socket.MSG_DONTWAIT, address)


def _train_end(datagrams: Sequence[tuple[bytes, Address]], start: int, is_addressed: bool) -> int:
    """Where the train that begins at `start` ends: same address, same size; a shorter one may close it.

    A zero-length datagram travels alone: as the last of a train it would vanish.
    """
    data, address = datagrams[start]
    size = len(data)
    if not size:
        return start + 1
    limit = min(len(datagrams), start + max(1, min(MAX_SEGMENTS, MAX_TRAIN_BYTES // size)))
    for end in range(start + 1, limit):
        data, other = datagrams[end]
        if is_addressed and other != address:
            return end
        if len(data) != size:
            return end + 1 if 0 < len(data) < size else end
    return limit
