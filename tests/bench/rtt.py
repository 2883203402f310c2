"""Round-trip times by ICMP echo, in microseconds that mean something.

As `masque_client.testing.ping`, but the moment of arrival is the kernel's (SO_TIMESTAMPNS): how late a busy machine
wakes this process is not part of the answer. The target's kernel replies, so no process waits for a core there either.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from dataclasses import dataclass

from tests.bench.summary import percentile

_SO_TIMESTAMPNS = 35
_REQUEST, _REPLY = 8, 0
_PAYLOAD = bytes(48)


@dataclass(frozen=True, slots=True)
class RttResult:
    """Times of the answers in ms, in order of arrival; `lost` requests got none."""

    times_ms: tuple[float, ...]
    lost: int

    @property
    def p50_ms(self) -> float:
        """The median."""
        return percentile(self.times_ms, 0.5)

    @property
    def p99_ms(self) -> float:
        """Only one in a hundred took longer."""
        return percentile(self.times_ms, 0.99)


class EchoProber:
    """A raw socket of the calling thread's namespace. A context manager; needs CAP_NET_RAW."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._identifier = os.getpid() & 0xFFFF
        self._sequence = 0
        self._sent_at: dict[int, int] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setblocking(False)

    def __enter__(self) -> EchoProber:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait_for_answer(self, timeout_s: float, *, interval_s: float = 0.002) -> bool:
        """Ask every `interval_s` until one answer comes; False when none did."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._send()
            if self._receive(interval_s):
                return True
        return False

    def measure(self, count: int, *, interval_s: float = 0.003, wait_s: float = 0.5) -> RttResult:
        """Ask `count` times at fixed intervals, answered or not, and wait `wait_s` for stragglers."""
        self._sent_at.clear()
        times: list[float] = []
        start = time.monotonic()
        for number in range(count):
            self._send()
            while (left := start + (number + 1) * interval_s - time.monotonic()) > 0:
                times += self._receive(left)
        deadline = time.monotonic() + wait_s
        while len(times) < count and (left := deadline - time.monotonic()) > 0:
            times += self._receive(left)
        return RttResult(tuple(times), count - len(times))

    def _send(self) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF
        head = struct.pack("!BBHHH", _REQUEST, 0, 0, self._identifier, self._sequence)
        words = sum(struct.unpack("!4H", head))  # the payload is zero
        words = (words & 0xFFFF) + (words >> 16)
        head = head[:2] + struct.pack("!H", ~(words + (words >> 16)) & 0xFFFF) + head[4:]
        self._sent_at[self._sequence] = time.clock_gettime_ns(time.CLOCK_REALTIME)
        with contextlib.suppress(OSError):  # no route yet, or no buffer: a lost request
            self._socket.sendto(head + _PAYLOAD, (self._address, 0))

    def _receive(self, timeout_s: float) -> list[float]:
        """Times of what has arrived within `timeout_s`; returns after the first batch."""
        select.select([self._socket], [], [], max(0.0, timeout_s))
        times = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, ancillary, _, _ = self._socket.recvmsg(2048, 64)
                if (sent_at := self._match(packet)) is not None:
                    times.append((_arrival_ns(ancillary) - sent_at) / 1e6)
        return times

    def _match(self, packet: bytes) -> int | None:
        """When the request that this answers was sent; None when it answers none of ours."""
        kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", packet, (packet[0] & 0x0F) * 4)
        return self._sent_at.pop(sequence, None) if (kind, identifier) == (_REPLY, self._identifier) else None


def _arrival_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("@qq", data[:16])
            return int(seconds * 10**9 + nanoseconds)
    raise OSError("the kernel gave no time of arrival")
