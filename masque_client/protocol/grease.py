"""Things that mean nothing, sent so that peers keep ignoring what they do not know (RFC 9297 §5.4, RFC 9298 §4).

A standard that only ever sees what it knows today cannot grow tomorrow. Randomness comes in as an argument.
"""

from __future__ import annotations

from masque_client.protocol.capsule import encode_capsule
from masque_client.protocol.varint import encode_varint

MAX_NUMBER = 1 << 16
"""Keeps capsule types far below the draft-era ones around 0xff37a0, which some proxies still obey (digest F-21)."""


def reserved_capsule(number: int, filler: bytes) -> bytes:
    """A capsule of the reserved type 0x29 * `number` + 0x17, whole (RFC 9297 §5.4)."""
    return encode_capsule(0x29 * (number % MAX_NUMBER) + 0x17, filler)


def unused_context(number: int) -> bytes:
    """An even, so client-allocated, Context ID that was never registered (RFC 9298 §4): never 0."""
    return encode_varint(2 * (number % MAX_NUMBER) + 2)
