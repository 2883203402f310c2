"""UDP load for measuring: a paced sender that costs little, and a sink that costs nothing.

The sender is a process of its own that takes orders on stdin (`python -m tests.bench.udp_load ADDRESS PORT`), one JSON
object a line, `{"size": 64, "rate": 50000, "seconds": 0.5}`, and answers `{"sent": 25000, "seconds": 0.5}`. Packets go
in batches by sendmmsg(2): separate packets for whoever carries them, in contrast to UDP GSO, which would favour those
that take super-packets.

The sink's socket has a filter that refuses every datagram, and the kernel counts what a filter refuses: no receiving
process competes with the tunnel for the cores, and none can be the bottleneck.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

BATCH_PACKETS = 32
PAUSE_S = 0.0002
MAX_CATCH_UP_S = 0.004
"""A sender that was preempted for longer skips what it missed: nobody asked for a burst."""

_SO_ATTACH_FILTER, _SO_MEMINFO = 26, 55
_REFUSE_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0 bytes kept
_MEMINFO_FIELDS, _MEMINFO_DROPS = 9, 8


class CountingSink:
    """A UDP port of the calling thread's namespace where datagrams end and are counted. A context manager."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            program = ctypes.create_string_buffer(_REFUSE_ALL)
            self._socket.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program))
            )
            self._socket.bind((address, port))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def count(self) -> int:
        """Datagrams so far; wraps at 2^32."""
        info = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * _MEMINFO_FIELDS)
        return int(struct.unpack(f"={_MEMINFO_FIELDS}I", info)[_MEMINFO_DROPS])


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MessageHeader(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_IoVector)),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),  # of the struct mmsghdr around it
    )


class Sender:
    """Sends datagrams of `size` payload bytes over a connected socket, many per system call."""

    def __init__(self, connected: socket.socket, size: int) -> None:
        self._socket = connected
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._payload = ctypes.create_string_buffer(bytes(size), size)
        self._vector = _IoVector(ctypes.addressof(self._payload), size)
        header = _MessageHeader(vector=ctypes.pointer(self._vector), vector_length=1)
        self._headers = (_MessageHeader * BATCH_PACKETS)(*[header] * BATCH_PACKETS)

    def send_batch(self, count: int) -> int:
        """Send up to `count` datagrams, at most BATCH_PACKETS; returns how many the kernel took.

        Raises:
            OSError: other than a full queue or an ICMP error, which are losses like any other.
        """
        taken: int = self._libc.sendmmsg(self._socket.fileno(), self._headers, min(count, BATCH_PACKETS), 0)
        if taken >= 0:
            return taken
        if (code := ctypes.get_errno()) in _LOSSES:
            return 0
        raise OSError(code, os.strerror(code))

    def send_at(self, rate: float, seconds: float) -> tuple[int, float]:
        """Send `rate` packets/s for about `seconds`; returns packets sent and seconds taken."""
        sent = skipped = 0
        start = now = time.perf_counter()
        while (now := time.perf_counter()) - start < seconds:
            due = int(rate * (now - start)) - sent - skipped
            if due > rate * MAX_CATCH_UP_S + BATCH_PACKETS:
                skipped += due - 1
                due = 1
            if due <= 0:
                time.sleep(PAUSE_S)
            else:
                sent += self.send_batch(due)
        return sent, now - start


_LOSSES = {11, 105, 111, 113}  # EAGAIN, ENOBUFS, ECONNREFUSED, EHOSTUNREACH


def main(arguments: Sequence[str] | None = None) -> int:
    """Take orders until stdin ends."""
    address, port = (arguments or sys.argv[1:])[:2]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected:
        connected.connect((address, int(port)))
        for line in sys.stdin:
            order = json.loads(line)
            sent, seconds = Sender(connected, order["size"]).send_at(order["rate"], order["seconds"])
            print(json.dumps({"sent": sent, "seconds": seconds}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
