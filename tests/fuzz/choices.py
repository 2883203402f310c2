"""Reads an input as a series of decisions. Any bytes are a valid series: what is missing reads as zero or empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Step(NamedTuple):
    """One thing to do: which (`kind`), to what (`argument`), with which bytes."""

    kind: int
    argument: int
    payload: bytes

    def encode(self) -> bytes:
        """The bytes that `parse_steps` reads as this step."""
        return bytes((self.kind, self.argument, len(self.payload))) + self.payload


def parse_steps(data: bytes) -> Iterator[Step]:
    """`kind (8), argument (8), length (8), payload`, repeated; a cut payload is as long as it is."""
    offset = 0
    while offset < len(data):
        kind, argument, length = data[offset : offset + 3].ljust(3, b"\0")
        offset += 3
        yield Step(kind, argument, data[offset : offset + length])
        offset += length


def encode_steps(*steps: tuple[int, int, bytes]) -> bytes:
    """An input made of these steps; payloads have at most 255 bytes."""
    return b"".join(Step(*step).encode() for step in steps)


def pieces(data: bytes, cuts: bytes) -> Iterator[bytes]:
    """`data` cut into pieces whose lengths are the bytes of `cuts`, over and over; whole when there are none."""
    offset = turn = 0
    while offset < len(data):
        size = max(1, cuts[turn % len(cuts)]) if cuts else len(data)
        yield data[offset : offset + size]
        offset, turn = offset + size, turn + 1
