"""The capsule reader: whole and cut anywhere it finds the same capsules, counts the same drops, ends the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from masque_client.errors import RemoteProtocolError
from masque_client.protocol.capsule import Capsule, CapsuleReader, CapsuleType
from masque_client.protocol.dns_capsules import DRAFT_TYPES
from masque_client.protocol.drops import DropReason
from tests.fuzz.choices import pieces
from tests.fuzz.harness import FuzzOne

LIMIT = 64
"""Small, so that the fuzzer meets it."""
KNOWN = dict.fromkeys([*CapsuleType, *DRAFT_TYPES.limits], LIMIT)

Outcome = tuple[list[Capsule], Counter[DropReason], str]


def make() -> FuzzOne:
    """Input: one byte of flags (1: skip long datagrams) and number of cuts, the cuts, the stream."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    flags = data[0] if data else 0
    cuts, stream = data[1 : 1 + (flags >> 4)], data[1 + (flags >> 4) :]
    whole = read([stream], skip_long=bool(flags & 1))
    piecewise = read(pieces(stream, cuts or b"\1"), skip_long=bool(flags & 1))
    assert whole[1:] == piecewise[1:], (whole, piecewise)
    if not whole[2]:
        assert whole == piecewise  # before an error, what was complete may have been given out already, or not
        again = read([b"".join(capsule.encode() for capsule in whole[0])], skip_long=False)
        assert again[0] == whole[0]


def read(chunks: Iterable[bytes], *, skip_long: bool) -> Outcome:
    """The capsules, the drops, and the error as text."""
    drops: Counter[DropReason] = Counter()
    reader = CapsuleReader(KNOWN, drops=drops, skip_long_datagrams=skip_long)
    found: list[Capsule] = []
    try:
        for chunk in chunks:
            found += reader.receive_data(chunk)
            assert len(reader._buffer) <= LIMIT + 3 * 8, "more is kept than one capsule"
        reader.receive_end()
    except RemoteProtocolError as error:
        return found, drops, str(error)
    assert all(len(capsule.value) <= LIMIT + 8 for capsule in found)
    return found, drops, ""
