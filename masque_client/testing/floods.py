"""More than a client could keep: what the test proxy pours into an open tunnel when a test asks for it.

All of it is legal, and has to be skipped or dropped without being kept (RFC 9297 §3.2, RFC 9298 §4, RFC 9484 §7.2).
At the end comes a DATAGRAM capsule with `FLOOD_OVER`, which no congestion drops: whoever delivers it has come through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from masque_client.engine.h2_engine import H2Engine
from masque_client.http.request_stream import RequestStream
from masque_client.protocol.capsule import CapsuleType, encode_capsule
from masque_client.protocol.ip_packet import UDP, build_ipv4
from masque_client.protocol.session import CONTEXT_ID_0
from masque_client.protocol.varint import encode_varint

FLOOD_OVER: Final = b"the flood is over"
"""An inner payload: a UDP payload, or no IP packet at all, which CONNECT-IP drops and counts."""

_RESERVED_CAPSULE = 0x29 * 1000 + 0x17  # RFC 9297 §5.4
_CHUNK = 64 * 1024
_BATCH = 64
_PAUSE_S = 0.001
"""Between batches, so that it is not our own queues that drop them."""


@dataclass(frozen=True, slots=True)
class Flood:
    """How much of what. The default: nothing.

    Attributes:
        capsule_bytes: length of one capsule of an unknown type, sent in pieces.
        capsules: number of small ones of unknown types, each of another.
        contexts: number of HTTP Datagrams, each with a Context ID of its own that nobody registered.
        strangers: number of IP packets that are for somebody else.
    """

    capsule_bytes: int = 0
    capsules: int = 0
    contexts: int = 0
    strangers: int = 0


NO_FLOOD: Final = Flood()


async def pour(flood: Flood, stream: RequestStream, *, end_stream: bool = False) -> None:
    """Send it all, and `FLOOD_OVER` behind it; ends early with the connection."""
    connection = stream.connection
    for content in _content(flood):
        stream.send_data(content)
        connection.flush()
        await asyncio.sleep(0)
        while _is_held_back(stream):  # noqa: ASYNC110  # nobody tells of room for content: only a flood needs it
            await asyncio.sleep(_PAUSE_S)
    for batch in _batches(_datagrams(flood)):
        waiting = batch
        while connection.closed is None and (waiting := waiting[stream.send_datagrams(waiting) :]):
            connection.flush()
            await asyncio.sleep(_PAUSE_S)
        connection.flush()
        await asyncio.sleep(_PAUSE_S)
    stream.send_data(encode_capsule(CapsuleType.DATAGRAM, CONTEXT_ID_0 + FLOOD_OVER), end_stream=end_stream)
    connection.flush()


def _is_held_back(stream: RequestStream) -> bool:
    """HTTP/2's engine gives up a stream whose content piles up."""
    engine, closed = stream.connection.engine, stream.connection.closed
    return closed is None and isinstance(engine, H2Engine) and engine.waiting_content(stream.stream_id) > 0


def _content(flood: Flood) -> Iterator[bytes]:
    if flood.capsule_bytes:
        yield encode_varint(_RESERVED_CAPSULE) + encode_varint(flood.capsule_bytes)
    for start in range(0, flood.capsule_bytes, _CHUNK):
        yield bytes(min(_CHUNK, flood.capsule_bytes - start))
    unknown = (encode_capsule(_RESERVED_CAPSULE + 0x29 * number, b"unknown") for number in range(flood.capsules))
    for batch in _batches(unknown):
        yield b"".join(batch)


def _datagrams(flood: Flood) -> Iterator[bytes]:
    for number in range(flood.contexts):
        yield encode_varint(1 + number) + b"unregistered"
    for number in range(flood.strangers):
        somebody = IPv4Address("203.0.113.0") + number % 256
        yield CONTEXT_ID_0 + build_ipv4(IPv4Address("198.51.100.1").packed, somebody.packed, UDP, b"not for you")


def _batches(items: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for item in items:
        batch.append(item)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
