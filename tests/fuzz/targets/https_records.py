"""HTTPS records (SVCB) as the DNS gives them: the whole set parses, or is discarded for a reason of ours."""

from __future__ import annotations

from masque_client.errors import RemoteProtocolError
from masque_client.pvd.svcb import Hint, look_up_hint, parse_records
from tests.fuzz.harness import FuzzOne


def make() -> FuzzOne:
    """Input: RDATA, and again as what an alias leads to."""
    return fuzz_one


def fuzz_one(data: bytes) -> None:
    async def query(host: str) -> list[bytes]:
        return [data]

    try:
        is_readable = bool(parse_records([data]))
    except RemoteProtocolError:
        is_readable = False
    look_up = look_up_hint("pvd.example", query)
    try:
        look_up.send(None)  # nothing in it waits, so no loop is needed
    except StopIteration as answer:
        assert isinstance(answer.value, Hint)
        assert is_readable or answer.value is Hint.MALFORMED
