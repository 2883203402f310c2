"""Things that mean nothing, sent so that peers keep ignoring what they do not know.

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


def reserved_http3_id(number: int) -> int:
    """0x1f * `number` + 0x21: a setting, frame type or stream type that means nothing (RFC 9114 §7.2.4.1, §7.2.8)."""
    return 0x1F * (number % MAX_NUMBER) + 0x21


def reserved_transport_parameter(number: int, filler: bytes) -> bytes:
    """A whole transport parameter of the reserved id 31 * `number` + 27 (RFC 9000 §18.1)."""
    return encode_varint(31 * (number % MAX_NUMBER) + 27) + encode_varint(len(filler)) + filler


def reserved_version(number: int) -> int:
    """A QUIC version of the form 0x?a?a?a?a, which nobody selects (RFC 9000 §15)."""
    return 0x0A0A0A0A | (number & 0xF0F0F0F0)


def reserved_http2_setting(number: int) -> int:
    """An identifier of the form 0x?a?a, as TLS reserves them (RFC 8701 §2). HTTP/2 ignores all it does not know."""
    return 0x0A0A | (number & 0xF0F0)
