"""QUIC variable-length integers (RFC 9000 §16): the one integer format of capsules, Context IDs and stream ids."""

from __future__ import annotations

MAX_VARINT = (1 << 62) - 1
"""Largest value a variable-length integer can hold."""


def encode_varint(value: int) -> bytes:
    """Encode in the shortest of the four forms.

    Raises:
        ValueError: `value` is negative or over `MAX_VARINT`; never truncates.
    """
    if 0 <= value <= 0x3F:
        return value.to_bytes(1)
    if value < 0:
        raise ValueError(f"{value} is negative and has no variable-length encoding")
    if value <= 0x3FFF:
        return (0x4000 | value).to_bytes(2)
    if value <= 0x3FFF_FFFF:
        return (0x8000_0000 | value).to_bytes(4)
    if value <= MAX_VARINT:
        return (0xC000_0000_0000_0000 | value).to_bytes(8)
    raise ValueError(f"{value} does not fit in 62 bits")


def parse_varint(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int] | None:
    """Read one integer at `offset`; any of the four lengths is valid for any value (RFC 9297 §1.1).

    Returns:
        `(value, offset behind it)`, or None when `data` ends inside the integer. The caller knows whether more can
        come (a stream: wait) or not (an enclosing length: malformed).
    """
    if offset >= len(data):
        return None
    first = data[offset]
    if first < 0x40:
        return first, offset + 1
    length = 1 << (first >> 6)
    end = offset + length
    if end > len(data):
        return None
    mask = (1 << (8 * length - 2)) - 1
    return int.from_bytes(data[offset:end]) & mask, end
