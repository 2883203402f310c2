"""HTTP Datagrams where the peer takes no QUIC DATAGRAM frames: capsules on their request streams (RFC 9297 §2.2, §3.5).

A stream loses nothing and gives nothing back: what is handed over leaves, however late. So little is, and the caller
waits; congestion control and flow control are the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from masque_client.protocol.capsule import datagram_capsule_head
from masque_client.protocol.mtu import MAX_HTTP_DATAGRAM_IN_CAPSULE
from masque_client.protocol.packing import Split

MAX_UNSENT_BYTES = 64 * 1024
"""Waiting on one stream: half a second at one Mbit/s."""


class CapsuleSender:
    """For all streams of one connection.

    Args:
        unsent: bytes of a stream that the library has not sent once.
        send: hands bytes to a stream.

    Attributes:
        too_large: payloads refused for size so far.
    """

    def __init__(self, unsent: Callable[[int], int], send: Callable[[int, bytes], None]) -> None:
        self.too_large = 0
        self._unsent = unsent
        self._send = send
        self._full: set[int] = set()

    @property
    def is_full(self) -> bool:
        """Whether a stream that refused payloads still holds as much as it may."""
        self._full = {stream_id for stream_id in self._full if self._unsent(stream_id) >= MAX_UNSENT_BYTES}
        return bool(self._full)

    def put(self, stream_id: int, payloads: Sequence[bytes], prefix: bytes, split: Split | None) -> int:
        """As `Engine.send_datagrams`; the last payload taken may overshoot the bound."""
        waiting, content, dealt = self._unsent(stream_id), bytearray(), 0
        for payload in payloads:
            if waiting + len(content) >= MAX_UNSENT_BYTES:
                self._full.add(stream_id)
                break
            for item in (prefix + payload,) if split is None else split((payload,), prefix):
                if len(item) > MAX_HTTP_DATAGRAM_IN_CAPSULE:
                    self.too_large += 1
                else:
                    content += datagram_capsule_head(len(item)) + item
            dealt += 1
        if content:
            self._send(stream_id, bytes(content))
        return dealt
