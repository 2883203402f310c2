"""One request stream of the HTTP/2 engine, and what waits on it for flow control.

Two kinds of bytes leave a stream. Content (control capsules) must arrive, all of it and in order. HTTP Datagrams are
worth nothing when late: they wait as payloads, bounded in bytes and age, and become DATAGRAM capsules (RFC 9297 §3.5)
only when the window lets them go. A capsule that has begun to leave is content: half of one would break the stream.
"""

from __future__ import annotations

from masque_client.engine.datagram_queue import DatagramQueue
from masque_client.protocol.capsule import datagram_capsule_head

MAX_CONTENT_BYTES = 1 << 20
"""Control capsules that a peer may leave waiting before its stream is given up: it asks and does not read."""


class H2Stream:
    """What the engine remembers of one request, from HEADERS until both halves are closed.

    Attributes:
        is_tunnel: the request was an extended CONNECT.
        has_final_headers: the request (server) or the final response (client) has been received.
        is_established: client: that response was a 2xx, so only DATA may follow (RFC 9113 §8.5).
        content: bytes of DATA frames that must leave, next first.
        datagrams: HTTP Datagram Payloads that may leave after it.
        is_ending: our half ends once `content` has left.
    """

    __slots__ = (
        "can_receive",
        "can_send",
        "content",
        "datagrams",
        "has_final_headers",
        "is_ending",
        "is_established",
        "is_tunnel",
        "stream_id",
    )

    def __init__(self, stream_id: int, datagrams: DatagramQueue, *, is_tunnel: bool, has_final_headers: bool) -> None:
        self.stream_id = stream_id
        self.is_tunnel = is_tunnel
        self.can_send = True
        self.can_receive = True
        self.has_final_headers = has_final_headers
        self.is_established = False
        self.content = bytearray()
        self.datagrams = datagrams
        self.is_ending = False

    @property
    def has_output(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self.content or self.datagrams.items or self.is_ending)

    def take(self, max_bytes: int) -> bytes:
        """The next at most `max_bytes` bytes for a DATA frame; whole capsules as far as they fit."""
        content, items = self.content, self.datagrams.items
        while items and len(content) < max_bytes:
            payload = items.popleft()
            content += datagram_capsule_head(len(payload))
            content += payload
        piece = bytes(content[:max_bytes])
        del content[:max_bytes]
        return piece

    def end(self) -> None:
        """Send nothing new: what waits of datagrams is dropped, content still leaves (RFC 9297 §2.1)."""
        self.datagrams.items.clear()
        self.datagrams.settle()
        self.is_ending = True
